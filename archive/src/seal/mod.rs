//! The sealed envelope: everything we store but the plain objects goes through here, in both directions.
//!
//! Writing: a header is made (kind, codec, key ids, a salt drawn here, the keyed digest where it is known before) and
//! authenticated with a MAC of its own; an object key is derived from the data key, the salt, the object's name and the
//! header (I6). The plaintext is cut into frames; each is compressed on its own and encrypted on its own, under its
//! number. The last frame, marked as the last, holds the frame index, the length and the digest; a plain footer hints
//! at where it lies.
//!
//! Reading goes the other way and believes nothing before its check has passed: the header's MAC before any field of
//! it is used, a frame's tag before it is decompressed, the digest before the plaintext is handed out. Since kind,
//! lineage and path go into the key, an object that was cut, reordered, swapped or renamed does not open.
//!
//! The bytes are described in `docs/format.md`, sections 3 and 4. Nothing else imports a codec or a cipher.

mod cipher;
mod codec;
mod error;
mod frame;
mod header;
mod key;
mod laid;
mod object;
mod reader;
mod scrub;
mod writer;

#[cfg(test)]
mod tests;

pub use crate::keyed::{Digest, Digester, PIECE_BYTES};
pub use codec::Codec;
pub use error::{FrameCheck, FrameRef, SealError};
pub use frame::{FRAME_BYTES, FRAME_HEADER_LEN, FRAME_OVERHEAD, MAX_FRAME_BYTES};
pub use header::{HEADER_LEN, Header, MAX_HEADER_LEN, read_header};
pub use key::{LineageId, ObjectKind, ObjectName};
pub use laid::{LaidFrames, seal_laid};
pub use object::{HeaderExtra, Opened, attachment_range, open, open_attachment, seal};
pub use reader::{FOOTER_LEN, Footer, FrameReader, ObjectIndex};
pub use scrub::{Scrubbed, scrub};
pub use writer::{FrameAt, FrameWriter, Sealed, room_to_finish};
