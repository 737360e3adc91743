//! The exit codes of `archive-get`, on which recovery hangs (I14).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use highwater_restore::plan_file::PLAN_FILE;
use highwater_tests::s3::{Fault, Operation, Response, S3Server};
use highwater_tests::{Cluster, Finished, Highwater, Scratch, newest};

use crate::ground::Ground;

/// A restored directory that is not started, and the files of its plan.
struct Restored {
    data: PathBuf,
    first: String,
    last: String,
    past: String,
}

impl Restored {
    fn of(ground: &Ground, scratch: &Scratch) -> Restored {
        let target = scratch.join("copy");
        ground.insert(2);
        ground.archive();
        ground.insert(3);
        ground.archive();
        let done = ground.highwater.json(&Ground::arguments(target.to_str().unwrap(), &[]));
        let text = |name: &str| done["wal"][name].as_str().unwrap().to_owned();
        let (first, last) = (text("first"), text("last"));
        let number = u64::from_str_radix(&last[16..], 16).unwrap() + 1;
        let past = format!("{}{number:08X}", &last[..16]);
        Restored { data: target, first, last, past }
    }

    fn command(&self, ground: &Ground, file: &str, seconds: &str) -> Command {
        let plan = self.data.join(PLAN_FILE);
        let arguments = [
            "archive-get",
            "--plan",
            plan.to_str().unwrap(),
            "--deadline",
            seconds,
            file,
            "pg_wal/RECOVERYXLOG",
        ];
        let mut command = ground.highwater.bare(&arguments);
        command.current_dir(&self.data);
        command
    }

    fn get(&self, ground: &Ground, file: &str) -> Finished {
        Finished::of(&mut self.command(ground, file, "2"))
    }

    /// For what is there, however slow the machine.
    fn delivers(&self, ground: &Ground, file: &str) {
        ends_with(&Finished::of(&mut self.command(ground, file, "60")), 0);
    }

    fn delivered(&self) -> PathBuf {
        self.data.join("pg_wal/RECOVERYXLOG")
    }
}

#[track_caller]
fn ends_with(finished: &Finished, code: i32) {
    assert_eq!(finished.code, Some(code), "{finished}");
    assert_eq!(finished.stdout, "", "{finished}");
    assert_eq!(finished.stderr.lines().count(), usize::from(code != 0), "{finished}");
}

/// 0 with the whole file in place of what was there; 1 only for what is not on the way; above 125 for all else.
#[test]
fn exit_codes_within_and_beyond_the_plan() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let ground = Ground::with_backup(&scratch, builder);
    let restored = Restored::of(&ground, &scratch);

    scratch.file("copy/pg_wal/RECOVERYXLOG", "what an earlier call left");
    restored.delivers(&ground, &restored.first);
    let delivered = std::fs::read(restored.delivered()).unwrap();
    assert_eq!(delivered.len(), 1 << 20);
    let original = ground.cluster.data().join("pg_wal").join(&restored.first);
    assert!(!original.exists() || std::fs::read(original).unwrap() == delivered);
    let names: Vec<String> = std::fs::read_dir(restored.data.join("pg_wal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "archive_status" && name != "summaries")
        .collect();
    assert_eq!(names, ["RECOVERYXLOG"]);

    for outside in [&restored.past, "00000002.history", "00000001.history", "000000020000000000000009"] {
        ends_with(&restored.get(&ground, outside), 1);
    }
    let backup = ground.objects(".backup").pop().unwrap();
    restored.delivers(&ground, backup.file_name().unwrap().to_str().unwrap());
    ends_with(&restored.get(&ground, &format!("{}.partial", restored.last)), 1);
    for wrong in ["rubbish", "../../etc/passwd"] {
        let finished = restored.get(&ground, wrong);
        assert!(finished.code.unwrap() > 125, "{finished}");
    }

    // Within the plan a missing segment is an error, though the repository proves that it is missing.
    let object = ground.object(&restored.last);
    let whole = std::fs::read(&object).unwrap();
    std::fs::remove_file(&object).unwrap();
    let missing = restored.get(&ground, &restored.last);
    assert!(missing.code.unwrap() > 125 && missing.stderr.contains(&restored.last), "{missing}");

    // Damage is an error at once, whatever stands behind the name.
    for cut in [whole.len() / 2, whole.len() - 1] {
        scratch.file("object", &whole[..cut]);
        std::fs::rename(scratch.join("object"), &object).unwrap();
        let damaged = restored.get(&ground, &restored.last);
        assert!(damaged.code.unwrap() > 125, "{damaged}");
    }
    // Another segment under this name is not taken for it.
    std::fs::copy(ground.object(&restored.first), &object).unwrap();
    let other = restored.get(&ground, &restored.last);
    assert!(other.code.unwrap() > 125, "{other}");
}

/// An outage is never the end of WAL, except that a standby, which asks again by itself, is told "not now".
#[test]
fn an_outage_is_not_the_end_of_wal() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let ground = Ground::with_backup(&scratch, builder);
    let restored = Restored::of(&ground, &scratch);
    let away = scratch.join("away");
    std::fs::rename(&ground.repository, &away).unwrap();
    let outage = restored.get(&ground, &restored.first);
    assert!(outage.code.unwrap() > 125, "{outage}");
    // The same with an empty directory in its place: a mount that is not there.
    scratch.dir("repo");
    let empty = restored.get(&ground, &restored.first);
    assert!(empty.code.unwrap() > 125, "{empty}");
    scratch.file("copy/standby.signal", "");
    ends_with(&restored.get(&ground, &restored.first), 1);
    std::fs::remove_dir(&ground.repository).unwrap();
    ends_with(&restored.get(&ground, &restored.first), 1);
    std::fs::rename(&away, &ground.repository).unwrap();
    restored.delivers(&ground, &restored.first);
    assert!(restored.delivered().exists());
}

