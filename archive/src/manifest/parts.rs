//! A stream of JSON lines, cut into sealed parts.
//!
//! Lines gather in one buffer. When it has reached [`PART_BYTES`] it is cut at the last line end, sealed whole (so its digest
//! stands in its header, and in its name), stored, and used again. That bound is the memory limit of both sides.

use super::{BackupId, ManifestError, Part};
use crate::names;
use crate::repository::lineage::Lineage;
use crate::seal::{Codec, ObjectKind};
use crate::store::Created;

/// A part is cut when its lines have reached this many bytes.
pub(super) const PART_BYTES: usize = 1 << 20;

/// The most bytes of lines a reader takes for one part.
const MAX_PART_BYTES: u64 = 64 << 20;

/// Which stream of a backup.
#[derive(Clone, Copy)]
pub(super) enum Stream {
    Files,
    Relations,
}

impl Stream {
    fn stem(self) -> &'static str {
        match self {
            Stream::Files => "files",
            Stream::Relations => "relations",
        }
    }
}

/// Writes one stream.
pub(super) struct PartsWriter {
    lineage: Lineage,
    backup: BackupId,
    stream: Stream,
    lines: Vec<u8>,
    line_count: u64,
    parts: Vec<Part>,
}

impl PartsWriter {
    pub fn new(lineage: Lineage, backup: BackupId, stream: Stream) -> PartsWriter {
        PartsWriter { lineage, backup, stream, lines: Vec::new(), line_count: 0, parts: Vec::new() }
    }

    /// Lets `write` append whole lines to the buffer; it gives how many they were. A full part is stored.
    pub async fn append(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>) -> Result<u64, serde_json::Error>,
    ) -> Result<(), ManifestError> {
        self.line_count +=
            write(&mut self.lines).map_err(|error| ManifestError::Refused(error.to_string()))?;
        if self.lines.len() >= PART_BYTES { self.flush().await } else { Ok(()) }
    }

    /// Stores what is left and gives the parts in order.
    pub async fn finish(mut self) -> Result<Vec<Part>, ManifestError> {
        if !self.lines.is_empty() {
            self.flush().await?;
        }
        Ok(self.parts)
    }

    async fn flush(&mut self) -> Result<(), ManifestError> {
        let digest = self.lineage.keys().digest(&self.lines);
        let number = self.parts.len();
        let path = names::backup_part(&self.backup, self.stream.stem(), number, digest.short());
        match self.lineage.create(ObjectKind::FileList, &path, Codec::Zstd, &self.lines).await? {
            Created::New => {}
            Created::Exists => return Err(ManifestError::Exists { path }),
        }
        self.parts.push(Part { path, length: self.lines.len() as u64, lines: self.line_count, digest });
        self.lines.clear();
        self.line_count = 0;
        Ok(())
    }
}

/// Reads one stream, line by line.
pub(super) struct PartsReader {
    lineage: Lineage,
    parts: std::vec::IntoIter<Part>,
    path: String,
    lines: Vec<u8>,
    at: usize,
    line_number: u64,
}

impl PartsReader {
    pub fn new(lineage: Lineage, parts: Vec<Part>) -> PartsReader {
        let parts = parts.into_iter();
        PartsReader { lineage, parts, path: String::new(), lines: Vec::new(), at: 0, line_number: 0 }
    }

    /// Makes the next line [`PartsReader::line`]; false at the end of the stream.
    pub async fn advance(&mut self) -> Result<bool, ManifestError> {
        self.at += self.line().len() + usize::from(self.at < self.lines.len());
        while self.at >= self.lines.len() {
            let Some(part) = self.parts.next() else { return Ok(false) };
            self.load(part).await?;
        }
        self.line_number += 1;
        Ok(true)
    }

    /// The bytes of the current line, without its line end.
    pub fn line(&self) -> &[u8] {
        let rest = self.lines.get(self.at..).unwrap_or_default();
        rest.split(|byte| *byte == b'\n').next().unwrap_or_default()
    }

    /// An error about the current line.
    pub fn malformed(&self, problem: &str) -> ManifestError {
        ManifestError::Malformed {
            path: self.path.clone(),
            problem: format!("line {}: {problem}", self.line_number),
        }
    }

    async fn load(&mut self, part: Part) -> Result<(), ManifestError> {
        if part.length > MAX_PART_BYTES {
            let problem = format!("a part of {} bytes", part.length);
            return Err(ManifestError::Malformed { path: part.path, problem });
        }
        let lines = self.lineage.read(ObjectKind::FileList, &part.path).await?;
        let other = |what| ManifestError::OtherPart { path: part.path.clone(), what };
        if lines.len() as u64 != part.length {
            return Err(other("length"));
        }
        if self.lineage.keys().digest(&lines) != part.digest {
            return Err(other("digest"));
        }
        self.lines = lines;
        self.path = part.path;
        self.at = 0;
        self.line_number = 0;
        Ok(())
    }
}
