#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::*;
use crate::index::{KEPT_WHOLE, TablespaceChange, TransactionKind};
use crate::scan::scan_segment;
use crate::time::PgTime;
use crate::timeline::TimelineId;
use crate::wal::synthetic::{Writer, main_data, transaction_end};

fn indexes(writer: &Writer) -> Vec<SegmentIndex> {
    let scan = |(name, bytes): (SegmentName, Vec<u8>)| scan_segment(&bytes, name).unwrap().index;
    writer
        .segments()
        .into_iter()
        .map(scan)
        .map(|index| SegmentIndex::decode(&index.encode()).unwrap())
        .collect()
}

/// The seams of all segments; the last one is padded with zeros and so stops early.
fn seams(indexes: &[SegmentIndex]) -> (Chain, Vec<Seam>) {
    let mut chain = Chain::new();
    let seams = indexes.iter().map(|index| chain.push(index).unwrap()).collect();
    (chain, seams)
}

fn commit(major: PgMajor, xid: Option<u32>, items: u32) -> Vec<u8> {
    main_data(&transaction_end(major, true, 1234, xid, items))
}

fn reason(result: Result<Seam, Hole>) -> String {
    let hole = result.unwrap_err();
    assert!(hole.hint().is_some());
    hole.reason
}

/// I16: the record that crosses is handed out with the seam, wherever the segment's end cuts it.
#[test]
fn a_commit_that_crosses_belongs_to_the_seam() {
    for major in PgMajor::ALL {
        for left in (8..=160).step_by(8) {
            for (info, xid, expected) in [(0x80, None, 900), (0xB0, Some(77), 77)] {
                let mut writer = Writer::new(major, 1, 8192);
                writer.fill_to(left);
                let (lsn, end) = writer.record(1, info, 900, &commit(major, xid, 20));
                let (last, last_end) = writer.filler(400);
                let indexes = indexes(&writer);
                assert_eq!(indexes[0].transactions, []);
                let (chain, seams) = seams(&indexes);
                assert!(seams[0].open && !seams[1].open);
                assert_eq!(seams[1].completed, Some((lsn, end)));
                let transaction = seams[1].transaction.unwrap();
                assert_eq!(
                    (transaction.xid, transaction.lsn, transaction.end),
                    (expected, lsn, end),
                    "{major} {left}"
                );
                assert_eq!(transaction.time, PgTime::from_postgres_micros(1234));
                assert_eq!((chain.last_record(), chain.end()), (Some(last), Some(last_end)));
                assert_eq!(join(&indexes[0], &indexes[1]).unwrap(), seams[1]);
            }
        }
    }
}

/// I16: a tablespace made by a record that a segment's end cuts, also within its path, is known with the seam.
#[test]
fn a_tablespace_that_crosses_belongs_to_the_seam() {
    let body = main_data(&[&16400u32.to_le_bytes()[..], b"/srv/fast/store\0"].concat());
    for major in PgMajor::ALL {
        for left in (0..=40).step_by(8) {
            let mut writer = Writer::new(major, 1, 8192);
            writer.fill_to(left);
            let prev = Lsn::new(writer.prev);
            let (lsn, end) = writer.record(5, 0x00, 900, &body);
            writer.record(5, 0x10, 901, &main_data(&16400u32.to_le_bytes()));
            let indexes = indexes(&writer);
            let (_, seams) = seams(&indexes);
            let change = TablespaceChange::Created { path: b"/srv/fast/store".to_vec() };
            let made = TablespaceRecord { lsn, end, prev, oid: 16400, change };
            let last = &indexes[1];
            let mut all: Vec<_> = seams[1].tablespace.iter().chain(&last.tablespaces).cloned().collect();
            let dropped = all.pop().unwrap();
            assert_eq!(all, [made], "{major} {left}");
            assert_eq!(seams[1].tablespace.is_some(), left > 0);
            assert_eq!(last.carried_in.may_end_a_tablespace(), left > 0, "{major} {left}");
            assert_eq!((dropped.oid, dropped.prev, dropped.change), (16400, lsn, TablespaceChange::Dropped));
        }
    }
}

#[test]
fn a_record_may_cross_many_seams() {
    let mut writer = Writer::new(PgMajor::V16, 1, 8192);
    let (before, before_end) = writer.filler(400);
    writer.fill_to(16);
    let last_before = Lsn::new(writer.prev);
    // 900,000 subtransactions, 3.6 MB and more: a plain commit is known by its beginning.
    let (lsn, end) = writer.record(1, 0x80, 900, &commit(PgMajor::V16, None, 100_000));
    let all = indexes(&writer);
    assert!(all.len() > 4 && before < last_before && before_end > before);
    let (chain, seams) = seams(&all);
    assert!(seams[..all.len() - 1].iter().all(|seam| seam.open && seam.completed.is_none()));
    let seam = seams.last().unwrap();
    assert_eq!((seam.open, seam.completed, seam.transaction.unwrap().xid), (false, Some((lsn, end)), 900));
    assert_eq!((chain.last_record(), chain.end()), (Some(lsn), Some(end)));
    // Up to there the last whole record is the one before.
    let (chain, _) = self::seams(&all[..all.len() - 1]);
    assert_eq!(chain.last_record(), Some(last_before));
    // A part of it that is not what was written shows in the CRC, though its bytes are kept nowhere.
    for number in 1..all.len() {
        let mut changed = all.clone();
        changed[number].carried_in.crc ^= 1;
        let mut chain = Chain::new();
        let results: Vec<_> = changed.iter().map(|index| chain.push(index)).collect();
        assert!(results[..all.len() - 1].iter().all(Result::is_ok));
        assert!(reason(results[all.len() - 1].clone()).contains("wrong CRC"));
    }
    // Begun in the middle of it, the chain does not know it.
    let (chain, seams) = self::seams(&all[1..]);
    assert!(seams.iter().all(|seam| seam.completed.is_none() && seam.transaction.is_none()));
    assert_eq!(chain.last_record(), None);
    // And its middle cannot be left out.
    let mut chain = Chain::new();
    chain.push(&all[0]).unwrap();
    assert!(reason(chain.push(&all[2])).contains("not neighbours"));
}

