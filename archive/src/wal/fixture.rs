//! WAL as PostgreSQL would have written it, made here: pages, records, CRCs and prev-links that the scan believes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::timeline::TimelineId;

const PAGE: u64 = 8192;
const MAGIC_17: u16 = 0xD116;

/// Writes records one after the other into segments.
#[derive(Clone)]
pub(super) struct WalWriter {
    system_identifier: u64,
    timeline: u32,
    size: u64,
    lsn: u64,
    prev: u64,
    segments: BTreeMap<u64, Vec<u8>>,
}

impl WalWriter {
    /// Begins at the start of segment `number` of timeline 1.
    pub(super) fn new(system_identifier: u64, size: WalSegmentSize, number: u64) -> Self {
        let size = size.bytes();
        Self { system_identifier, timeline: 1, size, lsn: number * size, prev: 0, segments: BTreeMap::new() }
    }

    /// A record without meaning that is `len` bytes long on disk, headers of pages not counted.
    pub(super) fn noop(&mut self, len: usize, filler: u8) -> &mut Self {
        let data_len = len - 24 - 5;
        let mut body = vec![254];
        body.extend_from_slice(&(data_len as u32).to_le_bytes());
        body.extend((0..data_len).map(|at| filler.wrapping_add((at % 61) as u8)));
        self.record(0, 0x20, 0, &body)
    }

    /// A commit of `xid` at `time` microseconds.
    pub(super) fn commit(&mut self, xid: u32, time: i64) -> &mut Self {
        let mut body = vec![255, 8];
        body.extend_from_slice(&time.to_le_bytes());
        self.record(1, 0x00, xid, &body)
    }

    /// CREATE TABLESPACE.
    pub(super) fn tablespace(&mut self, oid: u32, path: &str) -> &mut Self {
        let mut body = vec![255, 4 + path.len() as u8 + 1];
        body.extend_from_slice(&oid.to_le_bytes());
        body.extend_from_slice(path.as_bytes());
        body.push(0);
        self.record(5, 0x00, 700, &body)
    }

    /// A record of the resource manager `rmid` that is valid and too short to be taken apart.
    pub(super) fn strange(&mut self, rmid: u8) -> &mut Self {
        self.record(rmid, 0x00, 700, &[255, 2, 1, 1])
    }

    /// Records without meaning, until `left` bytes are left in the segment.
    pub(super) fn leave(&mut self, left: u64) -> &mut Self {
        while self.size - self.lsn % self.size > PAGE {
            self.noop((self.size - self.lsn % self.size - PAGE).clamp(64, 50_000) as usize, 3);
        }
        let free = self.size - self.lsn % self.size;
        self.noop((free - left) as usize, 3)
    }

    /// XLOG_SWITCH; the next record begins in the next segment.
    pub(super) fn switch(&mut self) -> &mut Self {
        self.record(0, 0x40, 0, &[]);
        self.lsn = self.lsn.next_multiple_of(self.size);
        self
    }

    /// Fills the rest of the current segment, and a little of the next.
    pub(super) fn fill(&mut self, filler: u8) -> &mut Self {
        let number = self.lsn / self.size;
        while self.lsn / self.size == number {
            self.noop(50_000, filler);
        }
        self
    }

    /// The position after what was written.
    pub(super) fn lsn(&self) -> u64 {
        self.lsn
    }

    /// The segment `number` as it stands; what was not written is zeros.
    pub(super) fn segment(&self, number: u64) -> (SegmentName, Vec<u8>) {
        let size = WalSegmentSize::try_from(self.size as u32).unwrap();
        let name = SegmentName::from_number(TimelineId::new(self.timeline).unwrap(), number, size);
        assert_eq!(name.start(size), Lsn::new(number * self.size));
        (name, self.segments[&number].clone())
    }

    fn record(&mut self, rmid: u8, info: u8, xid: u32, body: &[u8]) -> &mut Self {
        let total = 24 + body.len() as u32;
        let mut header = Vec::new();
        header.extend_from_slice(&total.to_le_bytes());
        header.extend_from_slice(&xid.to_le_bytes());
        header.extend_from_slice(&self.prev.to_le_bytes());
        header.extend_from_slice(&[info, rmid, 0, 0]);
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(body);
        digest.update(&header);
        header.extend_from_slice(&(digest.finalize() as u32).to_le_bytes());
        header.extend_from_slice(body);

        self.lsn = self.lsn.next_multiple_of(8);
        if self.lsn.is_multiple_of(PAGE) {
            self.page_header(0);
        }
        self.prev = self.lsn;
        let mut rest = header.as_slice();
        while !rest.is_empty() {
            if self.lsn.is_multiple_of(PAGE) {
                self.page_header(rest.len() as u32);
            }
            let room = (PAGE - self.lsn % PAGE) as usize;
            let (now, later) = rest.split_at(rest.len().min(room));
            self.put(now);
            rest = later;
        }
        self.lsn = self.lsn.next_multiple_of(8);
        self
    }

    fn page_header(&mut self, remaining: u32) {
        let long = self.lsn.is_multiple_of(self.size);
        let flags = u16::from(remaining > 0) | if long { 2 } else { 0 };
        let mut header = Vec::new();
        header.extend_from_slice(&MAGIC_17.to_le_bytes());
        header.extend_from_slice(&flags.to_le_bytes());
        header.extend_from_slice(&self.timeline.to_le_bytes());
        header.extend_from_slice(&self.lsn.to_le_bytes());
        header.extend_from_slice(&remaining.to_le_bytes());
        header.extend_from_slice(&[0; 4]);
        if long {
            header.extend_from_slice(&self.system_identifier.to_le_bytes());
            header.extend_from_slice(&(self.size as u32).to_le_bytes());
            header.extend_from_slice(&(PAGE as u32).to_le_bytes());
        }
        self.put(&header);
    }

    fn put(&mut self, bytes: &[u8]) {
        let size = self.size as usize;
        let segment = self.segments.entry(self.lsn / self.size).or_insert_with(|| vec![0; size]);
        let at = (self.lsn % self.size) as usize;
        segment[at..at + bytes.len()].copy_from_slice(bytes);
        self.lsn += bytes.len() as u64;
    }
}
