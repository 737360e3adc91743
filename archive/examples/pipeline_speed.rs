//! How fast is one core, beside the codec that its work contains? For `./dev bench pipeline`.
//!
//!     cargo run --release -p highwater-archive --example pipeline_speed DIRECTORY
//!
//! Backing up is what a worker does with an extent: read it (from the page cache), verify its pages, take its digest, compress,
//! encrypt and frame it into a pack. Restoring is what a lane does: copy what was stored out of where it lies, authenticate, decrypt,
//! decompress, and hold it against its digest. Neither touches a disk. The data are relation files below the directory, the first
//! MiBs of each. Prints MB/s of plain data in CPU time, the best of several rounds, alternated: the codec alone into and out of a
//! reused buffer, then the pipelines. The bars: backing up at least 0.75 of the codec on lz4, restoring at least 2 GB/s.

use std::error::Error;
use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use highwater_archive::keyring::{Keyring, Unlock};
use highwater_archive::manifest::{BackupId, Extent};
use highwater_archive::names::{ClusterId, LineageId};
use highwater_archive::pack::{FinishedPack, PackReader, PackWriter, block_bytes};
use highwater_archive::seal::{Codec, PIECE_BYTES};
use highwater_pitr::datapage::{PageState, verify_page};
use jiff::Timestamp;

const EXTENT: usize = 1 << 20;
const PAGE: usize = 8192;
/// How many extents of one file are taken at most.
const OF_A_FILE: u64 = 40;
/// Fewer in all are no mixed data.
const ENOUGH: usize = 96;
const ROUNDS: usize = 15;

type Failed = Box<dyn Error>;

fn main() -> Result<(), Failed> {
    let directory = std::env::args_os().nth(1).ok_or("a directory with relation files")?;
    let work = Work::of(Path::new(&directory))?;
    println!("codec compress backup ratio decompress restore size");
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        measure(&work, codec)?;
    }
    Ok(())
}

/// One thread's work: extents of files that are open.
struct Work {
    extents: Vec<(Arc<File>, u64)>,
    keys: Arc<Keyring>,
    lineage: LineageId,
    backup: BackupId,
}

/// How long this thread was on a processor so far: others who use the machine count for nothing. Exact to a tick of the scheduler.
fn on_processor() -> Result<Duration, Failed> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat")?;
    let nanoseconds = text.split(' ').next().ok_or("an empty schedstat")?;
    Ok(Duration::from_nanos(nanoseconds.parse()?))
}

fn since(begin: Duration) -> Result<Duration, Failed> {
    Ok(on_processor()?.saturating_sub(begin))
}

/// What a round stored, and what the file list says of it.
struct Stored {
    packs: Vec<(Vec<u8>, FinishedPack)>,
    extents: Vec<Extent>,
}

impl Work {
    fn of(directory: &Path) -> Result<Work, Failed> {
        let mut files = Vec::new();
        relation_files(directory, &mut files)?;
        files.sort();
        let mut extents = Vec::new();
        for path in files {
            let file = Arc::new(File::open(path)?);
            let whole = (file.metadata()?.len() / EXTENT as u64).min(OF_A_FILE);
            extents.extend((0..whole).map(|number| (Arc::clone(&file), number)));
        }
        if extents.len() < ENOUGH {
            return Err(format!("only {} MiB of relation files above 1 MiB", extents.len()).into());
        }
        let (unlock, _) = Unlock::generate(Timestamp::UNIX_EPOCH);
        let keys = Keyring::generate(ClusterId::random()?, &unlock.recipients()?, Timestamp::UNIX_EPOCH)?;
        let backup = BackupId::new(Timestamp::UNIX_EPOCH, [0; 4]);
        Ok(Work { extents, keys: Arc::new(keys), lineage: LineageId::random()?, backup })
    }

    fn back_up(&self, codec: Codec, blocks: &mut Vec<Vec<u8>>) -> Result<Stored, Failed> {
        let mut stored = Stored { packs: Vec::new(), extents: Vec::with_capacity(self.extents.len()) };
        let (give, pool) = mpsc::channel();
        blocks.drain(..).for_each(|block| drop(give.send(block)));
        let pool = Arc::new(Mutex::new(pool));
        let begin = |number: usize| {
            let pool = Arc::clone(&pool);
            let block = move || pool.lock().ok()?.try_recv().ok();
            let block =
                move || Some(block().unwrap_or_else(|| Vec::with_capacity(block_bytes(EXTENT as u32))));
            PackWriter::begin(self.keys.clone(), self.lineage, &self.backup, number as u32, codec, block)
        };
        let (mut pack, mut raw) = (begin(0)?, vec![0; EXTENT]);
        for (file, number) in &self.extents {
            let mut digester = self.keys.digester();
            let mut offset = number * EXTENT as u64;
            for piece in raw.chunks_mut(PIECE_BYTES) {
                file.read_exact_at(piece, offset)?;
                let first = (offset / PAGE as u64) as u32;
                for (page, at) in piece.chunks_exact(PAGE).zip(first..) {
                    if let PageState::Bad { .. } = verify_page(page, at) {
                        return Err(
                            format!("page {at} of a file is no page of a relation with checksums").into()
                        );
                    }
                }
                digester.update(piece);
                offset += PIECE_BYTES as u64;
            }
            if pack.is_full() {
                let next = begin(stored.packs.len() + 1)?;
                let full = std::mem::replace(&mut pack, next);
                stored.packs.push((full.header().to_vec(), full.finish()?));
            }
            stored.extents.push(pack.append_digested(&raw, &digester.finalize())?);
        }
        stored.packs.push((pack.header().to_vec(), pack.finish()?));
        Ok(stored)
    }

