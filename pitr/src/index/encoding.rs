//! The index as bytes: `docs/format.md`, "The WAL index".
//!
//! The decoder's version, then sections: an id, a length, a payload. Ids ascend. Sections below [`FIRST_OPTIONAL`] must be
//! known to be read; those from it on may be passed over, so that later versions can add what old readers can do without.
//! Lists of transactions are stored by column: each column is nearly constant from row to row, so that the seal's
//! compression takes most of it away.

use super::varint::{Input, put, put_signed};
use super::{
    Carried, CheckpointRecord, DECODER, IndexError, KEPT_WHOLE, RestorePointRecord, SegmentIndex,
    TransactionEnd, TransactionKind, Unfinished, tablespaces,
};
use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::time::PgTime;
use crate::timeline::TimelineId;
use crate::wal::record::ALIGNMENT;
use crate::wal::version::PgMajor;

const FACTS: u8 = 1;
const TRANSACTIONS: u8 = 2;
const RESTORE_POINTS: u8 = 3;
const CHECKPOINTS: u8 = 4;
const CARRIED_IN: u8 = 5;
const UNFINISHED: u8 = 6;
const TABLESPACES: u8 = 7;
/// Sections with this id or a higher one may be passed over by readers that do not know them.
const FIRST_OPTIONAL: u8 = 64;

const HAS_FIRST: u8 = 0x01;
const HAS_FIRST_PREV: u8 = 0x02;
const HAS_LAST: u8 = 0x04;
const SWITCH: u8 = 0x08;
const STOPS_EARLY: u8 = 0x10;
const HAS_UNDECODED: u8 = 0x20;
const ALL_FLAGS: u8 = 0x3F;

/// `MAXFNAMELEN` bytes, of which each may have become a replacement character of three.
const MAX_NAME: usize = 64 * 3;

pub(super) fn damaged<T>(reason: &'static str) -> Result<T, IndexError> {
    Err(IndexError::Damaged { reason })
}

pub(super) fn encode(index: &SegmentIndex) -> Vec<u8> {
    let start = index.segment.start(index.segment_size);
    let mut out = Vec::with_capacity(256 + index.transactions.len() * 6);
    out.extend_from_slice(&index.decoder.to_le_bytes());
    section(&mut out, FACTS, &facts(index, start));
    if !index.transactions.is_empty() {
        section(&mut out, TRANSACTIONS, &transactions(&index.transactions, start));
    }
    if !index.restore_points.is_empty() {
        section(&mut out, RESTORE_POINTS, &restore_points(&index.restore_points, start));
    }
    if !index.checkpoints.is_empty() {
        section(&mut out, CHECKPOINTS, &checkpoints(&index.checkpoints, start));
    }
    section(&mut out, CARRIED_IN, &carried_in(&index.carried_in, start));
    if let Some(record) = &index.unfinished {
        section(&mut out, UNFINISHED, &unfinished(record, start));
    }
    if !index.tablespaces.is_empty() {
        section(&mut out, TABLESPACES, &tablespaces::encode(&index.tablespaces, start));
    }
    out
}

fn section(out: &mut Vec<u8>, id: u8, payload: &[u8]) {
    out.push(id);
    put(out, payload.len() as u64);
    out.extend_from_slice(payload);
}

/// Positions of records are multiples of 8: their distance from `base` in units of 8.
pub(super) fn units(lsn: Lsn, base: Lsn) -> u64 {
    lsn.as_u64().saturating_sub(base.as_u64()) / ALIGNMENT
}

fn facts(index: &SegmentIndex, start: Lsn) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    put(&mut out, u64::from(index.major.number()));
    out.extend_from_slice(&index.system_identifier.to_le_bytes());
    out.push(index.segment_size.bytes().trailing_zeros() as u8); // at most 30
    out.push(index.block_size.trailing_zeros() as u8); // at most 32
    put(&mut out, u64::from(index.segment.timeline.get()));
    put(&mut out, index.segment.number(index.segment_size));
    let flags = [
        (index.first_record.is_some(), HAS_FIRST),
        (index.first_prev.is_some(), HAS_FIRST_PREV),
        (index.last_record.is_some(), HAS_LAST),
        (index.ended_by_switch, SWITCH),
        (index.stops_early, STOPS_EARLY),
        (index.undecoded.is_some(), HAS_UNDECODED),
    ];
    out.push(flags.iter().filter(|(set, _)| *set).map(|(_, flag)| flag).sum());
    for lsn in [index.first_record, index.last_record, index.undecoded].into_iter().flatten() {
        put(&mut out, units(lsn, start));
    }
    put(&mut out, units(index.end, start));
    if let Some(prev) = index.first_prev {
        put(&mut out, prev.as_u64());
    }
    out
}

