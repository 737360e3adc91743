//! File lists, relation maps and heads, written into a store in memory and read back.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::pack::{PACK_BLOCKS, PackError, PackReader, PackWriter, block_bytes};
use crate::repository::DEFAULT_EXTENT_BYTES;
use crate::repository::lineage::Lineage;
use crate::seal::{Codec, Digest};
use crate::store::memory::MemoryStore;
use crate::testing;

async fn lineage() -> Lineage {
    testing::lineage(MemoryStore::new()).await
}

fn blocks() -> Option<Vec<u8>> {
    Some(Vec::with_capacity(1 << 20))
}

fn backup() -> BackupId {
    BackupId::new("2026-11-20T06:10:00Z".parse().unwrap(), [0xab; 4])
}

fn path(text: &str) -> FilePath {
    text.parse().unwrap()
}

fn extent(frame: u32) -> Extent {
    Extent {
        pack: 0,
        frame,
        offset: u64::from(frame) * 41_000,
        stored_len: 41_000,
        digest: ExtentDigest([7; 16]),
    }
}

fn file(name: &str, size: u64) -> FileLine {
    let count = u32::try_from(size.div_ceil(u64::from(DEFAULT_EXTENT_BYTES))).unwrap();
    let extents = (0..count).map(extent).collect();
    FileLine::File { path: path(name), file: FileEntry { size, mode: 0o600, mtime: 1_763_635_267, extents } }
}

fn pack() -> FileLine {
    FileLine::Pack { pack: 0, path: "packs/x/000000".into(), header: vec![1, 2, 3] }
}

fn dir(name: &str) -> FileLine {
    FileLine::Dir { path: path(name), mode: 0o700 }
}

fn outside(name: &str) -> FileLine {
    let file = FileEntry { size: 0, mode: 0o640, mtime: -1, extents: vec![] };
    FileLine::Outside { path: name.into(), role: OutsideRole::Hba, file }
}

/// A head of which only the streams count here.
fn head(lineage: &Lineage, file_list: Vec<Part>, relation_map: Vec<Part>) -> Manifest {
    let value = serde_json::json!({
        "backup": backup().as_str(), "label": "", "lineage": lineage.id(), "tool": "highwater 0", "source": "local",
        "started_at": "2026-11-20T06:10:00Z", "stopped_at": "2026-11-20T06:11:00Z",
        "wal": {"timeline": 1, "start_lsn": "0/2000028", "stop_lsn": "0/2000100",
                "first_segment": "000000010000000000000002", "last_segment": "000000010000000000000002",
                "stop_time": "2026-11-20T06:11:00Z"},
        "postgresql": {"major": 17, "version": "", "system_identifier": "7", "catalog_version": 1, "control_version": 1700,
                       "block_bytes": 8192, "relation_segment_blocks": 131_072, "wal_segment_bytes": 16_777_216,
                       "data_checksums": true, "settings": {}},
        "control": {"bytes": "", "mode": 384, "checkpoint_lsn": "0/2000060", "redo_lsn": "0/2000028", "timeline": 1},
        "backup_label": "", "tablespace_map": "", "tablespaces": [], "databases": [], "data_directory": "/d",
        "data_directory_mode": 448, "owner": {"user": "u", "group": "g", "uid": 1, "gid": 1}, "pg_wal_target": null,
        "config_files": {}, "left_out": [], "page_failures": [], "page_failure_count": 0,
        "counts": {"files": 0, "directories": 0, "bytes": 0, "extents": 0, "stored_bytes": 0, "pages_verified": 0,
                   "padded_files": 0, "vanished_files": 0},
        "extent_bytes": DEFAULT_EXTENT_BYTES, "packs": 1, "file_list": file_list, "relation_map": relation_map,
        "previous": null, "wal_end": "0/3000000", "keyring": {"generation": 1, "fingerprint": "00"},
        "what a later version adds": 1,
    });
    serde_json::from_value(value).unwrap()
}

async fn write(lineage: &Lineage, entries: &[FileLine]) -> Result<Vec<Part>, ManifestError> {
    let mut writer = FileListWriter::new(lineage.clone(), backup(), DEFAULT_EXTENT_BYTES);
    for entry in entries {
        writer.push(entry).await?;
    }
    writer.finish().await
}

