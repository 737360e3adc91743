//! AES-256-GCM for frames: in place, the tag behind the ciphertext.
//!
//! A nonce is the number of a frame. It never repeats under one key, since every object has a key of its own, the
//! frames of an object are numbered, and the attachment has another key.
//!
//! The implementation is AWS-LC's, which is linked for TLS already: on one core it is five times as fast as the pure one,
//! which the tests hold it against, byte for byte.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Bytes of a tag.
pub(super) const TAG_LEN: usize = 16;

/// The cipher under the key of one object. "Less safe" is what its maker calls a key to which the caller gives the nonces;
/// [`nonce`] is the only source of them here.
pub(super) struct FrameCipher(LessSafeKey);

/// The key cannot be used, the frame cannot be encrypted, or the tag does not match.
#[derive(Debug)]
pub(super) struct CipherFailed;

impl FrameCipher {
    pub(super) fn new(key: &[u8; 32]) -> Result<Self, CipherFailed> {
        UnboundKey::new(&AES_256_GCM, key).map(|key| Self(LessSafeKey::new(key))).map_err(|_| CipherFailed)
    }

    /// Encrypts `bytes` but for their last [`TAG_LEN`] in place, as the frame `number`, and writes the tag there.
    pub(super) fn seal(&self, number: u32, last: bool, bytes: &mut [u8]) -> Result<(), CipherFailed> {
        let (plain, tag) = bytes.split_last_chunk_mut::<TAG_LEN>().ok_or(CipherFailed)?;
        let aad = Aad::from(associated(number, last));
        let written =
            self.0.seal_in_place_separate_tag(nonce(number), aad, plain).map_err(|_| CipherFailed)?;
        *tag = written.as_ref().try_into().map_err(|_| CipherFailed)?;
        Ok(())
    }

    /// Decrypts `bytes`, which end with the tag, in place, and answers the plaintext. Without it what is there is garbage.
    pub(super) fn open<'a>(
        &self,
        number: u32,
        last: bool,
        bytes: &'a mut [u8],
    ) -> Result<&'a [u8], CipherFailed> {
        let aad = Aad::from(associated(number, last));
        self.0.open_in_place(nonce(number), aad, bytes).map(|plain| &*plain).map_err(|_| CipherFailed)
    }
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    if let Some(tail) = bytes.last_chunk_mut::<4>() {
        *tail = number.to_be_bytes();
    }
    Nonce::assume_unique_for_key(bytes)
}

fn associated(number: u32, last: bool) -> [u8; 9] {
    let mut bytes = [0; 9];
    if let Some(head) = bytes.first_chunk_mut::<8>() {
        *head = u64::from(number).to_le_bytes();
    }
    if let Some(flag) = bytes.last_mut() {
        *flag = u8::from(last);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use aes_gcm::aead::{Aead, KeyInit, Payload};
    use aes_gcm::{Aes256Gcm, Key};

    use super::*;

    /// The format's cipher is the standard one: another implementation, with nonce and associated data written out by
    /// hand, gives the same bytes both ways.
    #[test]
    fn another_implementation_gives_the_same_bytes() {
        let key = [7; 32];
        let other = Aes256Gcm::new(&Key::<Aes256Gcm>::from(key));
        for (number, last, len) in
            [(0, false, 0), (0, true, 5), (1, false, 16), (258, false, 1000), (u32::MAX, true, 70_000)]
        {
            let plain: Vec<u8> = (0..len).map(|at: usize| (at % 251) as u8).collect();
            let mut nonce = [0; 12];
            nonce[8..].copy_from_slice(&number.to_be_bytes());
            let mut aad = u64::from(number).to_le_bytes().to_vec();
            aad.push(u8::from(last));
            let expected = other.encrypt(&nonce.into(), Payload { msg: &plain, aad: &aad }).unwrap();

            let mut bytes = plain.clone();
            bytes.extend_from_slice(&[0; TAG_LEN]);
            let cipher = FrameCipher::new(&key).unwrap();
            cipher.seal(number, last, &mut bytes).unwrap();
            assert!(bytes == expected, "{number} {last} {len}");
            assert!(cipher.open(number, !last, &mut bytes.clone()).is_err());
            assert!(cipher.open(number ^ 1, last, &mut bytes.clone()).is_err());
            assert!(cipher.open(number, last, &mut bytes).unwrap() == plain);
        }
        assert!(FrameCipher::new(&key).unwrap().open(0, false, &mut [0; 15]).is_err());
    }
}
