//! What marks a restore that has not come to its end, and proves whose a half-filled directory is.
//!
//! `highwater/restore.incomplete` stands in the data directory from before the first change until after the last. It is a record of
//! the restore: of which backup, and where to. Every other place (`pg_wal`, tablespaces) holds a file with the same random id. So the
//! same command goes on where it was cut off, and no other restore takes a directory for its own that it did not begin to fill.
//!
//! Order is the safety. Beginning: the record, then the files in the other places, then whatever made the directory a cluster is
//! taken away (`pg_control` first of all), each durable before the next. Ending: `pg_control`, then the record goes, then
//! those files. Cut off anywhere, what is there is a cluster that nothing has touched, a directory without `pg_control` that
//! the record tells of, or a finished cluster.
//!
//! A lock on the directory `highwater` is held meanwhile: the same command typed twice works once.

use std::fs::File;
use std::path::{Path, PathBuf};

use highwater_archive::durable::{self, Published};
use highwater_archive::names::WriterId;
use jiff::Timestamp;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::RestoreError;
use crate::ownership::{self, Account};
use crate::places::PLACE_MARKER;
use crate::rebuild::{INCOMPLETE_MARKER, OWN_DIRECTORY};
use crate::tablespaces::Placed;

/// What the first field of a record says.
const FORMAT: &str = "highwater unfinished restore";

/// What a record says to whoever finds it.
const NOTE: &str = "A restore has not finished here: this directory is not a cluster and must not be started. \
                    The same command, typed again, goes on where it stopped.";

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// Which restore was begun.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    format: String,
    version: u32,
    note: String,
    /// Random; each place of the restore holds it.
    pub id: String,
    /// When it was begun.
    pub begun: Timestamp,
    /// The repository that gave the backup.
    pub repository: String,
    /// The lineage in it.
    pub lineage: String,
    /// The backup.
    pub backup: String,
    /// The cluster it is of.
    pub system_identifier: u64,
    /// The target, in words.
    pub target: String,
    /// It was begun in the data directory of a cluster.
    pub in_place: bool,
    /// Where `pg_wal` goes, when not in the data directory.
    pub wal_dir: Option<PathBuf>,
    /// Where each tablespace goes.
    pub tablespaces: Vec<RecordedTablespace>,
    /// Directories of tablespaces that the backup does not have, to be emptied.
    pub emptied: Vec<PathBuf>,
    /// Where configuration from outside goes.
    pub config_to: Option<PathBuf>,
    /// What is being made there, once that has begun.
    pub configuration: Vec<PathBuf>,
}

/// A tablespace of a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordedTablespace {
    /// Its oid.
    pub oid: u32,
    /// Where it goes.
    pub directory: PathBuf,
}

/// What a new record says of a restore.
#[derive(Debug, Clone)]
pub struct Begun {
    /// The repository's id.
    pub repository: String,
    /// The lineage's.
    pub lineage: String,
    /// The backup's.
    pub backup: String,
    /// The cluster's.
    pub system_identifier: u64,
    /// The target, in words.
    pub target: String,
    /// It begins in the data directory of a cluster.
    pub in_place: bool,
    /// Where `pg_wal` goes.
    pub wal_dir: Option<PathBuf>,
    /// Directories to be emptied.
    pub emptied: Vec<PathBuf>,
    /// Where configuration goes.
    pub config_to: Option<PathBuf>,
}

