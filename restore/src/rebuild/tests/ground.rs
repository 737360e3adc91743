//! A store whose transfers break and whose files cannot be read, and a backup in it to be rebuilt.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::ops::Range;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt as _;
use highwater_archive::manifest::{BackupId, Extent, FileEntry, FileLine};
use highwater_archive::pack::PackWriter;
use highwater_archive::repository::RepositoryInfo;
use highwater_archive::seal::Codec;
use highwater_archive::store::memory::MemoryStore;
use highwater_archive::store::{Created, ListEntry, Listing, ObjectInfo, ObjectStream, Store, StoreError};
use highwater_archive::testing;

use super::super::*;

pub(super) const EXTENT: usize = 64 << 10;

/// What a store says when it is asked for an object as a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) enum Files {
    /// There are none.
    #[default]
    None,
    Whole,
    /// The first half of the object.
    Half,
    /// One that can be looked at and not read.
    Unreadable,
}

/// A store that counts requests, and whose streams break after a few bytes when told to.
#[derive(Debug, Clone, Default)]
pub(super) struct Breaking {
    pub(super) inner: MemoryStore,
    pub(super) breaks: Arc<AtomicBool>,
    pub(super) requests: Arc<AtomicUsize>,
    pub(super) files: Arc<Mutex<Files>>,
    /// The file given last.
    pub(super) given: Arc<Mutex<Option<File>>>,
}

#[async_trait]
impl Store for Breaking {
    async fn create(&self, path: &str, body: Vec<Bytes>) -> Result<Created, StoreError> {
        self.inner.create(path, body).await
    }
    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.inner.get(path).await
    }
    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.inner.get_range(path, range).await
    }
    async fn stream(&self, path: &str) -> Result<ObjectStream, StoreError> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let whole = self.inner.get(path).await?;
        let (path, breaks) = (path.to_owned(), self.breaks.load(Ordering::Relaxed));
        let third = whole.len() / 3;
        let mut chunks = vec![Ok(whole.slice(..third)), Ok(whole.slice(third..2 * third))];
        chunks.push(if breaks {
            let (store, source) = ("memory".to_owned(), std::io::Error::other("the connection broke"));
            Err(StoreError::Io { operation: "read", path, store, source })
        } else {
            Ok(whole.slice(2 * third..))
        });
        Ok(futures::stream::iter(chunks).boxed())
    }
    async fn file(&self, path: &str) -> Result<Option<File>, StoreError> {
        let how = *self.files.lock().unwrap();
        if matches!(how, Files::None) {
            return Ok(None);
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        let whole = self.inner.get(path).await?;
        let length = if matches!(how, Files::Half) { whole.len() / 2 } else { whole.len() };
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&whole[..length]).unwrap();
        let blind = OpenOptions::new().write(true).open(file.path()).unwrap();
        let file = if matches!(how, Files::Unreadable) { blind } else { file.into_file() };
        *self.given.lock().unwrap() = Some(file.try_clone().unwrap());
        Ok(Some(file))
    }
    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.inner.head(path).await
    }
    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError> {
        self.inner.list_from(prefix, after).await
    }
    async fn list_dir(&self, directory: &str) -> Result<Listing, StoreError> {
        self.inner.list_dir(directory).await
    }
    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.inner.delete(path).await
    }
    fn describe(&self) -> String {
        "memory".into()
    }
}

