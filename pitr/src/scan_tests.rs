#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::index::{KEPT_HEAD, TransactionKind};
use crate::time::PgTime;
use crate::timeline::TimelineId;
use crate::wal::event::TransactionEnd;
use crate::wal::synthetic::{Writer, main_data, transaction_end};
use crate::wal::version::PgMajor;

fn scan(writer: &Writer, number: usize) -> SegmentScan {
    let (name, bytes) = writer.segments().swap_remove(number);
    scan_segment(&bytes, name).unwrap()
}

fn broken(scan: &SegmentScan) -> (Lsn, &str) {
    let ChainEnd::Broken { at, reason } = &scan.end else { panic!("{:?}", scan.end) };
    (*at, reason)
}

fn restore_point(time: i64, name: &str) -> Vec<u8> {
    let mut data = time.to_le_bytes().to_vec();
    data.extend_from_slice(name.as_bytes());
    data.resize(72, 0);
    main_data(&data)
}

#[test]
fn every_version_page_and_segment_size() {
    for (major, mib, page) in PgMajor::ALL.iter().flat_map(|major| {
        [(1, 1024), (1, 8192), (2, 65536), (64, 8192)].map(|(mib, page)| (*major, mib, page))
    }) {
        let mut writer = Writer::new(major, mib, page);
        writer.filler(100);
        let (lsn, end) = writer.record(1, 0x80, 900, &main_data(&transaction_end(major, true, 77, None, 3)));
        writer.fill_to(0);
        let scan = scan(&writer, 0);
        assert_eq!(scan.end, ChainEnd::Full, "{major} {mib} MiB, pages of {page}");
        assert_eq!(scan.valid_len, u64::from(mib) << 20);
        let time = PgTime::from_postgres_micros(77);
        let expected = TransactionEnd { lsn, end, xid: 900, time, kind: TransactionKind::Commit };
        assert_eq!(scan.index.transactions, [expected]);
        assert_eq!(scan.index.end.as_u64(), writer.base() + scan.valid_len);
        assert_eq!(scan.index.unfinished, None);
    }
}

#[test]
fn prepared_transactions_are_named_behind_all_their_lists() {
    for major in PgMajor::ALL {
        let mut writer = Writer::new(major, 1, 8192);
        // 2,000 items a list: the record crosses pages.
        for (info, commit, items) in
            [(0x30, true, 0), (0x40, false, 5), (0x30, true, 2000), (0x40, false, 2000)]
        {
            let data = transaction_end(major, commit, 5, Some(4_000_000_000), items);
            writer.record(1, 0x80 | info, 0, &main_data(&data));
        }
        writer.switch();
        let scan = scan(&writer, 0);
        assert_eq!(scan.end, ChainEnd::Switch);
        assert!(
            scan.index.transactions.iter().all(|end| end.xid == 4_000_000_000),
            "{:?}",
            scan.index.transactions
        );
        let kinds: Vec<_> = scan.index.transactions.iter().map(|end| end.kind).collect();
        use TransactionKind::{AbortPrepared, CommitPrepared};
        assert_eq!(kinds, [CommitPrepared, AbortPrepared, CommitPrepared, AbortPrepared]);
    }
}

/// What recovery does not need to understand must not stop the archive: such a segment is stored, its index is a hole.
#[test]
fn a_valid_record_that_cannot_be_taken_apart_does_not_break_the_chain() {
    for body in [
        main_data(&[1; 7]),
        vec![200, 1, 2, 3],
        vec![255, 200, 1],
        vec![254, 255, 255, 255, 255, 0],
        main_data(&[0; 8]),
    ] {
        undecodable(1, 0x30, &body);
    }
    // Tablespaces without a whole oid, or whose path has no end.
    for body in [main_data(&[1, 2, 3]), main_data(b"\x01\x02\x03\x04/srv"), main_data(&[1; 4 + 1025])] {
        undecodable(5, 0x00, &body);
    }
}

fn undecodable(rmid: u8, info: u8, body: &[u8]) {
    let mut writer = Writer::new(PgMajor::V17, 1, 8192);
    writer.filler(64);
    let (lsn, _) = writer.record(rmid, info, 0, body);
    writer.filler(64);
    writer.switch();
    let scan = scan(&writer, 0);
    assert_eq!(scan.end, ChainEnd::Switch);
    assert_eq!(scan.index.undecoded, Some(lsn));
    assert!(crate::index::Chain::new().push(&scan.index).is_err());
}

