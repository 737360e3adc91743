//! xact
