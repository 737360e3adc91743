//! The list of tablespaces in an encoded index.

use super::encoding::{after, damaged, units, within};
use super::varint::{Input, put};
use super::{IndexError, TablespaceChange, TablespaceRecord};
use crate::lsn::Lsn;
use crate::wal::record::ALIGNMENT;
use crate::wal::tblspc::MAX_PATH;

pub(super) fn encode(list: &[TablespaceRecord], start: Lsn) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, list.len() as u64);
    let mut before = start;
    for record in list {
        let path = match &record.change {
            TablespaceChange::Created { path } => Some(path),
            TablespaceChange::Dropped => None,
        };
        put(&mut out, units(record.lsn, before));
        put(&mut out, units(record.end, record.lsn) << 1 | u64::from(path.is_some()));
        put(&mut out, units(record.lsn, record.prev));
        put(&mut out, u64::from(record.oid));
        if let Some(path) = path {
            put(&mut out, path.len() as u64);
            out.extend_from_slice(path);
        }
        before = record.lsn;
    }
    out
}

/// The list of a segment from `start` to `end`.
pub(super) fn decode(
    input: &mut Input<'_>,
    start: Lsn,
    end: Lsn,
) -> Result<Vec<TablespaceRecord>, IndexError> {
    // Four numbers of at least a byte each.
    let count = input.count(4)?;
    let mut list: Vec<TablespaceRecord> = Vec::with_capacity(count);
    let mut before = start;
    for row in 0..count {
        let lsn = within(input, before, end)?;
        if row > 0 && lsn == before {
            return damaged("a list is not in WAL order");
        }
        let length_and_kind = input.number()?;
        let record_end = after(lsn, length_and_kind >> 1, end)?;
        let back = input.number()?.checked_mul(ALIGNMENT);
        let Some(prev) = back.and_then(|back| lsn.as_u64().checked_sub(back)) else {
            return damaged("a record in it points back to before the beginning of the WAL");
        };
        let oid = input.number_u32()?;
        let change = if length_and_kind & 1 == 0 {
            TablespaceChange::Dropped
        } else {
            let len = input.count(1)?;
            if len >= MAX_PATH {
                return damaged("a tablespace's path is too long");
            }
            TablespaceChange::Created { path: input.bytes(len)?.to_vec() }
        };
        list.push(TablespaceRecord { lsn, end: record_end, prev: Lsn::new(prev), oid, change });
        before = lsn;
    }
    Ok(list)
}
