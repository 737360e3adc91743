//! What an object is, and the key that follows from it (I6).

use std::fmt;
use std::str::FromStr;

use hkdf::{Hkdf, InvalidLength};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::keyring::KeyClass;
pub use crate::names::LineageId;
use crate::names::{HexError, parse_hex};

/// What a sealed object is. The number is stored; it never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ObjectKind {
    /// A WAL segment, its `.partial`, or a shorter variant of it.
    Segment = 1,
    /// `.history` or `.backup`.
    SmallWal = 2,
    /// The commit object of a segment that is stored in parts.
    SegmentCommit = 3,
    /// A part of a large segment.
    SegmentPart = 4,
    /// The streamed end of WAL.
    Tail = 5,
    /// Extents of data files.
    Pack = 6,
    /// A backup's manifest.
    Manifest = 7,
    /// A backup's file list.
    FileList = 8,
    /// A backup's intent.
    Intent = 9,
    /// The identity of a lineage.
    Lineage = 10,
    /// The mark that ends a lineage.
    Closed = 11,
    /// Who writes a timeline.
    Claim = 12,
    /// Evidence of a restore.
    Evidence = 13,
    /// The attachment of another object: only in key derivation, never an object.
    Attachment = 14,
}

/// A row of the table of kinds.
const KINDS: [(ObjectKind, &str, KeyClass); 14] = [
    (ObjectKind::Segment, "WAL segment", KeyClass::Content),
    (ObjectKind::SmallWal, "small WAL file", KeyClass::Content),
    (ObjectKind::SegmentCommit, "commit object of a WAL segment", KeyClass::Content),
    (ObjectKind::SegmentPart, "part of a WAL segment", KeyClass::Content),
    (ObjectKind::Tail, "tail of WAL", KeyClass::Content),
    (ObjectKind::Pack, "pack", KeyClass::Content),
    (ObjectKind::Manifest, "backup manifest", KeyClass::Metadata),
    (ObjectKind::FileList, "file list of a backup", KeyClass::Metadata),
    (ObjectKind::Intent, "backup intent", KeyClass::Metadata),
    (ObjectKind::Lineage, "lineage", KeyClass::Metadata),
    (ObjectKind::Closed, "closing mark of a lineage", KeyClass::Metadata),
    (ObjectKind::Claim, "timeline claim", KeyClass::Metadata),
    (ObjectKind::Evidence, "evidence of a restore", KeyClass::Metadata),
    (ObjectKind::Attachment, "attachment", KeyClass::Metadata),
];

impl ObjectKind {
    /// The number that is stored.
    pub fn id(self) -> u8 {
        self as u8
    }

    /// The kind with this stored number.
    pub fn from_id(id: u8) -> Option<Self> {
        KINDS.iter().map(|row| row.0).find(|kind| kind.id() == id)
    }

    /// The class of key that seals it (I7).
    pub fn class(self) -> KeyClass {
        KINDS.iter().find(|row| row.0 == self).map_or(KeyClass::Content, |row| row.2)
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(KINDS.iter().find(|row| row.0 == *self).map_or("object", |row| row.1))
    }
}

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

    /// The first 16 bytes as 32 hexadecimal digits: what names carry.
    pub fn short(&self) -> String {
        let mut text = hex::encode(self.0);
        text.truncate(32);
        text
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

/// What an object is and where it lies in its lineage: what its key is bound to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectName<'a> {
    /// What it is.
    pub kind: ObjectKind,
    /// The lineage it belongs to.
    pub lineage: LineageId,
    /// Its path below the lineage.
    pub path: &'a str,
}

impl ObjectName<'_> {
    /// The key of this object alone. `header` is the whole header, MAC included; `kind` differs from the object's own
    /// only for its attachment.
    pub(super) fn object_key(
        &self,
        kind: ObjectKind,
        secret: &[u8; 32],
        salt: &[u8; 32],
        header: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, InvalidLength> {
        let header_hash = Sha256::digest(header);
        derive(
            secret,
            salt,
            &[
                b"highwater object v1",
                &[kind.id()],
                self.lineage.as_bytes(),
                self.path.as_bytes(),
                header_hash.as_slice(),
            ],
        )
    }
}
