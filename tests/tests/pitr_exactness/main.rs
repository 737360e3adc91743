//! Point-in-time recovery is exact (I24): a restored cluster holds the commits up to its target in WAL order, and no other.
//!
//! Nine sessions write a ledger on a real server, archived by `highwater archive-push` and backed up by `highwater backup`
//! while they write. Then random targets of each kind are restored by `highwater restore`, recovered by PostgreSQL, and the
//! ledger is compared with what `pg_waldump` says was committed up to there. `./dev test` takes a few targets of each kind on
//! each major, `./dev soak` at least 25. What is random follows from one seed, which a failure prints.

mod oracle;
mod promotion;
mod workload;

use std::collections::BTreeSet;
use std::path::PathBuf;

use highwater_tests::{Cluster, Highwater, Postgres, Scratch, Seed, for_each_major, scale, tell_campaign};
use oracle::{Oracle, ledger, parse_lsn, show_lsn, show_time};

/// How many targets of each kind are restored on each major.
const EACH_IN_CI: u64 = 2;
const EACH_IN_SOAK: u64 = 25;

/// A target as it stands on the command line, and what it means.
struct Target {
    arguments: Vec<String>,
    expected: BTreeSet<u32>,
}

/// A ledger on a real server, archived and backed up, and what its WAL says.
struct History {
    cluster: Cluster,
    highwater: Highwater,
    oracle: Oracle,
    /// Transactions that left rows in the ledger in the end.
    ledger: BTreeSet<u32>,
    /// A position and a moment behind the first backup.
    after_first_backup: (u64, i64),
    /// The same behind the last one.
    after_last_backup: u64,
}

/// A server that is archived into a local repository, with an empty ledger.
fn archived_server(
    postgres: &'static Postgres,
    scratch: &Scratch,
    wal_segment_mb: u32,
) -> (Cluster, Highwater) {
    let cluster = Cluster::builder(postgres, scratch, "main")
        .wal_segment_mb(wal_segment_mb)
        .setting("max_prepared_transactions", "20")
        // The oracle reads all WAL in pg_wal.
        .setting("wal_keep_size", "8GB")
        .setting("max_wal_senders", "4")
        .create();
    let highwater = Highwater::new(scratch, "highwater", &cluster).local_repository("repository");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    workload::create(&cluster);
    (cluster, highwater)
}

fn micros_now(cluster: &Cluster) -> i64 {
    cluster.value("select (extract(epoch from clock_timestamp()) * 1000000)::bigint").parse().unwrap()
}

impl History {
    fn write(postgres: &'static Postgres, scratch: &Scratch, seed: &mut Seed) -> Self {
        let wal_segment_mb = *seed.pick(&[1, 1, 2, 16]);
        let (cluster, highwater) = archived_server(postgres, scratch, wal_segment_mb);
        let start = cluster.lsn();
        highwater.ok(&["backup"]);
        let after_first_backup = (parse_lsn(&cluster.lsn()).unwrap(), micros_now(&cluster));

        let turns = scale().pick(250, 1500);
        let load = workload::start(&cluster, seed);
        load.wait_for(turns);
        highwater.ok(&["backup"]);
        load.wait_for(turns);
        highwater.ok(&["backup"]);
        let after_last_backup = parse_lsn(&cluster.lsn()).unwrap();
        cluster.execute("select pg_create_restore_point('twice')");
        load.wait_for(turns);
        cluster.execute("select pg_create_restore_point('twice')");
        load.wait_for(turns);
        load.stop();
        cluster.execute("insert into noise values (100, 0)");
        cluster.execute("select pg_create_restore_point('the end')");
        let last = cluster.switch_wal();
        cluster.wait_until_archived(&last);

        let oracle = Oracle::read(postgres, &cluster.data().join("pg_wal"), 1, &start);
        let ledger = ledger(&cluster);
        let all = oracle.committed_before(u64::MAX);
        assert!(ledger.is_subset(&all), "the oracle has not seen every commit");
        assert!(ledger.len() as u64 > turns, "the ledger has only {} transactions", ledger.len());
        Self { cluster, highwater, oracle, ledger, after_first_backup, after_last_backup }
    }

