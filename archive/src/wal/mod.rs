//! WAL objects: segments with their index inside, and the small files beside them.
//!
//! Up: a segment's header is checked against the lineage, its records are read once (how does the chain end? what does
//! it say?), it is brought into its canonical form, and its keyed digest is taken. Then it is sealed, the index as its
//! attachment, and created. Where something is there already, its authenticated header is read and the digests are
//! compared (I2): another is a conflict that names both, and the same is success once the object was read to its end. A
//! segment whose chain breaks before its end is never stored under the segment's name; if it is the beginning of the one
//! that is there, it is kept beside it. Success always means: this content is in the store.
//!
//! Down: an object is opened under its name, its digest checked, and its content held against the lineage once more.
//!
//! A segment above 32 MiB lies in parts named by their digest; the commit object under its own name comes last (I21).
//!
//! Preparing a segment is CPU work and synchronous ([`PreparedSegment::new`]); storing it is network work and async.

mod bytes;
mod claim;
mod error;
mod get;
mod index;
mod list;
mod parts;
mod passes;
mod prepare;
mod put;
mod small;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use bytes::WalBytes;
pub use claim::{Claim, ClaimError, Claimed, claim_timeline, read_claim};
pub use error::{Content, WalGetError, WalPutError};
pub use get::get;
pub use index::{get_indexed, names_before, read_index, read_index_before};
pub use list::{TimelineListing, list_histories, list_segments, list_timeline, list_timelines};
pub use parts::{MAX_WHOLE_SEGMENT_BYTES, PART_BYTES};
pub use prepare::PreparedSegment;
pub use put::{Stored, put_partial, put_prepared, put_segment};
pub use small::{MAX_SMALL_BYTES, put_small};
