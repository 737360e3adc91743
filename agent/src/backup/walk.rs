//! The walk through the data directory.
//!
//! Depth first, the names of each directory bytewise, so that the file list is sorted and two of them merge as streams. A
//! directory's names are read at once into one compact buffer, because a relation is known to be unlogged only when its
//! `_init` fork has been seen. What is gone when its turn comes is no error: PostgreSQL dropped it, and WAL replay will too.
//!
//! Symbolic links: those of tablespaces are followed, as are `pg_wal` and other directories whose contents are not copied. One that
//! stays inside the data directory is kept as a link. One that PostgreSQL names as a configuration file is read as a file. Any
//! other is an error (I25), found before the backup begins, because the walk is made once before as a survey.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use highwater_archive::manifest::{FileLine, FilePath};

use super::error::BackupError;
use super::names::{self, DirectoryKind, Fork, RelationFile};
use super::work::{FileRef, Place};

/// What the walk must know beforehand.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The data directory.
    pub data_dir: PathBuf,
    /// The directory of this server's version in each tablespace, as in `PG_17_202406281`.
    pub version_directory: String,
    /// Paths below the data directory that PostgreSQL reads as configuration, and that may be links to elsewhere.
    pub configuration: BTreeSet<FilePath>,
    /// Links below the data directory that are left out, with the reason: private keys elsewhere.
    pub keys: BTreeMap<FilePath, String>,
}

/// What the walk meets, in order.
#[derive(Debug)]
pub enum Found {
    /// A directory or a link.
    Entry(FileLine),
    /// A file, with its size when it was seen.
    File(FileRef, u64),
    /// Something that is left out and must be told.
    LeftOut(PathBuf, String),
    /// `pg_wal` is a link to this place.
    WalElsewhere(String),
    /// Gone before it could be looked at.
    Vanished,
}

/// Walks the data directory; `visit` gets what is found, and may end the walk with an error.
pub fn walk(
    rules: &Rules,
    visit: &mut dyn FnMut(Found) -> Result<(), BackupError>,
) -> Result<(), BackupError> {
    let mut walker = Walker { rules, visit };
    let names =
        Names::read(&rules.data_dir).map_err(|error| BackupError::unreadable(&rules.data_dir, error))?;
    walker.children(None, DirectoryKind::Top, &names)
}

struct Walker<'a> {
    rules: &'a Rules,
    visit: &'a mut dyn FnMut(Found) -> Result<(), BackupError>,
}

