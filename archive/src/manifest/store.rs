//! The objects of a backup that are not streams: intent and head.

use std::collections::BTreeMap;

use super::{BackupId, Intent, Manifest, ManifestError};
use crate::names;
use crate::repository::lineage::{Lineage, LineageError};
use crate::seal::{Codec, Digest, ObjectKind};
use crate::store::Created;

/// Stores the head of a backup: its commit point, so everything it names must be durable before.
pub async fn write_manifest(lineage: &Lineage, manifest: &Manifest) -> Result<(), ManifestError> {
    let plain = serde_json::to_vec(manifest).map_err(|error| ManifestError::Refused(error.to_string()))?;
    create(lineage, ObjectKind::Manifest, names::backup_manifest(&manifest.backup), &plain).await
}

/// Reads the head of a backup.
pub async fn read_manifest(lineage: &Lineage, backup: &BackupId) -> Result<Manifest, ManifestError> {
    Ok(read_manifest_and_digest(lineage, backup).await?.0)
}

/// The same with the keyed digest of its plaintext, by which the next backup names it (I9).
pub async fn read_manifest_and_digest(
    lineage: &Lineage,
    backup: &BackupId,
) -> Result<(Manifest, Digest), ManifestError> {
    let path = names::backup_manifest(backup);
    let plain = lineage.read(ObjectKind::Manifest, &path).await?;
    let malformed = |problem: String| ManifestError::Malformed { path: path.clone(), problem };
    let manifest: Manifest = serde_json::from_slice(&plain).map_err(|error| malformed(error.to_string()))?;
    if manifest.backup != *backup {
        return Err(malformed(format!("it is the manifest of {}", manifest.backup)));
    }
    if manifest.extent_bytes == 0 || manifest.extent_bytes > 16 << 20 {
        return Err(malformed(format!("extents of {} bytes", manifest.extent_bytes)));
    }
    Ok((manifest, lineage.keys().digest(&plain)))
}

/// Stores the intent of a backup, its first write.
pub async fn write_intent(lineage: &Lineage, intent: &Intent) -> Result<(), ManifestError> {
    let plain = serde_json::to_vec(intent).map_err(|error| ManifestError::Refused(error.to_string()))?;
    create(lineage, ObjectKind::Intent, names::backup_intent(&intent.backup), &plain).await
}

/// Reads the intent of a backup.
pub async fn read_intent(lineage: &Lineage, backup: &BackupId) -> Result<Intent, ManifestError> {
    let path = names::backup_intent(backup);
    let plain = lineage.read(ObjectKind::Intent, &path).await?;
    serde_json::from_slice(&plain)
        .map_err(|error| ManifestError::Malformed { path, problem: error.to_string() })
}

/// The backups that a lineage names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListedBackups {
    /// Those whose manifest is there, oldest first.
    pub complete: Vec<BackupId>,
    /// Those without one, oldest first: under way, or failed.
    pub unfinished: Vec<BackupId>,
    /// Paths of objects that lie where backups lie and belong to none.
    pub foreign: Vec<String>,
}

/// The backups of a lineage, by the names of their objects.
///
/// # Errors
/// The store could not be asked.
pub async fn list_backups(lineage: &Lineage) -> Result<ListedBackups, LineageError> {
    let mut seen: BTreeMap<BackupId, bool> = BTreeMap::new();
    let mut listed = ListedBackups::default();
    for object in lineage.list(names::BACKUPS).await? {
        let below = object.path.strip_prefix(names::BACKUPS).and_then(|below| below.split_once('/'));
        match below.and_then(|(id, name)| Some((id.parse().ok()?, name))) {
            Some((id, name)) => *seen.entry(id).or_insert(false) |= name == "manifest",
            None => listed.foreign.push(object.path),
        }
    }
    for (backup, complete) in seen {
        if complete { listed.complete.push(backup) } else { listed.unfinished.push(backup) }
    }
    Ok(listed)
}

async fn create(
    lineage: &Lineage,
    kind: ObjectKind,
    path: String,
    plain: &[u8],
) -> Result<(), ManifestError> {
    match lineage.create(kind, &path, Codec::Zstd, plain).await? {
        Created::New => Ok(()),
        Created::Exists => Err(ManifestError::Exists { path }),
    }
}
