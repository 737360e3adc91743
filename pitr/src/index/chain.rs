//! Joining the indexes of neighbouring segments.
//!
//! Indexes are pushed in WAL order. Where two segments meet, one record may cross; a large one crosses several seams and may
//! have whole segments to itself. The chain follows it: it adds up the CRCs of the parts (the CRC of two stretches follows
//! from the CRCs of both), and at its end compares with the CRC in the record's header. So every crossing record is proven
//! whole without its bytes, and only of records that belong in an index the bytes are kept to be decoded.
//!
//! Two segments join when they are neighbours of one cluster, the left one's chain reaches its end, the right one carries in
//! exactly what the left one leaves unfinished, and the first record of the right one points back at the last record of the
//! left one. Anything else is a [`Hole`].

use super::{
    CheckpointRecord, RestorePointRecord, SegmentIndex, TablespaceRecord, TransactionEnd, Unfinished,
};
use crate::lsn::Lsn;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::wal::event::{self, Event};
use crate::wal::record::{CHECKED, HEADER, RecordHeader, combine, crc32c, finish};
use crate::wal::version::PgMajor;

/// What came out where two segments meet: the record that crossed the seam, if one ended in the right one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seam {
    /// Start and end of the record that came in from before and ended in this segment.
    pub completed: Option<(Lsn, Lsn)>,
    /// That record, when it ends a transaction. It lies before everything the segment's own index lists.
    pub transaction: Option<TransactionEnd>,
    /// That record, when it is a restore point.
    pub restore_point: Option<RestorePointRecord>,
    /// That record, when it is a checkpoint.
    pub checkpoint: Option<CheckpointRecord>,
    /// That record, when it makes or drops a tablespace.
    pub tablespace: Option<TablespaceRecord>,
    /// A record still continues beyond this segment.
    pub open: bool,
}

/// Two segments that do not join: what lies between them, or how they belong together, is not known.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the WAL does not continue from {left} to {right}: {reason}")]
pub struct Hole {
    /// The segment before the hole.
    pub left: SegmentName,
    /// The segment behind it.
    pub right: SegmentName,
    /// Why they do not join.
    pub reason: String,
}

impl Hole {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("choose a target before the hole, or a backup behind it; a new base backup closes it for the future".into())
    }
}

/// A row of joined segments.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    left: Option<Left>,
}

/// What the chain knows at its right end.
#[derive(Debug, Clone)]
struct Left {
    segment: SegmentName,
    segment_size: WalSegmentSize,
    system_identifier: u64,
    major: PgMajor,
    /// Nothing may follow: the segment's records stop before its end.
    stops_early: bool,
    /// Start and end of the last whole record.
    last: Option<(Lsn, Lsn)>,
    crossing: Crossing,
}

/// What is under way at the end of the chain.
#[derive(Debug, Clone)]
enum Crossing {
    /// No record.
    Nothing,
    /// The rest of a record that began before the chain: so many bytes are to come.
    Stranger(u64),
    /// A record that began in the chain.
    Record(Pending),
}

#[derive(Debug, Clone)]
struct Pending {
    start: Lsn,
    total_len: u32,
    /// How many of its bytes were seen.
    seen: u32,
    /// CRC-32C of those behind its header.
    crc: u32,
    /// The first of them.
    bytes: Vec<u8>,
    /// `bytes` are all that were seen.
    bytes_complete: bool,
}

impl Pending {
    fn new(record: &Unfinished) -> Self {
        Pending {
            start: record.start,
            total_len: record.total_len,
            seen: record.here,
            crc: record.crc,
            bytes: record.bytes.clone(),
            bytes_complete: record.bytes.len() == record.here as usize,
        }
    }

    fn left(&self) -> u32 {
        self.total_len.saturating_sub(self.seen)
    }

