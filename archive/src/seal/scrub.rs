//! Looking for rot without a key: every frame has a CRC over its ciphertext.
//!
//! It finds what storage does by accident, not what somebody does on purpose; the header, which has no CRC of its own, is
//! covered by its MAC and so only for those who have the key.

use super::header::lengths_unverified;
use super::{FOOTER_LEN, Footer, FrameCheck, FrameRef, SealError, frame};

/// What a scrub has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scrubbed {
    /// Data frames whose CRC matches.
    pub frames: u32,
    /// Bytes of the object.
    pub bytes: u64,
}

/// Checks the CRC of every frame of an object, and that the frames fill it from header to footer.
///
/// # Errors
/// [`SealError::NotSealed`], [`SealError::Footer`], or [`SealError::Frame`] for the first frame that does not match.
pub fn scrub(object: &str, bytes: &[u8]) -> Result<Scrubbed, SealError> {
    let name = || object.to_owned();
    let (header_len, attachment_len) =
        lengths_unverified(bytes).ok_or_else(|| SealError::NotSealed { object: name() })?;
    let footer = Footer::parse(object, bytes)?;
    let end = bytes.len() - FOOTER_LEN.min(bytes.len());
    let mut at = header_len;
    let failed = |frame, check| SealError::Frame { object: name(), frame, check };
    let next = |at: &mut usize, which: FrameRef| -> Result<(), SealError> {
        let rest = bytes.get(*at..end).ok_or_else(|| failed(which, FrameCheck::Length))?;
        let length = frame::stored_len(rest).and_then(|length| usize::try_from(length).ok());
        let whole =
            length.and_then(|length| rest.get(..length)).ok_or_else(|| failed(which, FrameCheck::Length))?;
        frame::check_crc(whole).map_err(|check| failed(which, check))?;
        *at += whole.len();
        Ok(())
    };
    if attachment_len > 0 {
        next(&mut at, FrameRef::Attachment)?;
        if at != header_len + attachment_len as usize {
            return Err(failed(FrameRef::Attachment, FrameCheck::Length));
        }
    }
    let mut frames = 0;
    while (at as u64) < footer.last_frame_at && frames < footer.frames {
        next(&mut at, FrameRef::Data(frames))?;
        frames += 1;
    }
    if at as u64 != footer.last_frame_at || frames != footer.frames {
        return Err(SealError::Footer { object: name(), reason: "it does not agree with the frames" });
    }
    next(&mut at, FrameRef::Last)?;
    if at != end {
        return Err(failed(FrameRef::Last, FrameCheck::Length));
    }
    Ok(Scrubbed { frames, bytes: bytes.len() as u64 })
}
