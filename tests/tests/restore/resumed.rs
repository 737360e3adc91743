//! A restore that was cut off is gone on with by the same command: nothing that is whole is fetched again, nothing that is not is kept.

use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use highwater_restore::places::PLACE_MARKER;
use highwater_restore::rebuild::INCOMPLETE_MARKER;
use highwater_tests::s3::{Fault, Operation, Response, S3Server};
use highwater_tests::{
    Cluster, Highwater, Scratch, Seed, assert_same_files, files, newest, scale, tell_campaign,
};

use crate::ground::Ground;

/// A table of so many MiB, a power of two, that LZ4 makes nothing less of: it does not look back as far as they repeat.
pub fn fill(cluster: &Cluster, table: &str, mebibytes: u32) {
    cluster.execute(&format!(
        "create table {table} (b bytea); alter table {table} alter b set storage external; \
         insert into {table} select decode(string_agg(md5(g::text || i || random()), ''), 'hex') \
         from generate_series(1, 512) g, generate_series(1, 512) i group by g"
    ));
    for _ in 2..mebibytes.ilog2() {
        cluster.execute(&format!("insert into {table} select b from {table}"));
    }
}

/// The figure of this: of a restore that stopped after four fifths at most a quarter is fetched again, by few requests.
#[test]
fn four_fifths_of_a_restore_are_not_fetched_again() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).repository("s3", &server.spec("x"));
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    fill(&cluster, "big", 128);
    highwater.ok(&["backup", "--fast-checkpoint", "--jobs", "1"]);
    let keys = server.objects().keys().into_iter().filter(|key| key.contains("/packs/"));
    let sizes: Vec<u64> = keys.map(|key| server.objects().get(&key).unwrap().bytes.len() as u64).collect();
    let stored: u64 = sizes.iter().sum();
    let pass = (sizes.len() as u64 * 4).div_ceil(5);
    assert!(pass >= 4, "{sizes:?}");

    let target = scratch.join("target");
    let arguments = Ground::arguments(target.to_str().unwrap(), &["--to-consistent", "--jobs", "1"]);
    server.faults().add(Fault {
        key_contains: "/packs/".into(),
        pass_first: pass,
        ..Fault::always(Operation::Get, Response::Status(403, "AccessDenied"))
    });
    highwater.fails(&arguments, 1, &["is not complete", "the same command again"]);
    server.faults().clear();
    server.faults().forget_requests();
    let planned = highwater.run(&[arguments.as_slice(), &["--dry-run"]].concat()).success();
    assert!(planned.contains("goes on with the restore begun at"), "{planned}");
    server.faults().forget_requests();
    let said = highwater.json(&arguments);
    assert_eq!(said["reuse"]["kind"], "unfinished", "{said}");
    let (fetched, kept) = (said["fetched_bytes"].as_u64().unwrap(), said["kept_bytes"].as_u64().unwrap());
    assert!(fetched * 4 <= stored, "{fetched} of {stored} bytes were fetched again");
    assert!(kept * 4 >= said["bytes"].as_u64().unwrap() * 3, "{said}");
    let of_packs = |request: &&_| {
        let request: &highwater_tests::s3::Request = request;
        request.operation == Operation::Get && request.key.contains("/packs/")
    };
    let requests = server.faults().requests().iter().filter(of_packs).count();
    assert!(requests <= 2 * (sizes.len() - pass as usize) + 1, "{requests} requests");
    cluster.stop();
}

/// A restore that runs.
struct Running(Child);