#[test]
fn restore_points_checkpoints_and_what_else_is_in_front_of_the_main_data() {
    let mut writer = Writer::new(PgMajor::V16, 1, 8192);
    writer.record(0, 0x70, 0, &restore_point(5, "before"));
    let mut checkpoint = vec![0; 88];
    checkpoint[..8].copy_from_slice(&0x3000028u64.to_le_bytes());
    checkpoint[64..72].copy_from_slice(&1_763_635_267i64.to_le_bytes());
    writer.record(0, 0x10, 0, &main_data(&checkpoint));
    writer.record(0, 0x00, 0, &main_data(&checkpoint));
    // Origin, top-level xid, and a block with a compressed image with a hole and data, then a commit.
    let mut body = vec![0, 0x10 | 0x20, 4, 0, 6, 0, 9, 9, 0x01 | 0x02 | 0x04, 3, 0];
    body.extend_from_slice(&[1; 12 + 4]);
    body.extend_from_slice(&[1, 0x80 | 0x20, 2, 0, 7, 0, 0, 0]);
    body.extend_from_slice(&[253, 1, 0, 252, 1, 0, 0, 0, 255, 8]);
    body.extend_from_slice(&[3; 6 + 4 + 2]);
    body.extend_from_slice(&123i64.to_le_bytes());
    writer.record(1, 0x00, 901, &body);
    writer.switch();
    let index = scan(&writer, 0).index;
    assert_eq!(index.undecoded, None);
    assert_eq!(index.restore_points[0].name, "before");
    assert_eq!(index.checkpoints[0].redo, Lsn::new(0x3000028));
    assert_eq!(index.checkpoints[0].time.to_string(), "2025-11-20T10:41:07.000000Z");
    assert_eq!(
        index.checkpoints.iter().map(|checkpoint| checkpoint.online).collect::<Vec<_>>(),
        [true, false]
    );
    assert_eq!(
        (index.transactions[0].xid, index.transactions[0].time),
        (901, PgTime::from_postgres_micros(123))
    );
}

#[test]
fn a_switch_voids_the_rest_and_may_be_the_last_thing_in_a_segment() {
    let mut writer = Writer::new(PgMajor::V15, 1, 8192);
    writer.filler(100);
    let (lsn, valid) = writer.switch();
    writer.fill_to(24);
    let (last, _) = writer.switch();
    writer.filler(100);
    writer.switch();
    let first = scan(&writer, 0);
    assert_eq!((first.valid_len, first.index.last_record), (valid as u64, Some(lsn)));
    assert_eq!(first.index.end, Lsn::new(writer.base() + (1 << 20)));
    let second = scan(&writer, 1);
    assert_eq!((&second.end, second.valid_len), (&ChainEnd::Switch, 1 << 20));
    let mut chain = crate::index::Chain::new();
    for number in 0..3 {
        chain.push(&scan(&writer, number).index).unwrap();
    }
    assert_eq!(scan(&writer, 2).index.first_prev, Some(last));

    let (name, mut bytes) = writer.segments().swap_remove(0);
    bytes[valid..].fill(0x5A);
    let rubbish = scan_segment(&bytes, name).unwrap();
    assert_eq!(rubbish, first);
    canonicalise(&mut bytes, &rubbish);
    assert!(bytes == writer.segments()[0].1);
}

/// I2: a tail of zeros, wherever it begins, is never taken for a whole segment.
#[test]
fn a_zero_tail_breaks_the_chain_at_the_first_record_it_touches() {
    let mut writer = Writer::new(PgMajor::V18, 1, 8192);
    let mut ends = vec![0];
    while writer.left() > 4096 {
        // Records of 1,024 bytes: no padding behind them.
        ends.push(writer.filler(1000).1.as_u64() - writer.base());
    }
    writer.fill_to(0);
    let (name, whole) = writer.segments().swap_remove(0);
    let full = scan_segment(&whole, name).unwrap();
    for cut in (48..whole.len()).step_by(7919).chain([whole.len() - 8, whole.len() - 1]) {
        let mut bytes = whole.clone();
        bytes[cut..].fill(0);
        let short = scan_segment(&bytes, name).unwrap();
        let (at, _) = broken(&short);
        let last = *ends.iter().rfind(|end| **end <= cut as u64).unwrap();
        // Of a record that crosses pages, the first page that does not continue it.
        assert!(at.as_u64() - writer.base() <= cut.next_multiple_of(8192) as u64, "{cut}");
        assert!(
            short.valid_len == last || last == ends[ends.len() - 1] && short.valid_len <= cut as u64,
            "{cut}"
        );
        assert!(short.index.stops_early);
        assert!(short.valid_len == 0 || is_strict_prefix(&bytes, &short, &whole, &full));
        let mut other = whole.clone();
        other[44] ^= 1;
        assert!(!is_strict_prefix(&other, &short, &whole, &full), "not a prefix if one byte differs");
    }
}

