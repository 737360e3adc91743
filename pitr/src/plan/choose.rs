//! Which timeline recovery follows, and which backups could serve.

use super::{BackupPoint, Held, Reach, RefusalReason};
use crate::segment::WalSegmentSize;
use crate::target::RecoveryTarget;
use crate::timeline::{Ancestry, TimelineId};

/// The way to one timeline that the archive knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineWay {
    /// The timeline.
    pub timeline: TimelineId,
    /// Which timeline's WAL is read where on the way.
    pub ancestry: Ancestry,
    /// The archive holds its history file. Without one PostgreSQL follows it only as `current`, the backup's own.
    pub has_history: bool,
}

/// A choice of timeline, with what a person should know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChosenTimeline<'a> {
    /// The way chosen.
    pub way: &'a TimelineWay,
    /// Why not a newer one: each a sentence.
    pub notes: Vec<String>,
}

/// Chooses the timeline to follow: `wanted`, else the newest whose own WAL a backup reaches without a gap.
///
/// A timeline of which there is a history file but no WAL is never chosen unasked: following it would end recovery at the
/// place where it left its parent, although the parent may have gone on. (A scratch copy's promotion can leave such a
/// file.)
///
/// # Errors
///
/// A timeline that is unknown or that no backup leads to. For [`RecoveryTarget::Latest`] also a newer timeline that has
/// WAL and cannot be reached: then the newest moment is not where this would lead.
pub fn choose_timeline<'a>(
    target: &RecoveryTarget,
    wanted: Option<TimelineId>,
    ways: &'a [TimelineWay],
    backups: &[&BackupPoint],
    held: &Held,
    size: WalSegmentSize,
) -> Result<ChosenTimeline<'a>, RefusalReason> {
    if backups.is_empty() {
        return Err(RefusalReason::NoBackup);
    }
    if let Some(wanted) = wanted {
        let way = ways
            .iter()
            .find(|way| way.timeline == wanted)
            .ok_or(RefusalReason::UnknownTimeline { timeline: wanted })?;
        return match backups.iter().any(|backup| backup.is_on(&way.ancestry)) {
            true => Ok(ChosenTimeline { way, notes: Vec::new() }),
            false => Err(RefusalReason::NoBackupOnTimeline { timeline: wanted }),
        };
    }

    let mut newest_first: Vec<&TimelineWay> = ways.iter().collect();
    newest_first.sort_by_key(|way| std::cmp::Reverse(way.timeline));
    let mut passed_over: Vec<(TimelineId, Option<String>)> = Vec::new();
    for way in newest_first {
        let why = match standing(way, backups, held, size) {
            Standing::Reached => {
                if let (RecoveryTarget::Latest, Some((newer, Some(why)))) =
                    (target, passed_over.iter().find(|(_, why)| why.is_some()))
                {
                    return Err(RefusalReason::NewerTimelineOutOfReach {
                        newer: *newer,
                        reachable: way.timeline,
                        why: why.clone(),
                    });
                }
                let notes = passed_over
                    .into_iter()
                    .map(|(newer, why)| match why {
                        Some(why) => format!("timeline {newer} is newer and cannot be reached: {why}"),
                        None => format!("timeline {newer} has a history file and no WAL yet"),
                    })
                    .collect();
                return Ok(ChosenTimeline { way, notes });
            }
            Standing::NoWal => None,
            Standing::OutOfReach(why) => Some(why),
        };
        passed_over.push((way.timeline, why));
    }
    // Backups exist, and none is on any way to WAL: the backups' own timelines have none.
    let timeline = backups.iter().map(|backup| backup.timeline).max().unwrap_or(TimelineId::FIRST);
    match ways.iter().find(|way| way.timeline == timeline) {
        Some(way) if backups.iter().any(|backup| backup.is_on(&way.ancestry)) => {
            Ok(ChosenTimeline { way, notes: vec![format!("timeline {timeline} has no WAL in this archive")] })
        }
        _ => Err(RefusalReason::NoBackupOnTimeline { timeline }),
    }
}

