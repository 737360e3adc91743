//! What an object is, and the key that follows from it (I6).

use std::fmt;

use hkdf::InvalidLength;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use crate::keyed::derive;
use crate::keyring::KeyClass;
pub use crate::names::LineageId;

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
