//! Names: the ids that appear in them, and the path of every object, in one place.
//!
//! Paths of the repository and of a cluster are whole; all others are *below the lineage*, which is the form that goes
//! into an object's key. Names read from a store are hostile: whatever does not parse is not ours.

use std::fmt;
use std::str::FromStr;

use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::timeline::TimelineId;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text is not so many lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not {digits} lower-case hexadecimal digits")]
pub struct HexError {
    text: String,
    digits: usize,
}

/// Decodes exactly `N` bytes of lower-case hexadecimal.
pub(crate) fn parse_hex<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let error = || HexError { text: text.chars().take(80).collect(), digits: N * 2 };
    if text.len() != N * 2 || text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(error());
    }
    let mut bytes = [0; N];
    hex::decode_to_slice(text, &mut bytes).map_err(|_| error())?;
    Ok(bytes)
}

/// Defines a 128-bit id that is text as 32 lower-case hexadecimal digits.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 16]);

        impl $name {
            /// A new random id.
            ///
            /// # Errors
            /// The system gives no random bytes.
            pub fn random() -> Result<Self, getrandom::Error> {
                let mut bytes = [0; 16];
                getrandom::fill(&mut bytes)?;
                Ok(Self(bytes))
            }

            /// The id with these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(bytes)
            }

            /// Its bytes.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = HexError;

            fn from_str(text: &str) -> Result<Self, HexError> {
                parse_hex(text).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

hex_id! {
    /// The random id of a lineage (I1).
    LineageId
}
hex_id! {
    /// The random id of a cluster, under whatever name it goes.
    ClusterId
}
hex_id! {
    /// The random id of a repository, wherever it lies.
    RepositoryId
}
hex_id! {
    /// The random id of a host that writes a lineage.
    WriterId
}
hex_id! {
    /// The first 16 bytes of a digest, as names carry them.
    ShortDigest
}

/// The name of a cluster in the repository: 1 to 63 of `[a-z0-9._-]`, beginning with a letter or digit.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterName(String);

/// The text cannot name a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` cannot name a cluster: 1 to 63 of a-z, 0-9, `.`, `_`, `-`, beginning with a letter or digit")]
pub struct ClusterNameError(String);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClusterName {
    type Err = ClusterNameError;

    fn from_str(text: &str) -> Result<Self, ClusterNameError> {
        let begins =
            text.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
        if begins && text.len() <= 63 && text.bytes().all(legal) {
            Ok(Self(text.to_owned()))
        } else {
            Err(ClusterNameError(text.chars().take(80).collect()))
        }
    }
}

impl fmt::Display for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ClusterName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What the repository is.
pub const REPOSITORY: &str = "highwater.json";

/// The directory of all clusters.
pub const CLUSTERS: &str = "clusters";

/// The directory of one cluster.
pub fn cluster_dir(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}/{cluster}")
}

/// What a cluster is.
pub fn cluster_object(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}/{cluster}/cluster.json")
}

/// One generation of a cluster's keyring.
pub fn keyring_object(cluster: &ClusterName, generation: u32) -> String {
    format!("{CLUSTERS}/{cluster}/keys/{generation:08}.age")
}

/// The directory of a cluster's keyring.
pub fn keyring_dir(cluster: &ClusterName) -> String {
    format!("{CLUSTERS}/{cluster}/keys/")
}

/// The directory of one lineage.
pub fn lineage_dir(cluster: &ClusterName, lineage: LineageId) -> String {
    format!("{CLUSTERS}/{cluster}/{lineage}")
}

/// The identity of a lineage, below it.
pub const LINEAGE: &str = "lineage";

/// The mark that ends a lineage, below it.
pub const CLOSED: &str = "closed";

/// Where WAL lies, below the lineage.
pub const WAL: &str = "wal/";

/// Where backups lie, below the lineage.
pub const BACKUPS: &str = "backups/";

/// Where packs lie, below the lineage.
pub const PACKS: &str = "packs/";

/// Where the packs of one backup lie, below the lineage.
pub fn packs_of(backup: &impl fmt::Display) -> String {
    format!("{PACKS}{backup}/")
}

/// A pack of the backup `backup`, below the lineage.
pub fn pack(backup: &impl fmt::Display, number: u32) -> String {
    format!("{PACKS}{backup}/{number:06}")
}

/// The first write of a backup, below the lineage.
pub fn backup_intent(backup: &impl fmt::Display) -> String {
    format!("{BACKUPS}{backup}/intent")
}

/// The last write of a backup, its commit point, below the lineage.
pub fn backup_manifest(backup: &impl fmt::Display) -> String {
    format!("{BACKUPS}{backup}/manifest")
}

