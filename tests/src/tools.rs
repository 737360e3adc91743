//! PostgreSQL's own judges: what `pg_waldump`, `pg_amcheck`, `pg_checksums` and `pg_controldata` say.

use std::collections::BTreeMap;
use std::path::Path;

use crate::cluster::Cluster;
use crate::postgres::Postgres;

/// A commit or abort record as `pg_waldump` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionLine {
    /// The position of the record, as PostgreSQL prints it.
    pub lsn: String,
    /// The same as a number.
    pub position: u64,
    /// The transaction: of the record's header, or the prepared one that it ends.
    pub xid: u32,
    /// `COMMIT`, `ABORT`, `COMMIT_PREPARED` or `ABORT_PREPARED`.
    pub kind: String,
    /// `2026-11-20 06:00:01.234567 UTC`; `pg_waldump` runs with this zone.
    pub time: String,
}

/// `pg_waldump` on a directory of segments, from a position to the end of valid WAL on this timeline. It always ends
/// with an error there; what it printed before is returned.
pub fn waldump(postgres: &Postgres, wal: &Path, timeline: u32, start: &str, arguments: &[&str]) -> String {
    let mut command = postgres.command("pg_waldump");
    command
        .arg("--path")
        .arg(wal)
        .arg("--timeline")
        .arg(timeline.to_string())
        .args(["--start", start])
        .args(arguments);
    let output = command.output().unwrap_or_else(|error| panic!("pg_waldump: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() || !stdout.is_empty(), "pg_waldump read nothing: {stderr}");
    stdout.into_owned()
}

/// Every commit and abort from a position on, in WAL order.
pub fn transactions(postgres: &Postgres, wal: &Path, timeline: u32, start: &str) -> Vec<TransactionLine> {
    let text = waldump(postgres, wal, timeline, start, &["--rmgr=Transaction"]);
    text.lines().filter_map(transaction).collect()
}

fn transaction(line: &str) -> Option<TransactionLine> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest.trim_start());
    let word = |text: &str| text.split([',', ' ', ';', ':']).next().unwrap_or_default().to_owned();
    let lsn = word(after("lsn: ")?);
    let desc = after("desc: ")?;
    let (kind, rest) = desc.split_once(' ')?;
    // A prepared transaction's record names it: "COMMIT_PREPARED 734: 2026-11-20 …".
    let (xid, time) = match kind {
        "COMMIT" | "ABORT" => (word(after("tx: ")?), rest),
        "COMMIT_PREPARED" | "ABORT_PREPARED" => {
            rest.split_once(": ").map(|(xid, time)| (xid.to_owned(), time))?
        }
        _ => return None,
    };
    Some(TransactionLine {
        position: position(&lsn)?,
        lsn,
        xid: xid.parse().ok()?,
        kind: kind.to_owned(),
        time: time.split(';').next()?.trim().to_owned(),
    })
}

fn position(lsn: &str) -> Option<u64> {
    let (high, low) = lsn.split_once('/')?;
    Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
}

/// Fails the test unless `pg_amcheck`, which compares heaps with their indexes, finds nothing in any database.
pub fn amcheck(cluster: &Cluster) {
    let mut command = cluster.client("pg_amcheck");
    let output =
        command.args(["--all", "--install-missing", "--heapallindexed", "--parent-check"]).output().unwrap();
    let said =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "pg_amcheck: {said}");
}

/// Fails the test unless every page of a cleanly stopped cluster has the right checksum. The cluster must have checksums.
pub fn checksums(cluster: &Cluster) {
    let said =
        cluster.postgres().run("pg_checksums", ["--check", "--pgdata", cluster.data().to_str().unwrap()]);
    assert!(said.contains("Bad checksums:  0"), "pg_checksums: {said}");
}

impl Cluster {
    /// Stops the server as [`Cluster::stop`] does, and fails the test unless PostgreSQL's own judges find nothing in it: what every
    /// restored cluster must stand. One that is still in recovery is promoted first, since `pg_amcheck` needs its extension.
    pub fn stop_proven(&self) {
        if self.value("select pg_is_in_recovery()") == "t" {
            self.promote();
        }
        let sums = self.value("show data_checksums") == "on";
        amcheck(self);
        self.stop();
        if sums {
            checksums(self);
        }
    }
}

/// What `pg_controldata` says of a data directory, by its label.
pub fn controldata(postgres: &Postgres, data: &Path) -> BTreeMap<String, String> {
    let text = postgres.run("pg_controldata", ["--pgdata", data.to_str().unwrap()]);
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs.map(|(label, value)| (label.trim().to_owned(), value.trim().to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transactions_are_read_from_what_pg_waldump_prints() {
        let line = "rmgr: Transaction len (rec/tot):     46/    46, tx:        734, lsn: 0/01A2B3C8, prev 0/01A2B390, \
                    desc: COMMIT 2026-11-20 06:00:01.234567 UTC; origin: node 1";
        let found = transaction(line).unwrap();
        assert_eq!((found.xid, found.kind.as_str(), found.position), (734, "COMMIT", 0x01A2_B3C8));
        assert_eq!(found.time, "2026-11-20 06:00:01.234567 UTC");
        let prepared = line.replace("COMMIT 2026", "COMMIT_PREPARED 700: 2026");
        let found = transaction(&prepared).unwrap();
        assert_eq!((found.xid, found.time.as_str()), (700, "2026-11-20 06:00:01.234567 UTC"));
        assert_eq!(transaction(&line.replace("COMMIT 2026", "PREPARE gid x: 2026")), None);
    }
}
