//! The index of a segment (I16): what its records say about moments, and which tablespaces they make and drop.
//!
//! An index covers the records that *start* in its segment. The record that crosses the end belongs to this segment, but
//! only the next one completes it: so the index keeps the beginning of that record, and of the record that comes in
//! from before it keeps what lies here. [`Chain`] joins the indexes of neighbours, completes the crossing records and
//! checks by prev-links and CRC that the segments really follow each other.

mod chain;
mod encoding;
mod tablespaces;
mod varint;

use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::wal::tblspc::MAX_PATH;
use crate::wal::version::PgMajor;

pub use crate::wal::event::{
    CheckpointRecord, RestorePointRecord, TablespaceChange, TablespaceRecord, TransactionEnd, TransactionKind,
};
pub use chain::{Chain, Hole, Seam, crossing, join};

/// The version of the decoder in this program. It rises with the encoding, and with any correction in what is indexed.
pub const DECODER: u16 = 2;

/// What the records that start in one segment say that a restore must know of beforehand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentIndex {
    /// The decoder that made it.
    pub decoder: u16,
    /// The segment.
    pub segment: SegmentName,
    /// `wal_segment_size` of its cluster.
    pub segment_size: WalSegmentSize,
    /// `wal_block_size` of its cluster, bytes.
    pub block_size: u32,
    /// The major version that wrote it.
    pub major: PgMajor,
    /// The cluster that wrote it.
    pub system_identifier: u64,
    /// Start of the first record that starts here, whether it ends here or not.
    pub first_record: Option<Lsn>,
    /// Where that first record says the record before it starts.
    pub first_prev: Option<Lsn>,
    /// Start of the last record that starts and ends here.
    pub last_record: Option<Lsn>,
    /// End of the last record that ends here: the position after its last byte, rounded up to 8. After XLOG_SWITCH the
    /// segment's end. The segment's start when no record ends here.
    pub end: Lsn,
    /// The segment ends with XLOG_SWITCH.
    pub ended_by_switch: bool,
    /// The chain of records stops before the segment's end without XLOG_SWITCH: nothing joins behind it.
    pub stops_early: bool,
    /// A valid record that should be in a list below but could not be taken apart. The WAL is as good as any, but what
    /// happened in this segment is not known: to readers of the index it is a hole.
    pub undecoded: Option<Lsn>,
    /// What lies here of a record that started before.
    pub carried_in: Carried,
    /// The record that starts here and continues in the next segment.
    pub unfinished: Option<Unfinished>,
    /// Commits and aborts, prepared ones too, in WAL order.
    pub transactions: Vec<TransactionEnd>,
    /// Restore points, in WAL order.
    pub restore_points: Vec<RestorePointRecord>,
    /// Checkpoints, in WAL order.
    pub checkpoints: Vec<CheckpointRecord>,
    /// Tablespaces made and dropped, in WAL order.
    pub tablespaces: Vec<TablespaceRecord>,
}

/// What lies in a segment of a record that started in an earlier one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Carried {
    /// Bytes of that record that were still to come where this segment begins; 0 when none comes in. May be more than
    /// the segment holds: then the record continues in the next.
    pub len: u32,
    /// How many of them lie in this segment.
    pub here: u32,
    /// The position after the last of those, rounded up to 8; the segment's end when the record continues.
    pub end: Lsn,
    /// CRC-32C of those that lie here.
    pub crc: u32,
    /// The first of them: all, or what [`kept`] says.
    pub bytes: Vec<u8>,
    /// The record that should have continued here was given up in a crash; the segment begins with a record that says so.
    pub overwritten: bool,
}

impl Carried {
    /// Whether these may be the end of a record that makes a tablespace: such a record ends with the path and a zero byte, and
    /// is short. To know it, the segment before is needed; this tells nearly all others without it.
    pub fn may_end_a_tablespace(&self) -> bool {
        const LONGEST: usize = MAX_PATH + 64;
        let whole = self.bytes.len() == self.len as usize && !self.overwritten;
        let Some((0, text)) = self.bytes.split_last() else { return false };
        // Before the path lie numbers; it begins with a slash, or in the segment before.
        let path = text.rsplit(|byte| *byte == 0).next().unwrap_or_default();
        whole && text.len() < LONGEST && (path.len() == text.len() || path.contains(&b'/'))
    }
}

/// The record that starts in a segment and continues in the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unfinished {
    /// Its start.
    pub start: Lsn,
    /// Its whole length, bytes.
    pub total_len: u32,
    /// How many of them lie in this segment.
    pub here: u32,
    /// CRC-32C of those behind the record's header (24 bytes) that lie here.
    pub crc: u32,
    /// The first of them, the header included: all, or what [`kept`] says. Of a record that belongs in no list only the
    /// header.
    pub bytes: Vec<u8>,
}

/// Up to this length, in bytes, the part of a crossing record that lies in one segment is kept whole: a commit with 30,000
/// subtransactions fits.
pub const KEPT_WHOLE: u32 = 128 << 10;
/// Of longer parts the first bytes: a commit's time, a checkpoint or a restore point lie in them.
pub const KEPT_HEAD: u32 = 1 << 10;

/// How many bytes the index keeps of the `len` bytes of a crossing record that lie in its segment.
pub const fn kept(len: u32) -> u32 {
    if len <= KEPT_WHOLE { len } else { KEPT_HEAD }
}

/// Bytes that are not an index this program can read. Readers treat the segment as one without an index: a hole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// Made by a decoder this program does not know, or knows to have been wrong.
    #[error("the WAL index was made by decoder {found}, this program reads {DECODER}")]
    UnknownDecoder {
        /// The decoder's version.
        found: u16,
    },
    /// Not the encoding.
    #[error("the WAL index is damaged: {reason}")]
    Damaged {
        /// What does not fit.
        reason: &'static str,
    },
}

impl IndexError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            IndexError::UnknownDecoder { .. } => {
                "use the newest version of highwater that wrote to this repository".into()
            }
            IndexError::Damaged { .. } => {
                "the WAL itself can still be restored; only targets inside it cannot be resolved".into()
            }
        })
    }
}

impl SegmentIndex {
    /// The bytes that are stored beside the segment: `docs/format.md`, "The WAL index".
    pub fn encode(&self) -> Vec<u8> {
        encoding::encode(self)
    }

    /// Reads what [`SegmentIndex::encode`] wrote. Allocates no more than a small multiple of `bytes`.
    ///
    /// # Errors
    /// [`IndexError`]; to a reader it means that the segment has no index.
    pub fn decode(bytes: &[u8]) -> Result<SegmentIndex, IndexError> {
        encoding::decode(bytes)
    }
}
