//! `min_reader` and `min_writer`: an older program reads what it can, and refuses to write, naming the version it needs.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use highwater_archive::clock::{Clock, SystemClock};
use highwater_archive::keyring::Unlock;
use highwater_archive::manifest::{BackupId, Intent, write_intent};
use highwater_archive::names::WriterId;
use highwater_archive::repository::{Cluster, READER, Repository, RepositoryError, WRITER};
use highwater_archive::store::local::LocalStore;
use highwater_archive::wal::{claim_timeline, put_small};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::WalFile;
use highwater_pitr::timeline::TimelineId;
use highwater_tests::golden::describe;
use highwater_tests::python::decrypt_py;
use serde_json::{Value, json};

use crate::{assert_same, copy_of, expected, fixture, keys};

/// Changes keys of `highwater.json`, as a later version would have written it.
fn rewrite(repository: &Path, changes: &[(&str, Value)]) {
    let path = repository.join("highwater.json");
    let mut info: Value = serde_json::from_slice(&fs::read(&path).expect("highwater.json")).expect("JSON");
    for (key, value) in changes {
        info[*key] = value.clone();
    }
    highwater_archive::durable::replace(&path, &[info.to_string()]).expect("a new highwater.json");
}

async fn open(repository: &Path) -> Result<Repository, RepositoryError> {
    Repository::open(Arc::new(LocalStore::new(repository))).await
}

async fn cluster(repository: &Repository) -> Cluster {
    let unlock = Unlock::from_text(&keys()["main"]).expect("a key");
    let locked = repository.cluster(&"main".parse().expect("a name")).await.expect("a cluster");
    locked.unlock(&unlock).await.expect("the keyring opens")
}

/// What a later version adds, an older one passes over: unknown keys, reserved names, names of no known form.
#[tokio::test]
async fn what_is_unknown_is_passed_over() {
    let copy = copy_of("plain");
    rewrite(
        copy.path(),
        &[("version", json!(2)), ("min_writer", json!(WRITER + 1)), ("immutable_days", json!({ "a": 1 }))],
    );
    let lineage = expected("plain")["clusters"]["main"]["lineages"][0]["lineage"]["lineage"].clone();
    let below = copy.path().join("clusters/main").join(lineage.as_str().expect("an id"));
    for path in [
        "wal/tail/00000001/00000001000000000000000A/0-8192",
        "wal/00000001/00000000/00000001000000000000000A.sum",
        "wal/00000001/blocks",
        "drills/20300101T000000Z",
        "leases/backup.1",
        "summary",
    ] {
        fs::create_dir_all(below.join(path).parent().expect("a parent")).expect("a directory");
        highwater_archive::durable::replace(&below.join(path), &[b"of the future"]).expect("an object");
    }
    let mut as_before = expected("plain");
    for (key, value) in [("version", json!(2)), ("min_writer", json!(WRITER + 1))] {
        as_before["repository"][key] = value;
    }
    assert_same(&describe(copy.path(), &keys()).await, &as_before, "plain");
}

/// A repository for later writers is read, and every way to write to it is refused with the version that is needed.
#[tokio::test]
async fn a_later_writer_is_needed_to_write() {
    let copy = copy_of("plain");
    rewrite(copy.path(), &[("min_writer", json!(WRITER + 6))]);
    let repository = open(copy.path()).await.expect("it may be read");
    let cluster = cluster(&repository).await;
    let lineage = cluster.lineages().await.expect("lineages").remove(0);
    let mut before = Vec::new();
    crate::list(copy.path(), &mut before);

    let refused = |what: &str, error: &dyn std::fmt::Display| {
        let text = error.to_string();
        assert!(text.contains(&format!("needs writer version {}", WRITER + 6)), "{what}: {text}");
    };
    let error = repository.require_writer().expect_err("refused");
    assert!(error.hint().is_some_and(|hint| hint.contains("newer version")));
    refused("the repository", &error);
    let timeline = TimelineId::new(7).expect("a timeline");
    let writer = WriterId::random().expect("an id");
    let claim = claim_timeline(&lineage, writer, timeline, None, Lsn::new(0)).await;
    refused("a claim", &claim.expect_err("refused"));
    let small = put_small(&lineage, WalFile::History(timeline), b"1\t0/5000000\tno reason\n").await;
    refused("a history file", &small.expect_err("refused"));
    let backup = BackupId::new(SystemClock.now(), [1; 4]);
    let intent = Intent {
        backup,
        base: None,
        started_at: SystemClock.now(),
        host: "h".into(),
        writer: writer.to_string(),
    };
    refused("an intent", &write_intent(&lineage, &intent).await.expect_err("refused"));
    let record = lineage.record().clone();
    refused("a lineage", &cluster.create_lineage(record).await.expect_err("refused"));
    let unlock = Unlock::from_text(&keys()["main"]).expect("a key");
    let recipients = unlock.recipients().expect("recipients");
    let name = "third".parse().expect("a name");
    let made = repository.create_cluster(&name, &unlock, &recipients, SystemClock.now()).await;
    refused("a cluster", &made.map(|_| ()).expect_err("refused"));
    let next = cluster.keys().next_generation(&[], &recipients, SystemClock.now()).expect("a generation");
    refused(
        "a generation",
        &cluster.append_generation(next, &recipients).await.map(|_| ()).expect_err("refused"),
    );

    let mut after = Vec::new();
    crate::list(copy.path(), &mut after);
    before.sort();
    after.sort();
    assert_eq!(before, after, "nothing was written");
}

/// A repository for later readers is not read at all, by us or by `decrypt.py`, and the version that is needed is named.
#[tokio::test]
async fn a_later_reader_is_needed_to_read() {
    let copy = copy_of("plain");
    rewrite(copy.path(), &[("min_reader", json!(READER + 1)), ("min_writer", json!(WRITER + 1))]);
    let error = open(copy.path()).await.expect_err("refused");
    assert!(error.to_string().contains(&format!("needs reader version {}", READER + 1)), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("newer version")));
    let (repository, key) = (copy.path().to_string_lossy(), fixture("keys/main.key"));
    let said = decrypt_py(["list", &repository, "--cluster", "main", "--key", &key.to_string_lossy()]);
    said.failure(126, &["newer reader"]);
}
