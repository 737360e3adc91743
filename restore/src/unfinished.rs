//! What marks a restore that has not come to its end, and proves whose a half-filled directory is.
//!
//! `highwater/restore.incomplete` stands in the data directory from before the first change until after the last. It is a record of
//! the restore: of which backup, and where to. Every other place (`pg_wal`, tablespaces) holds a file with the same random id. So the
//! same command goes on where it was cut off, and no other restore takes a directory for its own that it did not begin to fill.
//!
//! Order is the safety. Beginning: the record, then the files in the other places, then whatever made the directory a cluster is
//! taken away (`pg_control` first of all, by a rename, so that it is whole wherever it is), each durable before the next. Ending: `pg_control`, then the record goes, then
//! those files. Cut off anywhere, what is there is a cluster that nothing has touched, a directory without `pg_control` that
//! the record tells of, or a finished cluster. A new restore that finds a place taken when it is to be marked takes back what it
//! has written: nothing else was changed yet.
//!
//! Locks on the directory `highwater` and on each other place are held meanwhile: the same command typed twice works once, and two
//! restores cannot share a place.

mod lock;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};

use highwater_archive::durable::{self, Published};
use highwater_archive::names::WriterId;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::error::RestoreError;
use crate::ownership::{self, Account};
use crate::places::{self, PLACE_MARKER, Purpose};
use crate::rebuild::{Claimed, INCOMPLETE_MARKER, OWN_DIRECTORY};
use crate::server;
use crate::tablespaces::Placed;
use lock::Lock;

/// What the first field of a record says.
const FORMAT: &str = "highwater unfinished restore";

/// What a record says to whoever finds it.
const NOTE: &str = "A restore has not finished here: this directory is not a cluster and must not be started. \
                    The same command, typed again, goes on where it stopped.";

/// The largest record that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The file without which no server starts.
pub const CONTROL_FILE: &str = "global/pg_control";

/// Where it is put until it is known that no server runs, in our own directory: what is in that goes with the first change.
const CONTROL_ASIDE: &str = "highwater/pg_control.aside";

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
    /// Of what, and where.
    #[serde(flatten)]
    pub restore: Begun,
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

/// What is restored, and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
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
}

impl From<&Placed> for RecordedTablespace {
    fn from(placed: &Placed) -> Self {
        Self { oid: placed.oid, directory: placed.directory.clone() }
    }
}

#[cfg(test)]
impl Begun {
    /// Of a cluster without tablespaces, into a directory of its own.
    pub(crate) fn sample() -> Self {
        Self {
            repository: "r".into(),
            lineage: "l".into(),
            backup: "b".into(),
            system_identifier: 7,
            target: "latest".into(),
            in_place: false,
            wal_dir: None,
            tablespaces: Vec::new(),
            emptied: Vec::new(),
            config_to: None,
        }
    }
}

impl Record {
    /// A new record with a random id.
    ///
    /// # Errors
    /// The system gives no random bytes.
    pub fn new(restore: Begun, now: Timestamp) -> Result<Record, RestoreError> {
        let id = WriterId::random().map_err(|error| RestoreError::Io {
            what: "draw a random id for",
            path: INCOMPLETE_MARKER.into(),
            source: std::io::Error::other(error),
        })?;
        Ok(Record {
            format: FORMAT.to_owned(),
            version: 1,
            note: NOTE.to_owned(),
            id: id.to_string(),
            begun: now,
            restore,
            configuration: Vec::new(),
        })
    }

    /// This record with what the attempt `now` says of it; id, beginning and what was made stay.
    #[must_use]
    pub fn continued(self, now: Record) -> Record {
        let Record { id, begun, configuration, restore: Begun { in_place, .. }, .. } = self;
        Record { id, begun, configuration, restore: Begun { in_place, ..now.restore }, ..now }
    }