impl Running {
    fn start(ground: &Ground, arguments: &[&str]) -> Running {
        let mut command = ground.highwater.command(arguments);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Kills it as soon as it has written so many bytes; whether it had not come to its end before, which must be a good one.
    fn kill_after(mut self, written: u64, target: &Path) -> bool {
        loop {
            if let Some(ended) = self.0.try_wait().unwrap() {
                assert!(ended.success(), "the restore ended with {ended}");
                return false;
            }
            if target.join(INCOMPLETE_MARKER).exists() && self.written() >= written {
                self.0.kill().unwrap();
                let ended = self.0.wait().unwrap();
                assert!(ended.success() || ended.code().is_none(), "the restore ended with {ended}");
                return ended.code().is_none();
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }

    /// What it has handed to the system to be written, in bytes; nothing any more when it has ended.
    fn written(&self) -> u64 {
        let io = std::fs::read_to_string(format!("/proc/{}/io", self.0.id())).unwrap_or_default();
        io.lines().find_map(|line| line.strip_prefix("wchar: ")).map_or(0, |bytes| bytes.parse().unwrap())
    }
}

/// Leaves what a loss of power may leave of a few files: a bit, a hole, a shorter file.
fn disturb(target: &Path, seed: &mut Seed) {
    let all: Vec<_> = files(target).into_iter().filter(|(path, _)| path.starts_with("base/")).collect();
    for _ in 0..20.min(all.len()) {
        let (_, path) = seed.pick(&all);
        let size = path.metadata().unwrap().len();
        if size == 0 {
            continue;
        }
        let file = std::fs::File::options().write(true).open(path).unwrap();
        let at = seed.within(0..size);
        match seed.within(0..3) {
            0 => file.write_all_at(&seed.bytes(1), at).unwrap(),
            1 => file.write_all_at(&vec![0; (size - at).min(100_000) as usize], at).unwrap(),
            _ => file.set_len(at).unwrap(),
        }
    }
}

/// Killed at any moments, with whatever that left of the files, a restore that is begun again comes to the same files as one
/// that never was, and PostgreSQL's own judges find nothing. Another command does not take what is there for its own.
#[test]
fn killed_at_any_moment_a_restore_comes_to_the_same_end() {
    let mut seed = Seed::from_environment();
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").checksums(true);
    let ground = Ground::start(&scratch, builder);
    let space = scratch.dir("space");
    ground.cluster.execute(&format!("create tablespace space location '{}'", space.display()));
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    fill(&ground.cluster, "big", 16);
    ground.cluster.execute(
        "create table spaced tablespace space as select g, md5(g::text) m from generate_series(1, 60000) g; \
         create index on spaced (m); create index on spaced (g) tablespace space",
    );
    ground.backup();
    let first =
        ground.highwater.json(&["list"])["repositories"][0]["lineages"][0]["backups"][0]["backup"].clone();
    let in_all = ground.highwater.json(&["backup", "--fast-checkpoint"])["backups"][0]["counts"]["bytes"]
        .as_u64()
        .unwrap();
    ground.cluster.stop();

    let (mut kills, wanted) = (0, scale().pick(3, 60));
    for attempt in 0..10 * wanted {
        let name = |what: &str| format!("{what}-{attempt}");
        let (target, wal) = (scratch.join(name("data")), scratch.join(name("wal")));
        let map = format!("space={}", scratch.join(name("space")).display());
        let more = ["--to-consistent", "--wal-dir", wal.to_str().unwrap(), "--tablespace-map", &map];
        let arguments = Ground::arguments(target.to_str().unwrap(), &more);
        let (mut was_killed, mut record) = (false, Vec::new());
        for _ in 0..3 {
            let written = seed.within(0..in_all);
            if !Running::start(&ground, &arguments).kill_after(written, &target) {
                break;
            }
            (was_killed, kills) = (true, kills + 1);
            disturb(&target, &mut seed);
        }
        if was_killed && target.join(INCOMPLETE_MARKER).exists() {
            others_are_refused(&ground, target.to_str().unwrap(), &more, first.as_str().unwrap());
            record = std::fs::read(target.join(INCOMPLETE_MARKER)).unwrap();
            let said = ground.highwater.json(&arguments);
            assert_eq!(said["reuse"]["kind"], "unfinished", "{said}");
        }
        if kills >= wanted && !record.is_empty() {
            let map = format!("space={}", scratch.join("whole-space").display());
            let more = ["--to-consistent", "--tablespace-map", &map];
            let whole = ground.restore(&scratch, "whole", &more);
            assert_same_files(whole.data(), &target, &[]);
            assert_eq!(
                files(&wal).keys().collect::<Vec<_>>(),
                [""; 0],
                "pg_wal holds nothing that is not of this restore"
            );
            let copy = Cluster::open(ground.postgres(), &scratch, "copy", &target);
            copy.start();
            copy.wait_until_paused();
            copy.stop_proven();
            // Cut off before its last step, and never gone on with.
            let id: serde_json::Value = serde_json::from_slice(&record).unwrap();
            std::fs::write(target.join(INCOMPLETE_MARKER), record).unwrap();
            for place in [&wal, &scratch.join(name("space"))] {
                std::fs::write(place.join(PLACE_MARKER), id["id"].as_str().unwrap()).unwrap();
            }
            let words = ["a server has run there since", "restore.incomplete", "--delta"];
            ground.highwater.fails(&arguments, 3, &words);
            tell_campaign(&format!(
                "{kills} restores killed, disturbed and gone on with, in {} directories",
                attempt + 1
            ));
            return;
        }
        for directory in [&target, &wal, &scratch.join(name("space"))] {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
    panic!("only {kills} restores could be killed");
}

/// What is half restored belongs to one restore; another target within the same backup is no other one.
fn others_are_refused(ground: &Ground, target: &str, more: &[&str], other_backup: &str) {
    let refused = |arguments: &[&str], words: &[&str]| {
        ground.highwater.fails(&Ground::arguments(target, arguments), 3, words);
    };
    let words = ["did not finish, and it is another one", "type the command that began it"];
    refused(&[more, &["--backup", other_backup]].concat(), &[words[0], words[1], "it is of backup"]);
    refused(&more[..3], &["tablespace", "is not empty"]);
    refused(&[&more[..1], &more[3..]].concat(), &[words[0], words[1], "pg_wal"]);
    let latest = Ground::arguments(target, &[&more[1..], &["--dry-run"]].concat());
    assert!(ground.highwater.ok(&latest).contains("goes on with the restore begun at"));
}
