//! What is there already: looked at, cut and removed, never through a symbolic link.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_archive::durable;
use rustix::fs::{AtFlags, FileType, OFlags};
use rustix::io::Errno;

use super::{DATA, Layout, Root, name_of};
use crate::kept_wal;
use crate::rebuild::work::Place;
use crate::rebuild::{INCOMPLETE_MARKER, OWN_DIRECTORY, RebuildError};

/// What a name on the disk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::rebuild) enum Kind {
    /// A directory.
    Directory,
    /// A plain file of this length, with so many names and these mode bits.
    File {
        /// In bytes.
        size: u64,
        /// Its hard links.
        links: u64,
        /// Mode bits.
        mode: u32,
    },
    /// A link, or something that no cluster consists of.
    Other,
}

impl Layout {
    /// Removes what our own directory holds beside the record of the restore and WAL that was kept: it is of what was there before.
    pub(in crate::rebuild) fn clear_own_directory(&self) -> Result<(), RebuildError> {
        let own = OWN_DIRECTORY.as_bytes();
        for name in self.names(Place { root: DATA, path: own })? {
            let path = [own, b"/", &name].concat();
            if path != INCOMPLETE_MARKER.as_bytes() && name != kept_wal::BESIDE.as_bytes() {
                self.remove(Place { root: DATA, path: &path })?;
            }
        }
        Ok(())
    }

    /// Removes from the directory of a tablespace that is no more what was this cluster's.
    pub(in crate::rebuild) fn empty_tablespace(
        &self,
        directory: &Path,
        own: &str,
    ) -> Result<(), RebuildError> {
        let roots = vec![Root::open(directory, &self.claimed)?];
        let lacks_openat2 = AtomicBool::new(self.lacks_openat2.load(Ordering::Relaxed));
        let (claimed, wal, tablespaces, owner) = (Vec::new(), None, Vec::new(), None);
        let alone =
            Layout { roots, claimed, wal, tablespaces, owner, mode: 0, in_place: true, lacks_openat2 };
        let place = Place { root: DATA, path: own.as_bytes() };
        if alone.kind(place)?.is_some() {
            alone.remove(place)?;
        }
        // No root of the restore lies there, so its barrier does not reach it.
        Ok(durable::fsync_dir(directory)?)
    }

    /// The names in a directory, in any order.
    pub(in crate::rebuild) fn names(&self, place: Place<'_>) -> Result<Vec<Vec<u8>>, RebuildError> {
        let directory = match self.open_directory(place) {
            Ok(directory) => directory,
            // The next lines of the list make it.
            Err(RebuildError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        let failed = |errno| self.io("list", place, errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    /// What has this name; `None` where nothing has.
    pub(in crate::rebuild) fn kind(&self, place: Place<'_>) -> Result<Option<Kind>, RebuildError> {
        let parent = self.open_parent(place)?;
        match rustix::fs::statat(&parent, name_of(place.path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => Kind::Directory,
                FileType::RegularFile => Kind::File {
                    size: u64::try_from(found.st_size).unwrap_or(0),
                    links: found.st_nlink,
                    mode: found.st_mode & 0o7777,
                },
                _ => Kind::Other,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(self.io("look at", place, errno)),
        }
    }

    /// Cuts a file to this length.
    pub(in crate::rebuild) fn cut(&self, place: Place<'_>, size: u64) -> Result<(), RebuildError> {
        let file = self.open(place, OFlags::empty())?;
        rustix::fs::ftruncate(&file, size).map_err(|errno| self.io("cut", place, errno))
    }

    /// Removes what has this name, a directory with all that is in it; never what a link leads to.
    pub(in crate::rebuild) fn remove(&self, place: Place<'_>) -> Result<(), RebuildError> {
        let failed = |errno| self.io("remove", place, errno);
        let parent = self.open_parent(place)?;
        if self.kind(place)? != Some(Kind::Directory) {
            return rustix::fs::unlinkat(&parent, name_of(place.path), AtFlags::empty()).map_err(failed);
        }
        for name in self.names(place)? {
            let path = [place.path, b"/", &name].concat();
            self.remove(Place { root: place.root, path: &path })?;
        }
        rustix::fs::unlinkat(&parent, name_of(place.path), AtFlags::REMOVEDIR).map_err(failed)
    }
}
