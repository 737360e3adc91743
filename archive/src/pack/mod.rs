//! Pack.
