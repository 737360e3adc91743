//! The threads that carry packs into files.

use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use highwater_archive::lineage::Lineage;
use highwater_archive::pack::PackReader;

use super::layout::Layout;
use super::source::{Source, SourceError};
use super::work::{PackWork, Task, Work};
use super::{RebuildError, Rebuilt};

/// What all lanes share.
struct Shared<'a> {
    runtime: &'a tokio::runtime::Handle,
    lineage: &'a Arc<Lineage>,
    work: &'a Work,
    layout: &'a Layout,
    progress: &'a (dyn Fn(u64) + Sync),
    /// The next pack that nobody has taken.
    next: AtomicUsize,
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
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let shared = Shared { runtime, lineage, work, layout, progress, next, stop };
    let outcome: Mutex<Result<Rebuilt, RebuildError>> = Mutex::new(Ok(Rebuilt::default()));
    let lanes = jobs.clamp(1, work.packs().len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                let carried = lane(&shared);
                if carried.is_err() {
                    shared.stop.store(true, Ordering::Relaxed);
                }
                let mut outcome = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                match (&mut *outcome, carried) {
                    (Ok(total), Ok(more)) => {
                        total.fetched_bytes += more.fetched_bytes;
                        total.requests += more.requests;
                    }
                    (Ok(_), Err(error)) => *outcome = Err(error),
                    (Err(_), _) => {}
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn lane(shared: &Shared<'_>) -> Result<Rebuilt, RebuildError> {
    let mut buffers = Buffers::default();
    let mut carried = Rebuilt::default();
    while !shared.stop.load(Ordering::Relaxed) {
        let number = shared.next.fetch_add(1, Ordering::Relaxed);
        let Some(pack) = shared.work.packs().get(number) else { break };
        let (requests, received) = carry(shared, pack, &mut buffers)?;
        carried.requests += requests;
        carried.fetched_bytes += received;
    }
    Ok(carried)
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
                    SourceError::Store(source) => {
                        RebuildError::Fetch { pack: pack.path.clone(), needed_for: needed_for(), source }
                    }
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
    file.write_all_at(raw, begin).map_err(|source| shared.layout.io("write", place, source))?;
    (shared.progress)(raw.len() as u64);
    if let Some((mode, mtime)) = shared.work.written(task.file)
        && let Some((_, file)) = open.take()
    {
        shared.layout.finish_file(&file.into(), place, mode, mtime)?;
    }
    Ok(())
}
