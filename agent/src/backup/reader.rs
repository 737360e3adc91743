//! A worker: reads files, verifies their pages, puts their extents into packs.
//!
//! A file is read through one descriptor up to the length it had when it was opened. If it ends before that, a relation file
//! is filled up with zeros (WAL replay repeats the truncation), and any other file is what was there.

use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use highwater_archive::seal::PIECE_BYTES;

use super::error::BackupError;
use super::packer::Packer;
use super::pages::PageRules;
use super::work::{Done, FileRead, FileRef, OpenFile, ReadBytes, Unit};

/// Reads units.
pub struct Reader {
    data_dir: PathBuf,
    pages: Option<PageRules>,
    extent_bytes: usize,
    packer: Packer,
    buffer: Vec<u8>,
    stop: Arc<AtomicBool>,
}

impl Reader {
    /// A reader of extents of `extent_bytes`; `pages` says how to verify pages, where the cluster has checksums. `stop` ends it
    /// between two extents.
    pub fn new(
        data_dir: PathBuf,
        pages: Option<PageRules>,
        extent_bytes: usize,
        packer: Packer,
        stop: Arc<AtomicBool>,
    ) -> Reader {
        Reader { data_dir, pages, extent_bytes, packer, buffer: vec![0; extent_bytes], stop }
    }

    /// Reads one unit; a failure is part of the answer.
    pub fn read(&mut self, unit: Unit) -> Done {
        let done = match unit {
            Unit::Batch(files) => self.batch(files),
            Unit::Slice { file, from, to } => self.slice(file, from, to),
        };
        done.unwrap_or_else(Done::Failed)
    }

    /// Hands over the last pack.
    pub fn finish(&mut self) -> Result<(), BackupError> {
        self.packer.finish()
    }

    fn batch(&mut self, names: Vec<FileRef>) -> Result<Done, BackupError> {
        let mut files = Vec::with_capacity(names.len());
        let mut vanished = 0;
        for name in names {
            let Some(file) = OpenFile::open(name, &self.data_dir)? else {
                vanished += 1;
                continue;
            };
            let bytes = self.stretch(&file, 0, file.size)?;
            let OpenFile { name, size, mode, mtime, .. } = file;
            files.push(FileRead { place: name.place, size, mode, mtime, bytes });
        }
        Ok(Done::Batch { packs: self.packer.take_begun(), files, vanished })
    }

    fn slice(&mut self, file: Arc<OpenFile>, from: u64, to: u64) -> Result<Done, BackupError> {
        let bytes = self.stretch(&file, from, to)?;
        Ok(Done::Slice { packs: self.packer.take_begun(), last: to == file.size, file, bytes })
    }

    /// The bytes from `from`, a multiple of an extent, to `to`.
    fn stretch(&mut self, file: &OpenFile, from: u64, to: u64) -> Result<ReadBytes, BackupError> {
        let mut read = ReadBytes::default();
        let mut at = from;
        while at < to {
            if self.stop.load(Ordering::Relaxed) {
                return Err(BackupError::Thread("the backup was stopped".to_owned()));
            }
            // At most an extent, which fits the buffer.
            let wanted = (to - at).min(self.extent_bytes as u64) as usize;
            let got = self.extent(file, at, wanted, &mut read)?;
            if got < wanted {
                read.ended_at = Some(at + got as u64);
                break;
            }
            at += wanted as u64;
        }
        Ok(read)
    }

    /// Packs the `wanted` bytes at `at`, or fewer, where another file than a relation's ends before: how many those were.
    fn extent(
        &mut self,
        file: &OpenFile,
        at: u64,
        wanted: usize,
        read: &mut ReadBytes,
    ) -> Result<usize, BackupError> {
        let mut digester = self.packer.digester();
        let mut got = 0;
        for piece in self.buffer.get_mut(..wanted).unwrap_or_default().chunks_mut(PIECE_BYTES) {
            let offset = at + got as u64;
            let room = piece.len();
            let piece = read_piece(file, piece, offset, read)?;
            if let (Some(rules), Some(relation)) = (&self.pages, file.name.relation) {
                let verified = rules.verify(&file.file, relation.segment, offset, piece);
                read.pages_verified += verified.pages;
                read.bad_pages.extend(verified.bad);
            }
            digester.update(piece);
            got += piece.len();
            if piece.len() < room {
                break;
            }
        }
        let extent = self.buffer.get(..got).unwrap_or_default();
        if !extent.is_empty() {
            read.extents.push(self.packer.append(extent, &digester.finalize())?);
        }
        Ok(got)
    }
}

/// Fills `piece` from `offset`; what a relation file no longer has is zeros, and what another no longer has is left out.
fn read_piece<'a>(
    file: &OpenFile,
    piece: &'a mut [u8],
    offset: u64,
    read: &mut ReadBytes,
) -> Result<&'a mut [u8], BackupError> {
    let filled = read_full(file, piece, offset)?;
    if filled == piece.len() {
        return Ok(piece);
    }
    if file.name.relation.is_none() {
        return Ok(piece.get_mut(..filled).unwrap_or_default());
    }
    piece.get_mut(filled..).unwrap_or_default().fill(0);
    read.padded = true;
    Ok(piece)
}

/// Fills `buffer` from `offset`; fewer bytes only where the file ends.
fn read_full(file: &OpenFile, buffer: &mut [u8], offset: u64) -> Result<usize, BackupError> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(bytes) => filled += bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(BackupError::unreadable(&file.path, error)),
        }
    }
    Ok(filled)
}
