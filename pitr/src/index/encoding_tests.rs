#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::index::{TablespaceChange, TablespaceRecord};

prop_compose! {
    fn times()(micros: i64) -> PgTime { PgTime::from_postgres_micros(micros) }
}

prop_compose! {
    /// Any index that a scan can give, and more.
    fn indexes()(
        major in prop::sample::select(PgMajor::ALL.to_vec()),
        (power, page, system_identifier, timeline) in (20u32..=30, 10u32..=16, any::<u64>(), 1u32..),
        (number, flags, positions) in (0u64..1 << 33, any::<[bool; 6]>(), any::<[u32; 6]>()),
        mut starts in prop::collection::btree_set(0u64..1 << 16, 0..40),
        rows in prop::collection::vec((0u64..1000, any::<u32>(), times(), 0usize..4, any::<u64>(), "\\PC{0,20}"), 40),
        (carried, unfinished) in (any::<(u32, u32, bool)>(), any::<Option<(u32, u32)>>()),
        kept in prop::collection::vec(any::<u8>(), 0..300),
    ) -> SegmentIndex {
        let segment_size = WalSegmentSize::try_from(1u32 << power).unwrap();
        let segment = SegmentName::from_number(TimelineId::new(timeline).unwrap(), number, segment_size);
        let start = segment.start(segment_size);
        let at = |units: u32| start.saturating_add(u64::from(units) * 8 % segment_size.bytes());
        let option = |n: usize| flags[n].then(|| at(positions[n]));
        let kinds = [
            TransactionKind::Commit,
            TransactionKind::Abort,
            TransactionKind::CommitPrepared,
            TransactionKind::AbortPrepared,
        ];
        starts.retain(|units| units * 8 + 8000 < segment_size.bytes());
        let rows: Vec<_> = starts.iter().map(|units| start.saturating_add(units * 8)).zip(&rows).collect();
        let end = |lsn: Lsn, units: u64| lsn.saturating_add(units * 8);
        let third = |n: usize| rows.iter().skip(n).step_by(3);
        let here = kept.len() as u32;
        SegmentIndex {
            decoder: DECODER,
            segment,
            segment_size,
            block_size: 1 << page,
            major,
            system_identifier,
            first_record: option(0),
            first_prev: flags[1].then(|| Lsn::new(u64::from(positions[1]) << 13)),
            last_record: option(2),
            end: at(positions[3]),
            ended_by_switch: flags[3],
            stops_early: flags[4],
            undecoded: option(5),
            carried_in: Carried {
                len: here.saturating_add(carried.0),
                here,
                end: at(positions[4]),
                crc: carried.1,
                bytes: kept.clone(),
                overwritten: carried.2,
            },
            unfinished: unfinished.map(|(more, crc)| Unfinished {
                start: at(positions[5]),
                total_len: here.saturating_add(more).max(here + 1),
                here,
                crc,
                bytes: kept.clone(),
            }),
            transactions: third(0).map(|(lsn, (units, xid, time, kind, ..))| TransactionEnd {
                lsn: *lsn, end: end(*lsn, *units), xid: *xid, time: *time, kind: kinds[*kind],
            }).collect(),
            restore_points: third(1).map(|(lsn, (units, _, time, _, _, name))| RestorePointRecord {
                lsn: *lsn, end: end(*lsn, *units), name: name.clone(), time: *time,
            }).collect(),
            tablespaces: rows.iter().map(|(lsn, (units, oid, _, kind, back, path))| TablespaceRecord {
                lsn: *lsn,
                end: end(*lsn, *units),
                prev: Lsn::new(lsn.as_u64() - lsn.as_u64().min(*back) / 8 * 8),
                oid: *oid,
                change: match kind {
                    0 => TablespaceChange::Dropped,
                    _ => TablespaceChange::Created { path: path.replace('\0', "").into_bytes() },
                },
            }).collect(),
            checkpoints: third(2).map(|(lsn, (units, _, time, kind, redo, _))| CheckpointRecord {
                lsn: *lsn, end: end(*lsn, *units), redo: Lsn::new(*redo), time: *time, online: *kind > 1,
            }).collect(),
        }
    }
}

