//! The index of a stored segment (I16).

use highwater_pitr::index::{SegmentIndex, crossing};
use highwater_pitr::scan::scan_segment;
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::TimelineId;

use super::get::{read_head, read_object};
use super::{WalGetError, get};
use crate::names;
use crate::repository::lineage::{Lineage, LineageError};

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

/// The index of the segment that the one of `index` continues, whatever timeline it lies on; `None` when there is none here, or
/// what is here is damaged: then another place may have it.
///
/// # Errors
/// [`WalGetError`] when the store cannot say.
pub async fn read_index_before(
    lineage: &Lineage,
    index: &SegmentIndex,
) -> Result<Option<SegmentIndex>, WalGetError> {
    for name in names_before(index) {
        match read_index(lineage, name).await {
            Ok(Some(left)) if crossing(&left, index).is_ok() => return Ok(Some(left)),
            Err(error @ WalGetError::Lineage(LineageError::Store(_))) => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(None)
}

/// The names that the segment before the one of `index` may have: its own timeline's first, then those of older ones.
pub fn names_before(index: &SegmentIndex) -> impl Iterator<Item = SegmentName> {
    let (segment, size) = (index.segment, index.segment_size);
    let timelines = (1..=segment.timeline.get()).rev().filter_map(TimelineId::new);
    let number = segment.number(size).checked_sub(1);
    timelines.filter_map(move |timeline| Some(SegmentName::from_number(timeline, number?, size)))
}

/// The index, if it is of this segment.
fn checked(lineage: &Lineage, segment: SegmentName, index: SegmentIndex) -> Result<SegmentIndex, String> {
    if index.segment != segment || index.system_identifier != lineage.record().system_identifier {
        return Err(format!("its index is of {}", index.segment));
    }
    Ok(index)
}
