//! From a target to a plan, before anything is restored: which backup, which timeline, which WAL, and where recovery stops.
//!
//! 1. A timeline is chosen ([`choose_timeline`]): the one asked for, else the newest that a backup and gapless WAL reach.
//! 2. Backups that could serve are put in order ([`candidates`]), newest first. Only a backup whose end lies at or before
//!    the place where recovery stops can serve: PostgreSQL dies on a target before its consistent point.
//! 3. The indexes of the segments from the backup's start on are pushed, in WAL order, into a [`TargetScan`]. It says when it
//!    has seen enough, and then where recovery stops; or that an older backup is needed; or why the target is out of reach.
//!
//! Everything here is pure. Who reads the indexes, and in how many requests at once, is the archive's affair.

mod choose;
mod over;
mod reach;
mod refusal;
mod scan;
mod stop;

use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::time::PgTime;
use crate::timeline::{Ancestry, TimelineId};

pub use choose::{ChosenTimeline, TimelineWay, candidates, choose_timeline};
pub use over::{Over, just_before};
pub use reach::{Gap, Held, Reach, SegmentSet};
pub use refusal::{Refusal, RefusalReason, Window};
pub use scan::{ScanEnd, Step, TargetScan};
pub use stop::{ReplayedTablespace, Stop, StopPoint};

/// What planning needs to know of a base backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupPoint {
    /// The backup's id; ids sort by the time the backup began.
    pub id: String,
    /// The timeline it was taken on.
    pub timeline: TimelineId,
    /// Where recovery begins: START WAL LOCATION of its label, a redo pointer.
    pub start: Lsn,
    /// Where it is consistent: what `pg_backup_stop` returned, the end of the record that ends the backup.
    pub stop: Lsn,
    /// The server's clock when the backup ended. It must be read before `pg_backup_stop` is called: then everything
    /// committed until that moment lies before `stop`, and the moment is evidence that WAL up to `stop` reaches it.
    pub stop_time: PgTime,
}

impl BackupPoint {
    /// Whether recovery to the end of `ancestry` may begin with this backup: both of its ends lie on it. (PostgreSQL:
    /// "requested timeline is not a child of this server's history", `InitWalRecovery`.)
    pub fn is_on(&self, ancestry: &Ancestry) -> bool {
        ancestry.contains(self.timeline, self.start) && ancestry.contains(self.timeline, self.stop)
    }

    /// The number of the first segment that recovery reads.
    pub fn first_segment(&self, size: WalSegmentSize) -> u64 {
        self.start.as_u64() / size.bytes()
    }

    /// The number of the segment that holds the end of the backup: all up to this one is needed in any case.
    pub fn last_segment(&self, size: WalSegmentSize) -> u64 {
        self.stop.as_u64().saturating_sub(1) / size.bytes()
    }
}

/// What a restore shall do; nothing of it remains to be decided while restoring.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The backup that recovery begins with.
    pub backup: BackupPoint,
    /// The value for `recovery_target_timeline`.
    pub timeline: TimelineId,
    /// The archive holds that timeline's history file.
    pub has_history: bool,
    /// Which timeline's WAL is read where, on the way to `timeline`.
    pub ancestry: Ancestry,
    /// `wal_segment_size` of the cluster.
    pub segment_size: WalSegmentSize,
    /// The number of the first segment that recovery reads.
    pub first_segment: u64,
    /// Where recovery stops, and by which setting. It names the last segment that recovery reads.
    pub stop: StopPoint,
    /// What a person should know of the choices made: each a sentence.
    pub notes: Vec<String>,
}

impl Plan {
    /// The value of `recovery_target_timeline`. PostgreSQL follows a number above 1 only when it finds its history file
    /// (`validateRecoveryParameters`); a cluster whose archive begins later than its timeline has none, and is followed as
    /// the backup's own timeline.
    pub fn timeline_setting(&self) -> String {
        if self.timeline == TimelineId::FIRST || self.has_history || self.timeline != self.backup.timeline {
            self.timeline.to_string()
        } else {
            "current".to_owned()
        }
    }

    /// The name of the last segment that recovery reads.
    pub fn last_segment_name(&self) -> SegmentName {
        self.segment_name(self.stop.last_segment)
    }

    /// The name under which recovery asks for segment `number` first.
    pub fn segment_name(&self, number: u64) -> SegmentName {
        let timeline = self.ancestry.timeline_for_segment(number, self.segment_size).unwrap_or(self.timeline);
        SegmentName::from_number(timeline, number, self.segment_size)
    }

    /// WAL to replay, in bytes.
    pub fn wal_bytes(&self) -> u64 {
        self.stop.end.checked_sub(self.backup.start).unwrap_or(0)
    }

    /// How many segments recovery reads.
    pub fn wal_segments(&self) -> u64 {
        (self.stop.last_segment + 1).saturating_sub(self.first_segment)
    }
}

#[cfg(test)]
mod oracle_tests;
#[cfg(test)]
mod way_tests;
