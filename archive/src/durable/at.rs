//! Durable changes relative to an open directory: what [`super`] and the local store are both made of.
//!
//! Working by descriptor means that a directory that is renamed or replaced by a link half-way cannot send a write elsewhere.

#![allow(clippy::disallowed_methods, reason = "this is the door")]

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, IoSlice, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

use super::TEMP_PREFIX;
use crate::clock::{Clock, SystemClock};

pub(crate) mod trace;

use trace::Step;

/// Leftovers older than this are swept whoever wrote them: no write takes that long.
const STALE_AFTER: Duration = Duration::from_secs(3600);

/// How many chunks go into one `writev` (Linux's `UIO_MAXIOV`).
const CHUNKS_PER_WRITE: usize = 1024;

/// Whether a new file was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an existing file must be compared with what was to be written"]
pub enum Published {
    /// The file is the one just written.
    New,
    /// A file of that name was there already.
    Exists,
}

/// The answer of [`Temp::publish`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Publication {
    /// The name is taken, by this file or by an earlier one.
    Done(Published),
    /// The filesystem has no operation that publishes without replacing.
    Unsupported,
}

/// Opens a directory by path, following links: the caller trusts this path.
pub(crate) fn open_directory_path(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Opens the directory `name` in `parent`. A symbolic link is not followed (`ELOOP` or `ENOTDIR`).
pub(crate) fn open_directory(parent: impl AsFd, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())?)
}

/// Opens the file `name` in `directory` to read. A symbolic link is not followed (`ELOOP`), a FIFO does not block.
pub(crate) fn open_file(directory: impl AsFd, name: &OsStr) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?))
}

