//! One pass over a segment: how its chain of records ends (I2), and the index of what it says (I16).
//!
//! The same pass serves `archive-push`, which must know whether the segment may be stored under its name, and the index
//! that travels inside the stored object.

use crate::index::{Carried, DECODER, SegmentIndex, Unfinished, kept};
use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::wal::WalError;
use crate::wal::event::{self, Event};
use crate::wal::page::SegmentHeader;
use crate::wal::reader::{Crossing, Record, RecordReader, Stop};
use crate::wal::record::{HEADER, RM_TBLSPC};

/// What one pass over a segment found.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentScan {
    /// What the segment says about itself.
    pub header: SegmentHeader,
    /// How the chain of valid records ends.
    pub end: ChainEnd,
    /// Bytes of the segment up to where its valid records end: the whole length for [`ChainEnd::Full`], the end of
    /// the XLOG_SWITCH record for [`ChainEnd::Switch`], the end of the last whole record for [`ChainEnd::Broken`].
    pub valid_len: u64,
    /// What the records say.
    pub index: SegmentIndex,
}

/// How a segment's chain of valid records ends (I2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChainEnd {
    /// Valid up to the segment's last byte; the last record may continue in the next segment.
    Full,
    /// The last record is XLOG_SWITCH: what follows it means nothing.
    Switch,
    /// The chain stops before the segment's end, and not with XLOG_SWITCH.
    Broken {
        /// Where the first thing lies that is not valid.
        at: Lsn,
        /// What is wrong there.
        reason: String,
    },
}

/// Reads a whole segment once. What an earlier segment's record has left at its beginning cannot be checked here
/// (its header and CRC lie elsewhere): [`crate::index::Chain`] does, across the seam.
///
/// # Errors
/// [`WalError`] when the bytes are not a segment, not a whole one, or not the one that `name` says. A segment whose records
/// stop early is no error but [`ChainEnd::Broken`].
pub fn scan_segment(bytes: &[u8], name: SegmentName) -> Result<SegmentScan, WalError> {
    let mut reader = RecordReader::new(bytes, name)?;
    let header = reader.header().clone();
    let mut index = empty_index(&header, name);
    let mut scratch = Vec::new();
    while let Some(record) = reader.next_record() {
        note(&mut index, &record, &mut scratch);
    }
    let end = match reader.stop() {
        Some(Stop::Broken { at, reason }) => ChainEnd::Broken { at: *at, reason: reason.clone() },
        Some(Stop::Switch) => ChainEnd::Switch,
        Some(Stop::SegmentEnd) | None => ChainEnd::Full,
    };
    index.ended_by_switch = end == ChainEnd::Switch;
    index.stops_early = matches!(end, ChainEnd::Broken { .. });
    let valid_len = if end == ChainEnd::Full { bytes.len() } else { reader.valid_len() };
    carry(&mut index, &reader);
    Ok(SegmentScan { header, end, valid_len: valid_len as u64, index })
}

/// The first record of the tablespace manager that starts and ends in the segment and cannot be taken apart. An index says of one
/// record only that it is such a one, and not whose.
///
/// # Errors
/// [`WalError`], as of [`scan_segment`].
pub fn undecoded_tablespace(bytes: &[u8], name: SegmentName) -> Result<Option<Lsn>, WalError> {
    let mut reader = RecordReader::new(bytes, name)?;
    let major = reader.header().major;
    let mut scratch = Vec::new();
    while let Some(record) = reader.next_record() {
        if record.header.rmid == RM_TBLSPC
            && event::decode(&record.header, record.body(&mut scratch), record.lsn, record.end, major)
                .is_err()
        {
            return Ok(Some(record.lsn));
        }
    }
    Ok(None)
}

fn empty_index(header: &SegmentHeader, segment: SegmentName) -> SegmentIndex {
    SegmentIndex {
        decoder: DECODER,
        segment,
        segment_size: header.segment_size,
        block_size: header.block_size,
        major: header.major,
        system_identifier: header.system_identifier,
        first_record: None,
        first_prev: None,
        last_record: None,
        end: header.page_addr,
        ended_by_switch: false,
        stops_early: false,
        undecoded: None,
        carried_in: Carried::default(),
        unfinished: None,
        transactions: Vec::new(),
        restore_points: Vec::new(),
        checkpoints: Vec::new(),
        tablespaces: Vec::new(),
    }
}

