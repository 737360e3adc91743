//! Paths that try to leave, and roots that are where they should be.

use super::*;
use crate::tablespaces::Placed;

fn layout(directory: &Path) -> Layout {
    let options = RebuildOptions {
        data_dir: directory.join("data"),
        wal_dir: Some(directory.join("wal")),
        tablespaces: vec![Placed { oid: 16384, original: "/x".into(), directory: directory.join("ts") }],
        owner: None,
        claimed: Vec::new(),
        jobs: 1,
        in_place: None,
    };
    Layout::create(&options, 0o700).unwrap()
}

fn path(text: &str) -> FilePath {
    text.parse().unwrap()
}

#[test]
fn paths_find_their_root() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout(directory.path());
    assert_eq!(layout.place(&path("base/5/1259")), (DATA, b"base/5/1259".as_slice()));
    assert_eq!(layout.place(&path("pg_wal")), (2, b"".as_slice()));
    assert_eq!(layout.place(&path("pg_wal/archive_status")), (2, b"archive_status".as_slice()));
    assert_eq!(layout.place(&path("pg_walx")), (DATA, b"pg_walx".as_slice()));
    assert_eq!(layout.place(&path("pg_tblspc/16384/PG_17/5/1")), (3, b"PG_17/5/1".as_slice()));
    assert_eq!(layout.place(&path("pg_tblspc/163840/x")), (DATA, b"pg_tblspc/163840/x".as_slice()));
}

/// Whatever a file list asks for, nothing is opened or made through a symbolic link, nor taken over.
#[test]
fn links_are_never_followed_and_nothing_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout(directory.path());
    let elsewhere = directory.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, layout.data_dir().join("base")).unwrap();
    for lacks_openat2 in [false, true] {
        layout.lacks_openat2.store(lacks_openat2, Ordering::Relaxed);
        let direct = Place { root: DATA, path: b"base" };
        assert!(layout.open_to_write(direct).is_err());
        assert!(layout.make_dir(&path("base"), 0o700).is_err());
        // One that was a directory when it was made, and has been exchanged since.
        assert!(layout.open_to_write(Place { root: DATA, path: b"base/1" }).is_err());
        assert!(layout.make_dir(&path("base/1"), 0o700).is_err());
        assert!(layout.open_to_write(Place { root: DATA, path: b"highwater/../../1" }).is_err());
        let below = path(if lacks_openat2 { "real/slow" } else { "real" });
        layout.make_dir(&below, 0o700).unwrap();
        layout.make_empty(Place { root: DATA, path: &[below.as_bytes(), b"/1"].concat() }, 0o600, 0).unwrap();
    }
    layout.lacks_openat2.store(false, Ordering::Relaxed);
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
    let file = Place { root: DATA, path: b"PG_VERSION" };
    layout.make_empty(file, 0o600, 0).unwrap();
    assert!(layout.make_empty(file, 0o600, 0).is_err());
}

/// What somebody mounts below a root is not looked into, whichever way the kernel has to tell: here that is `/proc`, below `/`.
#[test]
fn a_mount_is_never_crossed() {
    let directory = tempfile::tempdir().unwrap();
    let mut layout = layout(directory.path());
    layout.roots.push(Root::open(Path::new("/"), &[]).unwrap());
    let root = RootIndex::try_from(layout.roots.len() - 1).unwrap();
    for lacks_openat2 in [false, true] {
        layout.lacks_openat2.store(lacks_openat2, Ordering::Relaxed);
        let refused = layout.names(Place { root, path: b"proc" }).unwrap_err();
        assert!(matches!(&refused, RebuildError::Mounted { path } if path == "/proc"), "{refused}");
        assert!(refused.hint().is_some());
        assert!(layout.kind(Place { root, path: b"proc/self" }).is_err());
        assert!(layout.kind(Place { root, path: b"proc" }).unwrap() == Some(Kind::Directory));
    }
}

