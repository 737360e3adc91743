//! Commit and abort records (`access/xact.h`; `ParseCommitRecord` and `ParseAbortRecord` in
//! `access/rmgrdesc/xactdesc.c`).
//!
//! Main data: time i64, and with the flag in `info` a word of bits that say what follows, in this order: database (8 bytes),
//! subtransactions, relations to drop, statistics to drop (15 and newer), invalidations (commits only), the prepared
//! transaction's xid, … Lists are a count and their items. The xid of a plain commit or abort is in the record's header;
//! that of a prepared one is in the data, behind all the lists.

use crate::time::PgTime;

use super::event::TransactionKind;
use super::fragments::{Cursor, MainData};
use super::record::{RM_XACT, RecordHeader};
use super::version::PgMajor;

const OPERATION: u8 = 0x70;
const COMMIT: u8 = 0x00;
const ABORT: u8 = 0x20;
const COMMIT_PREPARED: u8 = 0x30;
const ABORT_PREPARED: u8 = 0x40;
/// In `info`: a word of bits follows the time.
const HAS_INFO: u8 = 0x80;

const HAS_DATABASE: u32 = 0x0001;
const HAS_SUBTRANSACTIONS: u32 = 0x0002;
const HAS_RELATIONS: u32 = 0x0004;
const HAS_INVALIDATIONS: u32 = 0x0008;
const HAS_TWO_PHASE: u32 = 0x0010;
const HAS_DROPPED_STATISTICS: u32 = 0x0100;

/// Which end of a transaction the record is; `None` for any other record.
pub fn kind(header: &RecordHeader) -> Option<TransactionKind> {
    if header.rmid != RM_XACT {
        return None;
    }
    match header.info & OPERATION {
        COMMIT => Some(TransactionKind::Commit),
        ABORT => Some(TransactionKind::Abort),
        COMMIT_PREPARED => Some(TransactionKind::CommitPrepared),
        ABORT_PREPARED => Some(TransactionKind::AbortPrepared),
        _ => None,
    }
}

/// The transaction that ended, and when, from a record for which [`kind`] gives `kind`.
///
/// # Errors
/// What does not fit, in words: the data are not those of such a record, or (of a prepared transaction) not all there.
pub fn decode(
    header: &RecordHeader,
    kind: TransactionKind,
    main: MainData<'_>,
    major: PgMajor,
) -> Result<(u32, PgTime), &'static str> {
    let mut cursor = Cursor(main.bytes);
    let time = cursor.i64().ok_or("a commit or abort record without a time")?;
    let xid = match kind {
        TransactionKind::Commit | TransactionKind::Abort => header.xid,
        TransactionKind::CommitPrepared | TransactionKind::AbortPrepared => {
            prepared_xid(&mut cursor, header.info, kind, major).ok_or(if main.complete {
                "the record of a prepared transaction does not name it"
            } else {
                "the record of a prepared transaction is too long to be kept in the index"
            })?
        }
    };
    Ok((xid, PgTime::from_postgres_micros(time)))
}

fn prepared_xid(cursor: &mut Cursor<'_>, info: u8, kind: TransactionKind, major: PgMajor) -> Option<u32> {
    let bits = if info & HAS_INFO != 0 { cursor.u32()? } else { 0 };
    if bits & HAS_TWO_PHASE == 0 {
        return None;
    }
    if bits & HAS_DATABASE != 0 {
        cursor.skip(8)?;
    }
    if bits & HAS_SUBTRANSACTIONS != 0 {
        skip_list(cursor, 4)?;
    }
    if bits & HAS_RELATIONS != 0 {
        skip_list(cursor, 12)?;
    }
    if bits & HAS_DROPPED_STATISTICS != 0 {
        // xl_xact_stats_item: kind, database and object; the object's id has 64 bits since 18.
        let item = match major {
            PgMajor::V14 => return None,
            PgMajor::V15 | PgMajor::V16 | PgMajor::V17 => 12,
            PgMajor::V18 => 16,
        };
        skip_list(cursor, item)?;
    }
    if bits & HAS_INVALIDATIONS != 0 && kind == TransactionKind::CommitPrepared {
        skip_list(cursor, 16)?;
    }
    cursor.u32()
}

fn skip_list(cursor: &mut Cursor<'_>, item: usize) -> Option<()> {
    let count = cursor.u32()? as usize;
    cursor.skip(count.checked_mul(item)?)
}
