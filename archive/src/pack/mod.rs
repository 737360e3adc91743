//! Packs: objects of 24 to 32 MiB that hold the extents of data files (I21).
//!
//! Writing: a [`PackWriter`] takes extents one after another. Each becomes one frame, compressed and sealed directly in the
//! tail of a block of memory, or laid over the seam between two blocks; the answer ([`Extent`](crate::manifest::Extent)) is all that a
//! reader needs to find it again. When [`PackWriter::is_full`] says so the pack is finished and goes to the store by one create. A
//! pack is written by one thread; several are filled side by side. A pack takes its blocks one by one, as it grows, and once it is
//! stored they serve other packs: so packs that are half full hold half the memory.
//!
//! Reading: a [`PackReader`] is made from the header that the file list carries, so that one ranged read of an extent's bytes
//! is enough to open it.

mod reader;
mod writer;

pub use reader::PackReader;
pub use writer::{FinishedPack, PackWriter};

use crate::seal::{FRAME_OVERHEAD, SealError, room_to_finish};

/// A pack that has reached this many bytes is full: with one more extent of 1 MiB and its end it stays below 32 MiB.
pub const PACK_BYTES: u64 = 30 << 20;

/// The most blocks of memory that a pack comes to lie in.
pub const PACK_BLOCKS: usize = 8;

/// A pack with this many frames is full.
pub const PACK_FRAMES: u32 = 16_384;

/// Bytes of a block of memory for packs of extents of `extent_bytes`: a share of the longest pack, to which an extent that did not
/// compress and the frame index came when it was all but full.
pub const fn block_bytes(extent_bytes: u32) -> usize {
    let longest = PACK_BYTES as usize + extent_bytes as usize + FRAME_OVERHEAD;
    (longest + room_to_finish(PACK_FRAMES as usize)).div_ceil(PACK_BLOCKS)
}

/// An extent could not be packed or taken out of a pack.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// The seal of the pack or of a frame.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// There was no memory to lay the pack down in: whoever gives it has ended.
    #[error("a pack was given no more memory")]
    NoBlock,
    /// A frame opened, but it holds other bytes than the file list says.
    #[error("{path}: frame {frame} does not hold the extent that the file list names")]
    OtherExtent {
        /// Path of the pack below the lineage.
        path: String,
        /// Number of the frame.
        frame: u32,
    },
}

impl PackError {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            PackError::Seal(error) => error.hint(),
            PackError::NoBlock => None,
            PackError::OtherExtent { .. } => Some(
                "the pack is authentic and the file list is not of this pack; restore another backup and keep this \
                 repository for examination"
                    .to_owned(),
            ),
        }
    }
}