fn transactions(list: &[TransactionEnd], start: Lsn) -> Vec<u8> {
    let mut out = Vec::with_capacity(list.len() * 6);
    put(&mut out, list.len() as u64);
    let mut before = start;
    for end in list {
        put(&mut out, units(end.lsn, before));
        before = end.lsn;
    }
    for end in list {
        let kind = match end.kind {
            TransactionKind::Commit => 0,
            TransactionKind::Abort => 1,
            TransactionKind::CommitPrepared => 2,
            TransactionKind::AbortPrepared => 3,
        };
        put(&mut out, units(end.end, end.lsn) << 2 | kind);
    }
    let mut before = 0u32;
    for end in list {
        put_signed(&mut out, i64::from(end.xid.wrapping_sub(before) as i32)); // the shorter way around
        before = end.xid;
    }
    let mut before = 0i64;
    for end in list {
        put_signed(&mut out, end.time.postgres_micros().wrapping_sub(before));
        before = end.time.postgres_micros();
    }
    out
}

fn restore_points(list: &[RestorePointRecord], start: Lsn) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, list.len() as u64);
    let mut before = start;
    for point in list {
        put(&mut out, units(point.lsn, before));
        put(&mut out, units(point.end, point.lsn));
        put_signed(&mut out, point.time.postgres_micros());
        put(&mut out, point.name.len() as u64);
        out.extend_from_slice(point.name.as_bytes());
        before = point.lsn;
    }
    out
}

fn checkpoints(list: &[CheckpointRecord], start: Lsn) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, list.len() as u64);
    let mut before = start;
    for checkpoint in list {
        put(&mut out, units(checkpoint.lsn, before));
        put(&mut out, units(checkpoint.end, checkpoint.lsn) << 1 | u64::from(checkpoint.online));
        put(&mut out, checkpoint.redo.as_u64());
        put_signed(&mut out, checkpoint.time.postgres_micros());
        before = checkpoint.lsn;
    }
    out
}

fn carried_in(carried: &Carried, start: Lsn) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + carried.bytes.len());
    out.push(u8::from(carried.overwritten));
    put(&mut out, u64::from(carried.len));
    put(&mut out, u64::from(carried.here));
    put(&mut out, units(carried.end, start));
    out.extend_from_slice(&carried.crc.to_le_bytes());
    put(&mut out, carried.bytes.len() as u64);
    out.extend_from_slice(&carried.bytes);
    out
}

fn unfinished(record: &Unfinished, start: Lsn) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + record.bytes.len());
    put(&mut out, units(record.start, start));
    put(&mut out, u64::from(record.total_len));
    put(&mut out, u64::from(record.here));
    out.extend_from_slice(&record.crc.to_le_bytes());
    put(&mut out, record.bytes.len() as u64);
    out.extend_from_slice(&record.bytes);
    out
}

pub(super) fn decode(bytes: &[u8]) -> Result<SegmentIndex, IndexError> {
    let mut input = Input(bytes);
    let found = u16::from_le_bytes(input.array()?);
    // Versions found to have been wrong are taken out here.
    if found != DECODER {
        return Err(IndexError::UnknownDecoder { found });
    }
    let (FACTS, mut payload) = next_section(&mut input)? else {
        return damaged("it does not begin with the facts");
    };
    let mut reader = SegmentReader::facts(&mut payload)?;
    payload.end()?;
    let mut last = FACTS;
    while !input.0.is_empty() {
        let (id, mut payload) = next_section(&mut input)?;
        if id <= last {
            return damaged("its sections are out of order");
        }
        last = id;
        match id {
            TRANSACTIONS => reader.transactions(&mut payload)?,
            RESTORE_POINTS => reader.restore_points(&mut payload)?,
            CHECKPOINTS => reader.checkpoints(&mut payload)?,
            CARRIED_IN => reader.carried_in(&mut payload)?,
            UNFINISHED => reader.unfinished(&mut payload)?,
            TABLESPACES => {
                reader.index.tablespaces = tablespaces::decode(&mut payload, reader.start, reader.end)?;
            }
            FIRST_OPTIONAL.. => continue,
            _ => return damaged("it has a section that this program does not know"),
        }
        payload.end()?;
    }
    Ok(reader.index)
}

