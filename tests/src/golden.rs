//! Everything that today's code reads out of a repository, as one JSON document.
//!
//! The fixtures of a format version are repositories that were written once, each beside such a document. A test reads them
//! again with the code as it is: whatever it reads differently is a break of the format.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use highwater_archive::keyring::{Keyring, Unlock};
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{
    BackupId, FileEntry, FileLine, FileListReader, Manifest, RelationMapReader, list_backups, read_intent,
    read_manifest,
};
use highwater_archive::names;
use highwater_archive::pack::PackReader;
use highwater_archive::repository::{Cluster, Repository};
use highwater_archive::seal::{self, ObjectKind};
use highwater_archive::store::local::LocalStore;
use highwater_archive::wal;
use highwater_pitr::index::{SegmentIndex, TablespaceChange};
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::TimelineId;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

/// SHA-256 and length: enough to tell any two contents apart.
pub fn content(bytes: &[u8]) -> Value {
    json!({ "length": bytes.len(), "sha256": hex::encode(Sha256::digest(bytes)) })
}

/// Reads a whole repository. `keys` holds the key file's text of each cluster.
///
/// # Panics
/// Where anything cannot be read.
pub async fn describe(repository: &Path, keys: &BTreeMap<String, String>) -> Value {
    let repository = Repository::open(Arc::new(LocalStore::new(repository))).await.expect("a repository");
    let mut clusters = Map::new();
    for name in repository.clusters().await.expect("clusters") {
        let unlock = Unlock::from_text(&keys[name.as_str()]).expect("a key");
        let locked = repository.cluster(&name).await.expect("a cluster");
        let cluster = locked.unlock(&unlock).await.expect("the keyring opens");
        let described = json!({
            "cluster": locked.info(),
            "keyring": keyring(cluster.keys()),
            "lineages": lineages(&cluster, &unlock).await,
        });
        clusters.insert(name.to_string(), described);
    }
    json!({ "repository": repository.info(), "clusters": clusters })
}

fn keyring(keys: &Keyring) -> Value {
    let ids: Vec<Value> =
        keys.keys().map(|key| json!({ "id": key.id(), "class": key.class().as_str() })).collect();
    json!({ "generation": keys.generation(), "fingerprint": keys.fingerprint().to_string(), "keys": ids })
}

async fn lineages(cluster: &Cluster, unlock: &Unlock) -> Value {
    let mut lineages = Vec::new();
    for lineage in cluster.lineages().await.expect("lineages") {
        let mut backups = Vec::new();
        let listed = list_backups(&lineage).await.expect("backups");
        let mut all = [listed.complete.clone(), listed.unfinished].concat();
        all.sort();
        for backup in &all {
            let described = if listed.complete.contains(backup) {
                describe_backup(&lineage, backup, unlock).await
            } else {
                Value::Null
            };
            let intent = read_intent(&lineage, backup).await.expect("an intent");
            backups.push(json!({ "backup": backup.to_string(), "intent": intent, "complete": described }));
        }
        lineages.push(json!({
            "lineage": lineage.record(),
            "closed": lineage.closed().await.expect("closed or not"),
            "histories": histories(&lineage).await,
            "timelines": timelines(&lineage).await,
            "backups": backups,
        }));
    }
    lineages.into()
}

async fn wal_content(lineage: &Lineage, file: WalFile) -> Value {
    let found = wal::get(lineage, &file).await.unwrap_or_else(|error| panic!("{file}: {error}"));
    content(&found.unwrap_or_else(|| panic!("{file} is listed and absent")))
}

async fn histories(lineage: &Lineage) -> Value {
    let mut histories = Map::new();
    for timeline in wal::list_histories(lineage).await.expect("histories") {
        let file = WalFile::History(timeline);
        histories.insert(file.to_string(), wal_content(lineage, file).await);
    }
    histories.into()
}

async fn timelines(lineage: &Lineage) -> Value {
    let mut timelines = Map::new();
    for timeline in wal::list_timelines(lineage).await.expect("timelines") {
        timelines.insert(timeline.to_string(), describe_timeline(lineage, timeline).await);
    }
    timelines.into()
}

async fn describe_timeline(lineage: &Lineage, timeline: TimelineId) -> Value {
    let listing = wal::list_timeline(lineage, timeline).await.expect("a timeline");
    assert!(listing.conflicts.is_empty(), "{:?}", listing.conflicts);
    let mut files = Map::new();
    for segment in &listing.segments {
        let file = WalFile::Segment(*segment);
        let index = wal::read_index(lineage, *segment).await.expect("an index");
        let index = index.as_ref().map(describe_index);
        files
            .insert(file.to_string(), json!({ "content": wal_content(lineage, file).await, "index": index }));
    }
    for segment in &listing.partials {
        let file = WalFile::Partial(*segment);
        files.insert(file.to_string(), json!({ "content": wal_content(lineage, file).await }));
    }
    for (segment, offset) in &listing.backups {
        let file = WalFile::Backup { segment: *segment, offset: *offset };
        files.insert(file.to_string(), json!({ "content": wal_content(lineage, file).await }));
    }
    for segment in &listing.variants {
        let name = format!("{segment}.variant");
        files.insert(name, variant(lineage, *segment).await);
    }
    json!({ "claim": wal::read_claim(lineage, timeline).await.expect("a claim"), "files": files })
}