    /// Answers how long it took, and nothing else: the packs are laid out before the clock runs.
    fn restore(&self, stored: &Stored) -> Result<Duration, Failed> {
        let mut packs = Vec::new();
        for (header, pack) in &stored.packs {
            let reader = PackReader::new(self.keys.clone(), self.lineage, &pack.path, header)?;
            packs.push((reader, pack.pieces.concat()));
        }
        let (mut lane, mut out) = (Vec::with_capacity(2 * EXTENT), vec![0; EXTENT]);
        let begin = on_processor()?;
        for extent in &stored.extents {
            let (reader, bytes) = packs.get(extent.pack as usize).ok_or("no such pack")?;
            let at = extent.offset as usize;
            lane.clear();
            lane.extend_from_slice(bytes.get(at..at + extent.stored_len as usize).ok_or("short")?);
            black_box(reader.open_in(extent, &mut lane, |length| out.get_mut(..length))?);
        }
        since(begin)
    }
}

fn measure(work: &Work, codec: Codec) -> Result<(), Failed> {
    let mut plain = PlainCodec::new(codec)?;
    let mut raws = Vec::new();
    for (file, number) in &work.extents {
        let mut raw = vec![0; EXTENT];
        file.read_exact_at(&mut raw, number * EXTENT as u64)?;
        raws.push(raw);
    }
    let compressed: Vec<Vec<u8>> =
        raws.iter().map(|raw| plain.compress(raw).map(<[u8]>::to_vec)).collect::<Result<_, _>>()?;
    let [mut compress, mut back_up, mut decompress, mut restore] = [Duration::MAX; 4];
    let (mut out, mut blocks, mut size) = (vec![0; EXTENT], Vec::new(), 0);
    for _ in 0..ROUNDS {
        let begin = on_processor()?;
        for raw in &raws {
            black_box(plain.compress(raw)?);
        }
        compress = compress.min(since(begin)?);

        let begin = on_processor()?;
        let stored = work.back_up(codec, &mut blocks)?;
        back_up = back_up.min(since(begin)?);

        let begin = on_processor()?;
        for piece in &compressed {
            plain.decompress(piece, &mut out)?;
            black_box(&out);
        }
        decompress = decompress.min(since(begin)?);

        restore = restore.min(work.restore(&stored)?);
        let pieces = stored.packs.into_iter().flat_map(|(_, pack)| pack.pieces);
        blocks = pieces.collect();
        size = blocks.iter().map(Vec::len).sum();
    }
    let bytes = work.extents.len() * EXTENT;
    let speed = |took: Duration| bytes as f64 / 1e6 / took.as_secs_f64();
    println!(
        "{codec} {:.0} {:.0} {:.2} {:.0} {:.0} {:.2}",
        speed(compress),
        speed(back_up),
        compress.as_secs_f64() / back_up.as_secs_f64(),
        speed(decompress),
        speed(restore),
        bytes as f64 / size as f64,
    );
    Ok(())
}

/// Main forks, whose names are numbers; not the later segments of one, so that its first block is block 0.
fn relation_files(directory: &Path, found: &mut Vec<PathBuf>) -> Result<(), Failed> {
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            relation_files(&entry.path(), found)?;
        } else if entry.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit) {
            found.push(entry.path());
        }
    }
    Ok(())
}

/// The codec on its own, in buffers that are there already.
struct PlainCodec {
    codec: Codec,
    out: Vec<u8>,
    table: lz4_flex::block::CompressTable,
    zstd: (zstd::zstd_safe::CCtx<'static>, zstd::zstd_safe::DCtx<'static>),
}

impl PlainCodec {
    fn new(codec: Codec) -> Result<Self, Failed> {
        let contexts = zstd::zstd_safe::CCtx::try_create().zip(zstd::zstd_safe::DCtx::try_create());
        Ok(Self {
            codec,
            out: vec![0; EXTENT * 2],
            table: lz4_flex::block::CompressTable::large(),
            zstd: contexts.ok_or("no memory")?,
        })
    }

    fn compress(&mut self, raw: &[u8]) -> Result<&[u8], Failed> {
        let len = match self.codec {
            Codec::None => {
                self.out.get_mut(..raw.len()).ok_or("short")?.copy_from_slice(raw);
                raw.len()
            }
            Codec::Lz4 => lz4_flex::block::compress_into_with_table(raw, &mut self.out, &mut self.table)?,
            Codec::Zstd => self
                .zstd
                .0
                .compress(self.out.as_mut_slice(), raw, 1)
                .map_err(zstd::zstd_safe::get_error_name)?,
        };
        Ok(self.out.get(..len).ok_or("short")?)
    }

    fn decompress(&mut self, stored: &[u8], out: &mut [u8]) -> Result<(), Failed> {
        match self.codec {
            Codec::None => out.get_mut(..stored.len()).ok_or("short")?.copy_from_slice(stored),
            Codec::Lz4 => drop(lz4_flex::block::decompress_into(stored, out)?),
            Codec::Zstd => {
                self.zstd.1.decompress(out, stored).map_err(zstd::zstd_safe::get_error_name)?;
            }
        }
        Ok(())
    }
}
