//! Finding the place where recovery stops, from the indexes of the WAL alone.
//!
//! Indexes come in WAL order, the first one that of the segment in which the backup begins. A [`Chain`] joins them and hands
//! out what crosses their seams. What is looked at, and when the scan is done, depends on the target:
//!
//! - a time: the first commit or abort later than it. None up to the end of the WAL: then the time must not lie past the
//!   newest evidence of time (a commit, abort, checkpoint, restore point or backup's end), and recovery stops at the last
//!   complete record, for PostgreSQL itself would call it FATAL. Where newer WAL is known of and cannot be read, commits up
//!   to that time may lie in it: then something behind the last commit or abort must show that the time was over;
//! - a transaction: its commit or abort; a restore point: the first of its name;
//! - an LSN: the first record that starts at or after it; exactly at the end of the WAL, the last complete record;
//! - the latest: the last complete record, so that a hole is FATAL and never a silent promotion;
//! - consistent: the end of the backup.
//!
//! On the way the tablespaces are noted that replay will make: whoever restores must know of those directories first.

use super::over::{Over, just_before};
use super::{BackupPoint, ReplayedTablespace, Stop, StopPoint};
use crate::index::{Chain, Hole, SegmentIndex, TablespaceRecord, TransactionEnd, TransactionKind};
use crate::lsn::Lsn;
use crate::segment::WalSegmentSize;
use crate::target::RecoveryTarget;
use crate::time::PgTime;

/// Whether another index is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Push the next segment's index, if there is one.
    More,
    /// Enough was seen: call [`TargetScan::finish`].
    Done,
}

/// What a scan found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScanEnd {
    /// Recovery from this backup stops there.
    Stop(StopPoint),
    /// The place lies before this backup's end: an older backup is needed.
    BeforeBackup,
    /// No such transaction or restore point in the WAL that was pushed.
    NotFound,
    /// The target lies past everything the WAL that was pushed is evidence for, or what it names may lie in the newer WAL
    /// that [`TargetScan::finish`] was told of.
    PastEnd,
    /// The WAL that was pushed does not even reach the backup's end.
    Incomplete,
}

/// One scan: for one target, from one backup on.
#[derive(Debug)]
pub struct TargetScan {
    target: RecoveryTarget,
    backup: BackupPoint,
    size: WalSegmentSize,
    chain: Chain,
    /// The ends of backups on this way, as evidence of time once the WAL reaches them.
    witnesses: Vec<(Lsn, PgTime)>,
    evidence: Option<PgTime>,
    over: Over,
    newest_commit: Option<TransactionEnd>,
    tablespaces: Vec<TablespaceRecord>,
    found: Option<Found>,
}

/// The place, before it is known whether the backup serves it.
#[derive(Debug)]
struct Found {
    stop: Stop,
    boundary: Lsn,
    end: Lsn,
}

