//! Packs into files, from a store whose transfers break.

mod ground;
mod in_place;

use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use highwater_archive::manifest::FileLine;
use highwater_archive::store::{Created, Store as _};

use super::*;
use ground::{Breaking, EXTENT, Files, ground, noise};

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// Every pack costs one request; a transfer that breaks goes on where it broke, and the bytes are the same.
#[test]
fn files_come_back_by_one_request_a_pack_and_across_broken_transfers() {
    let runtime = runtime();
    let ground = ground(&runtime, EXTENT);
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

/// A direct write of so many bytes at the beginning of a file in this directory.
fn try_direct(directory: &Path, length: usize) -> std::io::Result<()> {
    let file = File::create_new(directory.join("probe"))?;
    rustix::fs::fcntl_setfl(&file, rustix::fs::OFlags::DIRECT)?;
    let mut buffer = write::Buffer::new(EXTENT);
    buffer.room(length).unwrap().fill(1);
    file.write_all_at(buffer.bytes(), 0)
}

/// Says on the terminal, which the harness does not keep from it, that this filesystem cannot show something.
fn cannot_show(what: &str, directory: &Path) {
    let directory = directory.display();
    writeln!(std::io::stderr(), "NOT TESTED: {what}; set TMPDIR to another filesystem than {directory}")
        .unwrap();
}

/// Every long file of whole blocks goes past the page cache, and no other.
#[test]
fn long_files_go_past_the_page_cache() {
    let runtime = runtime();
    let ground = ground(&runtime, EXTENT);
    let long = |name: &&str| ["base/4", "base/5"].contains(name);
    let expected = ground.files.iter().filter(|(name, _)| long(name)).map(|(_, bytes)| bytes.len() as u64);
    let expected: u64 = expected.sum();
    assert_eq!(expected, 28 * EXTENT as u64);
    for jobs in [1, 2] {
        let scratch = tempfile::tempdir().unwrap();
        let rebuilt = ground.rebuild(&runtime, &scratch.path().join("data"), jobs).unwrap();
        ground.assert_whole(&scratch.path().join("data"));
        if let Err(error) = try_direct(scratch.path(), 4096) {
            cannot_show(&format!("direct writes ({error})"), scratch.path());
            assert_eq!(rebuilt.direct_bytes, 0);
        } else {
            assert_eq!(rebuilt.direct_bytes, expected);
        }
    }
}

/// Where the disk refuses a direct write all of the file goes through the page cache, by whichever thread, and is counted there:
/// what is not counted is not written behind.
#[test]
fn a_refused_direct_write_is_made_through_the_page_cache_and_so_is_the_rest() {
    let runtime = runtime();
    // No extent but the first of a file begins at a whole block, and none ends at one.
    let ground = ground(&runtime, EXTENT + 1);
    for jobs in [1, 2] {
        let scratch = tempfile::tempdir().unwrap();
        let rebuilt = ground.rebuild(&runtime, &scratch.path().join("data"), jobs).unwrap();
        ground.assert_whole(&scratch.path().join("data"));
        match try_direct(scratch.path(), 4095) {
            Err(error) if error.kind() == std::io::ErrorKind::InvalidInput => {
                assert_eq!(rebuilt.direct_bytes, 0, "{jobs} jobs");
            }
            Err(_) | Ok(()) => cannot_show("a direct write that is refused", scratch.path()),
        }
    }
}

/// A pack that is a file is read as one, by one request; where it cannot be read the store is asked for its bytes.
#[test]
fn packs_that_are_files_are_read_as_files_or_by_ranges() {
    let runtime = runtime();
    let ground = ground(&runtime, EXTENT);
    for (files, requests) in [(Files::Whole, 2), (Files::Unreadable, 4)] {
        let scratch = tempfile::tempdir().unwrap();
        *ground.store.files.lock().unwrap() = files;
        ground.store.requests.store(0, Ordering::Relaxed);
        let rebuilt = ground.rebuild(&runtime, &scratch.path().join("data"), 2).unwrap();
        ground.assert_whole(&scratch.path().join("data"));
        assert_eq!(rebuilt.requests, requests, "{files:?}");
        assert_eq!(ground.store.requests.load(Ordering::Relaxed) as u64, requests, "{files:?}");
    }
    let scratch = tempfile::tempdir().unwrap();
    *ground.store.files.lock().unwrap() = Files::Half;
    let error = ground.rebuild(&runtime, &scratch.path().join("data"), 2).unwrap_err();
    assert!(matches!(error, RebuildError::Short { .. }), "{error}");
}

/// A file that ends, while it is read, before its length of the beginning: the rest comes by ranges, from where it is needed.
#[test]
fn a_file_that_shrinks_under_a_reader_is_read_on_by_ranges() {
    let runtime = runtime();
    let store = Breaking::default();
    let whole = noise(9, 300_000);
    let created = runtime.block_on(store.create("pack", vec![Bytes::from(whole.clone())])).unwrap();
    assert_eq!(created, Created::New);
    *store.files.lock().unwrap() = Files::Whole;
    let mut source = source::Source::new(runtime.handle(), &store, "pack".to_owned());
    let mut out = Vec::new();
    source.take(10, 100_000, &mut out).unwrap();
    assert_eq!(out, whole[10..100_010]);
    store.given.lock().unwrap().as_ref().unwrap().set_len(150_000).unwrap();
    for at in [120_000, 200_000] {
        source.take(at as u64, 50_000, &mut out).unwrap();
        assert_eq!(out, whole[at..at + 50_000]);
    }
    assert_eq!(source.requests, 2);
    let ended = source.take(290_000, 10_001, &mut out);
    assert!(matches!(ended, Err(source::SourceError::Short(300_000))), "{ended:?}");
}

/// Whatever a store gives instead of a pack is an error that names the pack and a file, and never content.
#[test]
fn nothing_but_the_pack_itself_is_taken() {
    let runtime = runtime();
    let ground = ground(&runtime, EXTENT);
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
    let mut ground = ground(&runtime, EXTENT);
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
