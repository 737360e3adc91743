//! The windows of what can be recovered to: from the end of a backup to the end of the gapless WAL behind it.
//!
//! WAL counts as gapless by its names. The indexes at its end say where the last record ends, and which moment it is evidence
//! of: a window's end is a time that a record or a backup in it holds, never one that only a clock has shown. A segment at the end
//! that is there and cannot be known cuts the window before it, where a later record still shows that nothing is missing; backups behind it begin another, and one that has it in its own WAL begins none.

use futures::StreamExt;
use highwater_pitr::index::SegmentIndex;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::plan::{BackupPoint, Gap, Over, Reach, TimelineWay, Window, just_before};
use highwater_pitr::time::PgTime;

use super::ground::{Ground, IndexSource, Indexed, indexes};
use super::{Catalog, CatalogError};
use crate::repository::lineage::Lineage;

/// How many segments are looked through, from the end on, for the newest evidence of time. A checkpoint is written every few
/// minutes of work, and each is evidence; what lies further back changes the shown end of a window by nothing a person
/// would notice.
const SEGMENTS_FOR_EVIDENCE: u64 = 64;

/// A window, and what ends it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReachableWindow {
    /// The window.
    pub window: Window,
    /// How many backups it can begin with.
    pub backups: usize,
    /// What is missing at its end, when there was newer WAL behind.
    pub gap: Option<Gap>,
    /// The last segment that could not be indexed while its end was looked for, and why.
    pub unreadable: Option<String>,
}

/// All windows of the lineage: for each timeline, oldest first. Two timelines share the windows of their common past.
///
/// # Errors
///
/// The archive could not be asked.
pub async fn windows(lineage: &Lineage, catalog: &Catalog) -> Result<Vec<ReachableWindow>, CatalogError> {
    let source = super::load::LineageIndexes::new(lineage);
    let mut all = Vec::new();
    for way in &catalog.ground().ways {
        all.extend(windows_along(catalog.ground(), &source, way).await?);
    }
    Ok(all)
}

/// The windows on the way to one timeline, oldest first. A backup whose own WAL is not whole begins none.
pub(super) async fn windows_along(
    ground: &Ground,
    source: &dyn IndexSource,
    way: &TimelineWay,
) -> Result<Vec<ReachableWindow>, CatalogError> {
    let size = ground.size;
    let mut points: Vec<&BackupPoint> =
        ground.points.iter().filter(|point| point.is_on(&way.ancestry)).collect();
    points.sort_by(|a, b| (a.stop, &a.id).cmp(&(b.stop, &b.id)));

    let mut rows: Vec<(Reach, Vec<&BackupPoint>)> = Vec::new();
    for point in &points {
        let reach = Reach::along(&way.ancestry, &ground.held, size, point.first_segment(size));
        if !reach.segments.contains(&point.last_segment(size)) {
            continue;
        }
        match rows.iter_mut().find(|(row, _)| row.segments.end == reach.segments.end) {
            Some((_, backups)) => backups.push(point),
            None => rows.push((reach, vec![point])),
        }
    }

    let mut all = Vec::new();
    for (reach, mut waiting) in rows {
        let gap = reach.missing_behind(&way.ancestry, &ground.points, size);
        while let Some(first) = waiting.first().copied() {
            let end = end_of(ground, source, way, &reach, gap.is_some(), first).await?;
            let (mut backups, mut behind) = (waiting, Vec::new());
            if let Some(cut) = end.cut {
                behind.extend(backups.iter().copied().filter(|point| point.first_segment(size) > cut));
                backups.retain(|point| point.last_segment(size) < cut);
            }
            waiting = behind;
            let Some(first) = backups.first() else { continue };
            let whole_end = end.lsn.unwrap_or(first.stop).max(first.stop);
            let witnesses = points.iter().filter(|point| point.stop <= whole_end && point.stop >= first.stop);
            let witnesses = witnesses.map(|point| (point.stop, point.stop_time));
            let (to_lsn, to) = match end.cut {
                None if gap.is_some() => {
                    // More was committed behind it: only what is over, or what a known record ends, can be planned.
                    let over = end.over.at(whole_end, witnesses);
                    let before = end.last_transaction.map(just_before).max(over).max(Some(first.stop_time));
                    (whole_end, before.unwrap_or(first.stop_time))
                }
                None => {
                    let moments = witnesses.map(|(_, time)| time).chain(end.evidence);
                    (whole_end, moments.max().unwrap_or(first.stop_time))
                }
                // What follows is there and cannot be read: only what a known record ends can be planned.
                Some(_) => {
                    let before = end.last_transaction.map(just_before).max(Some(first.stop_time));
                    let to_lsn = end.last_record.unwrap_or(first.stop).max(first.stop);
                    (to_lsn, before.unwrap_or(first.stop_time))
                }
            };
            all.push(ReachableWindow {
                window: Window {
                    timeline: way.timeline,
                    backup: first.id.clone(),
                    from_lsn: first.stop,
                    from: first.stop_time,
                    to_lsn,
                    to,
                },
                backups: backups.len(),
                gap: gap.filter(|_| end.cut.is_none()),
                unreadable: end.unreadable,
            });
        }
    }
    Ok(all)
}