impl Record {
    /// A new record with a random id.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(begun: Begun, tablespaces: &[Placed], now: Timestamp) -> Result<Record, RestoreError> {
        let id = WriterId::random().map_err(|error| RestoreError::Io {
            what: "draw a random id for",
            path: INCOMPLETE_MARKER.into(),
            source: std::io::Error::other(error),
        })?;
        let Begun { repository, lineage, backup, system_identifier, target, in_place, .. } = begun;
        Ok(Record {
            format: FORMAT.to_owned(),
            version: 1,
            note: NOTE.to_owned(),
            id: id.to_string(),
            begun: now,
            repository,
            lineage,
            backup,
            system_identifier,
            target,
            in_place,
            wal_dir: begun.wal_dir,
            tablespaces: tablespaces
                .iter()
                .map(|placed| RecordedTablespace { oid: placed.oid, directory: placed.directory.clone() })
                .collect(),
            emptied: begun.emptied,
            config_to: begun.config_to,
            configuration: Vec::new(),
        })
    }

    /// This record with what the attempt `now` says of it; id, beginning and what was made stay.
    #[must_use]
    pub fn continued(self, now: Record) -> Record {
        let Record { id, begun, in_place, configuration, .. } = self;
        Record { id, begun, in_place, configuration, ..now }
    }

    /// The record of a data directory; `None` where no restore is unfinished.
    ///
    /// # Errors
    /// [`RestoreError::Incomplete`] for one that says nothing, [`RestoreError::Io`].
    pub fn read(data_dir: &Path) -> Result<Option<Record>, RestoreError> {
        let path = data_dir.join(INCOMPLETE_MARKER);
        let unreadable = |reason: String| RestoreError::Incomplete { path: data_dir.to_owned(), reason };
        let bytes = match read_bounded(&path) {
            Ok(bytes) => bytes,
            Err(error)
                if matches!(
                    error.kind(),
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(source) => return Err(RestoreError::Io { what: "read", path, source }),
        };
        let record: Record = serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?;
        if record.format != FORMAT || record.version != 1 {
            return Err(unreadable(format!("{} version {}", record.format, record.version)));
        }
        Ok(Some(record))
    }

    /// Whether the file in a place says that it is this restore's.
    pub fn marks(&self, place: &Path) -> bool {
        read_bounded(&place.join(PLACE_MARKER)).is_ok_and(|bytes| bytes.trim_ascii() == self.id.as_bytes())
    }

    /// Every directory that holds such a file.
    fn places(&self) -> impl Iterator<Item = &Path> {
        let tablespaces = self.tablespaces.iter().map(|tablespace| tablespace.directory.as_path());
        let emptied = self.emptied.iter().map(PathBuf::as_path);
        self.wal_dir.as_deref().into_iter().chain(tablespaces).chain(emptied)
    }

    fn text(&self, data_dir: &Path) -> Result<Vec<u8>, RestoreError> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| RestoreError::Unwritable { text: format!("{}: {error}", data_dir.display()) })
    }
}

/// A restore that is at work: the lock, and what is to be taken away when it has come to its end.
#[derive(Debug)]
pub struct Claim {
    data_dir: PathBuf,
    record: Record,
    _lock: File,
}

/// Takes a data directory and all other places for this restore, and takes from it what makes it a cluster. `goes_on` says that a
/// record is there to be gone on with, or to be replaced.
///
/// # Errors
/// [`RestoreError::AtWork`] where another restore is, or comes first; [`RestoreError::Io`], [`RestoreError::Durable`].
pub fn begin(
    data_dir: &Path,
    record: Record,
    goes_on: bool,
    owner: Option<&Account>,
) -> Result<Claim, RestoreError> {
    let own = data_dir.join(OWN_DIRECTORY);
    ownership::make_directory(data_dir, owner)?;
    ownership::make_directory(&own, owner)?;
    let at_work = || RestoreError::AtWork { path: data_dir.to_owned() };
    let lock = lock(&own)?.ok_or_else(at_work)?;
    let marker = data_dir.join(INCOMPLETE_MARKER);
    if Record::read(data_dir)?.as_ref() != Some(&record) {
        let text = record.text(data_dir)?;
        if goes_on {
            durable::replace(&marker, &[text])?;
        } else if durable::write_new(&marker, &[text])? == Published::Exists {
            return Err(at_work());
        }
    }
    give(&marker, owner)?;
    for place in record.places() {
        ownership::make_directory(place, owner)?;
        let mark = place.join(PLACE_MARKER);
        durable::replace(&mark, &[&record.id, "\n"])?;
        give(&mark, owner)?;
    }
    durable::remove(&data_dir.join("global/pg_control")).or_else(|error| match error {
        // No directory `global` is no cluster either.
        durable::DurableError::Io { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Ok(()),
        error => Err(error),
    })?;
    Ok(Claim { data_dir: data_dir.to_owned(), record, _lock: lock })
}

impl Claim {
    /// Says, before it is so, what of the configuration is made by this restore; nothing of it was there.
    ///
    /// # Errors
    /// [`RestoreError::Durable`].
    pub fn configures(&mut self, entries: impl IntoIterator<Item = PathBuf>) -> Result<(), RestoreError> {
        let entries: Vec<PathBuf> = entries.into_iter().collect();
        if entries == self.record.configuration {
            return Ok(());
        }
        self.record.configuration = entries;
        let text = self.record.text(&self.data_dir)?;
        Ok(durable::replace(&self.data_dir.join(INCOMPLETE_MARKER), &[text])?)
    }

    /// Takes back one that somebody else has made meanwhile.
    ///
    /// # Errors
    /// [`RestoreError::Durable`].
    pub fn gives_up(&mut self, path: &Path) -> Result<(), RestoreError> {
        let entries = self.record.configuration.clone();
        self.configures(entries.into_iter().filter(|entry| !path.starts_with(entry)))
    }

    /// Takes away what marks the restore: it has come to its end.
    ///
    /// # Errors
    /// [`RestoreError::Durable`]; what is left does not keep the cluster from starting.
    pub fn end(self) -> Result<(), RestoreError> {
        durable::remove(&self.data_dir.join(INCOMPLETE_MARKER))?;
        for place in self.record.places() {
            durable::remove(&place.join(PLACE_MARKER))?;
        }
        Ok(())
    }
}

/// Whether a restore is at work in this data directory.
///
/// # Errors
/// [`RestoreError::Io`].
pub fn is_at_work(data_dir: &Path) -> Result<bool, RestoreError> {
    Ok(lock(&data_dir.join(OWN_DIRECTORY))?.is_none())
}

/// The lock on a directory, until the file is dropped; `None` where somebody has it.
fn lock(directory: &Path) -> Result<Option<File>, RestoreError> {
    let failed = |source| RestoreError::Io { what: "lock", path: directory.to_owned(), source };
    let file = File::open(directory).map_err(failed)?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(Some(file)),
        Err(Errno::WOULDBLOCK) => Ok(None),
        Err(errno) => Err(failed(errno.into())),
    }
}

