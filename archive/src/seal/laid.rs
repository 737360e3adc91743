//! Frames that are compressed before it is known what object they will be of.
//!
//! The key of an object follows from its header (I6), and the header of a segment holds the digest of all its bytes and how
//! far they are valid. Compressing, the longest of the passes over a segment, need not wait for the others: each thread lays its
//! frames one behind another into memory of its own, and they are encrypted there when the header is known. The object is then
//! a list of pieces that is stored in order; nothing is moved.

use std::ops::Range;

use bytes::Bytes;

use super::writer::too_large;
use super::{Codec, Digest, FrameWriter, HeaderExtra, MAX_FRAME_BYTES, ObjectName, SealError, frame};
use crate::keyring::Keyring;
use crate::pages::Pages;

/// Some of the frames of an object, compressed, in the memory where they will be encrypted.
pub struct LaidFrames {
    codec: Codec,
    memory: Pages,
    used: usize,
    frames: Vec<Laid>,
}

/// Where one of them lies.
struct Laid {
    /// Its place among all frames of the object.
    number: usize,
    stored: Range<usize>,
    raw_len: u32,
}

impl LaidFrames {
    /// With room for `raw_len` bytes in frames of at most `frame_len`. Room that is not reached takes no memory.
    pub fn with_room(codec: Codec, raw_len: usize, frame_len: usize) -> Self {
        let frames = raw_len.div_ceil(frame_len.max(1));
        let memory = Pages::zeroed(frames.saturating_mul(frame::room_for(codec, frame_len)));
        Self { codec, memory, used: 0, frames: Vec::with_capacity(frames) }
    }

    /// Compresses `raw`, the frame with this number. `object` is for the message.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] above [`MAX_FRAME_BYTES`], or where no room is left.
    pub fn lay(&mut self, number: usize, raw: &[u8], object: &str) -> Result<(), SealError> {
        let too_large = || too_large(object, "a frame", raw.len());
        let raw_len = u32::try_from(raw.len()).ok().filter(|length| *length as usize <= MAX_FRAME_BYTES);
        let raw_len = raw_len.ok_or_else(too_large)?;
        let end = self.used.saturating_add(frame::room_for(self.codec, raw.len()));
        let room = self.memory.get_mut(self.used..end).ok_or_else(too_large)?;
        let length = frame::compress(self.codec, raw, room).ok_or_else(too_large)?;
        let stored = self.used..self.used + length;
        self.used = stored.end;
        self.frames.push(Laid { number, stored, raw_len });
        Ok(())
    }
}

impl std::fmt::Debug for LaidFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LaidFrames({} in {} bytes)", self.frames.len(), self.used)
    }
}

/// Seals frames, in the order of their numbers, as the object `name`; answers its pieces. `digest` is that of the whole plaintext,
/// and stands in the header. The object is the one that [`seal`](super::seal) makes of frames of this length.
///
/// # Errors
/// As [`seal`](super::seal).
pub fn seal_laid(
    keys: &Keyring,
    name: &ObjectName<'_>,
    codec: Codec,
    mut shares: Vec<LaidFrames>,
    digest: Digest,
    extra: HeaderExtra<'_>,
) -> Result<Vec<Bytes>, SealError> {
    let mut order: Vec<(usize, Laid)> = Vec::new();
    for (share, laid) in shares.iter_mut().enumerate() {
        order.extend(laid.frames.drain(..).map(|frame| (share, frame)));
    }
    order.sort_unstable_by_key(|(_, frame)| frame.number);
    let length = order.iter().map(|(_, frame)| u64::from(frame.raw_len)).sum();
    let mut writer = FrameWriter::begin_knowing(keys, name, codec, Vec::new(), &extra.of(digest, length))?;
    let head = writer.go_on_in(Vec::new()).into();
    for (share, Laid { stored, raw_len, .. }) in &order {
        let frame = shares.get_mut(*share).and_then(|laid| laid.memory.get_mut(stored.clone()));
        writer.seal_apart(frame.unwrap_or_default(), *raw_len)?;
    }
    let memories: Vec<Bytes> = shares.into_iter().map(|laid| Bytes::from_owner(laid.memory)).collect();
    let frames =
        order.into_iter().filter_map(|(share, frame)| Some(memories.get(share)?.slice(frame.stored)));
    let mut pieces = Vec::with_capacity(frames.size_hint().0 + 2);
    pieces.push(head);
    pieces.extend(frames);
    pieces.push(writer.finish()?.bytes.into());
    Ok(pieces)
}
