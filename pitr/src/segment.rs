//! Names of the files PostgreSQL keeps in `pg_wal` and hands to `archive_command`.
//!
//! A segment's name is its timeline and its number, cut in two (`access/xlog_internal.h`, `XLogFileName`): how
//! many segments make up the high half depends on `wal_segment_size`, so a name means a position only together
//! with that size.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::lsn::Lsn;

/// A timeline's number; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct TimelineId(std::num::NonZeroU32);

impl TimelineId {
    /// The timeline every cluster begins on.
    pub const FIRST: TimelineId = TimelineId(std::num::NonZeroU32::MIN);

    /// `None` for zero, which PostgreSQL never uses.
    pub const fn new(number: u32) -> Option<Self> {
        match std::num::NonZeroU32::new(number) {
            Some(number) => Some(TimelineId(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0.get()
    }

    /// Eight upper-case hexadecimal digits, as in file names.
    pub fn hex(self) -> String {
        format!("{:08X}", self.0)
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl TryFrom<u32> for TimelineId {
    type Error = NameError;

    fn try_from(number: u32) -> Result<Self, NameError> {
        TimelineId::new(number).ok_or(NameError::TimelineZero)
    }
}

impl From<TimelineId> for u32 {
    fn from(timeline: TimelineId) -> u32 {
        timeline.get()
    }
}

/// `wal_segment_size`: a power of two from 1 MiB to 1 GiB, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct WalSegmentSize(u32);

impl WalSegmentSize {
    /// 16 MiB, what `initdb` chooses when not told otherwise.
    pub const DEFAULT: WalSegmentSize = WalSegmentSize(16 << 20);

    /// Bytes in a segment.
    pub const fn bytes(self) -> u64 {
        self.0 as u64
    }

    /// How many segments share one high half of a name.
    const fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

impl TryFrom<u32> for WalSegmentSize {
    type Error = NameError;

    fn try_from(bytes: u32) -> Result<Self, NameError> {
        if bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(&bytes) {
            Ok(WalSegmentSize(bytes))
        } else {
            Err(NameError::SegmentSize { bytes })
        }
    }
}

impl From<WalSegmentSize> for u32 {
    fn from(size: WalSegmentSize) -> u32 {
        size.0
    }
}

impl fmt::Display for WalSegmentSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}MB", self.0 >> 20)
    }
}

/// What is not a WAL file's name or size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a power of two from 1 MiB to 1 GiB.
    #[error("{bytes} bytes is not a possible wal_segment_size")]
    SegmentSize {
        /// The size that was offered.
        bytes: u32,
    },
    /// A timeline 0.
    #[error("0 is not a timeline")]
    TimelineZero,
    /// Not a name PostgreSQL gives to a file in `pg_wal` that it archives.
    #[error("{name:?} is not the name of a WAL file")]
    NotWal {
        /// The name that was offered, cut to 64 characters.
        name: String,
    },
}

impl NameError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            NameError::SegmentSize { .. } => "wal_segment_size is a power of two from 1 MB to 1 GB".into(),
            NameError::TimelineZero => "timelines are counted from 1".into(),
            NameError::NotWal { .. } => {
                "WAL files are 24 hexadecimal digits, or those with .partial or .<offset>.backup behind, or 8 digits and .history"
                    .into()
            }
        })
    }

    fn not_wal(name: &str) -> Self {
        NameError::NotWal { name: name.chars().take(64).collect() }
    }
}

/// The name of a WAL segment: 24 upper-case hexadecimal digits. Orders as PostgreSQL's names do.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// The timeline whose segment it is.
    pub timeline: TimelineId,
    /// The high half of the number: which 4 GiB of WAL.
    pub log: u32,
    /// The low half: which segment in those 4 GiB.
    pub seg: u32,
}

