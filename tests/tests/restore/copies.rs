//! What a restored copy may do: live beside production without touching it, stand by, take its place.

use highwater_tests::{Cluster, Scratch, files, for_each_major, newest};

use crate::ground::{Ground, rows};

/// A copy that is promoted and written to beside the live primary leaves no trace in the live
/// archive, and the primary's own promotion later archives its history.
#[test]
fn a_promoted_copy_leaves_the_live_archive_alone() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let builder = Cluster::builder(postgres, &scratch, "main").wal_segment_mb(1);
        let ground = Ground::with_backup(&scratch, builder);
        ground.insert(2);
        ground.archive();
        let copy = ground.restore(&scratch, "copy", &["--action", "promote"]);
        copy.start();
        copy.wait_until_writable();
        let before = contents(&ground);
        copy.execute("insert into t select generate_series(100, 5000)");
        copy.switch_wal();
        copy.execute("checkpoint");
        copy.switch_wal();
        assert_eq!(copy.value("show archive_mode"), "off");
        assert!(copy.data().join("pg_wal/00000002.history").exists());
        assert_eq!(contents(&ground), before);
        copy.stop();

        // The primary goes down and comes back as a standby that is promoted: its real timeline 2.
        ground.cluster.stop();
        let get = ground.highwater.archive_command().replace("archive-push %p", "archive-get %f %p");
        ground.cluster.configure(&[("restore_command", &get)]);
        scratch.file("main/standby.signal", "");
        ground.cluster.start();
        ground.cluster.promote();
        let segment = ground.cluster.switch_wal();
        ground.cluster.wait_until_archived(&segment);
        assert!(ground.object("00000002.history").exists());
        let restored = ground.restore(&scratch, "next", &["--action", "promote"]);
        restored.start();
        restored.wait_until_writable();
        assert_eq!(rows(&restored), "1,2");
        assert_eq!(restored.value("select timeline_id from pg_control_checkpoint()"), "3");
        restored.stop_proven();

        // Another way from timeline 1 does not take the number that is taken in the archive.
        let beside = ground.restore(&scratch, "beside", &["--timeline", "1", "--action", "promote"]);
        beside.start();
        beside.wait_until_writable();
        assert_eq!(beside.value("select timeline_id from pg_control_checkpoint()"), "3");
        beside.stop_proven();
    });
}

/// Every object and its bytes.
fn contents(ground: &Ground) -> Vec<(String, Vec<u8>)> {
    files(&ground.repository).into_iter().map(|(path, file)| (path, std::fs::read(&file).unwrap())).collect()
}

/// What a backup brought of an earlier recovery is gone, and the printed command ends the isolation.
#[test]
fn settings_found_in_the_backup_do_not_steer_the_copy() {
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(newest(), &scratch, "main"));
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    for setting in [
        "recovery_target_xid = '3'",
        "restore_command = 'false'",
        "primary_conninfo = 'host=production'",
        "recovery_target_action = 'shutdown'",
        "work_mem = '7MB'",
    ] {
        ground.cluster.execute(&format!("alter system set {setting}"));
    }
    // A target left in postgresql.conf as well, which no file of ours can take out.
    ground.cluster.configure(&[("recovery_target_name", "long ago")]);
    // Paths that would lead the copy into production's directory.
    let live = ground.cluster.data().to_str().unwrap().to_owned();
    ground.cluster.configure(&[
        ("data_directory", &live),
        ("hba_file", &format!("{live}/pg_hba.conf")),
        ("external_pid_file", &format!("{live}.pid")),
    ]);
    ground.backup();
    ground.insert(2);
    ground.archive();
    let target = scratch.join("copy");
    let done = ground.highwater.json(&Ground::arguments(target.to_str().unwrap(), &[]));
    let copy = Cluster::open(newest(), &scratch, "copy", &target);
    copy.start();
    copy.wait_until_writable();
    assert_eq!(rows(&copy), "1,2");
    assert_eq!(copy.value("show work_mem"), "7MB");
    assert_eq!(copy.value("show primary_conninfo"), "");
    assert_eq!(copy.value("show data_directory"), target.to_str().unwrap());
    assert_eq!(copy.value("show hba_file"), target.join("pg_hba.conf").to_str().unwrap());
    assert_eq!(copy.value("show external_pid_file"), "");
    assert_eq!(rows(&ground.cluster), "1,2");
    assert_eq!(copy.value("show archive_mode"), "off");
    copy.stop_proven();
    let command = done["end_isolation"].as_str().unwrap();
    assert!(std::process::Command::new("/bin/sh").args(["-c", command]).status().unwrap().success());
    highwater_tests::give_to_server_user(&target.join("postgresql.auto.conf"));
    let auto = std::fs::read_to_string(target.join("postgresql.auto.conf")).unwrap();
    assert!(!auto.contains("archive_mode") && !auto.contains("host=production"), "{auto}");
}

/// A standby follows the archive past the end that was known when it was made.
#[test]
fn a_standby_goes_on() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let ground = Ground::with_backup(&scratch, builder);
    ground.insert(2);
    ground.archive();
    let standby = ground.restore(&scratch, "standby", &["--standby"]);
    standby.start();
    standby.wait("the row that was there", || rows(&standby) == "1,2");
    ground.insert(3);
    ground.archive();
    standby.wait("the row that came later", || rows(&standby) == "1,2,3");
    assert_eq!(standby.value("select pg_is_in_recovery()"), "t");
    // An outage of the archive does not end it.
    let away = scratch.join("away");
    std::fs::rename(&ground.repository, &away).unwrap();
    std::thread::sleep(std::time::Duration::from_secs(6));
    std::fs::rename(&away, &ground.repository).unwrap();
    ground.insert(4);
    ground.archive();
    standby.wait("the row after the outage", || rows(&standby) == "1,2,3,4");

    // A tablespace that its upstream makes on this very host is not taken for its own: it stops before it replays that, and
    // goes on when the path is free.
    let path = scratch.dir("tablespace");
    ground.cluster.execute(&format!("create tablespace upstream location '{}'", path.display()));
    ground.cluster.execute("create table u tablespace upstream as select generate_series(1, 100) n");
    let before = files(&path);
    standby.tolerate("could not restore file");
    ground.archive();
    standby.wait("the end of the standby", || !standby.is_running());
    assert_eq!(files(&path), before);
    let log = standby.log();
    assert!(log.contains("is not handed out: replay makes tablespace"), "{log}");
    ground.cluster.stop();
    std::fs::rename(&path, scratch.join("moved away")).unwrap();
    scratch.dir("tablespace");
    for _ in 0..2 {
        standby.start();
        standby.wait("the table in the tablespace", || {
            standby.value("select to_regclass('u') is not null") == "t"
        });
        assert_eq!(standby.value("select sum(n) from u"), "5050");
        // Started again, it passes the same record, and the directory is its own by now.
        standby.kill();
    }
}
