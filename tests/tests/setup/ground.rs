//! What these tests stand on: a cluster that archives, and a look into its repository and its `pg_wal`.

use std::path::{Path, PathBuf};

use highwater_tests::{
    Cluster, ClusterBuilder, Finished, Highwater, Postgres, Scratch, files, give_to_server_user,
};

/// A running cluster that archives into the local repository `primary`.
pub fn archiving(postgres: &'static Postgres, scratch: &Scratch) -> (Cluster, Highwater) {
    archiving_as(Cluster::builder(postgres, scratch, "main"), scratch)
}

/// The same for a cluster described by the test.
pub fn archiving_as(builder: ClusterBuilder<'_>, scratch: &Scratch) -> (Cluster, Highwater) {
    let cluster = builder.create();
    let highwater = Highwater::new(scratch, "main", &cluster).local_repository("primary");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    (cluster, highwater)
}

/// `archive-push` of a file in the data directory's `pg_wal`, called as PostgreSQL does.
pub fn push(highwater: &Highwater, data: &Path, file: &str) -> Finished {
    Finished::of(highwater.command(&["archive-push", &format!("pg_wal/{file}")]).current_dir(data))
}

/// A push that must succeed, and say nothing.
#[track_caller]
pub fn pushed(highwater: &Highwater, data: &Path, file: &str) {
    let finished = push(highwater, data, file);
    assert_eq!(finished.stderr, "", "{finished}");
    assert_eq!(finished.success(), "");
}

/// A push that must fail as PostgreSQL can bear it, in one line with these words; gives the line.
#[track_caller]
pub fn refused(highwater: &Highwater, data: &Path, file: &str, words: &[&str]) -> String {
    let finished = push(highwater, data, file);
    let code = finished.code.unwrap_or_else(|| panic!("a signal ended it: {finished}"));
    assert!((1..=125).contains(&code), "{finished}");
    assert_eq!(finished.stderr.lines().count(), 1, "{finished}");
    for word in words {
        assert!(finished.stderr.contains(word), "it does not say {word:?}: {finished}");
    }
    finished.stderr
}

/// Writes some WAL and ends the segment; gives its name once PostgreSQL has it archived.
pub fn archive_one(cluster: &Cluster) -> String {
    cluster.execute(
        "create table if not exists written (x text); insert into written values (repeat('w', 100))",
    );
    let segment = cluster.switch_wal();
    cluster.wait_until_archived(&segment);
    segment
}

/// The paths of all objects of the repository `name`, below it, sorted.
pub fn objects(scratch: &Scratch, name: &str) -> Vec<String> {
    files(&scratch.join(name)).into_keys().collect()
}

/// Whether an object with this last component is in the repository.
pub fn holds(scratch: &Scratch, name: &str, last: &str) -> bool {
    objects(scratch, name).iter().any(|path| path.rsplit('/').next() == Some(last))
}

/// A copy of a directory with the owner and modes it has.
pub fn copy(from: &Path, to: &Path) {
    let status = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
    assert!(status.success());
}

/// Writes a file into `pg_wal` as the server would.
pub fn put_wal(data: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = data.join("pg_wal").join(name);
    std::fs::write(&path, bytes).unwrap();
    give_to_server_user(&path);
    path
}

/// The lineage that a data directory writes.
pub fn host_state(data: &Path) -> serde_json::Value {
    let text = std::fs::read_to_string(data.join("highwater/lineage.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
