//! The file list, written and read as a stream.

use super::lines::{self, Decoded, FileLine};
use super::order::OrderCheck;
use super::parts::{PartsReader, PartsWriter, Stream};
use super::{BackupId, Manifest, ManifestError, Part};
use crate::repository::lineage::Lineage;

/// Writes a file list.
pub struct FileListWriter {
    parts: PartsWriter,
    order: OrderCheck,
}

impl FileListWriter {
    /// A file list of `backup` whose extents are `extent_bytes` long.
    pub fn new(lineage: Lineage, backup: BackupId, extent_bytes: u32) -> FileListWriter {
        FileListWriter {
            parts: PartsWriter::new(lineage, backup, Stream::Files),
            order: OrderCheck::new(extent_bytes),
        }
    }

    /// Appends an entry; a full part is sealed and stored before this returns. Refuses an entry that is out of walk order, names
    /// a pack that was not named, or has not the extents its size asks for.
    pub async fn push(&mut self, entry: &FileLine) -> Result<(), ManifestError> {
        self.order.check(entry).map_err(ManifestError::Refused)?;
        self.parts.append(|out| lines::encode(entry, out)).await
    }

    /// Stores what is left; the parts for [`Manifest::file_list`].
    pub async fn finish(self) -> Result<Vec<Part>, ManifestError> {
        self.parts.finish().await
    }
}

/// Reads a file list; every entry it gives was checked like those that are written.
pub struct FileListReader {
    parts: PartsReader,
    order: OrderCheck,
    extent_bytes: u32,
    started: bool,
    at_line: bool,
}

impl FileListReader {
    /// The file list of the backup that `manifest` describes.
    pub fn new(lineage: Lineage, manifest: &Manifest) -> FileListReader {
        FileListReader {
            parts: PartsReader::new(lineage, manifest.file_list.clone()),
            order: OrderCheck::new(manifest.extent_bytes),
            extent_bytes: manifest.extent_bytes,
            started: false,
            at_line: false,
        }
    }

    /// The next entry; `None` at the end. A file comes with all its extents.
    pub async fn next(&mut self) -> Result<Option<FileLine>, ManifestError> {
        if !self.started {
            self.started = true;
            self.at_line = self.parts.advance().await?;
        }
        if !self.at_line {
            return Ok(None);
        }
        let mut entry = match self.decode()? {
            Decoded::Entry(entry) => entry,
            Decoded::More(_) => return Err(self.parts.malformed("`more` without a file before it")),
        };
        self.at_line = self.parts.advance().await?;
        if let FileLine::File { file, .. } | FileLine::Outside { file, .. } = &mut entry {
            let wanted = file.size.div_ceil(u64::from(self.extent_bytes.max(1)));
            while self.at_line && (file.extents.len() as u64) < wanted {
                let Decoded::More(more) = self.decode()? else { break };
                file.extents.extend(more);
                self.at_line = self.parts.advance().await?;
            }
        }
        match self.order.check(&entry) {
            Ok(()) => Ok(Some(entry)),
            Err(problem) => Err(self.parts.malformed(&format!("before it, {problem}"))),
        }
    }

    fn decode(&self) -> Result<Decoded, ManifestError> {
        lines::decode(self.parts.line()).map_err(|problem| self.parts.malformed(&problem))
    }
}
