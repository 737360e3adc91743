//! From a target to a plan: reads indexes in WAL order, and lets `highwater_pitr::plan` decide.
//!
//! One pass for each backup that could serve, newest first. A transaction or a restore point that the newest backup's WAL does
//! not hold is looked for in front of it, from the next older backup on, and there only up to where the pass before began. WAL that is
//! missing or broken ends no such search: a transaction that an older backup reaches before it is reached. The name of a restore point may
//! be used again, and the later one be meant, in the WAL that could not be looked at: such a one is refused, and the older backup named.

use futures::StreamExt;
use highwater_pitr::index::TransactionKind;
use highwater_pitr::plan::{
    BackupPoint, Gap, Plan, Reach, Refusal, RefusalReason, ScanEnd, Step, Stop, StopPoint, TargetScan,
    Window, candidates, choose_timeline,
};
use highwater_pitr::segment::SegmentName;
use highwater_pitr::target::RecoveryTarget;
use highwater_pitr::timeline::{Ancestry, TimelineHistory, TimelineId};

use super::CatalogError;
use super::ground::{Ground, IndexSource, Indexed, indexes};
use super::joined::{Holding, JoinedIndexes, join};
use super::windows::windows_along;
use crate::manifest::BackupId;

/// How many segments of a timeline are looked through, from its end on, for a commit past the place where it was left.
const SEGMENTS_LEFT_BEHIND: u64 = 64;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// The target cannot be reached; nothing was written.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The archive could not be asked.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
}

impl ResolveError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Refused(refusal) => refusal.hint(),
            Self::Catalog(error) => error.hint(),
        }
    }

    /// With the older backup that reaches an earlier restore point of the name.
    fn with_earlier(mut self, earlier: Option<String>) -> Self {
        if let Self::Refused(refusal) = &mut self {
            refusal.earlier = earlier;
        }
        self
    }
}

/// Finds out how `target` is reached: by which backup, on which timeline, through which WAL, and where recovery stops.
///
/// `timeline` follows that timeline instead of the newest that can be reached; `backup` begins with that backup instead of the
/// newest that can serve. The WAL of all of `holdings` counts, whichever of them has a segment. Nothing is written anywhere.
///
/// # Errors
///
/// [`ResolveError::Refused`] with the reason and with the window that can be reached, when the archive does not hold what
/// the target needs; [`ResolveError::Catalog`] when the archive could not be asked.
pub async fn resolve(
    holdings: &[Holding<'_>],
    target: &RecoveryTarget,
    timeline: Option<TimelineId>,
    backup: Option<&BackupId>,
) -> Result<Plan, ResolveError> {
    let Some(ground) = join(holdings) else {
        return Err(ResolveError::Refused(Box::new(Refusal {
            target: target.to_string(),
            why: RefusalReason::NoBackup,
            window: None,
            earlier: None,
            notes: Vec::new(),
        })));
    };
    let source = JoinedIndexes::new(holdings);
    resolve_on(&ground, &source, target, timeline, backup.map(BackupId::as_str)).await
}

pub(super) async fn resolve_on(
    ground: &Ground,
    source: &dyn IndexSource,
    target: &RecoveryTarget,
    timeline: Option<TimelineId>,
    backup: Option<&str>,
) -> Result<Plan, ResolveError> {
    let points: Vec<&BackupPoint> = ground.points.iter().collect();
    let eligible: Vec<&BackupPoint> =
        points.iter().copied().filter(|point| backup.is_none_or(|id| point.id == id)).collect();
    if let (Some(id), true) = (backup, eligible.is_empty()) {
        return Err(
            refuse(ground, source, target, None, RefusalReason::UnknownBackup { id: id.to_owned() }).await?
        );
    }
    let chosen = match choose_timeline(target, timeline, &ground.ways, &eligible, &ground.held, ground.size) {
        Ok(chosen) => chosen,
        Err(why) => {
            let why = match (why, backup) {
                (RefusalReason::NoBackupOnTimeline { timeline }, Some(id)) => {
                    RefusalReason::BackupNotOnTimeline { id: id.to_owned(), timeline }
                }
                (why, _) => why,
            };
            return Err(refuse(ground, source, target, None, why).await?);
        }
    };
    let ancestry = &chosen.way.ancestry;
    let usable = match candidates(target, &points, ancestry, backup) {
        Ok(usable) => usable,
        Err(why) => return Err(refuse(ground, source, target, Some(ancestry), why).await?),
    };

    // What is looked for by its name may lie in front of WAL that is lost, or of a backup whose own is: from an older one it is reached.
    let is_sought = matches!(target, RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. });
    let mut why = None;
    let mut in_the_way = None;
    let mut seen_from = None;
    let mut earlier = None;
    for candidate in usable {
        match scan(ground, source, target, ancestry, candidate, seen_from).await? {
            Scanned::Stop(_)
                if in_the_way.is_some() && matches!(target, RecoveryTarget::RestorePoint { .. }) =>
            {
                earlier = Some(candidate.id.clone());
                break;
            }
            Scanned::Stop(stop) => {
                let mut notes = ground.notes.clone();
                notes.extend(chosen.notes);
                if let (RecoveryTarget::Time { time, .. }, Stop::Lsn { lsn, .. }) = (target, &stop.stop) {
                    notes.push(format!(
                        "the archive holds nothing later than {time}; recovery stops at the last WAL record it holds, at LSN {lsn}"
                    ));
                }
                if matches!(target, RecoveryTarget::Latest) {
                    notes.extend(left_behind(ground, source, ancestry, &stop).await);
                }
                return Ok(Plan {
                    backup: candidate.clone(),
                    timeline: chosen.way.timeline,
                    has_history: chosen.way.has_history,
                    ancestry: ancestry.clone(),
                    segment_size: ground.size,
                    first_segment: candidate.first_segment(ground.size),
                    stop,
                    notes,
                });
            }
            Scanned::BeforeBackup => {
                seen_from = None;
                why = Some(RefusalReason::BeforeFirstBackup {
                    first: candidate.stop_time,
                    first_lsn: candidate.stop,
                });
            }
            Scanned::NotFound(not_found) => {
                seen_from = Some(candidate.first_segment(ground.size));
                why = Some(not_found);
            }
            Scanned::Refused(refused) => {
                in_the_way.get_or_insert((refused, None));
            }
            Scanned::Broken { segment, what } => {
                in_the_way.get_or_insert((RefusalReason::BrokenWal { what }, Some(segment)));
            }
        }
        if in_the_way.is_some() && !is_sought {
            break;
        }
    }
    if let Some((why, Some(segment))) = in_the_way {
        // What lies behind it cannot be reached either: the window that is shown ends before it.
        let refused = refuse(&ground.without(segment), source, target, Some(ancestry), why).await?;
        return Err(refused.with_earlier(earlier));
    }
    // That something is not there is only known of what could be looked at.
    let why = in_the_way.map(|(refused, _)| refused).or(why).unwrap_or(RefusalReason::NoBackup);
    Err(refuse(ground, source, target, Some(ancestry), why).await?.with_earlier(earlier))
}

