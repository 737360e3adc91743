//! Joining the indexes of neighbouring segments.
//!
//! Indexes are pushed in WAL order. A record that crosses one seam or many is followed until it is complete: its CRC is
//! computed across the segments, and what it says is handed out with the seam at which it ended.

use super::{CheckpointRecord, RestorePointRecord, SegmentIndex, TransactionEnd};
use crate::lsn::Lsn;
use crate::segment::SegmentName;

/// What came out where two segments meet: the record that crossed the seam, if one ended in the right one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seam {
    /// Start and end of the record that came in from before and ended in this segment.
    pub completed: Option<(Lsn, Lsn)>,
    /// That record, when it ends a transaction. It lies before everything the segment's own index lists.
    pub transaction: Option<TransactionEnd>,
    /// That record, when it is a restore point.
    pub restore_point: Option<RestorePointRecord>,
    /// That record, when it is a checkpoint.
    pub checkpoint: Option<CheckpointRecord>,
    /// A record still continues beyond this segment.
    pub open: bool,
}

/// Two segments that do not join: what lies between them, or how they belong together, is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the WAL does not continue from {left} to {right}: {reason}")]
pub struct Hole {
    /// The segment before the hole.
    pub left: SegmentName,
    /// The segment behind it.
    pub right: SegmentName,
    /// Why they do not join.
    pub reason: String,
}

/// A row of joined segments.
#[derive(Debug, Clone, Default)]
pub struct Chain {}

impl Chain {
    /// A chain without a segment yet.
    pub fn new() -> Self {
        Chain::default()
    }

    /// Adds the next segment. The first one joins whatever came before.
    ///
    /// # Errors
    /// [`Hole`] when the segment does not continue the chain. The chain then begins anew with this segment, so that the
    /// caller may go on behind the hole.
    pub fn push(&mut self, _index: &SegmentIndex) -> Result<Seam, Hole> {
        todo!()
    }

    /// Start of the last record known to be complete.
    pub fn last_record(&self) -> Option<Lsn> {
        todo!()
    }

    /// The position after that record.
    pub fn end(&self) -> Option<Lsn> {
        todo!()
    }
}

/// Joins two neighbours: completes the record that crosses the seam and checks that the right one continues the left one.
/// A record that crosses more than one seam needs a [`Chain`].
///
/// # Errors
/// [`Hole`] when they do not join.
pub fn join(left: &SegmentIndex, right: &SegmentIndex) -> Result<Seam, Hole> {
    let mut chain = Chain::new();
    let _ = chain.push(left);
    chain.push(right)
}
