//! PostgreSQL's write-ahead log, read as PostgreSQL reads it.
//!
//! A segment file is a row of pages. Each page begins with a header ([`page`]); records ([`record`]) fill the rest
//! back to back, cut wherever a page ends. [`reader`] walks the records of one segment and holds each to what PostgreSQL's
//! `access/transam/xlogreader.c` demands: page headers, lengths, prev-links, CRCs. [`event`] says what the few records mean
//! that a restore must know of beforehand; [`fragments`], [`xact`], [`xlog`] and [`tblspc`] take those apart.

pub mod event;
pub mod fragments;
pub mod page;
mod pages;
pub mod reader;
pub mod record;
#[cfg(test)]
pub(crate) mod synthetic;
pub mod tblspc;
pub mod version;
pub mod xact;
pub mod xlog;

use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::timeline::TimelineId;

pub use page::{SegmentHeader, read_segment_header};
pub use version::PgMajor;

/// Bytes that are not the WAL segment they should be. A segment that is one, but whose records stop early, is no error:
/// see [`ChainEnd::Broken`](crate::scan::ChainEnd::Broken).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalError {
    /// Fewer bytes than a first page's header.
    #[error("{len} bytes are too few for a WAL segment")]
    TooShort {
        /// How many there are.
        len: usize,
    },
    /// The first bytes are no page header of a PostgreSQL that we know.
    #[error("not a WAL segment of PostgreSQL 14 to 18: its page magic is {magic:04X}")]
    UnknownMagic {
        /// The first two bytes.
        magic: u16,
    },
    /// A first page whose header contradicts itself.
    #[error("the first page's header is not valid: {reason}")]
    Header {
        /// What is wrong in it.
        reason: String,
    },
    /// The file's length is not the segment size in its own header.
    #[error("the file holds {len} bytes, but its header says segments have {expected}")]
    Length {
        /// The file's length, bytes.
        len: usize,
        /// The segment size in its header.
        expected: u64,
    },
    /// The name is impossible with this segment size.
    #[error("no segment of a cluster with segments of {size} is named {name}")]
    Name {
        /// The name.
        name: SegmentName,
        /// The segment size in the header.
        size: WalSegmentSize,
    },
    /// The content belongs elsewhere in the WAL.
    #[error("the file named {name} holds the WAL at {found}, not at {expected}")]
    Misplaced {
        /// The name it came under.
        name: SegmentName,
        /// What its first page's header says.
        found: Lsn,
        /// What the name says.
        expected: Lsn,
    },
    /// The content was written on a timeline newer than its name's.
    #[error("the file named {name} was written on timeline {found}")]
    Timeline {
        /// The name it came under.
        name: SegmentName,
        /// What its first page's header says.
        found: TimelineId,
    },
}

impl WalError {
    /// What to look at.
    pub fn hint(&self) -> Option<String> {
        match self {
            WalError::TooShort { .. } | WalError::Length { .. } => {
                Some("PostgreSQL hands over whole segments; was the file cut while it was copied?".into())
            }
            WalError::UnknownMagic { .. } => Some(
                "is it a WAL file at all, not encrypted or compressed, and is this PostgreSQL's major version supported?".into(),
            ),
            WalError::Header { .. } => Some("pg_waldump shows what PostgreSQL itself makes of the file".into()),
            WalError::Name { .. } => Some("was the file renamed, or taken from another cluster?".into()),
            WalError::Misplaced { .. } | WalError::Timeline { .. } => {
                Some("a recycled or renamed file: its content is older WAL than its name says".into())
            }
        }
    }
}
