//! What is in place already, and need not be fetched.
//!
//! A restore that was cut off, or `--delta`, finds files where its own will be. What they hold may be anything: an extent that
//! never reached the disk, space that was taken and not filled, a page that was changed since. So nothing is believed of
//! times or lengths. Each extent is read and its keyed digest held against the file list's; the same is kept, everything else
//! is left for the lanes to fetch, with what the file lacks and what cannot be read.
//!
//! Threads take one pack after another, and of each what it holds of files that are there: in a pack the extents of a file lie one
//! after another, so the disk sees long reads. This is over before the first byte is fetched: what is left of each pack decides
//! how it is asked for ([`super::source`]).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use highwater_archive::keyring::Keyring;
use highwater_archive::manifest::ExtentDigest;
use highwater_archive::seal::PIECE_BYTES;
use rustix::fs::{Advice, OFlags};

use super::RebuildError;
use super::layout::Layout;
use super::work::{PackWork, Task, Work};
use super::write::{ALIGNMENT, Buffer, DIRECT_FILE_BYTES};

/// How many threads read for each that the restore was given: a disk answers several at once.
const READERS_PER_JOB: usize = 2;

/// The most threads that read.
const MAX_READERS: usize = 16;

/// How files that are there are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// As any program reads them: what a server has made durable before it was stopped.
    PageCache,
    /// From the disk. What a failed write left in the page cache looks whole, and is on no disk: the kernel reports such a failure once,
    /// and then forgets it (PostgreSQL's `data_sync_retry`). So what an interrupted restore wrote, or a server that was not stopped
    /// cleanly, is not read from there.
    Disk,
}

/// What all readers share.
struct Shared<'a> {
    work: &'a Work,
    layout: &'a Layout,
    keys: &'a Keyring,
    reading: Reading,
    progress: &'a (dyn Fn(u64) + Sync),
    kept: AtomicU64,
    stop: AtomicBool,
}

/// Takes out of the work all that is in place; gives its bytes.
pub(super) fn take_out(
    work: &mut Work,
    layout: &Layout,
    keys: &Keyring,
    reading: Reading,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<u64, RebuildError> {
    let mut packs = work.take_packs();
    let (kept, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let shared = Shared { work, layout, keys, reading, progress, kept, stop };
    let readers = (jobs * READERS_PER_JOB).clamp(1, MAX_READERS).min(packs.len().max(1));
    let outcome = {
        let next = Mutex::new(packs.iter_mut());
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..readers).map(|_| scope.spawn(|| reader(&shared, &next))).collect();
            let ended: Vec<Result<(), RebuildError>> = readers
                .into_iter()
                .map(|reader| reader.join().unwrap_or(Err(RebuildError::Thread)))
                .collect();
            ended.into_iter().collect::<Result<(), RebuildError>>()
        })
    };
    let kept = shared.kept.into_inner();
    packs.retain(|pack| !pack.tasks.is_empty());
    work.put_packs(packs);
    outcome.map(|()| kept)
}

/// Takes pack after pack until none is left.
fn reader(shared: &Shared<'_>, next: &Mutex<std::slice::IterMut<'_, PackWork>>) -> Result<(), RebuildError> {
    let mut buffer = Buffer::new(shared.work.extent_len());
    loop {
        let pack = next.lock().map_err(|_| RebuildError::Thread)?.next();
        let Some(pack) = pack.filter(|_| !shared.stop.load(Ordering::Relaxed)) else { return Ok(()) };
        if let Err(error) = look_at(shared, pack, &mut buffer) {
            shared.stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
    }
}

/// Leaves of a pack's tasks those that are not in place.
fn look_at(shared: &Shared<'_>, pack: &mut PackWork, buffer: &mut Buffer) -> Result<(), RebuildError> {
    let mut open: Option<Found> = None;
    let mut failure = None;
    pack.tasks.retain(|task| {
        if failure.is_some() || !shared.work.is_in_place(task.file) {
            return true;
        }
        if open.as_ref().is_none_or(|found| found.number != task.file) {
            open = Found::open(shared, task.file);
        }
        let Some(found) = &open else { return true };
        if !found.holds(shared, task, buffer) {
            return true;
        }
        let (_, length) = shared.work.stretch(task);
        shared.kept.fetch_add(length, Ordering::Relaxed);
        (shared.progress)(length);
        if let Some((mode, mtime)) = shared.work.written(task.file) {
            let place = shared.work.place(task.file);
            failure = shared.layout.finish_file(&found.file, place, mode, mtime).err();
        }
        false
    });
    failure.map_or(Ok(()), Err)
}

/// A file that is there, open to be read.
struct Found {
    number: u32,
    file: File,
    /// Whether it is read past the page cache.
    direct: bool,
}

impl Found {
    /// Opens the file; what cannot be opened is not kept.
    fn open(shared: &Shared<'_>, number: u32) -> Option<Found> {
        let place = shared.work.place(number);
        let file: File = match shared.layout.open_to_read(place) {
            Ok(file) => file.into(),
            Err(error) => {
                tracing::warn!(%error, "a file cannot be read and is fetched");
                return None;
            }
        };
        let size = shared.work.size(number);
        let from_disk = shared.reading == Reading::Disk;
        let direct = from_disk
            && size >= DIRECT_FILE_BYTES
            && size.is_multiple_of(ALIGNMENT as u64)
            && rustix::fs::fcntl_setfl(&file, OFlags::DIRECT).is_ok();
        if from_disk && !direct {
            // Pages that are on the disk are dropped and read again; those that are not stay, and the barrier at the end writes them.
            if let Err(errno) = rustix::fs::fadvise(&file, 0, None, Advice::DontNeed) {
                tracing::debug!(%errno, "a file is read through the page cache");
            }
        }
        Some(Found { number, file, direct })
    }

    /// Whether the file holds this extent.
    fn holds(&self, shared: &Shared<'_>, task: &Task, buffer: &mut Buffer) -> bool {
        let (begin, length) = shared.work.stretch(task);
        let digest = self.digest(shared.keys, begin, length as usize, buffer).or_else(|error| {
            let refused = error.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error());
            if !(self.direct && refused) {
                return Err(error);
            }
            // A disk of larger blocks.
            rustix::fs::fcntl_setfl(&self.file, OFlags::empty())?;
            rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
            self.digest(shared.keys, begin, length as usize, buffer)
        });
        match digest {
            Ok(digest) => digest == task.extent.digest,
            // It is shorter than it should be.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => false,
            Err(error) => {
                let file = shared.layout.name(shared.work.place(task.file));
                tracing::warn!(file, at = begin, %error, "an extent cannot be read and is fetched");
                false
            }
        }
    }

    fn digest(
        &self,
        keys: &Keyring,
        begin: u64,
        length: usize,
        buffer: &mut Buffer,
    ) -> io::Result<ExtentDigest> {
        let piece = if self.direct { length } else { PIECE_BYTES.min(length) };
        let mut digester = keys.digester();
        let mut at = 0;
        while at < length {
            let wanted = piece.min(length - at);
            let room = buffer.room(wanted).ok_or(io::ErrorKind::InvalidInput)?;
            self.file.read_exact_at(room, begin + at as u64)?;
            digester.update(room);
            at += wanted;
        }
        Ok(ExtentDigest::of(&digester.finalize()))
    }
}