async fn read(lineage: &Lineage, parts: Vec<Part>) -> Result<Vec<FileLine>, ManifestError> {
    let mut reader = FileListReader::new(lineage.clone(), &head(lineage, parts, vec![]));
    let mut entries = Vec::new();
    while let Some(entry) = reader.next().await? {
        entries.push(entry);
    }
    Ok(entries)
}

fn every_kind() -> Vec<FileLine> {
    let odd = FilePath::from_bytes(b"base/5/caf\xe9 100%".to_vec()).unwrap();
    let empty = FileEntry { size: 0, mode: 0o600, mtime: 0, extents: vec![] };
    vec![
        file("PG_VERSION", 0),
        dir("base"),
        dir("base/5"),
        pack(),
        file("base/5/1259", 114_688),
        file("base/5/1259.1", u64::from(DEFAULT_EXTENT_BYTES) * 3000 + 1),
        FileLine::File { path: odd, file: empty },
        FileLine::Symlink { path: path("conf"), target: "base/5".into() },
        dir("pg_tblspc"),
        FileLine::Tablespace { path: path("pg_tblspc/16384"), target: "/srv/ts".into(), mode: 0o700 },
        dir("pg_tblspc/16384/PG_17_1"),
        file("pg_tblspc/16384/PG_17_1/9", 5),
        outside("/etc/pg/hba"),
        outside("/etc/pg/ident"),
    ]
}

#[tokio::test]
async fn every_kind_of_entry_comes_back() {
    let lineage = lineage().await;
    let parts = write(&lineage, &every_kind()).await.unwrap();
    assert_eq!(parts.len(), 1);
    // 3,001 extents are three lines.
    assert_eq!(parts[0].lines, every_kind().len() as u64 + 2);
    assert_eq!(read(&lineage, parts).await.unwrap(), every_kind());
}

/// I21: a long list is cut into parts named by their digest, and read one by one.
#[tokio::test]
async fn a_long_list_is_many_parts_and_none_is_long() {
    let lineage = lineage().await;
    let mut entries = vec![pack(), dir("base"), dir("base/5")];
    entries.extend((10_000_000..10_090_000).map(|number| file(&format!("base/5/{number}"), 8192)));
    let parts = write(&lineage, &entries).await.unwrap();
    assert!(parts.len() > 2);
    for (number, part) in parts.iter().enumerate() {
        assert!(part.length < 2 << 20, "{}", part.length);
        assert_eq!(part.path, format!("backups/{}/files.{number:04}.{}", backup(), part.digest.short()));
    }
    assert!(read(&lineage, parts).await.unwrap() == entries);
}

#[tokio::test]
async fn the_writer_refuses_what_a_reader_would() {
    let lineage = lineage().await;
    let small = FileEntry { size: 8192, mode: 0o600, mtime: 0, extents: vec![] };
    for (why, entries) in [
        ("order", vec![dir("b"), dir("a")]),
        ("twice", vec![dir("b"), dir("b")]),
        ("walk order, not the order of strings", vec![dir("base"), file("base.x", 0), file("base/1", 0)]),
        ("no directory", vec![file("base/1", 0)]),
        ("the directory was left", vec![dir("a"), dir("b"), file("a/1", 0)]),
        ("no pack", vec![file("a", 1)]),
        ("a pack twice", vec![pack(), pack()]),
        ("too few extents", vec![pack(), FileLine::File { path: path("a"), file: small }]),
        ("inside after outside", vec![outside("/a"), file("b", 0)]),
        ("outside, and relative", vec![outside("a")]),
        ("outside twice", vec![outside("/a"), outside("/a")]),
    ] {
        let refused = write(&lineage, &entries).await;
        assert!(matches!(refused, Err(ManifestError::Refused(_))), "{why}: {refused:?}");
    }
}

/// Parts that are authentic, and not the ones the head names, or not in its order, are refused.
#[tokio::test]
async fn other_parts_are_refused() {
    let lineage = lineage().await;
    let mut entries = vec![pack(), dir("base"), dir("base/5")];
    entries.extend((10_000_000..10_090_000).map(|number| file(&format!("base/5/{number}"), 8192)));
    let parts = write(&lineage, &entries).await.unwrap();

    let mut swapped = parts.clone();
    swapped.swap(0, 1);
    assert!(matches!(read(&lineage, swapped).await, Err(ManifestError::Malformed { .. })));

    let mut digest = parts.clone();
    digest[0].digest = Digest::from_bytes([1; 32]);
    assert!(matches!(read(&lineage, digest).await, Err(ManifestError::OtherPart { what: "digest", .. })));

    let mut length = parts.clone();
    length[1].length += 1;
    assert!(matches!(read(&lineage, length).await, Err(ManifestError::OtherPart { what: "length", .. })));

    let mut missing = parts;
    missing[0].path.replace_range(.., "backups/none");
    assert!(
        matches!(read(&lineage, missing).await, Err(ManifestError::Lineage(error)) if error.is_not_found())
    );
}

