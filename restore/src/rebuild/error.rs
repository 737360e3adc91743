//! What can go wrong while a data directory is rebuilt.

use std::io;
use std::path::{Path, PathBuf};

use highwater_archive::durable::{self, DurableError};
use highwater_archive::lineage::LineageError;
use highwater_archive::manifest::ManifestError;
use highwater_archive::pack::PackError;
use highwater_archive::store::StoreError;

/// What to do about a backup that is not whole. What was restored of it may become another backup, and nothing else.
pub const OTHER_BACKUP: &str = "add --delta --backup ID to the same command, which makes another backup of what is there \
                                (highwater list shows them), or --repository NAME, where another repository holds this one";

/// A data directory could not be rebuilt. What was written is marked incomplete and does not start.
#[derive(Debug, thiserror::Error)]
pub enum RebuildError {
    /// The manifest or its file list.
    #[error("cannot read what the backup consists of: {0}")]
    Manifest(#[from] ManifestError),
    /// The file list asks for something that no backup of ours holds.
    #[error("the file list is not acceptable: {0}")]
    Hostile(String),
    /// A pack could not be fetched.
    #[error("cannot fetch {pack}, needed for {needed_for}: {source}")]
    Fetch {
        /// The object's path below the lineage.
        pack: String,
        /// The files whose bytes it holds.
        needed_for: String,
        /// The store's answer.
        source: Box<StoreError>,
    },
    /// A pack ends before a frame that it should hold.
    #[error("{pack} is cut short at byte {at}; it is needed for {needed_for}")]
    Short {
        /// The object's path below the lineage.
        pack: String,
        /// Where it ends, in bytes.
        at: u64,
        /// The files whose bytes it holds.
        needed_for: String,
    },
    /// A frame did not open: damaged or not what the file list names. The source names the pack.
    #[error("{file} cannot be restored, its pack is damaged: {source}")]
    Damaged {
        /// The file whose bytes these are.
        file: String,
        /// What is wrong with which pack.
        source: PackError,
    },
    /// An extent of a length that the file's size does not allow.
    #[error("{pack}: an extent of {file} holds {found} bytes and not {expected}")]
    WrongLength {
        /// The object's path below the lineage.
        pack: String,
        /// The file whose bytes these are.
        file: String,
        /// Bytes expected.
        expected: u64,
        /// Bytes found.
        found: u64,
    },
    /// A directory is not the one that was marked as this restore's.
    #[error("{} is not the directory any more that this restore has marked as its own", path.display())]
    Exchanged {
        /// Its name.
        path: PathBuf,
    },
    /// A filesystem that was not there when it was looked for.
    #[error("another filesystem is mounted in {path}, which is to be filled: nothing on it was changed")]
    Mounted {
        /// Where it is, or what was looked for on it.
        path: String,
    },
    /// The local disk.
    #[error("cannot {operation} {path}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// On what.
        path: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The local disk, through the durable door.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// A thread ended without an answer.
    #[error("a thread of the restore ended unexpectedly")]
    Thread,
}

impl RebuildError {
    /// Whether it is the backup that is not whole, so that the same command alone would come to the same end.
    pub fn is_of_the_backup(&self) -> bool {
        match self {
            Self::Manifest(ManifestError::Lineage(LineageError::Store(source))) => source.is_not_found(),
            Self::Fetch { source, .. } => source.is_not_found(),
            Self::Manifest(_) | Self::Short { .. } | Self::Damaged { .. } | Self::WrongLength { .. } => true,
            Self::Hostile(_)
            | Self::Exchanged { .. }
            | Self::Mounted { .. }
            | Self::Io { .. }
            | Self::Durable(_)
            | Self::Thread => false,
        }
    }

    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            _ if self.is_of_the_backup() => Some(OTHER_BACKUP.into()),
            Self::Manifest(ManifestError::Lineage(LineageError::Store(source))) => source.hint(),
            Self::Fetch { source, .. } => source.hint(),
            Self::Hostile(_) => {
                Some("this is not what highwater writes; keep the repository for examination".into())
            }
            Self::Exchanged { .. } => {
                Some("see what was mounted or moved there meanwhile, and undo it".into())
            }
            Self::Mounted { .. } => Some("unmount it".into()),
            Self::Io { path, source, .. } if durable::is_full(source) => {
                Some(durable::make_room(Path::new(path)))
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists => {
                Some("something else writes to the target directory; choose an empty one".into())
            }
            Self::Durable(error) => error.hint(),
            Self::Manifest(_)
            | Self::Short { .. }
            | Self::Damaged { .. }
            | Self::WrongLength { .. }
            | Self::Io { .. }
            | Self::Thread => None,
        }
    }
}
