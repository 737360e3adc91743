//! From the archive to a running cluster.
//!
//! A restore is one straight line: [`preflight`] proves that the target can be reached and that nothing stands in the way,
//! before a byte is written, [`host`] what this host has for it; [`begin`] marks what is there as unfinished; [`rebuild`] writes the data directory from a backup's manifest and packs; [`finish`] makes it a
//! cluster that recovers to the target and no further, with [`settings`], [`plan_file`] and the configuration from
//! [`outside`], led away from the original by [`in_effect`]; [`server`] starts it and watches it get there. [`fetch`] is the other end of `restore_command`: one file of
//! WAL, or the proof that there is none.
//!
//! Never here: schedules, the command line.

pub mod begin;
pub(crate) mod below;
pub mod conf_file;
pub mod contents;
pub mod error;
pub mod fetch;
pub mod filled;
pub mod finish;
pub mod host;
pub mod in_effect;
pub mod includes;
pub(crate) mod inodes;
pub mod kept_wal;
pub mod listening;
pub mod mounted;
pub mod outside;
pub mod ownership;
pub mod places;
pub mod plan_file;
pub mod preflight;
pub mod rebuild;
pub mod replayed;
pub mod server;
pub mod settings;
pub mod space;
pub mod standing;
pub mod tablespaces;
pub mod unfinished;
pub mod whole;

pub use error::RestoreError;
