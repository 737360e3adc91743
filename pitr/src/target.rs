//! Target (see the module's items).
