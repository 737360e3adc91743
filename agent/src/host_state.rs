//! Which lineage this data directory writes: `<PGDATA>/highwater/lineage.json`.
//!
//! `init` and `adopt` write it. Backups leave the directory out and restores never bring it back, so a restored copy has none and
//! cannot archive into the lineage of the cluster it was copied from (I1): `archive-push` fails until `adopt` has decided. The
//! random writer id is what claims timelines.
//!
//! A copy made by other means, as a standby is by `pg_basebackup`, brings the file along. So it also says which directory it was
//! written for: inode and time of birth of `<PGDATA>/highwater`, which no copy shares, and which neither another hostname nor
//! another device changes. A copy that is promoted claims its timeline with a writer id of its own, made of the one that it
//! found and its own directory, and keeps the one it found: what was written under it is its past.
//!
//! Beside it lies what this host remembers of each repository ([`newest`]).

pub mod newest;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use highwater_archive::durable;
use highwater_archive::keyring::Fingerprint;
use highwater_archive::names::{LineageId, RepositoryId, WriterId};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::report;

/// The directory below PGDATA that is ours.
pub const DIRECTORY: &str = "highwater";

/// The file in it.
const FILE: &str = "lineage.json";

/// The longest file that is read, in bytes; a real one is below 4 KiB.
const MAX_BYTES: u64 = 1 << 20;

/// What this data directory writes, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostState {
    /// The cluster's name in the repositories.
    pub cluster: String,
    /// The lineage it writes.
    pub lineage: LineageId,
    /// What each repository was when this was written, by its name in the configuration.
    pub repositories: BTreeMap<String, PinnedRepository>,
    /// `pg_control`'s system identifier.
    #[serde(with = "decimal")]
    pub system_identifier: u64,
    /// Claims timelines: random, of this data directory alone.
    pub writer: WriterId,
    /// The writers of the data directories that this one was copied from, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier_writers: Vec<WriterId>,
    /// The directory that it was written for; filled in when it is first written.
    #[serde(default)]
    pub home: Option<Home>,
}

/// A directory told apart from every copy of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Home(String);

impl Home {
    /// That of a data directory with our directory in it.
    fn of(data_dir: &Path) -> anyhow::Result<Self> {
        use std::os::unix::fs::MetadataExt as _;
        let directory = data_dir.join(DIRECTORY);
        let metadata = std::fs::metadata(&directory)
            .with_context(|| format!("cannot look at {}", directory.display()))?;
        // A filesystem that does not keep the time of birth has the inode alone.
        let born = metadata.created().ok().and_then(|born| born.duration_since(std::time::UNIX_EPOCH).ok());
        let born = born.map_or(0, |born| born.as_nanos());
        Ok(Self(format!("{}-{born}", metadata.ino())))
    }
}

/// What must not change about a repository.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedRepository {
    /// The repository's own random id.
    pub id: RepositoryId,
    /// The fingerprint of the keyring's first generation (I8).
    pub fingerprint: Fingerprint,
}

impl HostState {
    /// Reads the state of a data directory; `None` where there is none.
    ///
    /// # Errors
    ///
    /// A file that is there and cannot be read or understood.
    pub fn read(data_dir: &Path) -> anyhow::Result<Option<Self>> {
        use std::io::Read as _;
        let path = path(data_dir);
        let file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        let mut text = String::new();
        file.take(MAX_BYTES)
            .read_to_string(&mut text)
            .with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).map(Some).map_err(|error| {
            report::failed(
                format!("{} is damaged: {error}", path.display()),
                "it says which lineage this data directory writes: move it away, and run highwater adopt, which writes it anew",
            )
        })
    }

    /// Reads the state, which a command needs.
    ///
    /// # Errors
    ///
    /// As [`HostState::read`]; and where there is none, with what to run.
    pub fn require(data_dir: &Path) -> anyhow::Result<Self> {
        Self::read(data_dir)?.ok_or_else(|| {
            report::refused(
                format!("{} belongs to no lineage", data_dir.display()),
                "for a new cluster run: highwater init; for a restored copy that is to become the cluster: highwater adopt",
            )
        })
    }

    /// The state with which this data directory claims timelines: its own, or where it is a copy, one with a writer of its own.
    ///
    /// # Errors
    ///
    /// The directory cannot be looked at.
    pub fn here(&self, data_dir: &Path) -> anyhow::Result<Self> {
        let here = Home::of(data_dir)?;
        if self.home.as_ref().is_none_or(|home| *home == here) {
            return Ok(self.clone());
        }
        let mut hasher = Sha256::new();
        hasher.update(b"highwater writer of a copy");
        hasher.update(self.writer.as_bytes());
        hasher.update(&here.0);
        let digest: [u8; 32] = hasher.finalize().into();
        let mut own = self.clone();
        own.earlier_writers.push(self.writer);
        own.writer = WriterId::from_bytes(*digest.first_chunk().unwrap_or(&[0; 16]));
        own.home = Some(here);
        Ok(own)
    }

    /// Writes the state durably, replacing an earlier one whole.
    ///
    /// # Errors
    ///
    /// The directory or file cannot be written.
    pub fn write(&self, data_dir: &Path) -> anyhow::Result<()> {
        let directory = data_dir.join(DIRECTORY);
        durable::create_dir_all_durable(&directory)?;
        let home = self.home.clone().map_or_else(|| Home::of(data_dir), Ok)?;
        let written = Self { home: Some(home), ..self.clone() };
        let mut text = serde_json::to_string_pretty(&written).context("cannot write the host state")?;
        text.push('\n');
        Ok(durable::replace(&directory.join(FILE), &[text])?)
    }
}

