//! The header of a sealed object: what it says, how it is written, how it is believed.

use sha2::{Digest as _, Sha256};

use super::{Codec, Digest, ObjectKind, SealError};
use crate::keyring::{KeyClass, Keyring};

const MAGIC: &[u8; 8] = b"HIGHWATR";
const VERSION: u16 = 1;
const CIPHER_AES_256_GCM: u8 = 1;
const WRAP_KEYRING: u8 = 0;
const NOT_YET: u64 = u64::MAX;
const FIXED_LEN: usize = 122;
const MAC_LEN: usize = 32;

/// Length of the header that this version writes, MAC included, in bytes.
pub const HEADER_LEN: usize = FIXED_LEN + MAC_LEN;

/// The longest header that the format can hold, in bytes.
pub const MAX_HEADER_LEN: usize = u16::MAX as usize;

/// A header that its MAC has confirmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// What the object is.
    pub kind: ObjectKind,
    /// How its frames are compressed.
    pub codec: Codec,
    /// The data key that its own key was derived from.
    pub data_key: u32,
    /// The identity key of the MAC and the digest.
    pub identity_key: u32,
    /// The metadata key of the attachment; `None` without one.
    pub metadata_key: Option<u32>,
    /// Length of the attachment frame in bytes, its frame header included; 0 without one.
    pub attachment_len: u32,
    /// The keyed digest of what the object stands for; `None` when it is only in the last frame.
    pub digest: Option<Digest>,
    /// Length of the plaintext in bytes; `None` when it is only in the last frame.
    pub plain_len: Option<u64>,
    /// WAL: how many bytes of the canonical form are not zero filling. Else the plaintext's length, where known.
    pub valid_len: Option<u64>,
    /// Length of the header itself in bytes.
    pub len: usize,
    pub(super) salt: [u8; 32],
    /// SHA-256 of the header's bytes: two headers with the same one are the same header.
    pub sha256: [u8; 32],
}

/// What a header is made from.
pub(super) struct HeaderFields {
    pub(super) kind: ObjectKind,
    pub(super) codec: Codec,
    pub(super) data_key: u32,
    pub(super) metadata_key: u32,
    pub(super) attachment_len: u32,
    pub(super) salt: [u8; 32],
    pub(super) digest: Option<Digest>,
    pub(super) plain_len: Option<u64>,
    pub(super) valid_len: Option<u64>,
}

/// The bytes of a header, MAC included.
pub(super) fn encode(keys: &Keyring, fields: &HeaderFields) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(HEADER_LEN);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(HEADER_LEN as u16).to_le_bytes());
    bytes.extend_from_slice(&[fields.kind.id(), fields.codec.id(), CIPHER_AES_256_GCM, WRAP_KEYRING]);
    bytes.extend_from_slice(&fields.data_key.to_le_bytes());
    bytes.extend_from_slice(&keys.identity_id().to_le_bytes());
    bytes.extend_from_slice(&fields.metadata_key.to_le_bytes());
    bytes.extend_from_slice(&fields.attachment_len.to_le_bytes());
    bytes.extend_from_slice(&fields.salt);
    bytes.push(u8::from(fields.digest.is_some()));
    bytes.extend_from_slice(&[0; 7]);
    bytes.extend_from_slice(&fields.digest.map_or([0; 32], |digest| *digest.as_bytes()));
    bytes.extend_from_slice(&fields.plain_len.unwrap_or(NOT_YET).to_le_bytes());
    bytes.extend_from_slice(&fields.valid_len.unwrap_or(NOT_YET).to_le_bytes());
    bytes.extend_from_slice(&0u16.to_le_bytes());
    let mac = keys.header_mac(&bytes);
    bytes.extend_from_slice(mac.as_bytes());
    bytes
}