/// The copy of the keyring generation that a backup was made with, below the lineage.
pub fn backup_keyring(backup: &impl fmt::Display) -> String {
    format!("{BACKUPS}{backup}/keyring")
}

/// A part of one of a backup's streams (`files`, `relations`), below the lineage.
pub fn backup_part(backup: &impl fmt::Display, stream: &str, number: usize, digest: ShortDigest) -> String {
    format!("{BACKUPS}{backup}/{stream}.{number:04}.{digest}")
}

/// How names that could race are written in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NameMode {
    /// As they are: the store honours conditional creates.
    Plain,
    /// With the content's digest: it does not.
    Content,
}

impl NameMode {
    /// The name under which content with this digest is stored as `path`.
    pub fn name(self, path: &str, digest: ShortDigest) -> String {
        match self {
            Self::Plain => path.to_owned(),
            Self::Content => format!("{path}.{digest}"),
        }
    }
}

/// Splits `<name>.<32 hex>`, as stores without a conditional create have names (I4).
pub fn split_content_name(name: &str) -> Option<(&str, ShortDigest)> {
    let (stem, digest) = name.rsplit_once('.')?;
    Some((stem, digest.parse().ok()?)).filter(|_| !stem.is_empty())
}

/// The directory of a timeline's WAL, below the lineage.
pub fn wal_dir(timeline: TimelineId) -> String {
    format!("{WAL}{}", timeline.hex())
}

/// A WAL file, below the lineage.
pub fn wal_object(file: &WalFile) -> String {
    match file {
        WalFile::History(_) => format!("{WAL}{file}"),
        WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup { segment, .. } => {
            format!("{}/{:08X}/{file}", wal_dir(segment.timeline), segment.log)
        }
    }
}

/// Who writes a timeline, below the lineage.
pub fn wal_claim(timeline: TimelineId) -> String {
    format!("{}/claim", wal_dir(timeline))
}

/// A part of a large segment, below the lineage.
pub fn wal_part(segment: SegmentName, number: u32, digest: ShortDigest) -> String {
    format!("{}.part.{number:04}.{digest}", wal_object(&WalFile::Segment(segment)))
}

/// Another valid end of a segment that is kept beside it, below the lineage.
pub fn wal_variant(segment: SegmentName, digest: ShortDigest) -> String {
    format!("{}.variant.{digest}", wal_object(&WalFile::Segment(segment)))
}

/// What an object below `wal/` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalEntry {
    /// A WAL file; with the digest in its name, where names carry the content.
    File(WalFile, Option<ShortDigest>),
    /// The claim of a timeline; likewise.
    Claim(TimelineId, Option<ShortDigest>),
    /// A part of a large segment.
    Part(SegmentName, u32, ShortDigest),
    /// Another valid end of a segment.
    Variant(SegmentName, ShortDigest),
}

impl WalEntry {
    /// Reads a path below the lineage; `None` for whatever is not exactly a name that we write in this mode.
    pub fn parse(path: &str, mode: NameMode) -> Option<Self> {
        let name = path.rsplit('/').next()?;
        let entry = Self::parse_name(path, name, mode)?;
        // Written again it must be the same path: in the right directory, in the right case, nothing beside it.
        (entry.path() == path).then_some(entry)
    }

    /// The path below the lineage.
    pub fn path(&self) -> String {
        let (stem, digest) = match self {
            Self::File(file, digest) => (wal_object(file), *digest),
            Self::Claim(timeline, digest) => (wal_claim(*timeline), *digest),
            Self::Part(segment, number, digest) => return wal_part(*segment, *number, *digest),
            Self::Variant(segment, digest) => return wal_variant(*segment, *digest),
        };
        digest.map_or_else(|| stem.clone(), |digest| NameMode::Content.name(&stem, digest))
    }

    fn parse_name(path: &str, name: &str, mode: NameMode) -> Option<Self> {
        if let Some((stem, digest)) = split_content_name(name) {
            if let Some(segment) = stem.strip_suffix(".variant") {
                return Some(Self::Variant(segment.parse().ok()?, digest));
            }
            if let Some((segment, number)) = stem.rsplit_once(".part.") {
                return Some(Self::Part(segment.parse().ok()?, number.parse().ok()?, digest));
            }
        }
        let (stem, digest) = match mode {
            NameMode::Plain => (name, None),
            NameMode::Content => split_content_name(name).map(|(stem, digest)| (stem, Some(digest)))?,
        };
        if stem == "claim" {
            let timeline = path.strip_prefix(WAL)?.get(..8)?;
            let timeline = TimelineId::new(u32::from_str_radix(timeline, 16).ok()?)?;
            return Some(Self::Claim(timeline, digest));
        }
        Some(Self::File(stem.parse().ok()?, digest))
    }
}

#[cfg(test)]
mod tests;
