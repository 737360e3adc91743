//! Why a lineage could not be looked at.

use crate::lineage::LineageError;
use crate::manifest::ManifestError;
use crate::wal::WalError;

/// The archive could not be asked. What it holds and is broken is no error of the catalog: it stands in
/// [`super::Catalog::broken`].
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
    Wal(#[from] WalError),
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
