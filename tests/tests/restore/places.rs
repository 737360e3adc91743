//! Where a cluster is put: tablespaces, `pg_wal`, segment sizes, names that need quoting.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use highwater_tests::{Cluster, Scratch, for_each_major, server_user};

use crate::ground::{Ground, rows};

/// A copy beside the live cluster has every tablespace somewhere else, and the live one is not touched.
#[test]
fn tablespaces_and_pg_wal_go_where_they_are_sent() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let builder = Cluster::builder(postgres, &scratch, "main").wal_segment_mb(1);
        let ground = Ground::start(&scratch, builder);
        let (first, second) = (scratch.dir("first"), scratch.dir("second one"));
        ground.cluster.execute(&format!("create tablespace first location '{}'", first.display()));
        ground.cluster.execute(&format!("create tablespace second location '{}'", second.display()));
        ground.cluster.execute("create table t (n int) tablespace first");
        ground.cluster.execute("create table u tablespace second as select generate_series(1, 20000) n");
        ground.cluster.execute("create index on u (n) tablespace first");
        ground.backup();
        for n in 1..=3 {
            ground.insert(n);
        }
        ground.archive();
        let taken = scratch.join("taken");
        ground.highwater.fails(
            &Ground::arguments(taken.to_str().unwrap(), &[]),
            3,
            &["tablespace", "is not empty", "--tablespace-map"],
        );
        assert!(!taken.exists());

        let (new_first, new_second) = (scratch.join("new first"), scratch.join("new=second"));
        let maps = [
            format!("{}={}", first.display(), new_first.display()),
            format!("second={}", new_second.display().to_string().replace('=', "\\=")),
        ];
        let wal = scratch.join("wal's home");
        let arguments = [
            "--tablespace-map",
            &maps[0],
            "--tablespace-map",
            &maps[1],
            "--wal-dir",
            wal.to_str().unwrap(),
            "--action",
            "promote",
        ];
        let restored = ground.restore(&scratch, "copy of it's 100%", &arguments);
        let link = |name: &str| std::fs::read_link(restored.data().join(name)).unwrap();
        assert_eq!(link("pg_wal"), wal);
        restored.start();
        restored.wait_until_writable();
        assert_eq!(rows(&restored), "1,2,3");
        assert_eq!(restored.value("select sum(n) from u"), "200010000");
        let places = restored.rows(
            "select pg_tablespace_location(oid) from pg_tablespace where spcname in ('first', 'second') order by spcname",
        );
        let places: Vec<&str> = places.iter().map(|row| row[0].as_deref().unwrap()).collect();
        assert_eq!(places, [new_first.to_str().unwrap(), new_second.to_str().unwrap()]);
        restored.stop_proven();
        assert_eq!(rows(&ground.cluster), "1,2,3");
        for path in [restored.data(), &new_first, &wal] {
            let metadata = std::fs::metadata(path).unwrap();
            assert_eq!(metadata.uid(), server_user().uid, "{}", path.display());
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        }
    });
}
