//! A disk that fills up while a restore writes, or while recovery replays: the error names file and filesystem, and once there is space
//! the same command goes on.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use highwater_restore::rebuild::INCOMPLETE_MARKER;
use highwater_tests::s3::{Operation, S3Server};
use highwater_tests::{Cluster, Finished, Highwater, Scratch, SmallFilesystem, files, left_out, newest};

use crate::ground::{Ground, rows};

/// Inodes enough for anything here.
const ENOUGH: &str = "nr_inodes=100000";

/// A restore that runs into a full disk: nothing starts there, and the words say which file, which filesystem and what to type.
#[track_caller]
fn is_full(finished: &Finished, target: &Path, words: &[&str]) {
    assert_eq!(finished.code, Some(1), "{finished}");
    for word in words.iter().chain(&["No space left on device", "hint: ", "the filesystem mounted on"]) {
        assert!(finished.stderr.contains(word), "{word} is not in: {finished}");
    }
    assert!(!target.join("global/pg_control").exists());
}

/// The restore of these arguments, in which a filesystem fills up when everything is planned and nothing is fetched yet.
fn filled_meanwhile(
    highwater: &Highwater,
    server: &S3Server,
    arguments: &[&str],
    full: &SmallFilesystem,
) -> Finished {
    server.faults().forget_requests();
    server.faults().hold(Operation::Get, "/packs/");
    let mut command = highwater.command(arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let asks = || {
        let requests = server.faults().requests();
        requests.iter().any(|asked| asked.operation == Operation::Get && asked.key.contains("/packs/"))
    };
    let deadline = Instant::now() + Duration::from_secs(120);
    while !asks() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    full.fill_but(0);
    server.faults().let_go();
    Finished::from_output(format!("{arguments:?}"), child.wait_with_output().unwrap())
}

/// What preflight found free is gone when it is written: in the data directory's filesystem, a tablespace's, that of `pg_wal`. Each time it is
/// said which, nothing starts, and the same command comes to the end. Then `pg_wal` is full in recovery: that is no end of the WAL either.
#[test]
fn a_disk_that_fills_up_is_named_and_the_same_command_goes_on() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let mount = |name: &str, options: &str| SmallFilesystem::mount(&scratch.dir(name), options);
    let (Some(data), Some(space), Some(wal)) =
        (mount("d", "size=128m,nr_inodes=9"), mount("s", "size=48m"), mount("w", "size=24m,nr_inodes=9"))
    else {
        return left_out("cannot mount a small filesystem");
    };
    let cluster = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1).create();
    let highwater = Highwater::new(&scratch, "main", &cluster).repository("s3", &server.spec("x"));
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    let place = scratch.dir("space");
    cluster.execute(&format!("create tablespace space location '{}'", place.display()));
    cluster.execute("create table t (n int); insert into t values (1)");
    cluster.execute("create table spaced tablespace space as select i from generate_series(1, 100000) i");
    highwater.ok(&["backup", "--fast-checkpoint"]);
    cluster.execute("insert into t values (2)");
    let segment = cluster.switch_wal();
    cluster.wait_until_archived(&segment);
    cluster.stop();

    let target = data.path().join("data");
    let (wal_dir, map) = (wal.path().join("wal"), format!("space={}", space.path().join("spaced").display()));
    let arguments = Ground::arguments(
        target.to_str().unwrap(),
        &["--tablespace-map", &map, "--wal-dir", wal_dir.to_str().unwrap(), "--action", "promote"],
    );
    let mounted = |full: &SmallFilesystem| format!("mounted on {}", full.path().display());
    // Known before a byte is written, of each filesystem by itself.
    for (small, place, more) in [(&data, &target, 0), (&data, &target, 8), (&wal, &wal_dir, 0)] {
        small.leave_inodes(more);
        let words = [place.to_str().unwrap(), &format!("{more} more files can be made"), "hint: "];
        highwater.fails(&arguments, 3, &words);
        assert!(!target.exists());
        small.remount(ENOUGH);
    }

    let finished = filled_meanwhile(&highwater, &server, &arguments, &data);
    let again = "the same command again";
    is_full(&finished, &target, &[target.to_str().unwrap(), &mounted(&data), "bytes left", again]);
    assert!(target.join(INCOMPLETE_MARKER).exists());
    data.free();
    // What a restore that goes on has made already is not known before.
    for more in [0, 1, 8] {
        data.leave_inodes(more);
        let finished = highwater.run(&arguments);
        is_full(
            &finished,
            &target,
            &[target.to_str().unwrap(), &mounted(&data), "more inodes: it has", again],
        );
    }
    data.remount(ENOUGH);
    // What was restored there already is to be restored again.
    for (path, file) in files(space.path()) {
        if path.contains("/PG_") {
            std::fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
        }
    }
    let finished = filled_meanwhile(&highwater, &server, &arguments, &space);
    is_full(&finished, &target, &[space.path().to_str().unwrap(), &mounted(&space), "bytes left", again]);
    space.free();
    let said = highwater.json(&arguments);
    assert_eq!(said["reuse"]["kind"], "unfinished", "{said}");
    for small in [&data, &space, &wal] {
        assert_eq!(small.leftovers(), [""; 0]);
    }

    let restored = Cluster::open(cluster.postgres(), &scratch, "restored", &target);
    wal.fill_but(256 << 10);
    let ended = restored.try_start().expect_err("recovery gets no WAL into a full pg_wal");
    assert!(restored.log().contains("No space left on device"), "{ended}");
    assert!(restored.log().contains(&mounted(&wal)), "{ended}");
    wal.free();
    restored.start();
    restored.wait_until_writable();
    assert_eq!(
        (rows(&restored), restored.value("select count(*) from spaced")),
        ("1,2".into(), "100000".into())
    );
    restored.stop_proven();
}
