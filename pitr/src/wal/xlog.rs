//! Restore points and checkpoints (`xl_restore_point` in `access/xlog_internal.h`, `CheckPoint` in
//! `catalog/pg_control.h`).

use crate::lsn::Lsn;
use crate::time::PgTime;

use super::fragments::{Cursor, MainData};
use super::record::{RM_XLOG, RecordHeader};

const CHECKPOINT_SHUTDOWN: u8 = 0x00;
const CHECKPOINT_ONLINE: u8 = 0x10;
const RESTORE_POINT: u8 = 0x70;
/// `MAXFNAMELEN`: a restore point's name, padded with zeros.
const NAME: usize = 64;
/// Offset of `time` (seconds since 1970) in `CheckPoint`; the same from 14 to 18.
const CHECKPOINT_TIME: usize = 64;

/// The records of the XLOG resource manager that the index wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XlogKind {
    /// A named restore point.
    RestorePoint,
    /// A checkpoint; `online` when the server was running.
    Checkpoint {
        /// Made while the server ran.
        online: bool,
    },
}

/// Which of them the record is; `None` for any other record.
pub fn kind(header: &RecordHeader) -> Option<XlogKind> {
    if header.rmid != RM_XLOG {
        return None;
    }
    match header.info & 0xF0 {
        RESTORE_POINT => Some(XlogKind::RestorePoint),
        CHECKPOINT_SHUTDOWN => Some(XlogKind::Checkpoint { online: false }),
        CHECKPOINT_ONLINE => Some(XlogKind::Checkpoint { online: true }),
        _ => None,
    }
}

/// Name and time of a restore point.
///
/// # Errors
/// What does not fit, in words.
pub fn restore_point(main: MainData<'_>) -> Result<(String, PgTime), &'static str> {
    let mut cursor = Cursor(main.bytes);
    let time = cursor.i64().ok_or("a restore point without a time")?;
    let name = cursor.0.get(..NAME).ok_or("a restore point without a name")?;
    let name = name.split(|byte| *byte == 0).next().unwrap_or_default();
    Ok((String::from_utf8_lossy(name).into_owned(), PgTime::from_postgres_micros(time)))
}

/// Redo position and time of a checkpoint.
///
/// # Errors
/// What does not fit, in words.
pub fn checkpoint(main: MainData<'_>) -> Result<(Lsn, PgTime), &'static str> {
    let mut cursor = Cursor(main.bytes);
    let redo = cursor.u64().ok_or("a checkpoint without a redo position")?;
    cursor.skip(CHECKPOINT_TIME - 8).ok_or("a checkpoint without a time")?;
    let seconds = cursor.i64().ok_or("a checkpoint without a time")?;
    let time = PgTime::from_unix_seconds(seconds).ok_or("a checkpoint at an impossible time")?;
    Ok((Lsn::new(redo), time))
}
