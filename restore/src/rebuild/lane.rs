//! The threads that carry packs into files.
//!
//! Packs are in the order in which the backup's readers filled them, so neighbours hold pieces of one file, and two threads
//! that write one file wait for each other in the kernel (`ext4_buffered_write_iter` takes the inode's lock). So each lane
//! begins with a stretch of packs of its own, and helps the others when that is done.
//!
//! One more thread writes behind: whenever enough has gathered in the page cache it asks for that to be made durable, so
//! that the disk works while the lanes do, and the barrier at the end finds little left.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use highwater_archive::lineage::Lineage;
use highwater_archive::pack::PackReader;

use super::layout::Layout;
use super::source::{Source, SourceError};
use super::work::{PackWork, Task, Work};
use super::{RebuildError, Rebuilt, sync};

/// How much may gather in the page cache before it is written behind, in bytes.
const WRITE_BEHIND_BYTES: u64 = 128 << 20;

/// How much is written by one call, in bytes. The kernel takes page cache for each call in one piece where it can; large pieces
/// it must first make room for (`compact_zone`), which was measured to cost more than all of the copying.
const WRITE_BYTES: usize = 16 << 10;

/// How often is looked whether that much has gathered.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What all lanes share.
struct Shared<'a> {
    runtime: &'a tokio::runtime::Handle,
    lineage: &'a Arc<Lineage>,
    work: &'a Work,
    layout: &'a Layout,
    progress: &'a (dyn Fn(u64) + Sync),
    /// For each lane's stretch of packs: the next one that nobody has taken, and the end.
    stretches: Vec<(AtomicUsize, usize)>,
    /// Bytes written by all.
    written: AtomicU64,
    /// Someone failed; everyone stops at the next extent.
    stop: AtomicBool,
}

/// Buffers of one lane, used for every pack it carries.
#[derive(Default)]
struct Buffers {
    stored: Vec<u8>,
    raw: Vec<u8>,
}

/// Carries all packs, `jobs` at once; the first failure is the answer.
pub(super) fn run(
    runtime: &tokio::runtime::Handle,
    lineage: &Arc<Lineage>,
    work: &Work,
    layout: &Layout,
    jobs: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Rebuilt, RebuildError> {
    let packs = work.packs().len();
    let lanes = jobs.clamp(1, packs.max(1));
    let stretches =
        (0..lanes).map(|lane| (AtomicUsize::new(packs * lane / lanes), packs * (lane + 1) / lanes)).collect();
    let (written, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let shared = Shared { runtime, lineage, work, layout, progress, stretches, written, stop };
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| write_behind(&shared, &finished));
        let lanes: Vec<_> = (0..lanes)
            .map(|own| {
                scope.spawn({
                    let shared = &shared;
                    move || lane(shared, own)
                })
            })
            .collect();
        let mut total = Ok(Rebuilt::default());
        for lane in lanes {
            let carried = lane.join().unwrap_or(Err(RebuildError::Thread));
            total = total.and_then(|total| {
                let carried = carried?;
                Ok(Rebuilt {
                    fetched_bytes: total.fetched_bytes + carried.fetched_bytes,
                    requests: total.requests + carried.requests,
                    ..total
                })
            });
        }
        finished.store(true, Ordering::Relaxed);
        behind.thread().unpark();
        let behind = behind.join().unwrap_or(Err(RebuildError::Thread));
        total.and_then(|total| behind.map(|()| total))
    })
}

/// Carries the packs of the own stretch, then what others have left of theirs.
fn lane(shared: &Shared<'_>, own: usize) -> Result<Rebuilt, RebuildError> {
    let mut buffers = Buffers::default();
    let mut carried = Rebuilt::default();
    let (before, from_own) = shared.stretches.split_at_checked(own).unwrap_or_default();
    for (next, end) in from_own.iter().chain(before) {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(pack) = shared.work.packs().get(number).filter(|_| number < *end) else { break };
            if shared.stop.load(Ordering::Relaxed) {
                return Ok(carried);
            }
            match carry(shared, pack, &mut buffers) {
                Ok((requests, received)) => {
                    carried.requests += requests;
                    carried.fetched_bytes += received;
                }
                Err(error) => {
                    shared.stop.store(true, Ordering::Relaxed);
                    return Err(error);
                }
            }
        }
    }
    Ok(carried)
}

