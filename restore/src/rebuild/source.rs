//! The bytes of one pack, from its beginning towards its end, by one request.
//!
//! Where the object is a file, the lane reads it itself, straight into the buffer in which a frame is decrypted.
//!
//! A transfer that breaks in the middle is resumed by ranged reads from where it broke: nothing is fetched twice, and what was
//! written stays. Only an answer that waiting cannot change (proven absence, no permission) ends it at once.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use highwater_archive::store::{ObjectStream, Store, StoreError};

/// How often one place is tried before it is given up.
const ATTEMPTS: u32 = 6;

/// The wait after the first failure; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(250);

/// How much a ranged read asks for when a transfer is resumed, in bytes.
const RESUME_BYTES: u64 = 4 << 20;

/// Why bytes could not be had.
#[derive(Debug)]
pub(super) enum SourceError {
    /// The store.
    Store(StoreError),
    /// The object ends here.
    Short(u64),
}

/// One pack being read.
pub(super) struct Source<'a> {
    runtime: &'a tokio::runtime::Handle,
    store: &'a dyn Store,
    path: String,
    /// The object, where it is a file, and its length.
    file: Option<(File, u64)>,
    stream: Option<ObjectStream>,
    /// Where the first byte of `chunk` lies in the object.
    position: u64,
    chunk: Bytes,
    ended: bool,
    /// Whether it was asked for as a file.
    started: bool,
    /// Whether it was asked for as a stream.
    asked: bool,
    /// Requests made.
    pub(super) requests: u64,
    /// Bytes received.
    pub(super) received: u64,
}

impl<'a> Source<'a> {
    /// The object at `path`; nothing is asked for yet.
    pub(super) fn new(runtime: &'a tokio::runtime::Handle, store: &'a dyn Store, path: String) -> Source<'a> {
        Source {
            runtime,
            store,
            path,
            file: None,
            stream: None,
            position: 0,
            chunk: Bytes::new(),
            ended: false,
            started: false,
            asked: false,
            requests: 0,
            received: 0,
        }
    }

    /// Fills `out` with the `length` bytes at `offset`, which must not lie before what was already taken.
    pub(super) fn take(&mut self, offset: u64, length: u32, out: &mut Vec<u8>) -> Result<(), SourceError> {
        if !self.started {
            self.start()?;
        }
        if let Some((file, file_len)) = &self.file {
            if offset.checked_add(u64::from(length)).is_none_or(|end| end > *file_len) {
                return Err(SourceError::Short(*file_len));
            }
            // Not cleared first: bytes that are there already need not be zeroed again to be overwritten.
            out.resize(length as usize, 0);
            match file.read_exact_at(out, offset) {
                Ok(()) => {
                    self.received += u64::from(length);
                    return Ok(());
                }
                Err(error) => {
                    // As when a transfer breaks: the rest is asked for in pieces, with patience.
                    tracing::warn!(pack = self.path, at = offset, %error, "a file cannot be read; trying again");
                    (self.file, self.asked, self.position) = (None, true, offset);
                }
            }
        }
        out.clear();
        let skip = offset.checked_sub(self.position).ok_or(SourceError::Short(self.position))?;
        self.skip(skip)?;
        let mut wanted = length as usize;
        while wanted > 0 {
            if self.chunk.is_empty() {
                self.refill()?;
            }
            let piece = self.chunk.len().min(wanted);
            out.extend_from_slice(self.chunk.get(..piece).unwrap_or_default());
            self.advance(piece);
            wanted -= piece;
        }
        Ok(())
    }

    /// Asks for the object as a file; where it is none, the first [`Source::fetch`] asks for its bytes.
    fn start(&mut self) -> Result<(), SourceError> {
        self.started = true;
        match self.runtime.block_on(self.store.file(&self.path)) {
            Ok(file) => {
                self.file = file.and_then(|file| file.metadata().ok().map(|known| (file, known.len())));
            }
            Err(error) if error.is_permanent() => return Err(SourceError::Store(error)),
            Err(error) => tracing::warn!(pack = self.path, %error, "a file cannot be opened; trying again"),
        }
        self.requests += u64::from(self.file.is_some());
        Ok(())
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), SourceError> {
        while bytes > 0 {
            if self.chunk.is_empty() {
                self.refill()?;
            }
            let piece = (self.chunk.len() as u64).min(bytes);
            self.advance(piece as usize);
            bytes -= piece;
        }
        Ok(())
    }

    fn advance(&mut self, bytes: usize) {
        self.chunk.advance(bytes);
        self.position += bytes as u64;
    }

    /// Gets the next chunk, with patience.
    fn refill(&mut self) -> Result<(), SourceError> {
        let mut wait = FIRST_WAIT;
        let mut attempt = 1;
        loop {
            match self.fetch() {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    self.received += chunk.len() as u64;
                    self.chunk = chunk;
                    return Ok(());
                }
                Err(error) if error.is_permanent() || attempt >= ATTEMPTS => {
                    return Err(SourceError::Store(error));
                }
                Err(error) => {
                    tracing::warn!(pack = self.path, at = self.position, attempt, %error, "a transfer broke; trying again");
                    self.stream = None;
                    std::thread::sleep(wait);
                    wait *= 2;
                    attempt += 1;
                }
            }
            if self.ended {
                return Err(SourceError::Short(self.position));
            }
        }
    }

    fn fetch(&mut self) -> Result<Bytes, StoreError> {
        if !self.asked {
            self.requests += 1;
            self.stream = Some(self.runtime.block_on(self.store.stream(&self.path))?);
            self.asked = true;
        }
        if let Some(stream) = &mut self.stream {
            return match self.runtime.block_on(stream.next()) {
                Some(chunk) => chunk,
                None => {
                    self.ended = true;
                    Ok(Bytes::new())
                }
            };
        }
        self.requests += 1;
        let range = self.position..self.position + RESUME_BYTES;
        let chunk = self.runtime.block_on(self.store.get_range(&self.path, range))?;
        self.ended = chunk.is_empty();
        Ok(chunk)
    }
}
