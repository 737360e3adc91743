//! Seal.
