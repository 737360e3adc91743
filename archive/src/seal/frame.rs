//! One frame: length and CRC in the clear, then a sealed and perhaps compressed piece of the plaintext.
//!
//! ```text
//! length of the ciphertext | its CRC-32 | AES-256-GCM( form | raw length | bytes ) | tag
//! ```
//!
//! A frame is built where it will stay: the plaintext is compressed into the tail of the object's buffer, then encrypted
//! there. Both ways a frame costs no allocation and no copy.

use super::FrameCheck;
use super::cipher::{FrameCipher, TAG_LEN};
use super::codec::Codec;

/// Raw bytes of a frame in whatever is not cut by its own rule: 1 MiB.
pub const FRAME_BYTES: usize = 1 << 20;

/// The most raw bytes that a frame may hold: 16 MiB. A reader refuses more.
pub const MAX_FRAME_BYTES: usize = 16 << 20;

/// Bytes before the ciphertext: its length and its CRC.
pub const FRAME_HEADER_LEN: usize = 8;

/// Bytes before the content inside the ciphertext: stored form and raw length.
pub(super) const FORM_LEN: usize = 5;

/// What a stored frame has beyond its content as it is: no frame is longer than its raw bytes and this.
pub const FRAME_OVERHEAD: usize = FRAME_HEADER_LEN + FORM_LEN + TAG_LEN;

const FORM_PLAIN: u8 = 0;
const FORM_COMPRESSED: u8 = 1;

/// Room that [`compress`] needs for so many raw bytes.
pub(super) fn room_for(codec: Codec, raw_len: usize) -> usize {
    FRAME_OVERHEAD + raw_len.max(codec.bound(raw_len))
}

/// Lays the plaintext of a data frame into `room`, which is [`room_for`] long, compressed where that is shorter.
/// Answers the length of the whole frame, or `None` when the room is too small.
pub(super) fn compress(codec: Codec, raw: &[u8], room: &mut [u8]) -> Option<usize> {
    let raw_len = u32::try_from(raw.len()).ok()?;
    let (form, content) = room.get_mut(FRAME_HEADER_LEN..)?.split_first_chunk_mut::<FORM_LEN>()?;
    let content_space = content.len().checked_sub(TAG_LEN)?;
    let compressed =
        codec.compress(raw, content.get_mut(..content_space)?).filter(|length| *length < raw.len());
    let (kind, content_len) = match compressed {
        Some(length) => (FORM_COMPRESSED, length),
        None => {
            content.get_mut(..raw.len())?.copy_from_slice(raw);
            (FORM_PLAIN, raw.len())
        }
    };
    let [kind_byte, length_bytes @ ..] = form;
    *kind_byte = kind;
    *length_bytes = raw_len.to_le_bytes();
    Some(FRAME_OVERHEAD + content_len)
}

/// Encrypts the frame that [`compress`] laid into `frame` (exactly its length), and writes tag, length and CRC.
pub(super) fn seal(cipher: &FrameCipher, number: u32, last: bool, frame: &mut [u8]) -> Option<()> {
    let (head, ciphertext) = frame.split_first_chunk_mut::<FRAME_HEADER_LEN>()?;
    let length = u32::try_from(ciphertext.len()).ok()?;
    cipher.seal(number, last, ciphertext).ok()?;
    let crc = crc32fast::hash(ciphertext);
    let (length_bytes, crc_bytes) = head.split_first_chunk_mut::<4>()?;
    *length_bytes = length.to_le_bytes();
    crc_bytes.copy_from_slice(&crc.to_le_bytes());
    Some(())
}

/// The length of the whole frame that begins with `bytes`, or `None` when they are too few to tell.
pub(super) fn stored_len(bytes: &[u8]) -> Option<u64> {
    let length = bytes.first_chunk::<4>()?;
    Some(FRAME_HEADER_LEN as u64 + u64::from(u32::from_le_bytes(*length)))
}

/// Whether length and CRC of a stored frame fit; needs no key.
pub(super) fn check_crc(frame: &[u8]) -> Result<(), FrameCheck> {
    if stored_len(frame) != Some(frame.len() as u64) {
        return Err(FrameCheck::Length);
    }
    let (head, ciphertext) = frame.split_first_chunk::<FRAME_HEADER_LEN>().ok_or(FrameCheck::Length)?;
    let crc = head.last_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes));
    if crc == Some(crc32fast::hash(ciphertext)) { Ok(()) } else { Err(FrameCheck::Crc) }
}

/// Checks a stored frame and decrypts it in place; answers its plaintext.
pub(super) fn decrypt<'a>(
    cipher: &FrameCipher,
    number: u32,
    last: bool,
    frame: &'a mut [u8],
) -> Result<&'a [u8], FrameCheck> {
    check_crc(frame)?;
    let ciphertext = frame.get_mut(FRAME_HEADER_LEN..).ok_or(FrameCheck::Length)?;
    if ciphertext.len() < TAG_LEN {
        return Err(FrameCheck::Length);
    }
    cipher.open(number, last, ciphertext).map_err(|_| FrameCheck::Tag)
}

/// The raw length that the plaintext of a data frame claims; at most [`MAX_FRAME_BYTES`].
pub(super) fn raw_len(plain: &[u8]) -> Result<usize, FrameCheck> {
    let (form, _) = plain.split_first_chunk::<FORM_LEN>().ok_or(FrameCheck::Form)?;
    let [_, length_bytes @ ..] = *form;
    let raw_len = u32::from_le_bytes(length_bytes) as usize;
    if raw_len > MAX_FRAME_BYTES { Err(FrameCheck::Form) } else { Ok(raw_len) }
}

/// Unfolds the plaintext of a data frame into `out`, which is exactly its [`raw_len`].
pub(super) fn decompress(codec: Codec, plain: &[u8], out: &mut [u8]) -> Result<(), FrameCheck> {
    if raw_len(plain)? != out.len() {
        return Err(FrameCheck::Form);
    }
    let (form, content) = plain.split_first_chunk::<FORM_LEN>().ok_or(FrameCheck::Form)?;
    let [kind, ..] = *form;
    match kind {
        FORM_PLAIN if content.len() == out.len() => {
            out.copy_from_slice(content);
            Ok(())
        }
        FORM_COMPRESSED if codec.decompress(content, out) => Ok(()),
        FORM_COMPRESSED => Err(FrameCheck::Codec),
        _ => Err(FrameCheck::Form),
    }
}