fn give(path: &Path, owner: Option<&Account>) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Io { what: "give away", path: path.to_owned(), source };
    ownership::give(File::open(path).map_err(failed)?, owner).map_err(failed)
}

fn read_bounded(path: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(scratch: &Path) -> Record {
        let begun = Begun {
            repository: "r".into(),
            lineage: "l".into(),
            backup: "b".into(),
            system_identifier: 7,
            target: "latest".into(),
            in_place: false,
            wal_dir: Some(scratch.join("wal")),
            emptied: Vec::new(),
            config_to: None,
        };
        let placed = Placed { oid: 9, original: "/x".into(), directory: scratch.join("ts") };
        Record::new(begun, &[placed], Timestamp::UNIX_EPOCH).unwrap()
    }

    /// Every place says whose it is from the beginning to the end, a second restore is kept out, and nothing is left.
    #[test]
    fn a_restore_marks_its_places_and_keeps_others_out() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, record) = (scratch.path().join("data"), record(scratch.path()));
        assert_eq!(Record::read(&data).unwrap(), None);
        let claim = begin(&data, record.clone(), false, None).unwrap();
        assert!(is_at_work(&data).unwrap());
        assert_eq!(Record::read(&data).unwrap().as_ref(), Some(&record));
        assert!(record.marks(&scratch.path().join("wal")) && record.marks(&scratch.path().join("ts")));
        assert!(
            !record.marks(&data) && !super::tests::record(scratch.path()).marks(&scratch.path().join("ts"))
        );
        let again = begin(&data, record.clone(), true, None).unwrap_err();
        assert!(matches!(again, RestoreError::AtWork { .. }) && again.is_refusal());
        drop(claim);
        assert!(!is_at_work(&data).unwrap());
        // Another one that thought the directory was empty.
        assert!(matches!(
            begin(&data, super::tests::record(scratch.path()), false, None),
            Err(RestoreError::AtWork { .. })
        ));
        begin(&data, record.clone(), true, None).unwrap().end().unwrap();
        assert_eq!(Record::read(&data).unwrap(), None);
        for place in ["wal", "ts", "data/highwater"] {
            assert_eq!(std::fs::read_dir(scratch.path().join(place)).unwrap().count(), 0, "{place}");
        }
    }

    /// What makes a directory a cluster goes when the record is there, and not before.
    #[test]
    fn a_cluster_is_none_from_the_beginning_on() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, record) = (scratch.path().join("data"), record(scratch.path()));
        std::fs::create_dir_all(data.join("global")).unwrap();
        let control = data.join("global/pg_control");
        durable::replace(&control, &["control"]).unwrap();
        durable::replace(&scratch.path().join("wal"), &["in the way"]).unwrap();
        assert!(begin(&data, record.clone(), false, None).is_err());
        assert!(control.exists() && Record::read(&data).unwrap().is_some());
        std::fs::remove_file(scratch.path().join("wal")).unwrap();
        begin(&data, record, true, None).unwrap();
        assert!(!control.exists());
    }

    #[test]
    fn a_record_that_says_nothing_is_no_record() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::create_dir(scratch.path().join(OWN_DIRECTORY)).unwrap();
        for text in ["", "highwater restore has not finished here", "{\"format\":\"x\"}"] {
            durable::replace(&scratch.path().join(INCOMPLETE_MARKER), &[text]).unwrap();
            let refused = Record::read(scratch.path()).unwrap_err();
            assert!(matches!(refused, RestoreError::Incomplete { .. }) && refused.is_refusal(), "{text}");
        }
    }
}
