//! Reading single objects from a directory.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileExt, MetadataExt};

use bytes::Bytes;
use jiff::Timestamp;

use super::Tree;
use crate::durable::at;
use crate::store::{MAX_WHOLE_OBJECT_BYTES, ObjectInfo, STREAM_CHUNK_BYTES, StoreError};

/// An object being streamed.
#[derive(Debug)]
pub(super) struct Reader {
    file: File,
    left_bytes: u64,
}

impl Reader {
    /// The next chunk, or `None` at the end.
    pub(super) fn next_chunk(&mut self, tree: &Tree, path: &str) -> Result<Option<Bytes>, StoreError> {
        if self.left_bytes == 0 {
            return Ok(None);
        }
        let want = usize::try_from(self.left_bytes).unwrap_or(usize::MAX).min(STREAM_CHUNK_BYTES);
        let mut chunk = vec![0; want];
        self.file.read_exact(&mut chunk).map_err(|source| tree.error("read", path, source))?;
        self.left_bytes -= want as u64;
        Ok(Some(chunk.into()))
    }
}

impl Tree {
    /// Opens a directory below the root, or `None` where it does not exist. The root itself must.
    pub(super) fn open_directory(
        &self,
        operation: &'static str,
        path: &str,
    ) -> Result<Option<OwnedFd>, StoreError> {
        let mut directory = self.open_root(operation, path)?;
        for component in path.split('/').filter(|component| !component.is_empty()) {
            directory = match at::open_directory(&directory, OsStr::new(component)) {
                Ok(next) => next,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(self.error(operation, path, error)),
            };
        }
        Ok(Some(directory))
    }

    /// Opens an object; proven absence is [`StoreError::NotFound`].
    fn open(&self, path: &str) -> Result<(File, u64), StoreError> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let directory = self.open_directory("read", parent)?;
        let absent = || StoreError::NotFound { path: path.to_owned(), store: self.describe() };
        let directory = directory.ok_or_else(absent)?;
        let fail = |source| self.error("read", path, source);
        let file = at::open_file(&directory, OsStr::new(name)).map_err(fail)?;
        let metadata = file.metadata().map_err(fail)?;
        if metadata.is_file() { Ok((file, metadata.len())) } else { Err(self.not_a_file(path)) }
    }

    pub(super) fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        let (file, size) = self.open(path)?;
        self.read_at(path, &file, size, 0..size)
    }

    pub(super) fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        let (file, size) = self.open(path)?;
        self.read_at(path, &file, size, range.start..range.end.min(size))
    }

    fn read_at(&self, path: &str, file: &File, size: u64, range: Range<u64>) -> Result<Bytes, StoreError> {
        let wanted = range.end.saturating_sub(range.start);
        let too_large = || StoreError::TooLarge {
            path: path.to_owned(),
            store: self.describe(),
            size,
            limit: MAX_WHOLE_OBJECT_BYTES,
        };
        if wanted > MAX_WHOLE_OBJECT_BYTES {
            return Err(too_large());
        }
        let mut bytes = vec![0; usize::try_from(wanted).map_err(|_| too_large())?];
        file.read_exact_at(&mut bytes, range.start).map_err(|source| self.error("read", path, source))?;
        Ok(bytes.into())
    }

    pub(super) fn reader(&self, path: &str) -> Result<Reader, StoreError> {
        let (file, left_bytes) = self.open(path)?;
        Ok(Reader { file, left_bytes })
    }

    pub(super) fn file(&self, path: &str) -> Result<File, StoreError> {
        let (file, _) = self.open(path)?;
        // It is read from its beginning to its end: more of it may be fetched ahead. A filesystem without this reads as it does.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential).ok();
        Ok(file)
    }

    pub(super) fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        let (file, size) = match self.open(path) {
            Err(error) if error.is_not_found() => return Ok(None),
            other => other?,
        };
        let metadata = file.metadata().map_err(|source| self.error("look up", path, source))?;
        Ok(Some(ObjectInfo { size, modified: timestamp(metadata.mtime(), metadata.mtime_nsec()) }))
    }
}

/// The time of a file; what no calendar can show becomes the beginning of 1970.
pub(super) fn timestamp(seconds: i64, nanoseconds: i64) -> Timestamp {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::UNIX_EPOCH)
}