#[tokio::test]
async fn heads_relation_maps_and_intents_come_back() {
    let lineage = lineage().await;
    let lines = [
        RelationLine::Database { database: "app".into(), oid: 16384 },
        RelationLine::Relation {
            relation: path("base/16384/16390"),
            schema: "public".into(),
            name: "orders \"x\"".into(),
            kind: "r".into(),
            oid: 16390,
            of: None,
            collations: Vec::new(),
        },
        RelationLine::Relation {
            relation: path("base/16384/16391"),
            schema: "public".into(),
            name: "orders_pkey".into(),
            kind: "i".into(),
            oid: 16391,
            of: Some("public.orders".into()),
            collations: vec!["pg_catalog.default".into()],
        },
    ];
    let mut map = RelationMapWriter::new(lineage.clone(), backup());
    for line in &lines {
        map.push(line).await.unwrap();
    }
    let manifest = head(&lineage, vec![], map.finish().await.unwrap());
    let intent = Intent {
        backup: backup(),
        base: None,
        started_at: Timestamp::UNIX_EPOCH,
        host: "db1".into(),
        writer: "00".into(),
    };
    write_intent(&lineage, &intent).await.unwrap();
    let under_way = ListedBackups { unfinished: vec![backup()], ..ListedBackups::default() };
    assert_eq!(list_backups(&lineage).await.unwrap(), under_way);
    write_manifest(&lineage, &manifest).await.unwrap();
    let complete = ListedBackups { complete: vec![backup()], ..ListedBackups::default() };
    assert_eq!(list_backups(&lineage).await.unwrap(), complete);
    assert!(matches!(write_manifest(&lineage, &manifest).await, Err(ManifestError::Exists { .. })));
    assert_eq!(read_intent(&lineage, &backup()).await.unwrap(), intent);
    let read = read_manifest(&lineage, &backup()).await.unwrap();
    assert_eq!(read, manifest);
    let mut reader = RelationMapReader::new(lineage.clone(), &read);
    for line in lines {
        assert_eq!(reader.next().await.unwrap(), Some(line));
    }
    assert_eq!(reader.next().await.unwrap(), None);
}

/// Bytes that no codec makes smaller.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
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

/// I21: a pack is 24 to 32 MiB; and it never outgrows the blocks that it asks for, whatever is put into it.
#[tokio::test]
async fn packs_stay_within_their_size_and_their_blocks() {
    let lineage = lineage().await;
    let keys = lineage.keys();
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        for extent in [64 << 10, DEFAULT_EXTENT_BYTES, 16 << 20] {
            let given = Arc::new(Mutex::new(Vec::new()));
            let gives = Arc::clone(&given);
            let block = move || {
                let block: Vec<u8> = Vec::with_capacity(block_bytes(extent));
                gives.lock().unwrap().push((block.as_ptr().addr(), block.capacity()));
                Some(block)
            };
            let mut pack = PackWriter::begin(keys.clone(), lineage.id(), &backup(), 3, codec, block).unwrap();
            let header = pack.header().to_vec();
            // The worst case: nothing compresses, and a page more than half of an extent is no multiple of a block.
            let raw = noise(u64::from(extent), extent as usize / 2 + 8192);
            while !pack.is_full() {
                pack.append(&raw).unwrap();
            }
            let finished = pack.finish().unwrap();
            let length: usize = finished.pieces.iter().map(Vec::len).sum();
            let most = (31 << 20) + extent as usize;
            assert!((30 << 20..most).contains(&length), "{length}");
            assert!(finished.pieces.concat().starts_with(&header));
            let used: Vec<_> =
                finished.pieces.iter().map(|piece| (piece.as_ptr().addr(), piece.capacity())).collect();
            let blocks = given.lock().unwrap();
            assert_eq!(used, *blocks, "{codec:?} {extent}");
            assert!(blocks.len() <= PACK_BLOCKS, "{codec:?} {extent}: {} blocks", blocks.len());
        }
    }
    let mut small = PackWriter::begin(keys.clone(), lineage.id(), &backup(), 4, Codec::Lz4, blocks).unwrap();
    let mut frames = 0;
    while !small.is_full() {
        small.append(b"x").unwrap();
        frames += 1;
    }
    assert_eq!(frames, crate::pack::PACK_FRAMES);
}