#[derive(Default)]
struct End {
    lsn: Option<Lsn>,
    evidence: Option<PgTime>,
    over: Over,
    /// Start of the last record that is known to be whole.
    last_record: Option<Lsn>,
    /// The newest end of a transaction, of those in the last segment that has one behind the first backup.
    last_transaction: Option<PgTime>,
    /// The number of the first segment that could not be known, and why.
    cut: Option<u64>,
    unreadable: Option<String>,
}

/// Reads backwards from the end of `reach` until the end of the last record and a moment are known.
async fn end_of(
    ground: &Ground,
    source: &dyn IndexSource,
    way: &TimelineWay,
    reach: &Reach,
    newer_missing: bool,
    first: &BackupPoint,
) -> Result<End, CatalogError> {
    let size = ground.size;
    let stop = reach.segments.end.saturating_sub(SEGMENTS_FOR_EVIDENCE).max(first.last_segment(size));
    let mut end = End::default();
    let mut stream = indexes(source, &way.ancestry, size, (stop..reach.segments.end).rev());
    while let Some(read) = stream.next().await {
        let (name, indexed) = read?;
        let (index, hole) = match indexed {
            Indexed::Hole(reason) => (None, Some(reason)),
            Indexed::Index(index) => {
                let undecoded =
                    index.undecoded.map(|lsn| format!("the record at {lsn} could not be decoded"));
                (Some(index), undecoded)
            }
        };
        match (index, hole) {
            (_, Some(reason)) => {
                // What lies behind a hole cannot be reached through it.
                let unreadable = Some(format!("segment {name}: {reason}"));
                end = End { cut: Some(name.number(size)), unreadable, ..End::default() };
            }
            (Some(index), None) => {
                if end.lsn.is_none() && index.end > name.start(size) {
                    end.lsn = Some(index.end);
                }
                // One that ends before the first backup does ends no recovery.
                let behind = index.transactions.iter().filter(|transaction| transaction.lsn >= first.stop);
                let newest = behind.map(|transaction| transaction.time).max();
                end.last_transaction = end.last_transaction.or(newest);
                end.last_record = end.last_record.or(index.last_record);
                end.evidence = newest_moment(&index).max(end.evidence);
                let ends = index.transactions.iter().map(|transaction| transaction.lsn);
                let others = index.restore_points.iter().map(|point| (point.lsn, point.time));
                let checkpoints =
                    index.checkpoints.iter().map(|checkpoint| (checkpoint.lsn, checkpoint.time));
                end.over.note(ends, others.chain(checkpoints));
                let transaction_wanted = end.cut.is_some() || newer_missing;
                let transaction_known = !transaction_wanted || end.over.knows_an_end();
                if end.lsn.is_some() && end.evidence.is_some() && transaction_known {
                    break;
                }
            }
            (None, None) => {}
        }
    }
    Ok(end)
}

/// The newest moment that a segment's own records speak of.
fn newest_moment(index: &SegmentIndex) -> Option<PgTime> {
    let transactions = index.transactions.iter().map(|transaction| transaction.time);
    let points = index.restore_points.iter().map(|point| point.time);
    let checkpoints = index.checkpoints.iter().map(|checkpoint| checkpoint.time);
    transactions.chain(points).chain(checkpoints).max()
}
