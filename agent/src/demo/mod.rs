//! The whole story on a throwaway cluster.
//!
//! A real server is made in a directory of its own and put under load: sessions that move money between accounts and write each
//! transfer into a ledger. It archives into a local repository through the same commands a person would use, run as child
//! processes of this binary. A base backup is taken under that load. Then the ledger is dropped; just before, its rows were
//! written down with the moment each was committed. The cluster is restored to a moment about a second before the drop, and the
//! restored ledger is compared row by row with what was written down: every row committed by then, and no other. As root, the
//! server and our commands run as the user postgres. Everything is removed at the end, also after a failure.

mod load;
mod sandbox;
mod story;

pub use story::{Options, tell};
