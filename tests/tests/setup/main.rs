//! Setting a cluster up and archiving its WAL, by the commands a person and PostgreSQL would call.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "this is test code: a broken expectation ends the test where it is seen"
)]

mod adopt;
mod check;
mod command_line;
mod demo;
mod full_disk;
mod ground;
mod init;
mod killed;
mod push;
mod push_conflicts;
mod versions;
