//! The catalog of a lineage in a store that damages, loses and refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
#![allow(clippy::single_range_in_vec_init)]

use std::sync::Arc;

use bytes::Bytes;
use highwater_pitr::segment::{SegmentName, WalFile, WalSegmentSize};
use highwater_pitr::timeline::TimelineId;
use serde_json::json;

use super::*;
use crate::manifest::BackupId;
use crate::names;
use crate::repository::lineage::Lineage;
use crate::seal::{Codec, ObjectKind};
use crate::store::memory::{Fault, MemoryStore, Operation};
use crate::store::{Created, Store as _};
use crate::testing;

const A: &str = "20261120T010000Z-00000001";
const B: &str = "20261120T020000Z-00000002";

struct Ground {
    store: Arc<MemoryStore>,
    lineage: Lineage,
}

async fn ground() -> Ground {
    let store = MemoryStore::new();
    let lineage = testing::lineage(store.clone()).await;
    Ground { store: Arc::new(store), lineage }
}

fn tli(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn segment(timeline: u32, number: u64) -> SegmentName {
    SegmentName::from_number(tli(timeline), number, WalSegmentSize::DEFAULT)
}

impl Ground {
    /// An object that was not there.
    async fn create(&self, kind: ObjectKind, path: &str, plain: &[u8]) {
        let created = self.lineage.create(kind, path, Codec::None, plain).await.unwrap();
        assert_eq!(created, Created::New, "{path}");
    }

    /// A segment of which only the name counts here, and that it is as long as an object.
    async fn segments(&self, timeline: u32, numbers: &[u64]) {
        for number in numbers {
            let path = names::wal_object(&WalFile::Segment(segment(timeline, *number)));
            let created =
                self.lineage.create_sealed(&path, vec![Bytes::from_static(&[b'x'; 200])]).await.unwrap();
            assert_eq!(created, Created::New, "{path}");
        }
    }

    async fn history(&self, timeline: u32, text: &str) {
        let path = names::wal_object(&WalFile::History(tli(timeline)));
        self.create(ObjectKind::SmallWal, &path, text.as_bytes()).await;
    }

    /// A backup of segments 2 and 3 of timeline 1, with some fields changed.
    async fn backup(&self, id: &str, change: impl FnOnce(&mut serde_json::Value)) {
        let mut manifest = json!({
            "backup": id, "label": "test", "lineage": self.lineage.id().to_string(), "tool": "highwater 0.1.0",
            "source": "local", "started_at": "2026-11-20T01:00:00Z", "stopped_at": "2026-11-20T01:00:09Z",
            "wal": {
                "timeline": 1, "start_lsn": "0/2000028", "stop_lsn": "0/3000100",
                "first_segment": segment(1, 2).to_string(), "last_segment": segment(1, 3).to_string(),
                "stop_time": "2026-11-20T01:00:08.123456Z",
            },
            "postgresql": {
                "major": 17, "version": "PostgreSQL 17.11", "catalog_version": 202406281,
                "system_identifier": testing::SYSTEM_IDENTIFIER.to_string(),
                "control_version": 1700, "block_bytes": 8192, "relation_segment_blocks": 131072,
                "wal_segment_bytes": 16777216, "data_checksums": true, "settings": {},
            },
            "control": { "bytes": "", "mode": 384, "checkpoint_lsn": "0/2000080", "redo_lsn": "0/2000028", "timeline": 1 },
            "backup_label": "", "tablespace_map": "", "tablespaces": [], "databases": [],
            "data_directory": "/srv/data", "data_directory_mode": 448,
            "owner": { "user": "postgres", "group": "postgres", "uid": 1, "gid": 1 },
            "pg_wal_target": null, "config_files": {}, "left_out": [], "page_failures": [], "page_failure_count": 0,
            "counts": {
                "files": 0, "directories": 0, "bytes": 0, "extents": 0, "stored_bytes": 0, "pages_verified": 0,
                "padded_files": 0, "vanished_files": 0,
            },
            "extent_bytes": 1048576, "packs": 0, "file_list": [], "relation_map": [], "previous": null,
            "wal_end": "0/4000000", "keyring": { "generation": 1, "fingerprint": "00" },
        });
        change(&mut manifest);
        let id: BackupId = id.parse().unwrap();
        let plain = serde_json::to_vec(&manifest).unwrap();
        self.create(ObjectKind::Manifest, &names::backup_manifest(&id), &plain).await;
    }

    fn path_of_manifest(&self, id: &str) -> String {
        self.lineage.full_path(&names::backup_manifest(&id))
    }

    async fn load(&self) -> Catalog {
        Catalog::load(&self.lineage).await.unwrap()
    }

    /// What is broken, and why, when there should be one such thing.
    async fn broken(&self) -> (String, String) {
        let catalog = self.load().await;
        let [one] = catalog.broken.as_slice() else { panic!("{:?}", catalog.broken) };
        (one.path.clone(), one.reason.clone())
    }
}

#[tokio::test]
async fn an_empty_lineage_has_an_empty_catalog() {
    let catalog = ground().await.load().await;
    assert!(catalog.backups.is_empty() && catalog.timelines.is_empty() && catalog.broken.is_empty());
}

#[tokio::test]
async fn backups_timelines_and_gaps_are_found_by_their_names() {
    let ground = ground().await;
    ground.segments(1, &[2, 3, 4, 7]).await;
    ground.segments(2, &[7, 8]).await;
    ground.history(2, "1\t0/7000100\tno recovery target specified\n").await;
    ground.backup(A, |_| {}).await;
    let intent = names::backup_intent(&B);
    ground.create(ObjectKind::Intent, &intent, b"{}").await;

    let catalog = ground.load().await;
    assert_eq!(catalog.broken, []);
    let [backup] = catalog.backups.as_slice() else { panic!("{:?}", catalog.backups) };
    assert_eq!(catalog.backup(A).unwrap().id, backup.id);
    assert_eq!(backup.point.stop.to_string(), "0/3000100");
    assert_eq!(backup.point.stop_time.to_string(), "2026-11-20T01:00:08.123456Z");
    assert_eq!(backup.missing_wal, []);
    assert_eq!(catalog.unfinished, [B.parse().unwrap()]);

    let [one, two] = catalog.timelines.as_slice() else { panic!("{:?}", catalog.timelines) };
    assert_eq!(one.segments.runs(), [2..5, 7..8]);
    assert_eq!(
        one.gaps.iter().map(|gap| (gap.first, gap.last)).collect::<Vec<_>>(),
        [(segment(1, 5), segment(1, 6))]
    );
    assert_eq!(two.history.as_ref().unwrap().ancestors.len(), 1);
    assert_eq!(two.gaps, []);
    let ways = &catalog.ground().ways;
    assert!(ways[1].has_history && !ways[0].has_history);
    assert_eq!(catalog.held()[&tli(2)].runs(), [7..9]);
}

#[tokio::test]
async fn a_backup_without_its_own_wal_says_what_is_missing() {
    let ground = ground().await;
    ground.backup(A, |_| {}).await;
    let missing = |catalog: &Catalog| {
        let gaps = catalog.backup(A).unwrap().missing_wal.iter();
        gaps.map(|gap| (gap.first, gap.last)).collect::<Vec<_>>()
    };
    assert_eq!(missing(&ground.load().await), [(segment(1, 2), segment(1, 3))]);
    ground.segments(1, &[3, 5]).await;
    assert_eq!(missing(&ground.load().await), [(segment(1, 2), segment(1, 2))]);
    ground.segments(1, &[2]).await;
    assert_eq!(missing(&ground.load().await), []);
}

/// I23: a backup that was taken while the host's clock was an hour ahead has the highest name and stays where it belongs.
#[tokio::test]
async fn backups_stand_in_the_order_of_the_wal_whatever_the_clock_said() {
    let ground = ground().await;
    ground.segments(1, &[2, 3, 4, 5]).await;
    ground
        .backup(A, |manifest| {
            let (start, stop) = (segment(1, 4), segment(1, 5));
            manifest["wal"] = json!({
                "timeline": 1, "start_lsn": "0/4000028", "stop_lsn": "0/5000100", "first_segment": start.to_string(),
                "last_segment": stop.to_string(), "stop_time": "2026-11-20T00:59:08.123456Z",
            });
        })
        .await;
    ground.backup(B, |_| {}).await;
    let catalog = ground.load().await;
    assert!(A < B && catalog.broken.is_empty(), "{:?}", catalog.broken);
    let ids: Vec<&str> = catalog.backups.iter().map(|backup| backup.id.as_str()).collect();
    assert_eq!(ids, [B, A]);
}

/// Whatever stands in for a manifest is named, and does not hide the others.
#[tokio::test]
async fn a_broken_manifest_is_reported_and_not_skipped() {
    for (what, words) in [
        ("flipped", ""),
        ("cut", ""),
        ("another's", ""),
        ("not JSON", "expected ident"),
        ("other cluster", "system identifier 8"),
        ("other backup", "manifest of"),
        ("wrong segments", "do not hold its WAL"),
        ("backwards", "starts at LSN"),
    ] {
        let ground = ground().await;
        let path = ground.path_of_manifest(B);
        ground.backup(A, |_| {}).await;
        match what {
            "not JSON" => {
                let path = names::backup_manifest(&B);
                ground.create(ObjectKind::Manifest, &path, b"no JSON").await;
            }
            "other cluster" => {
                ground.backup(B, |manifest| manifest["postgresql"]["system_identifier"] = json!("8")).await
            }
            "other backup" => ground.backup(B, |manifest| manifest["backup"] = json!(A)).await,
            "wrong segments" => {
                ground.backup(B, |manifest| manifest["wal"]["stop_lsn"] = json!("0/9000100")).await
            }
            "backwards" => {
                ground.backup(B, |manifest| manifest["wal"]["stop_lsn"] = json!("0/2000000")).await
            }
            _ => ground.backup(B, |_| {}).await,
        }
        let mut bytes = ground.store.peek(&path).unwrap().to_vec();
        match what {
            "flipped" => {
                let middle = bytes.len() / 2;
                bytes[middle] ^= 1;
                ground.store.tamper(&path, bytes);
            }
            "cut" => ground.store.tamper(&path, bytes[..bytes.len() - 21].to_vec()),
            // I6: an object opens under its own name alone.
            "another's" => {
                ground.store.tamper(&path, ground.store.peek(&ground.path_of_manifest(A)).unwrap())
            }
            _ => {}
        }
        let (broken, reason) = ground.broken().await;
        assert_eq!(broken, names::backup_manifest(&B), "{what}");
        assert!(reason.contains(words), "{what}: {reason}");
        assert_eq!(ground.load().await.backups.len(), 1, "{what}");
    }
}

/// I9: each manifest names the one before; one that is gone, or is another, does not pass unnoticed.
#[tokio::test]
async fn a_backup_that_vanished_or_was_exchanged_is_reported() {
    let ground = ground().await;
    ground.backup(A, |_| {}).await;
    let id: BackupId = A.parse().unwrap();
    let plain = ground.lineage.read(ObjectKind::Manifest, &names::backup_manifest(&id)).await.unwrap();
    let digest = ground.lineage.keys().digest(&plain).to_string();
    ground.backup(B, |manifest| manifest["previous"] = json!({ "backup": A, "digest": digest })).await;
    assert_eq!(ground.load().await.broken, []);
    let path = ground.path_of_manifest(A);

    ground.store.delete(&path).await.unwrap();
    let gone = ground.broken().await;
    assert_eq!(gone.0, names::backup_manifest(&id));
    assert!(gone.1.contains("is not there") && gone.1.contains(B), "{}", gone.1);

    ground.backup(A, |manifest| manifest["label"] = json!("another")).await;
    let another = ground.broken().await;
    assert!(another.1.contains("is not the manifest that backup"), "{}", another.1);

    // One that is damaged is damaged, and nothing more is said of it.
    ground.store.tamper(&path, b"rubbish".to_vec());
    let damaged = ground.broken().await;
    assert!(!damaged.1.contains("names"), "{}", damaged.1);
}

#[tokio::test]
async fn a_broken_history_file_is_reported() {
    let ground = ground().await;
    ground.history(2, "what is this\n").await;
    let (path, reason) = ground.broken().await;
    assert_eq!(path, "wal/00000002.history");
    assert!(!reason.is_empty());
    assert!(ground.load().await.timelines[0].history.is_none());
}

/// An outage is no absence: the catalog then fails, and is not smaller.
#[tokio::test]
async fn a_store_that_does_not_answer_is_an_error() {
    let ground = ground().await;
    ground.segments(1, &[2, 3]).await;
    ground.history(2, "1\t0/7000100\tno recovery target specified\n").await;
    ground.backup(A, |_| {}).await;
    for (operation, part) in [
        (Operation::Get, "manifest"),
        (Operation::Get, ".history"),
        (Operation::List, "backups"),
        (Operation::List, "wal"),
    ] {
        ground.store.inject(operation, part, Fault::FailBefore, true);
        assert!(Catalog::load(&ground.lineage).await.is_err(), "{operation:?} of {part}");
        ground.store.heal();
    }
    assert_eq!(ground.load().await.backups.len(), 1);
}

/// What one repository lacks and another has is there; a timeline that began elsewhere in one is not mixed with the other's.
#[tokio::test]
async fn repositories_are_planned_on_as_one() {
    let (one, two) = (ground().await, ground().await);
    one.segments(1, &[2, 3, 5]).await;
    two.segments(1, &[3, 4, 6]).await;
    one.segments(2, &[6]).await;
    two.segments(2, &[6, 7]).await;
    two.history(2, "1\t0/6000100\tx\n").await;
    one.segments(3, &[6]).await;
    two.segments(3, &[6, 7]).await;
    one.history(3, "1\t0/6000100\tx\n").await;
    two.history(3, "1\t0/6000200\tx\n").await;
    one.backup(A, |_| {}).await;
    two.backup(A, |_| {}).await;
    two.backup(B, |_| {}).await;
    let (first, second) = (one.load().await, two.load().await);
    let holdings = |gives: bool| {
        [
            Holding { lineage: &one.lineage, catalog: &first, gives_backups: true },
            Holding { lineage: &two.lineage, catalog: &second, gives_backups: gives },
        ]
    };
    let joined = joined::join(&holdings(true)).unwrap();
    assert_eq!(joined.held[&tli(1)].runs(), [2..7]);
    assert_eq!(joined.held[&tli(2)].runs(), [6..8]);
    assert_eq!(joined.held[&tli(3)].runs(), [6..7]);
    let ways: Vec<(u32, bool)> =
        joined.ways.iter().map(|way| (way.timeline.get(), way.has_history)).collect();
    assert_eq!(ways, [(1, false), (2, true), (3, true)]);
    let [note] = joined.notes.as_slice() else { panic!("{:?}", joined.notes) };
    assert!(note.contains("timeline 3 began elsewhere"), "{note}");
    let ids =
        |ground: &ground::Ground| ground.points.iter().map(|point| point.id.clone()).collect::<Vec<_>>();
    assert_eq!(ids(&joined), [A, B]);
    assert_eq!(ids(&joined::join(&holdings(false)).unwrap()), [A]);
}
