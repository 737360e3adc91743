//! Space: what a restore will write to each filesystem, beside what is free there.
//!
//! Places that share a filesystem are added up. Recovery needs room for WAL beside the data: `restore_command` brings a segment at a time, and
//! what it replays stays in `pg_wal` until a restartpoint lets it go.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use highwater_archive::manifest::Manifest;
use highwater_pitr::plan::Plan;

use crate::error::RestoreError;
use crate::filled::Places;

/// `max_wal_size` of a server that is told none: WAL that recovery may leave in `pg_wal` before a restartpoint removes it.
const WAL_ON_DISK_BYTES: u64 = 1 << 30;

/// Space on one filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Space {
    /// A directory that goes there.
    pub path: PathBuf,
    /// Bytes that will be written.
    pub needed: u64,
    /// Bytes free.
    pub free: u64,
}

/// What a restore fills, and with what.
#[derive(Debug, Clone, Copy)]
pub struct Filled<'a> {
    /// The directories.
    pub places: Places<'a>,
    /// The backup.
    pub manifest: &'a Manifest,
    /// The WAL.
    pub plan: &'a Plan,
    /// What places hold already that is replaced or removed, in bytes.
    pub present: &'a [(PathBuf, u64)],
}

/// Sums what goes to each filesystem, and compares with what is free there.
pub fn measure(filled: Filled<'_>) -> Result<Vec<Space>, RestoreError> {
    let Filled { places: Places { target_dir, wal_dir, tablespaces }, manifest, plan, present } = filled;
    let bytes_of = |oid: u32| {
        manifest
            .tablespaces
            .iter()
            .find(|tablespace| tablespace.oid == oid)
            .map_or(0, |tablespace| tablespace.bytes)
    };
    let elsewhere: u64 = tablespaces.iter().map(|placed| bytes_of(placed.oid)).sum();
    let wal = wal_bytes(manifest, plan);
    let wal_dir = wal_dir.unwrap_or(target_dir);
    let mut parts = vec![(target_dir, manifest.counts.bytes.saturating_sub(elsewhere)), (wal_dir, wal)];
    parts.extend(tablespaces.iter().map(|placed| (placed.directory.as_path(), bytes_of(placed.oid))));

    let spaces = add_up(&parts, present, |path| {
        let (device, left) = filesystem(path)?;
        Ok::<_, RestoreError>((device, left.f_bavail.saturating_mul(left.f_frsize)))
    })?;
    match spaces.iter().find(|space| space.needed > space.free) {
        Some(Space { path, needed, free }) => {
            Err(RestoreError::NoSpace { path: path.clone(), free: *free, needed: *needed })
        }
        None => Ok(spaces),
    }
}

/// The filesystem that `path` goes to, and what is left of it.
pub(crate) fn filesystem(path: &Path) -> Result<(u64, rustix::fs::StatVfs), RestoreError> {
    let existing = path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/"));
    let failed =
        |source| RestoreError::Io { what: "look at the filesystem of", path: path.to_owned(), source };
    let device = std::fs::metadata(existing).map_err(failed)?.dev();
    let left = rustix::fs::statvfs(existing).map_err(|errno| failed(errno.into()))?;
    Ok((device, left))
}

/// How many bytes of WAL recovery has on disk at most.
pub(crate) fn wal_bytes(manifest: &Manifest, plan: &Plan) -> u64 {
    plan.wal_bytes().min(wal_on_disk(&manifest.postgresql.settings))
        + manifest.postgresql.wal_segment_bytes.bytes()
}

/// How much WAL stays in `pg_wal` at most: `max_wal_size`, in MiB as `pg_settings` has it, where the original had more than the default.
fn wal_on_disk(settings: &BTreeMap<String, String>) -> u64 {
    let set = settings.get("max_wal_size").and_then(|mib| mib.parse::<u64>().ok());
    set.map_or(0, |mib| mib.saturating_mul(1 << 20)).max(WAL_ON_DISK_BYTES)
}

/// Adds up what goes to the same filesystem, without what is there and makes room for it; `look` gives a path's filesystem and what is free there.
pub(crate) fn add_up<E>(
    parts: &[(&Path, u64)],
    present: &[(PathBuf, u64)],
    mut look: impl FnMut(&Path) -> Result<(u64, u64), E>,
) -> Result<Vec<Space>, E> {
    let mut by_device: BTreeMap<u64, Space> = BTreeMap::new();
    for (path, bytes) in parts {
        let (device, free) = look(path)?;
        let space =
            by_device.entry(device).or_insert_with(|| Space { path: path.to_path_buf(), needed: 0, free });
        space.needed = space.needed.saturating_add(*bytes);
    }
    for (path, bytes) in present {
        if let Some(space) = by_device.get_mut(&look(path)?.0) {
            space.needed = space.needed.saturating_sub(*bytes);
        }
    }
    Ok(by_device.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    #[test]
    fn recovery_keeps_as_much_wal_as_the_original_did() {
        let of = |text: &str| wal_on_disk(&[("max_wal_size".to_owned(), text.to_owned())].into());
        assert_eq!((of("512"), of("4096"), of("rubbish")), (1 << 30, 4 << 30, 1 << 30));
    }

    #[test]
    fn what_goes_to_one_filesystem_is_added_up() {
        let parts =
            [("/a/data", 5), ("/b/wal", 7), ("/a/fast", 11)].map(|(path, bytes)| (Path::new(path), bytes));
        let look = |path: &Path| Ok::<_, Infallible>(if path.starts_with("/a") { (1, 100) } else { (2, 50) });
        let space = |path: &str, needed, free| Space { path: path.into(), needed, free };
        assert_eq!(add_up(&parts, &[], look).unwrap(), [space("/a/data", 16, 100), space("/b/wal", 7, 50)]);
        let present =
            [("/a/data", 4), ("/b/wal", 9), ("/a/fast", 1)].map(|(path, bytes)| (path.into(), bytes));
        assert_eq!(
            add_up(&parts, &present, look).unwrap(),
            [space("/a/data", 11, 100), space("/b/wal", 0, 50)]
        );
        let most = [(Path::new("/a"), u64::MAX), (Path::new("/a/b"), 1)];
        assert_eq!(add_up(&most, &[], look).unwrap(), [space("/a", u64::MAX, 100)]);
    }
}
