//! AES-256-GCM for frames: in place, the tag detached.
//!
//! A nonce is the number of a frame. It never repeats under one key, since every object has a key of its own, the
//! frames of an object are numbered, and the attachment has another key.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Key, Nonce, Tag};

/// Bytes of a tag.
pub(super) const TAG_LEN: usize = 16;

/// The cipher under the key of one object.
pub(super) struct FrameCipher(Aes256Gcm);

/// The tag does not match.
#[derive(Debug)]
pub(super) struct TagMismatch;

impl FrameCipher {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(Aes256Gcm::new(&Key::<Aes256Gcm>::from(*key)))
    }

    /// Encrypts `bytes` in place as the frame `number` and answers its tag.
    pub(super) fn seal(
        &self,
        number: u32,
        last: bool,
        bytes: &mut [u8],
    ) -> Result<[u8; TAG_LEN], TagMismatch> {
        let tag = self
            .0
            .encrypt_inout_detached(&nonce(number), &associated(number, last), bytes.into())
            .map_err(|_| TagMismatch)?;
        Ok(tag.into())
    }

    /// Decrypts `bytes` in place. They are garbage when the tag does not match, and must not be used.
    pub(super) fn open(
        &self,
        number: u32,
        last: bool,
        bytes: &mut [u8],
        tag: &[u8; TAG_LEN],
    ) -> Result<(), TagMismatch> {
        self.0
            .decrypt_inout_detached(&nonce(number), &associated(number, last), bytes.into(), &Tag::from(*tag))
            .map_err(|_| TagMismatch)
    }
}

fn nonce(number: u32) -> Nonce<aes_gcm::aead::consts::U12> {
    let mut bytes = [0; 12];
    if let Some(tail) = bytes.last_chunk_mut::<4>() {
        *tail = number.to_be_bytes();
    }
    Nonce::from(bytes)
}

fn associated(number: u32, last: bool) -> [u8; 9] {
    let mut bytes = [0; 9];
    if let Some(head) = bytes.first_chunk_mut::<8>() {
        *head = u64::from(number).to_le_bytes();
    }
    if let Some(flag) = bytes.last_mut() {
        *flag = u8::from(last);
    }
    bytes
}
