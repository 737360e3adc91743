//! What a standby may replay on this host.
//!
//! A restore with a target knows beforehand which tablespaces its WAL makes ([`crate::replayed`]). A standby goes on, past
//! every plan: its upstream may make a tablespace at any time, and on the upstream's own host replay would take the
//! upstream's directory for its own. So each segment that is handed to a standby of a plan is looked at by the index
//! that comes with it. A path that holds something is let pass only when a tablespace of this data directory leads there
//! already, as it does when recovery passes a record again. It cannot be mended by waiting, so the answer is an error and
//! not "no such file" (I14): the server stops, says why, and goes on when it is started again.
//!
//! A record that a segment's end cuts is known with the segment that holds its end, which cannot be replayed before it is
//! handed out: only where the bytes carried in may be such an end, the index of the segment before is read too.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use highwater_archive::lineage::Lineage;
use highwater_archive::wal::{self, WalGetError};
use highwater_pitr::index::{TablespaceChange, TablespaceRecord};
use highwater_pitr::segment::SegmentName;

use super::Delivery;
use crate::replayed::{self, ReplayedError};

/// A segment, with the tablespaces made or dropped by records that end in it. Those are not known when the record that its
/// beginning cuts may be one, and the segment before is not to be had.
///
/// # Errors
/// [`WalGetError`].
pub(super) async fn get(lineage: &Lineage, name: SegmentName) -> Result<Option<Delivery>, WalGetError> {
    let Some((bytes, index)) = wal::get_indexed(lineage, name).await? else { return Ok(None) };
    let made = wal::tablespaces_ending_in(lineage, &index).await?;
    Ok(Some(Delivery { bytes, made }))
}

/// Holds the paths of those that are made against this host.
///
/// # Errors
/// [`ReplayedError`] for the first that replay would share with something else.
pub(super) fn may_be_replayed<'a>(
    made: impl IntoIterator<Item = &'a TablespaceRecord>,
    data_dir: &Path,
) -> Result<(), ReplayedError> {
    for record in made {
        let TablespaceChange::Created { path } = &record.change else { continue };
        let path = PathBuf::from(OsStr::from_bytes(path));
        // One that is missing PostgreSQL asks for by itself.
        if !path.as_os_str().is_empty() && path.exists() && !is_own(&path, data_dir) {
            replayed::look_into(record.oid, &path, record.lsn)?;
        }
    }
    Ok(())
}

/// Whether a tablespace of this data directory leads to the path.
fn is_own(path: &Path, data_dir: &Path) -> bool {
    let Ok(links) = std::fs::read_dir(data_dir.join("pg_tblspc")) else { return false };
    links.flatten().any(|link| std::fs::read_link(link.path()).is_ok_and(|target| target == path))
}

#[cfg(test)]
mod tests {
    use highwater_pitr::lsn::Lsn;

    use super::*;

    fn made(path: &Path) -> TablespaceRecord {
        let at = Lsn::new(0x0500_0100);
        let change = TablespaceChange::Created { path: path.as_os_str().as_bytes().to_vec() };
        TablespaceRecord { lsn: at, end: at, prev: at, oid: 16400, change }
    }

    /// A path in use is refused, unless it is this data directory's own from an earlier pass.
    #[test]
    fn a_path_is_free_or_ones_own() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, path) = (scratch.path().join("data"), scratch.path().join("ts"));
        std::fs::create_dir_all(data.join("pg_tblspc")).unwrap();
        let dropped = TablespaceRecord { change: TablespaceChange::Dropped, ..made(&path) };
        let all = [dropped, made(Path::new("")), made(&path)];
        may_be_replayed(&all, &data).unwrap();
        std::fs::create_dir(&path).unwrap();
        may_be_replayed(&all, &data).unwrap();
        std::fs::create_dir(path.join("PG_17_202406281")).unwrap();
        let error = may_be_replayed(&all, &data).unwrap_err();
        assert!(error.to_string().contains("in use on this host"), "{error}");
        std::os::unix::fs::symlink(scratch.path(), data.join("pg_tblspc/1")).unwrap();
        assert!(may_be_replayed(&all, &data).is_err());
        std::os::unix::fs::symlink(&path, data.join("pg_tblspc/16399")).unwrap();
        may_be_replayed(&all, &data).unwrap();
    }
}
