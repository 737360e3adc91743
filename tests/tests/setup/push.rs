//! `highwater archive-push`: what PostgreSQL relies on.

use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use highwater_tests::{Cluster, Finished, Highwater, Scratch, Seed, for_each_major, newest};

use crate::ground::{archive_one, archiving, archiving_as, holds, objects, push, pushed, refused};

/// What PostgreSQL archives itself, in an ordinary life with a backup and a promotion: segments, `.backup`, `.history` and
/// `.partial`. Pushing any of it again is success, says nothing and stores nothing.
#[test]
fn everything_postgresql_archives_is_stored_once() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let builder = Cluster::builder(postgres, &scratch, "main").setting("wal_keep_size", "256MB");
        let (cluster, highwater) = archiving_as(builder, &scratch);
        archive_one(&cluster);
        let session = cluster.session();
        if postgres.major < 15 {
            session.execute("select pg_start_backup('b', true, false); select pg_stop_backup(false, false)");
        } else {
            session.execute("select pg_backup_start('b', true); select pg_backup_stop(false)");
        }
        drop(session);
        cluster.execute("create table after_backup as select 1 as x");
        cluster.stop();

        // A promotion in the middle of a segment leaves a .partial of the old timeline and the new one's history.
        std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
        cluster.configure(&[("restore_command", "false")]);
        cluster.start();
        cluster.promote();
        archive_one(&cluster);
        // Its shutdown archives one more segment.
        cluster.stop();
        let archived = objects(&scratch, "primary");
        let has = |what: &str| archived.iter().any(|path| path.contains(what));
        assert!(has(".history") && has(".backup"), "{archived:#?}");
        assert!(has(".partial"), "{archived:#?}");
        assert!(has("00000002/claim"), "{archived:#?}");

        let mut again = 0;
        for path in &archived {
            let name = path.rsplit('/').next().unwrap();
            if cluster.data().join("pg_wal").join(name).is_file() {
                pushed(&highwater, cluster.data(), name);
                again += 1;
            }
        }
        assert!(again >= 3, "only {again} files were there to be pushed again");
        assert_eq!(objects(&scratch, "primary"), archived);

        // What stands beside the segments is had by its own name too.
        for name in archived.iter().filter_map(|path| path.rsplit('/').next()) {
            if [".partial", ".history", ".backup"].iter().any(|kind| name.ends_with(kind)) {
                let mut command = highwater.command(&["archive-get", name, "pg_wal/RECOVERYXLOG"]);
                Finished::of(command.current_dir(cluster.data())).success();
                let got = std::fs::read(cluster.data().join("pg_wal/RECOVERYXLOG")).unwrap();
                assert_eq!(got.len() == 16 << 20, name.ends_with(".partial"), "{name}");
                if let Ok(here) = std::fs::read(cluster.data().join("pg_wal").join(name)) {
                    assert!(got == here, "{name}");
                }
            }
        }
    });
}

/// Segments of 1 and of 64 MiB, the latter stored in parts.
#[test]
fn every_segment_size_is_archived() {
    for mb in [1, 64] {
        let scratch = Scratch::new();
        let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(mb);
        let (cluster, highwater) = archiving_as(builder, &scratch);
        let segment = archive_one(&cluster);
        pushed(&highwater, cluster.data(), &segment);
        let mut command = highwater.command(&["archive-push", "--json", &format!("pg_wal/{segment}")]);
        let said = Finished::of(command.current_dir(cluster.data())).success();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(said["repositories"][0]["stored"], "same", "{said}");
        assert!(holds(&scratch, "primary", &segment));
        cluster.stop();
    }
}

/// I2: a segment whose WAL stops before its end without a SWITCH never gets the whole segment's name.
#[test]
fn a_zero_padded_tail_is_refused() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let (cluster, highwater) = archiving(postgres, &scratch);
        archive_one(&cluster);
        cluster.execute("insert into written select 'x' from generate_series(1, 1000)");
        let current = cluster.value("select pg_walfile_name(pg_current_wal_lsn())");
        // Killed, not stopped: a shutdown would archive the end of a segment that it has ended.
        cluster.kill();
        refused(&highwater, cluster.data(), &current, &["not a whole segment", &current]);
        assert!(!holds(&scratch, "primary", &current));
        cluster.start();
        cluster.stop();
    });
}

