//! Writes the repository that the museum of damage stands on:
//! `cargo run -p highwater-tests --example write_damaged -- tests/fixtures/damaged/whole`.
//!
//! A real server, a real binary: two backups, a rotation of the keyring between them, and a promotion. The two template databases
//! are dropped first, so that a backup is small enough to be committed. The cases beside it name objects of this repository, so it
//! is written once; a new one means new cases.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_archive::clock::{Clock, SystemClock};
use highwater_archive::durable;
use highwater_archive::keyring::{KeyClass, Unlock};
use highwater_archive::repository::Repository;
use highwater_archive::store::local::LocalStore;
use highwater_tests::{Cluster, Highwater, Scratch, files, newest};

fn main() {
    let target = PathBuf::from(std::env::args().nth(1).expect("the directory of the repository"));
    assert!(!target.exists(), "{} exists: the cases name what is in it", target.display());
    let scratch = Scratch::new();
    let server = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1).create();
    let highwater =
        Highwater::new(&scratch, "main", &server).local_repository("primary").lines("compression = \"zstd\"");
    highwater.ok(&["init"]);
    server.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    server.start();
    for name in ["template0", "template1"] {
        server.execute(&format!("alter database {name} is_template false"));
        server.execute(&format!("drop database {name}"));
    }
    server.execute("create table t (n int); insert into t values (1)");
    highwater.ok(&["backup", "--fast-checkpoint"]);
    server.execute("insert into t values (2)");
    archive(&server);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(rotate(&scratch));
    server.execute("insert into t values (3)");
    archive(&server);
    highwater.ok(&["backup", "--fast-checkpoint"]);
    server.execute("insert into t values (4)");
    archive(&server);
    server.stop();
    scratch.file("main/standby.signal", "");
    server.configure(&[("restore_command", "false")]);
    server.start();
    server.promote();
    server.wait_until_writable();
    server.execute("insert into t values (5)");
    archive(&server);
    server.stop();

    for (path, file) in files(&scratch.join("primary")) {
        copy(&file, &target.join(path));
    }
    let beside = target.with_file_name("host");
    copy(&scratch.join("primary.key"), &beside.join("main.key"));
    state(&server.data().join("highwater/lineage.json"), &beside.join("lineage.json"));
    copy(&server.data().join("global/pg_control"), &beside.join("pg_control"));
    copy(&server.data().join("PG_VERSION"), &beside.join("PG_VERSION"));
}

fn archive(server: &Cluster) {
    let last = server.switch_wal();
    server.wait_until_archived(&last);
}

/// New keys for content and metadata, in a second generation of the keyring.
async fn rotate(scratch: &Scratch) {
    let store = Arc::new(LocalStore::new(scratch.join("primary")));
    let repository = Repository::open(store).await.expect("the repository");
    let unlock = Unlock::from_file(&scratch.join("primary.key")).expect("the key");
    let name = "main".parse().expect("a name");
    let cluster = repository.cluster(&name).await.expect("the cluster").unlock(&unlock).await;
    let cluster = cluster.expect("the keyring opens");
    let recipients = unlock.recipients().expect("recipients");
    let new = [KeyClass::Content, KeyClass::Metadata];
    let next = cluster.keys().next_generation(&new, &recipients, SystemClock.now()).expect("new keys");
    cluster.append_generation(next, &recipients).await.expect("a second generation");
    for (_, file) in files(&scratch.join("primary")) {
        highwater_tests::give_to_server_user(&file);
    }
}

/// The state of the host, for whatever directory a test puts it in.
fn state(from: &Path, to: &Path) {
    let text = std::fs::read(from).expect("the state");
    let mut state: serde_json::Value = serde_json::from_slice(&text).expect("JSON");
    state["home"] = serde_json::Value::Null;
    let text = serde_json::to_string_pretty(&state).expect("JSON") + "\n";
    durable::replace(to, &[text]).expect("a copy");
}

fn copy(from: &Path, to: &Path) {
    durable::create_dir_all_durable(to.parent().expect("a parent")).expect("a directory");
    let bytes = std::fs::read(from).expect("a file");
    durable::replace(to, &[bytes]).expect("a copy");
}
