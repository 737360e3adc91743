//! Reading an object frame by frame, in any order and from any place.

use super::cipher::FrameCipher;
use super::header::{Header, read_header};
use super::{
    Digest, FRAME_HEADER_LEN, FrameCheck, FrameRef, MAX_FRAME_BYTES, ObjectKind, ObjectName, SealError, frame,
};
use crate::keyring::{KeyClass, Keyring};

const FOOTER_MAGIC: &[u8; 4] = b"HWFT";

/// Length of the footer in bytes.
pub const FOOTER_LEN: usize = 20;

/// Opens the frames of one object. Needs no more of it than its header.
pub struct FrameReader {
    object: String,
    header: Header,
    cipher: FrameCipher,
}

/// Where the last frame lies, as the footer says: a hint, believed only when that frame opens under the number it gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Footer {
    /// Where the last frame begins in the object.
    pub last_frame_at: u64,
    /// Number of data frames, which is the number of the last frame.
    pub frames: u32,
}

/// What the last frame says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectIndex {
    /// Length of the plaintext in bytes.
    pub plain_len: u64,
    /// Keyed digest of the plaintext; `None` in packs.
    pub digest: Option<Digest>,
    /// The data frames in order.
    pub frames: Vec<IndexedFrame>,
}

/// A data frame as the frame index has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexedFrame {
    /// Where it begins in the object.
    pub offset: u64,
    /// Its length there, frame header included.
    pub stored_len: u64,
    /// Its length once decompressed.
    pub raw_len: u32,
}

impl Footer {
    /// Reads the footer from the end of `bytes`, whose end is the end of the object. `object` is its path, for messages.
    ///
    /// # Errors
    /// [`SealError::TooShort`], [`SealError::Footer`].
    pub fn parse(object: &str, bytes: &[u8]) -> Result<Self, SealError> {
        let Some((_, footer)) = bytes.split_last_chunk::<FOOTER_LEN>() else {
            return Err(SealError::TooShort {
                object: object.to_owned(),
                part: "footer",
                needed: FOOTER_LEN as u64,
                have: bytes.len() as u64,
            });
        };
        let damaged = |reason| SealError::Footer { object: object.to_owned(), reason };
        let fields = (|| {
            let (hint, rest) = footer.split_first_chunk::<12>()?;
            let (crc, magic) = rest.split_first_chunk::<4>()?;
            let (at, frames) = hint.split_first_chunk::<8>()?;
            Some((hint, *at, u32::from_le_bytes(*frames.first_chunk()?), u32::from_le_bytes(*crc), magic))
        })();
        let (hint, at, frames, crc, magic) = fields.ok_or_else(|| damaged("it is cut short"))?;
        if magic != FOOTER_MAGIC {
            return Err(damaged("its end is not that of an object: it is cut short, or bytes follow it"));
        }
        if crc != crc32fast::hash(hint) {
            return Err(damaged("its footer was changed: the checksum does not match"));
        }
        Ok(Self { last_frame_at: u64::from_le_bytes(at), frames })
    }
}

/// The bytes of a footer.
pub(super) fn encode_footer(last_frame_at: u64, frames: u32) -> Vec<u8> {
    let mut footer = Vec::with_capacity(FOOTER_LEN);
    footer.extend_from_slice(&last_frame_at.to_le_bytes());
    footer.extend_from_slice(&frames.to_le_bytes());
    footer.extend_from_slice(&crc32fast::hash(&footer).to_le_bytes());
    footer.extend_from_slice(FOOTER_MAGIC);
    footer
}

