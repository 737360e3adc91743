//! `pg_waldump` as the judge.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use highwater_pitr::index::{Chain, SegmentIndex, TablespaceChange, TransactionEnd, TransactionKind};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::scan::{ChainEnd, SegmentScan, scan_segment};
use highwater_pitr::segment::SegmentName;
use highwater_pitr::wal::reader::RecordReader;
use highwater_pitr::wal::record::RecordHeader;
use highwater_tests::{Postgres, transactions, waldump};

use super::describe;

/// The archived segments of one timeline, scanned.
pub struct Segments {
    /// Where they lie.
    pub directory: PathBuf,
    /// Name, scan and content, in WAL order.
    pub list: Vec<(SegmentName, SegmentScan, Vec<u8>)>,
}

impl Segments {
    /// Reads all of a timeline.
    pub fn read(directory: &Path, timeline: u32) -> Self {
        let entries = std::fs::read_dir(directory).unwrap();
        let names =
            entries.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse::<SegmentName>().ok());
        let mut names: Vec<_> = names.filter(|name| name.timeline.get() == timeline).collect();
        names.sort();
        let scan = |name: SegmentName| {
            let bytes = std::fs::read(directory.join(name.to_string())).unwrap();
            let scan = scan_segment(&bytes, name).unwrap_or_else(|error| panic!("{name}: {error}"));
            (name, scan, bytes)
        };
        Segments { directory: directory.to_owned(), list: names.into_iter().map(scan).collect() }
    }
}

/// What the comparison met, so that a test can see that it was not empty.
#[derive(Debug, Default)]
pub struct Seen {
    pub records: usize,
    pub transactions: usize,
    pub restore_points: usize,
    pub checkpoints: usize,
    pub tablespaces: usize,
    pub switches: usize,
    pub crossing_transactions: usize,
    pub crossing_restore_points: usize,
    pub crossing_tablespaces: usize,
    pub split_headers: usize,
    pub given_up: usize,
    pub whole_segments_of_one_record: usize,
}

/// A record as both sides show it. What is not known of a record whose header a segment's end cuts is `None`.
#[derive(Debug, PartialEq, Eq)]
struct Line {
    lsn: Lsn,
    rest: Option<(String, u32, u32, Lsn)>,
}

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

impl Line {
    fn ours(lsn: Lsn, header: &RecordHeader) -> Self {
        let rmgr = RMGRS[usize::from(header.rmid)].to_owned();
        Line { lsn, rest: Some((rmgr, header.total_len, header.xid, header.prev)) }
    }

    /// `rmgr: Heap  len (rec/tot):  54/  150, tx: 734, lsn: 0/01A2B3C8, prev 0/01A2B390, desc: …`
    fn theirs(line: &str) -> Option<Self> {
        let after = |key: &str| line.split_once(key).map(|(_, rest)| rest.trim_start());
        let word = |text: &str| text.split([',', ' ']).next().unwrap_or_default().to_owned();
        let rmgr = word(after("rmgr: ")?);
        let total = word(after("len (rec/tot):")?.split_once('/')?.1.trim_start());
        let lsn = word(after("lsn: ")?).parse().ok()?;
        let prev = word(after("prev ")?).parse().ok()?;
        let xid = word(after("tx: ")?).parse().ok()?;
        Some(Line { lsn, rest: Some((rmgr, total.parse().ok()?, xid, prev)) })
    }
}

