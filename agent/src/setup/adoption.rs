//! Whether a restored copy may go on with the lineage it came from (I1).
//!
//! A copy and its original share the system identifier, and both would number their next timelines alike. The copy may go on
//! only where nobody else has: its timeline is unclaimed or its own, no later timeline is claimed, and its parent's WAL in the
//! archive does not reach beyond the point where the copy left it. What cannot be proven is refused, unless a person says
//! that the original is gone. The decision is a pure function of what was found.

use highwater_archive::names::WriterId;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::TimelineId;

/// Where a data directory stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The timeline it writes.
    pub timeline: TimelineId,
    /// The timeline it left, and where; none for a first timeline.
    pub fork: Option<(TimelineId, Lsn)>,
}

/// What one repository holds of the lineage.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Who has claimed the copy's timeline.
    pub claimed_by: Option<WriterId>,
    /// Later timelines that someone has claimed.
    pub later_timelines: Vec<TimelineId>,
    /// The last segment of the parent timeline that reaches beyond the fork.
    pub beyond_fork: Option<SegmentName>,
    /// A segment of the copy's timeline, or its fork, that is not the copy's own.
    pub other_content: Option<WalFile>,
    /// The lineage has ended.
    pub closed: bool,
}

/// What a person has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// Go on where that is safe.
    Decide,
    /// Go on: the original is gone for good.
    Continue,
}

/// Why a copy may not go on with its lineage.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// Nothing can be written any more.
    #[error("the lineage was closed")]
    Closed,
    /// The timeline is another writer's.
    #[error("timeline {timeline} is being written by another data directory (writer {writer})")]
    TimelineTaken {
        /// The copy's timeline.
        timeline: TimelineId,
        /// Who writes it.
        writer: WriterId,
    },
    /// The timeline in the archive has another content than the copy's: they only share the number.
    #[error("{file} in the archive is of another timeline of the same number than that of this directory")]
    OtherContent {
        /// What differs.
        file: WalFile,
    },
    /// Another server was promoted since.
    #[error("another server has gone on to timeline {timeline}")]
    LaterTimeline {
        /// Its timeline.
        timeline: TimelineId,
    },
    /// The original wrote WAL after the copy left it.
    #[error("the archive holds WAL beyond the point where this directory begins ({segment})")]
    WrittenBeyondFork {
        /// The last segment of it.
        segment: SegmentName,
    },
}

/// Whether the copy may go on, and as which writer: a new one, unless its timeline is one that it takes over.
///
/// # Errors
///
/// The first obstacle, by weight.
pub fn decide(
    position: Position,
    evidence: &[Evidence],
    wish: Wish,
    own: Option<WriterId>,
) -> Result<Option<WriterId>, Obstacle> {
    if evidence.iter().any(|one| one.closed) {
        return Err(Obstacle::Closed);
    }
    // No word of a person makes one timeline of two.
    if let Some(file) = evidence.iter().find_map(|one| one.other_content) {
        return Err(Obstacle::OtherContent { file });
    }
    let taken = evidence.iter().find_map(|one| one.claimed_by);
    if wish == Wish::Continue {
        // The claim cannot be written again, so whoever takes a timeline over goes on under its name.
        return Ok(taken.or(own));
    }
    if let Some(writer) = taken
        && Some(writer) != own
    {
        return Err(Obstacle::TimelineTaken { timeline: position.timeline, writer });
    }
    if let Some(timeline) = evidence.iter().flat_map(|one| &one.later_timelines).min() {
        return Err(Obstacle::LaterTimeline { timeline: *timeline });
    }
    if taken.is_none()
        && let Some(segment) = evidence.iter().filter_map(|one| one.beyond_fork).max()
    {
        return Err(Obstacle::WrittenBeyondFork { segment });
    }
    Ok(own)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn position() -> Position {
        Position { timeline: timeline(2), fork: Some((timeline(1), Lsn::new(0x500_0000))) }
    }

    fn writer(byte: u8) -> WriterId {
        WriterId::from_bytes([byte; 16])
    }

    fn segment() -> SegmentName {
        "000000010000000000000005".parse().unwrap()
    }

    /// I1: the old lineage goes on only if no other writer has.
    #[test]
    fn a_copy_goes_on_only_where_nobody_else_has() {
        let decide =
            |evidence: Evidence| decide(position(), &[Evidence::default(), evidence], Wish::Decide, None);
        assert_eq!(decide(Evidence::default()), Ok(None));
        let taken = Evidence { claimed_by: Some(writer(7)), ..Evidence::default() };
        assert!(matches!(decide(taken), Err(Obstacle::TimelineTaken { .. })));
        let later = Evidence { later_timelines: vec![timeline(4), timeline(3)], ..Evidence::default() };
        assert_eq!(decide(later), Err(Obstacle::LaterTimeline { timeline: timeline(3) }));
        let beyond = Evidence { beyond_fork: Some(segment()), ..Evidence::default() };
        assert_eq!(decide(beyond), Err(Obstacle::WrittenBeyondFork { segment: segment() }));
    }

    #[test]
    fn whoever_holds_the_timeline_already_goes_on() {
        let own =
            Evidence { claimed_by: Some(writer(1)), beyond_fork: Some(segment()), ..Evidence::default() };
        assert_eq!(decide(position(), &[own], Wish::Decide, Some(writer(1))), Ok(Some(writer(1))));
    }

    /// A person's word outweighs what is merely possible, but a closed lineage stays closed.
    #[test]
    fn a_takeover_keeps_the_name_on_the_claim() {
        let taken =
            Evidence { claimed_by: Some(writer(7)), beyond_fork: Some(segment()), ..Evidence::default() };
        assert_eq!(
            decide(position(), std::slice::from_ref(&taken), Wish::Continue, None),
            Ok(Some(writer(7)))
        );
        let file = WalFile::Segment(segment());
        let other = Evidence { other_content: Some(file), ..taken.clone() };
        assert_eq!(decide(position(), &[other], Wish::Continue, None), Err(Obstacle::OtherContent { file }));
        let closed = Evidence { closed: true, ..taken };
        assert_eq!(decide(position(), &[closed], Wish::Continue, None), Err(Obstacle::Closed));
    }
}
