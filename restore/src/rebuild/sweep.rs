//! A directory that is not empty, made ready for a file list.
//!
//! The list and the directory are walked side by side: both are in the order of names, directory by directory, so a merge of the
//! two says of each entry on the disk whether the list has it, and no more is held than the names of the directories that are open.
//! What the list has not is removed. What it has stays where it can be used: a directory as it is, a file with bytes when it is a plain
//! file of its own, cut to its length. Links and empty files are made again, which costs no more than looking at them.
//!
//! In a tablespace's directory only the folder of this major and catalog is the cluster's: what lies beside it may belong to
//! another one (`TABLESPACE_VERSION_DIRECTORY` in PostgreSQL's `relpath.h`) and is not looked at. Of a place of its own for `pg_wal` only what
//! bears a name of PostgreSQL's is removed ([`crate::contents`]).
//!
//! A file with a second name is removed and never written: the other name may be in a copy that somebody made with links, or
//! in the cluster that `pg_upgrade --link` was run on.

use std::collections::VecDeque;

use highwater_archive::manifest::{FileEntry, FileLine, FilePath};

use super::layout::{DATA, Kind, Layout};
use super::work::{Place, is_left_out};
use super::{OWN_DIRECTORY, RebuildError};

/// The walk along the disk.
pub(super) struct Sweep<'a> {
    layout: &'a Layout,
    /// The folder of this cluster in each tablespace's directory.
    version_directory: String,
    /// The directories on the way to where the list is, outermost first.
    open: Vec<Open>,
}

/// A directory on the disk.
struct Open {
    /// Its path in the list; empty for the data directory.
    path: Vec<u8>,
    /// What is in it and was not met yet, in order.
    names: VecDeque<Vec<u8>>,
}

impl<'a> Sweep<'a> {
    /// Begins at the data directory.
    pub(super) fn begin(layout: &'a Layout, version_directory: String) -> Result<Sweep<'a>, RebuildError> {
        let mut sweep = Sweep { layout, version_directory, open: Vec::new() };
        sweep.push(b"")?;
        Ok(sweep)
    }

    /// Comes to a line of the list: removes what lies before it on the disk, and what is in its way. Whether there is a file whose
    /// extents may be kept.
    pub(super) fn meet(&mut self, line: &FileLine) -> Result<bool, RebuildError> {
        match line {
            FileLine::Pack { .. } | FileLine::Outside { .. } => Ok(false),
            FileLine::Symlink { path, .. } => self.clear(path),
            FileLine::File { path, .. } if is_left_out(path) => Ok(false),
            FileLine::File { path, file } if file.extents.is_empty() => self.clear(path),
            FileLine::File { path, file } => self.meet_file(path, file),
            FileLine::Tablespace { path, .. } => {
                self.clear(path)?;
                self.push(path.as_bytes())?;
                Ok(false)
            }
            FileLine::Dir { path, .. } => {
                let there = self.advance(path)?;
                let entry = self.entry(path.as_bytes());
                // Where pg_wal lies elsewhere, what the list calls a directory is a link.
                let is_root = self.layout.place(path).1.is_empty();
                if there && (is_root || self.layout.kind(entry)? != Some(Kind::Directory)) {
                    self.layout.remove(entry)?;
                }
                self.push(path.as_bytes())?;
                Ok(false)
            }
        }
    }

    /// Removes what lies behind the last line.
    pub(super) fn finish(mut self) -> Result<(), RebuildError> {
        while self.pop()? {}
        Ok(())
    }

    fn meet_file(&mut self, path: &FilePath, file: &FileEntry) -> Result<bool, RebuildError> {
        if !self.advance(path)? {
            return Ok(false);
        }
        let place = self.entry(path.as_bytes());
        match self.layout.kind(place)? {
            None => Ok(false),
            Some(Kind::File { size, links: 1, mode }) if mode & 0o600 == 0o600 => {
                if size > file.size {
                    self.layout.cut(place, file.size)?;
                }
                Ok(size > 0)
            }
            Some(_) => {
                self.layout.remove(place)?;
                Ok(false)
            }
        }
    }

    /// Removes whatever has this name.
    fn clear(&mut self, path: &FilePath) -> Result<bool, RebuildError> {
        if self.advance(path)? {
            self.layout.remove(self.entry(path.as_bytes()))?;
        }
        Ok(false)
    }

    /// Removes all that lies before `path` in its directory; whether something has its name.
    fn advance(&mut self, path: &FilePath) -> Result<bool, RebuildError> {
        let parent = path.parent().unwrap_or_default();
        while self.open.last().is_some_and(|open| open.path != parent) {
            self.pop()?;
        }
        let bytes = path.as_bytes();
        let name = bytes.rsplit(|byte| *byte == b'/').next().unwrap_or(bytes);
        loop {
            let Some(open) = self.open.last_mut() else {
                return Err(RebuildError::Hostile(format!("{path} lies in no directory of the list")));
            };
            match open.names.front() {
                Some(first) if first.as_slice() < name => self.drop_first()?,
                Some(first) if first.as_slice() == name => {
                    open.names.pop_front();
                    return Ok(true);
                }
                _ => return Ok(false),
            }
        }
    }

    /// Closes the innermost directory, after what is left in it is removed; whether there was one.
    fn pop(&mut self) -> Result<bool, RebuildError> {
        while self.open.last().is_some_and(|open| !open.names.is_empty()) {
            self.drop_first()?;
        }
        Ok(self.open.pop().is_some())
    }

    /// Removes the first entry of the innermost directory that was not met.
    fn drop_first(&mut self) -> Result<(), RebuildError> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        let Some(name) = open.names.pop_front() else { return Ok(()) };
        let directory = open.path.as_slice();
        let path = if directory.is_empty() { name } else { [directory, b"/", &name].concat() };
        self.layout.remove(self.entry(&path))
    }

    /// Opens a directory of the list, with those of its entries that are the cluster's.
    fn push(&mut self, path: &[u8]) -> Result<(), RebuildError> {
        let (root, below) = self.layout.place_of(path);
        let mut names = self.layout.names(Place { root, path: below })?;
        if below.is_empty() {
            names.retain(|name| self.layout.is_ours(root, name, &self.version_directory));
            names.retain(|name| root != DATA || name != OWN_DIRECTORY.as_bytes());
        }
        names.sort_unstable();
        self.open.push(Open { path: path.to_owned(), names: names.into() });
        Ok(())
    }

    /// Where an entry of the list stands on the disk; for one that leads to a root, the link and not what it leads to.
    fn entry<'p>(&self, path: &'p [u8]) -> Place<'p> {
        match self.layout.place_of(path) {
            (_, []) => Place { root: DATA, path },
            (root, path) => Place { root, path },
        }
    }
}