    /// Adds what lies in the next segment.
    fn add(&mut self, here: u32, crc: u32, bytes: &[u8]) -> Result<(), String> {
        // The rest of the header, if the seam cut it, is not part of the body's CRC.
        let header_rest = (HEADER as u32).saturating_sub(self.seen);
        let body_len = here.checked_sub(header_rest).ok_or("too little of a record's header lies in it")?;
        let mut body_crc = crc;
        if header_rest > 0 {
            let rest =
                bytes.get(..header_rest as usize).ok_or("the index does not hold a record's header")?;
            let mut digest = crc32c();
            digest.update(rest);
            // combine(a, b) is linear: taken with the whole, what the header's rest contributes cancels out.
            body_crc = combine(finish(&digest), crc, u64::from(body_len));
        }
        self.crc = combine(self.crc, body_crc, u64::from(body_len));
        if self.bytes_complete {
            self.bytes.extend_from_slice(bytes);
            self.bytes_complete = bytes.len() == here as usize;
        }
        self.seen = self.seen.saturating_add(here);
        Ok(())
    }

    /// The record's header and what is known of its body, if its CRC is right.
    fn complete(&self) -> Result<(RecordHeader, &[u8]), String> {
        let (head, body) =
            self.bytes.split_first_chunk::<HEADER>().ok_or("the index does not hold a record's header")?;
        let header = RecordHeader::parse(head);
        let mut digest = crc32c();
        digest.update(head.get(..CHECKED).unwrap_or_default());
        if combine(self.crc, finish(&digest), CHECKED as u64) != header.crc
            || header.total_len != self.total_len
        {
            return Err(format!("the record that crosses from {} has a wrong CRC", self.start));
        }
        Ok((header, body))
    }
}

impl Chain {
    /// A chain without a segment yet.
    pub fn new() -> Self {
        Chain::default()
    }

    /// Adds the next segment. The first one joins whatever came before.
    ///
    /// # Errors
    /// [`Hole`] when the segment does not continue the chain, or (even the first one) cannot be known. The chain then begins
    /// anew, behind the hole: with this segment, or with the next one when this one cannot be known.
    pub fn push(&mut self, index: &SegmentIndex) -> Result<Seam, Hole> {
        let before = self.left.take();
        let left = before.as_ref().map_or(index.segment, |left| left.segment);
        let hole = |reason: String| Hole { left, right: index.segment, reason };
        if let Some(lsn) = index.undecoded {
            return Err(hole(format!("the record at {lsn} could not be decoded")));
        }
        let mut next = Left {
            segment: index.segment,
            segment_size: index.segment_size,
            system_identifier: index.system_identifier,
            major: index.major,
            stops_early: index.stops_early,
            last: None,
            crossing: Crossing::Nothing,
        };
        let joined = match before {
            None => Ok(next.begin(index)),
            Some(left) => left.join(index, &mut next).map_err(hole),
        };
        if joined.is_err() {
            next.begin(index);
        }
        if let Some(lsn) = index.last_record {
            next.last = Some((lsn, index.end));
        }
        if let Some(record) = &index.unfinished {
            next.crossing = Crossing::Record(Pending::new(record));
        }
        let open = !matches!(next.crossing, Crossing::Nothing);
        self.left = Some(next);
        joined.map(|seam| Seam { open, ..seam })
    }

    /// Start of the last record known to be whole.
    pub fn last_record(&self) -> Option<Lsn> {
        self.left.as_ref()?.last.map(|(start, _)| start)
    }

    /// The position after that record.
    pub fn end(&self) -> Option<Lsn> {
        self.left.as_ref()?.last.map(|(_, end)| end)
    }
}

impl Left {
    /// The chain begins with this segment.
    fn begin(&mut self, index: &SegmentIndex) -> Seam {
        let carried = &index.carried_in;
        self.last = None;
        self.crossing = match carried.len.saturating_sub(carried.here) {
            0 => Crossing::Nothing,
            // Given up on a later page, or broken off: what follows it says so.
            _ if index.first_record.is_some() || index.stops_early => Crossing::Nothing,
            left => Crossing::Stranger(u64::from(left)),
        };
        Seam::default()
    }

