//! Timelines, gaps and the choice between them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::single_range_in_vec_init)]

use proptest::prelude::*;

use super::*;
use crate::target::RecoveryTarget;
use crate::timeline::TimelineHistory;

const SIZE: u64 = 1 << 20;

fn size() -> WalSegmentSize {
    WalSegmentSize::try_from(1u32 << 20).unwrap()
}

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

/// The way to `timeline`, with the segment and byte where each ancestor was left.
fn way(timeline: u32, ancestors: &[(u32, u64, u64)]) -> TimelineWay {
    let lines = ancestors.iter().map(|(ancestor, segment, byte)| {
        format!("{ancestor}\t{}\treason\n", Lsn::new(segment * SIZE + byte))
    });
    let text: String = lines.collect();
    let history = match ancestors {
        [] => TimelineHistory::root(tli(timeline)),
        _ => TimelineHistory::parse(tli(timeline), text.as_bytes()).unwrap(),
    };
    TimelineWay { timeline: tli(timeline), ancestry: history.ancestry(), has_history: !ancestors.is_empty() }
}

fn held(rows: &[(u32, &[std::ops::Range<u64>])]) -> Held {
    rows.iter()
        .map(|(timeline, runs)| (tli(*timeline), SegmentSet::from_numbers(runs.iter().cloned().flatten())))
        .collect()
}

fn backup(id: &str, timeline: u32, first: u64, last: u64) -> BackupPoint {
    BackupPoint {
        id: id.to_owned(),
        timeline: tli(timeline),
        start: Lsn::new(first * SIZE + 40),
        stop: Lsn::new(last * SIZE + 400),
        stop_time: PgTime::from_postgres_micros(i64::try_from(last).unwrap()),
    }
}

fn chosen(
    target: &RecoveryTarget,
    wanted: Option<u32>,
    ways: &[TimelineWay],
    backups: &[BackupPoint],
    held: &Held,
) -> Result<(u32, Vec<String>), RefusalReason> {
    let backups: Vec<&BackupPoint> = backups.iter().collect();
    choose_timeline(target, wanted.map(tli), ways, &backups, held, size())
        .map(|chosen| (chosen.way.timeline.get(), chosen.notes))
}

#[test]
fn a_child_is_followed_through_its_own_copy_of_the_segment_it_begins_in() {
    let child = way(2, &[(1, 5, 1000)]).ancestry;
    let whole = held(&[(1, &[2..9]), (2, &[5..8])]);
    assert_eq!(Reach::along(&child, &whole, size(), 2), Reach { segments: 2..8, gap: None });

    // The parent's own segment 5 goes on past the switch with WAL that never happened on the child.
    let without = held(&[(1, &[2..9]), (2, &[6..8])]);
    let reach = Reach::along(&child, &without, size(), 2);
    assert_eq!(reach.segments, 2..5);
    assert_eq!(reach.gap.unwrap().to_string(), "segment 000000020000000000000005");

    // The parent, followed for itself, has all of its own.
    let parent = way(1, &[]).ancestry;
    assert_eq!(Reach::along(&parent, &without, size(), 2), Reach { segments: 2..9, gap: None });
}

#[test]
fn the_gap_behind_each_stretch_of_a_way_is_named() {
    let child = way(2, &[(1, 5, 0)]).ancestry;
    let holes = held(&[(1, &[0..1, 3..5]), (2, &[5..6, 8..9])]);
    let gap = |first| Reach::along(&child, &holes, size(), first).gap.map(|gap| gap.to_string());
    let first = "2 segments, 000000010000000000000001 to 000000010000000000000002";
    let second = "2 segments, 000000020000000000000006 to 000000020000000000000007";
    assert_eq!((gap(0).as_deref(), gap(3).as_deref(), gap(8)), (Some(first), Some(second), None));
}