/// A file that is no segment, not there, a name that is none, arguments that are none: all within 1 to 125.
#[test]
fn every_failure_is_one_that_postgresql_counts() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let segment = archive_one(&cluster);
    let data = cluster.data();
    refused(&highwater, data, "000000010000000000000099", &["cannot read"]);
    refused(&highwater, data, "archive_status", &["archive_status"]);
    crate::ground::put_wal(data, "0000000100000000000000AA", b"short");
    refused(&highwater, data, "0000000100000000000000AA", &["0000000100000000000000AA"]);
    crate::ground::put_wal(data, "00000009.history", b"not a history");
    refused(&highwater, data, "00000009.history", &["history"]);
    for arguments in
        [&["archive-push"][..], &["archive-push", "--nonsense", "x"], &["archive-push", "a", "b"]]
    {
        assert_eq!(highwater.run(arguments).code, Some(2));
    }
    let no_config =
        highwater.bare(&["archive-push", "pg_wal/x", "--config", "/nonexistent.toml"]).output().unwrap();
    assert_eq!(no_config.status.code(), Some(2));
    std::fs::remove_file(data.join("pg_wal/0000000100000000000000AA")).unwrap();
    std::fs::remove_file(data.join("pg_wal/00000009.history")).unwrap();
    a_key_command_that_hangs_is_left_behind_by_nobody(&scratch, &cluster, &segment);
    cluster.stop();
}

/// A command for the key that hangs costs PostgreSQL no more than the deadline, is told of, and is gone afterwards with what it has
/// started: each further attempt would leave one more.
fn a_key_command_that_hangs_is_left_behind_by_nobody(scratch: &Scratch, cluster: &Cluster, segment: &str) {
    let place = scratch.dir("hanging").join("pid");
    // On a machine that is busy it takes longer until it has begun. A command itself is given 45 s.
    let pid = [5, 15, 40].into_iter().find_map(|seconds| {
        let highwater = Highwater::new(scratch, "hanging", cluster).lines(&format!(
            "[wal]\npush_deadline = \"{seconds}s\"\n[repository.primary]\nurl = \"file://{}\"\n\
             key_command = \"sleep 600 & echo $! > {}; wait\"",
            scratch.join("primary").display(),
            place.display(),
        ));
        let begun = Instant::now();
        let said = refused(&highwater, cluster.data(), segment, &[]);
        assert!(begun.elapsed() < Duration::from_secs(300), "{:?}", begun.elapsed());
        let pid = std::fs::read_to_string(&place).ok()?.trim().parse::<i32>().ok()?;
        assert!(said.contains("primary did not answer in time, and a command"), "{said}");
        Some(pid)
    });
    let stat = format!("/proc/{}/stat", pid.unwrap());
    // Whoever takes over orphans may not have asked yet how it ended.
    cluster.wait("the end of what the command has started", || {
        !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "))
    });
}

/// I3: killed at any moment, the next attempt succeeds, and what is there is whole.
#[test]
fn killed_at_any_moment_the_next_push_succeeds() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.configure(&[("archive_command", "false")]);
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show archive_command") == "false");
    let mut seed = Seed::from_environment();
    let mut killed = 0;
    let segment = || {
        cluster.execute("insert into written select md5(g::text) from generate_series(1, 20000) g");
        cluster.switch_wal()
    };
    // How long one takes here when nothing is in its way: the moments to kill it lie within.
    let whole = (0..3).map(|_| {
        let (segment, begin) = (segment(), Instant::now());
        pushed(&highwater, cluster.data(), &segment);
        begin.elapsed()
    });
    let whole = u64::try_from(whole.min().unwrap().as_micros()).unwrap();
    for round in 0..6 {
        let segment = segment();
        for _ in 0..4 {
            let path = format!("pg_wal/{segment}");
            let mut command = highwater.command(&["archive-push", &path]);
            let child =
                command.current_dir(cluster.data()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
            let mut child = child.unwrap();
            std::thread::sleep(Duration::from_micros(seed.within(0..whole)));
            killed += usize::from(kill(&mut child));
        }
        pushed(&highwater, cluster.data(), &segment);
        pushed(&highwater, cluster.data(), &segment);
        assert!(holds(&scratch, "primary", &segment), "round {round}");
    }
    assert!(killed > 3, "only {killed} pushes were still running when they were killed");
    let listed = highwater.json(&["list"]);
    assert_eq!(listed["repositories"][0]["lineages"][0]["broken"].as_array().unwrap().len(), 0, "{listed:#}");
    cluster.stop();
}

