//! Tablespaces made and dropped (`xl_tblspc_create_rec` and `xl_tblspc_drop_rec` in `commands/tablespace.h`, the same from 14
//! to 18).
//!
//! Main data: the oid, and of one that is made its path, ended by a zero byte. Replay links `pg_tblspc/<oid>` to that path,
//! wherever it had led before, and writes what belongs to the tablespace there (`create_tablespace_directories` in
//! `commands/tablespace.c`).

use super::event::TablespaceChange;
use super::fragments::{Cursor, MainData};
use super::record::{RM_TBLSPC, RecordHeader};

const CREATE: u8 = 0x00;
const DROP: u8 = 0x10;
/// `MAXPGPATH`: no path is as long, its zero byte included.
pub const MAX_PATH: usize = 1024;

/// The records of the tablespace resource manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TablespaceKind {
    /// CREATE TABLESPACE.
    Create,
    /// DROP TABLESPACE.
    Drop,
}

/// Which of them the record is; `None` for any other record.
pub fn kind(header: &RecordHeader) -> Option<TablespaceKind> {
    if header.rmid != RM_TBLSPC {
        return None;
    }
    match header.info & 0xF0 {
        CREATE => Some(TablespaceKind::Create),
        DROP => Some(TablespaceKind::Drop),
        _ => None,
    }
}

/// The tablespace's oid, and what became of it.
///
/// # Errors
/// What does not fit, in words.
pub fn decode(kind: TablespaceKind, main: MainData<'_>) -> Result<(u32, TablespaceChange), &'static str> {
    let mut cursor = Cursor(main.bytes);
    let oid = cursor.u32().ok_or("a tablespace without an oid")?;
    let change = match kind {
        TablespaceKind::Drop => TablespaceChange::Dropped,
        TablespaceKind::Create => {
            let end = cursor.0.iter().take(MAX_PATH).position(|byte| *byte == 0);
            let path = end.and_then(|end| cursor.0.get(..end)).ok_or("a tablespace whose path has no end")?;
            TablespaceChange::Created { path: path.to_vec() }
        }
    };
    Ok((oid, change))
}