/// The state's path.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(DIRECTORY).join(FILE)
}

/// A 64-bit number as decimal text, since JSON readers round above 2^53.
mod decimal {
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;

    /// I1: a directory without the file is not writable to any lineage, and says what to run.
    #[test]
    fn the_state_survives_and_its_absence_names_adopt() {
        let directory = tempfile::tempdir().unwrap();
        let error = HostState::require(directory.path()).unwrap_err();
        assert!(report::hint(&error).unwrap().contains("highwater adopt"));
        let pinned = PinnedRepository {
            id: RepositoryId::random().unwrap(),
            fingerprint: "bb".repeat(16).parse().unwrap(),
        };
        let state = HostState {
            cluster: "main".to_owned(),
            lineage: LineageId::from_bytes([7; 16]),
            repositories: BTreeMap::from([("primary".to_owned(), pinned)]),
            system_identifier: u64::MAX - 1,
            writer: WriterId::random().unwrap(),
            earlier_writers: Vec::new(),
            home: None,
        };
        state.write(directory.path()).unwrap();
        let read = HostState::read(directory.path()).unwrap().unwrap();
        assert_eq!(read, HostState { home: read.home.clone(), ..state });
        // Written for this directory, it is this directory's; in a copy it is not.
        assert_eq!(read.here(directory.path()).unwrap(), read);
        let copied = directory.path().join("copied");
        durable::create_dir_all_durable(&copied.join(DIRECTORY)).unwrap();
        let own = read.here(&copied).unwrap();
        assert_ne!(own.writer, read.writer);
        assert_eq!(own.earlier_writers, [read.writer]);
        assert_eq!(own, read.here(&copied).unwrap(), "the same at each call");
        own.write(&copied).unwrap();
        assert_eq!(HostState::read(&copied).unwrap().unwrap().here(&copied).unwrap(), own);
        durable::replace(&path(directory.path()), &["{"]).unwrap();
        assert!(HostState::require(directory.path()).unwrap_err().to_string().contains("damaged"));
    }

    /// What `tests/fixtures/format-1/host` holds was written once and is read as it was; and today's code writes the same bytes.
    #[test]
    fn a_state_of_version_1_is_read_and_written_the_same() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/format-1/host/copy");
        let state = HostState::read(&host).unwrap().unwrap();
        assert_eq!(state.lineage, LineageId::from_bytes([0x11; 16]));
        assert_eq!(state.repositories["primary"].id, RepositoryId::from_bytes([0x22; 16]));
        assert_eq!(state.writer, WriterId::from_bytes([0x33; 16]));
        assert_eq!(state.earlier_writers, [WriterId::from_bytes([0x44; 16])]);
        let written = tempfile::tempdir().unwrap();
        state.write(written.path()).unwrap();
        let bytes = |data: &Path| std::fs::read_to_string(path(data)).unwrap();
        assert_eq!(bytes(written.path()), bytes(&host));
        // A directory that was never copied has no earlier writers, and an early state no home.
        let text = bytes(&host);
        let (begin, end) = (text.find(",\n  \"earlier_writers\"").unwrap(), text.rfind("\n}").unwrap());
        let short: HostState = serde_json::from_str(&(text[..begin].to_owned() + &text[end..])).unwrap();
        assert_eq!(short, HostState { earlier_writers: Vec::new(), home: None, ..state });
    }
}
