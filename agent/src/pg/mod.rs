//! SQL connections to the cluster.
