//! SQL connections to the cluster.
//!
//! [`conninfo`] reads libpq's connection strings, [`postmaster`] finds the socket of the server that runs in a data directory,
//! [`passfile`] looks passwords up as libpq does, [`session`] connects, and [`settings`] reads what the server is set to.
//! TLS is not there yet: `sslmode=require` and stricter are refused, never weakened.

mod conninfo;
pub mod data_dir;
mod error;
mod passfile;
pub mod postmaster;
mod session;
pub mod settings;

pub use data_dir::DataDirError;
pub use error::PgError;
pub use session::Session;
