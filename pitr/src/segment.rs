//! Segment (see the module's items).
