//! Packs into files, from a store whose transfers break.

use std::ops::Range;
use std::path::Path;
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

use super::*;

const EXTENT: usize = 64 << 10;

/// A store that counts requests, and whose streams break after a few bytes when told to.
#[derive(Debug, Clone, Default)]
struct Breaking {
    inner: MemoryStore,
    breaks: Arc<AtomicBool>,
    requests: Arc<AtomicUsize>,
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
struct Ground {
    store: Breaking,
    lineage: Arc<Lineage>,
    lines: Vec<FileLine>,
    files: Vec<(&'static str, Vec<u8>)>,
}

fn lineage(store: &Breaking) -> Arc<Lineage> {
    let info = RepositoryInfo { extent_bytes: EXTENT as u32, ..testing::info() };
    Arc::new(testing::remembered(Arc::new(store.clone()), info, testing::record(testing::CLUSTER)))
}

/// Bytes that do not compress to nothing, different for each seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

fn ground(runtime: &tokio::runtime::Runtime) -> Ground {
    let store = Breaking::default();
    let lineage = lineage(&store);
    let backup: BackupId = "20261120T060959Z-0a0b0c0d".parse().unwrap();
    let begin = |number| {
        PackWriter::begin(lineage.keys().clone(), lineage.id(), &backup, number, Codec::Lz4, Vec::new())
            .unwrap()
    };
    let (mut first, mut second) = (begin(0), begin(1));
    let shared = noise(1, EXTENT);
    let (tail, small) = (noise(2, 1000), b"17\n".to_vec());
    let at_shared = first.append(&shared).unwrap();
    let at_tail = second.append(&tail).unwrap();
    let at_small = first.append(&small).unwrap();
    // What nothing of this file list needs lies between.
    second.append(&noise(3, EXTENT)).unwrap();
    let at_last = second.append(&noise(4, EXTENT)).unwrap();
    let at_own = second.append(&noise(5, EXTENT)).unwrap();
    let mut lines = Vec::new();
    for writer in [first, second] {
        let (number, header) = (writer.number(), writer.header().to_vec());
        let pack = writer.finish().unwrap();
        let body = vec![Bytes::from(pack.bytes)];
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
    lines.push(file("base/1", EXTENT + tail.len(), 0o600, vec![at_shared, at_tail]));
    lines.push(file("base/2", 2 * EXTENT, 0o600, vec![at_last, at_shared]));
    lines.push(file("base/3", 0, 0o600, Vec::new()));
    // Long enough to go past the page cache, of extents that serve other places too.
    lines.push(file("base/4", 4 * EXTENT, 0o600, vec![at_shared, at_last, at_shared, at_own]));
    let files = vec![
        ("PG_VERSION", small),
        ("base/1", [shared.clone(), tail].concat()),
        ("base/2", [noise(4, EXTENT), shared.clone()].concat()),
        ("base/3", Vec::new()),
        ("base/4", [shared.clone(), noise(4, EXTENT), shared, noise(5, EXTENT)].concat()),
    ];
    Ground { store, lineage, lines, files }
}

impl Ground {
    fn rebuild(
        &self,
        runtime: &tokio::runtime::Runtime,
        data_dir: &Path,
        jobs: usize,
    ) -> Result<Rebuilt, RebuildError> {
        let options = RebuildOptions {
            data_dir: data_dir.to_owned(),
            wal_dir: None,
            tablespaces: Vec::new(),
            owner: None,
            jobs,
        };
        let layout = Layout::create(&options, 0o700)?;
        let mut work = Work::new(EXTENT as u32);
        for line in &self.lines {
            work.add(line.clone(), &layout)?;
        }
        work.order_tasks();
        let seen = AtomicU64::new(0);
        let progress = |bytes| {
            seen.fetch_add(bytes, Ordering::Relaxed);
        };
        let rebuilt = lane::run(runtime.handle(), &self.lineage, &work, &layout, jobs, &progress)?;
        assert_eq!(seen.load(Ordering::Relaxed), work.total_bytes());
        sync::everything(&layout, &work)?;
        Ok(rebuilt)
    }

    fn assert_whole(&self, data_dir: &Path) {
        use std::os::unix::fs::MetadataExt as _;
        for (name, content) in &self.files {
            assert!(std::fs::read(data_dir.join(name)).unwrap() == *content, "{name}");
            assert_eq!(std::fs::metadata(data_dir.join(name)).unwrap().mtime(), 1_763_635_267, "{name}");
        }
        assert_eq!(std::fs::metadata(data_dir.join("PG_VERSION")).unwrap().mode() & 0o777, 0o640);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Every pack costs one request; a transfer that breaks goes on where it broke, and the bytes are the same.
#[test]
fn files_come_back_by_one_request_a_pack_and_across_broken_transfers() {
    let runtime = runtime();
    let ground = ground(&runtime);
    for (jobs, breaks) in [(1, false), (2, false), (8, false), (2, true)] {
        let scratch = tempfile::tempdir().unwrap();
        let data_dir = scratch.path().join("data");
        ground.store.breaks.store(breaks, Ordering::Relaxed);
        ground.store.requests.store(0, Ordering::Relaxed);
        let rebuilt = ground.rebuild(&runtime, &data_dir, jobs).unwrap();
        ground.assert_whole(&data_dir);
        assert_eq!(ground.store.requests.load(Ordering::Relaxed) as u64, rebuilt.requests);
        assert_eq!(rebuilt.requests > 2, breaks, "{jobs} jobs: {} requests", rebuilt.requests);
    }
}

/// Whatever a store gives instead of a pack is an error that names the pack and a file, and never content.
#[test]
fn nothing_but_the_pack_itself_is_taken() {
    let runtime = runtime();
    let ground = ground(&runtime);
    let paths = ground.store.inner.paths();
    let [first, second] = paths.as_slice() else { panic!("two packs") };
    let whole = ground.store.inner.peek(first).unwrap();
    let other = ground.store.inner.peek(second).unwrap();
    let mut changed = whole.to_vec();
    changed[whole.len() / 2] ^= 1;
    let cases = [
        ("changed", Bytes::from(changed), "is damaged"),
        ("another pack", other, "000000"),
        ("cut", whole.slice(..whole.len() / 4), "is cut short"),
        ("empty", Bytes::new(), "is cut short"),
    ];
    for (name, bytes, words) in cases {
        let scratch = tempfile::tempdir().unwrap();
        ground.store.inner.tamper(first, bytes);
        let error = ground.rebuild(&runtime, &scratch.path().join("data"), 2).unwrap_err().to_string();
        assert!(error.contains("packs/") && error.contains(words), "{name}: {error}");
    }
    ground.store.inner.lose(first);
    let scratch = tempfile::tempdir().unwrap();
    let error = ground.rebuild(&runtime, &scratch.path().join("data"), 2).unwrap_err();
    assert!(matches!(error, RebuildError::Fetch { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--backup"));
}

/// A file list that lies about a file's length is refused by what the extents hold.
#[test]
fn an_extent_of_another_length_is_refused() {
    let runtime = runtime();
    let mut ground = ground(&runtime);
    for line in &mut ground.lines {
        if let FileLine::File { file, .. } = line
            && file.extents.len() == 1
        {
            file.size += 1;
        }
    }
    let scratch = tempfile::tempdir().unwrap();
    let error = ground.rebuild(&runtime, &scratch.path().join("data"), 1).unwrap_err().to_string();
    assert!(error.contains("PG_VERSION holds 3 bytes and not 4"), "{error}");
}
