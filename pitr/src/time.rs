//! Time (see the module's items).
