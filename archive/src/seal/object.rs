//! Whole objects in one call, for what fits in memory: WAL, metadata, small things.

use std::ops::Range;

use super::header::{Header, read_header};
use super::reader::object_cipher;
use super::writer::Foreknown;
use super::{
    Codec, Digest, FRAME_BYTES, Footer, FrameReader, FrameRef, FrameWriter, ObjectKind, ObjectName,
    SealError, frame,
};
use crate::keyring::Keyring;

/// What a header may hold besides what follows from the plaintext.
#[derive(Debug, Clone, Copy, Default)]
pub struct HeaderExtra<'a> {
    /// WAL: how many bytes of the canonical form are not zero filling.
    pub valid_len: Option<u64>,
    /// A small part that is sealed on its own and read together with the header, by one ranged read.
    pub attachment: Option<&'a [u8]>,
    /// The digest of what the object stands for, where that is not its plaintext (the commit object of a segment).
    pub digest: Option<Digest>,
}

impl<'a> HeaderExtra<'a> {
    /// With what follows from a plaintext of `length` bytes and this digest: all that is known before the first frame.
    pub(super) fn of(self, digest: Digest, length: u64) -> Foreknown<'a> {
        Foreknown {
            header_digest: Some(self.digest.unwrap_or(digest)),
            plain_digest: Some(digest),
            plain_len: Some(length),
            valid_len: Some(self.valid_len.unwrap_or(length)),
            attachment: self.attachment,
        }
    }
}

/// An object that passed all checks.
#[derive(Debug)]
pub struct Opened {
    /// Its header.
    pub header: Header,
    /// Its plaintext.
    pub plain: Vec<u8>,
}

/// Seals `plain` as the object `name`, in frames of [`FRAME_BYTES`]. The keyed digest stands in the header.
///
/// # Errors
/// [`SealError::Cannot`] when the system gives no random bytes; [`SealError::TooLarge`] for an attachment above 16 MiB.
pub fn seal(
    keys: &Keyring,
    name: &ObjectName<'_>,
    codec: Codec,
    plain: &[u8],
    extra: HeaderExtra<'_>,
) -> Result<Vec<u8>, SealError> {
    let known = extra.of(keys.digest(plain), plain.len() as u64);
    let attachment_len = extra.attachment.map_or(0, <[u8]>::len);
    let buffer = Vec::with_capacity(plain.len() / 2 + attachment_len + 4096);
    let mut writer = FrameWriter::begin_knowing(keys, name, codec, buffer, &known)?;
    for piece in plain.chunks(FRAME_BYTES) {
        writer.append(piece)?;
    }
    Ok(writer.finish()?.bytes)
}

/// Opens the whole object `name` and checks all of it but its attachment, which is checked when it is opened: rot in an
/// index must not cost the segment that it belongs to.
///
/// # Errors
/// Any [`SealError`]: the check that failed, and on what.
pub fn open(keys: &Keyring, name: &ObjectName<'_>, sealed: &[u8]) -> Result<Opened, SealError> {
    let reader = FrameReader::new(keys, name, sealed)?;
    let object = || name.path.to_owned();
    let footer = Footer::parse(name.path, sealed)?;
    let frames_end = sealed.len() - super::FOOTER_LEN.min(sealed.len());
    let last_at = usize::try_from(footer.last_frame_at).ok().filter(|at| *at <= frames_end);
    let last = last_at
        .and_then(|at| sealed.get(at..frames_end))
        .ok_or_else(|| SealError::Footer { object: object(), reason: "it points out of the object" })?;
    // Bytes between the last frame and the footer are no part of the format.
    if frame::stored_len(last) != Some(last.len() as u64) {
        return Err(SealError::Frame {
            object: object(),
            frame: FrameRef::Last,
            check: super::FrameCheck::Length,
        });
    }
    let mut scratch = last.to_vec();
    let index = reader.open_last(&footer, &mut scratch)?;

    let mut plain = Vec::new();
    for (number, indexed) in index.frames.iter().enumerate() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        let stored = usize::try_from(indexed.offset)
            .ok()
            .zip(usize::try_from(indexed.offset + indexed.stored_len).ok())
            .and_then(|(begin, end)| sealed.get(begin..end))
            .ok_or_else(|| SealError::Frame {
                object: object(),
                frame: FrameRef::Data(number),
                check: super::FrameCheck::Length,
            })?;
        scratch.clear();
        scratch.extend_from_slice(stored);
        if plain.is_empty() {
            // Authenticated by now; LZ4 cannot grow more than this, and what grows more may move.
            plain.reserve_exact(
                usize::try_from(index.plain_len).unwrap_or(0).min(sealed.len().saturating_mul(255)),
            );
        }
        let begin = plain.len();
        plain.resize(begin + indexed.raw_len as usize, 0);
        reader.open_frame_into(number, &mut scratch, plain.get_mut(begin..).unwrap_or_default())?;
    }
    if let Some(digest) = index.digest {
        let whole = keys.digest(&plain);
        let header = reader.header();
        // A commit object's header has the digest of the segment that it stands for.
        let stands_for_itself = header.kind != ObjectKind::SegmentCommit;
        if whole != digest || (stands_for_itself && header.digest.is_some_and(|in_header| in_header != whole))
        {
            return Err(SealError::Content { object: object(), what: "digest" });
        }
    }
    Ok(Opened { header: reader.header().clone(), plain })
}

/// Where the attachment lies in the object, in bytes; empty without one.
pub fn attachment_range(header: &Header) -> Range<u64> {
    let begin = header.len as u64;
    begin..begin + u64::from(header.attachment_len)
}

/// Opens the attachment of the object `name`. `bytes` begins with the header and holds at least the
/// [`attachment_range`]. Success also proves that this header belongs to this name.
///
/// # Errors
/// [`SealError::NoAttachment`], [`SealError::TooShort`], [`SealError::WrongKind`], [`SealError::Frame`].
pub fn open_attachment(keys: &Keyring, name: &ObjectName<'_>, bytes: &[u8]) -> Result<Vec<u8>, SealError> {
    let object = || name.path.to_owned();
    let header = read_header(keys, name.path, bytes)?;
    if header.kind != name.kind {
        return Err(SealError::WrongKind { object: object(), expected: name.kind, found: header.kind });
    }
    let key_id = header.metadata_key.ok_or_else(|| SealError::NoAttachment { object: object() })?;
    let end = header.len + header.attachment_len as usize;
    let mut stored = bytes
        .get(header.len..end)
        .ok_or_else(|| SealError::TooShort {
            object: object(),
            part: "attachment",
            needed: end as u64,
            have: bytes.len() as u64,
        })?
        .to_vec();
    let cipher = object_cipher(keys, name, ObjectKind::Attachment, key_id, &header, bytes)?;
    let opened = (|| {
        let plain = frame::decrypt(&cipher, 0, true, &mut stored)?;
        let mut out = vec![0; frame::raw_len(plain)?];
        frame::decompress(header.codec, plain, &mut out)?;
        Ok(out)
    })();
    opened.map_err(|check| SealError::Frame { object: object(), frame: FrameRef::Attachment, check })
}