/// The one variant that is kept beside the segment.
async fn variant(lineage: &Lineage, segment: SegmentName) -> Value {
    let beside = format!("{}.variant.", names::wal_object(&WalFile::Segment(segment)));
    let path = lineage.list(&beside).await.expect("variants").remove(0).path;
    let sealed = lineage.store().get(&lineage.full_path(&path)).await.expect("a variant");
    let header = seal::read_header(lineage.keys(), &path, &sealed).expect("a header");
    let bytes = lineage.read(ObjectKind::Segment, &path).await.expect("a variant");
    json!({ "content": content(&bytes), "valid_len": header.valid_len })
}

fn describe_index(index: &SegmentIndex) -> Value {
    json!({
        "decoder": index.decoder,
        "major": index.major.to_string(),
        "system_identifier": index.system_identifier.to_string(),
        "first_record": index.first_record.map(|lsn| lsn.to_string()),
        "first_prev": index.first_prev.map(|lsn| lsn.to_string()),
        "last_record": index.last_record.map(|lsn| lsn.to_string()),
        "end": index.end.to_string(),
        "ended_by_switch": index.ended_by_switch,
        "stops_early": index.stops_early,
        "carried_in": { "length": index.carried_in.len, "here": index.carried_in.here, "bytes": content(&index.carried_in.bytes) },
        "unfinished": index.unfinished.as_ref().map(|unfinished| json!({
            "start": unfinished.start.to_string(),
            "length": unfinished.total_len,
            "bytes": content(&unfinished.bytes),
        })),
        "transactions": index.transactions,
        "restore_points": index.restore_points,
        "checkpoints": index.checkpoints,
        "tablespaces": index.tablespaces.iter().map(|tablespace| json!({
            "lsn": tablespace.lsn.to_string(),
            "end": tablespace.end.to_string(),
            "prev": tablespace.prev.to_string(),
            "oid": tablespace.oid,
            "created": match &tablespace.change {
                TablespaceChange::Created { path } => Some(String::from_utf8_lossy(path)),
                TablespaceChange::Dropped => None,
            },
        })).collect::<Vec<_>>(),
    })
}

async fn describe_backup(lineage: &Lineage, backup: &BackupId, unlock: &Unlock) -> Value {
    let manifest = read_manifest(lineage, backup).await.expect("a manifest");
    let copy =
        lineage.store().get(&lineage.full_path(&names::backup_keyring(backup))).await.expect("a keyring");
    let copy = Keyring::unwrap(&copy, unlock).expect("the copy of the keyring opens");
    let mut relations = Vec::new();
    let mut reader = RelationMapReader::new(lineage.clone(), &manifest);
    while let Some(line) = reader.next().await.expect("a line of the relation map") {
        relations.push(json!(line));
    }
    json!({
        "manifest": manifest,
        "keyring": keyring(&copy),
        "files": files(lineage, &manifest).await,
        "relations": relations,
    })
}

async fn files(lineage: &Lineage, manifest: &Manifest) -> Vec<Value> {
    let mut packs: BTreeMap<u32, PackReader> = BTreeMap::new();
    let mut lines = Vec::new();
    let mut reader = FileListReader::new(lineage.clone(), manifest);
    while let Some(line) = reader.next().await.expect("a line of the file list") {
        lines.push(match line {
            FileLine::Pack { pack, path, header } => {
                let keys = Arc::clone(lineage.keys());
                let reader = PackReader::new(keys, lineage.id(), &path, &header).expect("a pack's header");
                packs.insert(pack, reader);
                json!({ "pack": pack, "path": path })
            }
            FileLine::Dir { path, mode } => json!({ "dir": path.to_string(), "mode": mode }),
            FileLine::Tablespace { path, target, mode } => {
                json!({ "link": path.to_string(), "target": target, "mode": mode })
            }
            FileLine::Symlink { path, target } => json!({ "symlink": path.to_string(), "target": target }),
            FileLine::File { path, file } => {
                json!({ "file": path.to_string(), "entry": entry(lineage, &packs, &file).await })
            }
            FileLine::Outside { path, role, file } => {
                json!({ "outside": path, "role": role, "entry": entry(lineage, &packs, &file).await })
            }
        });
    }
    lines
}

async fn entry(lineage: &Lineage, packs: &BTreeMap<u32, PackReader>, file: &FileEntry) -> Value {
    let mut hash = Sha256::new();
    let mut raw = Vec::new();
    for extent in &file.extents {
        let pack = &packs[&extent.pack];
        let range = extent.offset..extent.offset + u64::from(extent.stored_len);
        let stored =
            lineage.store().get_range(&lineage.full_path(pack.path()), range).await.expect("an extent");
        pack.open(extent, &mut stored.to_vec(), &mut raw).expect("an extent opens");
        hash.update(&raw);
    }
    json!({
        "size": file.size,
        "mode": file.mode,
        "mtime": file.mtime,
        "extents": file.extents.len(),
        "sha256": hex::encode(hash.finalize()),
    })
}
