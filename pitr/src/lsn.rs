//! Lsn (see the module's items).
