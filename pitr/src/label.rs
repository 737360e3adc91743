//! Label (see the module's items).
