//! What a window claims can be had, and is known from the WAL in it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use highwater_pitr::plan::BackupPoint;
use highwater_pitr::target::RecoveryTarget;
use highwater_pitr::time::PgTime;
use highwater_pitr::timeline::TimelineHistory;

use super::resolve::resolve_on;
use super::resolve_tests::{Wal, name, promoted, size, tli};
use super::windows::{ReachableWindow, windows_along};

/// The windows of a timeline. Each must end with what a restore can be planned to, at a moment that something in it holds.
async fn windows(
    wal: &Wal,
    points: &[BackupPoint],
    histories: &[TimelineHistory],
    timeline: u32,
) -> Vec<ReachableWindow> {
    let ground = wal.ground(points, histories);
    let way = ground.ways.iter().find(|way| way.timeline == tli(timeline)).unwrap();
    let windows = windows_along(&ground, wal, way).await.unwrap();
    for reachable in &windows {
        let window = &reachable.window;
        assert!(window.from <= window.to && window.from_lsn <= window.to_lsn, "{window:?}");
        let numbers = window.from_lsn.as_u64() / size().bytes()..=window.to_lsn.as_u64() / size().bytes();
        let held = numbers.filter_map(|number| {
            let timeline = way.ancestry.timeline_for_segment(number, size())?;
            wal.indexes.get(&name(timeline.get(), number))
        });
        let times = held.flat_map(|index| {
            let points = index.restore_points.iter().map(|point| point.time);
            index.transactions.iter().map(|transaction| transaction.time).chain(points)
        });
        let stops = points.iter().filter(|point| point.stop <= window.to_lsn).map(|point| point.stop_time);
        let evidence: Vec<PgTime> = times.chain(stops).collect();
        let newest = evidence.into_iter().max().unwrap();
        assert!(window.to <= newest, "{window:?} ends with a moment that nothing holds");
        let mut targets = vec![
            RecoveryTarget::Lsn { lsn: window.from_lsn, before: false },
            RecoveryTarget::Lsn { lsn: window.to_lsn, before: false },
        ];
        // A backup at the cut can be had as it is, and no moment behind it.
        if reachable.unreadable.is_none() || window.to > window.from {
            targets.push(RecoveryTarget::Time { time: window.to, before: false });
        }
        for target in targets {
            let plan = resolve_on(&ground, wal, &target, Some(tli(timeline)), None).await;
            assert!(plan.is_ok(), "{target} of {window:?}: {}", plan.unwrap_err());
        }
    }
    windows
}

/// A segment that is missing, does not open or cannot be decoded: nothing is claimed through it, nor of a backup that needs it.
#[tokio::test]
async fn a_window_ends_before_what_cannot_be_known() {
    for number in 2..=10 {
        for kind in ["missing", "unreadable", "undecoded"] {
            for timeline in [1, 2] {
                let (mut wal, points, histories) = promoted();
                let on = if timeline == 2 && number >= 6 { 2 } else { 1 };
                if on == 1 && number > 8 {
                    continue;
                }
                let segment = name(on, number);
                match kind {
                    "missing" => drop(wal.indexes.remove(&segment)),
                    "unreadable" => wal.unreadable.push(segment),
                    _ => wal.indexes.get_mut(&segment).unwrap().undecoded = Some(segment.start(size())),
                }
                let last = if timeline == 2 { 10 } else { 8 };
                // What lies further back than the newest evidence is not read, so only names show it.
                if kind == "missing" || number == last {
                    let found = windows(&wal, &points, &histories, timeline).await;
                    let through = |window: &&ReachableWindow| {
                        let hole = segment.start(size());
                        window.window.from_lsn < hole && window.window.to_lsn > hole
                    };
                    assert_eq!(found.iter().find(through), None, "{kind} {segment}");
                }
            }
        }
    }
}

/// The end of the WAL that cannot be known may be the backup's own: it then begins no window, and the ones before it do.
#[tokio::test]
async fn a_backup_at_an_unreadable_end_begins_no_window() {
    let (mut wal, mut points, histories) = promoted();
    points[2].stop = name(2, 10).start(size()).saturating_add(168);
    wal.unreadable.push(name(2, 10));
    let found = windows(&wal, &points, &histories, 2).await;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((only.window.backup.as_str(), only.backups), ("a", 2));
    assert_eq!(only.window.to_lsn, name(2, 9).start(size()).saturating_add(232), "the last record known");
    assert!(only.unreadable.as_ref().unwrap().contains("00000002000000000000000A"));
    wal.unreadable.push(name(2, 9));
    let found = windows(&wal, &points, &histories, 2).await;
    assert!(found[0].window.to_lsn <= name(2, 9).start(size()), "{found:?}");
}

/// A clock that was set back: the window ends with the newest moment that is known of, and that moment can be had.
#[tokio::test]
async fn a_clock_that_was_set_back_moves_no_end_past_the_evidence() {
    for from in 3..=10 {
        for back in [5, 25, 60] {
            for timeline in [1, 2] {
                let (mut wal, mut points, histories) = promoted();
                let earlier =
                    |time: PgTime| PgTime::from_postgres_micros(time.postgres_micros() - back * 100_000);
                for (_, index) in wal.indexes.iter_mut().filter(|(name, _)| name.number(size()) >= from) {
                    for transaction in &mut index.transactions {
                        transaction.time = earlier(transaction.time);
                    }
                    for point in &mut index.restore_points {
                        point.time = earlier(point.time);
                    }
                }
                for point in points.iter_mut().filter(|point| point.last_segment(size()) >= from) {
                    point.stop_time = earlier(point.stop_time);
                }
                assert_eq!(windows(&wal, &points, &histories, timeline).await.len(), 1);
            }
        }
    }
}
