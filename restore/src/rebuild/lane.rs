//! The threads that carry packs into files.
//!
//! Packs are in the order in which the backup's readers filled them, so neighbours hold pieces of one file, and two threads
//! that write one file wait for each other in the kernel (`ext4_buffered_write_iter` takes the inode's lock). So each lane
//! begins with a stretch of packs of its own, and helps the others when that is done.
//!
//! What goes past the page cache is left to writers ([`super::write`]). One more thread writes behind: whenever enough has
//! gathered in the page cache it asks for that to be made durable, so that the disk works while the lanes do, and the
//! barrier at the end finds little left.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use highwater_archive::lineage::Lineage;
use highwater_archive::pack::PackReader;

use super::layout::Layout;
use super::source::{Source, SourceError};
use super::work::{PackWork, Task, Work};
use super::write::{Buffer, Filled, Target, writer, writers_for};
use super::{RebuildError, Rebuilt, sync};

/// How much may gather in the page cache before it is written behind, in bytes.
const WRITE_BEHIND_BYTES: u64 = 128 << 20;

/// How often is looked whether that much has gathered.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What all lanes share.
pub(super) struct Shared<'a> {
    runtime: &'a tokio::runtime::Handle,
    lineage: &'a Arc<Lineage>,
    pub(super) work: &'a Work,
    pub(super) layout: &'a Layout,
    pub(super) progress: &'a (dyn Fn(u64) + Sync),
    /// For each lane's stretch of packs: the next one that nobody has taken, and the end.
    stretches: Vec<(AtomicUsize, usize)>,
    /// Bytes written through the page cache by all.
    pub(super) cached: AtomicU64,
    /// Bytes written past it.
    pub(super) direct: AtomicU64,
    /// Someone failed; everyone stops at the next extent.
    pub(super) stop: AtomicBool,
}

/// Buffers of one lane, used for every pack it carries.
struct Buffers {
    stored: Vec<u8>,
    /// The one being filled.
    raw: Option<Buffer>,
    empty: Receiver<Buffer>,
    filled: Sender<Filled>,
}

impl Buffers {
    /// A buffer to be filled, waiting for one where all are on their way.
    fn raw(&mut self) -> Result<&mut Buffer, RebuildError> {
        let buffer = match self.raw.take() {
            Some(buffer) => buffer,
            None => self.empty.recv().map_err(|_| RebuildError::Thread)?,
        };
        Ok(self.raw.insert(buffer))
    }
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
    let (cached, direct, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let shared = Shared { runtime, lineage, work, layout, progress, stretches, cached, direct, stop };
    let finished = AtomicBool::new(false);
    let writers = writers_for(lanes);
    // As many as can be on their way and one for each lane to fill, so that handing over never waits.
    let (to_empty, empty) = crossbeam_channel::bounded(lanes + writers);
    let (to_filled, filled) = crossbeam_channel::bounded(lanes + writers);
    for _ in 0..lanes + writers {
        to_empty.send(Buffer::new(work.extent_len())).map_err(|_| RebuildError::Thread)?;
    }
    std::thread::scope(|scope| {
        let behind = scope.spawn(|| write_behind(&shared, &finished));
        let writers: Vec<_> = (0..writers)
            .map(|_| {
                let (shared, filled, to_empty) = (&shared, filled.clone(), to_empty.clone());
                scope.spawn(move || writer(shared, &filled, &to_empty))
            })
            .collect();
        let lanes: Vec<_> = (0..lanes)
            .map(|own| {
                let buffers = Buffers {
                    stored: Vec::new(),
                    raw: None,
                    empty: empty.clone(),
                    filled: to_filled.clone(),
                };
                let shared = &shared;
                scope.spawn(move || lane(shared, own, buffers))
            })
            .collect();
        // The writers end when the last lane has.
        drop((to_filled, filled, to_empty, empty));
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
        for writer in writers {
            let wrote = writer.join().unwrap_or(Err(RebuildError::Thread));
            total = total.and_then(|total| wrote.map(|()| total));
        }
        finished.store(true, Ordering::Relaxed);
        behind.thread().unpark();
        let behind = behind.join().unwrap_or(Err(RebuildError::Thread));
        let direct_bytes = shared.direct.load(Ordering::Relaxed);
        total.and_then(|total| behind.map(|()| Rebuilt { direct_bytes, ..total }))
    })
}

/// Carries the packs of the own stretch, then what others have left of theirs.
fn lane(shared: &Shared<'_>, own: usize, mut buffers: Buffers) -> Result<Rebuilt, RebuildError> {
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
        let written = shared.cached.load(Ordering::Relaxed);
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
        file: shared.layout.name(shared.work.place(task.file)),
        source,
    };
    let Some(first) = pack.tasks.first() else { return Ok((0, 0)) };
    let reader = PackReader::new(lineage.keys().clone(), lineage.id(), &pack.path, &pack.header)
        .map_err(|source| damaged(first, source))?;
    let mut source = Source::new(shared.runtime, lineage.store().as_ref(), lineage.full_path(&pack.path));
    if shared.work.is_partial() {
        source.only(pack.tasks.iter().map(|task| (task.extent.offset, task.extent.stored_len)));
    }
    let mut open: Option<Target> = None;
    let mut last: Option<(u64, u32)> = None;
    let mut tasks = pack.tasks.iter().peekable();
    while let Some(task) = tasks.next() {
        if shared.stop.load(Ordering::Relaxed) {
            break;
        }
        // Equal extents are stored once: what was just opened may serve several places.
        if last != Some(place_of(task)) {
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
            let mut stored = std::mem::take(&mut buffers.stored);
            let raw = buffers.raw()?;
            let opened = reader.open_in(&task.extent, &mut stored, |len| raw.room(len));
            opened.map_err(|source| damaged(task, source))?;
            buffers.stored = stored;
            last = Some(place_of(task));
        }
        let raw = buffers.raw()?;
        let ((_, expected), found) = (shared.work.stretch(task), raw.bytes().len() as u64);
        if found != expected {
            let file = shared.layout.name(shared.work.place(task.file));
            return Err(RebuildError::WrongLength { pack: pack.path.clone(), file, expected, found });
        }
        let target = match open.take() {
            Some(target) if target.number == task.file => target,
            _ => Target::open(shared, task.file)?,
        };
        let again = tasks.peek().is_some_and(|next| last == Some(place_of(next)));
        if target.is_direct() && !again {
            let Some(buffer) = buffers.raw.take() else { continue };
            let filled = Filled { target: target.clone(), task: *task, buffer };
            buffers.filled.send(filled).map_err(|_| RebuildError::Thread)?;
            last = None;
        } else {
            target.write(shared, task, raw.bytes())?;
        }
        open = Some(target);
    }
    Ok((source.requests, source.received))
}

/// Where in its pack a task's extent lies.
fn place_of(task: &Task) -> (u64, u32) {
    (task.extent.offset, task.extent.frame)
}
