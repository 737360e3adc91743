//! Plans against a slow oracle: recovery as PostgreSQL does it, record by record, over a made-up history.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::index::{
    Carried, CheckpointRecord, DECODER, RestorePointRecord, SegmentIndex, TablespaceChange, TablespaceRecord,
    TransactionEnd, TransactionKind,
};
use crate::target::RecoveryTarget;
use crate::timeline::TimelineHistory;
use crate::wal::PgMajor;

const SIZE: u64 = 1 << 20;
const RECORD: u64 = 64;

#[derive(Debug, Clone, PartialEq)]
enum What {
    End(TransactionKind, u32),
    Point(String),
    Checkpoint,
    Made,
    Other,
}

/// One record; `time` is what the server's clock said.
#[derive(Debug, Clone)]
struct Record {
    lsn: Lsn,
    time: PgTime,
    what: What,
}

impl Record {
    fn end(&self) -> Lsn {
        self.lsn.saturating_add(RECORD)
    }

    fn transaction(&self) -> Option<TransactionEnd> {
        match self.what {
            What::End(kind, xid) => {
                Some(TransactionEnd { lsn: self.lsn, end: self.end(), xid, time: self.time, kind })
            }
            _ => None,
        }
    }

    fn is_commit(&self) -> bool {
        matches!(self.what, What::End(TransactionKind::Commit | TransactionKind::CommitPrepared, _))
    }
}

#[derive(Debug, Clone)]
struct History {
    records: Vec<Record>,
    backups: Vec<BackupPoint>,
    /// There was more, which is not among these.
    newer_missing: bool,
}

impl History {
    fn size() -> WalSegmentSize {
        WalSegmentSize::try_from(u32::try_from(SIZE).unwrap()).unwrap()
    }

    fn ancestry() -> Ancestry {
        TimelineHistory::root(TimelineId::FIRST).ancestry()
    }

    fn segments(&self) -> std::ops::Range<u64> {
        let number = |record: Option<&Record>| record.unwrap().lsn.as_u64() / SIZE;
        number(self.records.first())..number(self.records.last()) + 1
    }

    fn index(&self, number: u64) -> SegmentIndex {
        let here = |record: &&Record| record.lsn.as_u64() / SIZE == number;
        let records: Vec<&Record> = self.records.iter().filter(here).collect();
        let before = self.records.iter().rfind(|record| record.lsn.as_u64() / SIZE < number);
        SegmentIndex {
            decoder: DECODER,
            segment: SegmentName::from_number(TimelineId::FIRST, number, Self::size()),
            segment_size: Self::size(),
            block_size: 8192,
            major: PgMajor::V17,
            system_identifier: 7,
            first_record: records.first().map(|record| record.lsn),
            first_prev: before.map(|record| record.lsn),
            last_record: records.last().map(|record| record.lsn),
            end: records.last().map_or(Lsn::new(number * SIZE), |record| record.end()),
            ended_by_switch: true,
            stops_early: false,
            undecoded: None,
            carried_in: Carried::default(),
            unfinished: None,
            transactions: records.iter().filter_map(|record| record.transaction()).collect(),
            restore_points: records
                .iter()
                .filter_map(|record| match &record.what {
                    What::Point(name) => Some(RestorePointRecord {
                        lsn: record.lsn,
                        end: record.end(),
                        name: name.clone(),
                        time: record.time,
                    }),
                    _ => None,
                })
                .collect(),
            checkpoints: records
                .iter()
                .filter(|record| record.what == What::Checkpoint)
                .map(|record| CheckpointRecord {
                    lsn: record.lsn,
                    end: record.end(),
                    redo: record.lsn,
                    time: record.time,
                    online: true,
                })
                .collect(),
            tablespaces: self
                .records
                .iter()
                .enumerate()
                .filter(|(_, record)| record.what == What::Made && record.lsn.as_u64() / SIZE == number)
                .map(|(at, record)| TablespaceRecord {
                    lsn: record.lsn,
                    end: record.end(),
                    prev: at.checked_sub(1).map_or(Lsn::INVALID, |before| self.records[before].lsn),
                    oid: 16384,
                    change: TablespaceChange::Created { path: b"/srv".to_vec() },
                })
                .collect(),
        }
    }

    fn scan(&self, target: &RecoveryTarget, backup: &BackupPoint) -> ScanEnd {
        let mut scan = TargetScan::new(target, backup, &self.backups, Self::size());
        for number in backup.first_segment(Self::size())..self.segments().end {
            if scan.push(&self.index(number)).unwrap() == Step::Done {
                break;
            }
        }
        scan.finish(self.newer_missing)
    }

