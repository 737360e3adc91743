//! `.history` and `.backup` files: small, and written once.

use highwater_pitr::segment::WalFile;
use highwater_pitr::timeline::TimelineHistory;

use super::{Content, Stored, WalGetError, WalPutError};
use crate::names;
use crate::racing::Published;
use crate::repository::lineage::{Lineage, LineageError};
use crate::seal::{Codec, ObjectKind};

/// The longest small file that is archived, in bytes; PostgreSQL's own are a few hundred.
pub const MAX_SMALL_BYTES: usize = 1 << 20;

/// Stores a timeline history file or a backup history file. One with the same bytes is success; any other, even one that
/// differs only in a comment, is a conflict: whoever chooses a timeline by these files must find what was written first.
///
/// # Errors
/// [`WalPutError::NotHistory`], [`WalPutError::TooLarge`], [`WalPutError::Conflict`], [`WalPutError::Lineage`],
/// [`WalPutError::WrongKind`] for any other file.
pub async fn put_small(lineage: &Lineage, file: WalFile, bytes: &[u8]) -> Result<Stored, WalPutError> {
    match file {
        WalFile::Segment(_) | WalFile::Partial(_) => return Err(WalPutError::WrongKind { file }),
        WalFile::Backup { .. } | WalFile::History(_) => {}
    }
    if bytes.len() > MAX_SMALL_BYTES {
        let limit = MAX_SMALL_BYTES as u64;
        return Err(WalPutError::TooLarge { file, bytes: bytes.len() as u64, limit });
    }
    if let WalFile::History(timeline) = file {
        TimelineHistory::parse(timeline, bytes).map_err(|source| WalPutError::NotHistory { file, source })?;
    }
    let path = names::wal_object(&file);
    match lineage.create_racing(ObjectKind::SmallWal, &path, Codec::None, bytes).await? {
        Published::New => Ok(Stored::New),
        Published::Exists(_) => {
            let unreadable = |source| WalPutError::Unreadable { file, source: Box::new(source) };
            let present = lineage.read_racing(ObjectKind::SmallWal, &path).await;
            let theirs = match present {
                Ok(Some(theirs)) => theirs,
                Ok(None) => {
                    let reason = "it exists when written and not when read".to_owned();
                    return Err(unreadable(WalGetError::NotTheWal { path, reason }));
                }
                // The store's own failure is worth another try; what does not open is not.
                Err(LineageError::Store(error)) => return Err(LineageError::Store(error).into()),
                Err(other) => return Err(unreadable(other.into())),
            };
            if theirs == bytes {
                return Ok(Stored::Same);
            }
            let content = |bytes: &[u8]| Content {
                digest: lineage.keys().digest(bytes),
                valid_len: bytes.len() as u64,
            };
            Err(WalPutError::Conflict { file, ours: content(bytes), theirs: content(&theirs) })
        }
    }
}