impl Walker<'_> {
    fn children(
        &mut self,
        directory: Option<&FilePath>,
        kind: DirectoryKind,
        names: &Names,
    ) -> Result<(), BackupError> {
        let unlogged = if kind.holds_relations() { names.unlogged() } else { HashSet::new() };
        for name in names.sorted() {
            if names::is_left_out(kind, name) {
                continue;
            }
            if kind == DirectoryKind::Tablespace && name != self.rules.version_directory.as_bytes() {
                continue;
            }
            let relation = kind.holds_relations().then(|| RelationFile::parse(name)).flatten();
            if relation.is_some_and(|file| file.fork != Fork::Init && unlogged.contains(&file.number)) {
                continue;
            }
            let path = match directory {
                None => FilePath::from_bytes(name),
                Some(directory) => directory.join(name),
            };
            let path = path.map_err(|_| BackupError::Name { path: self.on_disk(directory, name) })?;
            self.child(path, name, kind, relation)?;
        }
        Ok(())
    }

    fn on_disk(&self, directory: Option<&FilePath>, name: &[u8]) -> PathBuf {
        let directory =
            directory.map_or(self.rules.data_dir.clone(), |path| self.rules.data_dir.join(path.as_path()));
        directory.join(Path::new(std::ffi::OsStr::from_bytes(name)))
    }

    fn child(
        &mut self,
        path: FilePath,
        name: &[u8],
        parent: DirectoryKind,
        relation: Option<RelationFile>,
    ) -> Result<(), BackupError> {
        let disk = self.rules.data_dir.join(path.as_path());
        let Some(meta) = present(std::fs::symlink_metadata(&disk), &disk)? else {
            return (self.visit)(Found::Vanished);
        };
        let kind = meta.file_type();
        if kind.is_dir() {
            self.directory(path, &disk, name, parent, meta.mode())
        } else if kind.is_file() {
            (self.visit)(Found::File(
                FileRef { place: Place::Inside(path), relation, follow: false },
                meta.len(),
            ))
        } else if kind.is_symlink() {
            self.link(path, &disk, name, parent)
        } else {
            let what = if kind.is_socket() {
                "a socket"
            } else if kind.is_fifo() {
                "a pipe"
            } else {
                "a device"
            };
            (self.visit)(Found::LeftOut(disk, format!("{what}, not a file")))
        }
    }

    fn directory(
        &mut self,
        path: FilePath,
        disk: &Path,
        name: &[u8],
        parent: DirectoryKind,
        mode: u32,
    ) -> Result<(), BackupError> {
        let mode = mode & 0o7777;
        if parent == DirectoryKind::Top && names::is_emptied(name) {
            return self.emptied(path, disk, name, mode);
        }
        // Read before it is told of: a database dropped in between leaves no empty directory behind.
        let Some(names) = present(Names::read(disk), disk)? else {
            return (self.visit)(Found::Vanished);
        };
        (self.visit)(Found::Entry(FileLine::Dir { path: path.clone(), mode }))?;
        self.children(Some(&path), parent.of_child(name), &names)
    }

    /// A directory that is kept without its contents.
    fn emptied(&mut self, path: FilePath, disk: &Path, name: &[u8], mode: u32) -> Result<(), BackupError> {
        (self.visit)(Found::Entry(FileLine::Dir { path: path.clone(), mode }))?;
        if name != b"pg_wal" {
            return Ok(());
        }
        for inner in names::WAL_DIRECTORIES {
            let inner = path.join(inner).map_err(|_| BackupError::Name { path: disk.to_path_buf() })?;
            let inner_disk = self.rules.data_dir.join(inner.as_path());
            if let Some(meta) = present(std::fs::symlink_metadata(&inner_disk), &inner_disk)?
                && meta.is_dir()
            {
                (self.visit)(Found::Entry(FileLine::Dir { path: inner, mode: meta.mode() & 0o7777 }))?;
            }
        }
        Ok(())
    }

    fn link(
        &mut self,
        path: FilePath,
        disk: &Path,
        name: &[u8],
        parent: DirectoryKind,
    ) -> Result<(), BackupError> {
        let Some(target) = present(std::fs::read_link(disk), disk)? else {
            return (self.visit)(Found::Vanished);
        };
        let Some(target) = target.to_str().map(str::to_owned) else {
            return Err(BackupError::Name { path: disk.to_path_buf() });
        };
        if parent == DirectoryKind::Top && names::is_emptied(name) {
            let mode = present(std::fs::metadata(disk), disk)?.map_or(0o700, |meta| meta.mode() & 0o7777);
            if name == b"pg_wal" {
                (self.visit)(Found::WalElsewhere(target))?;
            }
            return self.emptied(path, disk, name, mode);
        }
        if parent.of_child(name) == DirectoryKind::Tablespace {
            return self.tablespace(path, disk, target);
        }
        if let Some(reason) = self.rules.keys.get(&path) {
            return (self.visit)(Found::LeftOut(disk.to_path_buf(), reason.clone()));
        }
        if self.rules.configuration.contains(&path) {
            let Some(meta) = present(std::fs::metadata(disk), disk)? else {
                return (self.visit)(Found::Vanished);
            };
            if meta.is_file() {
                let file = FileRef { place: Place::Inside(path), relation: None, follow: true };
                return (self.visit)(Found::File(file, meta.len()));
            }
        }
        if stays_inside(&path, Path::new(&target)) {
            return (self.visit)(Found::Entry(FileLine::Symlink { path, target }));
        }
        Err(BackupError::LeavesDataDirectory { path, target })
    }

    fn tablespace(&mut self, path: FilePath, disk: &Path, target: String) -> Result<(), BackupError> {
        let Some(meta) = present(std::fs::metadata(disk), disk)? else {
            return (self.visit)(Found::Vanished);
        };
        let Some(names) = present(Names::read(disk), disk)? else {
            return (self.visit)(Found::Vanished);
        };
        let mode = meta.mode() & 0o7777;
        (self.visit)(Found::Entry(FileLine::Tablespace { path: path.clone(), target, mode }))?;
        self.children(Some(&path), DirectoryKind::Tablespace, &names)
    }
}

