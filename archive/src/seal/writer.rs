//! Writing an object frame by frame.
//!
//! The buffer is the object: each frame is compressed into the tail of what is there and encrypted where it lies. The
//! buffer keeps its length from use to use, so that room is zeroed only the first time it is touched.

use super::cipher::FrameCipher;
use super::codec::Codec;
use super::header::{self, HeaderFields};
use super::{Digest, Digester, FrameRef, MAX_FRAME_BYTES, ObjectKind, ObjectName, SealError, frame, reader};
use crate::keyring::Keyring;

/// Builds one sealed object. Its salt, and so its key, is drawn when it begins and can be used once (I6).
pub struct FrameWriter {
    object: String,
    codec: Codec,
    cipher: FrameCipher,
    buffer: Vec<u8>,
    used: usize,
    /// Bytes of the object that lie before the buffer, in pieces of their own.
    before: u64,
    header_len: usize,
    frames: Vec<StoredLengths>,
    plain_len: u64,
    digest: RunningDigest,
}

/// What the frame index says of a frame.
#[derive(Clone, Copy)]
struct StoredLengths {
    ciphertext: u32,
    raw: u32,
}

/// What the last frame will say of the whole plaintext.
enum RunningDigest {
    /// Packs: each extent has its own in the manifest.
    Unused,
    /// The caller knew it before.
    Known(Digest),
    /// Taken while the frames go by. Boxed, because a hasher is two kilobytes.
    Running(Box<Digester>),
}

/// Where a frame has come to lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameAt {
    /// Its number, from 0.
    pub frame: u32,
    /// Where it begins in the object, in bytes.
    pub offset: u64,
    /// Its length in the object, frame header included.
    pub stored_len: u32,
}

/// A finished object.
#[derive(Debug)]
pub struct Sealed {
    /// All its bytes.
    pub bytes: Vec<u8>,
    /// The keyed digest of its plaintext; `None` for packs, whose extents have their own.
    pub digest: Option<Digest>,
}

/// What is known of an object before its first frame.
#[derive(Default)]
pub(super) struct Foreknown<'a> {
    /// The header's digest.
    pub(super) header_digest: Option<Digest>,
    /// The plaintext's own digest, when it need not be taken again.
    pub(super) plain_digest: Option<Digest>,
    pub(super) plain_len: Option<u64>,
    pub(super) valid_len: Option<u64>,
    pub(super) attachment: Option<&'a [u8]>,
}

impl FrameWriter {
    /// Begins an object whose length and digest will stand in its last frame. `buffer` gives its memory; what it holds is
    /// overwritten. An object of 32 MiB that is given as much capacity never moves it.
    ///
    /// # Errors
    /// [`SealError::UnknownKey`], or [`SealError::Cannot`] when the system gives no random bytes.
    pub fn begin(
        keys: &Keyring,
        name: &ObjectName<'_>,
        codec: Codec,
        buffer: Vec<u8>,
    ) -> Result<Self, SealError> {
        Self::begin_knowing(keys, name, codec, buffer, &Foreknown::default())
    }

