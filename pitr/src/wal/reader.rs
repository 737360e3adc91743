//! The records of one segment, one after the other, each held to what PostgreSQL demands of it.
//!
//! The reader stands at a byte of the segment. At the beginning of a page it checks the page's header: magic, own address,
//! timeline never decreasing and never above the segment's, and that it announces a continued record exactly when one is
//! under way, with the length that is still to come. Everywhere else a record begins. Most records lie within their
//! page: their CRC is computed where they lie, and nothing is copied. A record that crosses pages is checked piece by
//! piece, its header gathered when the page's end cuts it. The first record's prev-link can only be required to point
//! backwards; each later one must point at the record before it.
//!
//! A page may say that the record that should continue on it was given up in a crash
//! (`XLP_FIRST_IS_OVERWRITE_CONTRECORD`): then the record under way is dropped as if it had never begun, and the chain
//! goes on from the last whole record, as in `XLogDecodeNextRecord`.

use crate::lsn::Lsn;
use crate::segment::SegmentName;

use super::WalError;
use super::page::{LONG_HEADER, PageHeader, SHORT_HEADER, SegmentHeader, read_segment_header};
use super::pages::{GatheredHeader, Pages};
use super::record::{ALIGNMENT, CHECKED, HEADER, RecordHeader, check_total_len, crc32c, finish};

/// A whole, valid record.
#[derive(Debug, Clone, Copy)]
pub struct Record<'a> {
    /// Where it starts.
    pub lsn: Lsn,
    /// The position after it, rounded up to 8; after XLOG_SWITCH the segment's end.
    pub end: Lsn,
    /// Its header.
    pub header: RecordHeader,
    pages: Pages<'a>,
    /// Offset of its first byte in the segment.
    at: usize,
}

impl<'a> Record<'a> {
    /// What follows the header. Borrowed from the segment when the record lies within a page, else put together in
    /// `scratch`.
    pub fn body<'s>(&self, scratch: &'s mut Vec<u8>) -> &'s [u8]
    where
        'a: 's,
    {
        let len = self.header.total_len as usize;
        if let Some(record) = self.pages.within_page(self.at, len) {
            return record.get(HEADER..).unwrap_or_default();
        }
        scratch.clear();
        self.pages.gather(self.at, len, scratch);
        scratch.get(HEADER..).unwrap_or_default()
    }
}

/// Where the reader stopped, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// At the end of the segment.
    SegmentEnd,
    /// Behind an XLOG_SWITCH record.
    Switch,
    /// Before something that is not valid.
    Broken {
        /// Where it lies.
        at: Lsn,
        /// What is wrong with it.
        reason: String,
    },
}

/// What lies in the segment of a record that started in an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct CarriedIn {
    /// How many of its bytes lie here.
    pub here: u32,
    /// CRC-32C of those.
    pub crc: u32,
    /// Offset after the last of them, rounded up to 8.
    pub end: usize,
}

/// The record that starts in the segment and continues beyond its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Crossing {
    /// Offset of its first byte.
    pub at: usize,
    pub lsn: Lsn,
    pub total_len: u32,
    /// How many of its bytes lie here.
    pub here: u32,
    /// CRC-32C of those behind its header.
    pub crc: u32,
    /// Its header, when all of it lies here.
    pub header: Option<RecordHeader>,
    /// Its prev-link, when that lies here.
    pub prev: Option<Lsn>,
}

/// Walks the records of one segment.
#[derive(Debug)]
pub struct RecordReader<'a> {
    pages: Pages<'a>,
    header: SegmentHeader,
    name: SegmentName,
    /// Offset of the next byte to read. At a page's beginning its header has not been read yet.
    at: usize,
    /// The timeline of the page read last.
    page_timeline: u32,
    /// Start of the last whole record.
    prev: Option<Lsn>,
    /// Offset after the last whole record, or the carried-in one.
    valid_to: usize,
    carried: CarriedIn,
    crossing: Option<Crossing>,
    stop: Option<Stop>,
}

/// Something invalid: where, and what.
type Break = (usize, String);

/// How a record that was begun goes on.
enum Walked {
    /// It ended; offset after its last byte.
    Whole(usize),
    /// The segment ended first.
    SegmentEnd,
    /// The page at this offset (behind its header) says that it was given up.
    GivenUp(usize),
}