fn next_section<'a>(input: &mut Input<'a>) -> Result<(u8, Input<'a>), IndexError> {
    let [id] = input.array()?;
    let len = input.count(1)?;
    Ok((id, Input(input.bytes(len)?)))
}

/// Reads the sections of an index and holds every position to the segment it is in.
struct SegmentReader {
    index: SegmentIndex,
    start: Lsn,
    end: Lsn,
}

impl SegmentReader {
    fn facts(input: &mut Input<'_>) -> Result<Self, IndexError> {
        let Ok(major) = PgMajor::try_from(input.number_u32()?) else {
            return damaged("it is of a PostgreSQL major that this program does not know");
        };
        let system_identifier = u64::from_le_bytes(input.array()?);
        let [size, block] = input.array()?;
        let size = 1u32.checked_shl(size.into()).and_then(|bytes| WalSegmentSize::try_from(bytes).ok());
        let Some(segment_size) = size else { return damaged("its segment size is impossible") };
        let Some(block_size @ 1024..=65536) = 1u32.checked_shl(block.into()) else {
            return damaged("its page size is impossible");
        };
        let Some(timeline) = TimelineId::new(input.number_u32()?) else {
            return damaged("it is of timeline 0");
        };
        let number = input.number()?;
        let segment = SegmentName::from_number(timeline, number, segment_size);
        let start = segment.start(segment_size);
        let end = match start.checked_add(segment_size.bytes()) {
            Some(end) if segment.number(segment_size) == number => end,
            _ => return damaged("its segment lies beyond the end of the WAL"),
        };
        let [flags] = input.array()?;
        if flags & !ALL_FLAGS != 0 {
            return damaged("it has flags that this program does not know");
        }
        let mut position = |flag| -> Result<Option<Lsn>, IndexError> {
            if flags & flag == 0 { Ok(None) } else { within(input, start, end).map(Some) }
        };
        let (first_record, last_record, undecoded) =
            (position(HAS_FIRST)?, position(HAS_LAST)?, position(HAS_UNDECODED)?);
        let records_end = after(start, input.number()?, end)?;
        let first_prev = if flags & HAS_FIRST_PREV == 0 { None } else { Some(Lsn::new(input.number()?)) };
        let index = SegmentIndex {
            decoder: DECODER,
            segment,
            segment_size,
            block_size,
            major,
            system_identifier,
            first_record,
            first_prev,
            last_record,
            end: records_end,
            ended_by_switch: flags & SWITCH != 0,
            stops_early: flags & STOPS_EARLY != 0,
            undecoded,
            carried_in: Carried { end: start, ..Carried::default() },
            unfinished: None,
            transactions: Vec::new(),
            restore_points: Vec::new(),
            checkpoints: Vec::new(),
            tablespaces: Vec::new(),
        };
        Ok(SegmentReader { index, start, end })
    }

    fn transactions(&mut self, input: &mut Input<'_>) -> Result<(), IndexError> {
        // Four columns of at least a byte each.
        let count = input.count(4)?;
        let mut list = Vec::with_capacity(count);
        let mut lsn = self.start;
        for row in 0..count {
            lsn = self.next(input, lsn, row)?;
            let time = PgTime::from_postgres_micros(0);
            list.push(TransactionEnd { lsn, end: lsn, xid: 0, time, kind: TransactionKind::Commit });
        }
        for end in &mut list {
            let length_and_kind = input.number()?;
            end.end = after(end.lsn, length_and_kind >> 2, self.end)?;
            end.kind = match length_and_kind & 3 {
                0 => TransactionKind::Commit,
                1 => TransactionKind::Abort,
                2 => TransactionKind::CommitPrepared,
                _ => TransactionKind::AbortPrepared,
            };
        }
        let mut xid = 0u32;
        for end in &mut list {
            let Ok(step) = i32::try_from(input.signed()?) else {
                return damaged("a step between xids is too large");
            };
            xid = xid.wrapping_add_signed(step);
            end.xid = xid;
        }
        let mut time = 0i64;
        for end in &mut list {
            time = time.wrapping_add(input.signed()?);
            end.time = PgTime::from_postgres_micros(time);
        }
        self.index.transactions = list;
        Ok(())
    }

