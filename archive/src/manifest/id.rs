//! The name of a backup.

use std::fmt;
use std::str::FromStr;

/// A backup's name: `<UTC time: YYYYMMDDTHHMMSSZ>-<8 hex>`, so that names sort by the time the backup began.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BackupId(String);

impl BackupId {
    /// The id of a backup that begins at `started_at`; `nonce` keeps two of the same second apart.
    pub fn new(started_at: jiff::Timestamp, nonce: [u8; 4]) -> BackupId {
        let time = started_at.to_zoned(jiff::tz::TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ").to_string();
        BackupId(format!("{time}-{}", hex::encode(nonce)))
    }

    /// When it began, to the second, by the clock that named it; none for digits that are no time.
    pub fn began_at(&self) -> Option<jiff::Timestamp> {
        let time = self.0.split('-').next()?;
        let civil = jiff::civil::DateTime::strptime("%Y%m%dT%H%M%SZ", time).ok()?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text is not the name of a backup.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a backup's name (YYYYMMDDTHHMMSSZ-xxxxxxxx)")]
pub struct BackupIdError(String);

impl FromStr for BackupId {
    type Err = BackupIdError;

    fn from_str(text: &str) -> Result<BackupId, BackupIdError> {
        let well_formed = text.len() == 25
            && text.bytes().enumerate().all(|(position, byte)| match position {
                8 => byte == b'T',
                15 => byte == b'Z',
                16 => byte == b'-',
                0..=14 => byte.is_ascii_digit(),
                _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
            });
        if well_formed { Ok(BackupId(text.to_owned())) } else { Err(BackupIdError(text.to_owned())) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn names_sort_by_time_and_come_back_from_text() {
        let early = BackupId::new("2026-11-20T06:09:59.9Z".parse().unwrap(), [0xff; 4]);
        let late = BackupId::new("2026-11-20T06:10:00Z".parse().unwrap(), [0; 4]);
        assert_eq!(early.as_str(), "20261120T060959Z-ffffffff");
        assert!(early < late);
        assert_eq!(late.as_str().parse::<BackupId>().unwrap(), late);
        assert_eq!(late.began_at().unwrap().to_string(), "2026-11-20T06:10:00Z");
        assert_eq!("20269920T061000Z-00000000".parse::<BackupId>().unwrap().began_at(), None);
        for bad in [
            "",
            "20261120T060959Z-ffffff",
            "20261120T060959Z-FFFFFFFF",
            "20261120 060959Z-ffffffff",
            "../../../../../../../etc/p",
        ] {
            assert!(bad.parse::<BackupId>().is_err(), "{bad}");
        }
    }
}
