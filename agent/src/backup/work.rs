//! What the threads of a backup hand to each other.
//!
//! Everything that will stand in the file list has a sequence number in walk order. What needs no reading goes straight to
//! the one that writes the list; files go by a worker. A file larger than [`SLICE_BYTES`] is opened once and its slices are
//! read side by side; smaller ones travel in batches.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use highwater_archive::manifest::{Extent, FileLine, FilePath, OutsideRole};

use super::error::BackupError;
use super::names::RelationFile;

/// The most bytes of one file that one worker reads before others may have a turn.
pub const SLICE_BYTES: u64 = 16 << 20;

/// The most files in a batch.
pub const BATCH_FILES: usize = 32;

/// Where a file lies, and what the file list calls it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Below the data directory.
    Inside(FilePath),
    /// Elsewhere, by its absolute path.
    Outside(String, OutsideRole),
}

/// A file to read.
#[derive(Clone, Debug)]
pub struct FileRef {
    /// Where it lies.
    pub place: Place,
    /// What its name says, when it is a relation's.
    pub relation: Option<RelationFile>,
    /// Whether its last component may be a symbolic link (a configuration file that is one).
    pub follow: bool,
}

impl FileRef {
    /// The path to open.
    pub fn on_disk(&self, data_dir: &Path) -> PathBuf {
        match &self.place {
            Place::Inside(path) => data_dir.join(path.as_path()),
            Place::Outside(path, _) => PathBuf::from(path),
        }
    }
}

/// A file that was opened; what it is was asked of the descriptor, once.
#[derive(Debug)]
pub struct OpenFile {
    /// Which file.
    pub name: FileRef,
    /// The path it was opened by, for messages.
    pub path: PathBuf,
    /// Its only descriptor.
    pub file: File,
    /// Length when it was opened: what grows later is not read.
    pub size: u64,
    /// Mode bits.
    pub mode: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
}

impl OpenFile {
    /// Opens a file for reading once from its beginning to its end; `None` when it is gone.
    pub fn open(name: FileRef, data_dir: &Path) -> Result<Option<OpenFile>, BackupError> {
        let path = name.on_disk(data_dir);
        // A name may have become a pipe since it was seen: never wait for a writer.
        let mut flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
        if !name.follow {
            flags |= rustix::fs::OFlags::NOFOLLOW;
        }
        let opened =
            std::fs::OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(BackupError::unreadable(path, error)),
        };
        let meta = file.metadata().map_err(|error| BackupError::unreadable(&path, error))?;
        if !meta.is_file() {
            return Err(BackupError::unreadable(path, io::Error::other("it is no regular file any more")));
        }
        if meta.len() > SLICE_BYTES / 16 {
            // Advice about reading ahead; a file system that takes none reads as well without.
            rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Sequential).ok();
        }
        let (size, mode, mtime) = (meta.len(), meta.mode() & 0o7777, meta.mtime());
        Ok(Some(OpenFile { name, path, file, size, mode, mtime }))
    }
}

/// What a worker takes at once.
#[derive(Debug)]
pub enum Unit {
    /// Small files, whole.
    Batch(Vec<FileRef>),
    /// A stretch of a large file.
    Slice {
        /// The file, shared with the other slices.
        file: std::sync::Arc<OpenFile>,
        /// The first byte, a multiple of an extent.
        from: u64,
        /// The byte after the last.
        to: u64,
    },
}

/// A pack, announced before its first extent.
#[derive(Clone, Debug)]
pub struct PackLine {
    /// Its number.
    pub number: u32,
    /// Its path below the lineage.
    pub path: String,
    /// Its header.
    pub header: Vec<u8>,
}

/// A page that is not what PostgreSQL wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadPage {
    /// Its number in the relation.
    pub block: u32,
    /// What is wrong.
    pub problem: String,
}

/// What was read of a file, or of a slice.
#[derive(Debug, Default)]
pub struct ReadBytes {
    /// The extents, in order.
    pub extents: Vec<Extent>,
    /// Where the file turned out to end, when that was before its size.
    pub ended_at: Option<u64>,
    /// Whether zeros stand for what was cut off a relation meanwhile.
    pub padded: bool,
    /// Pages whose checksum was computed.
    pub pages_verified: u64,
    /// Those that failed.
    pub bad_pages: Vec<BadPage>,
}

/// A file of a batch that was read.
#[derive(Debug)]
pub struct FileRead {
    /// Where it lies.
    pub place: Place,
    /// Length when it was opened.
    pub size: u64,
    /// Mode bits.
    pub mode: u32,
    /// Modification time in seconds since 1970.
    pub mtime: i64,
    /// Its bytes.
    pub bytes: ReadBytes,
}

/// What became of one sequence number.
#[derive(Debug)]
pub enum Done {
    /// A line that needed no reading.
    Entry(FileLine),
    /// A batch.
    Batch {
        /// Packs that were begun for it.
        packs: Vec<PackLine>,
        /// Its files, without those that were gone.
        files: Vec<FileRead>,
        /// How many were gone.
        vanished: u64,
    },
    /// A slice.
    Slice {
        /// Packs that were begun for it.
        packs: Vec<PackLine>,
        /// The file.
        file: std::sync::Arc<OpenFile>,
        /// Whether it was the last slice.
        last: bool,
        /// Its bytes.
        bytes: ReadBytes,
    },
    /// A large file that was gone before it was opened.
    Vanished,
    /// The backup cannot go on.
    Failed(BackupError),
}