impl FrameReader {
    /// Derives the key of the object `name` from its header, which may be followed by more of the object.
    ///
    /// # Errors
    /// As [`read_header`]; [`SealError::WrongKind`], [`SealError::UnknownKey`].
    pub fn new(keys: &Keyring, name: &ObjectName<'_>, header: &[u8]) -> Result<Self, SealError> {
        let object = name.path.to_owned();
        let parsed = read_header(keys, name.path, header)?;
        if parsed.kind != name.kind {
            return Err(SealError::WrongKind { object, expected: name.kind, found: parsed.kind });
        }
        let cipher = object_cipher(keys, name, name.kind, parsed.data_key, &parsed, header)?;
        Ok(Self { object, header: parsed, cipher })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Opens the data frame `number`. `stored` is the whole frame with its frame header; it is decrypted in place and is
    /// of no more use. `out` gets the raw bytes in place of what it held, in the memory that it has.
    ///
    /// # Errors
    /// [`SealError::Frame`] with the check that failed.
    pub fn open_frame(&self, number: u32, stored: &mut [u8], out: &mut Vec<u8>) -> Result<(), SealError> {
        let opened = (|| {
            let plain = frame::decrypt(&self.cipher, number, false, stored)?;
            // Not cleared first: bytes that are there already need not be zeroed again to be overwritten.
            out.resize(frame::raw_len(plain)?, 0);
            frame::decompress(self.header.codec, plain, out)
        })();
        opened.map_err(|check| {
            out.clear();
            self.failed(FrameRef::Data(number), check)
        })
    }

    /// The same into the memory that `room` gives for so many raw bytes; with `None` the frame is refused. Answers the raw bytes.
    ///
    /// # Errors
    /// [`SealError::Frame`] with the check that failed.
    pub fn open_frame_in<'o>(
        &self,
        number: u32,
        stored: &mut [u8],
        room: impl FnOnce(usize) -> Option<&'o mut [u8]>,
    ) -> Result<&'o [u8], SealError> {
        let opened = (|| {
            let plain = frame::decrypt(&self.cipher, number, false, stored)?;
            let out = room(frame::raw_len(plain)?).ok_or(FrameCheck::Form)?;
            frame::decompress(self.header.codec, plain, out)?;
            Ok(&*out)
        })();
        opened.map_err(|check| self.failed(FrameRef::Data(number), check))
    }

    /// The same into memory that is exactly as long as the raw bytes must be.
    ///
    /// # Errors
    /// [`SealError::Frame`] with the check that failed; the content of `out` is then undefined.
    pub fn open_frame_into(&self, number: u32, stored: &mut [u8], out: &mut [u8]) -> Result<(), SealError> {
        frame::decrypt(&self.cipher, number, false, stored)
            .and_then(|plain| frame::decompress(self.header.codec, plain, out))
            .map_err(|check| self.failed(FrameRef::Data(number), check))
    }

    /// Opens the last frame where `footer` says it is. `stored` begins there; it may go on after the frame.
    ///
    /// # Errors
    /// [`SealError::Frame`] with the check that failed, also when the index contradicts the footer.
    pub fn open_last(&self, footer: &Footer, stored: &mut [u8]) -> Result<ObjectIndex, SealError> {
        let index = (|| {
            let length = frame::stored_len(stored).and_then(|length| usize::try_from(length).ok());
            let exact = length.and_then(|length| stored.get_mut(..length)).ok_or(FrameCheck::Length)?;
            let plain = frame::decrypt(&self.cipher, footer.frames, true, exact)?;
            let first = self.header.len as u64 + u64::from(self.header.attachment_len);
            let index = parse_index(plain, first).ok_or(FrameCheck::Form)?;
            let end = index.frames.last().map_or(first, |frame| frame.offset + frame.stored_len);
            let fits = index.frames.len() == footer.frames as usize && end == footer.last_frame_at;
            if fits { Ok(index) } else { Err(FrameCheck::Form) }
        })();
        let mut index = index.map_err(|check| self.failed(FrameRef::Last, check))?;
        if self.header.kind == ObjectKind::Pack {
            index.digest = None;
        }
        if self.header.plain_len.is_some_and(|length| length != index.plain_len) {
            return Err(SealError::Content { object: self.object.clone(), what: "length" });
        }
        Ok(index)
    }

    fn failed(&self, frame: FrameRef, check: FrameCheck) -> SealError {
        SealError::Frame { object: self.object.clone(), frame, check }
    }
}

impl std::fmt::Debug for FrameReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameReader({})", self.object)
    }
}

/// The cipher of the object `name`, or of its attachment (`kind` says which). `bytes` begins with the header.
pub(super) fn object_cipher(
    keys: &Keyring,
    name: &ObjectName<'_>,
    kind: ObjectKind,
    key_id: u32,
    header: &Header,
    bytes: &[u8],
) -> Result<FrameCipher, SealError> {
    let object = || name.path.to_owned();
    let class: KeyClass = kind.class();
    let key = keys.find(class, key_id).ok_or_else(|| SealError::UnknownKey {
        object: object(),
        class: class.as_str(),
        id: key_id,
    })?;
    let whole = bytes.get(..header.len).ok_or_else(|| SealError::TooShort {
        object: object(),
        part: "header",
        needed: header.len as u64,
        have: bytes.len() as u64,
    })?;
    let derived = name
        .object_key(kind, key.secret(), &header.salt, whole)
        .map_err(|error| SealError::Cannot { object: object(), reason: error.to_string() })?;
    FrameCipher::new(&derived)
        .map_err(|_| SealError::Cannot { object: object(), reason: "the cipher refuses its key".to_owned() })
}

/// Cuts up the plaintext of the last frame. `first` is where the first data frame begins.
fn parse_index(plain: &[u8], first: u64) -> Option<ObjectIndex> {
    let (plain_len, rest) = plain.split_first_chunk::<8>()?;
    let (digest, rest) = rest.split_first_chunk::<32>()?;
    let (count, entries) = rest.split_first_chunk::<4>()?;
    let plain_len = u64::from_le_bytes(*plain_len);
    let count = u32::from_le_bytes(*count) as usize;
    // The count is believed only if so many entries are there, so the allocation is bounded by the input.
    if entries.len() != count.checked_mul(8)? {
        return None;
    }
    let mut frames = Vec::with_capacity(count);
    let mut offset = first;
    let mut total = 0u64;
    for entry in entries.chunks_exact(8) {
        let (ciphertext, raw) = entry.split_first_chunk::<4>()?;
        let stored_len = u64::from(u32::from_le_bytes(*ciphertext)) + FRAME_HEADER_LEN as u64;
        let raw_len = u32::from_le_bytes(*raw.first_chunk()?);
        if raw_len as usize > MAX_FRAME_BYTES {
            return None;
        }
        frames.push(IndexedFrame { offset, stored_len, raw_len });
        offset = offset.checked_add(stored_len)?;
        total = total.checked_add(u64::from(raw_len))?;
    }
    (total == plain_len).then_some(ObjectIndex {
        plain_len,
        digest: Some(Digest::from_bytes(*digest)),
        frames,
    })
}