/// Adds a whole record to the index. One that is valid by PostgreSQL's checks but that this decoder cannot take apart must not
/// stop the archiving of the segment: it only makes the index useless.
fn note(index: &mut SegmentIndex, record: &Record<'_>, scratch: &mut Vec<u8>) {
    if event::is_event(&record.header) {
        let body = record.body(scratch);
        match event::decode(&record.header, body, record.lsn, record.end, index.major) {
            Ok(Some(Event::Transaction(end))) => index.transactions.push(end),
            Ok(Some(Event::RestorePoint(point))) => index.restore_points.push(point),
            Ok(Some(Event::Checkpoint(checkpoint))) => index.checkpoints.push(checkpoint),
            Ok(Some(Event::Tablespace(tablespace))) => index.tablespaces.push(tablespace),
            Ok(None) => {}
            Err(_) => index.undecoded = index.undecoded.or(Some(record.lsn)),
        }
    }
    if index.first_record.is_none() {
        index.first_record = Some(record.lsn);
        index.first_prev = Some(record.header.prev);
    }
    index.last_record = Some(record.lsn);
    index.end = record.end;
}

/// Adds the records that cross the segment's beginning and end.
fn carry(index: &mut SegmentIndex, reader: &RecordReader<'_>) {
    let header = reader.header();
    let carried = reader.carried_in();
    let mut bytes = Vec::new();
    reader.pages().gather(crate::wal::page::LONG_HEADER, kept(carried.here) as usize, &mut bytes);
    index.carried_in = Carried {
        len: header.carried_in_len,
        here: carried.here,
        end: header.page_addr.saturating_add(carried.end as u64),
        crc: carried.crc,
        bytes,
        overwritten: header.overwrites_contrecord,
    };
    if header.carried_in_len > 0 && carried.here == header.carried_in_len && index.last_record.is_none() {
        index.end = index.carried_in.end;
    }
    if let Some(crossing) = reader.crossing().filter(|_| !index.stops_early) {
        if index.first_record.is_none() {
            index.first_record = Some(crossing.lsn);
            index.first_prev = crossing.prev;
        }
        index.unfinished = Some(unfinished(&crossing, reader));
    }
}

fn unfinished(crossing: &Crossing, reader: &RecordReader<'_>) -> Unfinished {
    // Of a record that belongs in no list the CRC is enough, with the header it is compared to.
    let keep = match crossing.header {
        Some(header) if !event::is_event(&header) => HEADER as u32,
        _ => kept(crossing.here),
    };
    let mut bytes = Vec::new();
    reader.pages().gather(crossing.at, keep as usize, &mut bytes);
    Unfinished {
        start: crossing.lsn,
        total_len: crossing.total_len,
        here: crossing.here,
        crc: crossing.crc,
        bytes,
    }
}

/// Brings a segment into its canonical form (I2): what follows an XLOG_SWITCH record that ends a valid chain becomes zeros.
/// `scan` must be the scan of these bytes. Any other segment is canonical as it is.
pub fn canonicalise(bytes: &mut [u8], scan: &SegmentScan) {
    if scan.end == ChainEnd::Switch
        && let Ok(valid_len) = usize::try_from(scan.valid_len)
        && let Some(void) = bytes.get_mut(valid_len..)
    {
        void.fill(0);
    }
}

/// Whether the shorter segment's valid records are a proper beginning of the longer one's (I2): the same WAL, but one server
/// stopped writing it earlier, as happens around a promotion. Both scans must be those of the bytes beside them.
pub fn is_strict_prefix(
    shorter: &[u8],
    shorter_scan: &SegmentScan,
    longer: &[u8],
    longer_scan: &SegmentScan,
) -> bool {
    let (short, long) = (shorter_scan.valid_len, longer_scan.valid_len);
    let broken = matches!(shorter_scan.end, ChainEnd::Broken { .. });
    let Ok(len) = usize::try_from(short) else { return false };
    broken
        && short < long
        && len > 0
        && shorter.get(..len).is_some_and(|prefix| longer.get(..len) == Some(prefix))
}

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
