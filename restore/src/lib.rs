//! From the archive to a running cluster.
