//! Tablespaces that replay makes: at the path they had on the original host, which must be free on this one.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Stdio;

use highwater_tests::{Cluster, Scratch, amcheck, files, for_each_major, newest, server_user};

use crate::ground::{Ground, rows};

/// On the host of the original a copy is refused while its tablespace is there, and the original not touched; a moment before
/// it was made can be restored; once its path is free the tablespace comes back there with all that was in it.
#[test]
fn a_tablespace_made_after_the_backup_needs_its_path() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let builder = Cluster::builder(postgres, &scratch, "main").wal_segment_mb(1);
        let ground = Ground::with_backup(&scratch, builder);
        let (later, brief) = (scratch.dir("a later one"), scratch.dir("brief"));
        ground.cluster.execute(&format!("create tablespace later location '{}'", later.display()));
        ground.cluster.execute("create table u tablespace later as select generate_series(1, 20000) n");
        ground.cluster.execute(&format!("create tablespace brief location '{}'", brief.display()));
        ground.cluster.execute("create table v tablespace brief as select 1; drop table v");
        ground.cluster.execute("drop tablespace brief");
        ground.insert(2);
        ground.archive();
        let before = files(&later);

        let version = format!("PG_{}_", postgres.major);
        let path = later.to_str().unwrap();
        let said = scratch.join("refused");
        let said = Ground::arguments(said.to_str().unwrap(), &[]);
        let words = [path, "in use on this host", &version, "--before"];
        let said = ground.highwater.fails(&said, 3, &words);
        let made_at = said.split("CREATE TABLESPACE at LSN ").nth(1).unwrap();
        let made_at = made_at.split(')').next().unwrap();
        if postgres.major == newest().major {
            only_with_its_path(&scratch, &ground, made_at, &words);
        }
        assert_eq!(files(&later), before);
        ground.cluster.stop();
        std::fs::rename(&later, scratch.join("moved away")).unwrap();
        let target = scratch.join("dry");
        let plan = ground.highwater.json(&Ground::arguments(target.to_str().unwrap(), &["--dry-run"]));
        let replayed = plan["replayed_tablespaces"].as_array().unwrap();
        assert_eq!(replayed.len(), 2, "{plan}");
        assert_eq!((replayed[0]["path"].as_str(), &replayed[0]["dropped_lsn"]), (Some(path), &().into()));
        assert_eq!(
            (&replayed[0]["directory"], &replayed[0]["created_lsn"]),
            (&"absent".into(), &made_at.into())
        );
        assert_eq!(replayed[1]["directory"], "empty");
        assert!(replayed[1]["dropped_lsn"].is_string(), "{plan}");
        assert!(!later.exists());

        let copy = ground.restore(&scratch, "copy", &["--action", "promote"]);
        let metadata = std::fs::metadata(&later).unwrap();
        assert_eq!((metadata.uid(), metadata.permissions().mode() & 0o777), (server_user().uid, 0o700));
        copy.start();
        copy.wait_until_writable();
        assert_eq!(rows(&copy), "1,2");
        assert_eq!(copy.value("select sum(n) from u"), "200010000");
        assert_eq!(
            copy.value("select pg_tablespace_location(oid) from pg_tablespace where spcname = 'later'"),
            path
        );
        assert_eq!(copy.value("select count(*) from pg_tablespace where spcname = 'brief'"), "0");
        amcheck(&copy);
    });
}

/// Nothing that can be asked for leads the tablespace elsewhere; the moment before it can be had.
fn only_with_its_path(scratch: &Scratch, ground: &Ground, made_at: &str, words: &[&str]) {
    for more in [&["--replace-production"][..], &["--standby"], &["--to-lsn", made_at]] {
        ground.refused(scratch, more, words);
    }
    let map = format!("{}={}", words[0], scratch.join("elsewhere").display());
    ground.refused(scratch, &["--tablespace-map", &map], &[words[0], "cannot be mapped elsewhere"]);
    let early = ground.restore(scratch, "early", &["--to-lsn", made_at, "--before"]);
    early.start();
    early.wait_until_paused();
    assert_eq!(rows(&early), "1");
    assert!(files(&early.data().join("pg_tblspc")).is_empty());
    early.stop();
}

/// A tablespace made between the backup's redo position and the reading of `tablespace_map` is in the backup, and is led back to
/// its original path by replay.
#[test]
fn a_tablespace_made_while_the_backup_begins_cannot_be_mapped() {
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1));
    ground.cluster.execute("create table t (n int); create table pages as select generate_series(1, 10000)");
    let path = scratch.dir("first");
    // Not asked to be fast, the checkpoint of the backup's start takes 100 ms for each page that it writes.
    let mut backup = ground.highwater.command(&["backup"]);
    let mut backup = backup.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    ground.cluster.wait("the checkpoint of the backup's start", || {
        let waits = "select count(*) from pg_stat_activity where wait_event = 'CheckpointDone'";
        ground.cluster.value(waits) == "1"
    });
    ground.cluster.execute(&format!("create tablespace first location '{}'", path.display()));
    ground.cluster.execute("create table u tablespace first as select generate_series(1, 100) n");
    assert!(backup.wait().unwrap().success());
    ground.insert(2);
    ground.archive();

    let map = format!("first={}", scratch.join("elsewhere").display());
    ground.refused(&scratch, &["--tablespace-map", &map], &["leads it to", "cannot be mapped"]);
    ground.refused(&scratch, &[], &["tablespace", "is not empty"]);
    ground.cluster.stop();
    std::fs::rename(&path, scratch.join("moved away")).unwrap();
    let target = scratch.join("copy");
    let done = ground.highwater.json(&Ground::arguments(target.to_str().unwrap(), &[]));
    assert_eq!(done["replayed_tablespaces"][0]["directory"], "restored", "{done}");
    let copy = Cluster::open(ground.postgres(), &scratch, "copy", Path::new(&target));
    copy.start();
    copy.wait_until_writable();
    assert_eq!((rows(&copy), copy.value("select sum(n) from u")), ("2".to_owned(), "5050".to_owned()));
}
