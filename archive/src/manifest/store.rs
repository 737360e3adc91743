//! The objects of a backup that are not streams: intent and head.

use super::{BackupId, Intent, Manifest, ManifestError};
use crate::repository::lineage::Lineage;
use crate::seal::{Codec, Digest, ObjectKind};
use crate::store::Created;

/// Path of a backup's manifest below the lineage.
pub fn manifest_path(backup: &BackupId) -> String {
    format!("backups/{backup}/manifest")
}

/// Path of a backup's intent below the lineage.
pub fn intent_path(backup: &BackupId) -> String {
    format!("backups/{backup}/intent")
}

/// Stores the head of a backup: its commit point, so everything it names must be durable before.
pub async fn write_manifest(lineage: &Lineage, manifest: &Manifest) -> Result<(), ManifestError> {
    let plain = serde_json::to_vec(manifest).map_err(|error| ManifestError::Refused(error.to_string()))?;
    create(lineage, ObjectKind::Manifest, manifest_path(&manifest.backup), &plain).await
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
    let path = manifest_path(backup);
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
    create(lineage, ObjectKind::Intent, intent_path(&intent.backup), &plain).await
}

/// Reads the intent of a backup.
pub async fn read_intent(lineage: &Lineage, backup: &BackupId) -> Result<Intent, ManifestError> {
    let path = intent_path(backup);
    let plain = lineage.read(ObjectKind::Intent, &path).await?;
    serde_json::from_slice(&plain)
        .map_err(|error| ManifestError::Malformed { path, problem: error.to_string() })
}

/// The backups of a lineage, oldest first, each with whether its manifest is there. Those without one are under way, or failed.
pub async fn list_backups(lineage: &Lineage) -> Result<Vec<(BackupId, bool)>, ManifestError> {
    let mut backups = std::collections::BTreeMap::new();
    for object in lineage.list("backups/").await? {
        let Some((id, name)) = object.path.strip_prefix("backups/").and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        let Ok(id) = id.parse::<BackupId>() else { continue };
        *backups.entry(id).or_insert(false) |= name == "manifest";
    }
    Ok(backups.into_iter().collect())
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
