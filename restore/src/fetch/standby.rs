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
//! handed out: only where the bytes carried in may be such an end, the segment before is needed too. A record before the
//! place where recovery begins is not replayed and matters to nobody. Else the segment before was replayed just now, or lies in
//! the local `pg_wal`; where it is not whole there, the repositories are asked for its index, all of them, as one may have what
//! another lacks. When it is nowhere, waiting mends nothing either.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use highwater_archive::lineage::Lineage;
use highwater_archive::repository::{Repository, Silent};
use highwater_archive::wal;
use highwater_pitr::control::{ControlFile, is_invalidated};
use highwater_pitr::index::{Seam, SegmentIndex, TablespaceChange, TablespaceRecord, crossing};
use highwater_pitr::scan::{scan_segment, undecoded_tablespace};
use highwater_pitr::segment::SegmentName;

use super::{Delivery, FetchError, Request, Source, SourceError};
use crate::replayed::{self, ReplayedError};

/// Whether a segment may be handed out.
pub(super) enum Held {
    /// Nothing that its replay makes is in the way of anything.
    Free,
    /// A repository that may know could not say.
    NotKnown(SourceError),
}

/// Holds what the replay of a segment makes against this host.
///
/// # Errors
/// [`FetchError`] when it cannot be replayed here, or nobody will ever know.
pub(super) async fn hold_against_host(
    delivery: &Delivery,
    request: &Request<'_>,
    sources: &mut [Source],
) -> Result<Held, FetchError> {
    let Some(index) = &delivery.index else { return Ok(Held::Free) };
    let file = || request.file.to_string();
    let segment = index.segment;
    if index.undecoded.is_some()
        && let Ok(Some(lsn)) = undecoded_tablespace(&delivery.bytes, segment)
    {
        return Err(FetchError::StrangeTablespace { file: file(), lsn });
    }
    let refused = |why| FetchError::Tablespace { file: file(), why };
    may_be_replayed(&index.tablespaces, request.data_dir).map_err(refused)?;
    if !index.carried_in.may_end_a_tablespace() || begins_behind(index, request) {
        return Ok(Held::Free);
    }
    let seam = match local_seam(index, request.data_dir) {
        Some(seam) => seam,
        None => match archived_seam(index, request.left(Duration::ZERO), sources).await {
            Ok(Some(seam)) => seam,
            Ok(None) => {
                let before = wal::names_before(index).next().unwrap_or(segment).to_string();
                return Err(FetchError::CutTablespace { file: file(), before });
            }
            Err(failed) => return Ok(Held::NotKnown(failed)),
        },
    };
    may_be_replayed(&seam.tablespace, request.data_dir).map_err(refused)?;
    Ok(Held::Free)
}

/// Whether recovery begins in this segment or behind it, so that nothing carried in is replayed: by the plan, or, once the server has
/// taken over from the backup's label, by its control file.
fn begins_behind(index: &SegmentIndex, request: &Request<'_>) -> bool {
    let size = index.segment_size;
    if request.plan.is_some_and(|plan| index.segment.number(size) <= plan.first_segment.number(size)) {
        return true;
    }
    let redo = || {
        let bytes = std::fs::read(request.data_dir.join("global/pg_control")).ok()?;
        let control = ControlFile::parse(&bytes).ok();
        control.filter(|control| !is_invalidated(control)).map(|control| control.redo)
    };
    !request.data_dir.join("backup_label").exists()
        && redo().is_some_and(|redo| redo >= index.segment.start(size))
}

/// What crosses into the segment, by the one before it in `pg_wal`. There an archived one stays when it has been replayed, until a
/// restartpoint behind it.
fn local_seam(index: &SegmentIndex, data_dir: &Path) -> Option<Seam> {
    let read = |name: SegmentName| {
        let path = data_dir.join("pg_wal").join(name.to_string());
        let whole = path.metadata().is_ok_and(|file| file.len() == index.segment_size.bytes());
        let bytes = whole.then(|| std::fs::read(path).ok()).flatten()?;
        crossing(&scan_segment(&bytes, name).ok()?.index, index).ok()
    };
    wal::names_before(index).find_map(read)
}

/// The same by the repositories; `None` when none of them has it whole.
async fn archived_seam(
    index: &SegmentIndex,
    limit: Duration,
    sources: &mut [Source],
) -> Result<Option<Seam>, SourceError> {
    let mut asked: FuturesUnordered<_> = sources.iter_mut().map(|source| ask(source, index, limit)).collect();
    let mut failure = None;
    while let Some(answer) = asked.next().await {
        match answer {
            Ok(Some(seam)) => return Ok(Some(seam)),
            Ok(None) => {}
            Err(failed) => failure = Some(failed),
        }
    }
    failure.map_or(Ok(None), Err)
}

/// The same by one repository, for at most `limit`, and no longer than it answers at all.
async fn ask(
    source: &mut Source,
    index: &SegmentIndex,
    limit: Duration,
) -> Result<Option<Seam>, SourceError> {
    let answer = tokio::time::timeout(limit, async {
        let lineage = source.lineage().await?;
        let before = index_before(&source.name, &lineage, index);
        let attended = lineage.repository().attend(source.patience, before).await;
        attended.unwrap_or_else(|silent| Err(source.silent(silent)))
    });
    let answer = answer.await.unwrap_or_else(|_| Err(source.silent(Silent { waited: limit })));
    if answer.is_err() {
        source.lineage = None;
    }
    Ok(answer?.and_then(|before| crossing(&before, index).ok()))
}

/// The index of the segment before. Absence is only believed of a repository that is still there.
async fn index_before(
    repository: &str,
    lineage: &Lineage,
    index: &SegmentIndex,
) -> Result<Option<SegmentIndex>, SourceError> {
    let failed = |reason: String, hint: Option<String>| SourceError {
        repository: repository.to_owned(),
        message: format!("the segment before {}, of which it may end a tablespace: {reason}", index.segment),
        hint,
        permanent: false,
    };
    let before = wal::read_index_before(lineage, index).await;
    let before = before.map_err(|error| failed(error.to_string(), error.hint()))?;
    if before.is_none() {
        let there = Repository::open(lineage.store().clone()).await;
        there.map_err(|error| failed(error.to_string(), error.hint()))?;
    }
    Ok(before)
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