    fn time(&self, seed: &mut Seed) -> Target {
        let last = self.oracle.ends.len() - 1;
        let first =
            self.oracle.ends.iter().position(|end| end.micros > self.after_first_backup.1 + 1).unwrap();
        let at = seed.within(first as u64..last as u64) as usize;
        let (this, next) = (self.oracle.ends[at].micros, self.oracle.ends[at + 1].micros);
        let micros = match seed.within(0..4) {
            0 => this - 1,
            1 => this,
            2 => this + 1,
            _ => this + (next - this) / 2,
        };
        let before = seed.one_in(3);
        self.target(&["--to", &show_time(micros)], before, self.oracle.at_time(micros, before))
    }

    fn lsn(&self, seed: &mut Seed) -> Target {
        let from = self.oracle.records.partition_point(|start| *start < self.after_first_backup.0);
        let record = *seed.pick(&self.oracle.records[from..self.oracle.records.len() - 1]);
        let position = match seed.within(0..3) {
            0 => record,
            1 => record + seed.within(1..64),
            _ => seed.pick(&self.oracle.ends[self.oracle.ends.len() / 2..]).line.position,
        };
        let before = seed.one_in(3);
        self.target(&["--to-lsn", &show_lsn(position)], before, self.oracle.at_lsn(position, before))
    }

    fn xid(&self, seed: &mut Seed) -> Target {
        let from = self.oracle.ends.partition_point(|end| end.line.position < self.after_first_backup.0);
        let xid = seed.pick(&self.oracle.ends[from..]).line.xid;
        let before = seed.one_in(3);
        self.target(&["--to-xid", &xid.to_string()], before, self.oracle.at_xid(xid, before))
    }

    fn point(&self, seed: &mut Seed) -> Target {
        let behind = self.oracle.points.iter().filter(|(position, _)| *position > self.after_first_backup.0);
        let mut names: Vec<&str> = behind.map(|(_, name)| name.as_str()).collect();
        names.push("twice");
        let name = *seed.pick(&names);
        // Of the two with one name, the first one after the newest backup counts.
        let from = if name == "twice" { self.after_last_backup } else { self.after_first_backup.0 };
        self.target(&["--to-restore-point", name], false, self.oracle.at_point(name, from))
    }

    fn target(&self, arguments: &[&str], before: bool, committed: BTreeSet<u32>) -> Target {
        let mut arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        if before {
            arguments.push("--before".to_owned());
        }
        Target { arguments, expected: committed.intersection(&self.ledger).copied().collect() }
    }

    /// Restores to a target, lets PostgreSQL recover to it, and compares the ledger.
    fn check(&self, scratch: &Scratch, target: &Target, thoroughly: bool) {
        let restored = self.restore(scratch, &target.arguments);
        let said = target.arguments.join(" ");
        restored.start();
        restored.wait_until_paused();
        compare(&ledger(&restored), &target.expected, &said, &self.oracle);
        if thoroughly {
            restored.promote();
            compare(&ledger(&restored), &target.expected, &said, &self.oracle);
            restored.execute("insert into ledger (whole) values (1)");
            stop_proven(&restored);
        }
        let data = restored.data().to_owned();
        drop(restored);
        std::fs::remove_dir_all(data).unwrap();
    }

    fn restore(&self, scratch: &Scratch, arguments: &[String]) -> Cluster {
        let data = scratch.join("restored");
        let mut words = vec!["restore", "--target-dir", data.to_str().unwrap()];
        words.extend(arguments.iter().map(String::as_str));
        self.highwater.ok(&words);
        Cluster::open(self.cluster.postgres(), scratch, "restored", &data)
    }
}

/// Proves and stops a restored server. Transactions that were prepared at the target and not ended yet came back prepared, with
/// their locks, which would be waited for.
fn stop_proven(restored: &Cluster) {
    if restored.value("select pg_is_in_recovery()") == "t" {
        restored.promote();
    }
    for row in restored.rows("select gid from pg_prepared_xacts") {
        restored.execute(&format!("rollback prepared '{}'", row[0].as_ref().unwrap()));
    }
    restored.stop_proven();
}

fn compare(found: &BTreeSet<u32>, expected: &BTreeSet<u32>, target: &str, oracle: &Oracle) {
    let tell = |xids: Vec<&u32>| {
        let ends = xids.iter().filter_map(|xid| oracle.ends.iter().find(|end| end.line.xid == **xid));
        ends.map(|end| format!("  {:?}\n", end.line)).collect::<String>()
    };
    let (lost, foreign) = (expected.difference(found).collect(), found.difference(expected).collect());
    let (lost, foreign) = (tell(lost), tell(foreign));
    assert!(found == expected, "{target}\nlost:\n{lost}not meant to be there:\n{foreign}");
}