    /// The loop that the archive runs around [`candidates`] and [`TargetScan`].
    fn plan(&self, target: &RecoveryTarget) -> Option<(BackupPoint, StopPoint)> {
        let backups: Vec<&BackupPoint> = self.backups.iter().collect();
        for candidate in candidates(target, &backups, &Self::ancestry(), None).ok()? {
            match self.scan(target, candidate) {
                ScanEnd::Stop(stop) => return Some((candidate.clone(), stop)),
                ScanEnd::BeforeBackup | ScanEnd::NotFound => {}
                ScanEnd::PastEnd | ScanEnd::Incomplete => return None,
            }
        }
        None
    }

    /// `PerformWalRecovery` in small: how many of all records are there in the end, or why the server died.
    fn recover(&self, backup: &BackupPoint, stop: &Stop) -> Result<usize, &'static str> {
        let mut replayed = backup.start;
        for (at, record) in self.records.iter().enumerate().filter(|(_, record)| record.lsn >= backup.start) {
            let transaction = record.transaction();
            let consistent = replayed >= backup.stop;
            let stops_before = match stop {
                Stop::Immediate => consistent,
                Stop::Time { time, inclusive } => transaction
                    .is_some_and(|end| if *inclusive { end.time > *time } else { end.time >= *time }),
                Stop::Lsn { lsn, inclusive } => !inclusive && record.lsn >= *lsn,
                Stop::Xid { xid, inclusive } => !inclusive && transaction.is_some_and(|end| end.xid == *xid),
                Stop::Name { .. } => false,
            };
            if stops_before {
                return if consistent { Ok(at) } else { Err("stop point before consistent recovery point") };
            }
            replayed = record.end();
            let consistent = replayed >= backup.stop;
            let stops_after = match stop {
                Stop::Immediate => consistent,
                Stop::Time { .. } => false,
                Stop::Lsn { lsn, inclusive } => *inclusive && record.lsn >= *lsn,
                Stop::Xid { xid, inclusive } => *inclusive && transaction.is_some_and(|end| end.xid == *xid),
                Stop::Name { name } => record.what == What::Point(name.clone()),
            };
            if stops_after {
                return if consistent {
                    Ok(at + 1)
                } else {
                    Err("stop point before consistent recovery point")
                };
            }
        }
        Err("recovery ended before configured recovery target was reached")
    }

    /// I24 by its words: how many of all records belong to the state that the target names, seen from `backup`; `None`
    /// where the archive cannot know.
    fn meant(&self, target: &RecoveryTarget, backup: &BackupPoint) -> Option<usize> {
        let all = self.records.len();
        let mut seen = self.records.iter().enumerate().filter(|(_, record)| record.lsn >= backup.start);
        let end = self.records.last().unwrap().end();
        match target {
            RecoveryTarget::Latest => Some(all),
            RecoveryTarget::Consistent => {
                self.records.iter().position(|record| record.lsn >= backup.stop).or(Some(all))
            }
            RecoveryTarget::Time { time, before } => {
                let later = |end: TransactionEnd| if *before { end.time >= *time } else { end.time > *time };
                let first = seen.find(|(_, record)| record.transaction().is_some_and(later));
                let dated = self
                    .records
                    .iter()
                    .filter(|record| record.lsn.as_u64() / SIZE >= backup.first_segment(Self::size()))
                    .filter(|record| !matches!(record.what, What::Other | What::Made))
                    .map(|record| record.time);
                let stops =
                    self.backups.iter().filter(|backup| backup.stop <= end).map(|backup| backup.stop_time);
                let evidence = dated.chain(stops).max();
                first.map(|(at, _)| at).or((evidence >= Some(*time)).then_some(all))
            }
            RecoveryTarget::Lsn { lsn, before } => {
                let first = seen.find(|(_, record)| record.lsn >= *lsn);
                first.map(|(at, _)| if *before { at } else { at + 1 }).or((*lsn <= end).then_some(all))
            }
            RecoveryTarget::Xid { xid, before } => seen
                .find(|(_, record)| record.transaction().is_some_and(|end| end.xid == *xid))
                .map(|(at, _)| if *before { at } else { at + 1 }),
            RecoveryTarget::RestorePoint { name } => {
                seen.find(|(_, record)| record.what == What::Point(name.clone())).map(|(at, _)| at + 1)
            }
        }
    }

    /// Whether recovery from `backup` may stop after `count` records.
    fn serves(&self, backup: &BackupPoint, count: usize) -> bool {
        count > 0 && self.records[count - 1].end() >= backup.stop
    }
}