    fn restore_points(&mut self, input: &mut Input<'_>) -> Result<(), IndexError> {
        let count = input.count(4)?;
        let mut lsn = self.start;
        for row in 0..count {
            lsn = self.next(input, lsn, row)?;
            let end = after(lsn, input.number()?, self.end)?;
            let time = PgTime::from_postgres_micros(input.signed()?);
            let len = input.count(1)?;
            if len > MAX_NAME {
                return damaged("a restore point's name is too long");
            }
            let Ok(name) = std::str::from_utf8(input.bytes(len)?) else {
                return damaged("a restore point's name is not UTF-8");
            };
            self.index.restore_points.push(RestorePointRecord { lsn, end, name: name.into(), time });
        }
        Ok(())
    }

    fn checkpoints(&mut self, input: &mut Input<'_>) -> Result<(), IndexError> {
        let count = input.count(4)?;
        let mut lsn = self.start;
        for row in 0..count {
            lsn = self.next(input, lsn, row)?;
            let length_and_kind = input.number()?;
            let end = after(lsn, length_and_kind >> 1, self.end)?;
            let redo = Lsn::new(input.number()?);
            let time = PgTime::from_postgres_micros(input.signed()?);
            let online = length_and_kind & 1 == 1;
            self.index.checkpoints.push(CheckpointRecord { lsn, end, redo, time, online });
        }
        Ok(())
    }

    fn carried_in(&mut self, input: &mut Input<'_>) -> Result<(), IndexError> {
        let [overwritten] = input.array()?;
        if overwritten > 1 {
            return damaged("it has flags that this program does not know");
        }
        let (len, here) = (input.number_u32()?, input.number_u32()?);
        let end = after(self.start, input.number()?, self.end)?;
        let crc = u32::from_le_bytes(input.array()?);
        let bytes = self.kept_bytes(input, here)?;
        if here > len {
            return damaged("more of a record lies in the segment than the record has");
        }
        self.index.carried_in = Carried { len, here, end, crc, bytes, overwritten: overwritten == 1 };
        Ok(())
    }

    fn unfinished(&mut self, input: &mut Input<'_>) -> Result<(), IndexError> {
        let start = within(input, self.start, self.end)?;
        let (total_len, here) = (input.number_u32()?, input.number_u32()?);
        let crc = u32::from_le_bytes(input.array()?);
        let bytes = self.kept_bytes(input, here)?;
        if here >= total_len {
            return damaged("an unfinished record lies wholly in the segment");
        }
        self.index.unfinished = Some(Unfinished { start, total_len, here, crc, bytes });
        Ok(())
    }

    fn kept_bytes(&self, input: &mut Input<'_>, here: u32) -> Result<Vec<u8>, IndexError> {
        let len = input.count(1)?;
        if len > here.min(KEPT_WHOLE) as usize || u64::from(here) > self.index.segment_size.bytes() {
            return damaged("more of a record is kept than lies in the segment");
        }
        Ok(input.bytes(len)?.to_vec())
    }

    /// The position of a list's next row: behind the one before it, in this segment.
    fn next(&self, input: &mut Input<'_>, before: Lsn, row: usize) -> Result<Lsn, IndexError> {
        let lsn = within(input, before, self.end)?;
        if row > 0 && lsn == before { damaged("a list is not in WAL order") } else { Ok(lsn) }
    }
}

/// A position so many units behind `base`, before `end`.
pub(super) fn within(input: &mut Input<'_>, base: Lsn, end: Lsn) -> Result<Lsn, IndexError> {
    let lsn = after(base, input.number()?, end)?;
    if lsn < end { Ok(lsn) } else { damaged("a position in it lies outside its segment") }
}

/// The position `units` units behind `base`, at most `end`.
pub(super) fn after(base: Lsn, units: u64, end: Lsn) -> Result<Lsn, IndexError> {
    match units.checked_mul(ALIGNMENT).and_then(|bytes| base.checked_add(bytes)) {
        Some(lsn) if lsn <= end => Ok(lsn),
        _ => damaged("a position in it lies outside its segment"),
    }
}

#[cfg(test)]
#[path = "encoding_tests.rs"]
mod tests;