/// An extent opens from its own bytes and the header alone, at its own place only.
#[tokio::test]
async fn an_extent_is_read_by_one_range_and_nowhere_else() {
    let lineage = lineage().await;
    let keys = lineage.keys();
    let mut pack = PackWriter::begin(keys.clone(), lineage.id(), &backup(), 0, Codec::Lz4, blocks).unwrap();
    let raw = [vec![1; 300_000], noise(9, 70_000), vec![1; 300_000]];
    let extents: Vec<Extent> = raw.iter().map(|raw| pack.append(raw).unwrap()).collect();
    // The same content gives the same digest: that is what later backups compare.
    assert_eq!(extents[0].digest, extents[2].digest);
    let header = pack.header().to_vec();
    let finished = pack.finish().unwrap();
    let reader = PackReader::new(keys.clone(), lineage.id(), &finished.path, &header).unwrap();
    let stored = |extent: &Extent| {
        let at = usize::try_from(extent.offset).unwrap();
        finished.pieces.concat()[at..at + extent.stored_len as usize].to_vec()
    };
    let mut out = Vec::new();
    for (extent, raw) in extents.iter().zip(&raw) {
        reader.open(extent, &mut stored(extent), &mut out).unwrap();
        assert!(out == *raw);
    }
    let moved = Extent { frame: 1, ..extents[0] };
    assert!(matches!(reader.open(&moved, &mut stored(&extents[0]), &mut out), Err(PackError::Seal(_))));
    let other = Extent { digest: extents[1].digest, ..extents[0] };
    let opened = reader.open(&other, &mut stored(&extents[0]), &mut out);
    assert!(matches!(opened, Err(PackError::OtherExtent { frame: 0, .. })));
    assert!(
        PackReader::new(keys.clone(), lineage.id(), "packs/other/000000", &header)
            .unwrap()
            .open(&extents[0], &mut stored(&extents[0]), &mut out)
            .is_err()
    );
}

proptest! {
    /// Whatever a line holds, it is an entry or an error.
    #[test]
    fn lines_are_hostile(line in "[ -~]{0,200}", bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(lines::decode(line.as_bytes()));
        drop(lines::decode(&bytes));
        let almost = format!("{{\"file\":\"{line}\",\"size\":9,\"mode\":1,\"mtime\":0,\"extents\":[[0,1,2,3,\"{line}\"]]}}");
        drop(lines::decode(almost.as_bytes()));
    }
}

/// What a host must have for a database is read as format.md shows it, and an entry from before it was recorded reads as such and is
/// written again without it.
#[test]
fn what_a_database_needs_of_its_host_may_be_missing() {
    let older = serde_json::json!({
        "oid": 5, "name": "app", "encoding": "UTF8", "collate": "de_DE", "ctype": "de_DE", "locale_provider": "c",
        "collation_version": "2.36", "examined": true, "extensions": [{"name": "hstore", "version": "1.8"}],
        "collations": {"public.german": "153.120"},
    });
    let read: Database = serde_json::from_value(older.clone()).unwrap();
    assert_eq!((&read.libraries, &read.collation_libraries), (&None, &None));
    assert_eq!(serde_json::to_value(&read).unwrap(), older);
    let mut newer = older;
    let more = serde_json::json!({
        "library_collation_version": "2.41",
        "collation_libraries": {"public.german": {"provider": "i", "version": "153.120"}},
        "libraries": [{"library": "$libdir/hstore", "extension": "hstore", "functions": 60}],
        "range_partitioned": [{"schema": "public", "name": "p", "collations": ["pg_catalog.default"]}],
    });
    newer.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let read: Database = serde_json::from_value(newer.clone()).unwrap();
    assert_eq!(read.libraries.as_ref().unwrap().first().unwrap().functions, 60);
    assert_eq!(serde_json::to_value(&read).unwrap(), newer);
}