/// Makes the directory `name` in `parent` with mode 0700 whatever the umask; one that stands is left as it is.
pub(crate) fn make_directory(parent: impl AsFd, name: &OsStr) -> io::Result<()> {
    match rustix::fs::mkdirat(&parent, name, Mode::RWXU) {
        Ok(()) => {
            trace::on_entry(Step::MakeDirectory, &parent, name);
            let made = open_directory(&parent, name)?;
            Ok(rustix::fs::fchmod(made, Mode::RWXU)?)
        }
        Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Fsyncs an open file or directory.
pub(crate) fn fsync(what: impl AsFd) -> io::Result<()> {
    rustix::fs::fsync(&what)?;
    trace::on(Step::Fsync, &what);
    Ok(())
}

/// Fsyncs the file `name` in `directory`.
pub(crate) fn fsync_file(directory: impl AsFd, name: &OsStr) -> io::Result<()> {
    fsync(open_file(directory, name)?)
}

/// Removes the file `name`; answers whether it was there.
pub(crate) fn unlink(directory: impl AsFd, name: &OsStr) -> io::Result<bool> {
    match rustix::fs::unlinkat(&directory, name, AtFlags::empty()) {
        Ok(()) => {
            trace::on_entry(Step::Unlink, &directory, name);
            Ok(true)
        }
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Files of this length and more leave the page cache as soon as they are durable: packs and segments are written once and
/// seldom read, and the memory is better used by the database (and by the next file, which then takes pages that are warm).
const UNCACHED_BYTES: usize = 1 << 20;

/// A file that has no public name yet; dropped without one, it is removed.
#[derive(Debug)]
pub(crate) struct Temp<'a> {
    directory: &'a OwnedFd,
    name: String,
    file: File,
    linked: bool,
}

impl<'a> Temp<'a> {
    /// Makes an empty file, mode 0600 whatever the umask, under a temporary name of its own in `directory`.
    pub(crate) fn create(directory: &'a OwnedFd) -> io::Result<Self> {
        let mut nonce = [0_u8; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let name = format!("{TEMP_PREFIX}{}.{}.{}", host_tag(), std::process::id(), hex::encode(nonce));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let file = File::from(rustix::fs::openat(directory, name.as_str(), flags, mode)?);
        trace::on(Step::Create, &file);
        let temp = Self { directory, name, file, linked: true };
        rustix::fs::fchmod(&temp.file, mode)?;
        Ok(temp)
    }

    /// Appends the chunks without joining them, then fsyncs the file.
    pub(crate) fn write<C: AsRef<[u8]>>(&mut self, chunks: &[C]) -> io::Result<()> {
        for group in chunks.chunks(CHUNKS_PER_WRITE) {
            let mut slices: Vec<IoSlice<'_>> =
                group.iter().map(|chunk| IoSlice::new(chunk.as_ref())).collect();
            let mut rest = slices.as_mut_slice();
            IoSlice::advance_slices(&mut rest, 0);
            while !rest.is_empty() {
                match self.file.write_vectored(rest) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(written) => IoSlice::advance_slices(&mut rest, written),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
        }
        trace::on(Step::Write, &self.file);
        fsync(&self.file)?;
        let length: usize = chunks.iter().map(|chunk| chunk.as_ref().len()).sum();
        if length >= UNCACHED_BYTES {
            // Advice only: where it is not taken the pages stay until the kernel needs them.
            rustix::fs::fadvise(&self.file, 0, None, rustix::fs::Advice::DontNeed).ok();
        }
        Ok(())
    }

    /// The file, open a second time.
    pub(crate) fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    /// Gives the file its public name unless that is taken. The directory is not yet fsynced.
    pub(crate) fn publish(mut self, name: &OsStr) -> io::Result<Publication> {
        let from = self.name.as_str();
        match rustix::fs::renameat_with(self.directory, from, self.directory, name, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.linked = false;
                trace::renamed(self.directory, self.name.as_ref(), name);
                return Ok(Publication::Done(Published::New));
            }
            Err(Errno::EXIST) => return Ok(Publication::Done(Published::Exists)),
            // The flag is unknown to the kernel or to the filesystem (NFS): a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
        self.publish_by_link(name)
    }

    /// [`Temp::publish`] by `link`; the temporary name goes when the value is dropped, before the directory is fsynced.
    pub(crate) fn publish_by_link(self, name: &OsStr) -> io::Result<Publication> {
        match rustix::fs::linkat(self.directory, self.name.as_str(), self.directory, name, AtFlags::empty()) {
            Ok(()) => {
                trace::renamed(self.directory, self.name.as_ref(), name);
                Ok(Publication::Done(Published::New))
            }
            Err(Errno::EXIST) => Ok(Publication::Done(Published::Exists)),
            Err(Errno::PERM | Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Publication::Unsupported),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the file its public name in place of what was there.
    pub(crate) fn replace(mut self, name: &OsStr) -> io::Result<()> {
        rustix::fs::renameat(self.directory, self.name.as_str(), self.directory, name)?;
        self.linked = false;
        trace::renamed(self.directory, self.name.as_ref(), name);
        Ok(())
    }
}

impl Drop for Temp<'_> {
    fn drop(&mut self) {
        if self.linked
            && let Err(error) = unlink(self.directory, self.name.as_ref())
        {
            tracing::debug!(name = self.name, %error, "a temporary file stays behind; a later writer sweeps it");
        }
    }
}

/// Gives a file a name in another directory unless that is taken. The old name may be left where the filesystem only links.
pub(super) fn rename_new(
    old_directory: &OwnedFd,
    old: &OsStr,
    new_directory: &OwnedFd,
    new: &OsStr,
) -> io::Result<Published> {
    let renamed =
        match rustix::fs::renameat_with(old_directory, old, new_directory, new, RenameFlags::NOREPLACE) {
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                rustix::fs::linkat(old_directory, old, new_directory, new, AtFlags::empty())
            }
            answer => answer,
        };
    match renamed {
        Ok(()) => Ok(Published::New),
        Err(Errno::EXIST) => Ok(Published::Exists),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether `directory` holds anything that is published: neither a temporary file nor a directory.
pub(crate) fn holds_published(directory: &OwnedFd) -> io::Result<bool> {
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == rustix::fs::FileType::RegularFile && !name.starts_with(TEMP_PREFIX.as_bytes())
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes stale temporary files from `directory` itself and fsyncs it if there were any; answers how many.
pub(crate) fn sweep(directory: &OwnedFd) -> io::Result<usize> {
    let mut swept = 0;
    for entry in rustix::fs::Dir::read_from(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        if name.starts_with(TEMP_PREFIX) && is_stale(directory, name)? && unlink(directory, name.as_ref())? {
            swept += 1;
        }
    }
    if swept > 0 {
        fsync(directory)?;
    }
    Ok(swept)
}

/// Whether the writer of the temporary file `name` is gone: its process on this very host and boot, or an hour has passed.
fn is_stale(directory: &OwnedFd, name: &str) -> io::Result<bool> {
    let mut parts = name.trim_start_matches(TEMP_PREFIX).split('.');
    if parts.next() == Some(host_tag().as_str())
        && let Some(pid) =
            parts.next().and_then(|pid| pid.parse().ok()).and_then(rustix::process::Pid::from_raw)
        && rustix::process::test_kill_process(pid) == Err(Errno::SRCH)
    {
        return Ok(true);
    }
    let stat = match rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(false),
        Err(error) => return Err(error.into()),
    };
    let age_seconds = SystemClock.now().as_second().saturating_sub(stat.st_mtime);
    Ok(u64::try_from(age_seconds).is_ok_and(|age| age > STALE_AFTER.as_secs()))
}

/// Tells apart hosts, boots and containers, so that a process number is only believed where it was given: eight hex digits.
fn host_tag() -> String {
    let mut hasher = blake3::Hasher::new();
    for source in ["/proc/sys/kernel/random/boot_id", "/etc/machine-id"] {
        // Where neither can be read the tag is the same everywhere, and then so must be the process namespace.
        hasher.update(&std::fs::read(source).unwrap_or_default());
        hasher.update(b"\0");
    }
    if let Ok(namespace) = std::fs::read_link("/proc/self/ns/pid") {
        hasher.update(namespace.as_os_str().as_encoded_bytes());
    }
    let [a, b, c, d, ..] = *hasher.finalize().as_bytes();
    hex::encode([a, b, c, d])
}
