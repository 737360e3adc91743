//! A full disk on every side: an error that says so, nothing half-written, and all goes on by itself once there is space. Also where
//! a filesystem has become read-only, has no inodes left, or does not let us in.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use highwater_tests::{Cluster, Finished, Highwater, Scratch, SmallFilesystem, left_out, newest};

use crate::ground::{archive_one, archiving_as, holds, host_state, objects, push, pushed, put_wal};

/// A push that must fail in PostgreSQL's range for a failed command, with these words, and leave nothing.
#[track_caller]
fn fails_to_push(highwater: &Highwater, cluster: &Cluster, scratch: &Scratch, segment: &str, words: &[&str]) {
    let finished = push(highwater, cluster.data(), segment);
    assert!(matches!(finished.code, Some(1..=125)), "{finished}");
    for word in words.iter().chain(&["is not archived", "hint: "]) {
        assert!(finished.stderr.contains(word), "{word} is not in: {finished}");
    }
    assert!(!holds(scratch, "primary", segment));
}

/// I2, I20: the repository is full while PostgreSQL archives, while a backup runs and at `init`; it is read-only, and it is closed to
/// us. Nothing appears under its final name, and once there is space PostgreSQL goes on by itself.
#[test]
fn a_full_repository_loses_nothing_and_goes_on() {
    let scratch = Scratch::new();
    let Some(small) = SmallFilesystem::mount(&scratch.dir("primary"), "size=40m") else {
        return left_out("cannot mount a small filesystem");
    };
    let (cluster, highwater) =
        archiving_as(Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1), &scratch);
    for expected in ["archive command failed", "failed too many times", "is not archived"] {
        cluster.tolerate(expected);
    }
    archive_one(&cluster);

    small.fill_but(0);
    let before = objects(&scratch, "primary");
    cluster.execute("create table t as select generate_series(1, 1000) as x");
    let segment = cluster.switch_wal();
    cluster.wait("a failed archive command", || {
        cluster.value("select failed_count > 0 from pg_stat_archiver") == "t"
    });
    fails_to_push(&highwater, &cluster, &scratch, &segment, &["space"]);
    // A new cluster finds no place in it either, and its host remembers nothing.
    let other = Cluster::builder(newest(), &scratch, "other").create();
    let (url, key) = (scratch.join("primary/other"), scratch.join("other.key"));
    let others = Highwater::new(&scratch, "other", &other).lines(&format!(
        "\n[repository.other]\nurl = \"file://{}\"\nkey_file = \"{}\"",
        url.display(),
        key.display()
    ));
    others.fails(&["init"], 1, &["space", "hint: "]);
    assert!(!other.data().join("highwater/lineage.json").exists());

    small.free();
    // An archiver that has failed three times sleeps for a minute; the next segment wakes it.
    cluster.switch_wal();
    cluster.wait_until_archived(&segment);
    pushed(&highwater, cluster.data(), &segment);
    others.ok(&["init"]);
    cluster.wait("the end of what is being archived", || small.leftovers().is_empty());
    assert!(objects(&scratch, "primary").len() > before.len());

    // Room for WAL, and none for what a backup brings. The server says that it has left backup mode.
    small.fill_but(3 << 20);
    cluster.tolerate("aborting backup due to backend exiting");
    highwater.fails(&["backup", "--fast-checkpoint"], 1, &["space", "hint: "]);
    let manifests =
        |ending: &str| objects(&scratch, "primary").iter().filter(|path| path.ends_with(ending)).count();
    assert_eq!((manifests("/manifest"), manifests("/intent")), (0, 1));
    assert!(highwater.ok(&["list"]).contains("is under way, or was cut short"));
    small.free();
    highwater.ok(&["backup", "--fast-checkpoint"]);
    assert_eq!((manifests("/manifest"), manifests("/intent")), (1, 2));
    assert_eq!(small.leftovers(), [""; 0]);

    let segment = archive_one(&cluster);
    let bytes = std::fs::read(cluster.data().join("pg_wal").join(&segment)).unwrap();
    cluster.stop();
    put_wal(cluster.data(), &segment, &bytes);
    let object = objects(&scratch, "primary").into_iter().find(|path| path.ends_with(&segment)).unwrap();
    std::fs::remove_file(scratch.join("primary").join(&object)).unwrap();
    small.remount("ro");
    fails_to_push(&highwater, &cluster, &scratch, &segment, &["mounted read-only", "Read-only file system"]);
    small.remount("rw");
    std::fs::set_permissions(scratch.join("primary"), Permissions::from_mode(0o000)).unwrap();
    fails_to_push(&highwater, &cluster, &scratch, &segment, &["ermission denied"]);
    std::fs::set_permissions(scratch.join("primary"), Permissions::from_mode(0o700)).unwrap();
    pushed(&highwater, cluster.data(), &segment);
    assert!(holds(&scratch, "primary", &segment));
}

/// I14, I1: the data directory is full when recovery wants WAL, and has no inode left when `init` wants to remember.
#[test]
fn a_full_data_directory_is_no_missing_wal() {
    let scratch = Scratch::new();
    let Some(small) = SmallFilesystem::mount(&scratch.dir("small"), "size=1m") else {
        return left_out("cannot mount a small filesystem");
    };
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let cluster = builder.create();
    let state = cluster.data().join("highwater");
    std::fs::create_dir(&state).unwrap();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    let none_left =
        SmallFilesystem::mount(&state, "size=1m,nr_inodes=1").expect("the first could be mounted");
    highwater.fails(&["init"], 1, &["lineage.json", "space"]);
    drop(none_left);
    std::fs::remove_dir(&state).unwrap();
    highwater.ok(&["init"]);
    assert_eq!(host_state(cluster.data())["cluster"], "main");
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    let segment = archive_one(&cluster);
    cluster.stop();

    let get = || {
        let mut command = highwater.command(&["archive-get", &segment, "RECOVERYXLOG"]);
        Finished::of(command.current_dir(small.path()))
    };
    small.fill_but(256 << 10);
    let finished = get();
    assert!(finished.code > Some(125) && finished.stderr.contains("space"), "{finished}");
    assert!(!small.path().join("RECOVERYXLOG").exists());
    assert_eq!(small.leftovers(), [""; 0]);
    small.remount("size=8m");
    get().success();
    assert_eq!(std::fs::metadata(small.path().join("RECOVERYXLOG")).unwrap().len(), 1 << 20);
}
