//! One file of WAL into every repository.
