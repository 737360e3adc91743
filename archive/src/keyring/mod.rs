//! Keyring.
