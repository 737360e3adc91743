//! WAL that PostgreSQL 14 to 18 wrote (`fixtures/wal`), read and compared with what each major's `pg_waldump` said of it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use highwater_pitr::index::{Chain, SegmentIndex, TablespaceChange, TransactionEnd, TransactionKind};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::scan::{ChainEnd, scan_segment};
use highwater_pitr::segment::SegmentName;
use highwater_pitr::wal::PgMajor;
use highwater_pitr::wal::reader::RecordReader;
use highwater_pitr::wal::record::RecordHeader;

const RMGRS: [&str; 22] = [
    "XLOG",
    "Transaction",
    "Storage",
    "CLOG",
    "Database",
    "Tablespace",
    "MultiXact",
    "RelMap",
    "Standby",
    "Heap2",
    "Heap",
    "Btree",
    "Hash",
    "Gin",
    "Gist",
    "Sequence",
    "SPGist",
    "BRIN",
    "CommitTs",
    "ReplicationOrigin",
    "Generic",
    "LogicalMessage",
];

fn directory(major: PgMajor) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/wal").join(major.to_string())
}

/// Stretches of bytes and runs of one byte, in turn.
fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut rest = packed;
    let number = |rest: &mut &[u8]| {
        let (head, tail) = rest.split_first_chunk().unwrap();
        *rest = tail;
        u32::from_le_bytes(*head) as usize
    };
    let mut out = Vec::new();
    while !rest.is_empty() {
        let stretch = number(&mut rest);
        out.extend_from_slice(&rest[..stretch]);
        rest = &rest[stretch..];
        let run = number(&mut rest);
        out.resize(out.len() + run, rest[0]);
        rest = &rest[1..];
    }
    out
}

fn segments(major: PgMajor, timeline: u32) -> Vec<(SegmentName, Vec<u8>)> {
    let entries = fs::read_dir(directory(major)).unwrap().map(|entry| entry.unwrap().path());
    let mut list: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "runs"))
        .map(|path| (path.file_stem().unwrap().to_str().unwrap().parse::<SegmentName>().unwrap(), path))
        .filter(|(name, _)| name.timeline.get() == timeline)
        .map(|(name, path)| (name, unpack(&fs::read(path).unwrap())))
        .collect();
    list.sort();
    list
}

fn line(lsn: Lsn, header: &RecordHeader, says: &str) -> String {
    let RecordHeader { prev, rmid, total_len, xid, .. } = header;
    format!("{lsn} {prev} {} {total_len} {xid}{says}", RMGRS[usize::from(*rmid)])
}

fn transaction(end: &TransactionEnd) -> String {
    let kind = match end.kind {
        TransactionKind::Commit => "COMMIT",
        TransactionKind::Abort => "ABORT",
        TransactionKind::CommitPrepared => "COMMIT_PREPARED",
        TransactionKind::AbortPrepared => "ABORT_PREPARED",
    };
    let time = end.time.to_postgres_literal().unwrap().replace("+00", " UTC");
    format!(" {kind} {} {time}", end.xid)
}

/// What an index says of the record at `lsn`.
fn says(index: &SegmentIndex, lsn: Lsn) -> String {
    let mut text = String::new();
    text.extend(index.transactions.iter().filter(|end| end.lsn == lsn).map(transaction));
    text.extend(
        index
            .restore_points
            .iter()
            .filter(|point| point.lsn == lsn)
            .map(|point| format!(" RESTORE_POINT {}", point.name)),
    );
    text.extend(index.checkpoints.iter().filter(|checkpoint| checkpoint.lsn == lsn).map(|checkpoint| {
        format!(" CHECKPOINT_{} {}", if checkpoint.online { "ONLINE" } else { "SHUTDOWN" }, checkpoint.redo)
    }));
    text.extend(index.tablespaces.iter().filter(|tablespace| tablespace.lsn == lsn).map(|tablespace| {
        match &tablespace.change {
            TablespaceChange::Created { path } => {
                format!(" CREATE {} \"{}\"", tablespace.oid, String::from_utf8_lossy(path))
            }
            TablespaceChange::Dropped => format!(" DROP {}", tablespace.oid),
        }
    }));
    text
}

