//! Timeline (see the module's items).