/// `None` for what is gone.
fn present<T>(result: io::Result<T>, path: &Path) -> Result<Option<T>, BackupError> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(BackupError::unreadable(path, error)),
    }
}

/// Whether a relative link at `path` stays below the data directory, or below the tablespace that it lies in, by its text alone. A
/// `..` behind a name is taken from wherever that name leads, which may be out of it: the way up comes first.
fn stays_inside(path: &FilePath, target: &Path) -> bool {
    use std::path::Component;
    let above = if path.as_bytes().starts_with(b"pg_tblspc/") { 3 } else { 1 };
    let mut depth = path.components().count().saturating_sub(above);
    let mut goes_down = false;
    for component in target.components() {
        match component {
            Component::Normal(_) => goes_down = true,
            Component::CurDir => {}
            Component::ParentDir if depth > 0 && !goes_down => depth -= 1,
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return false,
        }
    }
    true
}

/// The names of one directory: end to end, each after its length, and where each begins. A million of them take 13 MB.
struct Names {
    bytes: Vec<u8>,
    begins: Vec<u32>,
}

impl Names {
    fn read(directory: &Path) -> io::Result<Names> {
        let mut names = Names { bytes: Vec::new(), begins: Vec::new() };
        for entry in std::fs::read_dir(directory)? {
            let name = entry?.file_name();
            let begin = u32::try_from(names.bytes.len()).map_err(|_| io::Error::other("too many names"))?;
            let length = u8::try_from(name.len()).map_err(|_| io::Error::other("a name is too long"))?;
            names.bytes.push(length);
            names.bytes.extend_from_slice(name.as_bytes());
            names.begins.push(begin);
        }
        let Names { bytes, begins } = &mut names;
        begins.sort_unstable_by_key(|begin| name_at(bytes, *begin));
        Ok(names)
    }

    fn sorted(&self) -> impl Iterator<Item = &[u8]> {
        self.begins.iter().map(|begin| name_at(&self.bytes, *begin))
    }

    /// The relations that have an init fork: everything else of them is lost in a crash anyway.
    fn unlogged(&self) -> HashSet<u32> {
        let files = self.sorted().filter_map(RelationFile::parse);
        files.filter(|file| file.fork == Fork::Init).map(|file| file.number).collect()
    }
}

fn name_at(bytes: &[u8], begin: u32) -> &[u8] {
    let Some((length, rest)) = bytes.get(begin as usize..).and_then(<[u8]>::split_first) else { return &[] };
    rest.get(..usize::from(*length)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I25: what a link says leads elsewhere when a name on the way is a link itself, and from within a tablespace.
    #[test]
    fn a_link_is_inside_only_when_it_is_on_any_disk() {
        let inside = |path: &str, target: &str| stays_inside(&path.parse().unwrap(), Path::new(target));
        for (path, target) in [
            ("base/near", "../global"),
            ("a/b/c", "../.././d/e"),
            ("x", "y/./z"),
            ("pg_tblspc/1/PG_17/x", "../y"),
        ] {
            assert!(inside(path, target), "{path} -> {target}");
        }
        for (path, target) in [
            ("x", "../y"),
            ("x", "/y"),
            ("x", "pg_tblspc/16384/../../etc"),
            ("a/b/c", "../d/../e"),
            ("pg_tblspc/1/PG_17/x", "../../../base"),
        ] {
            assert!(!inside(path, target), "{path} -> {target}");
        }
    }
}
