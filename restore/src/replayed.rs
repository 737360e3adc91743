//! The tablespaces that replay makes by itself.
//!
//! A CREATE TABLESPACE behind the backup's start lies in the WAL that recovery replays. PostgreSQL then links `pg_tblspc/<oid>`
//! to the path that stands in the WAL; no map leads it elsewhere. It dies when that path is missing, and takes a version
//! directory that lies there for its own (`create_tablespace_directories` in `commands/tablespace.c`): on the host of the
//! original it would write into the original's files, and leftovers of a cluster that is gone would mix with what is
//! replayed, since replay neither empties nor shortens a file that it makes. So each such path must be free here, which is
//! looked at before a byte is written ([`examine`]), and it is made when all else is in place ([`Replayed::make`]).
//!
//! The path stands in the WAL, so a superuser of the original chose it. Root therefore makes nothing where the server's user could
//! not make it too: what is missing is made in a directory of that user's, and anywhere else a person makes it first.
//!
//! A tablespace of the backup may be among them: made after the backup's redo position and before `tablespace_map` was
//! read. Replay leads its link to the original path again, so it must have been put there.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use highwater_archive::durable::DurableError;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::plan::ReplayedTablespace;

use crate::ownership::{self, Account};
use crate::places::{self, LOST_AND_FOUND, PLACE_MARKER};
use crate::tablespaces::{Placed, TablespaceError};

/// A tablespace that replay makes, and what lies at its path here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// Its oid.
    pub oid: u32,
    /// Its directory, on any host.
    pub path: PathBuf,
    /// Start of the record that makes it.
    pub lsn: Lsn,
    /// Start of the record that drops it again, when recovery comes to that.
    pub dropped: Option<Lsn>,
    /// What was found.
    pub found: Found,
}

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing: the directory is to be made.
    Absent,
    /// An empty directory.
    Empty,
    /// A tablespace of the backup is restored there.
    Restored,
}

impl Found {
    /// In a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Absent => "absent",
            Self::Empty => "empty",
            Self::Restored => "restored",
        }
    }
}

/// Where else a restore writes.
#[derive(Debug, Clone, Copy)]
pub struct Destinations<'a> {
    /// The data directory, the place of `pg_wal`, that of configuration.
    pub directories: &'a [&'a Path],
    /// The backup's tablespaces.
    pub placed: &'a [Placed],
    /// Directories of tablespaces that this restore empties first, of all that is of this cluster.
    pub emptied: &'a [PathBuf],
    /// Who the server runs as, when not this process's user.
    pub owner: Option<&'a Account>,
}

