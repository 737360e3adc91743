//! The copy: from the data directory to packs and a file list.
//!
//! One thread walks and feeds units into a short queue; `jobs` threads read, verify, compress and seal, each into a pack of its own;
//! uploads run beside them; and what was read is put into walk order again here, and written to the file list as a stream.
//! Three bounds make the memory limit: the pool of pack buffers, the window of sequence numbers that may be under way
//! (the walk waits while it is full), and the part of the file list being gathered.
//!
//! The first failure ends everything: whoever meets it hands it to the writer of the list, which returns it; the flag it raises and the
//! channels it drops end the threads. What was stored until then belongs to a backup without a manifest.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel as sync_channel;
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{BackupId, FileListWriter, Part};
use highwater_archive::seal::Codec;
use tokio::sync::mpsc;

use super::error::BackupError;
use super::listing::{Listing, Totals};
use super::packer::{self, Packer, Stored};
use super::pages::PageRules;
use super::reader::Reader;
use super::walk::{self, Found, Rules};
use super::work::{BATCH_FILES, Done, FileRef, OpenFile, Place, SLICE_BYTES, Unit};
use crate::progress::Progress;

/// Sequence numbers that may be under way at once.
const WINDOW: usize = 32;

/// What is copied, and how.
pub struct Copy {
    /// Where it goes.
    pub lineage: Lineage,
    /// The backup it belongs to.
    pub backup: BackupId,
    /// How extents are compressed.
    pub codec: Codec,
    /// Length of an extent.
    pub extent_bytes: u32,
    /// Worker threads.
    pub jobs: usize,
    /// What the walk goes by.
    pub rules: Rules,
    /// Files outside the data directory, sorted by path.
    pub outside: Vec<FileRef>,
    /// How pages are verified; `None` without checksums.
    pub pages: Option<PageRules>,
}

/// What was copied.
pub struct Copied {
    /// The parts of the file list.
    pub file_list: Vec<Part>,
    /// What was met on the way.
    pub totals: Totals,
    /// What was stored.
    pub stored: Stored,
}

type Numbered<T> = (u64, T);

/// Copies everything. Dropping the future ends the threads.
pub async fn run(copy: Copy, progress: &Progress) -> Result<Copied, BackupError> {
    let mut threads = Threads { stop: Arc::new(AtomicBool::new(false)), handles: Vec::new() };
    let (packs, uploads) =
        packer::source(copy.lineage.clone(), copy.backup.clone(), copy.codec, copy.extent_bytes, copy.jobs);
    let (units_in, units) = sync_channel::bounded::<Numbered<Unit>>(copy.jobs);
    // Never blocks: there are no more answers under way than sequence numbers.
    let (done_in, done) = mpsc::channel::<Numbered<Done>>(WINDOW + 1);
    let (window_in, window) = sync_channel::bounded::<()>(WINDOW);
    for number in 0..copy.jobs {
        let packer = Packer::new(packs.clone());
        let stop = Arc::clone(&threads.stop);
        let extent = copy.extent_bytes as usize;
        let reader = Reader::new(copy.rules.data_dir.clone(), copy.pages, extent, packer, stop);
        let (units, done_in) = (units.clone(), done_in.clone());
        threads.start(format!("reader-{number}"), move || work(reader, &units, &done_in))?;
    }
    drop((packs, units));
    let feeder = Feeder {
        data_dir: copy.rules.data_dir.clone(),
        next: 0,
        batch: Vec::new(),
        batch_bytes: 0,
        extent_bytes: u64::from(copy.extent_bytes),
        units: units_in,
        done: done_in,
        window: window_in,
        stop: Arc::clone(&threads.stop),
    };
    let (rules, outside) = (copy.rules, copy.outside);
    threads.start("walk".to_owned(), move || feeder.run(&rules, outside))?;

    let list = FileListWriter::new(copy.lineage, copy.backup, copy.extent_bytes);
    let listing = gather(Listing::new(list), done, &window, progress);
    let (stored, (file_list, totals)) = tokio::try_join!(uploads.run(), listing)?;
    threads.join().await?;
    Ok(Copied { file_list, totals, stored })
}

/// Puts what was read into order, and into the file list.
async fn gather(
    mut listing: Listing,
    mut done: mpsc::Receiver<Numbered<Done>>,
    window: &sync_channel::Receiver<()>,
    progress: &Progress,
) -> Result<(Vec<Part>, Totals), BackupError> {
    let mut next = 0;
    let mut early = BTreeMap::new();
    while let Some((number, answer)) = done.recv().await {
        if let Done::Failed(error) = answer {
            return Err(error);
        }
        early.insert(number, answer);
        while let Some(answer) = early.remove(&next) {
            let before = listing.bytes_read();
            listing.take(answer).await?;
            progress.add(listing.bytes_read() - before);
            next += 1;
            // One number is free again; the walk put a token in for it before it gave it out.
            window.try_recv().ok();
        }
    }
    if !early.is_empty() {
        return Err(BackupError::Thread("a reader ended without an answer".to_owned()));
    }
    listing.finish().await
}

/// A worker's life.
fn work(
    mut reader: Reader,
    units: &sync_channel::Receiver<Numbered<Unit>>,
    done: &mpsc::Sender<Numbered<Done>>,
) {
    while let Ok((number, unit)) = units.recv() {
        if done.blocking_send((number, reader.read(unit))).is_err() {
            return;
        }
    }
    if let Err(error) = reader.finish() {
        // Whoever does not listen any more has an error of its own.
        done.blocking_send((u64::MAX, Done::Failed(error))).ok();
    }
}

