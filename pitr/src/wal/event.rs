//! The records that a restore must know of beforehand: those that tell of a moment (ends of transactions, restore points,
//! checkpoints), and those that reach out of the data directory (tablespaces).

use serde::Serialize;

use crate::lsn::Lsn;
use crate::time::PgTime;

use super::fragments::main_data;
use super::record::RecordHeader;
use super::tblspc;
use super::version::PgMajor;
use super::xact;
use super::xlog::{self, XlogKind};

/// The end of a transaction or subtransaction. Aborts count: PostgreSQL's recovery stops at them too (`recoveryStopsBefore`
/// in `access/transam/xlogrecovery.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TransactionEnd {
    /// Start of the record.
    pub lsn: Lsn,
    /// The position after the record.
    pub end: Lsn,
    /// The transaction; of prepared ones the transaction that was prepared.
    pub xid: u32,
    /// The time in the record.
    pub time: PgTime,
    /// Which end.
    pub kind: TransactionKind,
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionKind {
    /// COMMIT.
    Commit,
    /// ROLLBACK, or an error.
    Abort,
    /// COMMIT PREPARED.
    CommitPrepared,
    /// ROLLBACK PREPARED.
    AbortPrepared,
}

/// A named restore point (`pg_create_restore_point`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RestorePointRecord {
    /// Start of the record.
    pub lsn: Lsn,
    /// The position after the record.
    pub end: Lsn,
    /// Its name; bytes that are not UTF-8 are replaced.
    pub name: String,
    /// When it was made.
    pub time: PgTime,
}

/// A checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct CheckpointRecord {
    /// Start of the record.
    pub lsn: Lsn,
    /// The position after the record.
    pub end: Lsn,
    /// Where recovery from it begins.
    pub redo: Lsn,
    /// When it began, to the second.
    pub time: PgTime,
    /// Made while the server ran (false: at a shutdown).
    pub online: bool,
}

/// A tablespace was made or dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceRecord {
    /// Start of the record.
    pub lsn: Lsn,
    /// The position after the record.
    pub end: Lsn,
    /// Start of the record before it. From it follows whether a position between the two is stopped at by this record.
    pub prev: Lsn,
    /// The tablespace.
    pub oid: u32,
    /// What became of it.
    pub change: TablespaceChange,
}

/// What became of a tablespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TablespaceChange {
    /// It was made.
    Created {
        /// Its directory, in the bytes of the WAL; empty for one that lies in `pg_tblspc` itself.
        path: Vec<u8>,
    },
    /// It was dropped.
    Dropped,
}

/// What a record tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The end of a transaction.
    Transaction(TransactionEnd),
    /// A restore point.
    RestorePoint(RestorePointRecord),
    /// A checkpoint.
    Checkpoint(CheckpointRecord),
    /// A tablespace.
    Tablespace(TablespaceRecord),
}

/// Whether a record with this header is one of them.
pub fn is_event(header: &RecordHeader) -> bool {
    xact::kind(header).is_some() || xlog::kind(header).is_some() || tblspc::kind(header).is_some()
}

/// What the record from `lsn` to `end` tells; `None` when it is no such record. `body` is what follows the record's
/// header, or as much of its beginning as is known.
///
/// # Errors
/// What does not fit, in words, when it is such a record but cannot be taken apart.
pub fn decode(
    header: &RecordHeader,
    body: &[u8],
    lsn: Lsn,
    end: Lsn,
    major: PgMajor,
) -> Result<Option<Event>, &'static str> {
    let body_len = (header.total_len as usize).saturating_sub(super::record::HEADER);
    if let Some(kind) = xact::kind(header) {
        let (xid, time) = xact::decode(header, kind, main_data(body, body_len, major)?, major)?;
        return Ok(Some(Event::Transaction(TransactionEnd { lsn, end, xid, time, kind })));
    }
    if let Some(kind) = tblspc::kind(header) {
        let (oid, change) = tblspc::decode(kind, main_data(body, body_len, major)?)?;
        let prev = header.prev;
        return Ok(Some(Event::Tablespace(TablespaceRecord { lsn, end, prev, oid, change })));
    }
    let event = match xlog::kind(header) {
        None => return Ok(None),
        Some(XlogKind::RestorePoint) => {
            let (name, time) = xlog::restore_point(main_data(body, body_len, major)?)?;
            Event::RestorePoint(RestorePointRecord { lsn, end, name, time })
        }
        Some(XlogKind::Checkpoint { online }) => {
            let (redo, time) = xlog::checkpoint(main_data(body, body_len, major)?)?;
            Event::Checkpoint(CheckpointRecord { lsn, end, redo, time, online })
        }
    };
    Ok(Some(event))
}
