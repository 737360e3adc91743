//! The bytes of one pack, from its beginning towards its end, by one request.
//!
//! Where the object is a file, the lane reads it itself, straight into the buffer in which a frame is decrypted.
//!
//! A transfer that breaks in the middle is resumed by ranged reads from where it broke: nothing is fetched twice, and what was
//! written stays. Where only a part of the object is needed, ranged reads ask for that part, as long as it is small: what lies close
//! together comes by one request, since a request takes as long as the bytes between would ([`runs`]). Only an answer that waiting cannot change (proven absence, no permission) ends it at once.

use std::fs::File;
use std::ops::Range;
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

/// Two pieces that lie closer together than this come by one request, in bytes.
const SAME_REQUEST_BYTES: u64 = 4 << 20;

/// When the pieces are more than one in this many of the bytes up to the end of the last, the whole object is asked for.
const WHOLE_FROM: u64 = 2;

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
    /// The only parts that are asked for; none where it is the whole object.
    runs: Vec<Range<u64>>,
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
            runs: Vec::new(),
            started: false,
            asked: false,
            requests: 0,
            received: 0,
        }
    }

    /// Of the object only these pieces will be taken, each an offset and a length, in order.
    pub(super) fn only(&mut self, pieces: impl Iterator<Item = (u64, u32)>) {
        self.runs = runs(pieces);
        self.asked = !self.runs.is_empty();
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
        let ahead = self.position + self.chunk.len() as u64;
        if offset > ahead && !self.runs.is_empty() {
            // Nothing between is needed.
            (self.chunk, self.position) = (Bytes::new(), offset);
        }
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
        let run = self.runs.iter().find(|run| run.contains(&self.position));
        let end = run.map_or(u64::MAX, |run| run.end).min(self.position + RESUME_BYTES);
        let range = self.position..end;
        let chunk = self.runtime.block_on(self.store.get_range(&self.path, range))?;
        self.ended = chunk.is_empty();
        Ok(chunk)
    }
}

/// The parts of an object that are asked for when only these pieces are needed; none where all of it is, by one request.
fn runs(pieces: impl Iterator<Item = (u64, u32)>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for (offset, length) in pieces {
        let end = offset.saturating_add(u64::from(length));
        match runs.last_mut() {
            Some(last) if offset <= last.end.saturating_add(SAME_REQUEST_BYTES) => {
                last.end = last.end.max(end)
            }
            _ => runs.push(offset..end),
        }
    }
    let asked: u64 = runs.iter().map(|run| run.end - run.start).sum();
    let whole = runs.last().map_or(0, |last| last.end);
    if asked.saturating_mul(WHOLE_FROM) > whole { Vec::new() } else { runs }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The runs' beginnings and ends, in MiB.
    fn of(pieces: &[(u64, u64)]) -> Vec<(u64, u64)> {
        let runs = runs(pieces.iter().map(|(at, length)| (at * MIB, (length * MIB) as u32)));
        runs.into_iter().map(|run| (run.start / MIB, run.end / MIB)).collect()
    }

    /// What is little comes by few ranged reads, and what is much by one request.
    #[test]
    fn neighbours_come_together_and_much_comes_whole() {
        assert_eq!(of(&[]), []);
        assert_eq!(of(&[(20, 1)]), [(20, 21)]);
        assert_eq!(of(&[(2, 1), (7, 1), (20, 1)]), [(2, 8), (20, 21)]);
        assert_eq!(of(&[(2, 1), (2, 1), (20, 1)]), [(2, 3), (20, 21)]);
        assert_eq!(of(&[(0, 1)]), []);
        assert_eq!(of(&[(1, 6), (10, 1)]), []);
        let all: Vec<(u64, u64)> = (0..24).map(|at| (at, 1)).collect();
        assert_eq!(of(&all), []);
    }
}
