//! Targets resolved over made-up WAL: both sides of a promotion, holes, and what a refusal says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use highwater_pitr::index::{
    Carried, DECODER, RestorePointRecord, SegmentIndex, TransactionEnd, TransactionKind,
};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::plan::{BackupPoint, Plan, Refusal, RefusalReason, SegmentSet, Stop, TimelineWay};
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::target::RecoveryTarget;
use highwater_pitr::time::PgTime;
use highwater_pitr::timeline::{TimelineHistory, TimelineId};
use highwater_pitr::wal::PgMajor;

use super::CatalogError;
use super::ground::{Ground, IndexSource, Indexed};
use super::resolve::{ResolveError, resolve_on};

const SIZE: u64 = 1 << 20;
/// Where the four records of a segment start.
const RECORDS: [u64; 4] = [40, 104, 168, 232];

/// WAL in which segment `n` of each timeline holds commits of xid 10n, 10n+1 and 10n+2 at second n, n+0.1 and n+0.2, and
/// then a restore point `n`.
#[derive(Default)]
pub(super) struct Wal {
    pub(super) indexes: BTreeMap<SegmentName, SegmentIndex>,
    pub(super) unreadable: Vec<SegmentName>,
    reads: AtomicUsize,
}

pub(super) fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

pub(super) fn size() -> WalSegmentSize {
    WalSegmentSize::try_from(1u32 << 20).unwrap()
}

pub(super) fn name(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(tli(timeline), number, size())
}

fn lsn(segment: u64, record: usize) -> Lsn {
    Lsn::new(segment * SIZE + RECORDS[record])
}

fn tenths(tenths: u64) -> PgTime {
    PgTime::from_postgres_micros(i64::try_from(tenths).unwrap() * 100_000)
}

fn index(timeline: u32, number: u64, first_prev: Lsn) -> SegmentIndex {
    let end = |record: usize| Lsn::new(number * SIZE + RECORDS[record] + 64);
    SegmentIndex {
        decoder: DECODER,
        segment: name(timeline, number),
        segment_size: size(),
        block_size: 8192,
        major: PgMajor::V17,
        system_identifier: 7,
        first_record: Some(lsn(number, 0)),
        first_prev: Some(first_prev),
        last_record: Some(lsn(number, 3)),
        end: end(3),
        ended_by_switch: true,
        stops_early: false,
        undecoded: None,
        carried_in: Carried::default(),
        unfinished: None,
        transactions: (0..3usize)
            .map(|record| TransactionEnd {
                lsn: lsn(number, record),
                end: end(record),
                xid: u32::try_from(number * 10).unwrap() + u32::try_from(record).unwrap(),
                time: tenths(number * 10 + record as u64),
                kind: TransactionKind::Commit,
            })
            .collect(),
        restore_points: vec![RestorePointRecord {
            lsn: lsn(number, 3),
            end: end(3),
            name: number.to_string(),
            time: tenths(number * 10 + 5),
        }],
        checkpoints: Vec::new(),
        tablespaces: Vec::new(),
    }
}

impl Wal {
    fn add(&mut self, timeline: u32, numbers: std::ops::Range<u64>) {
        for number in numbers {
            self.indexes.insert(name(timeline, number), index(timeline, number, lsn(number - 1, 3)));
        }
    }

    pub(super) fn ground(&self, points: &[BackupPoint], histories: &[TimelineHistory]) -> Ground {
        let mut numbers: BTreeMap<TimelineId, Vec<u64>> = BTreeMap::new();
        for name in self.indexes.keys() {
            numbers.entry(name.timeline).or_default().push(name.number(size()));
        }
        Ground {
            points: points.to_vec(),
            ways: histories
                .iter()
                .map(|history| TimelineWay {
                    timeline: history.timeline,
                    ancestry: history.ancestry(),
                    has_history: !history.ancestors.is_empty(),
                })
                .collect(),
            held: numbers
                .into_iter()
                .map(|(tli, numbers)| (tli, SegmentSet::from_numbers(numbers)))
                .collect(),
            size: size(),
            notes: vec!["a manifest is broken".to_owned()],
        }
    }
}

