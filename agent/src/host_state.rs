//! Which lineage this data directory writes.
