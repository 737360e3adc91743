//! A segment's bytes as pages, and the records that the ends of pages cut.

use crate::lsn::Lsn;

use super::page::SHORT_HEADER;
use super::record::{HEADER, RecordHeader};

/// A record's header, gathered from pieces.
#[derive(Default)]
pub(crate) struct GatheredHeader {
    bytes: [u8; HEADER],
    len: usize,
}

impl GatheredHeader {
    /// Takes what is still missing from the front of `piece`; returns the rest.
    pub(crate) fn take<'p>(&mut self, piece: &'p [u8]) -> &'p [u8] {
        let Some(room) = self.bytes.get_mut(self.len..) else { return piece };
        let (mine, rest) = piece.split_at_checked(room.len()).unwrap_or((piece, &[]));
        for (to, from) in room.iter_mut().zip(mine) {
            *to = *from;
        }
        self.len += mine.len();
        rest
    }

    pub(crate) fn whole(&self) -> Option<&[u8; HEADER]> {
        (self.len == HEADER).then_some(&self.bytes)
    }

    pub(crate) fn prev(&self) -> Option<Lsn> {
        (self.len >= 16).then(|| RecordHeader::parse(&self.bytes).prev)
    }
}

/// The segment as pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pages<'a> {
    pub bytes: &'a [u8],
    /// Bytes in a page; a power of two, at least 1024.
    pub page: usize,
}

impl<'a> Pages<'a> {
    pub(crate) fn u32_at(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..)?.first_chunk().map(|bytes| u32::from_le_bytes(*bytes))
    }

    /// `len` bytes from offset `at`, when no page ends between them.
    pub(crate) fn within_page(&self, at: usize, len: usize) -> Option<&'a [u8]> {
        let in_page = self.page - (at & (self.page - 1));
        if len > in_page { None } else { self.bytes.get(at..at + len) }
    }

    /// Appends `len` bytes of a record from offset `at` to `out`, leaving out page headers; fewer at the segment's end.
    pub(crate) fn gather(&self, mut at: usize, len: usize, out: &mut Vec<u8>) {
        let mut left = len;
        while left > 0 {
            if at.is_multiple_of(self.page) {
                at += SHORT_HEADER;
            }
            let take = left.min(self.page - at % self.page);
            let Some(piece) = self.bytes.get(at..at + take) else { return };
            out.extend_from_slice(piece);
            at += take;
            left -= take;
        }
    }
}
