//! The directories a cluster is spread over, and the safe way into each.
//!
//! A file list is data from a repository, so nothing in it decides where we write. Every place is reached through one of a few
//! **roots**, directories that the person named (the data directory, `--wal-dir`, each tablespace) or that we made below
//! them, each held open. Paths below a root have no `..` ([`FilePath`] refuses it), are opened relative to the root's
//! descriptor, never through a symbolic link (`openat2` with `RESOLVE_NO_SYMLINKS`; on a kernel without
//! it directory by directory, each with `O_NOFOLLOW`) and never across a mount (`RESOLVE_NO_XDEV`, or by the device): preflight has
//! seen none there, so one is somebody's who came meanwhile. A root must be the very directory that was marked as this restore's. Directories, links and empty files are made exclusively: one that is already there is an error, never taken over. Only where
//! a restore goes on in place may a directory be there, of which [`super::sweep`] has seen that it is one.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_archive::durable;
use highwater_archive::manifest::FilePath;
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::work::Place;
use super::{Claimed, OUTSIDE_DIRECTORY, OWN_DIRECTORY, RebuildError, RebuildOptions};
use crate::contents;
use crate::ownership::{self, Account};

mod existing;

pub(super) use existing::Kind;

/// The index of a root in a [`Layout`].
pub(super) type RootIndex = u16;

/// The data directory itself.
pub(super) const DATA: RootIndex = 0;
/// Where configuration from outside is kept.
const OUTSIDE: RootIndex = 1;

/// Directories of every cluster that a restore, or the server that follows, writes into by their names: never links of a file list.
const MADE_OF_DIRECTORIES: [&str; 4] = ["global", "pg_tblspc", "pg_wal", OWN_DIRECTORY];

/// One directory that things are made below.
#[derive(Debug)]
struct Root {
    path: PathBuf,
    directory: OwnedFd,
    device: u64,
}

/// All places of a cluster.
#[derive(Debug)]
pub struct Layout {
    roots: Vec<Root>,
    claimed: Vec<Claimed>,
    wal: Option<RootIndex>,
    /// Root of each tablespace that lies elsewhere, by oid.
    tablespaces: Vec<(u32, RootIndex)>,
    owner: Option<Account>,
    mode: u32,
    in_place: bool,
    lacks_openat2: AtomicBool,
}

impl Layout {
    /// Makes and opens the roots. In place, what [`OWN_DIRECTORY`] holds beside the marker goes: it is of what was there before.
    ///
    /// # Errors
    /// [`RebuildError::Io`], [`RebuildError::Durable`].
    pub(super) fn create(options: &RebuildOptions, mode: u32) -> Result<Layout, RebuildError> {
        let data_dir = &options.data_dir;
        let owner = options.owner.clone();
        ownership::make_directory(data_dir, owner.as_ref())?;
        durable::create_dir_all_durable(&data_dir.join(OWN_DIRECTORY))?;
        let in_place = options.in_place.is_some();
        let lacks_openat2 = AtomicBool::new(false);
        let claimed = options.claimed.clone();
        let (roots, wal, tablespaces) = (vec![Root::open(data_dir, &claimed)?], None, Vec::new());
        let mut layout = Layout { roots, claimed, wal, tablespaces, owner, mode, in_place, lacks_openat2 };
        if in_place {
            layout.clear_own_directory()?;
        }
        layout.add_root(&data_dir.join(OUTSIDE_DIRECTORY))?;
        layout.wal = options.wal_dir.as_deref().map(|path| layout.add_root(path)).transpose()?;
        for placed in &options.tablespaces {
            let root = layout.add_root(&placed.directory)?;
            layout.tablespaces.push((placed.oid, root));
        }
        Ok(layout)
    }

    fn add_root(&mut self, path: &Path) -> Result<RootIndex, RebuildError> {
        ownership::make_directory(path, self.owner.as_ref())?;
        let index = RootIndex::try_from(self.roots.len())
            .map_err(|_| RebuildError::Hostile("more tablespaces than can be".into()))?;
        self.roots.push(Root::open(path, &self.claimed)?);
        Ok(index)
    }

    /// The data directory's path.
    pub fn data_dir(&self) -> &Path {
        self.roots.first().map_or(Path::new(""), |root| root.path.as_path())
    }

    /// Who gets the files.
    pub(super) fn owner(&self) -> Option<&Account> {
        self.owner.as_ref()
    }

    /// Every root's path.
    pub(super) fn roots(&self) -> impl Iterator<Item = (RootIndex, &Path)> {
        (0..).zip(&self.roots).map(|(index, root)| (index, root.path.as_path()))
    }