/// Compares our reading of a timeline's archived segments with `pg_waldump`'s, and every index with what comes back
/// from its encoding.
pub fn compare(postgres: &Postgres, segments: &Segments, timeline: u32) -> Seen {
    let mut seen = Seen::default();
    let mut lines = Vec::new();
    let mut ends: Vec<TransactionEnd> = Vec::new();
    let mut points: Vec<(Lsn, String)> = Vec::new();
    let mut checkpoints: BTreeMap<Lsn, (Lsn, bool)> = BTreeMap::new();
    let mut tablespaces: Vec<(Lsn, String)> = Vec::new();
    let mut prevs: Vec<(Lsn, Lsn)> = Vec::new();
    let mut chain = Chain::new();
    let mut crossing: Option<(Lsn, Option<RecordHeader>)> = None;
    for (name, scan, bytes) in &segments.list {
        if let ChainEnd::Broken { at, reason } = &scan.end {
            panic!("{}: {reason}", describe(*name, *at));
        }
        let index = SegmentIndex::decode(&scan.index.encode()).unwrap();
        assert_eq!(index, scan.index, "what was encoded comes back");
        let seam = chain.push(&index).unwrap_or_else(|hole| panic!("{hole}"));
        if let Some((start, end)) = seam.completed {
            let (at, header) = crossing.take().expect("a record was under way");
            assert!(at == start && end > start && index.carried_in.end == end);
            lines.push(header.map_or(Line { lsn: at, rest: None }, |header| Line::ours(at, &header)));
        }
        seen.crossing_transactions += usize::from(seam.transaction.is_some());
        seen.crossing_restore_points += usize::from(seam.restore_point.is_some());
        seen.crossing_tablespaces += usize::from(seam.tablespace.is_some());
        for tablespace in seam.tablespace.iter().chain(&index.tablespaces) {
            let text = match &tablespace.change {
                TablespaceChange::Created { path } => {
                    format!("CREATE {} \"{}\"", tablespace.oid, String::from_utf8_lossy(path))
                }
                TablespaceChange::Dropped => format!("DROP {}", tablespace.oid),
            };
            tablespaces.push((tablespace.lsn, text));
            prevs.push((tablespace.lsn, tablespace.prev));
        }
        seen.switches += usize::from(index.ended_by_switch);
        seen.whole_segments_of_one_record += usize::from(index.first_record.is_none());
        ends.extend(seam.transaction.iter().chain(&index.transactions));
        let of_index = seam.restore_point.iter().chain(&index.restore_points);
        points.extend(of_index.map(|point| (point.lsn, point.name.clone())));
        for checkpoint in seam.checkpoint.iter().chain(&index.checkpoints) {
            let age =
                jiff::Timestamp::now().as_second() - checkpoint.time.to_timestamp().unwrap().as_second();
            // The clock may be set while it runs.
            assert!((-60..600).contains(&age), "a checkpoint {age} seconds ago");
            checkpoints.insert(checkpoint.lsn, (checkpoint.redo, checkpoint.online));
        }
        if crossing.is_some()
            && (index.carried_in.overwritten
                || index.carried_in.here < index.carried_in.len && index.first_record.is_some())
        {
            seen.given_up += 1;
            crossing = None;
        }
        let mut reader = RecordReader::new(bytes, *name).unwrap();
        while let Some(record) = reader.next_record() {
            lines.push(Line::ours(record.lsn, &record.header));
        }
        if let Some(unfinished) = &index.unfinished {
            let header = unfinished.bytes.first_chunk().map(RecordHeader::parse);
            seen.split_headers += usize::from(header.is_none());
            crossing = Some((unfinished.start, header));
        }
    }
    let last = lines.last().expect("records").lsn;
    assert_eq!(chain.last_record(), Some(last), "the chain ends with the last whole record");
    let (first, scan, _) = &segments.list[0];
    let start = first.start(scan.header.segment_size).to_string();
    let text = waldump(postgres, &segments.directory, timeline, &start, &[]);
    let theirs: Vec<Line> = text.lines().filter_map(Line::theirs).collect();
    for (ours, theirs) in lines.iter().zip(&theirs) {
        assert_eq!(ours.lsn, theirs.lsn, "the next record on timeline {timeline}");
        assert!(ours.rest.is_none() || ours.rest == theirs.rest, "{ours:?} is {theirs:?} to pg_waldump");
    }
    assert_eq!(lines.len(), theirs.len(), "ours end at {last}, theirs at {:?}", theirs.last());

    // The harness reads transactions from pg_waldump by itself.
    let judged = transactions(postgres, &segments.directory, timeline, &start);
    let judged: Vec<_> =
        judged.into_iter().map(|line| (line.position, line.xid, line.kind, line.time)).collect();
    let shown: Vec<_> =
        ends.iter().map(|end| (end.lsn.as_u64(), end.xid, kind(end.kind).to_owned(), time(end))).collect();
    assert_eq!(shown, judged);
    let desc = |key: &str| {
        let lines = text.lines().filter_map(|line| {
            Some((Line::theirs(line)?.lsn, line.split_once(&format!("desc: {key} "))?.1.to_owned()))
        });
        lines.collect::<Vec<(Lsn, String)>>()
    };
    assert_eq!(points, desc("RESTORE_POINT"));
    let judged = desc("CHECKPOINT_ONLINE").into_iter().chain(desc("CHECKPOINT_SHUTDOWN"));
    let judged: BTreeMap<_, _> = judged
        .map(|(lsn, text)| {
            let redo = text.strip_prefix("redo ").unwrap().split(';').next().unwrap();
            (lsn, (redo.parse::<Lsn>().unwrap(), text.contains("; online")))
        })
        .collect();
    assert_eq!(checkpoints, judged);
    let judged: Vec<(Lsn, String)> = text
        .lines()
        .filter(|line| line.starts_with("rmgr: Tablespace"))
        .filter_map(|line| {
            Some((Line::theirs(line)?.lsn, line.split_once("desc: ")?.1.trim_end().to_owned()))
        })
        .collect();
    assert_eq!(tablespaces, judged);
    for (lsn, prev) in prevs {
        let line = lines.iter().find(|line| line.lsn == lsn);
        assert!(line.is_some_and(|line| line.rest.as_ref().is_none_or(|rest| rest.3 == prev)), "{lsn}");
    }
    seen.records = lines.len();
    seen.transactions = ends.len();
    seen.restore_points = points.len();
    seen.checkpoints = checkpoints.len();
    seen.tablespaces = tablespaces.len();
    seen
}

fn kind(kind: TransactionKind) -> &'static str {
    match kind {
        TransactionKind::Commit => "COMMIT",
        TransactionKind::Abort => "ABORT",
        TransactionKind::CommitPrepared => "COMMIT_PREPARED",
        TransactionKind::AbortPrepared => "ABORT_PREPARED",
    }
}

/// As `pg_waldump` shows it in UTC.
fn time(end: &TransactionEnd) -> String {
    end.time.to_postgres_literal().unwrap().replace("+00", " UTC")
}