/// Reads the header at the beginning of `bytes`, which may go on after it. `object` is its path, for messages.
///
/// Nothing of it is used, or compared with anything, before its MAC has been checked, in constant time.
///
/// # Errors
/// [`SealError::TooShort`] says how many bytes are needed ([`HEADER_LEN`] are enough for this version's own);
/// [`SealError::NotSealed`], [`SealError::UnknownKey`], [`SealError::HeaderMac`], [`SealError::Unsupported`],
/// [`SealError::Malformed`].
pub fn read_header(keys: &Keyring, object: &str, bytes: &[u8]) -> Result<Header, SealError> {
    let name = || object.to_owned();
    let too_short = |needed: usize| SealError::TooShort {
        object: name(),
        part: "header",
        needed: needed as u64,
        have: bytes.len() as u64,
    };
    if !bytes.starts_with(MAGIC) {
        let cut = MAGIC.starts_with(bytes);
        return Err(if cut { too_short(HEADER_LEN) } else { SealError::NotSealed { object: name() } });
    }
    let mut fields = Fields(bytes);
    let head = (|| {
        fields.array::<8>()?;
        Some((fields.u16()?, usize::from(fields.u16()?)))
    })();
    let (version, len) = head.ok_or_else(|| too_short(HEADER_LEN))?;
    let unsupported =
        |field: &'static str, value: u64| Err(SealError::Unsupported { object: name(), field, value });
    if version != VERSION {
        return unsupported("version", u64::from(version));
    }
    if len < HEADER_LEN {
        return Err(SealError::Malformed { object: name(), reason: "it is shorter than any header" });
    }
    let whole = bytes.get(..len).ok_or_else(|| too_short(len))?;
    let (body, mac) = whole.split_last_chunk::<MAC_LEN>().ok_or_else(|| too_short(len))?;
    let raw = parse(body).ok_or_else(|| SealError::Malformed { object: name(), reason: "it is cut" })?;

    if raw.identity_key != keys.identity_id() {
        return Err(SealError::UnknownKey {
            object: name(),
            class: KeyClass::Identity.as_str(),
            id: raw.identity_key,
        });
    }
    if keys.header_mac(body) != blake3::Hash::from_bytes(*mac) {
        return Err(SealError::HeaderMac { object: name() });
    }

    let Some(kind) = ObjectKind::from_id(raw.kind) else { return unsupported("kind", u64::from(raw.kind)) };
    let Some(codec) = Codec::from_id(raw.codec) else { return unsupported("codec", u64::from(raw.codec)) };
    if raw.cipher != CIPHER_AES_256_GCM {
        return unsupported("cipher", u64::from(raw.cipher));
    }
    if raw.wrap != WRAP_KEYRING {
        return unsupported("key wrap", u64::from(raw.wrap));
    }
    if (raw.attachment_len == 0) != (raw.metadata_key == 0) {
        return Err(SealError::Malformed {
            object: name(),
            reason: "attachment and metadata key contradict",
        });
    }
    let digest = match raw.digest_place {
        0 => None,
        1 => Some(Digest::from_bytes(raw.digest)),
        other => return unsupported("digest place", u64::from(other)),
    };
    let known = |length: u64| (length != NOT_YET).then_some(length);
    Ok(Header {
        kind,
        codec,
        data_key: raw.data_key,
        identity_key: raw.identity_key,
        metadata_key: (raw.metadata_key != 0).then_some(raw.metadata_key),
        attachment_len: raw.attachment_len,
        digest,
        plain_len: known(raw.plain_len),
        valid_len: known(raw.valid_len),
        len,
        salt: raw.salt,
        sha256: Sha256::digest(whole).into(),
    })
}

/// The lengths that a scrub needs, read without a key and so without belief: header length and attachment length.
pub(super) fn lengths_unverified(bytes: &[u8]) -> Option<(usize, u32)> {
    if !bytes.starts_with(MAGIC) {
        return None;
    }
    let len = usize::from(u16::from_le_bytes(*bytes.get(10..)?.first_chunk()?));
    let attachment_len = u32::from_le_bytes(*bytes.get(28..)?.first_chunk()?);
    (len >= HEADER_LEN && len <= bytes.len()).then_some((len, attachment_len))
}

/// The fields as they stand, before the MAC was checked.
struct RawHeader {
    kind: u8,
    codec: u8,
    cipher: u8,
    wrap: u8,
    data_key: u32,
    identity_key: u32,
    metadata_key: u32,
    attachment_len: u32,
    salt: [u8; 32],
    digest_place: u8,
    digest: [u8; 32],
    plain_len: u64,
    valid_len: u64,
}

/// Cuts the fields out of a header without its MAC; `None` when it is too short, or the extension does not fit.
fn parse(body: &[u8]) -> Option<RawHeader> {
    let mut fields = Fields(body.get(12..)?);
    let raw = RawHeader {
        kind: fields.u8()?,
        codec: fields.u8()?,
        cipher: fields.u8()?,
        wrap: fields.u8()?,
        data_key: fields.u32()?,
        identity_key: fields.u32()?,
        metadata_key: fields.u32()?,
        attachment_len: fields.u32()?,
        salt: fields.array()?,
        digest_place: {
            let place = fields.u8()?;
            fields.array::<7>()?;
            place
        },
        digest: fields.array()?,
        plain_len: fields.u64()?,
        valid_len: fields.u64()?,
    };
    let extension_len = usize::from(fields.u16()?);
    (fields.0.len() == extension_len).then_some(raw)
}

/// What is left to read of a run of little-endian fields.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(u8::from_le_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }
}
