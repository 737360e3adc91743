//! A position in the write-ahead log.
//!
//! PostgreSQL counts WAL in bytes from the beginning of time (`XLogRecPtr`), headers of pages included. People
//! and tools write such a position as two hexadecimal halves, `0/16B3740`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A byte position in the write-ahead log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// PostgreSQL's `InvalidXLogRecPtr`: no record can start here.
    pub const INVALID: Lsn = Lsn(0);

    /// The position `bytes` bytes after the beginning of the WAL.
    pub const fn new(bytes: u64) -> Self {
        Lsn(bytes)
    }

    /// Bytes from the beginning of the WAL.
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// The position `bytes` further on; `None` past the end of the 64-bit range.
    pub const fn checked_add(self, bytes: u64) -> Option<Lsn> {
        match self.0.checked_add(bytes) {
            Some(sum) => Some(Lsn(sum)),
            None => None,
        }
    }

    /// The position `bytes` further on, or the last one there is.
    pub const fn saturating_add(self, bytes: u64) -> Lsn {
        Lsn(self.0.saturating_add(bytes))
    }

    /// Bytes from `earlier` to here; `None` when `earlier` is later.
    pub const fn checked_sub(self, earlier: Lsn) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }

    /// This position rounded down to a multiple of `unit` bytes (a page, a segment). `unit` 0 changes nothing.
    pub const fn align_down(self, unit: u64) -> Lsn {
        match self.0.checked_rem(unit) {
            Some(beyond) => Lsn(self.0 - beyond),
            None => self,
        }
    }

    /// Bytes since the last multiple of `unit` bytes. 0 for `unit` 0.
    pub const fn offset_in(self, unit: u64) -> u64 {
        match self.0.checked_rem(unit) {
            Some(beyond) => beyond,
            None => 0,
        }
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Text that is not a WAL position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a WAL position")]
pub struct LsnError {
    text: String,
}

impl LsnError {
    /// What to write instead.
    pub fn hint(&self) -> Option<String> {
        Some("a WAL position is two hexadecimal numbers with a slash between, as pg_current_wal_lsn() prints it: 0/16B3740".into())
    }
}

impl FromStr for Lsn {
    type Err = LsnError;

    /// Reads what PostgreSQL's `pg_lsn` type accepts: one to eight hexadecimal digits on both sides of a slash
    /// (`utils/adt/pg_lsn.c`, `pg_lsn_in_internal`).
    fn from_str(text: &str) -> Result<Self, LsnError> {
        let half = |digits: &str| -> Option<u32> {
            if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                return None;
            }
            u32::from_str_radix(digits, 16).ok()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?))))
            .ok_or_else(|| LsnError { text: text.chars().take(64).collect() })
    }
}

impl Serialize for Lsn {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Lsn {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;

    #[test]
    fn text_and_back() {
        for (text, value) in
            [("0/0", 0), ("0/16B3740", 0x16B3740), ("A/0", 0xA_0000_0000), ("FFFFFFFF/FFFFFFFF", u64::MAX)]
        {
            assert_eq!(text.parse::<Lsn>().unwrap(), Lsn::new(value));
            assert_eq!(Lsn::new(value).to_string(), text);
        }
        assert_eq!("0/016b3740".parse::<Lsn>().unwrap(), Lsn::new(0x16B3740));
    }

    #[test]
    fn other_text_is_refused() {
        for text in ["", "/", "0", "0/", "/0", "1/123456789", "0/+1", "0/1 ", " 0/1", "0/1/2", "g/0", "0x1/0"]
        {
            assert!(text.parse::<Lsn>().is_err(), "{text:?}");
        }
        assert!("x".parse::<Lsn>().unwrap_err().hint().unwrap().contains("0/16B3740"));
    }

    #[test]
    fn json_is_the_text() {
        assert_eq!(serde_json::to_string(&Lsn::new(0x16B3740)).unwrap(), "\"0/16B3740\"");
        assert_eq!(serde_json::from_str::<Lsn>("\"1/2\"").unwrap(), Lsn::new(0x1_0000_0002));
        assert!(serde_json::from_str::<Lsn>("12").is_err());
    }

    #[test]
    fn arithmetic_never_wraps() {
        assert_eq!(Lsn::new(u64::MAX).checked_add(1), None);
        assert_eq!(Lsn::new(u64::MAX).saturating_add(9), Lsn::new(u64::MAX));
        assert_eq!(Lsn::new(5).checked_sub(Lsn::new(6)), None);
        assert_eq!(Lsn::new(8195).align_down(8192), Lsn::new(8192));
        assert_eq!(Lsn::new(8195).offset_in(8192), 3);
        assert_eq!(Lsn::new(7).align_down(0), Lsn::new(7));
    }
}
