//! From what was read to lines of the file list, in order.

use std::collections::BTreeMap;
use std::sync::Arc;

use highwater_archive::manifest::{
    Counts, Extent, FileEntry, FileLine, FileListWriter, FilePath, Manifest, Part,
};

use super::error::BackupError;
use super::work::{BadPage, Done, FileRead, OpenFile, PackLine, Place, ReadBytes};

/// What was met on the way.
#[derive(Debug, Default)]
pub struct Totals {
    /// Counts for the manifest; what was stored is not in them yet.
    pub counts: Counts,
    /// Tablespaces, by the path of their link.
    pub tablespaces: BTreeMap<FilePath, CopiedTablespace>,
    /// Pages that failed, the first [`Manifest::MAX_PAGE_FAILURES`] of them.
    pub bad_pages: Vec<(FilePath, BadPage)>,
    /// How many failed in all.
    pub bad_page_count: u64,
}

/// A tablespace that was copied.
#[derive(Clone, Debug)]
pub struct CopiedTablespace {
    /// Where its link led.
    pub target: String,
    /// Bytes of its files.
    pub bytes: u64,
}

/// Writes the file list.
pub struct Listing {
    list: FileListWriter,
    totals: Totals,
    tablespace: Option<FilePath>,
    large: Option<LargeFile>,
}

/// A large file of which not all slices have come.
struct LargeFile {
    extents: Vec<Extent>,
    ended_at: Option<u64>,
    padded: bool,
}

impl Listing {
    /// A listing that goes to `list`.
    pub fn new(list: FileListWriter) -> Listing {
        Listing { list, totals: Totals::default(), tablespace: None, large: None }
    }

    /// Bytes of the files that were listed.
    pub fn bytes_read(&self) -> u64 {
        self.totals.counts.bytes
    }

    /// Takes the next answer in walk order.
    pub async fn take(&mut self, answer: Done) -> Result<(), BackupError> {
        match answer {
            Done::Failed(error) => Err(error),
            Done::Vanished => {
                self.totals.counts.vanished_files += 1;
                Ok(())
            }
            Done::Entry(line) => {
                self.totals.counts.directories += 1;
                if let FileLine::Tablespace { path, target, .. } = &line {
                    let copied = CopiedTablespace { target: target.clone(), bytes: 0 };
                    self.totals.tablespaces.insert(path.clone(), copied);
                    self.tablespace = Some(path.clone());
                }
                Ok(self.list.push(&line).await?)
            }
            Done::Batch { packs, files, vanished } => {
                self.totals.counts.vanished_files += vanished;
                self.packs(packs).await?;
                for file in files {
                    self.whole(file).await?;
                }
                Ok(())
            }
            Done::Slice { packs, file, last, bytes } => {
                self.packs(packs).await?;
                self.slice(file, last, bytes).await
            }
        }
    }

    /// Ends the list.
    pub async fn finish(self) -> Result<(Vec<Part>, Totals), BackupError> {
        Ok((self.list.finish().await?, self.totals))
    }

    async fn packs(&mut self, packs: Vec<PackLine>) -> Result<(), BackupError> {
        for PackLine { number, path, header } in packs {
            self.list.push(&FileLine::Pack { pack: number, path, header }).await?;
        }
        Ok(())
    }

    async fn whole(&mut self, read: FileRead) -> Result<(), BackupError> {
        let FileRead { place, size, mode, mtime, mut bytes } = read;
        self.pages(&place, &mut bytes);
        let size = bytes.ended_at.unwrap_or(size);
        self.totals.counts.padded_files += u64::from(bytes.padded);
        self.file(place, FileEntry { size, mode, mtime, extents: bytes.extents }).await
    }

    async fn slice(
        &mut self,
        file: Arc<OpenFile>,
        last: bool,
        mut bytes: ReadBytes,
    ) -> Result<(), BackupError> {
        self.pages(&file.name.place, &mut bytes);
        let large = self.large.get_or_insert_with(|| LargeFile {
            extents: Vec::new(),
            ended_at: None,
            padded: false,
        });
        large.padded |= bytes.padded;
        // What lies behind the first end that was met is no part of the file, whatever came after.
        if large.ended_at.is_none() {
            large.extents.append(&mut bytes.extents);
            large.ended_at = bytes.ended_at;
        }
        if !last {
            return Ok(());
        }
        let Some(large) = self.large.take() else { return Ok(()) };
        self.totals.counts.padded_files += u64::from(large.padded);
        let size = large.ended_at.unwrap_or(file.size);
        let entry = FileEntry { size, mode: file.mode, mtime: file.mtime, extents: large.extents };
        self.file(file.name.place.clone(), entry).await
    }

    async fn file(&mut self, place: Place, file: FileEntry) -> Result<(), BackupError> {
        self.totals.counts.files += 1;
        self.totals.counts.bytes += file.size;
        self.totals.counts.extents += file.extents.len() as u64;
        let line = match place {
            Place::Outside(path, role) => FileLine::Outside { path, role, file },
            Place::Inside(path) => {
                if let Some(tablespace) = &self.tablespace
                    && path.as_path().starts_with(tablespace.as_path())
                    && let Some(copied) = self.totals.tablespaces.get_mut(tablespace)
                {
                    copied.bytes += file.size;
                }
                FileLine::File { path, file }
            }
        };
        Ok(self.list.push(&line).await?)
    }

    fn pages(&mut self, place: &Place, bytes: &mut ReadBytes) {
        self.totals.counts.pages_verified += bytes.pages_verified;
        self.totals.bad_page_count += bytes.bad_pages.len() as u64;
        if let Place::Inside(path) = place {
            let room = Manifest::MAX_PAGE_FAILURES.saturating_sub(self.totals.bad_pages.len());
            let listed = bytes.bad_pages.drain(..).take(room);
            self.totals.bad_pages.extend(listed.map(|page| (path.clone(), page)));
        }
    }
}
