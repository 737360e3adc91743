//! `restore --delta`: a data directory of the cluster becomes what a backup holds, and only what differs is fetched.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use highwater_tests::{Cluster, Scratch, assert_same_files, files, for_ends_of_majors};

use crate::ground::{Ground, rows};
use crate::resumed::fill;

/// What can be seen of all files of the given directories without reading them: any change shows in time, length or number.
fn look(directories: &[&Path]) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
    let all = directories.iter().flat_map(|directory| files(directory).into_values());
    let look = |path: PathBuf| {
        let found = path.metadata().unwrap();
        (path, (found.ino(), found.len(), found.mtime_nsec(), found.ctime_nsec()))
    };
    all.map(look).collect()
}

/// The packs that hold something, each with its bytes.
fn packs(ground: &Ground) -> Vec<(PathBuf, Vec<u8>)> {
    let packs = ground.objects("/packs/").into_iter();
    packs.map(|path| (path.clone(), std::fs::read(path).unwrap())).collect()
}

struct Places {
    data: PathBuf,
    space: PathBuf,
    wal: PathBuf,
}

impl Places {
    fn look(&self) -> BTreeMap<PathBuf, (u64, u64, i64, i64)> {
        look(&[&self.data, &self.space, &self.wal])
    }
}

/// A cluster is brought back in place, with its `pg_wal` elsewhere and its tablespaces. Nothing of it is touched before
/// all that can be known is known; from then on it does not start until it is whole; what is there then is what a restore into an
/// empty directory gives, byte for byte.
#[test]
fn a_cluster_is_brought_back_in_place() {
    for_ends_of_majors(|postgres| {
        let scratch = Scratch::new();
        let wal = scratch.join("wal");
        let builder = Cluster::builder(postgres, &scratch, "main").checksums(true).wal_directory(wal.clone());
        let ground = Ground::start(&scratch, builder);
        let cluster = &ground.cluster;
        let (space, later) = (scratch.dir("space"), scratch.dir("later"));
        cluster.execute(&format!("create tablespace space location '{}'", space.display()));
        cluster.execute(
            "create table t (n int); insert into t values (1); \
             create table spaced tablespace space as select g, md5(g::text) m from generate_series(1, 300000) g; \
             create table emptied as select 1 x",
        );
        fill(cluster, "big", 16);
        cluster.execute("vacuum analyze");
        ground.backup();
        // One in a hundred, neighbours, as most changes are.
        cluster.execute(
            "update spaced set m = 'changed' where g between 100000 and 103000; \
             create table extra tablespace space as select 1 x; truncate emptied; insert into t values (2)",
        );
        cluster.execute(&format!("create tablespace later location '{}'", later.display()));
        cluster.execute("create table latest tablespace later as select generate_series(1, 1000) x");
        ground.archive();
        let places = Places { data: cluster.data().to_owned(), space, wal };
        let arguments = Ground::arguments(places.data.to_str().unwrap(), &["--delta"]);
        ground.highwater.fails(&arguments, 3, &["a server is running"]);
        assert_eq!(rows(cluster), "1,2");
        cluster.stop();
        nothing_is_touched_before_the_plan_is_proven(&scratch, &ground, &places);
        broken_off_it_does_not_start_and_is_gone_on_with(&scratch, &ground, &places);

        cluster.start();
        cluster.wait_until_writable();
        assert_eq!(rows(cluster), "1,2");
        assert_eq!(cluster.value("select count(*) from spaced where m = 'changed'"), "3001");
        // Replay has made the tablespace again that is younger than the backup, where it was.
        assert_eq!(cluster.value("select count(*) from latest"), "1000");
        cluster.stop_proven();
        what_is_in_place_is_what_a_restore_gives(&scratch, &ground, &places, &later);
    });
}

