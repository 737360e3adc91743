//! The one door to durable changes of the local disk.
//!
//! A new file is written under a temporary name in its own directory, fsynced, published by an operation that cannot
//! replace (`renameat2(RENAME_NOREPLACE)`, or `link` where the filesystem lacks that), and then the directory is fsynced,
//! and so is each directory on the way whose own entry might still be in memory only: one that was made here, and also one
//! that another writer made a moment ago (I3). State and configuration of this host, which have one writer, may be
//! [`replace`]d. The file descriptor level of all this is in `at`; `clippy.toml` bans the raw calls elsewhere.
//!
//! A failed fsync is never repeated: the kernel reports a lost page once and then forgets it
//! (PostgreSQL's `data_sync_retry`), so the file is given up and the caller writes anew.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};
use std::{fs, io};

pub(crate) mod at;

pub use at::Published;

/// The beginning of the names of files that are not yet published; no object of a store may be called so.
pub const TEMP_PREFIX: &str = ".highwater-tmp.";

/// A failure to change the local disk durably.
#[derive(Debug, thiserror::Error)]
pub enum DurableError {
    /// The operating system refused.
    #[error("cannot {operation} {}: {source}", path.display())]
    Io {
        /// What was being done.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The filesystem can neither link nor rename without replacing.
    #[error("cannot publish {}: the filesystem has neither hard links nor RENAME_NOREPLACE", path.display())]
    NoAtomicPublish {
        /// The file that was to be published.
        path: PathBuf,
    },
    /// A path that names no file in a directory, such as `/` or one that ends in `..`.
    #[error("{} does not name a file", path.display())]
    NoFileName {
        /// The path as it was given.
        path: PathBuf,
    },
}

impl DurableError {
    /// What a person can do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { path, source, .. } => match source.kind() {
                _ if is_full(source) => Some(make_room(path)),
                io::ErrorKind::PermissionDenied => Some("run as the user that owns this directory".into()),
                io::ErrorKind::ReadOnlyFilesystem => Some("the filesystem is mounted read-only".into()),
                _ => None,
            },
            Self::NoAtomicPublish { .. } => {
                Some("use another filesystem: ext4, XFS, Btrfs, ZFS or NFS".into())
            }
            Self::NoFileName { .. } => None,
        }
    }
}

/// Whether the system says that a filesystem, or what a user may have of it, is full.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// With fewer inodes left than these, they are what a filesystem lacks.
const FEW_INODES: u64 = 16;

/// What a person does about a full filesystem: which one it is, and whether it lacks space or inodes. `path` lies on it, or is to.
pub fn make_room(path: &Path) -> String {
    let Some((filesystem, left)) = filesystem_of(path) else {
        return "free space on this filesystem, or raise the quota".to_owned();
    };
    let shown = filesystem.display();
    let (inodes, bytes) = (left.f_favail, left.f_bavail.saturating_mul(left.f_frsize));
    // Some filesystems have no fixed number of inodes, and say 0 of 0. Who failed may have removed a file or two since.
    match left.f_files > 0 && inodes < FEW_INODES {
        true => format!(
            "remove files on the filesystem mounted on {shown}, or give it more inodes: it has {inodes} left"
        ),
        false => {
            format!(
                "free space on the filesystem mounted on {shown}, which has {bytes} bytes left, or raise the quota"
            )
        }
    }
}

/// The directory that the filesystem of `path` is mounted on, and what is left of it.
fn filesystem_of(path: &Path) -> Option<(PathBuf, rustix::fs::StatVfs)> {
    use std::os::unix::fs::MetadataExt as _;
    let there = path.ancestors().find_map(|path| path.canonicalize().ok())?;
    let device = |path: &Path| path.metadata().ok().map(|found| found.dev());
    let of_path = device(&there)?;
    let mounted = there.ancestors().take_while(|above| device(above) == Some(of_path)).last()?;
    Some((mounted.to_owned(), rustix::fs::statvfs(mounted).ok()?))
}

