//! Page headers (`XLogPageHeaderData`, `XLogLongPageHeaderData` in `access/xlog_internal.h`).
//!
//! The header is 24 bytes: magic u16, flags u16, timeline u32, the page's own address u64, and how many bytes of a
//! record that began on an earlier page follow (u32), padded. A segment's first page has 16 more: system identifier u64,
//! segment size u32, page size u32.

use crate::lsn::Lsn;
use crate::segment::WalSegmentSize;
use crate::timeline::TimelineId;

use super::WalError;
use super::version::PgMajor;

/// Length of the header of every page but a segment's first.
pub const SHORT_HEADER: usize = 24;
/// Length of the header of a segment's first page.
pub const LONG_HEADER: usize = 40;

/// The page begins with the rest of a record.
const FIRST_IS_CONTRECORD: u16 = 0x0001;
/// The header is the long one.
const LONG: u16 = 0x0002;
/// The record that should continue here was given up in a crash; the page begins with a record that says so.
const FIRST_IS_OVERWRITE_CONTRECORD: u16 = 0x0008;
/// Every flag that PostgreSQL 14 to 18 know (`XLP_ALL_FLAGS`).
const ALL_FLAGS: u16 = 0x000F;

/// What a segment says about itself on its first page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The major version that wrote it.
    pub major: PgMajor,
    /// The timeline in the first page's header: the segment's own, or an ancestor's when the first pages were copied
    /// at a promotion.
    pub timeline: TimelineId,
    /// Where in the WAL the segment begins.
    pub page_addr: Lsn,
    /// The cluster that wrote it.
    pub system_identifier: u64,
    /// `wal_segment_size` of that cluster.
    pub segment_size: WalSegmentSize,
    /// `wal_block_size` of that cluster, bytes.
    pub block_size: u32,
    /// Bytes of a record from an earlier segment that continue here (and may continue beyond the end).
    pub carried_in_len: u32,
    /// The record that should continue here was given up in a crash.
    pub overwrites_contrecord: bool,
}

/// A page's header, checked for what can be seen in it alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageHeader {
    pub timeline: u32,
    pub continues: bool,
    pub overwrites: bool,
    pub long: bool,
    pub page_addr: u64,
    pub rem_len: u32,
}

impl PageHeader {
    /// Reads the 24 bytes that all pages begin with.
    pub(crate) fn parse(bytes: &[u8; SHORT_HEADER], magic: u16) -> Result<PageHeader, String> {
        let [m0, m1, i0, i1, t0, t1, t2, t3, a0, a1, a2, a3, a4, a5, a6, a7, r0, r1, r2, r3, ..] = *bytes;
        let found = u16::from_le_bytes([m0, m1]);
        if found != magic {
            return Err(if bytes.iter().all(|b| *b == 0) {
                "a page of zeros".into()
            } else {
                format!("page magic {found:04X} instead of {magic:04X}")
            });
        }
        let info = u16::from_le_bytes([i0, i1]);
        if info & !ALL_FLAGS != 0 {
            return Err(format!("page flags {info:04X}"));
        }
        Ok(PageHeader {
            timeline: u32::from_le_bytes([t0, t1, t2, t3]),
            continues: info & FIRST_IS_CONTRECORD != 0,
            overwrites: info & FIRST_IS_OVERWRITE_CONTRECORD != 0,
            long: info & LONG != 0,
            page_addr: u64::from_le_bytes([a0, a1, a2, a3, a4, a5, a6, a7]),
            rem_len: u32::from_le_bytes([r0, r1, r2, r3]),
        })
    }
}

/// Reads the header of a segment's first page. `bytes` may be longer, and need not hold the whole segment.
///
/// # Errors
/// [`WalError::TooShort`], [`WalError::UnknownMagic`], and [`WalError::Header`] for what PostgreSQL would refuse too.
pub fn read_segment_header(bytes: &[u8]) -> Result<SegmentHeader, WalError> {
    let header: &[u8; LONG_HEADER] = bytes.first_chunk().ok_or(WalError::TooShort { len: bytes.len() })?;
    let (short, rest) =
        header.split_first_chunk::<SHORT_HEADER>().ok_or(WalError::TooShort { len: bytes.len() })?;
    let [m0, m1, ..] = *short;
    let magic = u16::from_le_bytes([m0, m1]);
    let major = PgMajor::from_page_magic(magic).ok_or(WalError::UnknownMagic { magic })?;
    let wrong = |reason: String| WalError::Header { reason };
    let page = PageHeader::parse(short, magic).map_err(wrong)?;
    if !page.long {
        return Err(wrong("it is not the header of a segment's first page".into()));
    }
    let &[s0, s1, s2, s3, s4, s5, s6, s7, g0, g1, g2, g3, b0, b1, b2, b3] = rest else {
        return Err(WalError::TooShort { len: bytes.len() });
    };
    let system_identifier = u64::from_le_bytes([s0, s1, s2, s3, s4, s5, s6, s7]);
    let segment_bytes = u32::from_le_bytes([g0, g1, g2, g3]);
    let block_size = u32::from_le_bytes([b0, b1, b2, b3]);
    let segment_size = WalSegmentSize::try_from(segment_bytes).map_err(|error| wrong(error.to_string()))?;
    if !block_size.is_power_of_two() || !(1024..=65536).contains(&block_size) {
        return Err(wrong(format!("{block_size} bytes is not a possible wal_block_size")));
    }
    if page.page_addr % segment_size.bytes() != 0
        || page.page_addr.checked_add(segment_size.bytes()).is_none()
    {
        return Err(wrong(format!("no segment begins at {}", Lsn::new(page.page_addr))));
    }
    let timeline = TimelineId::new(page.timeline).ok_or_else(|| wrong("timeline 0".into()))?;
    if page.continues != (page.rem_len != 0) || (page.continues && page.overwrites) {
        return Err(wrong("its flags and its length of a continued record contradict each other".into()));
    }
    Ok(SegmentHeader {
        major,
        timeline,
        page_addr: Lsn::new(page.page_addr),
        system_identifier,
        segment_size,
        block_size,
        carried_in_len: page.rem_len,
        overwrites_contrecord: page.overwrites,
    })
}
