//! What is at rest: stores, sealing, the keyring, object names, WAL objects, packs, manifests and the catalog.
//!
//! Never here: a PostgreSQL connection, a process.

pub mod catalog;
pub mod clock;
pub mod durable;
mod keyed;
pub mod keyring;
pub mod manifest;
pub mod names;
pub mod pack;
mod pages;
pub mod probe;
pub mod racing;
pub mod repository;
pub mod seal;
pub mod store;
#[cfg(any(test, feature = "testing"))]
#[doc(hidden)]
pub mod testing;
pub mod wal;

pub use repository::lineage;
