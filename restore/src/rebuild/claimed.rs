//! Directories that a restore has marked as its own.
//!
//! A name may lead to another directory a moment later: a volume is mounted there, or a link is set anew. What is filled and emptied
//! is the directory that was marked, by its device and inode, or nothing.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::RebuildError;

/// A directory, and the name that it had when it was marked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claimed {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Claimed {
    /// The open directory, under this name.
    ///
    /// # Errors
    /// The system's.
    pub fn of(path: &Path, directory: impl AsFd) -> io::Result<Claimed> {
        let found = rustix::fs::fstat(directory)?;
        Ok(Claimed { path: path.to_owned(), device: found.st_dev, inode: found.st_ino })
    }

    /// Whether its name leads to it still.
    ///
    /// # Errors
    /// [`RebuildError::Exchanged`]; [`RebuildError::Io`].
    pub fn look_again(&self) -> Result<(), RebuildError> {
        let found = File::open(&self.path).and_then(|directory| Claimed::of(&self.path, directory));
        let failed = |source| {
            let path = self.path.display().to_string();
            RebuildError::Io { operation: "open the directory", path, source }
        };
        found.map_err(failed)?.check(std::slice::from_ref(self))
    }

    /// Its name.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The filesystem that it is on.
    pub(super) fn device(&self) -> u64 {
        self.device
    }

    /// Whether it is the one that was marked under its name; what was not marked has nothing to be held against.
    pub(super) fn check(&self, marked: &[Claimed]) -> Result<(), RebuildError> {
        match marked.iter().find(|marked| marked.path == self.path) {
            Some(marked) if marked != self => Err(RebuildError::Exchanged { path: self.path.clone() }),
            _ => Ok(()),
        }
    }
}