impl SegmentName {
    /// The name of segment `number` counted from the beginning of the WAL. A number past the last position an
    /// [`Lsn`] can express names the last segment.
    pub fn from_number(timeline: TimelineId, number: u64, size: WalSegmentSize) -> Self {
        let per_log = size.per_log();
        let (log, seg) = match u32::try_from(number / per_log) {
            Ok(log) => (log, number % per_log),
            Err(_) => (u32::MAX, per_log - 1),
        };
        // seg < per_log <= 4096
        SegmentName { timeline, log, seg: seg as u32 }
    }

    /// The name of the segment that holds the byte at `lsn`.
    pub fn containing(timeline: TimelineId, lsn: Lsn, size: WalSegmentSize) -> Self {
        SegmentName::from_number(timeline, lsn.as_u64() / size.bytes(), size)
    }

    /// Whether a cluster with this segment size can have a segment of this name.
    pub fn is_possible(&self, size: WalSegmentSize) -> bool {
        u64::from(self.seg) < size.per_log()
    }

    /// The segment's number counted from the beginning of the WAL.
    pub fn number(&self, size: WalSegmentSize) -> u64 {
        u64::from(self.log) * size.per_log() + u64::from(self.seg)
    }

    /// Where the segment's first byte lies. A name that is not possible with this size saturates.
    pub fn start(&self, size: WalSegmentSize) -> Lsn {
        Lsn::new(self.number(size).saturating_mul(size.bytes()))
    }

    /// The position after the segment's last byte (saturating at the end of the 64-bit range).
    pub fn end(&self, size: WalSegmentSize) -> Lsn {
        self.start(size).saturating_add(size.bytes())
    }

    /// The segment after this one on the same timeline.
    pub fn next(&self, size: WalSegmentSize) -> Self {
        SegmentName::from_number(self.timeline, self.number(size).saturating_add(1), size)
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:08X}{:08X}", self.timeline.hex(), self.log, self.seg)
    }
}

impl fmt::Debug for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Eight upper-case hexadecimal digits, as PostgreSQL writes them and `IsXLogFileName` demands.
fn hex32(digits: &str) -> Option<u32> {
    let upper = |b: u8| b.is_ascii_digit() || (b'A'..=b'F').contains(&b);
    if digits.len() == 8 && digits.bytes().all(upper) { u32::from_str_radix(digits, 16).ok() } else { None }
}

impl FromStr for SegmentName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let parse = || {
            if name.len() != 24 {
                return None;
            }
            let timeline = TimelineId::new(hex32(name.get(0..8)?)?)?;
            Some(SegmentName { timeline, log: hex32(name.get(8..16)?)?, seg: hex32(name.get(16..24)?)? })
        };
        parse().ok_or_else(|| NameError::not_wal(name))
    }
}

impl Serialize for SegmentName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SegmentName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Every file that PostgreSQL hands to `archive_command` or asks of `restore_command`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WalFile {
    /// A whole segment.
    Segment(SegmentName),
    /// The last, unfinished segment of a timeline that another one left: `….partial`.
    Partial(SegmentName),
    /// A backup history file: `SEGMENT.OFFSET.backup`.
    Backup {
        /// The segment in which the backup started.
        segment: SegmentName,
        /// The start's offset in that segment, bytes.
        offset: u32,
    },
    /// A timeline history file: `TIMELINE.history`.
    History(TimelineId),
}

impl WalFile {
    /// The timeline that it belongs to.
    pub fn timeline(&self) -> TimelineId {
        match self {
            WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup { segment, .. } => {
                segment.timeline
            }
            WalFile::History(timeline) => *timeline,
        }
    }
}

impl fmt::Display for WalFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WalFile::Segment(segment) => write!(f, "{segment}"),
            WalFile::Partial(segment) => write!(f, "{segment}.partial"),
            WalFile::Backup { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
            WalFile::History(timeline) => write!(f, "{}.history", timeline.hex()),
        }
    }
}

impl FromStr for WalFile {
    type Err = NameError;