    /// This record with the id of one that is only history: the files in its places can be replaced by none but their own.
    #[must_use]
    pub fn in_place_of(self, history: &Record) -> Record {
        Record { id: history.id.clone(), ..self }
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

    /// Whether the place is one of this restore's.
    pub fn names(&self, place: &Path) -> bool {
        self.places().any(|(_, own)| places::resolved(own) == places::resolved(place))
    }

    /// Every directory that holds such a file, and what it is to be filled with; nothing where it is to be emptied.
    pub fn places(&self) -> impl Iterator<Item = (Option<Purpose>, &Path)> {
        let wal = self.restore.wal_dir.as_deref().map(|directory| (Some(Purpose::Wal), directory));
        let tablespaces = self.restore.tablespaces.iter();
        let tablespaces = tablespaces
            .map(|tablespace| (Some(Purpose::Tablespace(tablespace.oid)), tablespace.directory.as_path()));
        let emptied = self.restore.emptied.iter().map(|directory| (None, directory.as_path()));
        let mut met = BTreeSet::new();
        wal.into_iter()
            .chain(tablespaces)
            .chain(emptied)
            .filter(move |(_, place)| met.insert(places::resolved(place)))
    }

    fn text(&self, data_dir: &Path) -> Result<Vec<u8>, RestoreError> {
        serde_json::to_vec_pretty(self)
            .map_err(|error| RestoreError::Unwritable { text: format!("{}: {error}", data_dir.display()) })
    }
}

/// A data directory that is locked, and in which nothing else was changed.
#[derive(Debug)]
pub struct Taken {
    data_dir: PathBuf,
    claimed: Claimed,
    lock: Lock,
}

/// Takes a data directory, which is made where there is none, so that no other restore works there.
///
/// # Errors
/// [`RestoreError::AtWork`]; [`RestoreError::Io`], [`RestoreError::Durable`].
pub fn take(data_dir: &Path, owner: Option<&Account>) -> Result<Taken, RestoreError> {
    let own = data_dir.join(OWN_DIRECTORY);
    ownership::make_directory(data_dir, owner)?;
    ownership::make_directory(&own, owner)?;
    let lock = Lock::take(&own)?.ok_or_else(|| RestoreError::AtWork { path: data_dir.to_owned() })?;
    let failed = |source| RestoreError::Io { what: "look at", path: data_dir.to_owned(), source };
    let claimed = Claimed::of(data_dir, File::open(data_dir).map_err(failed)?).map_err(failed)?;
    Ok(Taken { data_dir: data_dir.to_owned(), claimed, lock })
}

/// A restore that is at work: the locks, and what is to be taken away when it has come to its end.
#[derive(Debug)]
pub struct Claim {
    data_dir: PathBuf,
    record: Record,
    /// The places that were marked just now, where the record is new too.
    marked: Vec<PathBuf>,
    goes_on: bool,
    claimed: Vec<Claimed>,
    locks: Vec<Lock>,
}

impl Taken {
    /// It is somebody else's: what was made here goes again.
    pub fn leave(self) {
        // It goes only when it is empty, which one that was there before may be too: nobody misses it.
        std::fs::remove_dir(self.data_dir.join(OWN_DIRECTORY)).ok();
    }

