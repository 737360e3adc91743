//! WAL made by hand, for tests: any version, page size and segment size, and every way to break it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::page::{LONG_HEADER, SHORT_HEADER};
use super::record::{CHECKED, HEADER, crc32c, finish};
use super::version::PgMajor;
use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::timeline::TimelineId;

pub(crate) const SYSTEM: u64 = 0x6B8B_4567_327B_23C6;
const FIRST_SEGMENT: u64 = 3;

/// Writes records as PostgreSQL lays them out.
pub(crate) struct Writer {
    pub major: PgMajor,
    pub timeline: u32,
    pub size: WalSegmentSize,
    page: usize,
    data: Vec<u8>,
    pub prev: u64,
}

impl Writer {
    pub fn new(major: PgMajor, segment_mib: u32, page: usize) -> Self {
        let size = WalSegmentSize::try_from(segment_mib << 20).unwrap();
        let prev = FIRST_SEGMENT * size.bytes() - 64;
        Writer { major, timeline: 1, size, page, data: Vec::new(), prev }
    }

    pub fn base(&self) -> u64 {
        FIRST_SEGMENT * self.size.bytes()
    }

    pub fn position(&self) -> Lsn {
        Lsn::new(self.base() + self.data.len() as u64)
    }

    /// Bytes left in the segment for records.
    pub fn left(&mut self) -> usize {
        self.page_header(0, 0);
        self.size.bytes() as usize - self.data.len() % self.size.bytes() as usize
    }

    /// At a page's beginning, writes its header.
    pub fn page_header(&mut self, rem_len: u32, flags: u16) {
        if !self.data.len().is_multiple_of(self.page) {
            return;
        }
        let long = self.data.len().is_multiple_of(self.size.bytes() as usize);
        let info = flags | u16::from(rem_len > 0) | if long { 2 } else { 0 };
        let address = self.position().as_u64();
        self.data.extend_from_slice(&self.major.page_magic().to_le_bytes());
        self.data.extend_from_slice(&info.to_le_bytes());
        self.data.extend_from_slice(&self.timeline.to_le_bytes());
        self.data.extend_from_slice(&address.to_le_bytes());
        self.data.extend_from_slice(&rem_len.to_le_bytes());
        self.data.extend_from_slice(&[0; 4]);
        if long {
            self.data.extend_from_slice(&SYSTEM.to_le_bytes());
            self.data.extend_from_slice(&u32::from(self.size).to_le_bytes());
            self.data.extend_from_slice(&(self.page as u32).to_le_bytes());
        }
        assert!(self.data.len() % self.page == if long { LONG_HEADER } else { SHORT_HEADER });
    }

    /// Writes a record and gives its start and the position after it.
    pub fn record(&mut self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> (Lsn, Lsn) {
        self.page_header(0, 0);
        let start = self.position();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend_from_slice(&((HEADER + body.len()) as u32).to_le_bytes());
        bytes.extend_from_slice(&xid.to_le_bytes());
        bytes.extend_from_slice(&self.prev.to_le_bytes());
        bytes.extend_from_slice(&[info, rmid, 0, 0]);
        let mut crc = crc32c();
        crc.update(body);
        crc.update(&bytes[..CHECKED]);
        bytes.extend_from_slice(&finish(&crc).to_le_bytes());
        bytes.extend_from_slice(body);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            self.page_header(rest.len() as u32, 0);
            let take = rest.len().min(self.page - self.data.len() % self.page);
            self.data.extend_from_slice(&rest[..take]);
            rest = &rest[take..];
        }
        self.data.resize(self.data.len().next_multiple_of(8), 0);
        self.prev = start.as_u64();
        (start, self.position())
    }

    /// A record that says nothing of a moment (a heap insert) with a body of `len` bytes.
    pub fn filler(&mut self, len: usize) -> (Lsn, Lsn) {
        let mut body = main_data(&vec![0xAB; len.saturating_sub(5).max(256)]);
        body.truncate(len);
        self.record(10, 0, 700, &body)
    }

    /// Fills the segment until `left` bytes are left in it.
    pub fn fill_to(&mut self, left: usize) {
        loop {
            let now = self.left();
            let in_page = self.page - self.data.len() % self.page;
            match now {
                _ if now == left => return,
                _ if now <= in_page && now >= left + HEADER => {
                    self.filler(now - left - HEADER);
                    return;
                }
                // To the end of the page, so that the last one is met from its beginning; or past the segment's.
                _ if now > in_page => self.filler(in_page.max(HEADER) - HEADER),
                _ => self.filler(in_page + 64),
            };
        }
    }

    /// XLOG_SWITCH, and zeros to the segment's end.
    pub fn switch(&mut self) -> (Lsn, usize) {
        let (start, _) = self.record(0, 0x40, 0, &[]);
        let valid = self.data.len();
        self.data.resize(valid.next_multiple_of(self.size.bytes() as usize), 0);
        (start, valid)
    }

    /// Drops what was written from `at` on, as if it had never reached the disk.
    pub fn lose_from(&mut self, at: Lsn, prev: Lsn) {
        self.data.truncate((at.as_u64() - self.base()) as usize);
        self.prev = prev.as_u64();
    }

    /// The segments, the last one padded with zeros.
    pub fn segments(&self) -> Vec<(SegmentName, Vec<u8>)> {
        let timeline = TimelineId::new(self.timeline).unwrap();
        let size = self.size.bytes() as usize;
        let named = self.data.chunks(size).enumerate().map(|(n, bytes)| {
            let mut bytes = bytes.to_vec();
            bytes.resize(size, 0);
            (SegmentName::from_number(timeline, FIRST_SEGMENT + n as u64, self.size), bytes)
        });
        named.collect()
    }
}

/// A body of nothing but main data.
pub(crate) fn main_data(data: &[u8]) -> Vec<u8> {
    let mut body = match u8::try_from(data.len()) {
        Ok(0) => return Vec::new(),
        Ok(len) => vec![255, len],
        Err(_) => [&[254][..], &(data.len() as u32).to_le_bytes()].concat(),
    };
    body.extend_from_slice(data);
    body
}

/// The main data of a commit or abort with every list that may stand in it.
pub(crate) fn transaction_end(
    major: PgMajor,
    commit: bool,
    time: i64,
    twophase: Option<u32>,
    items: u32,
) -> Vec<u8> {
    let mut data = time.to_le_bytes().to_vec();
    let stats = major >= PgMajor::V15;
    let mut bits = 0x01 | 0x02 | 0x04 | if stats { 0x100 } else { 0 } | if commit { 0x08 } else { 0 };
    bits |= if twophase.is_some() { 0x10 | 0x80 } else { 0 };
    data.extend_from_slice(&u32::to_le_bytes(bits));
    data.extend_from_slice(&[1; 8]);
    let mut list = |item: usize| {
        data.extend_from_slice(&items.to_le_bytes());
        data.extend(std::iter::repeat_n(0x77, item * items as usize));
    };
    list(4);
    list(12);
    if stats {
        list(if major == PgMajor::V18 { 16 } else { 12 });
    }
    if commit {
        list(16);
    }
    if let Some(xid) = twophase {
        data.extend_from_slice(&xid.to_le_bytes());
        data.extend_from_slice(b"a name\0");
    }
    data
}
