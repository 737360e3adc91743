//! Digests, MACs and derived keys: what the keyring and sealing are both made of.

use std::fmt;
use std::str::FromStr;

use hkdf::{Hkdf, InvalidLength};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::names::{HexError, ShortDigest, parse_hex};

/// The keyed digest of content: says "the same" to those who hold the identity key, and nothing to others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

impl Digest {
    /// The digest with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 16 bytes: what names carry.
    pub fn short(&self) -> ShortDigest {
        ShortDigest::from_bytes(*self.0.first_chunk().unwrap_or(&[0; 16]))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Digest {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        parse_hex(text).map(Self)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How much of something longer is read, looked at and digested in one go, in bytes: it is still in the processor's own cache
/// when the next of the three passes over it.
pub const PIECE_BYTES: usize = 256 << 10;

/// A keyed digest in the making.
pub struct Digester(blake3::Hasher);

impl Digester {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes taken so far.
    pub fn finalize(&self) -> Digest {
        Digest(*self.0.finalize().as_bytes())
    }
}

impl fmt::Debug for Digester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Digester")
    }
}

/// A BLAKE3 key that follows from the identity key: for digests, or for header MACs.
#[derive(Clone)]
pub(crate) struct MacKey(Zeroizing<[u8; 32]>);

impl MacKey {
    /// Derives the key for the use that `info` names.
    pub(crate) fn derive(identity: &[u8; 32], info: &str) -> Result<Self, InvalidLength> {
        Ok(Self(derive(identity, &[], &[info.as_bytes()])?))
    }

    /// The MAC of `bytes`. Comparing two of blake3's hashes takes constant time.
    pub(crate) fn mac(&self, bytes: &[u8]) -> blake3::Hash {
        blake3::keyed_hash(&self.0, bytes)
    }

    /// The same as a digest of content.
    pub(crate) fn digest(&self, bytes: &[u8]) -> Digest {
        Digest(*self.mac(bytes).as_bytes())
    }

    /// The same, fed piece by piece.
    pub(crate) fn digester(&self) -> Digester {
        Digester(blake3::Hasher::new_keyed(&self.0))
    }
}

/// HKDF-SHA-256 to 32 bytes. It refuses only outputs of more than 255 blocks, and this is one; an error is handed on all
/// the same, because the alternative to a key must never be a key of zeros.
pub(crate) fn derive(
    secret: &[u8; 32],
    salt: &[u8],
    info: &[&[u8]],
) -> Result<Zeroizing<[u8; 32]>, InvalidLength> {
    let mut key = Zeroizing::new([0; 32]);
    Hkdf::<Sha256>::new(Some(salt), secret).expand_multi_info(info, key.as_mut_slice())?;
    Ok(key)
}