#[test]
fn the_newest_timeline_with_wal_of_its_own_is_followed() {
    let ways = [way(1, &[]), way(2, &[(1, 5, 1000)])];
    let backups = [backup("a", 1, 2, 3)];
    let promoted = held(&[(1, &[2..6]), (2, &[5..8])]);
    let time = RecoveryTarget::Time { time: PgTime::from_postgres_micros(9), before: false };
    assert_eq!(chosen(&time, None, &ways, &backups, &promoted), Ok((2, vec![])));
    // Both sides of the promotion.
    assert_eq!(chosen(&time, Some(1), &ways, &backups, &promoted), Ok((1, vec![])));
    assert_eq!(
        chosen(&time, Some(3), &ways, &backups, &promoted),
        Err(RefusalReason::UnknownTimeline { timeline: tli(3) })
    );
}

#[test]
fn a_history_file_alone_does_not_end_the_wal() {
    // A scratch copy's promotion left timeline 2's history; the cluster went on on timeline 1.
    let ways = [way(1, &[]), way(2, &[(1, 5, 1000)])];
    let backups = [backup("a", 1, 2, 3)];
    let only_history = held(&[(1, &[2..9])]);
    let (timeline, notes) = chosen(&RecoveryTarget::Latest, None, &ways, &backups, &only_history).unwrap();
    assert_eq!(timeline, 1);
    assert_eq!(notes, ["timeline 2 has a history file and no WAL yet"]);
}

#[test]
fn the_latest_is_never_silently_an_older_timeline() {
    // The segment of the promotion was never archived: the standby's gap.
    let ways = [way(1, &[]), way(2, &[(1, 5, 1000)])];
    let backups = [backup("a", 1, 2, 3)];
    let gap = held(&[(1, &[2..5]), (2, &[6..8])]);
    let refused = chosen(&RecoveryTarget::Latest, None, &ways, &backups, &gap).unwrap_err();
    let RefusalReason::NewerTimelineOutOfReach { newer, reachable, why } = &refused else {
        panic!("{refused:?}")
    };
    assert_eq!((newer.get(), reachable.get()), (2, 1));
    assert!(why.contains("000000020000000000000005"), "{why}");
    assert_eq!(chosen(&RecoveryTarget::Latest, Some(1), &ways, &backups, &gap), Ok((1, vec![])));
    // Any other target is reached on the older one, and said so.
    let lsn = RecoveryTarget::Lsn { lsn: Lsn::new(4 * SIZE), before: false };
    let (timeline, notes) = chosen(&lsn, None, &ways, &backups, &gap).unwrap();
    assert_eq!(timeline, 1);
    assert!(notes[0].starts_with("timeline 2 is newer and cannot be reached"), "{notes:?}");
}

#[test]
fn a_backup_serves_only_where_its_end_lies_on_the_way() {
    // Backup b was still running on timeline 1 when timeline 2 left it.
    let two = way(2, &[(1, 5, 1000)]);
    let (a, b, c) = (backup("a", 1, 2, 3), backup("b", 1, 4, 6), backup("c", 2, 6, 7));
    assert!(a.is_on(&two.ancestry) && !b.is_on(&two.ancestry) && c.is_on(&two.ancestry));
    let one = way(1, &[]);
    assert!(a.is_on(&one.ancestry) && b.is_on(&one.ancestry) && !c.is_on(&one.ancestry));

    let all = [&a, &b, &c];
    let ids = |target: &RecoveryTarget, way: &TimelineWay, only: Option<&str>| {
        candidates(target, &all, &way.ancestry, only)
            .map(|found| found.iter().map(|backup| backup.id.clone()).collect::<Vec<_>>())
    };
    let xid = RecoveryTarget::Xid { xid: 1, before: false };
    assert_eq!(ids(&xid, &two, None).unwrap(), ["c", "a"]);
    assert_eq!(ids(&RecoveryTarget::Latest, &two, None).unwrap(), ["c"]);
    assert_eq!(ids(&RecoveryTarget::Latest, &two, Some("a")).unwrap(), ["a"]);
    let not_on = RefusalReason::BackupNotOnTimeline { id: "b".to_owned(), timeline: tli(2) };
    assert_eq!(ids(&RecoveryTarget::Latest, &two, Some("b")), Err(not_on));
    let unknown = RefusalReason::UnknownBackup { id: "x".to_owned() };
    assert_eq!(ids(&RecoveryTarget::Latest, &two, Some("x")), Err(unknown));
    let lsn = RecoveryTarget::Lsn { lsn: Lsn::new(3 * SIZE + 399), before: false };
    assert!(matches!(ids(&lsn, &two, None), Err(RefusalReason::BeforeFirstBackup { .. })));
}