/// I24, on every major: time, LSN, transaction and restore point.
#[test]
fn a_restored_ledger_is_exactly_what_was_committed_up_to_the_target() {
    let mut seed = Seed::from_environment();
    eprintln!("seed {}", seed.number());
    let seed = std::cell::RefCell::new(&mut seed);
    for_each_major(|postgres| {
        let begun = std::time::Instant::now();
        let mut seed = seed.borrow_mut();
        let scratch = Scratch::new();
        let history = History::write(postgres, &scratch, &mut seed);
        let each = scale().pick(EACH_IN_CI, EACH_IN_SOAK);
        for round in 0..each {
            for (kind, draw) in [
                ("time", History::time as fn(&History, &mut Seed) -> Target),
                ("lsn", History::lsn),
                ("xid", History::xid),
                ("point", History::point),
            ] {
                let target = draw(&history, &mut seed);
                eprintln!("PostgreSQL {}, {kind} {round}: {}", postgres.major, target.arguments.join(" "));
                history.check(&scratch, &target, round == 0 && kind == "xid");
            }
        }
        history.everything(&scratch);
        history.refusals(&scratch);
        history.without_its_label(&scratch);
        history.cluster.stop();
        tell_campaign(&format!(
            "PostgreSQL {}: {} targets, {each} of each of four kinds, among {} commits, each restored exactly; {} s",
            postgres.major,
            4 * each,
            history.ledger.len(),
            begun.elapsed().as_secs()
        ));
    });
}

impl History {
    /// The latest is everything that was archived, and it promotes by itself. So is a moment behind the last commit, on which
    /// PostgreSQL alone would die ("recovery ended before configured recovery target was reached").
    fn everything(&self, scratch: &Scratch) {
        let restored = self.restore(scratch, &["--to".to_owned(), "latest".to_owned()]);
        restored.start();
        restored.wait_until_writable();
        compare(&ledger(&restored), &self.ledger, "--to latest", &self.oracle);
        stop_proven(&restored);
        std::fs::remove_dir_all(restored.data()).unwrap();

        let behind = self.oracle.ends.last().unwrap().micros + 1;
        self.check(scratch, &self.target(&["--to", &show_time(behind)], false, self.ledger.clone()), false);
    }

    /// Whoever deletes backup_label gets no server, and not a corrupt one.
    fn without_its_label(&self, scratch: &Scratch) {
        let restored =
            self.restore(scratch, &["--to-xid".to_owned(), self.ledger.last().unwrap().to_string()]);
        for name in ["backup_label", "recovery.signal"] {
            std::fs::remove_file(restored.data().join(name)).unwrap();
        }
        restored.tolerate("could not locate a valid checkpoint record");
        let reason = restored.try_start().unwrap_err();
        assert!(reason.contains("could not locate a valid checkpoint record"), "{reason}");
        std::fs::remove_dir_all(restored.data()).unwrap();
    }

    /// Targets outside of the window are refused before a byte is written, with the window.
    fn refusals(&self, scratch: &Scratch) {
        let unknown = self.oracle.ends.iter().map(|end| end.line.xid).max().unwrap() + 1_000_000;
        let (early, late) =
            (self.oracle.ends[0].micros - 3_600_000_000, micros_now(&self.cluster) + 60_000_000);
        let beyond = self.oracle.records.last().unwrap() + (64 << 20);
        for (arguments, words) in [
            (["--to", &show_time(early)], "before the end of the first backup"),
            (["--to", &show_time(late)], "past all that the archive is known to hold"),
            (["--to-lsn", &show_lsn(beyond)], "past all that the archive is known to hold"),
            (["--to-lsn", "0/100"], "before the end of the first backup"),
            (["--to-xid", &unknown.to_string()], "no commit or abort of transaction"),
            (["--to-restore-point", "nowhere"], "no restore point `nowhere`"),
        ] {
            let data: PathBuf = scratch.join("refused");
            let mut words_of_command = vec!["restore", "--target-dir", data.to_str().unwrap()];
            words_of_command.extend(arguments);
            let said = self.highwater.fails(&words_of_command, 3, &[words, "what can be reached is"]);
            assert!(said.contains("hint:"), "{said}");
            assert!(!data.exists(), "{arguments:?} wrote {}", data.display());
        }
    }
}