/// Turns what the walk finds into units.
struct Feeder {
    data_dir: PathBuf,
    next: u64,
    batch: Vec<FileRef>,
    batch_bytes: u64,
    extent_bytes: u64,
    units: sync_channel::Sender<Numbered<Unit>>,
    done: mpsc::Sender<Numbered<Done>>,
    window: sync_channel::Sender<()>,
    stop: Arc<AtomicBool>,
}

impl Feeder {
    fn run(mut self, rules: &Rules, outside: Vec<FileRef>) {
        if let Err(error) = self.feed(rules, outside) {
            self.done.blocking_send((u64::MAX, Done::Failed(error))).ok();
        }
    }

    fn feed(&mut self, rules: &Rules, outside: Vec<FileRef>) -> Result<(), BackupError> {
        walk::walk(rules, &mut |found| self.found(found))?;
        for name in outside {
            self.file(name, 0)?;
        }
        self.flush()
    }

    fn found(&mut self, found: Found) -> Result<(), BackupError> {
        match found {
            Found::File(name, size) => self.file(name, size),
            Found::Entry(line) => {
                self.flush()?;
                let number = self.number()?;
                self.done.blocking_send((number, Done::Entry(line))).map_err(|_| stopped())
            }
            Found::Vanished => {
                self.flush()?;
                let number = self.number()?;
                self.done.blocking_send((number, Done::Vanished)).map_err(|_| stopped())
            }
            // The survey before the backup has told them.
            Found::LeftOut(..) | Found::WalElsewhere(_) => Ok(()),
        }
    }

    fn file(&mut self, name: FileRef, size: u64) -> Result<(), BackupError> {
        if size <= SLICE_BYTES {
            self.batch.push(name);
            self.batch_bytes += size;
            let full = self.batch.len() >= BATCH_FILES || self.batch_bytes >= SLICE_BYTES;
            return if full { self.flush() } else { Ok(()) };
        }
        self.flush()?;
        let Some(file) = OpenFile::open(name, &self.data_dir)? else {
            let number = self.number()?;
            return self.done.blocking_send((number, Done::Vanished)).map_err(|_| stopped());
        };
        let file = Arc::new(file);
        let step = SLICE_BYTES - SLICE_BYTES % self.extent_bytes;
        let mut from = 0;
        loop {
            let to = file.size.min(from + step);
            self.send(Unit::Slice { file: Arc::clone(&file), from, to })?;
            from = to;
            if from >= file.size {
                return Ok(());
            }
        }
    }

    fn flush(&mut self) -> Result<(), BackupError> {
        if self.batch.is_empty() {
            return Ok(());
        }
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        self.send(Unit::Batch(batch))
    }

    fn send(&mut self, unit: Unit) -> Result<(), BackupError> {
        let number = self.number()?;
        self.units.send((number, unit)).map_err(|_| stopped())
    }

    /// The next sequence number, once the window has room for it.
    fn number(&mut self) -> Result<u64, BackupError> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(stopped());
        }
        self.window.send(()).map_err(|_| stopped())?;
        let number = self.next;
        self.next += 1;
        Ok(number)
    }
}

fn stopped() -> BackupError {
    BackupError::Thread("the backup was stopped".to_owned())
}

/// The threads of one copy. They are told to end when this is dropped.
struct Threads {
    stop: Arc<AtomicBool>,
    handles: Vec<JoinHandle<()>>,
}

impl Threads {
    fn start(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> Result<(), BackupError> {
        let started = std::thread::Builder::new().name(name).spawn(run);
        let handle =
            started.map_err(|error| BackupError::Thread(format!("cannot start a thread: {error}")))?;
        self.handles.push(handle);
        Ok(())
    }

    /// Waits for all of them; they have nothing left to do.
    async fn join(mut self) -> Result<(), BackupError> {
        let handles = std::mem::take(&mut self.handles);
        let joined = tokio::task::spawn_blocking(move || {
            handles.into_iter().map(JoinHandle::join).filter(Result::is_err).count()
        });
        match joined.await {
            Ok(0) => Ok(()),
            Ok(_) | Err(_) => Err(BackupError::Thread("a thread of the backup panicked".to_owned())),
        }
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// What a walk would copy, without reading a file: the survey before a backup.
#[derive(Debug, Default)]
pub struct Survey {
    /// Files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What must be told to be left out.
    pub left_out: Vec<(PathBuf, String)>,
    /// Where `pg_wal` leads, when it is a link.
    pub wal_elsewhere: Option<String>,
}

/// Walks once without reading: errors that would end the backup come before it begins, and the size is known.
pub fn survey(rules: &Rules, outside: &[FileRef]) -> Result<Survey, BackupError> {
    let mut survey = Survey::default();
    walk::walk(rules, &mut |found| {
        match found {
            Found::File(_, size) => {
                survey.files += 1;
                survey.bytes += size;
            }
            Found::LeftOut(path, reason) => survey.left_out.push((path, reason)),
            Found::WalElsewhere(target) => survey.wal_elsewhere = Some(target),
            Found::Entry(_) | Found::Vanished => {}
        }
        Ok(())
    })?;
    for file in outside {
        if let Place::Outside(path, _) = &file.place {
            let meta = std::fs::metadata(path).map_err(|error| BackupError::unreadable(path, error))?;
            survey.files += 1;
            survey.bytes += meta.len();
        }
    }
    Ok(survey)
}
