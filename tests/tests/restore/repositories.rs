//! Two repositories, each of which lacks something that the other has.

use highwater_tests::{Cluster, Highwater, Scratch, files, newest};

use crate::ground::{Ground, rows};

/// I14: no commit that any repository holds is left out because another one, asked first, does not hold it.
#[test]
fn the_latest_moment_is_that_of_all_repositories() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1).create();
    let highwater =
        Highwater::new(&scratch, "main", &cluster).local_repository("repo").local_repository("second");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    let ground = Ground { cluster, highwater, repository: scratch.join("repo") };
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    ground.backup();
    ground.insert(2);
    let lacking_in_second = ground.archive();
    ground.insert(3);
    let lacking_in_first = ground.archive();
    std::fs::remove_file(ground.object(&lacking_in_first)).unwrap();
    let second = scratch.join("second");
    for path in files(&second).values().filter(|path| path.ends_with(&lacking_in_second)) {
        std::fs::remove_file(path).unwrap();
    }
    let dry = scratch.join("dry");
    let arguments = Ground::arguments(dry.to_str().unwrap(), &["--dry-run"]);
    let plan = ground.highwater.json(&arguments);
    assert_eq!(plan["wal"]["last"], lacking_in_first, "{plan}");
    assert_eq!(plan["notes"].as_array().unwrap().len(), 0, "{plan}");

    let restored = ground.restore(&scratch, "copy", &["--repository", "repo"]);
    restored.start();
    restored.wait_until_writable();
    assert_eq!(rows(&restored), "1,2,3");
    restored.stop_proven();

    // With one of them away the plan ends where the other's WAL ends, and says so.
    std::fs::rename(&second, scratch.join("away")).unwrap();
    let plan = ground.highwater.json(&arguments);
    assert_eq!(plan["wal"]["last"], lacking_in_second, "{plan}");
    let notes = plan["notes"].to_string();
    assert!(notes.contains("second") && notes.contains("not in this plan"), "{notes}");
}