fn read(major: PgMajor, timeline: u32) -> Vec<String> {
    let mut lines = Vec::new();
    let mut chain = Chain::new();
    let mut crossing: Vec<u8> = Vec::new();
    for (name, bytes) in segments(major, timeline) {
        let scan = scan_segment(&bytes, name).unwrap();
        assert!(!matches!(scan.end, ChainEnd::Broken { .. }), "{name}: {:?}", scan.end);
        assert_eq!(scan.header.major, major);
        let index = SegmentIndex::decode(&scan.index.encode()).unwrap();
        assert_eq!(index, scan.index);
        let seam = chain.push(&index).unwrap();
        crossing.extend_from_slice(&index.carried_in.bytes);
        if let Some((lsn, _)) = seam.completed {
            let of_seam = SegmentIndex {
                transactions: seam.transaction.into_iter().collect(),
                restore_points: seam.restore_point.into_iter().collect(),
                checkpoints: seam.checkpoint.into_iter().collect(),
                tablespaces: seam.tablespace.into_iter().collect(),
                ..index.clone()
            };
            let header = RecordHeader::parse(crossing.first_chunk().unwrap());
            lines.push(line(lsn, &header, &says(&of_seam, lsn)));
        }
        let mut reader = RecordReader::new(&bytes, name).unwrap();
        while let Some(record) = reader.next_record() {
            lines.push(line(record.lsn, &record.header, &says(&index, record.lsn)));
        }
        if let Some(unfinished) = &index.unfinished {
            crossing = unfinished.bytes.clone();
        }
    }
    lines
}

/// I16: WAL of every supported major is read as that major's own tool reads it.
#[test]
fn every_major_is_read_as_its_own_pg_waldump_reads_it() {
    for major in PgMajor::ALL {
        for timeline in [1, 2] {
            let expected =
                fs::read_to_string(directory(major).join(format!("timeline-{timeline}.txt"))).unwrap();
            let lines = read(major, timeline);
            assert!(lines.len() > 50);
            for (ours, theirs) in lines.iter().zip(expected.lines()) {
                assert_eq!(ours, theirs, "PostgreSQL {major}, timeline {timeline}");
            }
            assert_eq!(lines.len(), expected.lines().count(), "PostgreSQL {major}, timeline {timeline}");
            for word in [
                " COMMIT_PREPARED ",
                " ABORT_PREPARED ",
                " RESTORE_POINT ",
                " CHECKPOINT_ONLINE ",
                " ABORT ",
                " CREATE ",
                " DROP ",
            ] {
                assert!(expected.contains(word), "the fixture has no {word}");
            }
        }
    }
}

/// No byte of real WAL can be changed so that the reader panics, or believes what it should not.
#[test]
fn no_changed_byte_of_real_wal_is_believed() {
    for major in PgMajor::ALL {
        let list = segments(major, 2);
        let (name, bytes) = &list[0];
        let scan = scan_segment(bytes, *name).unwrap();
        let mut state = 0x2545_F491_4F6C_DD1Du64 ^ u64::from(major.number());
        for _ in 0..300 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let at = state as usize % scan.valid_len as usize;
            let mut changed = bytes.clone();
            changed[at] ^= 1 << (state >> 60 & 7);
            match scan_segment(&changed, *name) {
                Ok(again) if again.end == scan.end => {
                    // Only what PostgreSQL does not look at either: padding, and flags of pages.
                    assert_eq!(again.index.transactions, scan.index.transactions);
                }
                Ok(again) => assert!(again.valid_len <= scan.valid_len && again.index.stops_early),
                Err(_) => assert!(at < 40),
            }
        }
    }
}