fn nothing_is_touched_before_the_plan_is_proven(scratch: &Scratch, ground: &Ground, places: &Places) {
    let delta = |target: &str, code: i32, words: &[&str]| {
        ground.highwater.fails(&Ground::arguments(target, &["--delta"]), code, words);
    };
    let here = places.data.to_str().unwrap();
    let before = places.look();
    let plain = Ground::arguments(here, &[]);
    ground.highwater.fails(&plain, 3, &["is not empty", "--delta"]);

    let other = Cluster::builder(ground.postgres(), scratch, "other").create();
    let others = look(&[other.data()]);
    delta(other.data().to_str().unwrap(), 3, &["another cluster", "system identifier"]);
    assert_eq!(look(&[other.data()]), others);
    let precious = scratch.dir("precious");
    scratch.file("precious/file", "keep me");
    delta(precious.to_str().unwrap(), 3, &["is not empty", "no data directory"]);
    assert!(precious.join("file").exists());

    // A copy that was made with its links leads into the original's places.
    let copy = scratch.join("copy");
    let copied = std::process::Command::new("cp").arg("-a").arg(&places.data).arg(&copy).status().unwrap();
    assert!(copied.success());
    delta(copy.to_str().unwrap(), 3, &["its pg_wal may be that cluster's", "--tablespace-map"]);
    let with_wal = ["--delta", "--wal-dir", places.wal.to_str().unwrap()];
    let with_wal = Ground::arguments(copy.to_str().unwrap(), &with_wal);
    ground.highwater.fails(&with_wal, 3, &["its tablespace", "may be that cluster's"]);
    // The server's user could lead root by a link.
    std::fs::remove_dir_all(copy.join("highwater")).ok();
    std::os::unix::fs::symlink(scratch.join("precious"), copy.join("highwater")).unwrap();
    let map = format!("space={}", places.space.display());
    let arguments = ["--delta", "--wal-dir", places.wal.to_str().unwrap(), "--tablespace-map", &map];
    let arguments = Ground::arguments(copy.to_str().unwrap(), &arguments);
    ground.highwater.fails(&arguments, 3, &["highwater is a link, and no directory"]);
    std::fs::remove_dir_all(copy).unwrap();
    // The disk that the WAL was given holds something else too.
    std::fs::create_dir(places.wal.join("other")).unwrap();
    delta(here, 3, &["where pg_wal is, and holds other", "--wal-dir"]);
    std::fs::remove_dir(places.wal.join("other")).unwrap();
    let waiting = places.wal.join("archive_status/0000000100000000000000FF.ready");
    std::fs::write(&waiting, "").unwrap();
    delta(here, 3, &["never archived", "0000000100000000000000FF"]);
    std::fs::remove_file(waiting).unwrap();
    let before = before.into_iter().collect::<Vec<_>>();
    for part in ["/packs/", "manifest", "/files"] {
        let found = ground.objects(part);
        let path = found.last().unwrap_or_else(|| panic!("no object {part}"));
        let whole = std::fs::read(path).unwrap();
        if part == "/packs/" {
            std::fs::remove_file(path).unwrap();
        } else {
            let mut changed = whole.clone();
            changed[whole.len() / 2] ^= 1;
            std::fs::write(path, changed).unwrap();
        }
        let done = ground.highwater.run(&Ground::arguments(here, &["--delta"]));
        assert!(done.code == Some(1) || done.code == Some(3), "{part}: {done}");
        std::fs::write(path, whole).unwrap();
        give(path, ground);
        assert_eq!(places.look().into_iter().collect::<Vec<_>>(), before, "{part}");
    }
}

/// What a test wrote again in the repository is its owner's.
fn give(path: &Path, ground: &Ground) {
    let owner = ground.repository.metadata().unwrap();
    std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).unwrap();
}