/// Writes the chunks, in order, as the new file `path` with mode 0600. The directory must exist. Durable when it returns,
/// for both answers: an existing file is fsynced, and so is its directory.
///
/// # Errors
/// [`DurableError::Io`], [`DurableError::NoAtomicPublish`], [`DurableError::NoFileName`]; then no file `path` was made.
pub fn write_new<C: AsRef<[u8]>>(path: &Path, chunks: &[C]) -> Result<Published, DurableError> {
    let (directory, name) = split(path)?;
    let fail = |operation| move |source| DurableError::Io { operation, path: path.to_owned(), source };
    let directory = at::open_directory_path(directory).map_err(fail("open the directory of"))?;
    let mut temp = at::Temp::create(&directory).map_err(fail("create a temporary file beside"))?;
    temp.write(chunks).map_err(fail("write"))?;
    match temp.publish(name).map_err(fail("publish"))? {
        at::Publication::Done(published) => {
            if published == Published::Exists {
                at::fsync_file(&directory, name).map_err(fail("fsync"))?;
            }
            at::fsync(&directory).map_err(fail("fsync the directory of"))?;
            Ok(published)
        }
        at::Publication::Unsupported => Err(DurableError::NoAtomicPublish { path: path.to_owned() }),
    }
}

/// Writes the chunks, in order, as the file `path` with mode 0600, in place of what was there: a reader sees the old file or
/// the new one, whole. For local state that has one writer, never for a repository.
///
/// # Errors
/// [`DurableError::Io`], [`DurableError::NoFileName`]; then the old file is untouched, unless only the last fsync failed.
pub fn replace<C: AsRef<[u8]>>(path: &Path, chunks: &[C]) -> Result<(), DurableError> {
    let (directory, name) = split(path)?;
    let fail = |operation| move |source| DurableError::Io { operation, path: path.to_owned(), source };
    let directory = at::open_directory_path(directory).map_err(fail("open the directory of"))?;
    let mut temp = at::Temp::create(&directory).map_err(fail("create a temporary file beside"))?;
    temp.write(chunks).map_err(fail("write"))?;
    temp.replace(name).map_err(fail("replace"))?;
    at::fsync(&directory).map_err(fail("fsync the directory of"))
}

/// As [`replace`], of the file `below` the directory `root`: no directory on the way from there is reached through a link. Answers
/// the file, open, so that what is changed next is that one and no other that has its name by then.
///
/// # Errors
/// As [`replace`].
pub fn replace_below<C: AsRef<[u8]>>(root: &Path, below: &Path, chunks: &[C]) -> Result<File, DurableError> {
    let path = root.join(below);
    let fail = |operation| {
        let path = path.clone();
        move |source| DurableError::Io { operation, path, source }
    };
    let (parent, name) = split(below)?;
    let directory = open_below(root, parent, &path)?.map_err(fail("open the directory of"))?;
    let mut temp = at::Temp::create(&directory).map_err(fail("create a temporary file beside"))?;
    temp.write(chunks).map_err(fail("write"))?;
    let file = temp.file().map_err(fail("open"))?;
    temp.replace(name).map_err(fail("replace"))?;
    at::fsync(&directory).map_err(fail("fsync the directory of"))?;
    Ok(file)
}

/// Removes the file `below` the directory `root` durably, no directory on the way being reached through a link; an absent one is
/// success, and so is one whose directory is absent.
///
/// # Errors
/// As [`remove`].
pub fn remove_below(root: &Path, below: &Path) -> Result<(), DurableError> {
    let path = root.join(below);
    let fail = |operation| {
        let path = path.clone();
        move |source| DurableError::Io { operation, path, source }
    };
    let (parent, name) = split(below)?;
    let directory = match open_below(root, parent, &path)? {
        Err(absent) if absent.kind() == io::ErrorKind::NotFound => return Ok(()),
        answer => answer.map_err(fail("open the directory of"))?,
    };
    at::unlink(&directory, name).map_err(fail("remove"))?;
    at::fsync(&directory).map_err(fail("fsync the directory of"))
}

/// Opens the directory `parent` below `root`, each on the way by itself and not through a link. `path` is what is asked for, for messages.
fn open_below(root: &Path, parent: &Path, path: &Path) -> Result<io::Result<OwnedFd>, DurableError> {
    let mut directory = at::open_directory_path(root);
    for component in parent.components() {
        let one = match component {
            Component::Normal(one) => one,
            Component::CurDir => continue,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(DurableError::NoFileName { path: path.to_owned() });
            }
        };
        directory = directory.and_then(|above| at::open_directory(&above, one));
    }
    Ok(directory)
}

