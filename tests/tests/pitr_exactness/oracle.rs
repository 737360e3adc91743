//! What each target means, by `pg_waldump` alone (I24): nothing here uses Highwater's reading of WAL.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use highwater_tests::{Cluster, Postgres, TransactionLine, transactions, waldump};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// A commit or abort, with its time.
#[derive(Clone, Debug)]
pub struct End {
    pub line: TransactionLine,
    /// Microseconds since 1970.
    pub micros: i64,
}

impl End {
    fn is_commit(&self) -> bool {
        self.line.kind.starts_with("COMMIT")
    }
}

/// The WAL of one timeline from a position on, as `pg_waldump` tells it.
#[derive(Debug)]
pub struct Oracle {
    /// Commits and aborts in WAL order.
    pub ends: Vec<End>,
    /// Where each record starts, in WAL order.
    pub records: Vec<u64>,
    /// Restore points in WAL order.
    pub points: Vec<(u64, String)>,
}

impl Oracle {
    /// Reads what lies in `wal` from `start` on.
    pub fn read(postgres: &Postgres, wal: &Path, timeline: u32, start: &str) -> Self {
        let ends = transactions(postgres, wal, timeline, start).into_iter().map(|line| {
            let civil: DateTime = line.time.strip_suffix(" UTC").expect("a time in UTC").parse().unwrap();
            let micros = civil.to_zoned(TimeZone::UTC).unwrap().timestamp().as_microsecond();
            End { line, micros }
        });
        let mut oracle = Self { ends: ends.collect(), records: Vec::new(), points: Vec::new() };
        for line in waldump(postgres, wal, timeline, start, &[]).lines() {
            let Some(position) = record_start(line) else { continue };
            oracle.records.push(position);
            if let Some((_, name)) = line.split_once("desc: RESTORE_POINT ") {
                oracle.points.push((position, name.trim().to_owned()));
            }
        }
        assert!(oracle.ends.is_sorted_by_key(|end| end.line.position));
        assert!(oracle.records.is_sorted());
        let starts: BTreeSet<u64> = oracle.records.iter().copied().collect();
        assert!(oracle.ends.iter().all(|end| starts.contains(&end.line.position)));
        oracle
    }

    /// The transactions whose commit starts before `position`.
    pub fn committed_before(&self, position: u64) -> BTreeSet<u32> {
        let ends = self.ends.iter().take_while(|end| end.line.position < position);
        ends.filter(|end| end.is_commit()).map(|end| end.line.xid).collect()
    }

    /// Up to the first commit or abort later than `micros`; with `before`, not earlier than it.
    pub fn at_time(&self, micros: i64, before: bool) -> BTreeSet<u32> {
        let stops = |end: &&End| end.micros > micros || before && end.micros == micros;
        self.committed_before(self.ends.iter().find(stops).map_or(u64::MAX, |end| end.line.position))
    }

    /// Up to the first record that starts at or after `position`, and with it unless `before`.
    pub fn at_lsn(&self, position: u64, before: bool) -> BTreeSet<u32> {
        let first = self.records.iter().find(|start| **start >= position).copied().unwrap_or(u64::MAX);
        self.committed_before(if before { first } else { first.saturating_add(1) })
    }

    /// Up to the end of a transaction, and with it unless `before`.
    pub fn at_xid(&self, xid: u32, before: bool) -> BTreeSet<u32> {
        let end = self.ends.iter().find(|end| end.line.xid == xid).expect("a transaction of the WAL");
        self.committed_before(if before { end.line.position } else { end.line.position + 1 })
    }

    /// Up to a restore point: of one name the first that starts at or after `from`.
    pub fn at_point(&self, name: &str, from: u64) -> BTreeSet<u32> {
        let mut points = self.points.iter().filter(|(position, _)| *position >= from);
        self.committed_before(points.find(|(_, known)| known == name).expect("a point of the WAL").0)
    }
}

fn record_start(line: &str) -> Option<u64> {
    let (_, rest) = line.split_once("lsn: ")?;
    parse_lsn(rest.split(',').next()?)
}

/// A position as PostgreSQL prints it.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// As PostgreSQL prints it.
pub fn show_lsn(position: u64) -> String {
    format!("{:X}/{:X}", position >> 32, position & 0xFFFF_FFFF)
}

/// RFC 3339 with microseconds, in UTC.
pub fn show_time(micros: i64) -> String {
    jiff::Timestamp::from_microsecond(micros).unwrap().strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

/// The transactions of a ledger. Fails the test when one of them is not whole.
pub fn ledger(cluster: &Cluster) -> BTreeSet<u32> {
    let rows = cluster.rows("select xid, count(*), min(whole), max(whole) from ledger group by xid");
    let number = |text: &Option<String>| text.as_ref().unwrap().parse::<u32>().unwrap();
    let found: BTreeMap<u32, [u32; 3]> = rows
        .iter()
        .map(|row| (number(&row[0]), [number(&row[1]), number(&row[2]), number(&row[3])]))
        .collect();
    for (xid, [count, least, most]) in &found {
        assert!(
            count == least && count == most,
            "transaction {xid} has {count} rows and should have {least} or {most}"
        );
    }
    found.into_keys().collect()
}