    pub(super) fn begin_knowing(
        keys: &Keyring,
        name: &ObjectName<'_>,
        codec: Codec,
        buffer: Vec<u8>,
        known: &Foreknown<'_>,
    ) -> Result<Self, SealError> {
        let object = name.path.to_owned();
        let cannot = |reason: String| SealError::Cannot { object: object.clone(), reason };
        let mut salt = [0; 32];
        getrandom::fill(&mut salt).map_err(|error| cannot(format!("no random bytes: {error}")))?;

        // The attachment is compressed first, because the header holds its stored length.
        let mut attachment = match known.attachment {
            None => Vec::new(),
            Some(plain) if plain.len() > MAX_FRAME_BYTES => {
                return Err(too_large(&object, "an attachment", plain.len()));
            }
            Some(plain) => {
                let mut bytes = vec![0; frame::room_for(codec, plain.len())];
                let length =
                    frame::compress(codec, plain, &mut bytes).ok_or_else(|| cannot("attachment".into()))?;
                bytes.truncate(length);
                bytes
            }
        };
        let data_key = keys.current(name.kind.class());
        let metadata_key = keys.current(crate::keyring::KeyClass::Metadata);
        let header = header::encode(
            keys,
            &HeaderFields {
                kind: name.kind,
                codec,
                data_key: data_key.id(),
                metadata_key: if attachment.is_empty() { 0 } else { metadata_key.id() },
                attachment_len: u32::try_from(attachment.len())
                    .map_err(|_| too_large(&object, "an attachment", attachment.len()))?,
                salt,
                digest: known.header_digest,
                plain_len: known.plain_len,
                valid_len: known.valid_len,
            },
        );
        let derive = |kind, secret: &[u8; 32]| {
            let key =
                name.object_key(kind, secret, &salt, &header).map_err(|error| cannot(error.to_string()))?;
            FrameCipher::new(&key).map_err(|_| cannot("the cipher refuses its key".into()))
        };
        let cipher = derive(name.kind, data_key.secret())?;
        if !attachment.is_empty() {
            let own = derive(ObjectKind::Attachment, metadata_key.secret())?;
            frame::seal(&own, 0, true, &mut attachment).ok_or_else(|| cannot("attachment".into()))?;
        }
        let digest = match (name.kind, known.plain_digest) {
            (ObjectKind::Pack, _) => RunningDigest::Unused,
            (_, Some(digest)) => RunningDigest::Known(digest),
            (_, None) => RunningDigest::Running(Box::new(keys.digester())),
        };
        let mut writer = Self {
            object,
            codec,
            cipher,
            buffer,
            used: 0,
            before: 0,
            header_len: header.len(),
            frames: Vec::new(),
            plain_len: 0,
            digest,
        };
        writer.put(&header)?;
        writer.put(&attachment)?;
        Ok(writer)
    }

    /// Compresses and seals `raw` as the next frame.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] above [`MAX_FRAME_BYTES`].
    pub fn append(&mut self, raw: &[u8]) -> Result<FrameAt, SealError> {
        if raw.len() > MAX_FRAME_BYTES {
            return Err(too_large(&self.object, "a frame", raw.len()));
        }
        let number =
            u32::try_from(self.frames.len()).map_err(|_| too_large(&self.object, "an object", usize::MAX))?;
        let codec = self.codec;
        let offset = self.len();
        let room = self.room(frame::room_for(codec, raw.len()));
        let length = room.and_then(|room| frame::compress(codec, raw, room));
        let sealed =
            length.and_then(|length| self.seal_tail(number, false, length)).ok_or_else(|| self.cannot())?;
        if let RunningDigest::Running(digester) = &mut self.digest {
            digester.update(raw);
        }
        self.plain_len += raw.len() as u64;
        // Both fit: a frame is at most a little over MAX_FRAME_BYTES.
        self.frames.push(StoredLengths {
            ciphertext: sealed - frame::FRAME_HEADER_LEN as u32,
            raw: raw.len() as u32,
        });
        Ok(FrameAt { frame: number, offset, stored_len: sealed })
    }

    /// The header, as it stands at the beginning of the object, while that is still here: what a manifest keeps to read single frames.
    pub fn header(&self) -> &[u8] {
        self.buffer.get(..self.header_len).unwrap_or_default()
    }

    /// Bytes of the object so far.
    pub fn len(&self) -> u64 {
        self.before + self.used as u64
    }

