//! Datapage (see the module's items).