#[test]
fn a_prepared_transaction_too_long_to_be_kept_is_a_hole() {
    let items = KEPT_WHOLE / 4;
    let mut writer = Writer::new(PgMajor::V17, 1, 8192);
    writer.fill_to(200);
    writer.record(1, 0xB0, 0, &commit(PgMajor::V17, Some(77), items));
    let all = indexes(&writer);
    let mut chain = Chain::new();
    let last = all.iter().map(|index| chain.push(index)).find(Result::is_err).unwrap();
    assert!(reason(last).contains("too long to be kept"));
    assert_eq!(chain.last_record(), None, "the chain begins anew behind it");
}

#[test]
fn what_does_not_belong_together_does_not_join() {
    let mut writer = Writer::new(PgMajor::V15, 1, 8192);
    writer.fill_to(100);
    writer.filler(2000);
    writer.fill_to(0);
    writer.filler(64);
    let all = indexes(&writer);
    let [left, right, ..] = &all[..] else { panic!() };
    join(left, right).unwrap();
    let changed = |change: fn(&mut SegmentIndex, &mut SegmentIndex)| {
        let (mut left, mut right) = (left.clone(), right.clone());
        change(&mut left, &mut right);
        reason(join(&left, &right))
    };
    assert!(changed(|left, _| left.system_identifier += 1).contains("different clusters"));
    assert!(changed(|left, _| left.major = PgMajor::V14).contains("different versions"));
    assert!(changed(|left, _| left.segment.seg += 1).contains("not neighbours"));
    assert!(
        changed(|left, _| left.segment.timeline = TimelineId::new(2).unwrap()).contains("older timeline")
    );
    assert!(changed(|left, _| left.stops_early = true).contains("stop before its end"));
    assert!(changed(|left, _| left.unfinished = None).contains("does not hold"));
    assert!(changed(|_, right| right.carried_in.len -= 8).contains("bytes are to come"));
    assert!(changed(|_, right| right.carried_in.crc ^= 4).contains("wrong CRC"));
    assert!(changed(|left, _| left.unfinished.as_mut().unwrap().crc ^= 4).contains("wrong CRC"));
    assert!(changed(|left, _| left.unfinished.as_mut().unwrap().bytes.truncate(20)).contains("header"));
    assert!(changed(|_, right| right.first_prev = Some(Lsn::new(8))).contains("points back to 0/8"));
    assert!(changed(|left, _| left.last_record = Some(Lsn::new(8))).contains("points back to"));
    assert!(changed(|_, right| right.undecoded = Some(Lsn::new(8))).contains("could not be decoded"));
    // A newer timeline goes on from an older one.
    let mut newer = right.clone();
    newer.segment.timeline = TimelineId::new(2).unwrap();
    join(left, &newer).unwrap();
    // Behind a hole the chain goes on with what follows.
    let mut chain = Chain::new();
    chain.push(right).unwrap();
    assert!(chain.push(left).is_err());
    chain.push(right).unwrap();
    assert_eq!(chain.last_record(), right.last_record);
}

#[test]
fn nothing_crosses_behind_a_switch() {
    let mut writer = Writer::new(PgMajor::V18, 1, 8192);
    writer.filler(300);
    let (switch, _) = writer.switch();
    let (lsn, end) = writer.record(1, 0, 5, &main_data(&9i64.to_le_bytes()));
    let all = indexes(&writer);
    let (chain, seams) = seams(&all);
    assert_eq!(seams, [Seam::default(), Seam::default()]);
    assert_eq!((all[1].first_prev, chain.last_record(), chain.end()), (Some(switch), Some(lsn), Some(end)));
    assert_eq!(all[1].transactions[0].kind, TransactionKind::Commit);
}

/// A crash took the end of a record; the next segment, or a later page of it, says so.
#[test]
fn a_record_given_up_in_a_crash_leaves_no_trace() {
    // Lost from the next segment's beginning, from a page in it, and from the segment after.
    for lost in [0, 8192 * 3, 1 << 20] {
        let mut writer = Writer::new(PgMajor::V16, 1, 8192);
        writer.filler(300);
        writer.fill_to(5000);
        let before = Lsn::new(writer.prev);
        writer.filler(2 << 20);
        writer.lose_from(Lsn::new(writer.base() + (1 << 20) + lost), before);
        writer.page_header(0, 8);
        let (lsn, end) = writer.record(0, 0xD0, 0, &main_data(&[0; 16]));
        let all = indexes(&writer);
        let (chain, seams) = seams(&all);
        assert!(seams.iter().all(|seam| seam.completed.is_none()));
        assert_eq!((chain.last_record(), chain.end()), (Some(lsn), Some(end)));
        let last = all.last().unwrap();
        assert_eq!((last.carried_in.overwritten, last.first_prev), (lost != 8192 * 3, Some(before)));
    }
}
