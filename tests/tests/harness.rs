//! The harness itself, on every major: what the other tests take for granted.

use highwater_tests::{
    Cluster, Load, Scratch, Seed, amcheck, checksums, controldata, for_each_major, transactions,
};

/// The oracle of I24: what `pg_waldump` reads is what was committed, in the order of WAL, also across a crash.
#[test]
fn a_cluster_survives_a_kill_and_its_wal_tells_what_was_committed() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(postgres, &scratch, "main").wal_segment_mb(1).start();
        let control = controldata(postgres, cluster.data());
        assert_eq!(control["Bytes per WAL segment"], "1048576");
        assert_ne!(control["Data page checksum version"], "0");

        cluster.execute("create table t (xid xid8 default pg_current_xact_id())");
        let start = cluster.lsn();
        // The abort is flushed by the commits that follow it.
        cluster.execute("begin; insert into t default values; rollback");
        let load = Load::start(&cluster, 4, |_, _, session| session.execute("insert into t default values"));
        load.wait_for(50);
        load.stop();

        let rows = cluster.rows("select xid from t");
        let committed: Vec<u32> = rows.iter().map(|row| row[0].as_ref().unwrap().parse().unwrap()).collect();
        let wal = cluster.data().join("pg_wal");
        let seen = transactions(postgres, &wal, 1, &start);
        assert!(seen.is_sorted_by_key(|line| line.position));
        assert!(seen.iter().any(|line| line.kind == "ABORT"));
        let mut commits: Vec<u32> =
            seen.iter().filter(|line| line.kind == "COMMIT").map(|line| line.xid).collect();
        let mut sorted = committed.clone();
        commits.sort_unstable();
        sorted.sort_unstable();
        assert_eq!(commits, sorted);

        cluster.kill();
        assert!(!cluster.is_running());
        cluster.start();
        assert_eq!(cluster.value("select count(*) from t"), committed.len().to_string());
        amcheck(&cluster);
        cluster.stop();
        checksums(&cluster);
    });
}

/// What else a builder can be asked for, and PostgreSQL's own archiver and recovery on top of it.
#[test]
fn a_cluster_with_files_elsewhere_archives_and_is_promoted() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive");
        let cluster = Cluster::builder(postgres, &scratch, "main")
            .checksums(false)
            .config_outside()
            .wal_directory(scratch.join("wal"))
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .start();
        assert_eq!(controldata(postgres, cluster.data())["Data page checksum version"], "0");
        assert!(cluster.data().join("pg_wal").is_symlink());
        assert!(!cluster.data().join("postgresql.conf").exists());

        let tablespace = scratch.dir("space");
        cluster.execute(&format!("create tablespace space location '{}'", tablespace.display()));
        cluster.execute("create table t tablespace space as select 1 as x");
        let segment = cluster.switch_wal();
        cluster.wait_until_archived(&segment);
        assert!(archive.join(&segment).exists());

        std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
        cluster.configure(&[("restore_command", &format!("cp {}/%f %p", archive.display()))]);
        cluster.restart();
        cluster.promote();
        assert_eq!(cluster.value("select x from t"), "1");
        cluster.stop();
    });
}

/// A warning in the server's log that no test has announced fails that test.
#[test]
fn a_warning_in_the_log_is_seen() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(highwater_tests::newest(), &scratch, "main").start();
    cluster.execute("do $$ begin raise warning 'unheard of'; end $$");
    assert_eq!(cluster.unexpected().len(), 1);
    cluster.tolerate("unheard of");
    cluster.stop();
}

/// Two streams of one seed differ from each other and not from run to run.
#[test]
fn a_split_seed_can_be_replayed() {
    let draw = || {
        let mut seed = Seed::new(3);
        let mut own = seed.split();
        (seed.bits(), own.bits())
    };
    assert_eq!(draw(), draw());
    assert_ne!(draw().0, draw().1);
}