/// Two packs with the extents of three files, one extent shared, in a lineage.
pub(super) struct Ground {
    pub(super) store: Breaking,
    pub(super) lineage: Arc<Lineage>,
    pub(super) lines: Vec<FileLine>,
    pub(super) files: Vec<(&'static str, Vec<u8>)>,
    extent: usize,
}

fn lineage(store: &Breaking, extent: usize) -> Arc<Lineage> {
    let info = RepositoryInfo { extent_bytes: extent as u32, ..testing::info() };
    Arc::new(testing::remembered(Arc::new(store.clone()), info, testing::record(testing::CLUSTER)))
}

/// Bytes that do not compress to nothing, different for each seed.
pub(super) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// How many whole extents the longest file has.
const LONG: u64 = 24;

pub(super) fn ground(runtime: &tokio::runtime::Runtime, extent: usize) -> Ground {
    let store = Breaking::default();
    let lineage = lineage(&store, extent);
    let backup: BackupId = "20261120T060959Z-0a0b0c0d".parse().unwrap();
    let begin = |number| {
        let block = || Some(Vec::with_capacity(1 << 20));
        PackWriter::begin(lineage.keys().clone(), lineage.id(), &backup, number, Codec::Lz4, block).unwrap()
    };
    let (mut first, mut second) = (begin(0), begin(1));
    let shared = noise(1, extent);
    let (tail, small) = (noise(2, 1000), b"17\n".to_vec());
    let at_shared = first.append(&shared).unwrap();
    let at_tail = second.append(&tail).unwrap();
    let at_small = first.append(&small).unwrap();
    // What nothing of this file list needs lies between.
    second.append(&noise(3, extent)).unwrap();
    let at_last = second.append(&noise(4, extent)).unwrap();
    let at_own = second.append(&noise(5, extent)).unwrap();
    // More of one file than can be on its way at once, and an end that makes its length one of whole blocks.
    let pieces: Vec<Vec<u8>> = (0..LONG).map(|seed| noise(100 + seed, extent)).collect();
    let end = noise(6, (LONG as usize * extent).next_multiple_of(4096) - LONG as usize * extent);
    let at_long: Vec<Extent> = pieces
        .iter()
        .chain(Some(&end).filter(|end| !end.is_empty()))
        .map(|piece| second.append(piece).unwrap())
        .collect();
    let mut lines = Vec::new();
    for writer in [first, second] {
        let (number, header) = (writer.number(), writer.header().to_vec());
        let pack = writer.finish().unwrap();
        let body = pack.pieces.into_iter().map(Bytes::from).collect();
        let path = lineage.full_path(&pack.path);
        assert_eq!(runtime.block_on(store.create(&path, body)).unwrap(), Created::New);
        lines.push(FileLine::Pack { pack: number, path: pack.path, header });
    }
    let file = |path: &str, size: usize, mode: u32, extents: Vec<Extent>| FileLine::File {
        path: path.parse().unwrap(),
        file: FileEntry { size: size as u64, mode, mtime: 1_763_635_267, extents },
    };
    lines.push(file("PG_VERSION", small.len(), 0o640, vec![at_small]));
    lines.push(FileLine::Dir { path: "base".parse().unwrap(), mode: 0o700 });
    lines.push(file("base/1", extent + tail.len(), 0o600, vec![at_shared, at_tail]));
    lines.push(file("base/2", 2 * extent, 0o600, vec![at_last, at_shared]));
    lines.push(file("base/3", 0, 0o600, Vec::new()));
    // Long enough to go past the page cache, of extents that serve other places too.
    lines.push(file("base/4", 4 * extent, 0o600, vec![at_shared, at_last, at_shared, at_own]));
    let long = [pieces.concat(), end].concat();
    lines.push(file("base/5", long.len(), 0o600, at_long));
    let files = vec![
        ("PG_VERSION", small),
        ("base/1", [shared.clone(), tail].concat()),
        ("base/2", [noise(4, extent), shared.clone()].concat()),
        ("base/3", Vec::new()),
        ("base/4", [shared.clone(), noise(4, extent), shared, noise(5, extent)].concat()),
        ("base/5", long),
    ];
    Ground { store, lineage, lines, files, extent }
}

impl Ground {
    pub(super) fn rebuild(
        &self,
        runtime: &tokio::runtime::Runtime,
        data_dir: &Path,
        jobs: usize,
    ) -> Result<Rebuilt, RebuildError> {
        self.rebuild_over(runtime, data_dir, jobs, None)
    }

    /// The same over what is there, where that is to be looked at.
    pub(super) fn rebuild_over(
        &self,
        runtime: &tokio::runtime::Runtime,
        data_dir: &Path,
        jobs: usize,
        reading: Option<Reading>,
    ) -> Result<Rebuilt, RebuildError> {
        let in_place = reading.map(|reading| InPlace { reading, emptied: Vec::new(), kept_wal: Vec::new() });
        let options = RebuildOptions {
            data_dir: data_dir.to_owned(),
            wal_dir: None,
            tablespaces: Vec::new(),
            owner: None,
            claimed: Vec::new(),
            jobs,
            in_place,
        };
        let layout = Layout::create(&options, 0o700)?;
        let mut work = Work::new(self.extent as u32);
        let mut sweep = reading.map(|_| Sweep::begin(&layout, "PG_17_1".to_owned())).transpose()?;
        for line in &self.lines {
            let is_there = sweep.as_mut().map(|sweep| sweep.meet(line)).transpose()?.unwrap_or(false);
            work.add(line.clone(), is_there, &layout)?;
        }
        sweep.map(Sweep::finish).transpose()?;
        work.order_tasks();
        let seen = AtomicU64::new(0);
        let progress = |bytes| {
            seen.fetch_add(bytes, Ordering::Relaxed);
        };
        let mut kept_bytes = 0;
        if let Some(reading) = reading {
            kept_bytes =
                compare::take_out(&mut work, &layout, self.lineage.keys(), reading, jobs, &progress)?;
        }
        let rebuilt = lane::run(runtime.handle(), &self.lineage, &work, &layout, jobs, &progress)?;
        assert_eq!(seen.load(Ordering::Relaxed), work.total_bytes());
        sync::everything(&layout, &work, "PG_17_1")?;
        Ok(Rebuilt { kept_bytes, bytes: work.total_bytes(), ..rebuilt })
    }

    pub(super) fn assert_whole(&self, data_dir: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        for (name, content) in &self.files {
            assert!(std::fs::read(data_dir.join(name)).unwrap() == *content, "{name}");
            assert_eq!(std::fs::metadata(data_dir.join(name)).unwrap().mtime(), 1_763_635_267, "{name}");
        }
        assert_eq!(std::fs::metadata(data_dir.join("PG_VERSION")).unwrap().mode() & 0o777, 0o640);
    }
}