#[async_trait]
impl IndexSource for Wal {
    async fn index(&self, segment: SegmentName) -> Result<Indexed, CatalogError> {
        self.reads.fetch_add(1, Ordering::Relaxed);
        if self.unreadable.contains(&segment) {
            return Ok(Indexed::Hole("it does not open".to_owned()));
        }
        Ok(Indexed::Index(Box::new(self.indexes[&segment].clone())))
    }
}

/// A backup that starts with segment `first` and stops within segment `last`, after its second record.
fn backup(id: &str, timeline: u32, first: u64, last: u64) -> BackupPoint {
    BackupPoint {
        id: id.to_owned(),
        timeline: tli(timeline),
        start: lsn(first, 0),
        stop: lsn(last, 2),
        stop_time: tenths(last * 10 + 1),
    }
}

/// Segments 2 to 8 on timeline 1; timeline 2 begins in segment 6, after its first record, and goes on to 10.
pub(super) fn promoted() -> (Wal, Vec<BackupPoint>, Vec<TimelineHistory>) {
    let mut wal = Wal::default();
    wal.add(1, 2..9);
    wal.add(2, 6..11);
    let switch = format!("1\t{}\tno recovery target specified\n", lsn(6, 1));
    let histories =
        vec![TimelineHistory::root(tli(1)), TimelineHistory::parse(tli(2), switch.as_bytes()).unwrap()];
    (wal, vec![backup("a", 1, 2, 3), backup("b", 1, 4, 4), backup("c", 2, 8, 9)], histories)
}

fn time(at: u64) -> RecoveryTarget {
    RecoveryTarget::Time { time: tenths(at), before: false }
}

fn xid(xid: u32) -> RecoveryTarget {
    RecoveryTarget::Xid { xid, before: false }
}

