//! A relation that does not fit one file.

use highwater_tests::{Cluster, Scratch, for_ends_of_majors};

use crate::ground::Ground;

/// Extents, slices read side by side, and block numbers that count over files; and what comes back is a server.
#[test]
fn a_relation_above_one_gigabyte_comes_back() {
    for_ends_of_majors(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::prepare(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let cluster = &ground.cluster;
        // Filled without WAL; then the server archives like any other.
        for (name, value) in
            [("wal_level", "minimal"), ("archive_mode", "off"), ("max_wal_senders", "0"), ("fsync", "off")]
        {
            cluster.option(name, value);
        }
        cluster.start();
        cluster.execute(
            "create table large (id int, v text); alter table large alter v set storage plain; \
             begin; truncate large; insert into large select g, repeat(md5(g::text), 240) from generate_series(1, 136000) g; commit; \
             checkpoint",
        );
        let path = cluster.value("select pg_relation_filepath('large')");
        cluster.stop();
        for (name, value) in
            [("wal_level", "replica"), ("archive_mode", "on"), ("max_wal_senders", "10"), ("fsync", "on")]
        {
            cluster.option(name, value);
        }
        cluster.start();
        let first = cluster.data().join(&path);
        assert_eq!(first.metadata().unwrap().len(), 1 << 30);

        let made = ground.backup(&["--jobs", "3"]);
        assert_eq!(made["page_failure_count"], 0);
        assert!(made["counts"]["pages_verified"].as_u64().unwrap() > 136_000);
        let packs = ground.objects("/packs/");
        assert!(packs.values().all(|size| *size < 32 << 20), "{packs:?}");
        assert!(packs.values().filter(|size| **size < 24 << 20).count() <= 3, "{packs:?}");

        let restored = ground.restore(&scratch, "restored", &["--to-consistent"]);
        for name in [path.clone(), format!("{path}.1")] {
            let same = std::fs::read(cluster.data().join(&name)).unwrap()
                == std::fs::read(restored.join(&name)).unwrap();
            assert!(same, "{name} differs");
        }
        let copy = Cluster::open(postgres, &scratch, "copy", &restored);
        copy.start();
        assert_eq!(copy.value("select count(*) || ' ' || max(id) from large"), "136000 136000");
        copy.stop_proven();
    });
}
