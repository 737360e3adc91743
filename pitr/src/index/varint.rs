//! Numbers of variable length: seven bits a byte, the lowest first, the eighth bit set on all but the last byte (LEB128).
//! Signed ones are folded first (0, −1, 1, −2, …). The reader accepts only the shortest form, so that every value has
//! one encoding.

use super::IndexError;

pub(super) fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80); // the low seven bits, cut on purpose
        value >>= 7;
    }
    out.push(value as u8);
}

pub(super) fn put_signed(out: &mut Vec<u8>, value: i64) {
    put(out, (value << 1 ^ value >> 63) as u64);
}

/// What is left to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Input<'a>(pub &'a [u8]);

const CUT: IndexError = IndexError::Damaged { reason: "it ends too early" };
const NUMBER: IndexError =
    IndexError::Damaged { reason: "a number in it is too large or not in its shortest form" };

impl<'a> Input<'a> {
    pub(super) fn bytes(&mut self, len: usize) -> Result<&'a [u8], IndexError> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(CUT)?;
        self.0 = rest;
        Ok(head)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], IndexError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(CUT)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn number(&mut self) -> Result<u64, IndexError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 || shift > 0 && byte == 0 {
                return Err(NUMBER);
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(NUMBER)
    }

    pub(super) fn number_u32(&mut self) -> Result<u32, IndexError> {
        u32::try_from(self.number()?).map_err(|_| NUMBER)
    }

    pub(super) fn signed(&mut self) -> Result<i64, IndexError> {
        let folded = self.number()?;
        Ok((folded >> 1) as i64 ^ -((folded & 1) as i64))
    }

    /// How many items follow, each of which takes at least `item` bytes: so a count can promise no more memory than
    /// the input's own length justifies.
    pub(super) fn count(&mut self, item: usize) -> Result<usize, IndexError> {
        let count = usize::try_from(self.number()?).map_err(|_| NUMBER)?;
        match count.checked_mul(item) {
            Some(needed) if needed <= self.0.len() => Ok(count),
            _ => Err(CUT),
        }
    }

    pub(super) fn end(&self) -> Result<(), IndexError> {
        if self.0.is_empty() { Ok(()) } else { Err(IndexError::Damaged { reason: "bytes are left over" }) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(value: u64, signed: i64) {
            let mut out = Vec::new();
            put(&mut out, value);
            put_signed(&mut out, signed);
            let mut input = Input(&out);
            prop_assert_eq!(input.number().unwrap(), value);
            prop_assert_eq!(input.signed().unwrap(), signed);
            input.end().unwrap();
        }

        #[test]
        fn one_encoding_a_number(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            let mut input = Input(&bytes);
            if let Ok(value) = input.number() {
                let mut out = Vec::new();
                put(&mut out, value);
                prop_assert_eq!(&out[..], &bytes[..bytes.len() - input.0.len()]);
            }
        }
    }

    #[test]
    fn a_count_is_held_to_what_is_there() {
        assert_eq!(Input(&[3, 0, 0, 0]).count(1).unwrap(), 3);
        assert!(Input(&[4, 0, 0, 0]).count(1).is_err());
        assert!(
            Input(&[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 1, 0]).count(usize::MAX).is_err()
        );
    }
}