#[test]
fn a_timeline_without_its_history_file_is_followed_as_current() {
    let plan = |timeline: u32, has_history, backup_timeline| Plan {
        backup: backup("a", backup_timeline, 2, 3),
        timeline: tli(timeline),
        has_history,
        ancestry: way(timeline, &[]).ancestry,
        segment_size: size(),
        first_segment: 2,
        stop: StopPoint {
            stop: Stop::Immediate,
            boundary: Lsn::new(3 * SIZE),
            end: Lsn::new(3 * SIZE),
            last_segment: 3,
            newest_commit: None,
            tablespaces: Vec::new(),
        },
        notes: Vec::new(),
    };
    assert_eq!(plan(1, false, 1).timeline_setting(), "1");
    assert_eq!(plan(3, true, 3).timeline_setting(), "3");
    assert_eq!(plan(3, false, 3).timeline_setting(), "current");
    assert_eq!(plan(3, true, 3).last_segment_name().to_string(), "000000030000000000000003");
}

#[test]
fn every_stop_is_a_set_of_settings() {
    let time = PgTime::from_postgres_micros(1);
    let settings = Stop::Time { time, inclusive: false }.settings();
    assert_eq!(settings[0], ("recovery_target_time", "2000-01-01 00:00:00.000001+00".to_owned()));
    assert_eq!(settings[1], ("recovery_target_inclusive", "off".to_owned()));
    assert_eq!(Stop::Immediate.settings(), [("recovery_target", "immediate".to_owned())]);
    assert_eq!(Stop::Name { name: "a".to_owned() }.settings(), [("recovery_target_name", "a".to_owned())]);
}

proptest! {
    /// Runs of numbers behave as the plain set does.
    #[test]
    fn a_segment_set_is_a_set(numbers in prop::collection::vec(0u64..40, 0..40), probe in 0u64..45) {
        let plain: std::collections::BTreeSet<u64> = numbers.iter().copied().collect();
        let set = SegmentSet::from_numbers(numbers);
        prop_assert_eq!(set.len(), plain.len() as u64);
        prop_assert_eq!(set.contains(probe), plain.contains(&probe));
        prop_assert_eq!(set.first_present(probe), plain.range(probe..).next().copied());
        prop_assert_eq!(set.first_missing(probe), (probe..).find(|number| !plain.contains(number)).unwrap());
    }

    /// The reach along a way is what asking for one segment after the other finds.
    #[test]
    fn a_reach_is_what_recovery_would_find(
        first in prop::collection::vec(0u64..20, 0..30),
        second in prop::collection::vec(0u64..20, 0..30),
        third in prop::collection::vec(0u64..20, 0..30),
        switches in (0u64..20, 0u64..20),
        from in 0u64..20,
    ) {
        let (one, two) = (switches.0.min(switches.1), switches.0.max(switches.1));
        let ancestry = way(3, &[(1, one, 500), (2, two, 600)]).ancestry;
        let held: Held = [(1, first), (2, second), (3, third)]
            .into_iter()
            .map(|(timeline, numbers)| (tli(timeline), SegmentSet::from_numbers(numbers)))
            .collect();
        let there = |number: u64| {
            let timeline = ancestry.timeline_for_segment(number, size()).unwrap();
            held[&timeline].contains(number)
        };
        let end = (from..).find(|number| !there(*number)).unwrap();
        let next = (end..25).find(|number| there(*number));
        let reach = Reach::along(&ancestry, &held, size(), from);
        prop_assert_eq!(&reach.segments, &(from..end));
        prop_assert_eq!(reach.gap.map(|gap| gap.segments), next.map(|next| next - end));
        prop_assert_eq!(reach.gap.map(|gap| gap.last.number(size())), next.map(|next| next - 1));
    }
}
