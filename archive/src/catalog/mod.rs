//! What a lineage holds, and what can be recovered from it.
//!
//! [`Catalog::load`] lists by prefix and reads only the heads of manifests and the history files: one request for each
//! backup and each timeline, and the listing of WAL names. `windows` adds what only the WAL's index knows, the newest
//! moment, by reading the last few indexes of each way. `resolve` turns a target into a plan by reading the indexes from a
//! backup to the place where recovery stops, many at once and in order; it takes all repositories that hold the lineage as one
//! ([`Holding`]), since each may lack what another has.
//!
//! What cannot be read or authenticated is never left out silently: it stands in [`Catalog::broken`], by name and reason.

mod error;
mod ground;
mod joined;
mod load;
mod resolve;
mod windows;

pub use error::CatalogError;
pub use joined::Holding;
pub use load::{BackupEntry, BrokenObject, Catalog, TimelineEntry, gaps_within};
pub use resolve::{ResolveError, resolve};
pub use windows::{ReachableWindow, windows};

#[cfg(test)]
mod load_tests;
#[cfg(test)]
mod resolve_tests;
#[cfg(test)]
mod windows_tests;
