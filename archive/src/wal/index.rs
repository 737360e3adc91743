//! The index of a stored segment (I16).

use highwater_pitr::index::{SegmentIndex, TablespaceRecord, join};
use highwater_pitr::scan::scan_segment;
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::TimelineId;

use super::get::{read_head, read_object};
use super::{WalGetError, get};
use crate::names;
use crate::repository::lineage::Lineage;

/// The index of a segment, by one ranged read of its object; `None` when the segment is proven absent.
///
/// One that this program cannot use (another decoder made it, or it was too long to travel along) is made again from the
/// whole segment.
///
/// # Errors
/// [`WalGetError`].
pub async fn read_index(
    lineage: &Lineage,
    segment: SegmentName,
) -> Result<Option<SegmentIndex>, WalGetError> {
    let file = WalFile::Segment(segment);
    let Some(name) = lineage.find(&names::wal_object(&file)).await? else { return Ok(None) };
    let Some(head) = read_head(lineage, &name).await? else { return Ok(None) };
    let wrong = |reason: String| WalGetError::NotTheWal { path: name.clone(), reason };
    let decoded = head.attachment.and_then(|bytes| SegmentIndex::decode(&bytes).ok());
    let index = match decoded {
        Some(index) => index,
        None => {
            let Some(bytes) = get(lineage, &file).await? else { return Ok(None) };
            scan_segment(&bytes, segment).map_err(|error| wrong(error.to_string()))?.index
        }
    };
    checked(lineage, segment, index).map(Some).map_err(wrong)
}

/// A whole segment with its index, by one read of its object; `None` when the segment is proven absent.
///
/// # Errors
/// [`WalGetError`].
pub async fn get_indexed(
    lineage: &Lineage,
    segment: SegmentName,
) -> Result<Option<(Vec<u8>, SegmentIndex)>, WalGetError> {
    let Some(name) = lineage.find(&names::wal_object(&WalFile::Segment(segment))).await? else {
        return Ok(None);
    };
    let Some((bytes, attachment)) = read_object(lineage, segment, &name, true).await? else {
        return Ok(None);
    };
    let wrong = |reason: String| WalGetError::NotTheWal { path: name.clone(), reason };
    let index = match attachment.and_then(|attachment| SegmentIndex::decode(&attachment).ok()) {
        Some(index) => index,
        None => scan_segment(&bytes, segment).map_err(|error| wrong(error.to_string()))?.index,
    };
    let index = checked(lineage, segment, index).map_err(wrong)?;
    Ok(Some((bytes, index)))
}

/// The tablespaces made or dropped by records that end in the segment of `index`: one that its beginning cuts belongs to the
/// segment before, whose index is read only where the bytes carried in may be such a record's. `None` when it then is not
/// to be had.
///
/// # Errors
/// [`WalGetError`].
pub async fn tablespaces_ending_in(
    lineage: &Lineage,
    index: &SegmentIndex,
) -> Result<Option<Vec<TablespaceRecord>>, WalGetError> {
    let own = index.tablespaces.iter().cloned();
    if !index.carried_in.may_end_a_tablespace() {
        return Ok(Some(own.collect()));
    }
    let Some(number) = index.segment.number(index.segment_size).checked_sub(1) else { return Ok(None) };
    // The one before may lie on an older timeline; only the one that joins is it.
    for timeline in (1..=index.segment.timeline.get()).rev().filter_map(TimelineId::new) {
        let name = SegmentName::from_number(timeline, number, index.segment_size);
        if let Some(left) = read_index(lineage, name).await?
            && let Ok(seam) = join(&left, index)
        {
            return Ok(Some(seam.tablespace.into_iter().chain(own).collect()));
        }
    }
    Ok(None)
}

/// The index, if it is of this segment.
fn checked(lineage: &Lineage, segment: SegmentName, index: SegmentIndex) -> Result<SegmentIndex, String> {
    if index.segment != segment || index.system_identifier != lineage.record().system_identifier {
        return Err(format!("its index is of {}", index.segment));
    }
    Ok(index)
}
