//! End-to-end tests on real PostgreSQL, and the harness they share.
