//! Segments above 32 MiB: parts first, the commit object last (I21).

use bytes::Bytes;
use highwater_pitr::segment::SegmentName;
use serde::{Deserialize, Serialize};

use super::{PreparedSegment, WalGetError, WalPutError};
use crate::names;
use crate::repository::lineage::{Lineage, from_json, to_json};
use crate::seal::{self, Digest, HeaderExtra, ObjectKind};
use crate::store::Created;

/// The longest segment that is one object, in bytes.
pub const MAX_WHOLE_SEGMENT_BYTES: usize = 32 << 20;

/// The length of a part, in bytes.
pub const PART_BYTES: usize = 16 << 20;

/// The plaintext of a commit object.
#[derive(Debug, Serialize, Deserialize)]
struct Commit {
    length: u64,
    parts: Vec<Part>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Part {
    path: String,
    length: u64,
    digest: Digest,
}

/// Stores the parts of a segment and answers its commit object, sealed under `name`.
pub(super) async fn put_parts(
    lineage: &Lineage,
    prepared: &PreparedSegment,
    name: &str,
) -> Result<Bytes, WalPutError> {
    let mut parts = Vec::new();
    for (number, plain) in (0..).zip(prepared.canonical.chunks(PART_BYTES)) {
        let digest = lineage.keys().digest(plain);
        let path = names::wal_part(prepared.segment, number, digest.short());
        let object = lineage.object_name(ObjectKind::SegmentPart, &path);
        let sealed = seal::seal(lineage.keys(), &object, prepared.codec, plain, HeaderExtra::default())?;
        match lineage.create_sealed(&path, vec![sealed.into()]).await? {
            Created::New => {}
            // An earlier attempt's, or another writer's of the same content. Believed when it opens, since the name is ours
            // but the bytes are not.
            Created::Exists => {
                let present = read_part(lineage, &path, &digest).await;
                present.map_err(|source| WalPutError::Unreadable {
                    file: prepared.file,
                    source: Box::new(source),
                })?;
            }
        }
        parts.push(Part { path, length: plain.len() as u64, digest });
    }
    let commit = to_json(name, &Commit { length: prepared.canonical.len() as u64, parts })?;
    let object = lineage.object_name(ObjectKind::SegmentCommit, name);
    let extra = HeaderExtra {
        valid_len: Some(prepared.content.valid_len),
        attachment: prepared.index.as_deref(),
        digest: Some(prepared.content.digest),
    };
    Ok(seal::seal(lineage.keys(), &object, prepared.codec, &commit, extra)?.into())
}

/// Reads the segment whose commit object was opened: `commit` is its plaintext, `whole` the digest in its header.
pub(super) async fn get_parts(
    lineage: &Lineage,
    segment: SegmentName,
    path: &str,
    commit: &[u8],
    whole: Option<Digest>,
) -> Result<Vec<u8>, WalGetError> {
    let wrong = |reason: &str| WalGetError::NotTheWal { path: path.to_owned(), reason: reason.to_owned() };
    let commit: Commit = from_json(path, commit)?;
    let length = usize::try_from(commit.length).map_err(|_| wrong("its length is not one"))?;
    if commit.length != lineage.record().wal_segment_bytes.bytes() {
        return Err(wrong("it is not as long as a segment"));
    }
    let mut plain = Vec::with_capacity(length);
    for (number, part) in (0..).zip(&commit.parts) {
        if part.path != names::wal_part(segment, number, part.digest.short()) {
            return Err(wrong("it names a part that is not its own"));
        }
        let bytes = match read_part(lineage, &part.path, &part.digest).await {
            Ok(bytes) => bytes,
            Err(WalGetError::Lineage(error)) if error.is_not_found() => {
                return Err(WalGetError::MissingPart { path: path.to_owned(), part: part.path.clone() });
            }
            Err(other) => return Err(other),
        };
        if bytes.len() as u64 != part.length || plain.len() + bytes.len() > length {
            return Err(wrong("its parts are not as long as it says"));
        }
        plain.extend_from_slice(&bytes);
    }
    if plain.len() != length {
        return Err(wrong("its parts are not as long as it says"));
    }
    if whole != Some(lineage.keys().digest(&plain)) {
        return Err(wrong("its parts do not have the digest of the whole"));
    }
    Ok(plain)
}

async fn read_part(lineage: &Lineage, path: &str, digest: &Digest) -> Result<Vec<u8>, WalGetError> {
    let plain = lineage.read(ObjectKind::SegmentPart, path).await?;
    if lineage.keys().digest(&plain) != *digest {
        return Err(WalGetError::NotTheWal {
            path: path.to_owned(),
            reason: "it has another digest".to_owned(),
        });
    }
    Ok(plain)
}