impl<'a> RecordReader<'a> {
    /// A reader before the first record of the segment `name`, whose whole content is `bytes`. What a record from an
    /// earlier segment has left here is passed over.
    ///
    /// # Errors
    /// [`WalError`] when the bytes are not a segment, not a whole one, or not the one that `name` says.
    pub fn new(bytes: &'a [u8], name: SegmentName) -> Result<Self, WalError> {
        let header = read_segment_header(bytes)?;
        let size = header.segment_size;
        if bytes.len() as u64 != size.bytes() {
            return Err(WalError::Length { len: bytes.len(), expected: size.bytes() });
        }
        if !name.is_possible(size) {
            return Err(WalError::Name { name, size });
        }
        if header.page_addr != name.start(size) {
            return Err(WalError::Misplaced { name, found: header.page_addr, expected: name.start(size) });
        }
        if header.timeline > name.timeline {
            return Err(WalError::Timeline { name, found: header.timeline });
        }
        let pages = Pages { bytes, page: header.block_size as usize };
        let page_timeline = header.timeline.get();
        let mut reader = RecordReader {
            pages,
            header,
            name,
            at: LONG_HEADER,
            page_timeline,
            prev: None,
            valid_to: 0,
            carried: CarriedIn { end: LONG_HEADER, ..CarriedIn::default() },
            crossing: None,
            stop: None,
        };
        if reader.header.carried_in_len > 0 {
            reader.pass_carried_in();
        }
        Ok(reader)
    }

    /// What the segment says about itself.
    pub fn header(&self) -> &SegmentHeader {
        &self.header
    }

    /// Why there are no more records; `None` while there may be.
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Offset after the last whole record, or the carried-in one when no other ended yet.
    pub fn valid_len(&self) -> usize {
        self.valid_to
    }

    pub(crate) fn carried_in(&self) -> CarriedIn {
        self.carried
    }

    pub(crate) fn crossing(&self) -> Option<Crossing> {
        self.crossing
    }

