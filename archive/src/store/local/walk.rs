//! Listing a directory tree as if it were a flat store of names.
//!
//! Foreign files whose names no object can have (`lost+found`, `.DS_Store~`) and unpublished temporary files are passed over.
//! Anything with an object's name that is neither file nor directory is an error, because a list that quietly misses
//! an object would let retention and the catalog draw the wrong conclusion.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Stat};
use rustix::io::Errno;

use super::Tree;
use super::read::timestamp;
use crate::durable::at;
use crate::store::path::is_component;
use crate::store::{ListEntry, Listing, StoreError};

/// One name in a directory.
enum Child {
    Object(ListEntry),
    Directory { name: String, path: String },
}

impl Tree {
    pub(super) fn list(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError> {
        let start = prefix.rsplit_once('/').map_or("", |(directory, _)| directory);
        let mut found = Vec::new();
        if let Some(directory) = self.open_directory("list", start)? {
            self.list_into(&directory, start, &Wanted { prefix, after: after.unwrap_or("") }, &mut found)?;
        }
        found.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    fn list_into(
        &self,
        directory: &OwnedFd,
        path: &str,
        wanted: &Wanted<'_>,
        found: &mut Vec<ListEntry>,
    ) -> Result<(), StoreError> {
        for child in self.children(directory, path)? {
            match child {
                Child::Object(object) if wanted.object(&object.path) => found.push(object),
                Child::Directory { name, path } if wanted.anything_below(&path) => {
                    if let Some(below) = self.open_child(directory, &name, &path)? {
                        self.list_into(&below, &path, wanted, found)?;
                    }
                }
                Child::Object(_) | Child::Directory { .. } => {}
            }
        }
        Ok(())
    }

    pub(super) fn list_directory(&self, path: &str) -> Result<Listing, StoreError> {
        let mut listing = Listing::default();
        let Some(directory) = self.open_directory("list", path)? else { return Ok(listing) };
        for child in self.children(&directory, path)? {
            match child {
                Child::Object(object) => listing.objects.push(object),
                Child::Directory { name, path } => {
                    if let Some(below) = self.open_child(&directory, &name, &path)?
                        && self.holds_object(&below, &path)?
                    {
                        listing.directories.push(path);
                    }
                }
            }
        }
        listing.objects.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        listing.directories.sort_unstable();
        Ok(listing)
    }

    /// Whether any object lies at or below the directory: an empty directory does not exist in other stores.
    fn holds_object(&self, directory: &OwnedFd, path: &str) -> Result<bool, StoreError> {
        let children = self.children(directory, path)?;
        if children.iter().any(|child| matches!(child, Child::Object(_))) {
            return Ok(true);
        }
        for child in children {
            if let Child::Directory { name, path } = child
                && let Some(below) = self.open_child(directory, &name, &path)?
                && self.holds_object(&below, &path)?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Name and path of each directory in `directory`; files are not looked at, however many there are.
    pub(super) fn directories_in(
        &self,
        directory: &OwnedFd,
        path: &str,
    ) -> Result<Vec<(String, String)>, StoreError> {
        let fail = |error: Errno| self.error("list", path, error.into());
        let mut directories = Vec::new();
        for entry in Dir::read_from(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Some((name, below)) = self.child_path(path, &entry) else { continue };
            let is_directory = match entry.file_type() {
                FileType::Unknown => match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(stat) => FileType::from_raw_mode(stat.st_mode) == FileType::Directory,
                    Err(Errno::NOENT) => false,
                    Err(error) => return Err(fail(error)),
                },
                known => known == FileType::Directory,
            };
            if is_directory {
                directories.push((name, below));
            }
        }
        Ok(directories)
    }

    /// Name and path of an entry that can be ours. A tree too deep to be named is nobody's objects; it would only exhaust the
    /// stack.
    fn child_path(&self, directory: &str, entry: &DirEntry) -> Option<(String, String)> {
        let name = entry.file_name().to_str().ok().filter(|name| is_component(name))?;
        let path = if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") };
        crate::store::path::check(&path).is_ok().then(|| (name.to_owned(), path))
    }

    pub(super) fn open_child(
        &self,
        above: &OwnedFd,
        name: &str,
        path: &str,
    ) -> Result<Option<OwnedFd>, StoreError> {
        match at::open_directory(above, OsStr::new(name)) {
            Ok(directory) => Ok(Some(directory)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(self.error("list", path, error)),
        }
    }

    /// What lies directly in a directory, in no order.
    fn children(&self, directory: &OwnedFd, path: &str) -> Result<Vec<Child>, StoreError> {
        let fail = |error: Errno| self.error("list", path, error.into());
        let mut children = Vec::new();
        for entry in Dir::read_from(directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let Some((name, child_path)) = self.child_path(path, &entry) else { continue };
            if entry.file_type() == FileType::Directory {
                children.push(Child::Directory { name, path: child_path });
                continue;
            }
            match rustix::fs::statat(directory, &name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(stat) => children.push(self.child(&name, child_path, &stat)?),
                Err(Errno::NOENT) => {}
                Err(error) => return Err(self.error("list", &child_path, error.into())),
            }
        }
        Ok(children)
    }

    fn child(&self, name: &str, path: String, stat: &Stat) -> Result<Child, StoreError> {
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Child::Object(ListEntry {
                path,
                size: u64::try_from(stat.st_size).unwrap_or(0),
                modified: timestamp(stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0)),
            })),
            // Some filesystems do not tell the type while a directory is read.
            FileType::Directory => Ok(Child::Directory { name: name.to_owned(), path }),
            _ => Err(self.not_a_file(&path)),
        }
    }
}

/// What a list asks for.
struct Wanted<'a> {
    prefix: &'a str,
    /// Only what sorts after this.
    after: &'a str,
}

impl Wanted<'_> {
    fn object(&self, path: &str) -> bool {
        path.starts_with(self.prefix) && path > self.after
    }

    /// Whether an object below the directory can be wanted.
    fn anything_below(&self, directory: &str) -> bool {
        let first = format!("{directory}/");
        let prefix_meets = first.starts_with(self.prefix) || self.prefix.starts_with(&first);
        prefix_meets && (first.as_str() > self.after || self.after.starts_with(&first))
    }
}
