//! Restores on real servers: every place a cluster can be put, what is refused, what a copy may do, what damage leaves, what is gone on
//! with, and the exit codes that recovery hangs on.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "this is test code: a broken expectation ends the test where it is seen"
)]

mod archive_get;
mod blank_host;
mod blank_root;
mod copies;
mod damage;
mod delta;
mod full_disk;
mod ground;
mod host;
mod owners;
mod places;
mod refusals;
mod replayed;
mod repositories;
mod resumed;
mod sorting;
mod space;
mod start;
mod successor;