/// With two repositories, one that fails is not outvoted by one that says "no such file"; one that has it is enough.
#[test]
fn absence_needs_both_repositories() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let cluster = builder.create();
    let highwater = highwater_tests::Highwater::new(&scratch, "main", &cluster)
        .local_repository("repo")
        .local_repository("second");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    let ground = Ground { cluster, highwater, repository: scratch.join("repo") };
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    ground.backup();
    let restored = Restored::of(&ground, &scratch);

    std::fs::remove_file(ground.object(&restored.last)).unwrap();
    restored.delivers(&ground, &restored.last);
    let away = scratch.join("away");
    let second = scratch.join("second");
    std::fs::rename(&second, &away).unwrap();
    let one_fails = restored.get(&ground, &restored.last);
    assert!(one_fails.code.unwrap() > 125, "{one_fails}");
    let partial = format!("{}.partial", restored.last);
    let one_fails = restored.get(&ground, &partial);
    assert!(one_fails.code.unwrap() > 125, "{one_fails}");
    std::fs::rename(&away, &second).unwrap();
    ends_with(&restored.get(&ground, &partial), 1);
    from_configuration(&ground, &restored);
}

/// Without a plan the configuration says where WAL is, and absence is what every repository says.
fn from_configuration(ground: &Ground, restored: &Restored) {
    let get = |file: &str| {
        let destination = restored.data.join("pg_wal/RECOVERYXLOG");
        let arguments = ["archive-get", "--deadline", "2", file, destination.to_str().unwrap()];
        let mut command = ground.highwater.command(&arguments);
        command.current_dir(&restored.data);
        Finished::of(&mut command)
    };
    ends_with(&get(&restored.first), 0);
    ends_with(&get(&restored.past), 1);
    ends_with(&get("00000002.history"), 1);
    assert!(Path::new(&restored.data).exists());
}

/// A repository that hangs stops no recovery while another has the file, and is bounded where none has; `list` shows what the others
/// hold and names the one that is away.
#[test]
fn a_repository_that_is_away_or_hangs_is_one_of_several() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let cluster = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1).create();
    let highwater = Highwater::new(&scratch, "main", &cluster).repository("s3", &server.spec("x"));
    let highwater = highwater.local_repository("second");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    let ground = Ground { cluster, highwater, repository: scratch.join("second") };
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    ground.backup();
    let restored = Restored::of(&ground, &scratch);

    let whole = ground.highwater.json(&["list"]);
    assert_eq!(whole["repositories"].as_array().unwrap().len(), 2);
    assert_eq!(whole["failed"].as_array().unwrap().len(), 0);
    for operation in [Operation::Get, Operation::List, Operation::Head] {
        server.faults().add(Fault::always(operation, Response::Status(403, "AccessDenied")));
    }
    let said = ground.highwater.fails(&["list"], 1, &["error: cannot list all of repository s3: ", "hint: "]);
    assert!(!said.contains("second"), "{said}");
    let finished = ground.highwater.run(&["list", "--json"]);
    assert_eq!(finished.code, Some(1), "{finished}");
    let shown: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
    assert_eq!(shown["failed"][0]["repository"], "s3", "{shown}");
    assert_eq!(shown["repositories"].as_array().unwrap().len(), 1);
    assert_eq!(shown["repositories"][0], whole["repositories"][1]);
    server.faults().clear();

    server.faults().set_latency(Duration::from_secs(3600));
    let begun = Instant::now();
    restored.delivers(&ground, &restored.last);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    let partial = format!("{}.partial", restored.last);
    let begun = Instant::now();
    let unproven = restored.get(&ground, &partial);
    assert!(unproven.code.unwrap() > 125 && unproven.stderr.contains("s3: no answer within"), "{unproven}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    // With --json the same is an object.
    let mut command = restored.command(&ground, &partial, "2");
    let unproven = Finished::of(command.arg("--json"));
    let object: serde_json::Value = serde_json::from_str(&unproven.stdout).unwrap();
    assert!(object["error"].as_str().unwrap().contains("no answer within"), "{unproven}");
    assert!(unproven.code.unwrap() > 125 && unproven.stderr.is_empty(), "{unproven}");
    server.faults().set_latency(Duration::ZERO);
    ends_with(&restored.get(&ground, &partial), 1);
    let absent = Finished::of(restored.command(&ground, &partial, "60").arg("--json"));
    let object: serde_json::Value = serde_json::from_str(&absent.stdout).unwrap();
    assert!(object["error"].as_str().unwrap().contains("no such file") && object["hint"].is_null());
    assert!(absent.code == Some(1) && absent.stderr.is_empty(), "{absent}");
    let delivered = Finished::of(restored.command(&ground, &restored.last, "60").arg("--json")).success();
    let object: serde_json::Value = serde_json::from_str(&delivered).unwrap();
    assert_eq!(object["file"], restored.last);
}
