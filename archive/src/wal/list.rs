//! What WAL the archive holds, by its names alone.

use std::collections::BTreeMap;

use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::TimelineId;

use super::WalGetError;
use crate::names::{self, WalEntry};
use crate::repository::lineage::{Lineage, LineageError};
use crate::seal::HEADER_LEN;
use crate::store::ListEntry;

/// All that lies in the directory of a timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TimelineListing {
    /// Whole segments in WAL order.
    pub segments: Vec<SegmentName>,
    /// `.partial` files.
    pub partials: Vec<SegmentName>,
    /// `.backup` files: the segment and the offset in it.
    pub backups: Vec<(SegmentName, u32)>,
    /// Segments beside which another valid end is kept; one entry for each.
    pub variants: Vec<SegmentName>,
    /// Names for which two writers stored different contents (I4): paths below the lineage.
    pub conflicts: Vec<String>,
    /// Segments that are shorter than any object: their paths below the lineage, and how many bytes are left. They are not among
    /// `segments`.
    pub cut: Vec<(String, u64)>,
    /// Bytes of everything.
    pub stored_len: u64,
}

/// Lists the directory of a timeline.
///
/// # Errors
/// [`WalGetError::Lineage`].
pub async fn list_timeline(lineage: &Lineage, timeline: TimelineId) -> Result<TimelineListing, WalGetError> {
    let mut listing = TimelineListing::default();
    let mut contents: BTreeMap<String, u32> = BTreeMap::new();
    for entry in lineage.list(&format!("{}/", names::wal_dir(timeline))).await? {
        listing.stored_len += entry.size;
        let Some(parsed) = WalEntry::parse(&entry.path, lineage.name_mode()) else { continue };
        if let WalEntry::File(file, Some(_)) = parsed {
            let count = contents.entry(names::wal_object(&file)).or_default();
            *count += 1;
            if *count > 1 {
                continue;
            }
        }
        if matches!(parsed, WalEntry::File(WalFile::Segment(_), _)) && entry.size < HEADER_LEN as u64 {
            listing.cut.push((entry.path, entry.size));
            continue;
        }
        note(&mut listing, parsed);
    }
    listing.conflicts = contents.into_iter().filter(|(_, count)| *count > 1).map(|(path, _)| path).collect();
    listing.segments.sort_unstable();
    Ok(listing)
}

fn note(listing: &mut TimelineListing, parsed: WalEntry) {
    match parsed {
        WalEntry::File(WalFile::Segment(segment), _) => listing.segments.push(segment),
        WalEntry::File(WalFile::Partial(segment), _) => listing.partials.push(segment),
        WalEntry::File(WalFile::Backup { segment, offset }, _) => listing.backups.push((segment, offset)),
        WalEntry::Variant(segment, _) => listing.variants.push(segment),
        WalEntry::File(WalFile::History(_), _) | WalEntry::Claim(..) | WalEntry::Part(..) => {}
    }
}

/// The whole segments of a timeline, in WAL order.
///
/// # Errors
/// [`WalGetError::Lineage`], also when two contents stand for one name.
pub async fn list_segments(lineage: &Lineage, timeline: TimelineId) -> Result<Vec<SegmentName>, WalGetError> {
    let listing = list_timeline(lineage, timeline).await?;
    if let Some(path) = listing.conflicts.first() {
        // Looked at closely it is an error that names both.
        lineage.find(path).await?;
    }
    Ok(listing.segments)
}

/// The timelines that have WAL in the archive, sorted.
///
/// # Errors
/// [`WalGetError::Lineage`].
pub async fn list_timelines(lineage: &Lineage) -> Result<Vec<TimelineId>, WalGetError> {
    let listing =
        lineage.store().list_dir(&lineage.full_path(names::WAL)).await.map_err(LineageError::from)?;
    let parse = |path: &String| {
        let name = path.rsplit('/').next()?;
        let timeline = TimelineId::new(u32::from_str_radix(name, 16).ok()?)?;
        (timeline.hex() == name).then_some(timeline)
    };
    let mut timelines: Vec<_> = listing.directories.iter().filter_map(parse).collect();
    timelines.sort_unstable();
    Ok(timelines)
}

/// The timelines whose history file is in the archive, sorted.
///
/// # Errors
/// [`WalGetError::Lineage`].
pub async fn list_histories(lineage: &Lineage) -> Result<Vec<TimelineId>, WalGetError> {
    let listing =
        lineage.store().list_dir(&lineage.full_path(names::WAL)).await.map_err(LineageError::from)?;
    let below = lineage.full_path("");
    let parse = |entry: &ListEntry| {
        let path = entry.path.strip_prefix(&below)?;
        match WalEntry::parse(path, lineage.name_mode())? {
            WalEntry::File(WalFile::History(timeline), _) => Some(timeline),
            _ => None,
        }
    };
    let mut timelines: Vec<_> = listing.objects.iter().filter_map(parse).collect();
    timelines.sort_unstable();
    timelines.dedup();
    Ok(timelines)
}