/// Makes `path` and all its missing parents with mode 0700 and fsyncs the parent of each, also where another process made
/// the directory at the same moment.
///
/// # Errors
/// [`DurableError::Io`] naming the directory that failed.
pub fn create_dir_all_durable(path: &Path) -> Result<(), DurableError> {
    let fail = |path: &Path, operation| {
        let path = path.to_owned();
        move |source| DurableError::Io { operation, path, source }
    };
    let absolute = std::path::absolute(path).map_err(fail(path, "resolve"))?;
    let mut missing: Vec<&Path> = Vec::new();
    let mut existing = absolute.as_path();
    while !existing.is_dir() {
        missing.push(existing);
        match existing.parent() {
            Some(parent) => existing = parent,
            None => break,
        }
    }
    // The deepest directory that stands may have been made by another process a moment ago, so its entry is synced too.
    // Who may not even open its parent is not of those who make directories there: it has stood for long.
    if let (Some(_), Some(parent)) = (missing.last(), existing.parent()) {
        match fsync_dir(parent) {
            Err(DurableError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {}
            answer => answer?,
        }
    }
    for directory in missing.into_iter().rev() {
        let (parent, name) = split(directory)?;
        let parent = at::open_directory_path(parent).map_err(fail(directory, "open the parent of"))?;
        at::make_directory(&parent, name).map_err(fail(directory, "create the directory"))?;
        at::fsync(&parent).map_err(fail(directory, "fsync the parent of"))?;
    }
    Ok(())
}

/// Makes the entries of the directory `path` durable.
///
/// # Errors
/// [`DurableError::Io`].
pub fn fsync_dir(path: &Path) -> Result<(), DurableError> {
    let fail = |source| DurableError::Io { operation: "fsync the directory", path: path.to_owned(), source };
    let directory = at::open_directory_path(path).map_err(fail)?;
    at::fsync(&directory).map_err(fail)
}

/// Makes the contents of the file `path` durable (its entry in the directory is [`fsync_dir`]'s).
///
/// # Errors
/// [`DurableError::Io`].
pub fn fsync_file(path: &Path) -> Result<(), DurableError> {
    let file = fs::File::open(path);
    file.and_then(|file| file.sync_all()).map_err(|source| DurableError::Io {
        operation: "fsync",
        path: path.to_owned(),
        source,
    })
}

/// Moves the file `from` to `to`, on the same filesystem, unless that name is taken. Durable when it returns: cut off, the file has
/// one of the two names, or on a filesystem that cannot rename so, both.
///
/// # Errors
/// [`DurableError::Io`], [`DurableError::NoFileName`].
pub fn move_new(from: &Path, to: &Path) -> Result<Published, DurableError> {
    let ((old_directory, old), (new_directory, new)) = (split(from)?, split(to)?);
    let fail = |operation| move |source| DurableError::Io { operation, path: from.to_owned(), source };
    let old_directory = at::open_directory_path(old_directory).map_err(fail("open the directory of"))?;
    let new_directory = at::open_directory_path(new_directory).map_err(fail("move"))?;
    let published = at::rename_new(&old_directory, old, &new_directory, new).map_err(fail("move"))?;
    if published == Published::New {
        at::fsync(&new_directory).map_err(fail("fsync the new directory of"))?;
        at::unlink(&old_directory, old).map_err(fail("remove"))?;
        at::fsync(&old_directory).map_err(fail("fsync the directory of"))?;
    }
    Ok(published)
}

/// Removes the file `path` durably; an absent one is success.
///
/// # Errors
/// [`DurableError::Io`], [`DurableError::NoFileName`].
pub fn remove(path: &Path) -> Result<(), DurableError> {
    let (directory, name) = split(path)?;
    let fail = |operation| move |source| DurableError::Io { operation, path: path.to_owned(), source };
    let directory = at::open_directory_path(directory).map_err(fail("open the directory of"))?;
    at::unlink(&directory, name).map_err(fail("remove"))?;
    at::fsync(&directory).map_err(fail("fsync the directory of"))
}

/// The directory and the name of a file.
fn split(path: &Path) -> Result<(&Path, &OsStr), DurableError> {
    let no_name = || DurableError::NoFileName { path: path.to_owned() };
    let name = path.file_name().ok_or_else(no_name)?;
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => return Err(no_name()),
    };
    Ok((directory, name))
}

#[cfg(test)]
mod tests;