#[test]
fn nothing_is_taken_for_another_segment() {
    let mut writer = Writer::new(PgMajor::V14, 1, 8192);
    writer.filler(100);
    writer.switch();
    let (name, bytes) = writer.segments().swap_remove(0);
    let size = writer.size;
    assert!(matches!(scan_segment(&bytes[..39], name), Err(WalError::TooShort { len: 39 })));
    assert!(matches!(scan_segment(&bytes[..8192], name), Err(WalError::Length { .. })));
    assert!(matches!(scan_segment(&bytes, name.next(size)), Err(WalError::Misplaced { .. })));
    assert!(matches!(scan_segment(&vec![0; 1 << 20], name), Err(WalError::UnknownMagic { magic: 0 })));
    let impossible = SegmentName { seg: u32::MAX, ..name };
    assert!(matches!(scan_segment(&bytes, impossible), Err(WalError::Name { .. })));
    writer.timeline = 2;
    assert!(
        matches!(scan_segment(&bytes, writer.segments()[0].0), Ok(scan) if scan.header.timeline.get() == 1)
    );
    let set = |at: usize, value: &[u8]| {
        let mut changed = bytes.clone();
        changed[at..at + value.len()].copy_from_slice(value);
        scan_segment(&changed, name).unwrap_err()
    };
    assert!(matches!(set(4, &[2]), WalError::Timeline { found, .. } if found.get() == 2));
    for (at, value) in
        [(4, &[0u8; 4][..]), (2, &[0]), (2, &[0x12]), (8, &[8]), (16, &[1]), (32, &[0; 4]), (36, &[1])]
    {
        assert!(matches!(set(at, value), WalError::Header { .. }), "{at}: {value:?}");
    }
}

#[test]
fn a_record_that_only_begins_or_only_ends_here() {
    for left in [0, 8, 16, 24, 32] {
        let mut writer = Writer::new(PgMajor::V16, 1, 8192);
        writer.filler(64);
        writer.fill_to(left);
        let before = writer.prev;
        let (lsn, end) = writer.record(0, 0x70, 0, &restore_point(1, "crossing"));
        writer.fill_to(0);
        let (left_scan, right) = (scan(&writer, 0), scan(&writer, 1));
        assert_eq!((&left_scan.end, &right.end), (&ChainEnd::Full, &ChainEnd::Full));
        if left == 0 {
            assert_eq!((left_scan.index.unfinished, right.index.carried_in.len), (None, 0));
            assert_eq!(right.index.first_record, Some(lsn));
            continue;
        }
        let unfinished = left_scan.index.unfinished.unwrap();
        assert_eq!((unfinished.start, unfinished.here as usize), (lsn, left));
        assert_eq!(left_scan.index.last_record, Some(Lsn::new(before)));
        let carried = &right.index.carried_in;
        assert_eq!((carried.len, carried.here), (unfinished.total_len - left as u32, carried.len));
        assert_eq!(carried.end, end);
        assert_eq!(right.index.first_prev, Some(lsn));
        assert_eq!(right.index.restore_points, []);
    }
}

#[test]
fn a_segment_that_is_a_part_of_one_record() {
    let mut writer = Writer::new(PgMajor::V17, 1, 8192);
    writer.fill_to(4000);
    writer.filler(3 << 20);
    let (name, mut bytes) = writer.segments().swap_remove(1);
    let middle = scan_segment(&bytes, name).unwrap();
    assert_eq!((&middle.end, middle.valid_len), (&ChainEnd::Full, 1 << 20));
    let carried = &middle.index.carried_in;
    assert!(carried.here < carried.len && carried.bytes.len() == KEPT_HEAD as usize);
    assert_eq!(
        (middle.index.first_record, middle.index.last_record, &middle.index.unfinished),
        (None, None, &None)
    );
    assert_eq!(middle.index.end, name.start(writer.size));
    // A page in its midst that is not part of it.
    bytes[8192 * 5 + 16] ^= 1;
    let damaged = scan_segment(&bytes, name).unwrap();
    assert_eq!(
        (broken(&damaged).0.as_u64(), damaged.valid_len),
        (name.start(writer.size).as_u64() + 8192 * 5, 8192 * 5)
    );
}

