//! Storing a segment, and deciding what it means that something is there already (I2).

use highwater_pitr::scan::{ChainEnd, is_strict_prefix, scan_segment};
use highwater_pitr::segment::{SegmentName, WalFile};

use super::get::{Present, read_present};
use super::{Content, PreparedSegment, WalBytes, WalGetError, WalPutError, get, parts};
use crate::names;
use crate::racing::Published;
use crate::repository::lineage::Lineage;
use crate::seal::Codec;
use crate::store::Created;

/// The content is in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// This call stored it.
    New,
    /// It was there.
    Same,
    /// It is kept beside another end of the same WAL, of which one is the beginning of the other: to be reported.
    Variant {
        /// What lies under the name itself.
        beside: Content,
        /// What was stored.
        variant: Content,
    },
}

/// Prepares a segment and stores it. The CPU work is done where this is polled; a caller that has many segments prepares
/// them on threads of its own and uses [`put_prepared`].
///
/// # Errors
/// [`WalPutError`]. After any error the segment must not be acknowledged.
pub async fn put_segment(
    lineage: &Lineage,
    segment: SegmentName,
    bytes: impl Into<WalBytes>,
    codec: Codec,
) -> Result<Stored, WalPutError> {
    put_prepared(lineage, &PreparedSegment::new(lineage, WalFile::Segment(segment), bytes, codec)?).await
}

/// The same for a `.partial`: the end of a timeline, whose chain may stop anywhere.
///
/// # Errors
/// [`WalPutError`].
pub async fn put_partial(
    lineage: &Lineage,
    segment: SegmentName,
    bytes: impl Into<WalBytes>,
    codec: Codec,
) -> Result<Stored, WalPutError> {
    put_prepared(lineage, &PreparedSegment::new(lineage, WalFile::Partial(segment), bytes, codec)?).await
}

/// Stores what was prepared.
///
/// # Errors
/// [`WalPutError::BrokenChain`], [`WalPutError::Conflict`], [`WalPutError::Unreadable`], [`WalPutError::Lineage`].
pub async fn put_prepared(lineage: &Lineage, prepared: &PreparedSegment) -> Result<Stored, WalPutError> {
    lineage.repository().require_writer().map_err(crate::repository::lineage::LineageError::from)?;
    if prepared.is_refused() {
        return match read_theirs(lineage, prepared).await? {
            Some(theirs) => beside(lineage, prepared, theirs).await,
            None => Err(broken(prepared)),
        };
    }
    let sealed = match &prepared.sealed {
        Some(sealed) => sealed.clone(),
        None => {
            // Parts are many requests: look first. What is read may be in the memory of this host only: it was published by a
            // writer that was killed before the fsync of its directory, or whose fsync failed. No create answers for it here.
            if let Some(name) = lineage.find(&prepared.path).await?
                && let Some(theirs) = read_theirs(lineage, prepared).await?
            {
                lineage.confirm(&name).await?;
                return compare(lineage, prepared, theirs).await;
            }
            vec![parts::put_parts(lineage, prepared, &prepared.name).await?]
        }
    };
    match lineage.publish(&prepared.path, &prepared.name, sealed).await? {
        Published::New => Ok(Stored::New),
        Published::Exists(_) => match read_theirs(lineage, prepared).await? {
            Some(theirs) => compare(lineage, prepared, theirs).await,
            None => Err(vanished(prepared)),
        },
    }
}

/// The authenticated header of what lies under the name.
async fn read_theirs(lineage: &Lineage, prepared: &PreparedSegment) -> Result<Option<Present>, WalPutError> {
    read_present(lineage, &prepared.path)
        .await
        .map_err(|source| WalPutError::Unreadable { file: prepared.file, source: Box::new(source) })
}

async fn compare(
    lineage: &Lineage,
    prepared: &PreparedSegment,
    theirs: Present,
) -> Result<Stored, WalPutError> {
    if theirs.content.digest != prepared.content.digest {
        return beside(lineage, prepared, theirs).await;
    }
    // The header says what was stored, not what is left of it: a copy that was cut, or a disk that rots, leaves headers whole. All
    // of it is read, because PostgreSQL lets its own copy go once it is told that this one is there.
    confirm(prepared, &prepared.path, get::read_whole(lineage, prepared.segment, &prepared.path).await)?;
    Ok(Stored::Same)
}

/// Whether what was read at `path`, to its last byte, is what was prepared.
fn confirm(
    prepared: &PreparedSegment,
    path: &str,
    read: Result<Option<Vec<u8>>, WalGetError>,
) -> Result<(), WalPutError> {
    let unreadable = |source| WalPutError::Unreadable { file: prepared.file, source: Box::new(source) };
    if read.map_err(unreadable)?.ok_or_else(|| vanished(prepared))? == *prepared.canonical {
        return Ok(());
    }
    let reason = "its header has the digest of other bytes".to_owned();
    Err(unreadable(WalGetError::NotTheWal { path: path.to_owned(), reason }))
}

/// Another content lies under the name. When one is a strict valid beginning of the other, both are kept: what is there
/// stays, for nothing is ever overwritten, and this one gets a name of its own.
async fn beside(
    lineage: &Lineage,
    prepared: &PreparedSegment,
    theirs: Present,
) -> Result<Stored, WalPutError> {
    let conflict =
        || WalPutError::Conflict { file: prepared.file, ours: prepared.content, theirs: theirs.content };
    let unreadable = |source| WalPutError::Unreadable { file: prepared.file, source: Box::new(source) };
    let bytes = get::read_whole(lineage, prepared.segment, &prepared.path).await.map_err(unreadable)?;
    let bytes = bytes.ok_or_else(|| vanished(prepared))?;
    let scan = scan_segment(&bytes, prepared.segment)
        .map_err(|source| WalPutError::NotWal { file: prepared.file, source })?;
    let ours_is_shorter = is_strict_prefix(&prepared.canonical, &prepared.scan, &bytes, &scan);
    // Only a `.partial` can be there and be the shorter one: no broken chain ever gets a segment's name.
    let theirs_is_shorter = is_strict_prefix(&bytes, &scan, &prepared.canonical, &prepared.scan)
        && matches!(prepared.file, WalFile::Partial(_));
    if !ours_is_shorter && !theirs_is_shorter {
        return Err(conflict());
    }
    let path = names::wal_variant(prepared.segment, prepared.content.digest.short());
    let sealed = if prepared.in_parts() {
        vec![parts::put_parts(lineage, prepared, &path).await?]
    } else {
        prepared.seal_as(lineage, &path)?
    };
    if lineage.create_sealed(&path, sealed).await? == Created::Exists {
        // An earlier attempt's, by its name; believed when all of it is there.
        confirm(prepared, &path, get::read_whole_at(lineage, prepared.segment, &path).await)?;
    }
    Ok(Stored::Variant { beside: theirs.content, variant: prepared.content })
}

fn broken(prepared: &PreparedSegment) -> WalPutError {
    let (at, reason) = match &prepared.scan.end {
        ChainEnd::Broken { at, reason } => (*at, reason.clone()),
        ChainEnd::Full | ChainEnd::Switch => (prepared.scan.index.end, String::new()),
    };
    WalPutError::BrokenChain { segment: prepared.segment, at, reason, valid_len: prepared.content.valid_len }
}

/// The store said that the object exists, and then that it does not.
fn vanished(prepared: &PreparedSegment) -> WalPutError {
    let reason = "it exists when written and not when read".to_owned();
    let source = Box::new(WalGetError::NotTheWal { path: prepared.path.clone(), reason });
    WalPutError::Unreadable { file: prepared.file, source }
}
