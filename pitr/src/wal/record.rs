//! The header of a WAL record (`XLogRecord` in `access/xlogrecord.h`), and its CRC.
//!
//! 24 bytes: total length u32, xid u32, start of the record before it u64, info u8, resource manager u8, two bytes
//! of padding, CRC-32C u32. The CRC covers first what follows the header, then the header's first 20 bytes.

use crc_fast::{CrcAlgorithm, Digest};

use crate::lsn::Lsn;

use super::version::PgMajor;

/// Length of a record's header.
pub const HEADER: usize = 24;
/// How much of the header its CRC covers.
pub(crate) const CHECKED: usize = 20;
/// Records start at multiples of this (`MAXALIGN`).
pub const ALIGNMENT: u64 = 8;

/// PostgreSQL reads no record into more than one allocation, and refuses allocations of 1 GiB (`AllocSizeIsValid`).
const MAX_TOTAL_LEN: u32 = 0x3FFF_FFFF;
/// `RM_MAX_BUILTIN_ID`, the same from 14 to 18: logical messages.
const LAST_BUILTIN_RMGR: u8 = 21;
/// `RM_MIN_CUSTOM_ID`: resource managers of extensions, since 15.
const FIRST_CUSTOM_RMGR: u8 = 128;

/// `RM_XLOG_ID`: checkpoints, restore points, segment switches.
pub const RM_XLOG: u8 = 0;
/// `RM_XACT_ID`: commits and aborts.
pub const RM_XACT: u8 = 1;
/// `RM_TBLSPC_ID`: tablespaces made and dropped.
pub const RM_TBLSPC: u8 = 5;

/// `XLOG_SWITCH`.
const XLOG_SWITCH: u8 = 0x40;

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHeader {
    /// Length of the record, bytes, header included; page headers inside it are not counted.
    pub total_len: u32,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Start of the record before it.
    pub prev: Lsn,
    /// The kind of record in the high half, by resource manager.
    pub info: u8,
    /// The resource manager.
    pub rmid: u8,
    /// CRC-32C of body and header.
    pub crc: u32,
}

impl RecordHeader {
    /// Takes the 24 bytes apart; checks nothing.
    pub fn parse(bytes: &[u8; HEADER]) -> Self {
        let [
            l0,
            l1,
            l2,
            l3,
            x0,
            x1,
            x2,
            x3,
            p0,
            p1,
            p2,
            p3,
            p4,
            p5,
            p6,
            p7,
            info,
            rmid,
            _,
            _,
            c0,
            c1,
            c2,
            c3,
        ] = *bytes;
        RecordHeader {
            total_len: u32::from_le_bytes([l0, l1, l2, l3]),
            xid: u32::from_le_bytes([x0, x1, x2, x3]),
            prev: Lsn::new(u64::from_le_bytes([p0, p1, p2, p3, p4, p5, p6, p7])),
            info,
            rmid,
            crc: u32::from_le_bytes([c0, c1, c2, c3]),
        }
    }

    /// Whether the rest of the segment after this record is void.
    pub fn is_switch(&self) -> bool {
        self.rmid == RM_XLOG && self.info & 0xF0 == XLOG_SWITCH
    }

    /// What `ValidXLogRecordHeader` demands of the header alone.
    pub(crate) fn check(&self, major: PgMajor) -> Result<(), String> {
        let custom = self.rmid >= FIRST_CUSTOM_RMGR && major >= PgMajor::V15;
        if self.rmid > LAST_BUILTIN_RMGR && !custom {
            return Err(format!("resource manager {} does not exist", self.rmid));
        }
        Ok(())
    }
}

/// What is wrong with a record's length, if anything.
pub(crate) fn check_total_len(total_len: u32) -> Result<(), String> {
    if total_len == 0 {
        return Err("the records end here: what follows was never written".into());
    }
    if (total_len as usize) < HEADER || total_len > MAX_TOTAL_LEN {
        return Err(format!("{total_len} bytes is not the length of a record"));
    }
    Ok(())
}

/// CRC-32C in the making.
pub(crate) fn crc32c() -> Digest {
    Digest::new(CrcAlgorithm::Crc32Iscsi)
}

/// The 32 bits of a finished CRC-32C.
pub(crate) fn finish(digest: &Digest) -> u32 {
    // A 32-bit algorithm leaves the high half empty.
    digest.finalize() as u32
}

/// The CRC-32C of two stretches from the CRCs of both and the length of the second.
pub(crate) fn combine(first: u32, second: u32, second_len: u64) -> u32 {
    crc_fast::checksum_combine(CrcAlgorithm::Crc32Iscsi, u64::from(first), u64::from(second), second_len)
        as u32
}