/// Makes durable what the lanes have written, again and again, until they are done.
fn write_behind(shared: &Shared<'_>, finished: &AtomicBool) -> Result<(), RebuildError> {
    let mut durable = 0;
    while !finished.load(Ordering::Relaxed) {
        let written = shared.written.load(Ordering::Relaxed);
        if written < durable + WRITE_BEHIND_BYTES {
            std::thread::park_timeout(LOOK_EVERY);
            continue;
        }
        if let Err(error) = sync::filesystems(shared.layout) {
            shared.stop.store(true, Ordering::Relaxed);
            return Err(error);
        }
        durable = written;
    }
    Ok(())
}

/// One pack into its files; gives requests made and bytes received.
fn carry(shared: &Shared<'_>, pack: &PackWork, buffers: &mut Buffers) -> Result<(u64, u64), RebuildError> {
    let lineage = shared.lineage;
    let needed_for = || shared.work.needed_for(pack, shared.layout);
    let damaged = |task: &Task, source| RebuildError::Damaged {
        pack: pack.path.clone(),
        file: shared.layout.name(shared.work.place(task.file)),
        source,
    };
    let Some(first) = pack.tasks.first() else { return Ok((0, 0)) };
    let reader = PackReader::new(lineage.keys().clone(), lineage.id(), &pack.path, &pack.header)
        .map_err(|source| damaged(first, source))?;
    let mut source = Source::new(shared.runtime, lineage.store().as_ref(), lineage.full_path(&pack.path));
    let mut open: Option<(u32, OwnedFile)> = None;
    let mut last: Option<(u64, u32)> = None;
    for task in &pack.tasks {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        // Equal extents are stored once: what was just opened may serve several places.
        if last != Some((task.extent.offset, task.extent.frame)) {
            source.take(task.extent.offset, task.extent.stored_len, &mut buffers.stored).map_err(
                |error| match error {
                    SourceError::Store(source) => RebuildError::Fetch {
                        pack: pack.path.clone(),
                        needed_for: needed_for(),
                        source: Box::new(source),
                    },
                    SourceError::Short(at) => {
                        RebuildError::Short { pack: pack.path.clone(), at, needed_for: needed_for() }
                    }
                },
            )?;
            reader
                .open(&task.extent, &mut buffers.stored, &mut buffers.raw)
                .map_err(|source| damaged(task, source))?;
            last = Some((task.extent.offset, task.extent.frame));
        }
        write(shared, pack, task, &buffers.raw, &mut open)?;
    }
    Ok((source.requests, source.received))
}

/// An open file of the cluster.
type OwnedFile = std::fs::File;

/// Writes one extent to its place; the last one of a file finishes it.
fn write(
    shared: &Shared<'_>,
    pack: &PackWork,
    task: &Task,
    raw: &[u8],
    open: &mut Option<(u32, OwnedFile)>,
) -> Result<(), RebuildError> {
    let place = shared.work.place(task.file);
    let (begin, expected) = shared.work.stretch(task);
    if raw.len() as u64 != expected {
        return Err(RebuildError::WrongLength {
            pack: pack.path.clone(),
            file: shared.layout.name(place),
            expected,
            found: raw.len() as u64,
        });
    }
    let file = match open {
        Some((number, file)) if *number == task.file => file,
        _ => {
            let opened: OwnedFd = shared.layout.open_to_write(place)?;
            &mut open.insert((task.file, opened.into())).1
        }
    };
    for (piece, at) in raw.chunks(WRITE_BYTES).zip((begin..).step_by(WRITE_BYTES)) {
        file.write_all_at(piece, at).map_err(|source| shared.layout.io("write", place, source))?;
    }
    shared.written.fetch_add(raw.len() as u64, Ordering::Relaxed);
    (shared.progress)(raw.len() as u64);
    if let Some((mode, mtime)) = shared.work.written(task.file)
        && let Some((_, file)) = open.take()
    {
        shared.layout.finish_file(&file.into(), place, mode, mtime)?;
    }
    Ok(())
}