    fn from_str(name: &str) -> Result<Self, NameError> {
        let parse = || {
            let Some((stem, suffix)) = name.split_once('.') else {
                return name.parse().ok().map(WalFile::Segment);
            };
            if suffix == "partial" {
                return stem.parse().ok().map(WalFile::Partial);
            }
            if suffix == "history" {
                return Some(WalFile::History(TimelineId::new(hex32(stem)?)?));
            }
            let offset = hex32(suffix.strip_suffix(".backup")?)?;
            Some(WalFile::Backup { segment: stem.parse().ok()?, offset })
        };
        parse().ok_or_else(|| NameError::not_wal(name))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn size(mib: u32) -> WalSegmentSize {
        WalSegmentSize::try_from(mib << 20).unwrap()
    }

    #[test]
    fn sizes_are_powers_of_two_from_one_mebibyte_to_one_gibibyte() {
        for bytes in [0, 1, 1 << 19, 3 << 20, 1 << 31, u32::MAX, (16 << 20) + 1] {
            assert!(WalSegmentSize::try_from(bytes).is_err(), "{bytes}");
        }
        assert_eq!(size(1024).bytes(), 1 << 30);
        assert_eq!(serde_json::to_string(&WalSegmentSize::DEFAULT).unwrap(), "16777216");
        assert!(serde_json::from_str::<WalSegmentSize>("5").is_err());
    }

    #[test]
    fn names_mean_positions() {
        let name: SegmentName = "0000000A00000001000000FF".parse().unwrap();
        assert_eq!(name.timeline.get(), 10);
        assert_eq!(name.number(WalSegmentSize::DEFAULT), 511);
        assert_eq!(name.start(WalSegmentSize::DEFAULT), "1/FF000000".parse().unwrap());
        assert_eq!(name.end(WalSegmentSize::DEFAULT), "2/0".parse().unwrap());
        assert_eq!(name.next(WalSegmentSize::DEFAULT).to_string(), "0000000A0000000200000000");
        assert_eq!(name.start(size(1)), "1/FF00000".parse().unwrap());
        assert_eq!(SegmentName::containing(name.timeline, name.start(size(1)), size(1)), name);
        assert!(!name.is_possible(size(1024)));
    }

    #[test]
    fn every_kind_of_file() {
        for name in [
            "000000010000000000000003",
            "000000010000000000000003.partial",
            "000000010000000000000003.00000028.backup",
            "00000002.history",
        ] {
            assert_eq!(name.parse::<WalFile>().unwrap().to_string(), name);
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for name in [
            "",
            ".",
            "00000001000000000000000",
            "0000000100000000000000030",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000000000000000000001",
            "00000000.history",
            "000000010000000000000003.part",
            "000000010000000000000003.28.backup",
            "000000010000000000000003.00000028",
            "000000010000000000000003.00000028.backup.gz",
            "../00000002.history",
            "00000002.history/..",
            "+0000002.history",
            "é0000000000000000000000",
        ] {
            assert!(name.parse::<WalFile>().is_err(), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_and_names_are_one(tli in 1u32.., power in 20u32..=30, lsn: u64) {
            let size = WalSegmentSize::try_from(1 << power).unwrap();
            let name = SegmentName::containing(TimelineId::new(tli).unwrap(), Lsn::new(lsn), size);
            prop_assert!(name.is_possible(size));
            prop_assert_eq!(name.start(size), Lsn::new(lsn).align_down(size.bytes()));
            prop_assert_eq!(name.to_string().parse::<SegmentName>().unwrap(), name);
        }

        #[test]
        fn every_text_is_the_name_it_reads_as_or_refused(text in ".{0,70}") {
            if let Ok(file) = text.parse::<WalFile>() {
                prop_assert_eq!(file.to_string(), text);
            }
        }

        #[test]
        fn no_impossible_name_panics(log: u32, seg: u32, power in 20u32..=30) {
            let size = WalSegmentSize::try_from(1 << power).unwrap();
            let name = SegmentName { timeline: TimelineId::new(1).unwrap(), log, seg };
            prop_assert!(name.start(size) <= name.end(size));
            prop_assert!(name.next(size).is_possible(size) || !name.is_possible(size));
        }
    }
}
