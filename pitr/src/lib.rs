//! What WAL and time mean: PostgreSQL's write-ahead log read, indexed and planned over.
//!
//! Pure by rule: bytes and values in, values out. No I/O, no async, no clock.

pub mod control;
pub mod datapage;
pub mod index;
pub mod label;
pub mod lsn;
pub mod plan;
pub mod scan;
pub mod segment;
pub mod target;
pub mod time;
pub mod timeline;
pub mod wal;
