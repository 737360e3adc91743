//! What can be wrong with a manifest.

use crate::repository::lineage::LineageError;

/// A manifest, or a part of one, could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The store, or the seal of an object.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// An object holds what this version does not write.
    #[error("{path}: {problem}")]
    Malformed {
        /// Path of the object below the lineage.
        path: String,
        /// What is wrong, and in which line.
        problem: String,
    },
    /// A part is not the one that the manifest names.
    #[error("{path} is not the part that the manifest names: {what} differs")]
    OtherPart {
        /// Path of the part below the lineage.
        path: String,
        /// Which property differs.
        what: &'static str,
    },
    /// An object of this backup exists already, with other content.
    #[error("{path} exists already")]
    Exists {
        /// Path of the object below the lineage.
        path: String,
    },
    /// An entry that the file list cannot hold was pushed: a mistake of the program that writes it.
    #[error("the file list cannot hold this entry: {0}")]
    Refused(String),
}

impl ManifestError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ManifestError::Lineage(error) => error.hint(),
            ManifestError::Malformed { .. } | ManifestError::OtherPart { .. } => Some(
                "the object opens under this lineage's keys, so it was not altered in the store; \
                 a newer version may have written it. `highwater list` shows the other backups"
                    .to_owned(),
            ),
            ManifestError::Exists { .. } => {
                Some("two backups got the same id, or a write was repeated; run the backup again".to_owned())
            }
            ManifestError::Refused(_) => None,
        }
    }
}
