//! Over what is there: what is whole is kept, whatever else is there is made as it should be, and nothing beside it is touched.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

const BOTH: [Reading; 2] = [Reading::PageCache, Reading::Disk];

/// Everything that a rebuild could find wrong in a directory.
#[allow(clippy::disallowed_methods)]
fn disturb(data: &Path, elsewhere: &Path) {
    let write = |name: &str| OpenOptions::new().write(true).open(data.join(name)).unwrap();
    // One bit of an extent, and one that never reached the disk.
    write("base/5").write_all_at(b"?", 5 * EXTENT as u64 + 77).unwrap();
    write("base/5").write_all_at(&vec![0; EXTENT], 9 * EXTENT as u64).unwrap();
    write("base/1").set_len(EXTENT as u64 / 2).unwrap();
    write("base/4").set_len(5 * EXTENT as u64).unwrap();
    write("base/3").write_all_at(b"not empty", 0).unwrap();
    fs::set_permissions(data.join("base/4"), fs::Permissions::from_mode(0o644)).unwrap();
    // What a backup of another tool may share with this file.
    fs::hard_link(data.join("base/2"), elsewhere.join("linked")).unwrap();
    fs::remove_file(data.join("PG_VERSION")).unwrap();
    fs::create_dir_all(data.join("PG_VERSION/in/the/way")).unwrap();
    for name in ["base/0", "base/1.x", "base/99", "a", "zz", "highwater/lineage.json", "base/4_init"] {
        fs::File::create_new(data.join(name)).unwrap();
    }
    fs::create_dir_all(data.join("base/4a/deep")).unwrap();
    symlink(elsewhere, data.join("base/link")).unwrap();
    symlink(elsewhere, data.join("pg_tblspc")).unwrap();
}

