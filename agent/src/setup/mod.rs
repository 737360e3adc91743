//! Making a cluster known to its repositories, and what PostgreSQL must be told.
//!
//! [`repository`] makes or opens one repository with the cluster's keyring in it. [`lineage`] decides, over all repositories
//! together, which lineage a data directory may write (I1), [`adoption`] whether a [`copy`] may go on with one. [`postgresql`] gives the lines for postgresql.conf and judges an
//! `archive_command` that is there.

pub mod adoption;
pub mod copy;
pub mod lineage;
pub mod postgresql;
pub mod repository;
