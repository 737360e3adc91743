//! Frames that are compressed before it is known what object they will be of.
//!
//! The key of an object follows from its header (I6), and the header of a segment holds the digest of all its bytes and how
//! far they are valid. Compressing, the longest of the passes over a segment, need not wait for the others: a frame is laid
//! out in memory of its own, on any thread, and encrypted there when the header is known. The object is then a list of pieces
//! that is stored in order; nothing is moved.

use bytes::Bytes;

use super::writer::too_large;
use super::{Codec, Digest, FrameWriter, HeaderExtra, MAX_FRAME_BYTES, ObjectName, SealError, frame};
use crate::keyring::Keyring;

/// The plaintext of one frame, compressed, in the memory where it will be encrypted.
pub struct LaidFrame {
    /// Exactly one frame.
    pub(super) bytes: Vec<u8>,
    /// Its length before it was compressed; at most [`MAX_FRAME_BYTES`].
    pub(super) raw_len: u32,
}

impl LaidFrame {
    /// Compresses `raw`. `object` is for the message.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] above [`MAX_FRAME_BYTES`].
    pub fn new(codec: Codec, raw: &[u8], object: &str) -> Result<Self, SealError> {
        let too_large = || too_large(object, "a frame", raw.len());
        let raw_len = u32::try_from(raw.len()).ok().filter(|length| *length as usize <= MAX_FRAME_BYTES);
        let raw_len = raw_len.ok_or_else(too_large)?;
        // Memory that is not reached is never touched: the system's zeros cost nothing before they are written over.
        let mut bytes = vec![0; frame::room_for(codec, raw.len())];
        let length = frame::compress(codec, raw, &mut bytes).ok_or_else(too_large)?;
        bytes.truncate(length);
        Ok(Self { bytes, raw_len })
    }
}

impl std::fmt::Debug for LaidFrame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LaidFrame({} bytes of {})", self.bytes.len(), self.raw_len)
    }
}

/// Seals `frames`, in their order, as the object `name`; answers its pieces. `digest` is that of the whole plaintext, and stands
/// in the header. The object is the one that [`seal`](super::seal) makes of frames of this length.
///
/// # Errors
/// As [`seal`](super::seal).
pub fn seal_laid(
    keys: &Keyring,
    name: &ObjectName<'_>,
    codec: Codec,
    frames: Vec<LaidFrame>,
    digest: Digest,
    extra: HeaderExtra<'_>,
) -> Result<Vec<Bytes>, SealError> {
    let length = frames.iter().map(|frame| u64::from(frame.raw_len)).sum();
    let known = extra.of(digest, length);
    FrameWriter::begin_knowing(keys, name, codec, Vec::new(), &known)?.finish_with(frames)
}
