//! End-to-end tests on real PostgreSQL, and the harness they share.
//!
//! A test asks [`for_each_major`] for the PostgreSQL majors of this machine, makes a [`Scratch`] directory, a [`Cluster`]
//! in it and a [`Highwater`] beside that, and asserts. What it made is gone when it ends, also when it panics; what a
//! killed run left behind is swept by the next one. Run as root, PostgreSQL and Highwater run as user `postgres`; run as
//! anyone else they run as that user. Nothing is skipped in silence: without PostgreSQL the harness fails and says how to
//! install it.
//!
//! Environment: `HIGHWATER_POSTGRES_DIR` (where installations lie), `HIGHWATER_POSTGRES_MAJORS` (such as `14,18`),
//! `HIGHWATER_SEED` (replays a failure), `HIGHWATER_SCALE` (`ci` or `soak`), `HIGHWATER_CAMPAIGNS` (a file for what long
//! campaigns come to), `HIGHWATER_BIN` (a binary built before), `HIGHWATER_KEEP=1` (leaves scratch directories).

pub mod az;
pub mod azurite;
mod binary;
pub mod cloud;
mod cluster;
pub mod conformance;
pub mod demands;
mod exercised;
pub mod golden;
pub mod gs;
mod highwater;
pub mod http;
pub mod identity;
pub mod line;
mod load;
mod postgres;
pub mod proxy;
pub mod python;
mod running;
pub mod s3;
mod scratch;
pub mod seaweedfs;
mod seed;
mod session;
mod small;
pub mod tls;
mod tools;
mod tree;
mod user;

pub use binary::highwater_binary;
pub use cluster::{Cluster, ClusterBuilder};
pub use exercised::{exercised, for_each_major, for_ends_of_majors};
pub use highwater::{Finished, Highwater};
pub use load::Load;
pub use postgres::{MAJORS, Postgres, installed, newest, oldest};
pub use scratch::Scratch;
pub use seed::{Scale, Seed, scale, tell_campaign};
pub use session::Session;
pub use small::SmallFilesystem;
pub use tools::{TransactionLine, amcheck, checksums, controldata, transactions, waldump};
pub use tree::{assert_same_files, files};
pub use user::{command_as_server_user, give_to_server_user, is_root, left_out, may_mount, server_user};