    /// Joins `index` to this end of the chain; fills in what `next` knows of the crossing record.
    fn join(self, index: &SegmentIndex, next: &mut Left) -> Result<Seam, String> {
        if self.system_identifier != index.system_identifier {
            return Err("they are of different clusters".into());
        }
        if (self.segment_size, self.major) != (index.segment_size, index.major) {
            return Err("they were written by servers of different versions or segment sizes".into());
        }
        let size = self.segment_size;
        if self.segment.number(size).checked_add(1) != Some(index.segment.number(size)) {
            return Err("they are not neighbours".into());
        }
        if self.segment.timeline > index.segment.timeline {
            return Err("the second is of an older timeline".into());
        }
        if self.stops_early {
            return Err("the records of the first stop before its end".into());
        }
        next.last = self.last;
        let mut seam = Seam::default();
        let carried = &index.carried_in;
        match self.crossing {
            Crossing::Nothing if carried.len > 0 => {
                return Err("the second continues a record that the first does not hold".into());
            }
            Crossing::Nothing => {}
            Crossing::Stranger(_) | Crossing::Record(_) if carried.overwritten => {}
            Crossing::Stranger(left) => {
                if u64::from(carried.len) != left {
                    return Err(format!(
                        "of the record that crosses {left} bytes are to come, not {}",
                        carried.len
                    ));
                }
                next.begin(index);
            }
            Crossing::Record(mut pending) => {
                if carried.len != pending.left() {
                    return Err(format!(
                        "of the record that crosses {} bytes are to come, not {}",
                        pending.left(),
                        carried.len
                    ));
                }
                pending.add(carried.here, carried.crc, &carried.bytes)?;
                if pending.left() == 0 {
                    seam = completed(&pending, carried.end, &self.last, self.major)?;
                    next.last = seam.completed;
                } else if index.first_record.is_none() && !index.stops_early {
                    next.crossing = Crossing::Record(pending);
                }
            }
        }
        match (index.first_prev, next.last) {
            (Some(prev), Some((last, _))) if prev != last => Err(format!(
                "the first record of the second points back to {prev}, but the one before it starts at {last}"
            )),
            _ => Ok(seam),
        }
    }
}

/// What a record says that ended at `end`, and whether it is whole.
fn completed(pending: &Pending, end: Lsn, last: &Option<(Lsn, Lsn)>, major: PgMajor) -> Result<Seam, String> {
    let (header, body) = pending.complete()?;
    if let Some((last, _)) = last
        && header.prev != *last
    {
        return Err(format!(
            "the record that crosses points back to {}, but the one before it starts at {last}",
            header.prev
        ));
    }
    let mut seam = Seam { completed: Some((pending.start, end)), ..Seam::default() };
    match event::decode(&header, body, pending.start, end, major) {
        Ok(Some(Event::Transaction(transaction))) => seam.transaction = Some(transaction),
        Ok(Some(Event::RestorePoint(point))) => seam.restore_point = Some(point),
        Ok(Some(Event::Checkpoint(checkpoint))) => seam.checkpoint = Some(checkpoint),
        Ok(Some(Event::Tablespace(tablespace))) => seam.tablespace = Some(tablespace),
        Ok(None) => {}
        Err(reason) => {
            return Err(format!(
                "the record that crosses from {} cannot be decoded: {reason}",
                pending.start
            ));
        }
    }
    Ok(seam)
}

/// Joins two neighbours: completes the record that crosses the seam and checks that the right one continues the left one.
/// A record that crosses more than one seam needs a [`Chain`].
///
/// # Errors
/// [`Hole`] when they do not join.
pub fn join(left: &SegmentIndex, right: &SegmentIndex) -> Result<Seam, Hole> {
    let mut chain = Chain::new();
    chain.push(left)?;
    chain.push(right)
}

/// What crosses from `left` into `right`, as [`join`] says it: also where a record beside it could not be decoded.
///
/// # Errors
/// [`Hole`] when they do not join, or what crosses itself cannot be decoded.
pub fn crossing(left: &SegmentIndex, right: &SegmentIndex) -> Result<Seam, Hole> {
    let decoded = |index: &SegmentIndex| SegmentIndex { undecoded: None, ..index.clone() };
    join(&decoded(left), &decoded(right))
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
