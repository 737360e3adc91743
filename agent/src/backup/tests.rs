//! The copy of directories that were made up, into a repository in a directory.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{BackupId, FileLine, FileListReader, Manifest, OutsideRole};
use highwater_archive::pack::PackReader;
use highwater_archive::repository::DEFAULT_EXTENT_BYTES;
use highwater_archive::seal::Codec;
use highwater_archive::store::local::LocalStore;
use highwater_archive::testing;
use jiff::Timestamp;

use super::error::BackupError;
use super::packer::{self, Packer};
use super::pipeline::{self, Copied, Copy};
use super::reader::Reader;
use super::walk::Rules;
use super::work::{Done, FileRef, OpenFile, Place, ReadBytes, Unit};
use crate::progress::Progress;

async fn lineage(repository: &Path) -> Lineage {
    testing::lineage(LocalStore::new(repository)).await
}

fn backup() -> BackupId {
    BackupId::new(Timestamp::UNIX_EPOCH, [1; 4])
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed * 2 + 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn write(root: &Path, path: &str, bytes: &[u8]) {
    let path = root.join(path);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// What a data directory may hold, with a file of several slices between small ones, and all that is left out.
fn made_up(root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut kept: BTreeMap<String, Vec<u8>> = [
        ("PG_VERSION", b"17\n".to_vec()),
        ("base/5/1259", vec![1; 81_920]),
        ("base/5/1259_vm", vec![0; 8192]),
        ("base/5/16384", noise(1, (40 << 20) + 8192)),
        ("base/5/16384.1", noise(2, 3 << 20)),
        ("base/5/16399_init", vec![0; 8192]),
        ("base/5/PG_VERSION", b"17\n".to_vec()),
        ("global/1260", vec![2; 8192]),
        ("pg_xact/0000", noise(3, 70_000)),
        ("zero", vec![]),
    ]
    .into_iter()
    .map(|(path, bytes)| (path.to_owned(), bytes))
    .collect();
    for number in 0..500 {
        kept.insert(format!("base/7/{}", 20_000 + number), noise(number, number as usize * 97));
    }
    for (path, bytes) in &kept {
        write(root, path, bytes);
    }
    for path in [
        "postmaster.pid",
        "backup_label",
        "base/5/16399",
        "base/5/16399_fsm",
        "base/5/t3_16400",
        "base/5/pg_internal.init",
        "base/pgsql_tmp/pgsql_tmp1.0",
        "global/pg_control",
        "highwater/lineage.json",
        "pg_notify/0000",
        "pg_wal/000000010000000000000001",
    ] {
        write(root, path, b"left out");
    }
    std::fs::create_dir_all(root.join("pg_wal/archive_status")).unwrap();
    kept
}

async fn copy(
    lineage: &Lineage,
    data: &Path,
    outside: Vec<FileRef>,
    jobs: usize,
) -> Result<Copied, BackupError> {
    let copy = Copy {
        lineage: lineage.clone(),
        backup: backup(),
        codec: Codec::Lz4,
        extent_bytes: DEFAULT_EXTENT_BYTES,
        jobs,
        rules: Rules { data_dir: data.to_owned(), ..Rules::default() },
        outside,
        pages: None,
    };
    let progress = Progress::start("test", 0, true);
    // Whatever happens, it ends.
    tokio::time::timeout(Duration::from_secs(120), pipeline::run(copy, &progress)).await.unwrap()
}

/// The bytes of all files of a file list, read as a restore reads them.
async fn read_back(lineage: &Lineage, copied: &Copied) -> (BTreeMap<String, Vec<u8>>, Vec<String>) {
    let mut head: serde_json::Value = serde_json::from_str(HEAD).unwrap();
    head["file_list"] = serde_json::to_value(&copied.file_list).unwrap();
    let head: Manifest = serde_json::from_value(head).unwrap();
    let mut list = FileListReader::new(lineage.clone(), &head);
    let mut packs = BTreeMap::new();
    let (mut files, mut directories) = (BTreeMap::new(), Vec::new());
    while let Some(line) = list.next().await.unwrap() {
        let (name, file) = match line {
            FileLine::Pack { pack, path, header } => {
                let reader = PackReader::new(lineage.keys().clone(), lineage.id(), &path, &header).unwrap();
                let bytes = lineage.store().get(&lineage.full_path(&path)).await.unwrap();
                packs.insert(pack, (reader, bytes));
                continue;
            }
            FileLine::Dir { path, .. } => {
                directories.push(path.to_string());
                continue;
            }
            FileLine::File { path, file } => (path.to_string(), file),
            FileLine::Outside { path, file, .. } => (path, file),
            other => panic!("{other:?}"),
        };
        let (mut bytes, mut out) = (Vec::new(), Vec::new());
        for extent in &file.extents {
            let (reader, pack) = &packs[&extent.pack];
            let at = usize::try_from(extent.offset).unwrap();
            let mut stored = pack[at..at + extent.stored_len as usize].to_vec();
            reader.open(extent, &mut stored, &mut out).unwrap();
            bytes.extend_from_slice(&out);
        }
        assert_eq!(bytes.len() as u64, file.size, "{name}");
        files.insert(name, bytes);
    }
    (files, directories)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_is_copied_once_and_in_order_by_any_number_of_threads() {
    for jobs in [1, 3, 8] {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        let mut expected = made_up(&data);
        let elsewhere = scratch.path().join("elsewhere.conf");
        std::fs::write(&elsewhere, "port = 1").unwrap();
        let elsewhere = elsewhere.to_str().unwrap().to_owned();
        let place = Place::Outside(elsewhere.clone(), OutsideRole::Config);
        expected.insert(elsewhere, b"port = 1".to_vec());

        let lineage = lineage(&scratch.path().join("repository")).await;
        let outside = vec![FileRef { place, relation: None, follow: true }];
        let copied = copy(&lineage, &data, outside, jobs).await.unwrap();
        let (files, directories) = read_back(&lineage, &copied).await;
        assert!(files == expected, "{:?}", files.keys().collect::<Vec<_>>());
        let wanted =
            ["base", "base/5", "base/7", "global", "pg_notify", "pg_wal", "pg_wal/archive_status", "pg_xact"];
        assert_eq!(directories, wanted);
        let packs = lineage.list("packs/").await.unwrap();
        assert_eq!(packs.len(), copied.stored.packs as usize);
        assert_eq!(packs.iter().map(|pack| pack.size).sum::<u64>(), copied.stored.bytes);
        assert_eq!(copied.totals.counts.files, expected.len() as u64);
        let bytes: usize = expected.values().map(Vec::len).sum();
        assert_eq!(copied.totals.counts.bytes, bytes as u64);
    }
}

/// A store that refuses ends the copy with its own error, and no thread is left waiting for a buffer.
#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_refuses_ends_the_copy() {
    for jobs in [1, 4] {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        made_up(&data);
        let repository = scratch.path().join("repository");
        let lineage = lineage(&repository).await;
        // A file where the directory of packs would be.
        write(&repository, &lineage.full_path("packs"), b"in the way");
        let refused = copy(&lineage, &data, vec![], jobs).await;
        assert!(matches!(refused, Err(BackupError::Lineage(_))), "{:?}", refused.err());
    }
}

/// An error of the walk ends it too.
#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_leads_away_ends_the_copy() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    made_up(&data);
    std::os::unix::fs::symlink("/etc", data.join("stray")).unwrap();
    let lineage = lineage(&scratch.path().join("repository")).await;
    let refused = copy(&lineage, &data, vec![], 2).await;
    assert!(matches!(refused, Err(BackupError::LeavesDataDirectory { .. })), "{:?}", refused.err());
}

/// Opens a file, lets `change` happen to it, and reads what was 3 MiB and some.
async fn read_after(name: &str, change: impl FnOnce(&std::fs::File)) -> (ReadBytes, u64) {
    let scratch = tempfile::tempdir().unwrap();
    let size = (3 << 20) + 8192;
    write(scratch.path(), name, &noise(4, size));
    let lineage = lineage(&scratch.path().join("repository")).await;
    let (source, uploads) = packer::source(lineage, backup(), Codec::None, DEFAULT_EXTENT_BYTES, 1);
    let uploads = tokio::spawn(uploads.run());
    let path = name.parse::<highwater_archive::manifest::FilePath>().unwrap();
    let relation = super::names::RelationFile::parse(name.rsplit('/').next().unwrap().as_bytes());
    let name = FileRef { place: Place::Inside(path), relation, follow: false };
    let file = OpenFile::open(name, scratch.path()).unwrap().unwrap();
    change(&std::fs::OpenOptions::new().write(true).open(&file.path).unwrap());
    let root = scratch.path().to_owned();
    let done = tokio::task::spawn_blocking(move || {
        let packer = Packer::new(source);
        let mut reader =
            Reader::new(root, None, DEFAULT_EXTENT_BYTES as usize, packer, Arc::new(AtomicBool::new(false)));
        let to = file.size;
        let done = reader.read(Unit::Slice { file: Arc::new(file), from: 0, to });
        reader.finish().unwrap();
        done
    });
    let done = done.await.unwrap();
    uploads.await.unwrap().unwrap();
    match done {
        Done::Slice { bytes, last: true, .. } => (bytes, size as u64),
        other => panic!("{other:?}"),
    }
}

/// What is cut off a relation is zeros (WAL replay cuts it off again); any other file is what is there.
#[tokio::test]
async fn relations_are_padded_and_other_files_are_not() {
    let (relation, _) = read_after("base/5/16384", |file| file.set_len(1 << 20).unwrap()).await;
    assert!(relation.padded && relation.ended_at.is_none());
    assert_eq!(relation.extents.len(), 4);
    // Two whole extents of zeros are one content.
    assert_eq!(relation.extents[1].digest, relation.extents[2].digest);

    let (other, _) = read_after("pg_xact/0000", |file| file.set_len((1 << 20) + 5).unwrap()).await;
    assert_eq!((other.padded, other.ended_at, other.extents.len()), (false, Some((1 << 20) + 5), 2));

    let (empty, _) = read_after("pg_xact/0000", |file| file.set_len(0).unwrap()).await;
    assert_eq!((empty.ended_at, empty.extents.len()), (Some(0), 0));
}

/// What a file grows by after it was opened is not read.
#[tokio::test]
async fn growth_is_ignored() {
    let (grown, size) = read_after("base/5/16384", |file| file.set_len(9 << 20).unwrap()).await;
    assert_eq!((grown.extents.len(), grown.ended_at, grown.padded), (4, None, false));
    assert_eq!(size.div_ceil(u64::from(DEFAULT_EXTENT_BYTES)), 4);
}

/// A head of which only the file list counts here.
const HEAD: &str = r#"{
    "backup": "19700101T000000Z-01010101", "label": "", "lineage": "05050505050505050505050505050505", "tool": "", "source": "local",
    "started_at": "1970-01-01T00:00:00Z", "stopped_at": "1970-01-01T00:00:00Z",
    "wal": {"timeline": 1, "start_lsn": "0/2000028", "stop_lsn": "0/2000100", "first_segment": "000000010000000000000002",
            "last_segment": "000000010000000000000002", "stop_time": "2026-11-20T06:11:00Z"},
    "postgresql": {"major": 17, "version": "", "system_identifier": "7", "catalog_version": 1, "control_version": 1700,
                   "block_bytes": 8192, "relation_segment_blocks": 131072, "wal_segment_bytes": 16777216,
                   "data_checksums": true, "settings": {}},
    "control": {"bytes": "", "mode": 384, "checkpoint_lsn": "0/2000060", "redo_lsn": "0/2000028", "timeline": 1},
    "backup_label": "", "tablespace_map": "", "tablespaces": [], "databases": [], "data_directory": "/d",
    "data_directory_mode": 448, "owner": {"user": "u", "group": "g", "uid": 1, "gid": 1}, "pg_wal_target": null,
    "config_files": {}, "left_out": [], "page_failures": [], "page_failure_count": 0,
    "counts": {"files": 0, "directories": 0, "bytes": 0, "extents": 0, "stored_bytes": 0, "pages_verified": 0,
               "padded_files": 0, "vanished_files": 0},
    "extent_bytes": 1048576, "packs": 1, "file_list": [], "relation_map": [], "previous": null, "wal_end": "0/3000000",
    "keyring": {"generation": 1, "fingerprint": "00"}
}"#;
