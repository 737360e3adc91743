//! Places that a restore will write to, looked at before it does.
//!
//! A place is absent or empty; it can be made or filled by this process; and the server's user gets as far as it must. That last is
//! asked as that user, since nothing but the system knows what groups, access lists and mounts let through. Nothing is made.

use std::fmt;
use std::fs::DirEntry;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use highwater_archive::durable::TEMP_PREFIX;

use crate::conf_file::shell_word;
use crate::ownership::Account;

/// What a filesystem of its own has at its root, and nobody minds.
pub const LOST_AND_FOUND: &str = "lost+found";

/// A file in every place of a restore that has not come to its end but the data directory: it says which restore's the place is.
pub const PLACE_MARKER: &str = "highwater-restore.incomplete";

/// Directory below the data directory that is ours.
pub const OWN_DIRECTORY: &str = "highwater";

/// What a directory is to be filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The data directory.
    Target,
    /// `pg_wal`.
    Wal,
    /// The tablespace with this oid.
    Tablespace(u32),
}

impl fmt::Display for Purpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Target => f.write_str("the target directory"),
            Self::Wal => f.write_str("the directory for pg_wal"),
            Self::Tablespace(oid) => write!(f, "the directory of tablespace {oid}"),
        }
    }
}

/// A place that a restore cannot have.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// A directory to be filled holds something.
    #[error("{what} {} is not empty: it holds {found}", path.display())]
    NotEmpty {
        /// What it is for.
        what: Purpose,
        /// The directory.
        path: PathBuf,
        /// An entry of it.
        found: String,
    },
    /// A directory that something must be written into.
    #[error("nothing can be written into {}: {source}", path.display())]
    NotWritable {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Where the data directory's link leads, there is not only WAL.
    #[error("{} is where pg_wal is, and holds {found} too, which is not PostgreSQL's", path.display())]
    Stranger {
        /// The place.
        path: PathBuf,
        /// What is not.
        found: String,
    },
    /// Another filesystem is mounted where all would be compared and removed.
    #[error("another filesystem is mounted in {}, within {}", found.display(), path.display())]
    Mounted {
        /// The directory.
        path: PathBuf,
        /// Where.
        found: PathBuf,
    },
    /// A link leads to a directory that is not the server's.
    #[error("{} is where a link of the data directory leads, and belongs to user {owner}, who does not run the server", path.display())]
    NotTheServers {
        /// The place.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
    },
    /// A link stands where a directory of the data directory is.
    #[error("{} is a link, and no directory", path.display())]
    Link {
        /// The link.
        path: PathBuf,
    },
    /// It cannot be known what is there.
    #[error("cannot look into {}: {source}", path.display())]
    Unseen {
        /// The directory.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The server's user cannot enter a directory on the way.
    #[error("user {user}, who runs the server, cannot enter {}", path.display())]
    NoEntry {
        /// The user.
        user: String,
        /// The directory.
        path: PathBuf,
    },
}

impl PlaceError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotWritable { source, .. } if source.kind() == io::ErrorKind::NotADirectory => {
                Some("a file stands there; name a directory, which may be absent".into())
            }
            Self::NotWritable { source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Some("a link stands there that leads to nothing: make what it leads to, or name another directory".into())
            }
            Self::NotWritable { .. } => {
                Some("run as a user that may write there, or name another directory".into())
            }
            Self::Stranger { .. } => Some(
                "only WAL is removed there, and a restore needs the place for itself: move what else is there away, or put \
                 pg_wal into an empty directory with --wal-dir"
                    .into(),
            ),
            Self::Mounted { path, found } if *found == path.join("pg_wal") => Some(format!(
                "a restore in place does not cross filesystems; pg_wal is to be a link: stop what starts the server, umount {found}, rmdir {found}, \
                 mount it in another place, ln -s THAT_PLACE {found}, and type the same command again; or restore into an empty \
                 directory, with --wal-dir",
                found = shell_word(&found.display().to_string())
            )),
            Self::Mounted { .. } => Some(
                "a restore in place does not cross filesystems: unmount it, or restore into an empty directory".into(),
            ),
            Self::NotTheServers { .. } => Some(
                "the server's user makes that link, and what is another's is not changed for it: give the directory to that user, or \
                 put it elsewhere with --tablespace-map or --wal-dir"
                    .into(),
            ),
            Self::Link { .. } => Some("remove it; a cluster has no link there".into()),
            Self::Unseen { .. } => Some("run as a user that may read there".into()),
            Self::NoEntry { .. } => {
                Some("give that user the right (chmod o+x), or name a place below another directory".into())
            }
            Self::NotEmpty { what: Purpose::Tablespace(_), .. } => Some(
                "nothing is deleted or replaced here; map the tablespace elsewhere with --tablespace-map A=B".into(),
            ),
            Self::NotEmpty { what: Purpose::Target, .. } => Some(
                "nothing is deleted or replaced here; name an empty or absent directory, or with --delta a data \
                 directory of this cluster"
                    .into(),
            ),
            Self::NotEmpty { what: Purpose::Wal, .. } => {
                Some("nothing is deleted or replaced here; name an empty or absent directory".into())
            }
        }
    }
}

