//! Why a backup is not made.

use std::io;
use std::path::PathBuf;

use highwater_archive::lineage::LineageError;
use highwater_archive::manifest::{FilePath, ManifestError};
use highwater_archive::pack::PackError;
use highwater_archive::store::StoreError;
use highwater_archive::wal::WalGetError;

use crate::pg::PgError;

/// A backup was refused, or failed.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The server is not in a state that a backup can be taken from.
    #[error("{problem}")]
    Refused {
        /// What it is, in one sentence.
        problem: String,
        /// What to do.
        hint: String,
    },
    /// A file or directory could not be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A symbolic link that is not one of PostgreSQL's leads out of the data directory (I25).
    #[error("{path} is a symbolic link that leads out of the data directory, or may: to {target}")]
    LeavesDataDirectory {
        /// The link, below the data directory.
        path: FilePath,
        /// What it holds.
        target: String,
    },
    /// The name of a file cannot be stored.
    #[error("the file {path} has a name that cannot be stored")]
    Name {
        /// Which.
        path: PathBuf,
    },
    /// `global/pg_control` never read as a whole.
    #[error("{path} cannot be used: {problem}")]
    Control {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// WAL did not come into the repository in time.
    #[error("{what} did not reach the repository within {waited_s} s: {cause}")]
    WalMissing {
        /// Which segment, and what it is needed for.
        what: String,
        /// How long was waited, in seconds.
        waited_s: u64,
        /// What PostgreSQL says about its archiving.
        cause: String,
    },
    /// The WAL in the repository does not join.
    #[error("the WAL in the repository is not contiguous: {0}")]
    WalBroken(String),
    /// The connection that kept the backup running was lost.
    #[error("the connection that held the backup open was lost: {0}")]
    SessionLost(String),
    /// What the server returned cannot be understood.
    #[error("PostgreSQL's {what} cannot be used: {problem}")]
    Answer {
        /// Which value.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// A pack that was stored is not in the repository any more, or another one is in its place.
    #[error("{path} is not in the repository as it was written")]
    PackMissing {
        /// Path below the lineage.
        path: String,
    },
    /// The server.
    #[error(transparent)]
    Server(#[from] PgError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The lineage.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// A WAL object in the repository.
    #[error(transparent)]
    Wal(#[from] WalGetError),
    /// A manifest, or part of one.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// A pack.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A thread could not be started, or ended without an answer.
    #[error("{0}")]
    Thread(String),
}

impl BackupError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            BackupError::Refused { hint, .. } => Some(hint.clone()),
            BackupError::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run the backup as the owner of the data directory, usually postgres".to_owned())
            }
            BackupError::Unreadable { .. } | BackupError::Thread(_) => None,
            BackupError::LeavesDataDirectory { .. } => Some(
                "what it leads to would be missing from every restore: move it into the data directory, or remove the link (one that \
                 stays inside has no `..` behind a name); configuration files may lie elsewhere when PostgreSQL's own settings name them"
                    .to_owned(),
            ),
            BackupError::Name { .. } => Some("it is no file of PostgreSQL's; move it out of the data directory".to_owned()),
            BackupError::Control { .. } => {
                Some("is cluster.data_dir the directory of the server that cluster.connection leads to?".to_owned())
            }
            BackupError::WalMissing { .. } => Some(
                "`highwater check` proves archiving step by step; the server's log holds what archive_command printed"
                    .to_owned(),
            ),
            BackupError::WalBroken(_) => {
                Some("WAL was lost on the way here; `highwater list` names the gap, and a new backup begins after it".to_owned())
            }
            BackupError::SessionLost(_) => Some(
                "the server ends a backup with its session; was it restarted, or the session terminated? run the backup again"
                    .to_owned(),
            ),
            BackupError::Answer { .. } => None,
            BackupError::PackMissing { .. } => {
                Some("something else deletes objects in the repository; find it before you run the backup again".to_owned())
            }
            BackupError::Server(error) => error.hint(),
            BackupError::Store(error) => error.hint(),
            BackupError::Lineage(error) => error.hint(),
            BackupError::Wal(error) => error.hint(),
            BackupError::Manifest(error) => error.hint(),
            BackupError::Pack(error) => error.hint(),
        }
    }

    /// Whether it was said before anything was written, unless it is the source of an `Incomplete`.
    pub fn is_refusal(&self) -> bool {
        matches!(self, BackupError::Refused { .. } | BackupError::LeavesDataDirectory { .. })
    }

    /// An I/O error on `path`.
    pub fn unreadable(path: impl Into<PathBuf>, source: io::Error) -> BackupError {
        BackupError::Unreadable { path: path.into(), source }
    }
}