/// A root that was marked is filled and emptied, and no other directory that has its name by then.
#[test]
fn a_root_is_the_directory_that_was_marked() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name);
    #[allow(clippy::disallowed_methods)]
    let rename = |from: &Path, to: &Path| std::fs::rename(from, to).is_ok();
    let mut options = RebuildOptions {
        data_dir: at("data"),
        wal_dir: Some(at("wal")),
        tablespaces: Vec::new(),
        owner: None,
        claimed: Vec::new(),
        jobs: 1,
        in_place: None,
    };
    for name in ["data", "wal", "gone"] {
        std::fs::create_dir(at(name)).unwrap();
        options.claimed.push(Claimed::of(&at(name), std::fs::File::open(at(name)).unwrap()).unwrap());
    }
    let layout = Layout::create(&options, 0o700).unwrap();
    for name in ["wal", "gone"] {
        std::fs::create_dir_all(at("other/PG_17_1")).unwrap();
        assert!(rename(&at(name), &at(&format!("{name} before"))) && rename(&at("other"), &at(name)));
    }
    let refused = Layout::create(&options, 0o700).unwrap_err();
    assert!(matches!(&refused, RebuildError::Exchanged { path } if *path == at("wal")), "{refused}");
    let found: Vec<bool> = options.claimed.iter().map(|claimed| claimed.look_again().is_ok()).collect();
    assert_eq!(found, [true, false, false]);
    let refused = layout.empty_tablespace(&at("gone"), "PG_17_1").unwrap_err();
    assert!(matches!(refused, RebuildError::Exchanged { .. }) && at("gone/PG_17_1").exists());
}

#[test]
fn inner_links_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout(directory.path());
    assert!(layout.make_inner_link(&path("log"), "../../etc").is_err());
    assert!(layout.make_inner_link(&path("log"), "/etc").is_err());
    layout.make_inner_link(&path("log"), "./base/x").unwrap();
    assert!(stays_inside("../a", 1) && stays_inside(".././../a", 2) && !stays_inside("../../a", 1));
    assert!(!stays_inside("a/../..", 0) && !stays_inside("../a/../b", 3));
}

/// A link of a file list that stays inside by its text leads out by way of a tablespace, or from within one: neither is made, nor
/// one in the place of a directory that is written into by its name.
#[test]
fn a_link_through_a_tablespace_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout(directory.path());
    layout.make_dir(&path("pg_tblspc"), 0o700).unwrap();
    layout.make_tablespace_link(&path("pg_tblspc/16384"), 0o700).unwrap();
    layout.make_dir(&path("pg_tblspc/16384/PG_17"), 0o700).unwrap();
    for (link, target) in [
        ("x", "pg_tblspc/16384/../etc"),
        ("pg_tblspc/16384/PG_17/x", "../../../etc"),
        ("pg_wal/x", "../../etc"),
        ("global", "base"),
        ("pg_wal", "base"),
        ("pg_tblspc/16384", "base"),
        ("highwater", "base"),
    ] {
        let refused = layout.make_inner_link(&path(link), target).unwrap_err();
        assert!(matches!(&refused, RebuildError::Hostile(_)), "{link}: {refused}");
    }
    layout.make_inner_link(&path("pg_tblspc/16384/PG_17/x"), "../y").unwrap();
}

/// A tablespace that the manifest does not name gets no link.
#[test]
fn links_are_made_only_where_the_manifest_says() {
    let directory = tempfile::tempdir().unwrap();
    let layout = layout(directory.path());
    layout.make_dir(&path("pg_tblspc"), 0o700).unwrap();
    layout.make_tablespace_link(&path("pg_tblspc/16384"), 0o700).unwrap();
    assert!(matches!(
        layout.make_tablespace_link(&path("pg_tblspc/1"), 0o700),
        Err(RebuildError::Hostile(_))
    ));
    let link = std::fs::read_link(layout.data_dir().join("pg_tblspc/16384")).unwrap();
    assert_eq!(link, directory.path().join("ts"));
    layout.make_dir(&path("pg_wal"), 0o700).unwrap();
    layout.make_dir(&path("pg_wal/archive_status"), 0o700).unwrap();
    assert!(directory.path().join("wal/archive_status").is_dir());
    assert_eq!(std::fs::read_link(layout.data_dir().join("pg_wal")).unwrap(), directory.path().join("wal"));
    let (root, below) = layout.outside_place("/etc/postgresql/17/main/postgresql.conf").unwrap();
    layout.make_empty(Place { root, path: below.as_bytes() }, 0o600, 0).unwrap();
    assert!(layout.outside_place("/etc/../../x").is_err());
    assert!(layout.outside_place("/etc/postgresql/17/main/pg_hba.conf").is_ok());
}
