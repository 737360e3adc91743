//! What lies below a directory, while others may be writing there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use highwater_archive::durable::TEMP_PREFIX;

/// All files below a directory, by their path below it; links to directories are followed. Without those under a
/// temporary name, which are not there yet, and without what goes away while we look; nothing where there is no directory.
pub fn files(directory: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        let entries = match std::fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{}: {error}", at.display()),
        };
        for entry in entries {
            let entry = match entry {
                Ok(entry) => entry,
                // The directory was removed after it was opened.
                Err(error) if error.kind() == ErrorKind::NotFound => break,
                Err(error) => panic!("{}: {error}", at.display()),
            };
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if !entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                let below = path.strip_prefix(directory).expect("below it");
                found.insert(below.to_str().expect("a path in UTF-8").to_owned(), path);
            }
        }
    }
    found
}

/// Holds a restored directory against the original, byte for byte. What may differ is named here, and nothing else.
pub fn assert_same_files(original: &Path, restored: &Path, unlogged: &[String]) {
    let emptied = [
        "pg_wal/",
        "pg_replslot/",
        "pg_dynshmem/",
        "pg_notify/",
        "pg_serial/",
        "pg_snapshots/",
        "pg_stat_tmp/",
        "pg_subtrans/",
    ];
    // Left out by a backup, or written by a restore.
    let apart = [
        "postmaster.pid",
        "postmaster.opts",
        "backup_label",
        "tablespace_map",
        "recovery.signal",
        "standby.signal",
    ];
    let differs = |path: &str| {
        emptied.iter().any(|directory| path.starts_with(directory))
            || apart.contains(&path)
            || path.starts_with("highwater/")
            || path.contains("pg_internal.init")
            || path.contains("pgsql_tmp")
            // The checkpoint in it is made invalid; a restore appends its settings to the other.
            || path == "global/pg_control"
            || path == "postgresql.auto.conf"
            || unlogged.iter().any(|main| path == main)
    };
    let list = |directory: &Path| {
        let mut files = files(directory);
        files.retain(|path, _| !differs(path));
        files
    };
    let (original, restored) = (list(original), list(restored));
    assert_eq!(original.keys().collect::<Vec<_>>(), restored.keys().collect::<Vec<_>>());
    assert!(original.len() > 900, "{} files", original.len());
    for (path, original) in original {
        let same = std::fs::read(original).unwrap() == std::fs::read(&restored[&path]).unwrap();
        assert!(same, "{path} differs");
    }
}