    /// Whether no frame has been appended.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames so far.
    pub fn frames(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Bytes that were appended so far, before compression.
    pub fn plain_len(&self) -> u64 {
        self.plain_len
    }

    /// Writes the last frame and the footer, and hands the object out.
    ///
    /// # Errors
    /// [`SealError::TooLarge`] when the frame index does not fit a frame.
    pub fn finish(mut self) -> Result<Sealed, SealError> {
        let digest = match &self.digest {
            RunningDigest::Unused => None,
            RunningDigest::Known(digest) => Some(*digest),
            RunningDigest::Running(digester) => Some(digester.finalize()),
        };
        let count = self.frames();
        let last_at = self.len();
        let plain_len = index_len(self.frames.len());
        let frame_len = frame::FRAME_HEADER_LEN + plain_len + super::cipher::TAG_LEN;
        let mut index = Vec::with_capacity(plain_len);
        index.extend_from_slice(&self.plain_len.to_le_bytes());
        index.extend_from_slice(&digest.map_or([0; 32], |digest| *digest.as_bytes()));
        index.extend_from_slice(&count.to_le_bytes());
        for lengths in &self.frames {
            index.extend_from_slice(&lengths.ciphertext.to_le_bytes());
            index.extend_from_slice(&lengths.raw.to_le_bytes());
        }
        let laid = self.room(frame_len).and_then(|room| {
            room.get_mut(frame::FRAME_HEADER_LEN..frame::FRAME_HEADER_LEN + plain_len)?
                .copy_from_slice(&index);
            Some(())
        });
        laid.and_then(|()| self.seal_tail(count, true, frame_len)).ok_or_else(|| self.cannot())?;
        self.put(&reader::encode_footer(last_at, count))?;
        self.buffer.truncate(self.used);
        Ok(Sealed { bytes: self.buffer, digest })
    }

    /// Hands out what has been written, as the piece of the object that comes next, and goes on in `buffer`, whose allocation is
    /// kept and whose content is dropped.
    pub fn go_on_in(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        self.buffer.truncate(self.used);
        self.before += self.used as u64;
        self.used = 0;
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// What has been written since [`go_on_in`](Self::go_on_in).
    pub fn written(&self) -> &[u8] {
        self.buffer.get(..self.used).unwrap_or_default()
    }

    /// Goes on in `buffer` behind its first `used` bytes: the caller has moved the last ones of the object there. Answers the buffer that
    /// was in use, whose content is of no use any more.
    pub fn go_on_behind(&mut self, buffer: Vec<u8>, used: usize) -> Vec<u8> {
        self.before = self.len().saturating_sub(used as u64);
        self.used = used;
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Whether another frame of `raw_len` bytes may outgrow the allocation of the buffer.
    pub fn is_tight_for(&self, raw_len: usize) -> bool {
        self.buffer.capacity().saturating_sub(self.used) < frame::room_for(self.codec, raw_len)
    }

    /// Seals a frame where it lies, as a piece of its own behind those that were handed out.
    pub(super) fn seal_apart(&mut self, laid: &mut [u8], raw_len: u32) -> Result<(), SealError> {
        let sealed = frame::seal(&self.cipher, self.frames(), false, laid);
        let stored_len = u32::try_from(laid.len()).ok().filter(|_| sealed.is_some());
        let stored_len = stored_len.ok_or_else(|| self.cannot())?;
        self.before += u64::from(stored_len);
        self.plain_len += u64::from(raw_len);
        let ciphertext = stored_len - frame::FRAME_HEADER_LEN as u32;
        self.frames.push(StoredLengths { ciphertext, raw: raw_len });
        Ok(())
    }

    /// At least `length` bytes after what is used.
    fn room(&mut self, length: usize) -> Option<&mut [u8]> {
        let end = self.used.checked_add(length)?;
        if self.buffer.len() < end {
            self.buffer.resize(end, 0);
        }
        self.buffer.get_mut(self.used..end)
    }

    /// Encrypts the `length` bytes after what is used as a frame, and counts them as used.
    fn seal_tail(&mut self, number: u32, last: bool, length: usize) -> Option<u32> {
        let stored_len = u32::try_from(length).ok()?;
        let end = self.used.checked_add(length)?;
        frame::seal(&self.cipher, number, last, self.buffer.get_mut(self.used..end)?)?;
        self.used = end;
        Some(stored_len)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), SealError> {
        let copied = self.room(bytes.len()).map(|room| room.copy_from_slice(bytes));
        copied.ok_or_else(|| self.cannot())?;
        self.used += bytes.len();
        Ok(())
    }

    fn cannot(&self) -> SealError {
        let frame = u32::try_from(self.frames.len()).map_or(FrameRef::Last, FrameRef::Data);
        SealError::Cannot { object: self.object.clone(), reason: format!("{frame} does not fit the format") }
    }
}

impl std::fmt::Debug for FrameWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FrameWriter({}, {} frames, {} bytes)", self.object, self.frames.len(), self.used)
    }
}

/// Bytes of the frame index of so many frames, before they are sealed.
const fn index_len(frames: usize) -> usize {
    8 + 32 + 4 + 8 * frames
}

/// Bytes that the end of an object takes: the index of so many frames, and the footer.
pub const fn room_to_finish(frames: usize) -> usize {
    frame::FRAME_HEADER_LEN + index_len(frames) + super::cipher::TAG_LEN + reader::FOOTER_LEN
}

pub(super) fn too_large(object: &str, what: &'static str, bytes: usize) -> SealError {
    SealError::TooLarge {
        object: object.to_owned(),
        what,
        bytes: bytes as u64,
        limit: MAX_FRAME_BYTES as u64,
    }
}
