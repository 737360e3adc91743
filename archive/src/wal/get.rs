//! Reading a WAL file back: under its name, with its digest, and of this lineage.

use bytes::Bytes;
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::wal::read_segment_header;

use super::{Content, WalGetError, parts};
use crate::names;
use crate::repository::lineage::Lineage;
use crate::seal::{self, Header, ObjectKind};

/// The first ranged read of a segment's object, in bytes: header and index of nearly all of them.
const HEAD_BYTES: u64 = 64 << 10;

/// An object under a name, as far as its authenticated header says.
#[derive(Debug)]
pub(super) struct Present {
    pub(super) content: Content,
}

/// Header and attachment of an object.
pub(super) struct Head {
    pub(super) header: Header,
    /// The plaintext of the attachment, if it has one.
    pub(super) attachment: Option<Vec<u8>>,
}

/// Reads a WAL file; `None` when the store proves that it is absent.
///
/// # Errors
/// [`WalGetError`]: it is there, or may be, and cannot be had. Never to be taken for absence.
pub async fn get(lineage: &Lineage, file: &WalFile) -> Result<Option<Vec<u8>>, WalGetError> {
    let path = names::wal_object(file);
    match file {
        WalFile::Segment(segment) | WalFile::Partial(segment) => read_whole(lineage, *segment, &path).await,
        WalFile::Backup { .. } | WalFile::History(_) => {
            Ok(lineage.read_racing(ObjectKind::SmallWal, &path).await?)
        }
    }
}

/// Reads the segment or `.partial` that lies at `path`, under whatever name.
pub(super) async fn read_whole(
    lineage: &Lineage,
    segment: SegmentName,
    path: &str,
) -> Result<Option<Vec<u8>>, WalGetError> {
    match lineage.find(path).await? {
        Some(name) => read_whole_at(lineage, segment, &name).await,
        None => Ok(None),
    }
}

/// The same of exactly the object `name`.
pub(super) async fn read_whole_at(
    lineage: &Lineage,
    segment: SegmentName,
    name: &str,
) -> Result<Option<Vec<u8>>, WalGetError> {
    Ok(read_object(lineage, segment, name, false).await?.map(|(plain, _)| plain))
}

/// The same with the object's attachment, if it has one and is asked for.
pub(super) async fn read_object(
    lineage: &Lineage,
    segment: SegmentName,
    name: &str,
    with_attachment: bool,
) -> Result<Option<(Vec<u8>, Option<Vec<u8>>)>, WalGetError> {
    let Some(sealed) = fetch(lineage.store().get(&lineage.full_path(name)).await)? else { return Ok(None) };
    let header = seal::read_header(lineage.keys(), name, &sealed)?;
    let object = lineage.object_name(segment_kind(&header), name);
    let opened = seal::open(lineage.keys(), &object, &sealed)?;
    let attachment = match with_attachment && header.attachment_len > 0 {
        true => Some(seal::open_attachment(lineage.keys(), &object, &sealed)?),
        false => None,
    };
    drop(sealed);
    let plain = match opened.header.kind {
        ObjectKind::SegmentCommit => {
            parts::get_parts(lineage, segment, name, &opened.plain, opened.header.digest).await?
        }
        _ => opened.plain,
    };
    check_content(lineage, segment, name, &plain)?;
    Ok(Some((plain, attachment)))
}

/// The authenticated header of what lies at `path`, under whatever name.
pub(super) async fn read_present(lineage: &Lineage, path: &str) -> Result<Option<Present>, WalGetError> {
    match lineage.find(path).await? {
        Some(name) => read_at(lineage, &name).await,
        None => Ok(None),
    }
}

/// The authenticated header of the object `name`. Its attachment is opened too, since that binds the header to the name.
async fn read_at(lineage: &Lineage, name: &str) -> Result<Option<Present>, WalGetError> {
    let Some(head) = read_head(lineage, name).await? else { return Ok(None) };
    match (head.header.digest, head.header.valid_len) {
        (Some(digest), Some(valid_len)) => Ok(Some(Present { content: Content { digest, valid_len } })),
        _ => Err(WalGetError::NotTheWal {
            path: name.to_owned(),
            reason: "its header holds no digest".to_owned(),
        }),
    }
}

/// Header and attachment of the segment's object `name`, by one ranged read, or two when the attachment is long.
pub(super) async fn read_head(lineage: &Lineage, name: &str) -> Result<Option<Head>, WalGetError> {
    let full_path = lineage.full_path(name);
    let range = |length: u64| lineage.store().get_range(&full_path, 0..length);
    let Some(mut bytes) = fetch(range(HEAD_BYTES).await)? else { return Ok(None) };
    let header = seal::read_header(lineage.keys(), name, &bytes)?;
    let end = seal::attachment_range(&header).end;
    if end > bytes.len() as u64 && bytes.len() as u64 == HEAD_BYTES {
        let Some(longer) = fetch(range(end).await)? else { return Ok(None) };
        bytes = longer;
    }
    let object = lineage.object_name(segment_kind(&header), name);
    let attachment = match header.attachment_len {
        0 => None,
        _ => Some(seal::open_attachment(lineage.keys(), &object, &bytes)?),
    };
    Ok(Some(Head { header, attachment }))
}

/// Proven absence is `None`.
fn fetch(answer: Result<Bytes, crate::store::StoreError>) -> Result<Option<Bytes>, WalGetError> {
    match answer {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(crate::repository::lineage::LineageError::from(error).into()),
    }
}

/// What an object under a segment's name may be; anything else is refused when it is opened as a segment.
fn segment_kind(header: &Header) -> ObjectKind {
    match header.kind {
        ObjectKind::SegmentCommit => ObjectKind::SegmentCommit,
        _ => ObjectKind::Segment,
    }
}

/// Holds the content against the name and the lineage: it is our own seal, and still it is what a server will replay.
fn check_content(
    lineage: &Lineage,
    segment: SegmentName,
    name: &str,
    plain: &[u8],
) -> Result<(), WalGetError> {
    let wrong = |reason: String| Err(WalGetError::NotTheWal { path: name.to_owned(), reason });
    let record = lineage.record();
    let header = match read_segment_header(plain) {
        Ok(header) => header,
        Err(error) => return wrong(error.to_string()),
    };
    let start = segment.start(record.wal_segment_bytes);
    if header.system_identifier != record.system_identifier {
        return wrong(format!(
            "it is WAL of the cluster with system identifier {}",
            header.system_identifier
        ));
    }
    if header.page_addr != start {
        return wrong(format!("it holds the WAL at {}, not at {start}", header.page_addr));
    }
    if plain.len() as u64 != record.wal_segment_bytes.bytes() {
        return wrong(format!("it holds {} bytes", plain.len()));
    }
    Ok(())
}
