//! Extents into their files.
//!
//! A file of many extents is written past the page cache (`O_DIRECT`): the disk takes the bytes from the buffer in which they
//! were decompressed, and the kernel neither makes pages for them nor copies, nor writes them later; that was three quarters
//! of a restore's CPU. It also leaves the memory of the host to whoever uses it. The server misses little: replay takes most
//! pages that it touches from the full-page images in the WAL. Such a write lasts as long as the disk takes, so a few
//! threads that do nothing else wait for several at once, while the lanes fill other buffers. There is a fixed number of
//! buffers, and that is the memory limit.
//!
//! What is small or no multiple of a disk's block, and everything on a filesystem that cannot do this, is written by the lane
//! itself through the page cache.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};
use rustix::fs::{FallocateFlags, OFlags};
use rustix::io::Errno;

use super::RebuildError;
use super::lane::Shared;
use super::work::Task;

/// A file of this length or more goes past the page cache.
pub(super) const DIRECT_FILE_BYTES: u64 = 256 << 10;

/// What memory, place and length of a direct write must be multiples of, in bytes: the largest block of a disk.
pub(super) const ALIGNMENT: usize = 4096;

/// How much is written through the page cache by one call, in bytes. The kernel takes page cache for each call in one piece where
/// it can; large pieces it must first make room for (`compact_zone`), which was measured to cost more than all of the copying.
const CACHED_WRITE_BYTES: usize = 16 << 10;

/// How many direct writes a lane may have on their way.
const WRITES_PER_LANE: usize = 8;

/// How many all lanes may have on their way.
const MAX_WRITES: usize = 16;

/// How many threads wait for direct writes beside so many lanes.
pub(super) fn writers_for(lanes: usize) -> usize {
    (lanes * WRITES_PER_LANE).min(MAX_WRITES)
}

/// Memory for one extent, placed as a direct write wants it.
pub(super) struct Buffer {
    memory: Vec<u8>,
    begin: usize,
    len: usize,
}

impl Buffer {
    /// Room for `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Buffer {
        let memory = vec![0; capacity + ALIGNMENT];
        // The memory is never given back nor moved before the buffer is dropped.
        let begin = memory.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        Buffer { memory, begin, len: 0 }
    }

    /// The first `len` bytes, to be filled; `None` for more than there is room for.
    pub(super) fn room(&mut self, len: usize) -> Option<&mut [u8]> {
        let end = self.begin.checked_add(len)?;
        let room = self.memory.get_mut(self.begin..end)?;
        self.len = len;
        Some(room)
    }

    /// What it was filled with.
    pub(super) fn bytes(&self) -> &[u8] {
        self.memory.get(self.begin..self.begin + self.len).unwrap_or_default()
    }
}

/// A file of the cluster, open to be written.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) number: u32,
    file: Arc<File>,
    /// Whether it was opened to go past the page cache. Whether it still does the kernel knows, for all clones.
    direct: bool,
}

impl Target {
    /// Opens the file of a task, made if it is not there, all of its space taken if it goes past the page cache.
    pub(super) fn open(shared: &Shared<'_>, number: u32) -> Result<Target, RebuildError> {
        let place = shared.work.place(number);
        let file: File = shared.layout.open_to_write(place)?.into();
        let size = shared.work.size(number);
        let direct = size >= DIRECT_FILE_BYTES
            && size.is_multiple_of(ALIGNMENT as u64)
            && rustix::fs::fcntl_setfl(&file, OFlags::DIRECT).is_ok();
        if direct {
            // It makes writes of several threads independent of each other; where it is not known, nothing else depends on it.
            let room = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, size);
            if let Err(full @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) = room {
                return Err(shared.layout.io("make room for", place, full));
            }
        }
        Ok(Target { number, file: Arc::new(file), direct })
    }

    /// Whether it should be left to the writers.
    pub(super) fn is_direct(&self) -> bool {
        self.direct && rustix::fs::fcntl_getfl(&*self.file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
    }

    /// Writes past the page cache; `false` where that cannot be done, nor will be tried again: the write is still to be made.
    fn write_direct(&self, bytes: &[u8], begin: u64) -> io::Result<bool> {
        match self.file.write_all_at(bytes, begin) {
            Ok(()) => Ok(true),
            // A disk of larger blocks, or a filesystem that promised more than it can.
            Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => {
                rustix::fs::fcntl_setfl(&*self.file, OFlags::empty())?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes one extent to its place; the last one of a file finishes it.
    pub(super) fn write(&self, shared: &Shared<'_>, task: &Task, bytes: &[u8]) -> Result<(), RebuildError> {
        let place = shared.work.place(task.file);
        let failed = |source| shared.layout.io("write", place, source);
        let (begin, _) = shared.work.stretch(task);
        let written = self.is_direct() && self.write_direct(bytes, begin).map_err(failed)?;
        if !written {
            for (piece, at) in bytes.chunks(CACHED_WRITE_BYTES).zip((begin..).step_by(CACHED_WRITE_BYTES)) {
                self.file.write_all_at(piece, at).map_err(failed)?;
            }
        }
        // Where another thread gave direct writes up meanwhile, this one went through the page cache.
        let way = if written && self.is_direct() { &shared.direct } else { &shared.cached };
        way.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        (shared.progress)(bytes.len() as u64);
        if let Some((mode, mtime)) = shared.work.written(task.file) {
            shared.layout.finish_file(&*self.file, place, mode, mtime)?;
        }
        Ok(())
    }
}

/// An extent on its way to the disk.
pub(super) struct Filled {
    pub(super) target: Target,
    pub(super) task: Task,
    pub(super) buffer: Buffer,
}

/// Writes what lanes have filled, and hands the buffers back, until all lanes are done; the first failure stops everyone.
pub(super) fn writer(
    shared: &Shared<'_>,
    filled: &Receiver<Filled>,
    empty: &Sender<Buffer>,
) -> Result<(), RebuildError> {
    let mut outcome = Ok(());
    for Filled { target, task, buffer } in filled {
        if outcome.is_ok() && !shared.stop.load(Ordering::Relaxed) {
            outcome = target.write(shared, &task, buffer.bytes());
            if outcome.is_err() {
                shared.stop.store(true, Ordering::Relaxed);
            }
        }
        // Nobody takes it any more when the lanes have ended.
        drop(empty.send(buffer));
    }
    outcome
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_buffer_lies_where_a_disk_wants_it() {
        for capacity in [1, 4096, 1 << 20] {
            let mut buffer = Buffer::new(capacity);
            assert!(buffer.room(capacity + ALIGNMENT + 1).is_none());
            let room = buffer.room(capacity).unwrap();
            assert_eq!(room.as_ptr().align_offset(ALIGNMENT), 0);
            room.fill(7);
            assert_eq!(buffer.bytes(), vec![7; capacity]);
            assert!(buffer.room(0).is_some() && buffer.bytes().is_empty());
        }
    }
}
