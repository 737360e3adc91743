//! Backups of real servers: what is in them, what is refused, and what is left when one fails.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "this is test code: a broken expectation ends the test where it is seen"
)]

mod changes;
mod damage;
mod failures;
mod ground;
mod killed;
mod large;
mod refusals;
mod shapes;
mod whole;
