//! One pass over a segment.

use crate::index::SegmentIndex;
use crate::lsn::Lsn;
use crate::segment::SegmentName;

use super::WalError;
use super::page::SegmentHeader;

/// What one pass over a segment found.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentScan {
    /// What the segment says about itself.
    pub header: SegmentHeader,
    /// How the chain of valid records ends.
    pub end: ChainEnd,
    /// Bytes of the segment up to where its valid records end: the whole length for [`ChainEnd::Full`], the end of
    /// the XLOG_SWITCH record for [`ChainEnd::Switch`], the end of the last whole record for [`ChainEnd::Broken`].
    pub valid_len: u64,
    /// What the records say.
    pub index: SegmentIndex,
}

/// How a segment's chain of valid records ends (I2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEnd {
    /// Valid up to the segment's last byte; the last record may continue in the next segment.
    Full,
    /// The last record is XLOG_SWITCH: what follows it means nothing.
    Switch,
    /// The chain stops before the segment's end, and not with XLOG_SWITCH.
    Broken {
        /// Where the first thing lies that is not valid.
        at: Lsn,
        /// What is wrong there.
        reason: String,
    },
}

/// Reads a whole segment once: how its chain of records ends, and the index of what it says.
///
/// # Errors
/// [`WalError`] when the bytes are not a segment, not a whole one, or not the one that `name` says.
pub fn scan_segment(_bytes: &[u8], _name: SegmentName) -> Result<SegmentScan, WalError> {
    todo!()
}

/// Brings a segment into its canonical form (I2): what follows an XLOG_SWITCH record that ends a valid chain becomes zeros.
/// `scan` must be the scan of these bytes. Any other segment is canonical as it is.
pub fn canonicalise(_bytes: &mut [u8], _scan: &SegmentScan) {
    todo!()
}

/// Whether the shorter segment's valid records are a proper beginning of the longer one's (I2): the same WAL, but one server
/// stopped writing it earlier, as happens around a promotion.
pub fn is_strict_prefix(_shorter: &[u8], _shorter_scan: &SegmentScan, _longer: &[u8], _longer_scan: &SegmentScan) -> bool {
    todo!()
}
