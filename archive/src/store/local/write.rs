//! Creating, deleting and sweeping in a directory.
//!
//! A directory's own entry may be in memory only: made by this process, or by another a moment ago. Before the first publish
//! into a directory its ancestors are therefore fsynced, from the deepest up. Since every writer does so *before* it
//! publishes, a directory that already holds a published object is durable, and so is all above it: there the way up ends.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use bytes::Bytes;
use rustix::fs::AtFlags;

use super::Tree;
use crate::durable::at::{self, Publication, Published, Temp};
use crate::durable::{DurableError, create_dir_all_durable};
use crate::store::{Created, StoreError};

impl Tree {
    pub(super) fn create(&self, path: &str, body: &[Bytes]) -> Result<Created, StoreError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let name = OsStr::new(name);
        let fail = |operation| move |source| self.error(operation, path, source);
        let directory = self.directory_for_writing(parent, path)?;
        // A look first: writing 16 MiB only to learn that they are there would be a waste.
        if exists(&directory, name).map_err(fail("look up"))? {
            self.confirm_existing(&directory, name, path)?;
            return Ok(Created::Exists);
        }
        let mut temp = Temp::create(&directory).map_err(fail("create a temporary file for"))?;
        temp.write(body).map_err(fail("write"))?;
        match temp.publish(name).map_err(fail("publish"))? {
            Publication::Done(Published::New) => {
                at::fsync(&directory).map_err(fail("fsync the directory of"))?;
                Ok(Created::New)
            }
            Publication::Done(Published::Exists) => {
                self.confirm_existing(&directory, name, path)?;
                Ok(Created::Exists)
            }
            Publication::Unsupported => {
                Err(StoreError::NoAtomicPublish { path: path.to_owned(), store: self.describe() })
            }
        }
    }

    /// Makes an object that someone else published durable before anyone relies on it. The way to it is durable: that comes
    /// before the first publish into a directory, whoever made it.
    pub(super) fn confirm(&self, path: &str) -> Result<(), StoreError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let absent = || StoreError::NotFound { path: path.to_owned(), store: self.describe() };
        let directory = self.open_directory("make durable", parent)?.ok_or_else(absent)?;
        self.confirm_existing(&directory, OsStr::new(name), path)
    }

    /// The same in its open directory.
    fn confirm_existing(&self, directory: &OwnedFd, name: &OsStr, path: &str) -> Result<(), StoreError> {
        let fail = |operation| move |source| self.error(operation, path, source);
        let file = at::open_file(directory, name).map_err(fail("open the existing"))?;
        if !file.metadata().map_err(fail("look up"))?.is_file() {
            return Err(self.not_a_file(path));
        }
        at::fsync(&file).map_err(fail("fsync the existing"))?;
        at::fsync(directory).map_err(fail("fsync the directory of"))
    }

    pub(super) fn not_a_file(&self, path: &str) -> StoreError {
        let reason = "it is neither a file nor anything else that Highwater writes".into();
        StoreError::NotAnObject { path: path.to_owned(), store: self.describe(), reason }
    }

    /// Opens the directory `parent`, made with all above it where missing, durable from the root down, and swept.
    fn directory_for_writing(&self, parent: &str, path: &str) -> Result<OwnedFd, StoreError> {
        let fail = |operation| move |source| self.error(operation, path, source);
        let chain = self.open_or_make_chain(parent, path)?;
        // The path of a directory in the chain is that many of the parent's components.
        let mut level_path = parent;
        for (level, directory) in chain.iter().enumerate().rev() {
            let stat = rustix::fs::fstat(directory)
                .map_err(|error| fail("look up the directory of")(error.into()))?;
            let identity = (stat.st_dev, stat.st_ino);
            if self.is_durable(level_path, identity) {
                break;
            }
            if level + 1 == chain.len() {
                at::sweep(directory).map_err(fail("sweep leftovers beside"))?;
            }
            let proven = at::holds_published(directory).map_err(fail("read the directory of"))?;
            if !proven {
                match level.checked_sub(1).and_then(|above| chain.get(above)) {
                    Some(above) => at::fsync(above).map_err(fail("fsync a directory above"))?,
                    None => self.fsync_above_root().map_err(fail("fsync the directory above the root of"))?,
                }
            }
            self.remember_durable(level_path, identity);
            if proven {
                break;
            }
            level_path = level_path.rsplit_once('/').map_or("", |(above, _)| above);
        }
        chain.into_iter().next_back().ok_or_else(|| self.not_a_file(path))
    }

    /// The root, then each directory down to `parent`, opened without following links. A root that was there is not made again.
    fn open_or_make_chain(&self, parent: &str, path: &str) -> Result<Vec<OwnedFd>, StoreError> {
        let operation = "make the directory of";
        if self.first_root.get().is_none() && !self.root.exists() {
            create_dir_all_durable(&self.root)
                .map_err(|error| self.error(operation, path, into_io(error)))?;
        }
        let mut chain = vec![self.open_root(operation, path)?];
        for component in parent.split('/').filter(|component| !component.is_empty()) {
            let next = chain.last().map(|above| open_or_make(above, OsStr::new(component)));
            let next = next.unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()));
            chain.push(next.map_err(|source| self.error(operation, path, source))?);
        }
        Ok(chain)
    }

    /// Fsyncs the directory that holds the root. One that this user may not read, it cannot have been made in by this user.
    fn fsync_above_root(&self) -> io::Result<()> {
        let root = std::path::absolute(&self.root)?;
        let above = root.parent().unwrap_or(Path::new("/"));
        match at::open_directory_path(above) {
            Ok(above) => at::fsync(above),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(super) fn delete(&self, path: &str) -> Result<(), StoreError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let Some(directory) = self.open_directory("delete", parent)? else { return Ok(()) };
        at::unlink(&directory, OsStr::new(name)).map_err(|source| self.error("delete", path, source))?;
        // Also where it was gone already: another's removal may still be in memory only.
        at::fsync(&directory).map_err(|source| self.error("fsync the directory of", path, source))
    }

    /// Removes stale temporary files from a directory and all below it.
    pub(super) fn sweep(&self, path: &str) -> Result<usize, StoreError> {
        match self.open_directory("sweep", path)? {
            Some(directory) => self.sweep_below(&directory, path),
            None => Ok(0),
        }
    }

    fn sweep_below(&self, directory: &OwnedFd, path: &str) -> Result<usize, StoreError> {
        let fail = |source| self.error("sweep leftovers from", path, source);
        let mut swept = at::sweep(directory).map_err(fail)?;
        for (name, below) in self.directories_in(directory, path)? {
            if let Some(child) = self.open_child(directory, &name, &below)? {
                swept += self.sweep_below(&child, &below)?;
            }
        }
        Ok(swept)
    }
}

fn open_or_make(above: &OwnedFd, name: &OsStr) -> io::Result<OwnedFd> {
    match at::open_directory(above, name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            at::make_directory(above, name)?;
            at::open_directory(above, name)
        }
        other => other,
    }
}

fn exists(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn into_io(error: DurableError) -> io::Error {
    match error {
        DurableError::Io { source, .. } => source,
        other @ (DurableError::NoAtomicPublish { .. } | DurableError::NoFileName { .. }) => {
            io::Error::other(other)
        }
    }
}
