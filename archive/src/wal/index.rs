//! The index of a stored segment (I16).

use highwater_pitr::index::SegmentIndex;
use highwater_pitr::scan::scan_segment;
use highwater_pitr::segment::{SegmentName, WalFile};

use super::get::read_head;
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
    if index.segment != segment || index.system_identifier != lineage.record().system_identifier {
        return Err(wrong(format!("its index is of {}", index.segment)));
    }
    Ok(Some(index))
}
