//! Files that come, go, grow and shrink while they are copied: what is restored is what was committed.

use highwater_tests::{Cluster, Load, Scratch, for_each_major};

use crate::ground::{Ground, Running};

/// Tables that change while the backup stands still in the middle of copying them, in the order it comes to them.
fn prepare(cluster: &Cluster, space: &str) {
    cluster.execute(&format!("create tablespace going location '{space}'"));
    cluster.execute(
        "create table ledger (session int, turn int, filler text); \
         create table grows as select g, md5(g::text) m from generate_series(1, 300000) g; \
         create table shrinks as select g, md5(g::text) m from generate_series(1, 600000) g; \
         create table goes as select g from generate_series(1, 1000) g; create index on goes (g); \
         create table spaced tablespace going as select g from generate_series(1, 1000) g",
    );
}

/// What happens meanwhile. The checkpoint removes what was dropped from the disk.
const CHANGES: [&str; 6] = [
    "insert into grows select g, 'grown' from generate_series(1, 100000) g",
    "truncate shrinks",
    "drop table goes",
    "drop table spaced",
    "checkpoint",
    "drop tablespace going",
];

/// Under load, on segments of 64 MiB, which are stored in parts. Files vanish, end before their time, and grow past what is read of
/// them; a whole tablespace goes. The backup says so, and what comes back is all that was committed.
#[test]
fn a_server_at_work_comes_back_whole() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main").wal_segment_mb(64));
        let cluster = &ground.cluster;
        let space = scratch.dir("going");
        prepare(cluster, space.to_str().unwrap());
        let file = |table: &str| cluster.value(&format!("select pg_relation_filepath('{table}')"));
        let [grows, shrinks, goes] = ["grows", "shrinks", "goes"].map(file);
        let load = Load::start(cluster, 6, |session, turn, sql| {
            sql.execute(&format!(
                "insert into ledger select {session}, {turn}, repeat('x', 3000) from generate_series(1, 20); \
                 create table come_{session}_{turn} as select generate_series(1, 500) x; \
                 create index on come_{session}_{turn} (x); truncate come_{session}_{turn}"
            ));
            if turn > 2 {
                sql.execute(&format!("drop table come_{session}_{}", turn - 2));
            }
        });
        load.wait_for(30);
        let mut running =
            Running::start(&ground.highwater, &["backup", "--fast-checkpoint", "--jobs", "1", "--json"]);
        running.pause_at(&cluster.data().join(&shrinks), || {
            CHANGES.iter().for_each(|change| cluster.execute(change));
            assert!(!cluster.data().join(&goes).exists());
        });
        let said: serde_json::Value = serde_json::from_str(&running.end().success()).unwrap();
        let made = &said["backups"][0];
        load.wait_for(10);
        load.stop();
        assert_eq!(made["page_failure_count"], 0);
        let count = |what: &str| made["counts"][what].as_u64().unwrap();
        assert!(count("vanished_files") >= 2, "a table and its index were dropped: {made}");
        assert!(count("padded_files") >= 1, "a table was truncated: {made}");
        let rows = cluster.rows("select session, count(*) from ledger group by 1 order by 1");
        let tables = "select count(*) from pg_class where relname like 'come_%' and relkind = 'r'";
        let there = cluster.value(tables);
        cluster.execute("select pg_logical_emit_message(true, 'test', 'the last commit')");
        let last = cluster.switch_wal();
        cluster.wait_until_archived(&last);
        assert!(!ground.objects(&format!("{last}.part.0000")).is_empty());

        let moved = format!("{}={}", space.display(), scratch.join("moved").display());
        let restored = ground.restore(&scratch, "restored", &["--to", "latest", "--tablespace-map", &moved]);
        let size = |data: &std::path::Path, file: &str| data.join(file).metadata().unwrap().len();
        assert!(size(&restored, &grows) < size(cluster.data(), &grows), "it has grown");
        let copy = Cluster::open(postgres, &scratch, "copy", &restored);
        copy.start();
        copy.wait_until_writable();
        assert_eq!(copy.rows("select session, count(*) from ledger group by 1 order by 1"), rows);
        assert_eq!(copy.value(tables), there);
        assert_eq!(copy.value("select count(*) from grows"), "400000");
        assert_eq!(copy.value("select count(*) from shrinks"), "0");
        let gone = copy.value(
            "select (select count(*) from pg_class where relname in ('goes', 'spaced')) + \
             (select count(*) from pg_tablespace where spcname = 'going')",
        );
        assert_eq!(gone, "0");
        copy.stop_proven();
    });
}