    pub(crate) fn pages(&self) -> Pages<'a> {
        self.pages
    }

    /// The next whole record; `None` when [`RecordReader::stop`] says why there is none.
    pub fn next_record(&mut self) -> Option<Record<'a>> {
        while self.stop.is_none() {
            match self.step() {
                Ok(Some(record)) => return Some(record),
                Ok(None) => {}
                Err((at, reason)) => self.stop = Some(Stop::Broken { at: self.lsn(at), reason }),
            }
        }
        None
    }

    fn lsn(&self, offset: usize) -> Lsn {
        self.header.page_addr.saturating_add(offset as u64)
    }

    /// Reads one record, or what stands where one would be. `None` when there is none here, but may be further on.
    fn step(&mut self) -> Result<Option<Record<'a>>, Break> {
        if self.at >= self.pages.bytes.len() {
            self.stop = Some(Stop::SegmentEnd);
            return Ok(None);
        }
        if self.at.is_multiple_of(self.pages.page) {
            let page = self.page_header(self.at)?;
            if page.continues || page.rem_len != 0 {
                return Err((self.at, "the page continues a record, but none is under way".into()));
            }
            self.at += SHORT_HEADER;
        }
        let at = self.at;
        // Positions are multiples of 8 and so are pages: at least 8 bytes are left in this one.
        let total_len = self.pages.u32_at(at).ok_or((at, "no room for a record".to_string()))?;
        check_total_len(total_len).map_err(|reason| (at, reason))?;
        if let Some(bytes) = self.pages.within_page(at, total_len as usize)
            && let Some((head, body)) = bytes.split_first_chunk::<HEADER>()
        {
            let header = RecordHeader::parse(head);
            self.check_header(at, &header)?;
            let mut digest = crc32c();
            digest.update(body);
            check_crc(at, digest, head, header.crc)?;
            return Ok(Some(self.accept(at, header, at + bytes.len())));
        }
        self.crossing_record(at, total_len)
    }

    /// A record that the end of its page cuts.
    fn crossing_record(&mut self, at: usize, total_len: u32) -> Result<Option<Record<'a>>, Break> {
        let mut gathered = GatheredHeader::default();
        let mut digest = crc32c();
        let mut here = 0u32;
        let mut pieces = |piece: &[u8]| {
            here += piece.len() as u32;
            digest.update(gathered.take(piece));
        };
        let walked = self.walk(at, total_len, &mut pieces)?;
        let header = gathered.whole().map(RecordHeader::parse);
        match (walked, gathered.whole()) {
            (Walked::Whole(end), Some(head)) => {
                let header = RecordHeader::parse(head);
                self.check_header(at, &header)?;
                check_crc(at, digest, head, header.crc)?;
                Ok(Some(self.accept(at, header, end)))
            }
            (Walked::Whole(_), None) => Err((at, "a record shorter than its header".into())),
            (Walked::GivenUp(next), _) => {
                self.at = next;
                Ok(None)
            }
            (Walked::SegmentEnd, _) => {
                let prev = gathered.prev();
                if let Some(header) = &header {
                    self.check_header(at, header)?;
                } else if let Some(prev) = prev {
                    self.check_prev(at, prev)?;
                }
                let lsn = self.lsn(at);
                self.crossing =
                    Some(Crossing { at, lsn, total_len, here, crc: finish(&digest), header, prev });
                self.stop = Some(Stop::SegmentEnd);
                Ok(None)
            }
        }
    }

    /// Passes over what a record from an earlier segment has left here.
    fn pass_carried_in(&mut self) {
        let mut digest = crc32c();
        let mut here = 0u32;
        let mut pieces = |piece: &[u8]| {
            here += piece.len() as u32;
            digest.update(piece);
        };
        let walked = self.walk(self.at, self.header.carried_in_len, &mut pieces);
        self.carried = CarriedIn { here, crc: finish(&digest), end: self.at };
        match walked {
            Ok(Walked::Whole(end)) => {
                self.at = align(end);
                self.carried.end = self.at;
                self.valid_to = self.at;
            }
            Ok(Walked::SegmentEnd) => {
                self.carried.end = self.pages.bytes.len();
                self.stop = Some(Stop::SegmentEnd);
            }
            Ok(Walked::GivenUp(next)) => {
                self.at = next;
                self.carried.end = next;
            }
            Err((at, reason)) => {
                self.carried.end = at;
                self.valid_to = at;
                self.stop = Some(Stop::Broken { at: self.lsn(at), reason });
            }
        }
    }

    /// Follows `len` bytes of a record from offset `at` over the pages, checking their headers.
    fn walk(&mut self, mut at: usize, len: u32, piece: &mut impl FnMut(&[u8])) -> Result<Walked, Break> {
        let mut left = len;
        loop {
            let in_page = self.pages.page - at % self.pages.page;
            let take = in_page.min(left as usize);
            piece(
                self.pages
                    .bytes
                    .get(at..at + take)
                    .ok_or((at, "the segment ends inside a page".to_string()))?,
            );
            at += take;
            left -= take as u32; // take <= left
            if left == 0 {
                return Ok(Walked::Whole(at));
            }
            if at >= self.pages.bytes.len() {
                return Ok(Walked::SegmentEnd);
            }
            let page = self.page_header(at)?;
            if page.overwrites {
                return Ok(Walked::GivenUp(at + SHORT_HEADER));
            }
            if !page.continues || page.rem_len != left {
                return Err((
                    at,
                    format!(
                        "the page continues {} bytes of a record of which {left} are to come",
                        page.rem_len
                    ),
                ));
            }
            at += SHORT_HEADER;
        }
    }

    /// The header of the page at offset `at`, which is not the first, as `XLogReaderValidatePageHeader` demands it.
    fn page_header(&mut self, at: usize) -> Result<PageHeader, Break> {
        let bytes = self.pages.bytes.get(at..).and_then(|rest| rest.first_chunk());
        let bytes = bytes.ok_or((at, "the segment ends inside a page header".to_string()))?;
        let page = PageHeader::parse(bytes, self.header.major.page_magic()).map_err(|reason| (at, reason))?;
        let expected = self.lsn(at).as_u64();
        if page.page_addr != expected {
            return Err((
                at,
                format!("the page belongs to {}: an earlier use of the file", Lsn::new(page.page_addr)),
            ));
        }
        if page.long {
            return Err((at, "a segment's header in the middle of a segment".into()));
        }
        if page.timeline < self.page_timeline || page.timeline > self.name.timeline.get() {
            let known = self.page_timeline;
            return Err((at, format!("a page of timeline {} behind one of timeline {known}", page.timeline)));
        }
        self.page_timeline = page.timeline;
        Ok(page)
    }

    fn check_header(&self, at: usize, header: &RecordHeader) -> Result<(), Break> {
        header.check(self.header.major).map_err(|reason| (at, reason))?;
        self.check_prev(at, header.prev)
    }

    fn check_prev(&self, at: usize, prev: Lsn) -> Result<(), Break> {
        match self.prev {
            Some(expected) if prev != expected => Err((
                at,
                format!(
                    "the record says that the one before it starts at {prev}, but that starts at {expected}"
                ),
            )),
            None if prev >= self.lsn(at) => {
                Err((at, format!("the record says that the one before it starts at {prev}, behind it")))
            }
            _ => Ok(()),
        }
    }

    /// Takes a record that has passed every check; `end` is the offset after its last byte.
    fn accept(&mut self, at: usize, header: RecordHeader, end: usize) -> Record<'a> {
        let lsn = self.lsn(at);
        self.at = align(end);
        self.valid_to = self.at;
        self.prev = Some(lsn);
        let mut end = self.lsn(self.at);
        if header.is_switch() {
            end = self.name.end(self.header.segment_size);
            self.stop = Some(Stop::Switch);
        }
        Record { lsn, end, header, pages: self.pages, at }
    }
}

fn align(offset: usize) -> usize {
    offset.next_multiple_of(ALIGNMENT as usize)
}

fn check_crc(
    at: usize,
    mut digest: crc_fast::Digest,
    head: &[u8; HEADER],
    expected: u32,
) -> Result<(), Break> {
    digest.update(head.get(..CHECKED).unwrap_or_default());
    let found = finish(&digest);
    if found == expected {
        Ok(())
    } else {
        Err((at, format!("the record's CRC is {found:08X}, not {expected:08X} as it says")))
    }
}