/// Commits of the timelines on the way that lie past the place where each was left, and are newer than the newest that the
/// plan reaches: someone went on writing there. The newest moment was asked for, so each such timeline is a sentence.
async fn left_behind(
    ground: &Ground,
    source: &dyn IndexSource,
    ancestry: &Ancestry,
    stop: &StopPoint,
) -> Vec<String> {
    let reached = stop.newest_commit.as_ref().map(|commit| commit.time);
    let mut notes = Vec::new();
    for span in ancestry.spans() {
        let (Some(left_at), Some(held)) = (span.end, ground.held.get(&span.timeline)) else { continue };
        let first = left_at.as_u64() / ground.size.bytes();
        let Some(end) = held.runs().last().map(|run| run.end) else { continue };
        let own = TimelineHistory::root(span.timeline).ancestry();
        let looked_at = (first.max(end.saturating_sub(SEGMENTS_LEFT_BEHIND))..end)
            .rev()
            .filter(|number| held.contains(*number));
        let mut stream = indexes(source, &own, ground.size, looked_at);
        while let Some(read) = stream.next().await {
            // Nothing that is restored depends on it: one that cannot be read now is no reason to fail.
            let Ok((_, Indexed::Index(index))) = read else { continue };
            let past = index.transactions.iter().filter(|transaction| {
                transaction.lsn >= left_at
                    && matches!(transaction.kind, TransactionKind::Commit | TransactionKind::CommitPrepared)
            });
            let Some(newest) = past.max_by_key(|transaction| transaction.time) else { continue };
            if reached.is_none_or(|reached| newest.time > reached) {
                notes.push(format!(
                    "timeline {timeline} was written on past LSN {left_at}, where the way to timeline {} leaves it: its transaction {} of {} is newer \
                     than all that this restore brings back; --timeline {timeline} restores that side",
                    ancestry.timeline().unwrap_or(span.timeline),
                    newest.xid,
                    newest.time,
                    timeline = span.timeline,
                ));
            }
            break;
        }
    }
    notes
}