/// Kills a process; true if it had not ended by itself.
pub fn kill(child: &mut Child) -> bool {
    child.kill().unwrap();
    child.wait().unwrap().signal().is_some()
}

/// A store that does not answer costs no more than the deadline, and a signal is an ordinary failure.
#[test]
fn a_dead_store_costs_no_more_than_the_deadline() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let segment = archive_one(&cluster);
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", silent.local_addr().unwrap());
    let arguments = |deadline: &str| {
        let path = format!("pg_wal/{segment}");
        let mut command =
            highwater.command(&["archive-push", &path, "--set", &format!("wal.push_deadline={deadline}")]);
        command
            .current_dir(cluster.data())
            .env("HIGHWATER__REPOSITORY__PRIMARY__URL", "s3://bucket/prefix")
            .env("HIGHWATER__REPOSITORY__PRIMARY__ENDPOINT", &endpoint)
            .env("HIGHWATER__REPOSITORY__PRIMARY__ACCESS_KEY_ID", "id")
            .env("HIGHWATER__REPOSITORY__PRIMARY__SECRET_ACCESS_KEY", "secret");
        command
    };
    let begun = Instant::now();
    let finished = highwater_tests::Finished::of(&mut arguments("2s"));
    assert_eq!(finished.code, Some(1), "{finished}");
    assert!(finished.stderr.contains("did not answer in time"), "{finished}");
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());

    // What the first one left waiting is not the second one's call.
    silent.set_nonblocking(true).unwrap();
    while silent.accept().is_ok() {}
    silent.set_nonblocking(false).unwrap();
    let mut child = arguments("60s").stderr(Stdio::piped()).spawn().unwrap();
    let _asked = silent.accept().unwrap();
    let id = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    cluster.stop();
}

/// I11: `wal.required_repositories` decides; one that is missing beyond it is said, not hidden.
#[test]
fn the_required_number_of_repositories_decides() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let highwater = highwater.local_repository("second");
    highwater.ok(&["init"]);
    archive_one(&cluster);
    cluster.configure(&[("archive_command", "false")]);
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show archive_command") == "false");
    cluster.execute("insert into written values ('more')");
    let segment = cluster.switch_wal();
    std::fs::rename(scratch.join("second"), scratch.join("away")).unwrap();
    refused(
        &highwater,
        cluster.data(),
        &segment,
        &["held by 1 of 2 repositories, 2 required", "repository second"],
    );
    let highwater = highwater.lines("[wal]\nrequired_repositories = 1");
    let finished = push(&highwater, cluster.data(), &segment);
    assert_eq!(finished.code, Some(0), "{finished}");
    assert!(finished.stderr.contains("not everywhere") && finished.stderr.contains("second"), "{finished}");
    assert!(holds(&scratch, "primary", &segment));
    std::fs::rename(scratch.join("away"), scratch.join("second")).unwrap();
    pushed(&highwater, cluster.data(), &segment);
    assert!(holds(&scratch, "second", &segment));
    cluster.stop();
}

/// The configuration may be a file that only says where, with everything else from the environment.
#[test]
fn the_environment_alone_is_enough() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let segment = archive_one(&cluster);
    let key = std::fs::read_to_string(scratch.join("primary.key")).unwrap();
    let url = format!("file://{}", scratch.join("primary").display());
    let finished = highwater_tests::Finished::of(
        Highwater::bare(&highwater, &["archive-push", &format!("pg_wal/{segment}"), "--cluster", "main"])
            .current_dir(cluster.data())
            .env("HIGHWATER__CLUSTER__DATA_DIR", cluster.data())
            .env("HIGHWATER__REPOSITORY__PRIMARY__URL", url)
            .env("HIGHWATER__REPOSITORY__PRIMARY__KEY", key)
            .env("HIGHWATER_SERVICE_HOST", "10.0.0.1"),
    );
    assert_eq!(finished.success(), "");
    cluster.stop();
}