fn what() -> impl Strategy<Value = What> {
    let kind = prop_oneof![
        6 => Just(TransactionKind::Commit),
        2 => Just(TransactionKind::Abort),
        1 => Just(TransactionKind::CommitPrepared),
        1 => Just(TransactionKind::AbortPrepared),
    ];
    prop_oneof![
        6 => kind.prop_map(|kind| What::End(kind, 0)),
        1 => "[ab]".prop_map(What::Point),
        1 => Just(What::Checkpoint),
        2 => Just(What::Made),
        5 => Just(What::Other),
    ]
}

prop_compose! {
    fn histories(clock_goes_back: f64)(
        rows in prop::collection::vec((what(), 0i64..3, 0u8..6, prop::option::weighted(0.05, -9i64..9)), 6..60),
        backups in prop::collection::vec((any::<prop::sample::Index>(), 1usize..6), 0..5),
        clock_goes_back in prop::bool::weighted(clock_goes_back),
    ) -> History {
        let mut clock = 1000i64;
        let mut lsn = 3 * SIZE + 40;
        let mut records = Vec::new();
        for (xid, (mut what, step, next_segment, jump)) in (100u32..).zip(rows) {
            clock += step + if clock_goes_back { jump.unwrap_or(0) } else { 0 };
            if next_segment == 0 {
                lsn = (lsn / SIZE + 1) * SIZE + 40;
            }
            if let What::End(_, id) = &mut what {
                *id = xid;
            }
            records.push(Record { lsn: Lsn::new(lsn), time: PgTime::from_postgres_micros(clock), what });
            lsn += RECORD;
        }
        let backups = backups.iter().enumerate().map(|(number, (start, length))| {
            let start = start.index(records.len());
            let stop = (start + length).min(records.len() - 1);
            BackupPoint {
                id: format!("{number}"),
                timeline: TimelineId::FIRST,
                start: records[start].lsn,
                stop: records[stop].end(),
                stop_time: records[stop].time,
            }
        }).collect();
        History { records, backups, newer_missing: false }
    }
}

fn targets() -> impl Strategy<Value = RecoveryTarget> {
    prop_oneof![
        1 => Just(RecoveryTarget::Latest),
        1 => Just(RecoveryTarget::Consistent),
        6 => (990i64..1100, any::<bool>()).prop_map(|(time, before)| RecoveryTarget::Time {
            time: PgTime::from_postgres_micros(time),
            before,
        }),
        4 => (0u64..14 * SIZE, any::<bool>()).prop_map(|(lsn, before)| RecoveryTarget::Lsn { lsn: Lsn::new(lsn), before }),
        3 => (0u64..14, 0u64..700, any::<bool>()).prop_map(|(segment, byte, before)| RecoveryTarget::Lsn {
            lsn: Lsn::new((segment + 3) * SIZE + 40 + byte),
            before,
        }),
        4 => (100u32..150, any::<bool>()).prop_map(|(xid, before)| RecoveryTarget::Xid { xid, before }),
        3 => "[ab]".prop_map(|name| RecoveryTarget::RestorePoint { name }),
    ]
}

/// Puts an LSN target on a record's start or end, where off-by-one mistakes live.
fn snap(
    history: &History,
    target: RecoveryTarget,
    onto: Option<(prop::sample::Index, bool)>,
) -> RecoveryTarget {
    match (target, onto) {
        (RecoveryTarget::Lsn { before, .. }, Some((at, end))) => {
            // The last record is drawn as often as all others.
            let count = history.records.len();
            let record = &history.records[at.index(count * 2).min(count - 1)];
            RecoveryTarget::Lsn { lsn: if end { record.end() } else { record.lsn }, before }
        }
        (target, _) => target,
    }
}