/// What one pass came to.
enum Scanned {
    Stop(StopPoint),
    BeforeBackup,
    NotFound(RefusalReason),
    Refused(RefusalReason),
    /// A segment that is there and cannot be read.
    Broken {
        segment: SegmentName,
        what: String,
    },
}

/// One pass, from `candidate` on. `seen_from`: segments behind that one have been looked through in vain.
async fn scan(
    ground: &Ground,
    source: &dyn IndexSource,
    target: &RecoveryTarget,
    ancestry: &Ancestry,
    candidate: &BackupPoint,
    seen_from: Option<u64>,
) -> Result<Scanned, CatalogError> {
    let size = ground.size;
    let reach = Reach::along(ancestry, &ground.held, size, candidate.first_segment(size));
    let needed = candidate.last_segment(size);
    if !reach.segments.contains(&needed) {
        let gap = reach.gap.or_else(|| Gap::between(ancestry, size, reach.segments.end, needed));
        return Ok(Scanned::Refused(match gap {
            Some(gap) => RefusalReason::MissingWal { gap },
            None => RefusalReason::PastEnd,
        }));
    }
    let end = seen_from.map_or(reach.segments.end, |seen| reach.segments.end.min(seen.max(needed) + 1));
    let witnesses = ground.points.iter().filter(|point| point.is_on(ancestry));
    let mut scan = TargetScan::new(target, candidate, witnesses, size);
    let mut stream = indexes(source, ancestry, size, reach.segments.start..end);
    while let Some(read) = stream.next().await {
        let (name, indexed) = read?;
        let index = match indexed {
            Indexed::Index(index) => index,
            Indexed::Hole(reason) => {
                return Ok(Scanned::Broken { segment: name, what: format!("segment {name}: {reason}") });
            }
        };
        match scan.push(&index) {
            Ok(Step::More) => {}
            Ok(Step::Done) => break,
            Err(hole) => return Ok(Scanned::Refused(RefusalReason::BrokenWal { what: hole.to_string() })),
        }
    }
    let gap = reach.missing_behind(ancestry, &ground.points, size);
    let missing_or = |otherwise| match gap {
        Some(gap) => RefusalReason::MissingWal { gap },
        None => otherwise,
    };
    Ok(match (scan.finish(gap.is_some()), target) {
        (ScanEnd::Stop(stop), _) => Scanned::Stop(stop),
        (ScanEnd::BeforeBackup, _) => Scanned::BeforeBackup,
        (ScanEnd::NotFound, RecoveryTarget::RestorePoint { name }) => {
            Scanned::NotFound(missing_or(RefusalReason::UnknownRestorePoint { name: name.clone() }))
        }
        (ScanEnd::NotFound, RecoveryTarget::Xid { xid, .. }) => {
            Scanned::NotFound(missing_or(RefusalReason::UnknownXid { xid: *xid }))
        }
        (ScanEnd::NotFound | ScanEnd::PastEnd, _) => Scanned::Refused(missing_or(RefusalReason::PastEnd)),
        (ScanEnd::Incomplete, _) => Scanned::Refused(RefusalReason::BrokenWal {
            what: format!("it stops before the end of backup {}, LSN {}", candidate.id, candidate.stop),
        }),
    })
}

/// A refusal with the window that lies nearest to what was asked for: on the way chosen, else on any.
async fn refuse(
    ground: &Ground,
    source: &dyn IndexSource,
    target: &RecoveryTarget,
    ancestry: Option<&Ancestry>,
    why: RefusalReason,
) -> Result<ResolveError, CatalogError> {
    let ways = ground.ways.iter().filter(|way| ancestry.is_none_or(|ancestry| way.ancestry == *ancestry));
    let mut all = Vec::new();
    for way in ways {
        all.extend(windows_along(ground, source, way).await?.into_iter().map(|reachable| reachable.window));
    }
    let window = nearest(target, all);
    Ok(ResolveError::Refused(Box::new(Refusal {
        target: target.to_string(),
        why,
        window,
        earlier: None,
        notes: ground.notes.clone(),
    })))
}

/// The newest window that begins at or before the target; with none, the first of all.
fn nearest(target: &RecoveryTarget, mut all: Vec<Window>) -> Option<Window> {
    all.sort_by_key(|window| (window.timeline, window.from_lsn));
    let begins_before = |window: &&Window| match target {
        RecoveryTarget::Time { time, .. } => window.from <= *time,
        RecoveryTarget::Lsn { lsn, .. } => window.from_lsn <= *lsn,
        RecoveryTarget::Latest
        | RecoveryTarget::Consistent
        | RecoveryTarget::Xid { .. }
        | RecoveryTarget::RestorePoint { .. } => true,
    };
    all.iter().rev().find(begins_before).or(all.first()).cloned()
}
