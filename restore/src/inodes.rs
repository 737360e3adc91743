//! Inodes: how many files a restore will make on each filesystem, beside how many more that can hold.
//!
//! A filesystem may have space and no room for another file, which would show late. Where all files of the backup fit on each of the
//! filesystems nothing has to be known of which goes where; else the file list is read, and the files of each tablespace are counted.
//! Filesystems without a fixed number of inodes say that they have none at all, and are not judged.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{FileLine, FileListReader, Manifest, ManifestError};
use highwater_pitr::plan::Plan;

use crate::error::RestoreError;
use crate::filled::Places;
use crate::space::{Space, add_up, filesystem, wal_bytes};

/// What a restore makes of its own: configuration, settings, the plan, marks.
const OWN_FILES: u64 = 32;

/// Whether the files of a restore into empty directories can be made.
///
/// # Errors
/// [`RestoreError::NoInodes`]; [`ManifestError`]; a filesystem that cannot be looked at.
pub async fn check(
    places: Places<'_>,
    lineage: &Lineage,
    manifest: &Manifest,
    plan: &Plan,
) -> Result<(), RestoreError> {
    let wal = wal_bytes(manifest, plan) / manifest.postgresql.wal_segment_bytes.bytes();
    let all = manifest.counts.files.saturating_add(manifest.counts.directories).saturating_add(OWN_FILES);
    let mut fits = true;
    for place in places.all() {
        fits &= room(place)?.1 >= all.saturating_add(wal);
    }
    if fits {
        return Ok(());
    }
    let within = match places.tablespaces {
        [] => BTreeMap::new(),
        _ => count(lineage, manifest).await?,
    };
    let of = |oid: u32| within.get(&oid).copied().unwrap_or(0);
    let elsewhere: u64 = places.tablespaces.iter().map(|placed| of(placed.oid)).sum();
    let wal_dir = places.wal_dir.unwrap_or(places.target_dir);
    let mut parts = vec![(places.target_dir, all.saturating_sub(elsewhere)), (wal_dir, wal)];
    parts.extend(places.tablespaces.iter().map(|placed| (placed.directory.as_path(), of(placed.oid))));
    match add_up(&parts, &[], room)?.into_iter().find(|space| space.needed > space.free) {
        Some(Space { path, needed, free }) => Err(RestoreError::NoInodes { path, needed, free }),
        None => Ok(()),
    }
}

/// The filesystem that `path` goes to, and how many more files it can hold.
fn room(path: &Path) -> Result<(u64, u64), RestoreError> {
    let (device, left) = filesystem(path)?;
    Ok((device, if left.f_files == 0 { u64::MAX } else { left.f_favail }))
}

/// How many files and directories lie in each tablespace.
async fn count(lineage: &Lineage, manifest: &Manifest) -> Result<BTreeMap<u32, u64>, ManifestError> {
    let mut list = FileListReader::new(lineage.clone(), manifest);
    let mut within = BTreeMap::new();
    while let Some(line) = list.next().await? {
        if let FileLine::File { path, .. } | FileLine::Dir { path, .. } | FileLine::Symlink { path, .. } =
            line
            && let Some(oid) = tablespace_of(path.as_bytes())
        {
            *within.entry(oid).or_insert(0) += 1;
        }
    }
    Ok(within)
}

/// The tablespace that a path of the file list lies in.
fn tablespace_of(path: &[u8]) -> Option<u32> {
    let below = path.strip_prefix(b"pg_tblspc/")?;
    let oid = below.get(..below.iter().position(|byte| *byte == b'/')?)?;
    std::str::from_utf8(oid).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_a_tablespace_is_told_by_its_path() {
        assert_eq!(tablespace_of(b"pg_tblspc/16384/PG_17/5/1"), Some(16384));
        for other in ["pg_tblspc/16384", "pg_tblspc", "base/5/1", "pg_tblspc/x/1"] {
            assert_eq!(tablespace_of(other.as_bytes()), None, "{other}");
        }
    }

    /// What has no fixed number of inodes has room for any, and no filesystem has more than it says.
    #[test]
    fn a_filesystem_says_how_many_files_it_can_hold() {
        let directory = tempfile::tempdir().unwrap();
        let (device, free) = room(&directory.path().join("not/there/yet")).unwrap();
        assert_eq!(device, room(directory.path()).unwrap().0);
        assert!(free > 0);
        // The kernel keeps no number for its own processes.
        assert_eq!(room(Path::new("/proc")).unwrap().1, u64::MAX);
    }
}