    /// Marks the data directory and all other places as this restore's. `goes_on` says that a record is there to be gone on with, or
    /// to be replaced; `owns`, which places may hold something.
    ///
    /// # Errors
    /// [`RestoreError::AtWork`] where another restore is, or comes first; [`RestoreError::Place`] where something else is;
    /// [`RestoreError::Io`], [`RestoreError::Durable`]. A record that is new is gone then.
    pub fn mark(
        self,
        record: Record,
        goes_on: bool,
        owns: &dyn Fn(&Path) -> bool,
        owner: Option<&Account>,
    ) -> Result<Claim, RestoreError> {
        let Taken { data_dir, claimed, lock } = self;
        let marker = data_dir.join(INCOMPLETE_MARKER);
        if Record::read(&data_dir)?.as_ref() != Some(&record) {
            let text = record.text(&data_dir)?;
            if goes_on {
                durable::replace(&marker, &[text])?;
            } else if durable::write_new(&marker, &[text])? == Published::Exists {
                return Err(RestoreError::AtWork { path: data_dir });
            }
        }
        let (claimed, locks) = (vec![claimed], vec![lock]);
        let mut claim = Claim { data_dir, record, marked: Vec::new(), goes_on, claimed, locks };
        match give(&marker, owner).and_then(|()| claim.mark_places(owns, owner)) {
            Ok(()) => Ok(claim),
            Err(error) => Err(claim.give_up(error)),
        }
    }
}

impl Claim {
    fn mark_places(
        &mut self,
        owns: &dyn Fn(&Path) -> bool,
        owner: Option<&Account>,
    ) -> Result<(), RestoreError> {
        for (what, place) in self.record.places() {
            ownership::make_directory(place, owner)?;
            let at_work = || RestoreError::AtWork { path: place.to_owned() };
            let marked = |mark: PathBuf| RestoreError::Marked { path: place.to_owned(), mark };
            let lock = Lock::take(place)?.ok_or_else(at_work)?;
            self.claimed.push(lock.claimed(place)?);
            self.locks.push(lock);
            let is_ours = owns(place);
            let mark = place.join(PLACE_MARKER);
            match durable::write_new(&mark, &[&self.record.id, "\n"])? {
                Published::New => self.marked.push(place.to_owned()),
                Published::Exists if self.record.marks(place) => {}
                // Nobody is at work: we hold the lock.
                Published::Exists => return Err(marked(mark)),
            }
            give(&mark, owner)?;
            if !is_ours {
                places::check_marked(what.ok_or_else(at_work)?, place)?;
            }
            remove_leftovers(place)?;
        }
        remove_leftovers(&self.data_dir.join(OWN_DIRECTORY))
    }

    /// From here on the directory is no cluster. Where a server turns out to run there after all, what made it one is put back.
    ///
    /// # Errors
    /// [`RestoreError::Running`]; [`RestoreError::Io`], [`RestoreError::Durable`]. A record that is new is gone then, if the
    /// cluster is whole.
    pub fn unmake_cluster(self) -> Result<Claim, RestoreError> {
        let (path, aside) = (self.data_dir.join(CONTROL_FILE), self.data_dir.join(CONTROL_ASIDE));
        match path.symlink_metadata() {
            Ok(_) => {}
            // No directory `global` is no cluster either.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(self),
            Err(source) => return Err(self.give_up(RestoreError::Io { what: "look at", path, source })),
        }
        // What an attempt that was cut off has left there is of no use beside one that a server would take.
        match durable::remove(&aside).and_then(|()| durable::move_new(&path, &aside)) {
            Ok(Published::New) => {}
            Ok(Published::Exists) => {
                let path = self.data_dir.clone();
                return Err(self.give_up(RestoreError::AtWork { path }));
            }
            Err(error) if path.exists() => return Err(self.give_up(error.into())),
            Err(error) => return Err(error.into()),
        }
        if !server::is_occupied(&self.data_dir) {
            return Ok(self);
        }
        // Where somebody else has put one meanwhile, that stays.
        if durable::move_new(&aside, &path)? == Published::Exists {
            durable::remove(&aside)?;
        }
        let path = self.data_dir.clone();
        Err(self.give_up(RestoreError::Running { path }))
    }

    /// The directories that are this restore's, the data directory first.
    pub fn claimed(&self) -> &[Claimed] {
        &self.claimed
    }

    /// What is new of the marks goes again, since nothing else was changed; why it could not is less than why it must.
    fn give_up(self, error: RestoreError) -> RestoreError {
        if !self.goes_on {
            for place in &self.marked {
                durable::remove(&place.join(PLACE_MARKER)).ok();
            }
            durable::remove(&self.data_dir.join(INCOMPLETE_MARKER)).ok();
        }
        error
    }

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
        for (_, place) in self.record.places() {
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
    Ok(!Lock::is_free(&data_dir.join(OWN_DIRECTORY))?)
}

/// What was being written when an earlier attempt was killed has no name yet.
fn remove_leftovers(directory: &Path) -> Result<(), RestoreError> {
    let failed = |source| RestoreError::Io { what: "look into", path: directory.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if places::is_leftover(&entry) {
            durable::remove(&entry.path())?;
        }
    }
    Ok(())
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
mod tests;
