//! Control (see the module's items).