#[test]
fn what_is_whole_is_kept_and_all_else_is_made_as_it_should_be() {
    let runtime = runtime();
    let ground = ground(&runtime, EXTENT);
    for (reading, jobs) in [(Reading::PageCache, 1), (Reading::Disk, 1), (Reading::Disk, 8)] {
        let scratch = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (scratch.path().join("data"), scratch.path().join("elsewhere"));
        fs::create_dir(&elsewhere).unwrap();
        fs::File::create_new(elsewhere.join("precious")).unwrap();
        let full = ground.rebuild(&runtime, &data, 2).unwrap();
        disturb(&data, &elsewhere);
        let again = ground.rebuild_over(&runtime, &data, jobs, Some(reading)).unwrap();
        ground.assert_whole(&data);
        // Of base/5 two extents, base/2 for its second name, base/1 and PG_VERSION.
        let lost = 2 * EXTENT + 2 * EXTENT + EXTENT + 1000 + 3;
        assert_eq!(again.kept_bytes, full.bytes - lost as u64, "{reading:?}");
        assert!(again.fetched_bytes < full.fetched_bytes, "{again:?}");
        let mut found: Vec<String> = fs::read_dir(data.join("base"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        assert_eq!(found, ["1", "2", "3", "4", "5"]);
        assert_eq!(fs::read_dir(&data).unwrap().count(), 3, "PG_VERSION, base and highwater");
        assert_eq!(fs::read_dir(data.join("highwater")).unwrap().count(), 1);
        assert_eq!(fs::metadata(data.join("base/4")).unwrap().mode() & 0o777, 0o600);
        // Nothing was written or removed through a link or a second name.
        assert!(elsewhere.join("precious").exists());
        assert_eq!(fs::metadata(elsewhere.join("linked")).unwrap().nlink(), 1);
        assert_eq!(fs::read(elsewhere.join("linked")).unwrap(), ground.files[2].1);

        let third = ground.rebuild_over(&runtime, &data, jobs, Some(reading)).unwrap();
        assert_eq!((third.kept_bytes, third.requests, third.fetched_bytes), (full.bytes, 0, 0));
        ground.assert_whole(&data);
    }
}

/// A rebuild may be cut off anywhere: what its successor finds is some of the files, of any length, with holes.
#[test]
fn a_rebuild_that_broke_off_is_gone_on_with() {
    let runtime = runtime();
    let ground = ground(&runtime, EXTENT);
    let paths = ground.store.inner.paths();
    for reading in BOTH {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let whole = ground.store.inner.peek(&paths[1]).unwrap();
        ground.store.inner.tamper(&paths[1], whole.slice(..whole.len() * 4 / 5));
        ground.rebuild(&runtime, &data, 1).unwrap_err();
        ground.store.inner.tamper(&paths[1], whole);
        let rebuilt = ground.rebuild_over(&runtime, &data, 1, Some(reading)).unwrap();
        ground.assert_whole(&data);
        // What was on its way when it stopped, and the last fifth, which lies in one piece.
        assert!(rebuilt.kept_bytes * 4 > rebuilt.bytes, "{rebuilt:?}");
        assert!(rebuilt.requests <= 2, "{rebuilt:?}");
    }
}

/// A tablespace's directory may serve another major too, and one of `pg_wal` may be a filesystem of its own.
#[test]
fn beside_the_clusters_own_nothing_in_another_place_is_touched() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    for name in [
        "data/pg_tblspc",
        "data/pg_wal/archive_status",
        "ts/PG_17_1/5",
        "ts/PG_16_1",
        "wal/lost+found",
        "wal/highwater/packs",
        "old/PG_17_1/5",
    ] {
        fs::create_dir_all(at(name)).unwrap();
    }
    for name in [
        "ts/PG_17_1/5/1",
        "ts/PG_16_1/keep",
        "wal/000000010000000000000001",
        "data/pg_wal/x",
        "old/keep",
        "wal/highwater/packs/1",
    ] {
        fs::File::create_new(at(name)).unwrap();
    }
    symlink(at("ts"), at("data/pg_tblspc/16384")).unwrap();
    symlink(at("old"), at("data/pg_tblspc/16385")).unwrap();
    let options = RebuildOptions {
        data_dir: at("data"),
        wal_dir: Some(at("wal")),
        tablespaces: vec![Placed { oid: 16384, original: "/x".into(), directory: at("ts") }],
        owner: None,
        claimed: Vec::new(),
        jobs: 1,
        in_place: Some(InPlace { reading: Reading::Disk, emptied: vec![at("old")], kept_wal: Vec::new() }),
    };
    let layout = Layout::create(&options, 0o700).unwrap();
    layout.empty_tablespace(&at("old"), "PG_17_1").unwrap();
    let mut sweep = Sweep::begin(&layout, "PG_17_1".to_owned()).unwrap();
    let mut work = Work::new(EXTENT as u32);
    let dir = |path: &str| FileLine::Dir { path: path.parse().unwrap(), mode: 0o700 };
    let (path, target) = ("pg_tblspc/16384".parse().unwrap(), "/x".to_owned());
    let link = FileLine::Tablespace { path, target, mode: 0o700 };
    for line in
        [dir("pg_tblspc"), link, dir("pg_tblspc/16384/PG_17_1"), dir("pg_wal"), dir("pg_wal/archive_status")]
    {
        assert!(!sweep.meet(&line).unwrap());
        work.add(line, false, &layout).unwrap();
    }
    sweep.finish().unwrap();
    assert!(at("ts/PG_16_1/keep").exists() && at("wal/lost+found").exists() && at("old/keep").exists());
    // What came there after it was looked at.
    assert!(at("wal/highwater/packs/1").exists());
    assert!(at("wal/archive_status").is_dir() && !at("wal/000000010000000000000001").exists());
    assert_eq!(fs::read_dir(at("ts/PG_17_1")).unwrap().count(), 0);
    assert!(!at("old/PG_17_1").exists() && !at("data/pg_tblspc/16385").is_symlink());
    assert_eq!(fs::read_link(at("data/pg_wal")).unwrap(), at("wal"));
    assert_eq!(fs::read_link(at("data/pg_tblspc/16384")).unwrap(), at("ts"));
}