enum Standing {
    Reached,
    NoWal,
    OutOfReach(String),
}

fn standing(way: &TimelineWay, backups: &[&BackupPoint], held: &Held, size: WalSegmentSize) -> Standing {
    let begin = way.ancestry.spans().last().map_or(0, |span| span.begin.as_u64() / size.bytes());
    let has_wal = held.get(&way.timeline).is_some_and(|set| set.first_present(begin).is_some());
    if !has_wal {
        return Standing::NoWal;
    }
    let Some(backup) =
        backups.iter().filter(|backup| backup.is_on(&way.ancestry)).max_by_key(|backup| backup.stop)
    else {
        return Standing::OutOfReach("no backup lies on the way to it".to_owned());
    };
    let reach = Reach::along(&way.ancestry, held, size, backup.first_segment(size));
    match reach.gap {
        Some(gap) if reach.segments.end <= begin => {
            Standing::OutOfReach(format!("{gap} missing after backup {}", backup.id))
        }
        _ => Standing::Reached,
    }
}

/// The backups that could serve `target` on `ancestry`, the one to try first at the front. The next one is to be tried
/// when [`super::ScanEnd`] says that the place lies before the end of the one tried, or that nothing was found.
///
/// For a time, backups are taken in WAL order up to the first that ended later: clocks jump, and only WAL order counts
/// (I24). For an LSN, those that end at or before it. `chosen` limits them to one backup.
///
/// # Errors
///
/// [`RefusalReason::BeforeFirstBackup`], or that no backup, or not the chosen one, lies on the ancestry.
pub fn candidates<'a>(
    target: &RecoveryTarget,
    backups: &[&'a BackupPoint],
    ancestry: &Ancestry,
    chosen: Option<&str>,
) -> Result<Vec<&'a BackupPoint>, RefusalReason> {
    let timeline = ancestry.timeline().unwrap_or(TimelineId::FIRST);
    let mut usable: Vec<&BackupPoint> =
        backups.iter().copied().filter(|backup| backup.is_on(ancestry)).collect();
    usable.sort_by(|a, b| (a.stop, &a.id).cmp(&(b.stop, &b.id)));
    if let Some(id) = chosen {
        if !backups.iter().any(|backup| backup.id == id) {
            return Err(RefusalReason::UnknownBackup { id: id.to_owned() });
        }
        if !usable.iter().any(|backup| backup.id == id) {
            return Err(RefusalReason::BackupNotOnTimeline { id: id.to_owned(), timeline });
        }
    }
    let bound = match target {
        RecoveryTarget::Time { time, .. } => usable.iter().position(|backup| backup.stop_time > *time),
        RecoveryTarget::Lsn { lsn, .. } => usable.iter().position(|backup| backup.stop > *lsn),
        RecoveryTarget::Latest
        | RecoveryTarget::Consistent
        | RecoveryTarget::Xid { .. }
        | RecoveryTarget::RestorePoint { .. } => None,
    };
    let first = match chosen {
        Some(id) => usable.iter().find(|backup| backup.id == id),
        None => usable.first(),
    };
    let Some(first) = first.copied() else {
        return Err(RefusalReason::NoBackupOnTimeline { timeline });
    };
    usable.truncate(bound.unwrap_or(usable.len()));
    if let Some(id) = chosen {
        usable.retain(|backup| backup.id == id);
    }
    if usable.is_empty() {
        return Err(before_first(first));
    }
    usable.reverse();
    if matches!(target, RecoveryTarget::Latest | RecoveryTarget::Consistent | RecoveryTarget::Lsn { .. }) {
        usable.truncate(1);
    }
    Ok(usable)
}

/// The refusal of a target before `first`'s end.
pub(super) fn before_first(first: &BackupPoint) -> RefusalReason {
    RefusalReason::BeforeFirstBackup { first: first.stop_time, first_lsn: first.stop }
}