/// A path that replay needs and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum ReplayedError {
    /// Something is there already.
    #[error(
        "replay makes tablespace {oid} in {} (CREATE TABLESPACE at LSN {lsn}), which is in use on this host: it holds {found}",
        path.display()
    )]
    InUse {
        /// Its oid.
        oid: u32,
        /// The path.
        path: PathBuf,
        /// Where it is made.
        lsn: Lsn,
        /// An entry of the directory.
        found: String,
    },
    /// The directory cannot be made, or not be used by the server.
    #[error(
        "replay makes tablespace {oid} in {} (CREATE TABLESPACE at LSN {lsn}), and that cannot be: {reason}",
        path.display()
    )]
    Unusable {
        /// Its oid.
        oid: u32,
        /// The path.
        path: PathBuf,
        /// Where it is made.
        lsn: Lsn,
        /// What stands against it.
        reason: String,
    },
    /// Root would make it in a directory of somebody else's, and give it away.
    #[error(
        "replay makes tablespace {oid} in {} (CREATE TABLESPACE at LSN {lsn}), which is absent, and root makes no directory in {} because the WAL says so: {reason}",
        path.display(), within.display()
    )]
    Unasked {
        /// Its oid.
        oid: u32,
        /// The path.
        path: PathBuf,
        /// Where it is made.
        lsn: Lsn,
        /// What is there of the way to it.
        within: PathBuf,
        /// Whose that is.
        reason: String,
        /// Who runs the server.
        user: String,
    },
    /// It would lie in, or around, another directory of this restore.
    #[error(
        "replay makes tablespace {oid} in {} (CREATE TABLESPACE at LSN {lsn}), which overlaps {}, where this restore writes too",
        path.display(), other.display()
    )]
    Overlap {
        /// Its oid.
        oid: u32,
        /// The path.
        path: PathBuf,
        /// Where it is made.
        lsn: Lsn,
        /// The other directory.
        other: PathBuf,
    },
    /// A mapping names it.
    #[error(
        "tablespace {oid} is made by replay (CREATE TABLESPACE at LSN {lsn}) in {}: it is not in the backup, and cannot be mapped elsewhere",
        path.display()
    )]
    NotMappable {
        /// Its oid.
        oid: u32,
        /// The path.
        path: PathBuf,
        /// Where it is made.
        lsn: Lsn,
    },
    /// A tablespace of the backup was mapped elsewhere, and replay leads it back.
    #[error(
        "tablespace {oid} was made while the backup began (CREATE TABLESPACE at LSN {lsn}): replay leads it to {} again, so it cannot be mapped to {}",
        path.display(), mapped.display()
    )]
    LedBack {
        /// Its oid.
        oid: u32,
        /// The path in the WAL.
        path: PathBuf,
        /// Where it is made.
        lsn: Lsn,
        /// Where it was mapped.
        mapped: PathBuf,
    },
    /// The directory was to be made and could not.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl ReplayedError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        let before = |lsn: &Lsn| format!("to a target before it (--to-lsn {lsn} --before)");
        Some(match self {
            Self::InUse { lsn, .. } => format!(
                "recovery cannot put it elsewhere: restore on a host where that path is free, or {}; when the original is gone, move what is there away",
                before(lsn)
            ),
            Self::Unusable { path, lsn, .. } => format!(
                "let {} be absent, or an empty directory of the server's user (chown it, if nothing else needs it); or restore {}",
                path.display(),
                before(lsn)
            ),
            Self::Unasked { path, user, lsn, .. } => format!(
                "if that is where it belongs, make it yourself: install -d -o {user} -m 700 {}; or restore {}",
                path.display(),
                before(lsn)
            ),
            Self::Overlap { lsn, .. } => {
                format!("put the other directory elsewhere, or restore {}", before(lsn))
            }
            Self::NotMappable { lsn, .. } => {
                format!(
                    "leave the mapping out; that path must be free on this host. Or restore {}",
                    before(lsn)
                )
            }
            Self::LedBack { .. } => {
                "leave the mapping out, where its path is free; or begin with a later backup (--backup)"
                    .to_owned()
            }
            Self::Durable(error) => return error.hint(),
        })
    }
}

/// Looks at each path that replay needs. Nothing is made.
///
/// # Errors
/// [`ReplayedError`] for the first one that it cannot have.
pub fn examine(
    made: &[ReplayedTablespace],
    destinations: Destinations<'_>,
) -> Result<Vec<Replayed>, ReplayedError> {
    let mut examined: Vec<Replayed> = Vec::new();
    for tablespace in made.iter().filter(|tablespace| !tablespace.path.is_empty()) {
        let ReplayedTablespace { oid, lsn, dropped, .. } = *tablespace;
        let path = path_of(tablespace);
        let own = destinations.placed.iter().find(|placed| placed.oid == oid);
        if let Some(placed) = own.filter(|placed| placed.directory != path) {
            return Err(ReplayedError::LedBack { oid, path, lsn, mapped: placed.directory.clone() });
        }
        let found = match own {
            Some(_) => Found::Restored,
            None => place_of(oid, &path, lsn, destinations)?,
        };
        examined.push(Replayed { oid, path, lsn, dropped, found });
    }
    Ok(examined)
}

/// Says of a mapping of something that is not in the backup, if replay makes it, why it cannot be mapped.
pub fn explain(
    error: TablespaceError,
    made: &[ReplayedTablespace],
) -> Result<TablespaceError, ReplayedError> {
    let TablespaceError::Unknown { from, .. } = &error else { return Ok(error) };
    let named = |made: &&ReplayedTablespace| made.oid.to_string() == *from || made.path == from.as_bytes();
    match made.iter().find(named) {
        Some(made) => Err(ReplayedError::NotMappable { oid: made.oid, path: path_of(made), lsn: made.lsn }),
        None => Ok(error),
    }
}