#[test]
fn pages_of_older_timelines_come_first_or_not_at_all() {
    let mut writer = Writer::new(PgMajor::V15, 1, 8192);
    writer.filler(20_000);
    writer.timeline = 3;
    writer.filler(20_000);
    writer.fill_to(0);
    let (name, bytes) = writer.segments().swap_remove(0);
    let scanned = scan_segment(&bytes, name).unwrap();
    assert_eq!(
        (&scanned.end, scanned.header.timeline, name.timeline.get()),
        (&ChainEnd::Full, TimelineId::FIRST, 3)
    );
    let newer = SegmentName { timeline: TimelineId::new(2).unwrap(), ..name };
    assert!(broken(&scan_segment(&bytes, newer).unwrap()).1.contains("timeline 3"));
    let mut back = bytes.clone();
    back[8192 * 100 + 4] = 2;
    assert!(broken(&scan_segment(&back, name).unwrap()).1.contains("timeline 2 behind one of timeline 3"));
}

#[test]
fn a_record_given_up_in_a_crash_is_as_if_it_had_never_begun() {
    let mut writer = Writer::new(PgMajor::V14, 1, 8192);
    let (before, _) = writer.filler(100);
    let (lsn, _) = writer.filler(20_000);
    writer.lose_from(lsn.align_down(8192).saturating_add(8192), before);
    writer.page_header(0, 8);
    writer.record(0, 0xD0, 0, &main_data(&[0; 16]));
    writer.fill_to(0);
    let scanned = scan(&writer, 0);
    assert_eq!(scanned.end, ChainEnd::Full);
    // A page that goes on with nothing announced, and one announced as continued with nothing under way.
    let (name, bytes) = writer.segments().swap_remove(0);
    for (at, value) in [(8192 + 2, 0), (8192 * 2 + 2, 1)] {
        let mut changed = bytes.clone();
        changed[at] = value;
        assert_eq!(
            broken(&scan_segment(&changed, name).unwrap()).0.as_u64(),
            writer.base() + (at as u64 - 2)
        );
    }
}

fn sample() -> (SegmentName, Vec<u8>) {
    let mut writer = Writer::new(PgMajor::V18, 1, 8192);
    writer.fill_to(4000);
    writer.record(1, 0x80, 900, &main_data(&transaction_end(PgMajor::V18, true, 77, None, 1000)));
    writer.record(1, 0xB0, 0, &main_data(&transaction_end(PgMajor::V18, true, 78, Some(5), 900)));
    writer.record(0, 0x70, 0, &restore_point(5, "x"));
    writer.filler(30_000);
    writer.switch();
    writer.segments().swap_remove(1)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Any change of a byte before the switch breaks the chain or the header; no change panics.
    #[test]
    fn no_changed_byte_goes_unseen(at in 0usize..200_000, value: u8) {
        let (name, whole) = sample();
        let scan = scan_segment(&whole, name).unwrap();
        let at = at % scan.valid_len as usize;
        let mut bytes = whole.clone();
        bytes[at] = value;
        let in_page = at % 8192;
        // Page headers' padding and two of their flags, the carried-in record (its CRC lies elsewhere), alignment.
        let unchecked = (20..24).contains(&in_page) || (2..8).contains(&in_page);
        let carried = scan.index.carried_in.end.as_u64() - name.start(scan.header.segment_size).as_u64();
        match scan_segment(&bytes, name) {
            Ok(again) if at as u64 >= carried && whole[at] != value && !unchecked && again.end == ChainEnd::Switch => {
                // Padding in a record's header and behind records is nobody's.
                prop_assert_eq!(again.index, scan.index);
            }
            Ok(again) => prop_assert!(again.valid_len <= 1 << 20),
            Err(error) => prop_assert!(error.hint().is_some() && at < 40),
        }
    }

    #[test]
    fn no_bytes_panic(seed in proptest::collection::vec((0usize..1 << 20, any::<u64>()), 1..200), header: bool) {
        let (name, whole) = sample();
        let mut bytes = if header { whole } else { vec![0; 1 << 20] };
        let (_, good) = sample();
        bytes[..48].copy_from_slice(&good[..48]);
        for (at, value) in seed {
            let at = at.min((1 << 20) - 8) % if header { 60_000 } else { 1 << 20 };
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        if let Ok(scan) = scan_segment(&bytes, name) {
            let mut canonical = bytes.clone();
            canonicalise(&mut canonical, &scan);
            prop_assert_eq!(SegmentIndex::decode(&scan.index.encode()).unwrap(), scan.index);
        }
    }
}
