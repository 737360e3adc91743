//! Where a record's main data lies in its body.
//!
//! The body (what follows the record's header) begins with a row of fragment headers, and the data follow in the same
//! order, main data last: `access/xlogrecord.h`, and `DecodeXLogRecord` in `access/transam/xlogreader.c`.

use super::version::PgMajor;

const MAX_BLOCK: u8 = 32;
const TOP_LEVEL_XID: u8 = 252;
const ORIGIN: u8 = 253;
const MAIN_LONG: u8 = 254;
const MAIN_SHORT: u8 = 255;

const BLOCK_HAS_IMAGE: u8 = 0x10;
const BLOCK_SAME_RELATION: u8 = 0x80;
const IMAGE_HAS_HOLE: u8 = 0x01;

/// A record's main data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MainData<'a> {
    /// Its bytes, as far as they are known.
    pub bytes: &'a [u8],
    /// Whether these are all.
    pub complete: bool,
}

/// Reads what it can from the front of a slice.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn skip(&mut self, len: usize) -> Option<()> {
        self.0 = self.0.get(len..)?;
        Some(())
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.array().map(i64::from_le_bytes)
    }
}

/// Finds the main data of a record. `body` may be only the beginning of the body, whose whole length is `body_len` bytes; the
/// fragment headers must lie in it. A record without main data gives an empty slice.
///
/// # Errors
/// What does not fit, in words, where `DecodeXLogRecord` would refuse the record too.
pub fn main_data(body: &[u8], body_len: usize, major: PgMajor) -> Result<MainData<'_>, &'static str> {
    const CUT: &str = "the record's fragment headers are cut off";
    let mut cursor = Cursor(body);
    let mut data_len = 0usize;
    let mut main_len = 0usize;
    loop {
        // The headers end where exactly the announced data is left.
        let left = body_len.saturating_sub(body.len() - cursor.0.len());
        if left == data_len {
            break;
        }
        if left < data_len {
            return Err("the record announces more data than it holds");
        }
        match cursor.u8().ok_or(CUT)? {
            MAIN_SHORT => {
                main_len = usize::from(cursor.u8().ok_or(CUT)?);
                data_len += main_len;
                break;
            }
            MAIN_LONG => {
                main_len = cursor.u32().ok_or(CUT)? as usize;
                data_len =
                    data_len.checked_add(main_len).ok_or("the record announces more data than it holds")?;
                break;
            }
            ORIGIN => cursor.skip(2).ok_or(CUT)?,
            TOP_LEVEL_XID => cursor.skip(4).ok_or(CUT)?,
            block if block <= MAX_BLOCK => data_len += block_header(&mut cursor, major).ok_or(CUT)?,
            _ => return Err("the record has a fragment of unknown kind"),
        }
    }
    let headers_len = body.len() - cursor.0.len();
    if body_len.checked_sub(headers_len) != Some(data_len) {
        return Err("the record's length is not that of its parts");
    }
    let start = body_len.saturating_sub(main_len);
    let bytes = body.get(start..).unwrap_or_default();
    Ok(MainData { bytes, complete: bytes.len() == main_len })
}

/// Passes over a block reference; gives the length of its image and data.
fn block_header(cursor: &mut Cursor<'_>, major: PgMajor) -> Option<usize> {
    let flags = cursor.u8()?;
    let mut len = usize::from(cursor.u16()?);
    if flags & BLOCK_HAS_IMAGE != 0 {
        len += usize::from(cursor.u16()?);
        cursor.skip(2)?;
        let info = cursor.u8()?;
        let compressed = match major {
            PgMajor::V14 => 0x02,
            PgMajor::V15 | PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => 0x04 | 0x08 | 0x10,
        };
        if info & compressed != 0 && info & IMAGE_HAS_HOLE != 0 {
            cursor.skip(2)?;
        }
    }
    if flags & BLOCK_SAME_RELATION == 0 {
        cursor.skip(12)?;
    }
    cursor.skip(4)?;
    Some(len)
}
