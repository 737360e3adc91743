//! Whether the bytes are the file that was asked for.

use highwater_archive::lineage::LineageRecord;
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::{HistoryError, TimelineHistory};
use highwater_pitr::wal::{WalError, read_segment_header};

/// The repository holds something else under this name.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Not a segment of WAL.
    #[error("{name} does not begin like a segment of WAL: {source}")]
    Header {
        /// The name asked for.
        name: SegmentName,
        /// What is wrong.
        source: WalError,
    },
    /// Another length than `wal_segment_size`.
    #[error("{name} holds {found} bytes and not {expected}")]
    Size {
        /// The name asked for.
        name: SegmentName,
        /// Its length.
        found: u64,
        /// `wal_segment_size`.
        expected: u64,
    },
    /// WAL of another cluster.
    #[error("{name} is WAL of the cluster {found}, not of {expected}")]
    SystemIdentifier {
        /// The name asked for.
        name: SegmentName,
        /// The system identifier in it.
        found: u64,
        /// The lineage's.
        expected: u64,
    },
    /// Another segment of this cluster.
    #[error("{name} holds other WAL: {found}")]
    Other {
        /// The name asked for.
        name: SegmentName,
        /// What it holds.
        found: String,
    },
    /// A history that PostgreSQL would not read.
    #[error(transparent)]
    History(#[from] HistoryError),
}

impl ContentError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        Some("what is stored under this name is not what PostgreSQL archived; use another repository that holds it".into())
    }
}

/// Holds `bytes` against the name they were stored under.
///
/// # Errors
/// [`ContentError`].
pub(super) fn check(file: &WalFile, bytes: &[u8], lineage: &LineageRecord) -> Result<(), ContentError> {
    match file {
        WalFile::Segment(name) => segment(*name, bytes, lineage),
        // A partial may be asked for by a person; PostgreSQL never does, and it may be short.
        WalFile::Partial(_) | WalFile::Backup { .. } => Ok(()),
        WalFile::History(timeline) => Ok(TimelineHistory::parse(*timeline, bytes).map(drop)?),
    }
}

fn segment(name: SegmentName, bytes: &[u8], lineage: &LineageRecord) -> Result<(), ContentError> {
    let size = lineage.wal_segment_bytes;
    if bytes.len() as u64 != size.bytes() {
        return Err(ContentError::Size { name, found: bytes.len() as u64, expected: size.bytes() });
    }
    let header = read_segment_header(bytes).map_err(|source| ContentError::Header { name, source })?;
    if header.system_identifier != lineage.system_identifier {
        return Err(ContentError::SystemIdentifier {
            name,
            found: header.system_identifier,
            expected: lineage.system_identifier,
        });
    }
    // A timeline's first segment repeats its parent's pages (`XLogFileCopy` in `xlog.c`), so it may begin with an older one.
    if header.page_addr != name.start(size) || header.timeline > name.timeline {
        let found = format!("position {} of timeline {}", header.page_addr, header.timeline);
        return Err(ContentError::Other { name, found });
    }
    Ok(())
}
