//! The cluster: SQL connections to it, and its data directory.
//!
//! [`conninfo`] reads libpq's connection strings and finds the server that runs in a data directory, [`passfile`] looks passwords
//! up as libpq does, [`session`] connects, and [`settings`] reads what the server is set to. [`data_dir`] and [`history`] read what
//! a data directory itself says.
//! TLS is not there yet: `sslmode=require` and stricter are refused, never weakened.

mod conninfo;
pub mod data_dir;
mod error;
pub mod history;
mod passfile;
mod session;
pub mod settings;

pub use data_dir::DataDirError;
pub use error::PgError;
pub use session::Session;