    /// One root's path with its open descriptor for each filesystem.
    pub(super) fn filesystems(&self) -> impl Iterator<Item = (&Path, &OwnedFd)> {
        let mut met = BTreeSet::new();
        let first = self.roots.iter().filter(move |root| met.insert(root.device));
        first.map(|root| (root.path.as_path(), &root.directory))
    }

    /// Whether an entry of a root is the cluster's, and not something that lies beside it ([`contents`]).
    pub(super) fn is_ours(&self, root: RootIndex, name: &[u8], version_directory: &str) -> bool {
        if self.wal == Some(root) {
            contents::is_of_wal(name)
        } else if self.tablespaces.iter().any(|(_, known)| *known == root) {
            name == version_directory.as_bytes()
        } else {
            !contents::is_apart(name)
        }
    }

    /// Where a path of the file list goes: `pg_tblspc/<oid>/…` and `pg_wal/…` may lead to a root of their own, and then the
    /// path below that root is empty for the directory itself.
    pub(super) fn place<'p>(&self, path: &'p FilePath) -> (RootIndex, &'p [u8]) {
        self.place_of(path.as_bytes())
    }

    /// The same for its bytes; none are the data directory.
    pub(super) fn place_of<'p>(&self, bytes: &'p [u8]) -> (RootIndex, &'p [u8]) {
        if let Some(root) = self.wal
            && let Some(below) = below(bytes, b"pg_wal")
        {
            return (root, below);
        }
        if let Some(rest) = bytes.strip_prefix(b"pg_tblspc/") {
            let oid_len = rest.iter().position(|byte| *byte == b'/').unwrap_or(rest.len());
            let (oid, _) = rest.split_at_checked(oid_len).unwrap_or((rest, b""));
            let oid = std::str::from_utf8(oid).ok().and_then(|text| text.parse::<u32>().ok());
            let found = self.tablespaces.iter().find(|(known, _)| Some(*known) == oid);
            if let Some((_, root)) = found
                && let Some(below) = below(rest, rest.get(..oid_len).unwrap_or(rest))
            {
                return (*root, below);
            }
        }
        (DATA, bytes)
    }

    /// Makes a directory of the file list.
    pub(super) fn make_dir(&self, path: &FilePath, mode: u32) -> Result<(), RebuildError> {
        let (root, below) = self.place(path);
        if below.is_empty() {
            // The root of pg_wal is there already; what is missing is the link to it.
            self.finish_directory(root, b".", mode)?;
            let target = self.root(root)?.path.clone();
            return self.make_link(DATA, path.as_bytes(), target.as_os_str().as_bytes());
        }
        self.make_dir_below(root, below, mode)
    }

    /// Makes the link of a tablespace to its root, and sets the mode of the directory it leads to.
    pub(super) fn make_tablespace_link(&self, path: &FilePath, mode: u32) -> Result<(), RebuildError> {
        let (root, below) = self.place(path);
        if root == DATA || !below.is_empty() {
            return Err(RebuildError::Hostile(format!(
                "{path} is a link to a tablespace that the manifest does not name"
            )));
        }
        self.finish_directory(root, b".", mode)?;
        let target = self.root(root)?.path.clone();
        self.make_link(DATA, path.as_bytes(), target.as_os_str().as_bytes())
    }

    /// Makes a symbolic link that stays inside the data directory, or inside the root that it lies in.
    pub(super) fn make_inner_link(&self, path: &FilePath, target: &str) -> Result<(), RebuildError> {
        let (root, below) = self.place(path);
        if below.is_empty() || MADE_OF_DIRECTORIES.iter().any(|made| path.as_bytes() == made.as_bytes()) {
            return Err(RebuildError::Hostile(format!("{path} is a link, where a directory belongs")));
        }
        // Above another root than the data directory lies something else than its text says.
        let depth = below.iter().filter(|byte| **byte == b'/').count();
        if !stays_inside(target, depth) {
            return Err(RebuildError::Hostile(format!(
                "the link {path} leads to {target}, which may be outside the data directory"
            )));
        }
        self.make_link(root, below, target.as_bytes())
    }

    /// The place of a configuration file from outside, by its absolute path on the original host; makes its directories.
    pub(super) fn outside_place(&self, absolute: &str) -> Result<(RootIndex, FilePath), RebuildError> {
        let relative = absolute.trim_start_matches('/');
        let path = FilePath::from_bytes(relative.as_bytes())
            .map_err(|error| RebuildError::Hostile(format!("a configuration file outside: {error}")))?;
        let bytes = path.as_bytes();
        let slashes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for parent in slashes.filter_map(|at| bytes.get(..at)) {
            match self.make_dir_below(OUTSIDE, parent, 0o700) {
                Ok(()) => {}
                // Two files of one directory; that it is a directory and no link shows when the file is opened.
                Err(RebuildError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Ok((OUTSIDE, path))
    }

    /// Makes an empty file that must not exist yet.
    pub(super) fn make_empty(&self, place: Place<'_>, mode: u32, mtime: i64) -> Result<(), RebuildError> {
        let file = self.open(place, OFlags::CREATE | OFlags::EXCL)?;
        self.finish_file(&file, place, mode, mtime)
    }

    /// Opens a file to be written, made if it is not there: lanes meet at a file in any order.
    pub(super) fn open_to_write(&self, place: Place<'_>) -> Result<OwnedFd, RebuildError> {
        self.open(place, OFlags::CREATE)
    }

    /// Opens a file to be read.
    pub(super) fn open_to_read(&self, place: Place<'_>) -> Result<OwnedFd, RebuildError> {
        self.open_raw(place, OFlags::RDONLY, Mode::empty()).map_err(|errno| self.io("open", place, errno))
    }

    /// Gives a complete file its owner, mode and time.
    pub(super) fn finish_file(
        &self,
        file: impl AsFd,
        place: Place<'_>,
        mode: u32,
        mtime: i64,
    ) -> Result<(), RebuildError> {
        let finish = || -> io::Result<()> {
            ownership::give(&file, self.owner.as_ref())?;
            // What was made here has that mode already.
            if self.in_place || mode & 0o7777 != 0o600 {
                rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
            }
            let time = rustix::fs::Timespec { tv_sec: mtime, tv_nsec: 0 };
            rustix::fs::futimens(
                &file,
                &rustix::fs::Timestamps { last_access: time, last_modification: time },
            )?;
            Ok(())
        };
        finish().map_err(|source| self.io("set owner, mode and time of", place, source))
    }

    /// Gives our own directories and the roots their owner and mode; the last thing done to the tree.
    pub(super) fn seal(&self) -> Result<(), RebuildError> {
        self.finish_directory(DATA, b".", self.mode)?;
        self.finish_directory(OUTSIDE, b".", 0o700)?;
        self.finish_directory(DATA, OWN_DIRECTORY.as_bytes(), 0o700)
    }

    /// A path as a person knows it.
    pub(super) fn name(&self, place: Place<'_>) -> String {
        let root = self.roots.get(usize::from(place.root)).map_or(Path::new(""), |root| root.path.as_path());
        root.join(OsStr::from_bytes(place.path)).display().to_string()
    }

    /// An error of the disk at a place.
    pub(super) fn io(
        &self,
        operation: &'static str,
        place: Place<'_>,
        source: impl Into<io::Error>,
    ) -> RebuildError {
        let (path, source) = (self.name(place), source.into());
        if source.raw_os_error() == Some(Errno::XDEV.raw_os_error()) {
            return RebuildError::Mounted { path };
        }
        RebuildError::Io { operation, path, source }
    }

    fn make_dir_below(&self, root: RootIndex, below: &[u8], mode: u32) -> Result<(), RebuildError> {
        let place = Place { root, path: below };
        let parent = self.open_parent(place)?;
        match rustix::fs::mkdirat(&parent, name_of(below), Mode::RWXU) {
            Ok(()) => {}
            Err(Errno::EXIST) if self.in_place => {}
            Err(errno) => return Err(self.io("make the directory", place, errno)),
        }
        self.finish_directory(root, below, mode)
    }

    fn make_link(&self, root: RootIndex, below: &[u8], target: &[u8]) -> Result<(), RebuildError> {
        let place = Place { root, path: below };
        let parent = self.open_parent(place)?;
        rustix::fs::symlinkat(OsStr::from_bytes(target), &parent, name_of(below))
            .map_err(|errno| self.io("make the link", place, errno))?;
        if let Some(owner) = &self.owner {
            let (uid, gid) = (rustix::fs::Uid::from_raw(owner.uid), rustix::fs::Gid::from_raw(owner.gid));
            rustix::fs::chownat(&parent, name_of(below), Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|errno| self.io("give away", place, errno))?;
        }
        Ok(())
    }

    fn finish_directory(&self, root: RootIndex, below: &[u8], mode: u32) -> Result<(), RebuildError> {
        let place = Place { root, path: below };
        let directory = self.open_directory(place)?;
        ownership::give(&directory, self.owner.as_ref())
            .map_err(|source| self.io("give away", place, source))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(mode & 0o777))
            .map_err(|errno| self.io("set the mode of", place, errno))
    }

    /// The directory that a new name is made in, reached without following a link.
    fn open_parent(&self, place: Place<'_>) -> Result<OwnedFd, RebuildError> {
        let parent = place.path.iter().rposition(|byte| *byte == b'/').and_then(|at| place.path.get(..at));
        self.open_directory(Place { root: place.root, path: parent.unwrap_or(b".") })
    }

    fn open_directory(&self, place: Place<'_>) -> Result<OwnedFd, RebuildError> {
        let place = if place.path.is_empty() { Place { path: b".", ..place } } else { place };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY;
        self.open_raw(place, flags, Mode::empty())
            .map_err(|errno| self.io("open the directory", place, errno))
    }

    fn open(&self, place: Place<'_>, extra: OFlags) -> Result<OwnedFd, RebuildError> {
        self.open_raw(place, OFlags::WRONLY | extra, Mode::RUSR | Mode::WUSR)
            .map_err(|errno| self.io("open", place, errno))
    }

    fn open_raw(&self, place: Place<'_>, flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let mode = if flags.contains(OFlags::CREATE) { mode } else { Mode::empty() };
        let root = self.roots.get(usize::from(place.root)).ok_or(Errno::BADF)?;
        if !self.lacks_openat2.load(Ordering::Relaxed) {
            let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
            match rustix::fs::openat2(root.directory.as_fd(), place.path, flags, mode, resolve) {
                // Older kernels lack the call, and some sandboxes deny it.
                Err(Errno::NOSYS | Errno::PERM) => self.lacks_openat2.store(true, Ordering::Relaxed),
                answer => return answer,
            }
        }
        root.walk_to(place.path, flags, mode)
    }

    fn root(&self, index: RootIndex) -> Result<&Root, RebuildError> {
        self.roots.get(usize::from(index)).ok_or(RebuildError::Thread)
    }
}

impl Root {
    /// Opens a directory that the person named; a link there is theirs, and followed. It must be the one that was marked.
    fn open(path: &Path, marked: &[Claimed]) -> Result<Root, RebuildError> {
        let opened = OpenOptions::new().read(true).custom_flags(OFlags::DIRECTORY.bits() as i32).open(path);
        let failed = |source| RebuildError::Io {
            operation: "open the directory",
            path: path.display().to_string(),
            source,
        };
        let directory: OwnedFd = opened.map_err(failed)?.into();
        let found = Claimed::of(path, &directory).map_err(failed)?;
        found.check(marked)?;
        Ok(Root { path: path.to_owned(), directory, device: found.device() })
    }

    /// Opens what lies at `path` as `openat2` would beneath the root: the directories on the way may be the server's user's, who could
    /// put a link in the place of one at any moment, so each is opened by itself and not through a link.
    fn walk_to(&self, path: &[u8], flags: OFlags, mode: Mode) -> rustix::io::Result<OwnedFd> {
        let same_device = |opened: OwnedFd| match rustix::fs::fstat(&opened)?.st_dev == self.device {
            true => Ok(opened),
            false => Err(Errno::XDEV),
        };
        let (way, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (path.get(..at).unwrap_or_default(), path.get(at + 1..).unwrap_or_default()),
            None => (b"".as_slice(), path),
        };
        if path.split(|byte| *byte == b'/').any(|component| component == b"..") {
            return Err(Errno::XDEV);
        }
        let mut within: Option<OwnedFd> = None;
        for component in way.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            let above = within.as_ref().unwrap_or(&self.directory);
            let one = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            within = Some(same_device(rustix::fs::openat(above, component, one, Mode::empty())?)?);
        }
        let above = within.as_ref().unwrap_or(&self.directory);
        same_device(rustix::fs::openat(above, name, flags, mode)?)
    }
}

/// What of `path` lies below `directory`; empty for the directory itself.
fn below<'p>(path: &'p [u8], directory: &[u8]) -> Option<&'p [u8]> {
    match path.strip_prefix(directory)? {
        [] => Some(&[]),
        [b'/', rest @ ..] => Some(rest),
        _ => None,
    }
}

/// The last component.
fn name_of(path: &[u8]) -> &OsStr {
    OsStr::from_bytes(path.rsplit(|byte| *byte == b'/').next().unwrap_or(path))
}

/// Whether a relative link, `depth` real directories deep, leads to somewhere in the root. A `..` behind a name would be taken from
/// wherever that name leads, which may be a link too, as each tablespace is: so the way up comes first.
fn stays_inside(target: &str, depth: usize) -> bool {
    if target.is_empty() || target.starts_with('/') || target.contains('\0') {
        return false;
    }
    let mut components = target.split('/').filter(|component| !matches!(*component, "" | ".")).peekable();
    let mut up = 0;
    while components.next_if_eq(&"..").is_some() {
        up += 1;
    }
    up <= depth && components.all(|component| component != "..")
}

#[cfg(test)]
mod tests;
