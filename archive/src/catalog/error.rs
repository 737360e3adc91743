//! Why a lineage could not be looked at.

use crate::manifest::ManifestError;
use crate::repository::lineage::LineageError;
use crate::wal::WalGetError;

/// The archive could not be asked. What it holds and is broken is no error of the catalog: it stands in
/// [`super::Catalog::broken`], or is a hole in the WAL.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// Listing, or reading an object of the lineage.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// Reading the head of a backup.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// Reading WAL or its index.
    #[error(transparent)]
    Wal(#[from] WalGetError),
}

impl CatalogError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Lineage(error) => error.hint(),
            Self::Manifest(error) => error.hint(),
            Self::Wal(error) => error.hint(),
        }
    }
}

/// Whether an error speaks of an object's content (then the object is broken), and not of the way to it (then nothing is
/// known).
pub(super) trait OfContent {
    /// Whether it does.
    fn is_of_content(&self) -> bool;
}

impl OfContent for LineageError {
    fn is_of_content(&self) -> bool {
        match self {
            Self::Seal(_) | Self::Malformed { .. } | Self::Record { .. } | Self::NoRecord { .. } => true,
            Self::Race(race) => !matches!(race, crate::racing::RaceError::Store(_)),
            // A listed object that is gone was deleted meanwhile, or the store forgot it: either way it is not to be had.
            Self::Store(_) => self.is_not_found(),
            Self::Repository(_) | Self::NoSuchLineage { .. } | Self::Closed { .. } => false,
        }
    }
}

impl OfContent for WalGetError {
    fn is_of_content(&self) -> bool {
        match self {
            Self::Lineage(error) => error.is_of_content(),
            Self::NotTheWal { .. } | Self::MissingPart { .. } => true,
        }
    }
}

impl OfContent for ManifestError {
    fn is_of_content(&self) -> bool {
        match self {
            Self::Lineage(error) => error.is_of_content(),
            Self::Malformed { .. } | Self::OtherPart { .. } | Self::Exists { .. } | Self::Refused(_) => true,
        }
    }
}