async fn plan(
    ground: &Ground,
    wal: &Wal,
    target: RecoveryTarget,
    timeline: Option<u32>,
    backup: Option<&str>,
) -> Plan {
    resolve_on(ground, wal, &target, timeline.map(tli), backup)
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

async fn refusal(
    ground: &Ground,
    wal: &Wal,
    target: RecoveryTarget,
    timeline: Option<u32>,
    backup: Option<&str>,
) -> Refusal {
    match resolve_on(ground, wal, &target, timeline.map(tli), backup).await {
        Err(ResolveError::Refused(refusal)) => *refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn each_target_from_the_newest_backup_before_it_on_the_newest_timeline() {
    let (wal, points, histories) = promoted();
    let ground = wal.ground(&points, &histories);
    for (target, backup, stop, last_segment) in [
        (time(45), "b", Stop::Time { time: tenths(45), inclusive: true }, 5),
        // The first later commit is the first record of segment 6, read under timeline 2's name.
        (time(55), "b", Stop::Time { time: tenths(55), inclusive: true }, 6),
        (time(95), "c", Stop::Time { time: tenths(95), inclusive: true }, 10),
        // Later than every commit, not later than the last restore point.
        (time(105), "c", Stop::Lsn { lsn: lsn(10, 3), inclusive: true }, 10),
        (xid(52), "b", Stop::Xid { xid: 52, inclusive: true }, 5),
        // Commits before backup b's end are reached from a.
        (xid(41), "b", Stop::Xid { xid: 41, inclusive: true }, 4),
        (xid(40), "a", Stop::Xid { xid: 40, inclusive: true }, 4),
        (RecoveryTarget::RestorePoint { name: "7".into() }, "b", Stop::Name { name: "7".into() }, 7),
        (
            RecoveryTarget::Lsn { lsn: lsn(9, 2), before: true },
            "c",
            Stop::Lsn { lsn: lsn(9, 2), inclusive: false },
            9,
        ),
        (
            RecoveryTarget::Lsn { lsn: lsn(9, 1), before: false },
            "b",
            Stop::Lsn { lsn: lsn(9, 1), inclusive: true },
            9,
        ),
        (RecoveryTarget::Consistent, "c", Stop::Immediate, 9),
        (RecoveryTarget::Latest, "c", Stop::Lsn { lsn: lsn(10, 3), inclusive: true }, 10),
    ] {
        let plan = plan(&ground, &wal, target.clone(), None, None).await;
        let found = (plan.backup.id.as_str(), &plan.stop.stop, plan.stop.last_segment);
        assert_eq!(found, (backup, &stop, last_segment), "{target}");
        assert_eq!(plan.timeline, tli(2));
        assert_eq!(plan.first_segment, plan.backup.first_segment(size()));
    }
}

#[tokio::test]
async fn the_other_side_of_a_promotion_is_reached_by_its_number() {
    let (wal, points, histories) = promoted();
    let ground = wal.ground(&points, &histories);
    let old = plan(&ground, &wal, RecoveryTarget::Latest, Some(1), None).await;
    assert_eq!(
        (old.timeline, old.backup.id.as_str(), old.stop.boundary),
        (tli(1), "b", lsn(8, 3).saturating_add(64))
    );
    assert_eq!(old.last_segment_name(), name(1, 8));
    // What timeline 1 alone committed, after the switch.
    let alone = plan(&ground, &wal, xid(82), Some(1), None).await;
    assert_eq!(alone.last_segment_name(), name(1, 8));
    let not_there = refusal(&ground, &wal, RecoveryTarget::Latest, Some(1), Some("c")).await;
    assert_eq!(not_there.why, RefusalReason::BackupNotOnTimeline { id: "c".into(), timeline: tli(1) });
    let unknown = refusal(&ground, &wal, time(45), Some(3), None).await;
    assert_eq!(unknown.why, RefusalReason::UnknownTimeline { timeline: tli(3) });
}

/// A parent that lived on after its child was promoted holds commits that the newest timeline will never have.
#[tokio::test]
async fn newer_commits_on_the_side_that_is_left_are_told() {
    let (mut wal, points, histories) = promoted();
    let ground = wal.ground(&points, &histories);
    let quiet = plan(&ground, &wal, RecoveryTarget::Latest, None, None).await;
    assert_eq!(quiet.notes, ["a manifest is broken"]);
    wal.add(1, 9..13);
    let ground = wal.ground(&points, &histories);
    let told = plan(&ground, &wal, RecoveryTarget::Latest, None, None).await;
    assert_eq!((told.timeline, told.notes.len()), (tli(2), 2));
    let note = told.notes.last().unwrap();
    for words in ["timeline 1 was written on", &lsn(6, 1).to_string(), "transaction 122", "--timeline 1"] {
        assert!(note.contains(words), "{words}: {note}");
    }
    assert_eq!(plan(&ground, &wal, RecoveryTarget::Latest, Some(1), None).await.notes.len(), 1);
    assert_eq!(plan(&ground, &wal, time(95), None, None).await.notes.len(), 1);
}

#[tokio::test]
async fn a_refusal_names_its_reason_and_the_window() {
    let (wal, points, histories) = promoted();
    let ground = wal.ground(&points, &histories);

    let future = refusal(&ground, &wal, time(106), None, None).await;
    assert_eq!(future.why, RefusalReason::PastEnd);
    let window = future.window.clone().unwrap();
    assert_eq!((window.backup.as_str(), window.from, window.to), ("a", tenths(31), tenths(105)));
    assert_eq!((window.from_lsn, window.to_lsn), (lsn(3, 2), lsn(10, 3).saturating_add(64)));
    assert!(future.to_string().contains("2000-01-01T00:00:10.500000Z"), "{future}");
    // What the window promises can be had, and no more.
    assert!(resolve_on(&ground, &wal, &time(105), None, None).await.is_ok());
    assert!(resolve_on(&ground, &wal, &time(31), None, None).await.is_ok());
    let lsn_end = RecoveryTarget::Lsn { lsn: window.to_lsn, before: false };
    assert!(resolve_on(&ground, &wal, &lsn_end, None, None).await.is_ok());
    let beyond = RecoveryTarget::Lsn { lsn: window.to_lsn.saturating_add(1), before: false };
    assert_eq!(refusal(&ground, &wal, beyond, None, None).await.why, RefusalReason::PastEnd);

    // What is broken is never passed over in silence, also where it did not matter.
    assert!(future.to_string().ends_with("; a manifest is broken"), "{future}");
    assert_eq!(plan(&ground, &wal, time(45), None, None).await.notes, ["a manifest is broken"]);

    let early = refusal(&ground, &wal, time(30), None, None).await;
    assert_eq!(early.why, RefusalReason::BeforeFirstBackup { first: tenths(31), first_lsn: lsn(3, 2) });
    assert!(early.window.is_some() && early.hint().is_some());

    assert_eq!(refusal(&ground, &wal, xid(5), None, None).await.why, RefusalReason::UnknownXid { xid: 5 });
    let nowhere = RecoveryTarget::RestorePoint { name: "nowhere".into() };
    let why = refusal(&ground, &wal, nowhere, None, None).await.why;
    assert_eq!(why, RefusalReason::UnknownRestorePoint { name: "nowhere".into() });
    let no_such = refusal(&ground, &wal, time(45), None, Some("x")).await;
    assert_eq!(no_such.why, RefusalReason::UnknownBackup { id: "x".into() });
    assert_eq!(
        refusal(&wal.ground(&[], &histories), &wal, time(45), None, None).await.why,
        RefusalReason::NoBackup
    );
    // A backup asked for that is too new for the target.
    assert!(matches!(
        refusal(&ground, &wal, time(45), None, Some("c")).await.why,
        RefusalReason::BeforeFirstBackup { first, .. } if first == tenths(91)
    ));
}

#[tokio::test]
async fn a_hole_is_named_and_nothing_is_reached_through_it() {
    let (mut wal, points, histories) = promoted();
    wal.indexes.remove(&name(2, 7));
    let ground = wal.ground(&points, &histories);
    // Backup c lies behind the hole and serves what is behind it; b reaches up to it.
    assert_eq!(plan(&ground, &wal, RecoveryTarget::Latest, None, None).await.backup.id, "c");
    assert_eq!(plan(&ground, &wal, time(55), None, None).await.backup.id, "b");
    let inside = refusal(&ground, &wal, time(75), None, None).await;
    let RefusalReason::MissingWal { gap } = inside.why else { panic!("{inside}") };
    assert_eq!((gap.first, gap.last, gap.segments), (name(2, 7), name(2, 7), 1));
    let window = inside.window.unwrap();
    let just_before = |time: PgTime| PgTime::from_postgres_micros(time.postgres_micros() - 1);
    assert_eq!((window.from, window.to), (tenths(31), just_before(tenths(65))));
    // Whoever asks for the moment of the last that is known may mean what the hole holds: commits up to then, in WAL order.
    let last = refusal(&ground, &wal, time(65), None, None).await;
    assert!(last.to_string().contains(&name(2, 7).to_string()) && last.window.is_some(), "{last}");
    assert!(matches!(last.why, RefusalReason::MissingWal { .. }), "{last}");
    let over = plan(&ground, &wal, RecoveryTarget::Time { time: window.to, before: false }, None, None).await;
    assert_eq!(over.stop.boundary, lsn(6, 3).saturating_add(64));
    // From b the latest is not the newest there is.
    let latest = refusal(&ground, &wal, RecoveryTarget::Latest, None, Some("b")).await;
    assert!(matches!(latest.why, RefusalReason::MissingWal { .. }), "{latest}");

    // A clock that was set back before the hole: nothing shows what was committed in it by the later moments.
    let mut set_back = Wal { indexes: wal.indexes.clone(), ..Wal::default() };
    let earlier = |time: PgTime| PgTime::from_postgres_micros(time.postgres_micros() - 2_500_000);
    let after = set_back.indexes.get_mut(&name(2, 6)).unwrap();
    after.transactions.iter_mut().for_each(|transaction| transaction.time = earlier(transaction.time));
    after.restore_points.iter_mut().for_each(|point| point.time = earlier(point.time));
    let why = refusal(&ground, &set_back, time(54), None, None).await.why;
    assert!(matches!(why, RefusalReason::MissingWal { .. }), "{why}");

    // A backup behind the end shows what is missing too, though nothing of its WAL is there.
    let mut lost = Wal { indexes: wal.indexes.clone(), ..Wal::default() };
    lost.indexes.retain(|name, _| name.timeline == tli(1) || name.number(size()) < 7);
    let ground = lost.ground(&points, &histories);
    let why = refusal(&ground, &lost, time(65), None, None).await.why;
    assert!(matches!(why, RefusalReason::MissingWal { gap } if gap.last == name(2, 9)), "{why}");

    // The hole cuts the backup's own WAL.
    let cut = wal.ground(&[backup("d", 2, 7, 8)], &histories);
    let why = refusal(&cut, &wal, RecoveryTarget::Consistent, None, None).await.why;
    assert!(matches!(why, RefusalReason::MissingWal { .. }), "{why}");
}

#[tokio::test]
async fn segments_that_do_not_open_or_do_not_join_are_holes() {
    let (mut wal, points, histories) = promoted();
    wal.unreadable.push(name(2, 7));
    let ground = wal.ground(&points, &histories);
    let unreadable = refusal(&ground, &wal, time(75), None, None).await;
    assert!(unreadable.to_string().contains("000000020000000000000007: it does not open"), "{unreadable}");

    let (mut wal, points, histories) = promoted();
    wal.indexes.insert(name(2, 7), index(2, 7, lsn(6, 1)));
    let ground = wal.ground(&points, &histories);
    let why = refusal(&ground, &wal, time(75), None, None).await.why;
    assert!(
        matches!(&why, RefusalReason::BrokenWal { what } if what.contains("000000020000000000000007")),
        "{why}"
    );
    // What lies before is reached all the same.
    assert_eq!(plan(&ground, &wal, time(55), None, None).await.backup.id, "b");
}

/// A backup whose own WAL is lost or does not open serves nothing, and stands in nobody's way: what was committed before it is reached from
/// an older one. What the lost WAL may hold is not said to be nowhere.
#[tokio::test]
async fn what_is_sought_is_found_in_front_of_what_is_lost() {
    let (whole, _, histories) = promoted();
    let points = [backup("a", 1, 2, 2), backup("b", 1, 4, 5), backup("c", 2, 8, 9)];
    let point = |name: &str| RecoveryTarget::RestorePoint { name: name.to_owned() };
    let missing =
        |why: &RefusalReason| matches!(why, RefusalReason::MissingWal { gap } if gap.first == name(1, 5));
    let broken =
        |why: &RefusalReason| matches!(why, RefusalReason::BrokenWal { what } if what.contains("00000005"));
    for is_lost in [true, false] {
        let mut wal = Wal { indexes: whole.indexes.clone(), ..Wal::default() };
        match is_lost {
            true => drop(wal.indexes.remove(&name(1, 5))),
            false => wal.unreadable.push(name(1, 5)),
        }
        let ground = wal.ground(&points, &histories);
        for (target, backup) in [(xid(91), "c"), (xid(102), "c"), (xid(32), "a"), (xid(42), "a")] {
            assert_eq!(plan(&ground, &wal, target.clone(), None, None).await.backup.id, backup, "{target}");
        }
        // In the hole, behind it in front of c's end, and nowhere that could be looked at.
        for target in [xid(51), xid(71), point("6"), xid(5), point("nowhere")] {
            let refused = refusal(&ground, &wal, target.clone(), None, None).await;
            assert!(
                if is_lost { missing(&refused.why) } else { broken(&refused.why) },
                "{target}: {refused}"
            );
            assert!(refused.window.is_some(), "{target}: {refused}");
        }
        // A later point of the name may lie in the WAL that is lost: the earlier one is restored on purpose alone.
        let refused = refusal(&ground, &wal, point("3"), None, None).await;
        assert!(if is_lost { missing(&refused.why) } else { broken(&refused.why) }, "{refused}");
        assert!(refused.hint().unwrap().contains("--backup a "), "{refused}");
        assert_eq!(plan(&ground, &wal, point("3"), None, Some("a")).await.backup.id, "a");
        // Asked for by its name, the backup is the only one that may serve.
        let refused = refusal(&ground, &wal, xid(32), None, Some("b")).await;
        assert!(if is_lost { missing(&refused.why) } else { broken(&refused.why) }, "{refused}");
    }
}

#[tokio::test]
async fn what_lies_in_front_of_a_backup_is_read_once() {
    let (wal, points, histories) = promoted();
    let ground = wal.ground(&points, &histories);
    let found = plan(&ground, &wal, xid(40), None, None).await;
    assert_eq!(found.backup.id, "a");
    // From c 8..11, from b 4..8, from a 2..5: those at which two passes meet are read twice.
    assert!(wal.reads.load(Ordering::Relaxed) <= 3 + 5 + 3, "{:?}", wal.reads);
}