fn broken_off_it_does_not_start_and_is_gone_on_with(scratch: &Scratch, ground: &Ground, places: &Places) {
    let here = places.data.to_str().unwrap();
    let arguments = Ground::arguments(here, &["--delta", "--action", "promote"]);
    let planned = ground.highwater.ok(&[arguments.as_slice(), &["--dry-run"]].concat());
    assert!(planned.contains("each is compared with the backup"), "{planned}");
    // It is as long as it should be, and nothing of it can be read.
    let packs = packs(ground);
    for (path, bytes) in &packs {
        std::fs::write(path, vec![0; bytes.len()]).unwrap();
    }
    let said = ground.highwater.fails(
        &arguments,
        1,
        &["is not complete", "add --delta --backup ID to the same command"],
    );
    assert!(!said.contains("rm -rf"), "{said}");
    let broken = Cluster::open(ground.postgres(), scratch, "broken", &places.data);
    assert!(broken.try_start().is_err());
    for (path, bytes) in &packs {
        std::fs::write(path, bytes).unwrap();
    }
    let other = Ground::arguments(here, &[]);
    assert!(ground.highwater.ok(&[other.as_slice(), &["--dry-run"]].concat()).contains("goes on with"));
    std::fs::write(places.data.join("base/stray"), "stray").unwrap();
    let said = ground.highwater.json(&arguments);
    assert_eq!(said["reuse"]["kind"], "unfinished", "{said}");
    let stored: u64 = packs.iter().map(|(_, bytes)| bytes.len() as u64).sum();
    let fetched = said["fetched_bytes"].as_u64().unwrap();
    assert!(fetched * 3 < stored, "{fetched} of {stored} were fetched: {said}");
    assert!(!places.data.join("base/stray").exists());
    // Whoever writes WAL from here on is decided anew: the directory has gone back in time.
    assert!(!places.data.join("highwater/lineage.json").exists());
    assert_eq!(std::fs::read_link(places.data.join("pg_wal")).unwrap(), places.wal);
}

fn what_is_in_place_is_what_a_restore_gives(
    scratch: &Scratch,
    ground: &Ground,
    places: &Places,
    later: &Path,
) {
    let (map, wal) = (format!("space={}", scratch.join("whole-space").display()), scratch.join("whole-wal"));
    let more = ["--to-consistent", "--tablespace-map", &map, "--wal-dir", wal.to_str().unwrap()];
    let whole = ground.restore(scratch, "whole", &more);
    std::fs::write(places.space.join("not ours"), "keep me").unwrap();
    let arguments = Ground::arguments(places.data.to_str().unwrap(), &["--delta", "--to-consistent"]);
    let said = ground.highwater.json(&arguments);
    assert_eq!(said["reuse"]["kind"], "delta", "{said}");
    assert!(said["kept_bytes"].as_u64().unwrap() * 4 > said["bytes"].as_u64().unwrap() * 3, "{said}");
    std::fs::remove_file(places.space.join("not ours")).unwrap();
    assert_same_files(whole.data(), &places.data, &[]);
    assert_eq!(files(later).len(), 0, "the cluster of the backup has no such tablespace");
    // What the server wrote last is in no archive: it is there still, and nothing else is.
    let kept = places.wal.join("highwater-wal-before-delta");
    let left = files(&places.wal);
    assert!(!left.is_empty() && left.values().all(|file| file.starts_with(&kept)), "{left:?}");
    let named = said["reuse"]["kept_wal"][0]["files"].as_array().unwrap();
    assert!(
        !named.is_empty() && named.iter().all(|name| kept.join(name.as_str().unwrap()).exists()),
        "{said}"
    );
    for (path, file) in files(whole.data()) {
        let apart = path.starts_with("highwater/") || path.starts_with("pg_tblspc/");
        if !apart {
            let (one, other) = (file.metadata().unwrap(), places.data.join(&path).metadata().unwrap());
            let seen = |found: &std::fs::Metadata| (found.mode(), found.uid(), found.gid());
            assert_eq!(seen(&one), seen(&other), "{path}");
        }
    }
}
