//! What can go wrong on the way up and down.

use std::fmt;

use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::HistoryError;
use highwater_pitr::wal::WalError;

use crate::repository::lineage::LineageError;
use crate::seal::{Digest, SealError};

/// What identifies the content of a WAL object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content {
    /// The keyed digest of its canonical form.
    pub digest: Digest,
    /// How many of its bytes are valid WAL.
    pub valid_len: u64,
}

impl fmt::Display for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} valid bytes", self.digest, self.valid_len)
    }
}

/// A WAL file is not stored.
#[derive(Debug, thiserror::Error)]
pub enum WalPutError {
    /// The bytes are not the segment that the name says.
    #[error("{file}: {source}")]
    NotWal {
        /// The file.
        file: WalFile,
        /// What is wrong.
        source: WalError,
    },
    /// The file was written by another cluster.
    #[error(
        "{file} was written by the cluster with system identifier {found}; this archive is of {expected}"
    )]
    WrongCluster {
        /// The file.
        file: WalFile,
        /// The lineage's system identifier.
        expected: u64,
        /// The file's.
        found: u64,
    },
    /// The file was written by another major version.
    #[error("{file} was written by PostgreSQL {found}; this lineage is of PostgreSQL {expected}")]
    WrongMajor {
        /// The file.
        file: WalFile,
        /// The lineage's major.
        expected: u32,
        /// The file's.
        found: u32,
    },
    /// The file is not as long as a segment of this lineage.
    #[error("{file} is of segments of {found} bytes; this lineage has segments of {expected}")]
    WrongSize {
        /// The file.
        file: WalFile,
        /// `wal_segment_size` of the lineage.
        expected: u64,
        /// What the file has.
        found: u64,
    },
    /// The segment's records stop before its end, and not with XLOG_SWITCH.
    #[error(
        "{segment} is not a whole segment: its WAL stops at {at} after {valid_len} valid bytes ({reason})"
    )]
    BrokenChain {
        /// The segment.
        segment: SegmentName,
        /// Where the chain breaks.
        at: Lsn,
        /// Why.
        reason: String,
        /// Bytes before that.
        valid_len: u64,
    },
    /// Something else is stored under this name.
    #[error("{file} is archived already with other content: {theirs} there, {ours} here")]
    Conflict {
        /// The file.
        file: WalFile,
        /// What was to be stored.
        ours: Content,
        /// What is stored.
        theirs: Content,
    },
    /// What should be a timeline history file is none.
    #[error("{file}: {source}")]
    NotHistory {
        /// The file.
        file: WalFile,
        /// What is wrong.
        source: HistoryError,
    },
    /// A small file that is absurdly large.
    #[error("{file} is {bytes} bytes long; at most {limit} are archived")]
    TooLarge {
        /// The file.
        file: WalFile,
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// The wrong function for this kind of file was called.
    #[error("{file} is not a file of this kind")]
    WrongKind {
        /// The file.
        file: WalFile,
    },
    /// What is stored under the name cannot be read, so nothing can be said about it.
    #[error("{file} cannot be compared with what is archived: {source}")]
    Unreadable {
        /// The file.
        file: WalFile,
        /// What is wrong with what is there.
        source: Box<WalGetError>,
    },
    /// Store, seal, repository or lineage.
    #[error(transparent)]
    Lineage(#[from] LineageError),
}

impl From<SealError> for WalPutError {
    fn from(error: SealError) -> Self {
        Self::Lineage(error.into())
    }
}

impl WalPutError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotWal { source, .. } => source.hint(),
            Self::WrongCluster { .. } | Self::WrongMajor { .. } | Self::WrongSize { .. } => Some(
                "a data directory that was initialised, upgraded or restored anew is another cluster: run `highwater adopt` there"
                    .into(),
            ),
            Self::BrokenChain { .. } => Some(
                "the server that wrote it stopped in the middle, and another may hold the rest; a `.partial` of it is accepted"
                    .into(),
            ),
            Self::Conflict { .. } => Some(
                "two servers write the same timeline of this lineage: stop one of them; on a restored copy run `highwater adopt`"
                    .into(),
            ),
            Self::NotHistory { source, .. } => source.hint(),
            Self::TooLarge { .. } | Self::WrongKind { .. } => None,
            Self::Unreadable { source, .. } => source.hint(),
            Self::Lineage(error) => error.hint(),
        }
    }

    /// Whether the repository needs a newer program, so that nothing was tried.
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::Lineage(error) if error.is_too_new())
    }

    /// Whether trying again cannot help until a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Lineage(error) => error.is_permanent(),
            Self::Unreadable { source, .. } => source.is_permanent(),
            Self::NotWal { .. }
            | Self::WrongCluster { .. }
            | Self::WrongMajor { .. }
            | Self::WrongSize { .. }
            | Self::BrokenChain { .. }
            | Self::Conflict { .. }
            | Self::NotHistory { .. }
            | Self::TooLarge { .. }
            | Self::WrongKind { .. } => true,
        }
    }
}

/// A WAL file that is in the store cannot be had. Absence is no error.
#[derive(Debug, thiserror::Error)]
pub enum WalGetError {
    /// Store, seal, repository or lineage.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// It opens, and it is not the WAL that the name says.
    #[error("{path}: {reason}")]
    NotTheWal {
        /// Its path below the lineage.
        path: String,
        /// What is wrong.
        reason: String,
    },
    /// A part that the commit object names is not there.
    #[error("{path}: its part {part} is missing")]
    MissingPart {
        /// The commit object's path.
        path: String,
        /// The part's path.
        part: String,
    },
}

impl From<SealError> for WalGetError {
    fn from(error: SealError) -> Self {
        Self::Lineage(error.into())
    }
}

impl WalGetError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lineage(error) => error.hint(),
            Self::NotTheWal { .. } | Self::MissingPart { .. } => {
                Some("take it from another repository, or from a version that the storage kept".into())
            }
        }
    }

    /// Whether trying again cannot help until a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Lineage(error) => error.is_permanent(),
            Self::NotTheWal { .. } | Self::MissingPart { .. } => true,
        }
    }
}