/// Absent, or a directory without a single entry. What a restore leaves that is killed before it has marked anything does not
/// count: a directory of ours that is empty, and files without a name yet.
///
/// # Errors
/// [`PlaceError::NotEmpty`], [`PlaceError::NotWritable`].
pub fn check_empty(what: Purpose, path: &Path) -> Result<(), PlaceError> {
    check_nothing_but(what, path, |entry| {
        is_leftover(entry)
            || what == Purpose::Target
                && entry.file_name() == OWN_DIRECTORY
                && entry.file_type().is_ok_and(|kind| kind.is_dir())
                && check_nothing_but(what, &entry.path(), is_leftover).is_ok()
    })
}

/// Empty but for the file that says whose the place is.
///
/// # Errors
/// [`PlaceError::NotEmpty`], [`PlaceError::NotWritable`].
pub fn check_marked(what: Purpose, path: &Path) -> Result<(), PlaceError> {
    check_nothing_but(what, path, |entry| is_leftover(entry) || entry.file_name() == PLACE_MARKER)
}

/// Whether it is a file that was being written when its writer was killed, and has no name yet.
pub fn is_leftover(entry: &DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().starts_with(TEMP_PREFIX.as_bytes())
        && entry.file_type().is_ok_and(|kind| kind.is_file())
}

fn check_nothing_but(
    what: Purpose,
    path: &Path,
    may_be: impl Fn(&DirEntry) -> bool,
) -> Result<(), PlaceError> {
    let failed = |source| PlaceError::NotWritable { path: path.to_owned(), source };
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // A link that leads nowhere is not absent: creating the directory would fail later.
            return match std::fs::symlink_metadata(path) {
                Ok(_) => Err(failed(error)),
                Err(_) => Ok(()),
            };
        }
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        if !may_be(&entry) {
            let found = entry.file_name().to_string_lossy().into_owned();
            return Err(PlaceError::NotEmpty { what, path: path.to_owned(), found });
        }
    }
    Ok(())
}

/// Whether `path` can be made or filled, and whether the server's user gets as far as what is there of `entered`.
///
/// # Errors
/// [`PlaceError::NotWritable`], [`PlaceError::NoEntry`].
pub fn check(path: &Path, entered: &Path, owner: Option<&Account>) -> Result<(), PlaceError> {
    use rustix::fs::{Access, AtFlags, CWD};
    let there = |path: &'_ Path| -> PathBuf {
        let there = path.ancestors().find(|ancestor| ancestor.symlink_metadata().is_ok());
        there.unwrap_or(Path::new("/")).to_owned()
    };
    let existing = &there(path);
    let refused = |source: std::io::Error| PlaceError::NotWritable { path: existing.to_owned(), source };
    if !std::fs::metadata(existing).map_err(refused)?.is_dir() {
        return Err(refused(std::io::ErrorKind::NotADirectory.into()));
    }
    rustix::fs::accessat(CWD, existing, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .map_err(|errno| refused(errno.into()))?;
    let entered = there(entered);
    match owner {
        Some(owner) if !may(owner, "-x", &entered) => {
            Err(PlaceError::NoEntry { user: owner.name.clone(), path: entered })
        }
        _ => Ok(()),
    }
}

/// Whether `test` holds of a directory when that account asks.
pub fn may(account: &Account, test: &str, directory: &Path) -> bool {
    let mut command = account.command(Path::new("/bin/sh"));
    command.args(["-c", &format!("test {test} \"$0\"")]).arg(directory);
    command.current_dir("/").stdin(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// Whether one of two directories contains the other, also by another name.
pub fn overlap(one: &Path, other: &Path) -> bool {
    let (one, other) = (resolved(one), resolved(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// The path with the links on it resolved, as far as it exists.
pub fn resolved(path: &Path) -> PathBuf {
    path.ancestors()
        .find_map(|above| {
            let real = above.canonicalize().ok()?;
            let rest = path.strip_prefix(above).ok()?;
            Some(if rest.as_os_str().is_empty() { real } else { real.join(rest) })
        })
        .unwrap_or_else(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is given to the server's user need only be reached by it; what it merely reads it must enter too.
    #[test]
    fn the_servers_user_must_enter_what_is_not_given_to_it() {
        use std::os::unix::fs::PermissionsExt as _;
        let scratch = tempfile::tempdir().unwrap();
        let closed = scratch.path().join("closed");
        std::fs::create_dir(&closed).unwrap();
        for (path, mode) in [(scratch.path(), 0o711), (&closed, 0o700)] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        assert!(check(&closed, &closed, None).is_ok());
        if Account::current().uid != 0 {
            return;
        }
        let nobody = Account { uid: 65_534, gid: 65_534, name: "nobody".into() };
        assert!(check(&closed, scratch.path(), Some(&nobody)).is_ok());
        for path in [closed.clone(), closed.join("below")] {
            let refused = check(&path, &path, Some(&nobody)).unwrap_err();
            assert!(matches!(&refused, PlaceError::NoEntry { path, .. } if *path == closed), "{refused}");
        }
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o711)).unwrap();
        assert!(check(&closed, &closed, Some(&nobody)).is_ok());
    }
}