impl TargetScan {
    /// Begins a scan for `target` from `backup` on. `witnesses` are all backups on the same ancestry, in any order: their
    /// ends are evidence of time.
    pub fn new<'a>(
        target: &RecoveryTarget,
        backup: &BackupPoint,
        witnesses: impl IntoIterator<Item = &'a BackupPoint>,
        size: WalSegmentSize,
    ) -> Self {
        Self {
            target: target.clone(),
            backup: backup.clone(),
            size,
            chain: Chain::new(),
            witnesses: witnesses.into_iter().map(|witness| (witness.stop, witness.stop_time)).collect(),
            evidence: None,
            over: Over::default(),
            newest_commit: None,
            tablespaces: Vec::new(),
            found: None,
        }
    }

    /// Takes the next segment's index.
    ///
    /// # Errors
    ///
    /// [`Hole`] when it does not continue what was pushed before: nothing behind it can be reached from this backup.
    pub fn push(&mut self, index: &SegmentIndex) -> Result<Step, Hole> {
        if self.found.is_some() {
            return Ok(Step::Done);
        }
        let seam = self.chain.push(index)?;

        let transactions = seam.transaction.iter().chain(&index.transactions);
        let restore_points = seam.restore_point.iter().chain(&index.restore_points);
        let checkpoints = seam.checkpoint.iter().chain(&index.checkpoints);
        let times = transactions.clone().map(|transaction| transaction.time);
        let times = times.chain(restore_points.clone().map(|point| point.time));
        let times = times.chain(checkpoints.clone().map(|checkpoint| checkpoint.time));
        self.evidence = self.evidence.into_iter().chain(times).max();
        let ends = transactions.clone().map(|transaction| transaction.lsn);
        let others = restore_points.clone().map(|point| (point.lsn, point.time));
        let others = others.chain(checkpoints.map(|checkpoint| (checkpoint.lsn, checkpoint.time)));
        self.over.note(ends, others);

        // What PostgreSQL replays begins at the backup's redo pointer, inside of the first segment.
        let start = self.backup.start;
        let transactions = transactions.filter(|transaction| transaction.lsn >= start);
        let tablespaces = seam.tablespace.iter().chain(&index.tablespaces);
        self.tablespaces.extend(tablespaces.filter(|record| record.lsn >= start).cloned());

        match &self.target {
            RecoveryTarget::Latest => self.note_commits(transactions, |_| true),
            RecoveryTarget::Consistent => {
                let stop = self.backup.stop;
                self.note_commits(transactions, |transaction| transaction.lsn < stop);
                if self.chain.end().is_some_and(|end| end >= stop) {
                    self.found = Some(Found { stop: Stop::Immediate, boundary: stop, end: stop });
                }
            }
            RecoveryTarget::Time { time, before } => {
                let (time, before) = (*time, *before);
                let beyond = move |transaction: &TransactionEnd| {
                    transaction.time > time || (before && transaction.time == time)
                };
                let stop = Stop::Time { time, inclusive: !before };
                self.stop_before_first(transactions, beyond, stop);
            }
            RecoveryTarget::Xid { xid, before: true } => {
                let xid = *xid;
                let stop = Stop::Xid { xid, inclusive: false };
                self.stop_before_first(transactions, move |transaction| transaction.xid == xid, stop);
            }
            RecoveryTarget::Xid { xid, before: false } => {
                let xid = *xid;
                let hit = transactions.clone().find(|transaction| transaction.xid == xid).copied();
                self.note_commits(transactions, |transaction| {
                    hit.is_none_or(|hit| transaction.lsn <= hit.lsn)
                });
                self.found = hit.map(|hit| Found {
                    stop: Stop::Xid { xid, inclusive: true },
                    boundary: hit.end,
                    end: hit.end,
                });
            }
            RecoveryTarget::RestorePoint { name } => {
                let hit = restore_points.filter(|point| point.lsn >= start).find(|point| point.name == *name);
                let found = hit.map(|hit| Found {
                    stop: Stop::Name { name: name.clone() },
                    boundary: hit.end,
                    end: hit.end,
                });
                let limit = hit.map(|hit| hit.lsn);
                self.note_commits(transactions, |transaction| {
                    limit.is_none_or(|limit| transaction.lsn < limit)
                });
                self.found = found;
            }
            RecoveryTarget::Lsn { lsn, before } => {
                let (lsn, before) = (*lsn, *before);
                let included = |transaction: &TransactionEnd| {
                    transaction.lsn < lsn || (!before && transaction.lsn == lsn)
                };
                self.note_commits(transactions, included);
                // The first record at or after the target starts no later than the last complete one does.
                if self.chain.last_record().is_some_and(|last| last >= lsn) {
                    let end = self.chain.end().unwrap_or(lsn).max(lsn);
                    self.found =
                        Some(Found { stop: Stop::Lsn { lsn, inclusive: !before }, boundary: lsn, end });
                }
            }
        }
        Ok(if self.found.is_some() { Step::Done } else { Step::More })
    }

    /// The newest moment that what was pushed is evidence for, the ends of backups included.
    fn evidence(&self) -> Option<PgTime> {
        let end = self.chain.end()?;
        let witnessed = self.witnesses.iter().filter(|(stop, _)| *stop <= end).map(|(_, time)| *time);
        self.evidence.into_iter().chain(witnessed).max()
    }

    /// The last moment that was over where the WAL that was pushed ends.
    fn over(&self) -> Option<PgTime> {
        self.over.at(self.chain.end()?, self.witnesses.iter().copied())
    }

    /// What was found. To be called when [`TargetScan::push`] said `Done`, or there is no more WAL. `newer_missing`: there was
    /// newer WAL behind what was pushed, and it is not to be had.
    pub fn finish(self, newer_missing: bool) -> ScanEnd {
        if self.chain.end().is_none_or(|end| end < self.backup.stop) && self.found.is_none() {
            return ScanEnd::Incomplete;
        }
        let (evidence, over) = (self.evidence(), self.over());
        let last = self.chain.last_record().zip(self.chain.end());
        let found = match (self.found, &self.target) {
            (Some(found), _) => found,
            (None, RecoveryTarget::Time { time, before }) => {
                if evidence.is_none_or(|evidence| evidence < *time) {
                    return ScanEnd::PastEnd;
                }
                let newest_meant = if *before { just_before(*time) } else { *time };
                if newer_missing && over.is_none_or(|over| over < newest_meant) {
                    return ScanEnd::PastEnd;
                }
                match last {
                    Some(last) => Found::at_last_record(last),
                    None => return ScanEnd::Incomplete,
                }
            }
            // Where this leads is not the newest.
            (None, RecoveryTarget::Latest) if newer_missing => return ScanEnd::PastEnd,
            (None, RecoveryTarget::Latest) => match last {
                Some(last) => Found::at_last_record(last),
                None => return ScanEnd::Incomplete,
            },
            (None, RecoveryTarget::Lsn { lsn, .. }) => match last {
                Some(last) if *lsn <= last.1 => Found::at_last_record(last),
                _ => return ScanEnd::PastEnd,
            },
            (None, RecoveryTarget::Xid { .. } | RecoveryTarget::RestorePoint { .. }) => {
                return ScanEnd::NotFound;
            }
            (None, RecoveryTarget::Consistent) => return ScanEnd::Incomplete,
        };
        if found.boundary < self.backup.stop {
            return ScanEnd::BeforeBackup;
        }
        let replayed = self.tablespaces.iter().filter(|record| found.replays(record));
        ScanEnd::Stop(StopPoint {
            tablespaces: ReplayedTablespace::of(replayed),
            stop: found.stop,
            boundary: found.boundary,
            end: found.end,
            last_segment: found.end.as_u64().saturating_sub(1) / self.size.bytes(),
            newest_commit: self.newest_commit,
        })
    }

    /// Remembers the newest commit of those that `included` lets through.
    fn note_commits<'a>(
        &mut self,
        transactions: impl Iterator<Item = &'a TransactionEnd>,
        included: impl Fn(&TransactionEnd) -> bool,
    ) {
        let is_commit = |transaction: &&TransactionEnd| match transaction.kind {
            TransactionKind::Commit | TransactionKind::CommitPrepared => true,
            TransactionKind::Abort | TransactionKind::AbortPrepared => false,
        };
        let newest = transactions.filter(is_commit).filter(|transaction| included(transaction)).last();
        self.newest_commit = newest.copied().or(self.newest_commit);
    }

    /// Stops before the first transaction that is `beyond`.
    fn stop_before_first<'a>(
        &mut self,
        transactions: impl Iterator<Item = &'a TransactionEnd> + Clone,
        beyond: impl Fn(&TransactionEnd) -> bool,
        stop: Stop,
    ) {
        let next = transactions.clone().find(|transaction| beyond(transaction)).copied();
        self.note_commits(transactions, |transaction| next.is_none_or(|next| transaction.lsn < next.lsn));
        self.found = next.map(|next| Found { stop, boundary: next.lsn, end: next.end });
    }
}

impl Found {
    /// Everything there is: stop after the last complete record.
    fn at_last_record((start, end): (Lsn, Lsn)) -> Self {
        Self { stop: Stop::Lsn { lsn: start, inclusive: true }, boundary: end, end }
    }

    /// Whether recovery applies the record. An inclusive LSN target that lies between two records is met by the second of
    /// them (`recoveryStopsAfter` in `xlogrecovery.c`).
    fn replays(&self, record: &TablespaceRecord) -> bool {
        let met = matches!(self.stop, Stop::Lsn { lsn, inclusive: true } if record.prev < lsn);
        record.lsn < self.boundary || met
    }
}