fn onto() -> impl Strategy<Value = Option<(prop::sample::Index, bool)>> {
    prop::option::of((any::<prop::sample::Index>(), any::<bool>()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// I24: recovery with the planned settings, as PostgreSQL runs it, holds exactly the records the target names.
    #[test]
    fn a_plan_is_exactly_what_was_meant(history in histories(0.5), target in targets(), onto in onto()) {
        let target = snap(&history, target, onto);
        if let Some((backup, stop)) = history.plan(&target) {
            let meant = history.meant(&target, &backup).expect("a plan for a target that cannot be known");
            prop_assert_eq!(history.recover(&backup, &stop.stop), Ok(meant), "{:?} from {:?}", &stop, &backup);
            // Everything recovery reads lies in the segments that the plan names.
            let reads = history.records.get(meant).filter(|_| matches!(stop.stop, Stop::Time { .. } | Stop::Xid { inclusive: false, .. }));
            let reads = reads.unwrap_or(&history.records[meant - 1]);
            prop_assert!(stop.last_segment >= reads.lsn.as_u64() / SIZE, "{stop:?} reads {reads:?}");
            let exact = matches!(stop.stop, Stop::Time { .. } | Stop::Xid { .. } | Stop::Name { .. });
            prop_assert!(!exact || stop.end == reads.end(), "{stop:?} reads up to {reads:?}");
            // For an LSN the record found there is not told from its neighbours; what starts before it is.
            let known = match target {
                RecoveryTarget::Lsn { lsn, before } => history.records.partition_point(|record| {
                    record.lsn < lsn || !before && record.lsn == lsn
                }),
                _ => meant,
            };
            let newest = history.records[..known].iter().rfind(|record| record.is_commit() && record.lsn >= backup.start);
            prop_assert_eq!(stop.newest_commit.map(|commit| commit.lsn), newest.map(|record| record.lsn));
            // Every tablespace that recovery makes is known beforehand, and no other.
            let made = history.records[..meant].iter().filter(|record| record.what == What::Made);
            let made: Vec<Lsn> = made.filter(|record| record.lsn >= backup.start).map(|record| record.lsn).collect();
            let known: Vec<Lsn> = stop.tablespaces.iter().map(|tablespace| tablespace.lsn).collect();
            prop_assert_eq!(known, made, "{:?}", &stop);
        }
    }

    /// A target is refused only when no backup serves it, and a plan takes the newest that does. Clocks that never go
    /// back: with them every backup sees a time at the same place.
    #[test]
    fn nothing_reachable_is_refused(history in histories(0.0), target in targets(), onto in onto()) {
        let target = snap(&history, target, onto);
        let serving = |backup: &&BackupPoint| {
            let ended_by_then = match &target {
                RecoveryTarget::Time { time, .. } => backup.stop_time <= *time,
                RecoveryTarget::Lsn { lsn, .. } => backup.stop <= *lsn,
                _ => true,
            };
            ended_by_then && history.meant(&target, backup).is_some_and(|meant| history.serves(backup, meant))
        };
        let newest = history.backups.iter().filter(serving).map(|backup| backup.stop).max();
        let planned = history.plan(&target).map(|(backup, _)| backup.stop);
        prop_assert_eq!(planned, newest);
    }

    /// I24: where newer WAL is missing, a plan brings every commit that was meant, seen from one who has it all; and what ends
    /// before the hole is planned as if there were none. Clocks that never go back: no archive shows what they did in a hole.
    #[test]
    fn nothing_is_reached_through_a_hole(mut whole in histories(0.0), target in targets(), at in any::<prop::sample::Index>()) {
        if matches!(target, RecoveryTarget::Lsn { .. }) {
            return Ok(());
        }
        // A backup's moment is read before its last record is written.
        for backup in &mut whole.backups {
            backup.stop_time = just_before(backup.stop_time);
        }
        let Some(at) = at.index(whole.records.len()).checked_sub(1) else { return Ok(()) };
        let hole = whole.records[at + 1].lsn.as_u64() / SIZE;
        let records: Vec<Record> =
            whole.records.iter().filter(|record| record.lsn.as_u64() / SIZE < hole).cloned().collect();
        let Some(end) = records.last().map(Record::end) else { return Ok(()) };
        whole.backups.retain(|backup| backup.stop <= end);
        let held = History { records, backups: whole.backups.clone(), newer_missing: true };
        let planned = held.plan(&target);
        if let Some((backup, stop)) = &planned {
            let meant = whole.meant(&target, backup).expect("a plan for a target that cannot be known");
            let reached = held.recover(backup, &stop.stop).expect("a plan that recovery dies of");
            // What ends no transaction may lie in the hole before the first end that is later.
            let lost = whole.records.get(reached..meant).expect("more than was meant").iter().find(|record| record.is_commit());
            prop_assert!(lost.is_none(), "{lost:?} is lost by {stop:?} from {backup:?}");
        }
        let all = whole.plan(&target).filter(|(_, stop)| stop.last_segment < hole);
        prop_assert!(all.is_none() || planned == all, "{planned:?} instead of {all:?}");
    }

    /// A time is judged only by backups up to the first that ended after it, in WAL order, however the clock jumped.
    #[test]
    fn a_jump_of_the_clock_bounds_the_backups(history in histories(0.5), time in 990i64..1100) {
        let time = PgTime::from_postgres_micros(time);
        if let Some((backup, _)) = history.plan(&RecoveryTarget::Time { time, before: false }) {
            for other in history.backups.iter().filter(|other| other.stop <= backup.stop) {
                let fits = other.stop_time <= time || other.stop == backup.stop;
                prop_assert!(fits, "{other:?} ended after {time}");
            }
        }
    }
}

/// The end of a backup is evidence of its moment only as far as the WAL reaches it.
#[test]
fn a_backup_behind_the_end_of_the_wal_is_no_evidence() {
    let commit = |segment: u64, xid: u32, micros: i64| Record {
        lsn: Lsn::new(segment * SIZE + 40),
        time: PgTime::from_postgres_micros(micros),
        what: What::End(TransactionKind::Commit, xid),
    };
    let backup = |id: &str, record: &Record| BackupPoint {
        id: id.to_owned(),
        timeline: TimelineId::FIRST,
        start: record.lsn,
        stop: record.end(),
        stop_time: record.time,
    };
    let records = vec![commit(3, 1, 1000), commit(4, 2, 1010), commit(5, 3, 1020)];
    let backups = vec![backup("first", &records[0]), backup("second", &records[2])];
    let whole = History { records: records.clone(), backups: backups.clone(), newer_missing: false };
    let cut = History { records: records[..2].to_vec(), backups, newer_missing: false };
    let at = |micros: i64| RecoveryTarget::Time { time: PgTime::from_postgres_micros(micros), before: false };
    assert!(matches!(whole.scan(&at(1015), &whole.backups[0]), ScanEnd::Stop(_)));
    assert!(matches!(cut.scan(&at(1010), &cut.backups[0]), ScanEnd::Stop(_)));
    assert_eq!(cut.scan(&at(1015), &cut.backups[0]), ScanEnd::PastEnd);
}

/// I24: between the last commit in front of a hole and the newest moment known there, commits may lie in the hole, unless
/// something behind that commit shows that the moment was over.
#[test]
fn a_time_that_a_hole_may_hold_commits_of_is_refused() {
    let record = |segment: u64, micros: i64, what: What| Record {
        lsn: Lsn::new(segment * SIZE + 40),
        time: PgTime::from_postgres_micros(micros),
        what,
    };
    let commit = |segment, xid, micros| record(segment, micros, What::End(TransactionKind::Commit, xid));
    let first = commit(3, 1, 1000);
    let backup = BackupPoint {
        id: "first".to_owned(),
        timeline: TimelineId::FIRST,
        start: first.lsn,
        stop: first.end(),
        stop_time: first.time,
    };
    let reached = |records: &[Record], micros: i64, before: bool, newer_missing: bool| {
        let backups = vec![backup.clone()];
        let held = History { records: records.to_vec(), backups, newer_missing };
        let target = RecoveryTarget::Time { time: PgTime::from_postgres_micros(micros), before };
        matches!(held.scan(&target, &held.backups[0]), ScanEnd::Stop(_))
    };
    // The commit itself is the newest moment: another one may bear it too.
    let records = [first.clone(), commit(4, 2, 1010)];
    assert!(reached(&records, 1010, false, false) && !reached(&records, 1010, false, true));
    assert!(reached(&records, 1010, true, true) && reached(&records, 1009, false, true));
    // A checkpoint behind it.
    let records = [first.clone(), commit(4, 2, 1010), record(5, 1020, What::Checkpoint)];
    assert!(reached(&records, 1020, false, false) && !reached(&records, 1020, false, true));
    assert!(reached(&records, 1020, true, true) && reached(&records, 1019, false, true));
    // One in front of it, by a clock that was set back then.
    let records = [first.clone(), record(4, 1020, What::Checkpoint), commit(5, 2, 1010)];
    assert!(reached(&records, 1015, false, false) && !reached(&records, 1015, false, true));
    assert!(reached(&records, 1009, false, true));
    // The end of a backup says it of its own moment.
    let made = Record { lsn: first.end(), ..record(3, 1000, What::Other) };
    let ended = BackupPoint { stop: made.end(), ..backup.clone() };
    let held = History { records: vec![first, made], backups: vec![ended.clone()], newer_missing: true };
    let at = RecoveryTarget::Time { time: ended.stop_time, before: false };
    assert!(matches!(held.scan(&at, &ended), ScanEnd::Stop(_)));
}
