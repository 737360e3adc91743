//! Promise 4: with the key and `docs/format.md` anyone rebuilds a cluster without our binary. `docs/decrypt.py` is anyone.

use std::fs;
use std::path::Path;

use highwater_tests::python::decrypt_py;
use highwater_tests::{Cluster, Scratch, files, for_each_major, give_to_server_user};

use crate::ground::Ground;

/// What `restore` writes or changes on top of what was backed up.
const OURS: [&str; 5] =
    ["backup_label", "global/pg_control", "postgresql.auto.conf", "tablespace_map", "recovery.signal"];

/// Every file of a backup and every segment, byte for byte what our own binary gives; and the cluster starts, recovers and
/// holds every row.
#[test]
fn a_cluster_is_rebuilt_by_decrypt_py_alone() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::new(postgres, &scratch, |highwater| highwater.local_repository("repo"));
        let expected = Ground::rows(&ground.cluster);
        rebuild(&scratch, &ground, &scratch.join("repo"), &scratch.join("repo.key"), &expected);
    });
}

/// Rebuilds the cluster in `repository`, a local directory, with `decrypt.py`, and compares.
pub fn rebuild(scratch: &Scratch, ground: &Ground, repository: &Path, key: &Path, expected: &str) {
    let run = |command: &str, rest: &[&str]| {
        let (repository, key) = (repository.to_string_lossy(), key.to_string_lossy());
        let mut arguments = vec![command, &repository, "--cluster", "main", "--key", &key];
        arguments.extend(rest);
        decrypt_py(arguments).success()
    };
    let listed = run("list", &[]);
    assert!(listed.contains(&format!("backup {}", ground.backup)), "{listed}");

    // Segments: against what archive-get gives.
    let wal = scratch.dir("wal");
    let first =
        listed.split("WAL ").nth(1).and_then(|rest| rest.split(' ').next()).expect("the first segment");
    let number = |name: &str| u64::from_str_radix(&name[16..], 16).expect("a segment's number");
    assert_eq!(first[..16], ground.last[..16], "a short archive has one log number");
    let ours = scratch.join("ours");
    for number in number(first)..=number(&ground.last) {
        let name = format!("{}{number:08X}", &first[..16]);
        let theirs = wal.join(&name);
        run("segment", &[&name, "-o", &theirs.to_string_lossy()]);
        ground.highwater.ok(&["archive-get", &name, &ours.to_string_lossy()]);
        let theirs = fs::read(&theirs).expect("their segment");
        assert_eq!(theirs.len(), 1 << 20);
        assert!(theirs == fs::read(&ours).expect("our segment"), "{name} differs");
    }

    // Files: against what restore gives.
    let target = scratch.join("rebuilt");
    let said = run("files", &[&ground.backup, "-o", &target.to_string_lossy()]);
    assert!(said.contains("restore_command = "), "{said}");
    let restored = scratch.join("restored");
    let map = format!("{}={}", scratch.join("space").display(), scratch.join("moved").display());
    let restore = [
        "restore",
        "--target-dir",
        &restored.to_string_lossy(),
        "--tablespace-map",
        &map,
        "--backup",
        &ground.backup,
    ];
    ground.highwater.ok(&restore);
    let (rebuilt, mut restored) = (files(&target), files(&restored));
    restored.retain(|path, _| !is_ours(path));
    for (path, file) in &restored {
        let found = rebuilt.get(path).unwrap_or_else(|| panic!("{} was not rebuilt", path));
        assert!(fs::read(found).expect("a file") == fs::read(file).expect("a file"), "{path} differs");
    }
    let more: Vec<_> = rebuilt.keys().filter(|path| !restored.contains_key(*path)).collect();
    assert!(more.iter().all(|path| is_ours(path)), "{more:?}");
    assert!(restored.len() > 900, "{} files", restored.len());

    // And it lives.
    for directory in [&target, &wal, &scratch.join("rebuilt-tablespaces")] {
        give_all(directory);
    }
    scratch.file("rebuilt/recovery.signal", "");
    let copy = Cluster::open(ground.cluster.postgres(), scratch, "rebuilt", &target);
    copy.option("archive_mode", "off");
    copy.option("restore_command", &format!("cp {}/%f %p", wal.display()));
    copy.start();
    copy.wait_until_writable();
    assert_eq!(Ground::rows(&copy), expected);
    copy.stop_proven();
}

fn is_ours(path: &str) -> bool {
    path.starts_with("highwater/") || OURS.contains(&path)
}

/// Gives a whole tree to the server user.
fn give_all(path: &Path) {
    give_to_server_user(path);
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory") {
            give_all(&entry.expect("an entry").path());
        }
    }
}
