//! Pages that are not what PostgreSQL wrote.

use std::os::unix::fs::FileExt;

use highwater_tests::{Cluster, Scratch, for_each_major};

use crate::ground::Ground;

/// A bad page does not stop a backup: it is reported by relation and block, on the terminal, in JSON and by the exit code; the
/// backup holds it as it was read.
#[test]
fn a_bad_page_is_reported_by_relation_and_block() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let cluster = &ground.cluster;
        cluster.execute("create schema shop; create table shop.orders as select generate_series(1, 20000) x");
        let path = cluster.value("select pg_relation_filepath('shop.orders')");
        cluster.stop();
        let file = std::fs::OpenOptions::new().write(true).open(cluster.data().join(&path)).unwrap();
        file.write_all_at(b"damage", 7 * 8192 + 4000).unwrap();
        drop(file);
        cluster.start();

        let finished = ground.highwater.run(&["backup", "--fast-checkpoint"]);
        assert_eq!(finished.code, Some(4), "{finished}");
        for words in ["is complete", "1 damaged pages", &path, "block 7", "postgres.shop.orders", "checksum"]
        {
            assert!(finished.stdout.contains(words), "{words} is not in: {finished}");
        }
        let finished = ground.highwater.run(&["backup", "--fast-checkpoint", "--json"]);
        assert_eq!(finished.code, Some(4), "{finished}");
        let said: serde_json::Value = serde_json::from_str(&finished.stdout).unwrap();
        let failure = &said["backups"][0]["page_failures"][0];
        assert_eq!((&failure["file"], &failure["block"]), (&path.as_str().into(), &7.into()));
        assert_eq!(failure["relation"], "postgres.shop.orders");

        let restored = ground.restore(&scratch, "restored", &["--to-consistent"]);
        let same = std::fs::read(restored.join(&path)).unwrap()
            == std::fs::read(cluster.data().join(&path)).unwrap();
        assert!(same, "the page is not in the backup as it was read");
    });
}
