//! Wal.
