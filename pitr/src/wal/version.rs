//! The PostgreSQL majors whose WAL can be read, and the marks by which each is known.
//!
//! An allow-list: WAL of any other major is refused until it has been tested.

use std::fmt;

/// A major version of PostgreSQL. Orders by age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PgMajor {
    /// PostgreSQL 14.
    V14,
    /// PostgreSQL 15.
    V15,
    /// PostgreSQL 16.
    V16,
    /// PostgreSQL 17.
    V17,
    /// PostgreSQL 18.
    V18,
}

/// A PostgreSQL major version that Highwater does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("PostgreSQL {0} is not supported")]
pub struct UnsupportedMajor(pub u32);

impl UnsupportedMajor {
    /// What is supported.
    pub fn hint(&self) -> Option<String> {
        Some("PostgreSQL 14 to 18 are supported".into())
    }
}

impl PgMajor {
    /// Every supported major, oldest first.
    pub const ALL: [PgMajor; 5] = [PgMajor::V14, PgMajor::V15, PgMajor::V16, PgMajor::V17, PgMajor::V18];

    /// 14 to 18.
    pub const fn number(self) -> u32 {
        match self {
            PgMajor::V14 => 14,
            PgMajor::V15 => 15,
            PgMajor::V16 => 16,
            PgMajor::V17 => 17,
            PgMajor::V18 => 18,
        }
    }

    /// `XLOG_PAGE_MAGIC` (`access/xlog_internal.h`).
    pub const fn page_magic(self) -> u16 {
        match self {
            PgMajor::V14 => 0xD10D,
            PgMajor::V15 => 0xD110,
            PgMajor::V16 => 0xD113,
            PgMajor::V17 => 0xD116,
            PgMajor::V18 => 0xD118,
        }
    }

    /// The major with this number.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|major| major.number() == number)
    }

    /// The major that writes WAL pages with this magic.
    pub fn from_page_magic(magic: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|major| major.page_magic() == magic)
    }
}

impl TryFrom<u32> for PgMajor {
    type Error = UnsupportedMajor;

    fn try_from(number: u32) -> Result<Self, UnsupportedMajor> {
        PgMajor::from_number(number).ok_or(UnsupportedMajor(number))
    }
}

impl fmt::Display for PgMajor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn each_major_is_known_by_its_number_and_its_magic() {
        for major in PgMajor::ALL {
            assert_eq!(PgMajor::from_number(major.number()), Some(major));
            assert_eq!(PgMajor::from_page_magic(major.page_magic()), Some(major));
        }
        assert_eq!(PgMajor::from_page_magic(0xD119), None);
    }
}