impl Replayed {
    /// Makes the directory, owned by the server's user, durably; what was free must still be so.
    ///
    /// # Errors
    /// [`ReplayedError::InUse`], [`ReplayedError::Unusable`], [`ReplayedError::Durable`].
    pub fn make(&self, owner: Option<&Account>) -> Result<(), ReplayedError> {
        match self.found {
            Found::Restored => return Ok(()),
            Found::Absent => {
                may_be_made(self.oid, &self.path, self.lsn, owner)?;
                ownership::make_directory(&self.path, owner)?;
            }
            Found::Empty => {
                let unusable = |reason: String| {
                    let (oid, path, lsn) = (self.oid, self.path.clone(), self.lsn);
                    ReplayedError::Unusable { oid, path, lsn, reason }
                };
                let metadata = std::fs::metadata(&self.path).map_err(|error| unusable(error.to_string()))?;
                belongs_to_server(metadata.uid(), owner).map_err(unusable)?;
            }
        }
        look_into(self.oid, &self.path, self.lsn)
    }
}

/// Whether what belongs to the user `uid` is the server's own. The path stands in the WAL, so a superuser of the original chose it:
/// nothing that is there is given away for that.
fn belongs_to_server(uid: u32, owner: Option<&Account>) -> Result<(), String> {
    let server = owner.cloned().unwrap_or_else(Account::current);
    if uid == server.uid {
        return Ok(());
    }
    let owner = Account::of(uid, 0).name;
    Err(format!("it belongs to user {owner}, not to {}, who runs the server", server.name))
}

/// Whether the directory may be made in what is there of its way, and given to the server's user: nobody asked for it but the WAL.
/// Whoever is not root makes what they could make anyway.
fn may_be_made(oid: u32, path: &Path, lsn: Lsn, owner: Option<&Account>) -> Result<(), ReplayedError> {
    let Some(server) = owner else { return Ok(()) };
    let unasked = |within: &Path, reason: String| ReplayedError::Unasked {
        oid,
        path: path.to_owned(),
        lsn,
        within: within.to_owned(),
        reason,
        user: server.name.clone(),
    };
    let within = path.ancestors().skip(1).find(|above| above.symlink_metadata().is_ok());
    let within = within.unwrap_or(Path::new("/"));
    let metadata = std::fs::metadata(within).map_err(|error| unasked(within, error.to_string()))?;
    belongs_to_server(metadata.uid(), owner).map_err(|reason| unasked(within, reason))
}

fn path_of(made: &ReplayedTablespace) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&made.path))
}

/// What lies at a path that is no tablespace of the backup's by its oid.
fn place_of(oid: u32, path: &Path, lsn: Lsn, destinations: Destinations<'_>) -> Result<Found, ReplayedError> {
    let unusable = |reason: String| ReplayedError::Unusable { oid, path: path.to_owned(), lsn, reason };
    let overlap =
        |other: &Path| ReplayedError::Overlap { oid, path: path.to_owned(), lsn, other: other.to_owned() };
    if let Some(other) = destinations.directories.iter().find(|other| places::overlap(path, other)) {
        return Err(overlap(other));
    }
    for placed in destinations.placed {
        // One that the backup holds was dropped before this one was made in its place.
        if placed.directory == path && Path::new(&placed.original) == path {
            return Ok(Found::Restored);
        }
        if places::overlap(path, &placed.directory) {
            return Err(overlap(&placed.directory));
        }
    }
    match std::fs::metadata(path) {
        Ok(metadata) if !metadata.is_dir() => Err(unusable("it is not a directory".to_owned())),
        Ok(metadata) => {
            if !destinations.emptied.iter().any(|emptied| emptied == path) {
                look_into(oid, path, lsn)?;
            }
            belongs_to_server(metadata.uid(), destinations.owner).map_err(unusable)?;
            let above = path.parent().unwrap_or(path);
            places::check(path, above, destinations.owner).map_err(|error| unusable(error.to_string()))?;
            Ok(Found::Empty)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.symlink_metadata().is_err() => {
            places::check(path, path, destinations.owner).map_err(|error| unusable(error.to_string()))?;
            may_be_made(oid, path, lsn, destinations.owner)?;
            Ok(Found::Absent)
        }
        Err(error) => Err(unusable(error.to_string())),
    }
}

/// Whether the directory holds nothing.
///
/// # Errors
/// [`ReplayedError::InUse`], [`ReplayedError::Unusable`].
pub(crate) fn look_into(oid: u32, path: &Path, lsn: Lsn) -> Result<(), ReplayedError> {
    let failed = |error: io::Error| ReplayedError::Unusable {
        oid,
        path: path.to_owned(),
        lsn,
        reason: format!("it cannot be looked into: {error}"),
    };
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        if name != LOST_AND_FOUND && name != PLACE_MARKER {
            let found = name.to_string_lossy().into_owned();
            return Err(ReplayedError::InUse { oid, path: path.to_owned(), lsn, found });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