proptest! {
    /// I16: what was indexed is what is read back.
    #[test]
    fn an_index_comes_back(index in indexes()) {
        prop_assert_eq!(SegmentIndex::decode(&index.encode()).unwrap(), index);
    }

    #[test]
    fn no_cut_and_no_addition_is_read(index in indexes(), at: prop::sample::Index, more in 1usize..20) {
        let bytes = index.encode();
        let unfinished = index.unfinished.is_some();
        let cut = SegmentIndex::decode(&bytes[..at.index(bytes.len())]);
        // Cut between two sections, it is an index of less; the sealed frame around it knows its length.
        prop_assert!(cut.is_err() || cut.unwrap() != index);
        let longer = [&bytes[..], &vec![0; more][..]].concat();
        prop_assert!(SegmentIndex::decode(&longer).is_err(), "{unfinished}");
    }

    /// Changed bytes give an error or another index, which is then encoded as it was read.
    #[test]
    fn no_changed_byte_panics(index in indexes(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4)) {
        let mut bytes = index.encode();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Ok(read) = SegmentIndex::decode(&bytes) {
            prop_assert_eq!(SegmentIndex::decode(&read.encode()).unwrap(), read);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let bytes = [&DECODER.to_le_bytes()[..], &bytes].concat();
        prop_assert!(SegmentIndex::decode(&bytes).is_err() || bytes.len() > 20);
    }
}

fn small() -> Vec<u8> {
    let mut writer = crate::wal::synthetic::Writer::new(PgMajor::V17, 1, 8192);
    writer.filler(100);
    writer.switch();
    let (name, bytes) = writer.segments().swap_remove(0);
    crate::scan::scan_segment(&bytes, name).unwrap().index.encode()
}

/// The bytes of `docs/format.md`, one by one.
#[test]
fn the_encoding_is_the_documented_one() {
    let facts = [
        &[17][..],                                         // PostgreSQL 17
        &[0xC6, 0x23, 0x7B, 0x32, 0x67, 0x45, 0x8B, 0x6B], // system identifier
        &[20, 13, 1, 3],                                   // 1 MiB, 8 KiB, timeline 1, segment 3
        &[0x0F, 5, 21, 0x80, 0x80, 0x08], // flags; first and last record; the end is the segment's
        &[0xC0, 0xFF, 0xBF, 0x01],        // prev-link 0/2FFFC0
    ];
    let facts = facts.concat();
    let carried = [0, 0, 0, 5, 0, 0, 0, 0, 0]; // none; the first record starts 40 bytes in
    let expected = [&[2, 0, 1, facts.len() as u8][..], &facts, &[5, carried.len() as u8], &carried];
    assert_eq!(small(), expected.concat());
}

/// The section of tablespaces, byte by byte.
#[test]
fn tablespaces_are_encoded_as_documented() {
    let mut index = SegmentIndex::decode(&small()).unwrap();
    let start = index.segment.start(index.segment_size);
    let at = |bytes: u64| start.saturating_add(bytes);
    let created = TablespaceChange::Created { path: b"/s".to_vec() };
    index.tablespaces = vec![
        TablespaceRecord { lsn: at(168), end: at(208), prev: at(40), oid: 16384, change: created },
        TablespaceRecord {
            lsn: at(272),
            end: at(304),
            prev: at(208),
            oid: 16384,
            change: TablespaceChange::Dropped,
        },
    ];
    let payload = [
        &[2][..],
        &[21, 5 << 1 | 1, 16, 0x80, 0x80, 0x01, 2, b'/', b's'], // 16384 in three bytes
        &[13, 4 << 1, 8, 0x80, 0x80, 0x01],
    ];
    let payload = payload.concat();
    assert_eq!(index.encode(), [&small()[..], &[7, payload.len() as u8], &payload].concat());
}

#[test]
fn an_index_of_another_decoder_is_no_index() {
    let mut bytes = small();
    bytes[0] = 3;
    let error = SegmentIndex::decode(&bytes).unwrap_err();
    assert_eq!(error, IndexError::UnknownDecoder { found: 3 });
    assert!(error.hint().unwrap().contains("newest version"));
    assert!(SegmentIndex::decode(&[1]).is_err() && SegmentIndex::decode(&[2, 0]).is_err());
}

#[test]
fn later_sections_are_passed_over_only_where_they_may_be() {
    let bytes = small();
    let with = |id: u8| [&bytes[..], &[id, 3, 1, 2, 3]].concat();
    assert_eq!(SegmentIndex::decode(&with(64)), SegmentIndex::decode(&bytes));
    assert!(SegmentIndex::decode(&with(63)).is_err());
    assert!(SegmentIndex::decode(&with(5)).is_err(), "twice");
}

#[test]
fn counts_promise_no_more_memory_than_there_are_bytes() {
    let mut bytes = small();
    let carried = bytes.split_off(bytes.len() - 11);
    for id in [TRANSACTIONS, RESTORE_POINTS, CHECKPOINTS] {
        let huge = [&bytes[..], &[id, 9, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1, 1, 1, 1], &carried].concat();
        assert_eq!(SegmentIndex::decode(&huge), Err(IndexError::Damaged { reason: "it ends too early" }));
    }
    let huge = [&bytes[..], &carried, &[TABLESPACES, 9, 0xFF, 0xFF, 0xFF, 0xFF, 0x0F, 1, 1, 1, 1]].concat();
    assert_eq!(SegmentIndex::decode(&huge), Err(IndexError::Damaged { reason: "it ends too early" }));
}
