//! What stands where a restore is to go: nothing, what an earlier one left unfinished, or with `--delta` a cluster.
//!
//! Files are only ever kept, changed or removed in a directory that is proven to be this cluster's: an unfinished restore by its
//! record ([`crate::unfinished`]), a cluster by the system identifier in its `pg_control`. Another place (`pg_wal`, a tablespace) is
//! proven by the file with the record's id, or because the data directory's own link leads there. All else must be empty, as for
//! any restore. A data directory that has its `pg_control` is a cluster, whatever a record says that an earlier restore has left in it.
//!
//! What differs between the command that began and the one that goes on: the target may, within the backup, and what
//! belongs to it; so may the owner and the jobs. Backup, lineage and places may not. With `--delta` the backup may be another one of the
//! same cluster, since every byte is compared with it.

mod asked;
mod at_rest;
mod links;

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use highwater_archive::manifest::{BackupId, Manifest};
use highwater_pitr::control::{ClusterState, ControlFile};

pub use self::asked::Asked;
use self::at_rest::{
    check_archived, check_cluster_at_rest, check_never_started, check_none_unseen, read_control,
};
use self::links::{Links, check_unused};
use crate::error::RestoreError;
use crate::filled::Places;
use crate::kept_wal::KeptWal;
use crate::places::{self, LOST_AND_FOUND, PlaceError, Purpose};
use crate::rebuild::{InPlace, Reading};
use crate::server;
use crate::tablespaces::Mapping;
use crate::unfinished::{self, CONTROL_FILE, Record};

/// What stands at the target.
#[derive(Debug, Clone)]
pub struct Standing {
    found: Found,
    /// What an earlier restore left in a cluster: nothing of it is believed.
    history: Option<Box<Record>>,
    /// The `pg_control` of a cluster, and its bytes.
    control: Option<(ControlFile, Vec<u8>)>,
    links: Links,
    delta: bool,
    files: u64,
    present: Vec<(PathBuf, u64)>,
    emptied: Vec<PathBuf>,
    kept_wal: Vec<KeptWal>,
}

/// The three possibilities.
#[derive(Debug, Clone)]
pub enum Found {
    /// Absent or empty.
    Nothing,
    /// What an earlier restore left.
    Unfinished(Box<Record>),
    /// The data directory of a cluster, to be brought to the state of a backup.
    Cluster,
}

impl Standing {
    /// Looks at the target; nothing is asked of the archive yet.
    ///
    /// # Errors
    /// [`RestoreError::Running`], [`RestoreError::AtWork`], [`RestoreError::Incomplete`], [`RestoreError::Place`],
    /// [`RestoreError::NoCluster`], [`RestoreError::Unarchived`].
    pub fn look(target: &Path, delta: bool) -> Result<Standing, RestoreError> {
        if server::is_occupied(target) {
            return Err(RestoreError::Running { path: target.to_owned() });
        }
        let mut history = None;
        let found = match Record::read(target)? {
            Some(_) if unfinished::is_at_work(target)? => {
                return Err(RestoreError::AtWork { path: target.to_owned() });
            }
            Some(record) if delta && target.join(CONTROL_FILE).exists() => {
                check_cluster_at_rest(target)?;
                history = Some(Box::new(record));
                Found::Cluster
            }
            Some(record) => {
                // A server may have run since.
                check_none_unseen(target)?;
                if target.join(CONTROL_FILE).exists() {
                    check_archived(target)?;
                }
                Found::Unfinished(Box::new(record))
            }
            None => match places::check_empty(Purpose::Target, target) {
                Ok(()) => Found::Nothing,
                Err(PlaceError::NotEmpty { .. }) if delta => {
                    check_cluster_at_rest(target)?;
                    Found::Cluster
                }
                Err(error) => return Err(error.into()),
            },
        };
        let links = Links::of(target);
        let is_cluster = matches!(found, Found::Cluster);
        let control = if is_cluster { read_control(target)? } else { None };
        Ok(Standing {
            found,
            history,
            control,
            links,
            delta,
            files: 0,
            present: Vec::new(),
            emptied: Vec::new(),
            kept_wal: Vec::new(),
        })
    }

    /// What was found.
    pub fn found(&self) -> &Found {
        &self.found
    }

    /// The record on disk as it was seen.
    pub fn record(&self) -> Option<&Record> {
        match &self.found {
            Found::Unfinished(record) => Some(record),
            Found::Nothing | Found::Cluster => self.history.as_deref(),
        }
    }

    /// Looks once more, after a while or under the lock: whether what stands at the target is still what was found.
    ///
    /// # Errors
    /// As [`Standing::look`], [`Standing::check_cluster`] and [`Standing::settle`].
    pub fn look_again(&self, target: &Path, identifier: u64, control: &[u8]) -> Result<(), RestoreError> {
        if server::is_occupied(target) {
            return Err(RestoreError::Running { path: target.to_owned() });
        }
        if Record::read(target)?.as_ref() != self.record() {
            return Err(RestoreError::AtWork { path: target.to_owned() });
        }
        match &self.found {
            Found::Nothing => places::check_empty(Purpose::Target, target)?,
            Found::Unfinished(_) => {
                check_none_unseen(target)?;
                check_never_started(target, control)?;
            }
            Found::Cluster => check_cluster_at_rest(target)?,
        }
        // A server that ran meanwhile has written WAL that was not seen.
        if self.control.is_some() && self.control != read_control(target)? {
            return Err(RestoreError::Changed { path: target.to_owned() });
        }
        self.check_identifier(target, identifier)
    }

    /// Whether there is nothing.
    pub fn is_nothing(&self) -> bool {
        matches!(self.found, Found::Nothing)
    }

    /// Whether a place that is not empty is this restore's to fill.
    pub fn owns(&self, place: &Path) -> bool {
        match &self.found {
            Found::Nothing => false,
            Found::Cluster => self.links.lead_to(place),
            Found::Unfinished(record) => {
                // Cut off before it was marked, what the record names is what the link of the cluster named.
                let named = || record.restore.in_place && record.names(place) && self.links.lead_to(place);
                record.marks(place) || named()
            }
        }
    }

    /// Absent, empty, or this restore's to fill.
    ///
    /// # Errors
    /// [`RestoreError::Place`].
    pub fn check_place(&self, what: Purpose, place: &Path) -> Result<(), RestoreError> {
        if self.owns(place) { Ok(()) } else { Ok(places::check_empty(what, place)?) }
    }

    /// Looks once more at all places but the data directory.
    ///
    /// # Errors
    /// [`RestoreError::Place`], [`RestoreError::InUse`].
    pub fn check_places(&self, places: Places<'_>) -> Result<(), RestoreError> {
        places.others().try_for_each(|(what, place)| self.check_place(what, place))?;
        self.check_unused(places)
    }

    /// Whether no other server uses one of the places but the data directory.
    fn check_unused(&self, places: Places<'_>) -> Result<(), RestoreError> {
        if self.is_nothing() {
            return Ok(());
        }
        self.other_places(places).try_for_each(|place| check_unused(place, places.target_dir))
    }

    /// The backup that an unfinished restore is of: the one to go on with, unless another is asked for.
    pub fn backup(&self) -> Option<BackupId> {
        match &self.found {
            Found::Unfinished(record) if !self.delta => record.restore.backup.parse().ok(),
            _ => None,
        }
    }

    /// Where `pg_wal` goes when nothing else is asked for: where it is.
    pub fn wal_dir(&self) -> Option<PathBuf> {
        match &self.found {
            Found::Nothing => None,
            Found::Cluster => self.links.wal.clone(),
            Found::Unfinished(record) => record.restore.wal_dir.clone().filter(|_| record.restore.in_place),
        }
    }

    /// Where tablespaces go when nothing else is asked for: where they are.
    pub fn mappings(&self, manifest: &Manifest) -> Vec<Mapping> {
        let known = |oid: &u32| {
            manifest.tablespaces.iter().any(|tablespace| tablespace.oid == *oid && tablespace.path.is_some())
        };
        let mapping = |(oid, to): (u32, PathBuf)| Mapping { from: oid.to_string(), to };
        let places: Vec<(u32, PathBuf)> = match &self.found {
            Found::Nothing => Vec::new(),
            Found::Cluster => self.links.tablespaces.clone(),
            Found::Unfinished(record) if !record.restore.in_place => Vec::new(),
            Found::Unfinished(record) => {
                let tablespaces = record.restore.tablespaces.iter();
                tablespaces.map(|tablespace| (tablespace.oid, tablespace.directory.clone())).collect()
            }
        };
        places.into_iter().filter(|(oid, _)| known(oid)).map(mapping).collect()
    }

    /// Whether what stands there is of the cluster that the backup is of.
    ///
    /// # Errors
    /// [`RestoreError::OtherCluster`].
    pub fn check_cluster(&self, target: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
        self.check_identifier(target, manifest.postgresql.system_identifier)
    }

    /// A record that was left behind says nothing of a cluster that came later, so `pg_control` is asked where there is one.
    fn check_identifier(&self, target: &Path, backup: u64) -> Result<(), RestoreError> {
        let recorded = match &self.found {
            Found::Nothing => return Ok(()),
            Found::Cluster => None,
            Found::Unfinished(record) => Some(record.restore.system_identifier),
        };
        let of_control = read_control(target)?.map(|(control, _)| control.system_identifier);
        match recorded.into_iter().chain(of_control).find(|found| *found != backup) {
            Some(found) => Err(RestoreError::OtherCluster { path: target.to_owned(), found, backup }),
            None => Ok(()),
        }
    }

    /// A copy that was made with its links leads into the places of the original. So in another directory than the one that the backup was made
    /// of, each place is taken only where it is `named` by the command, and no other one is emptied.
    ///
    /// # Errors
    /// [`RestoreError::Elsewhere`].
    pub fn check_links(&mut self, named: &Named<'_>, manifest: &Manifest) -> Result<(), RestoreError> {
        let home = Path::new(&manifest.data_directory);
        if !matches!(self.found, Found::Cluster)
            || places::resolved(named.target_dir) == places::resolved(home)
        {
            return Ok(());
        }
        let elsewhere = |what: String| {
            let (path, data_directory) = (named.target_dir.to_owned(), home.to_owned());
            Err(RestoreError::Elsewhere { path, data_directory, what })
        };
        if self.links.wal.is_some() && !named.wal_dir {
            return elsewhere("pg_wal".to_owned());
        }
        for tablespace in &manifest.tablespaces {
            let Some(path) = &tablespace.path else { continue };
            let is_named = named.mappings.iter().any(|Mapping { from, .. }| {
                from == path || Some(from) == tablespace.name.as_ref() || *from == tablespace.oid.to_string()
            });
            let is_linked = self.links.tablespaces.iter().any(|(oid, _)| *oid == tablespace.oid);
            if is_linked && !is_named {
                return elsewhere(format!("tablespace {}", tablespace.oid));
            }
        }
        self.links.tablespaces.retain(|(oid, _)| manifest.tablespaces.iter().any(|known| known.oid == *oid));
        Ok(())
    }

    /// Whether an unfinished restore is the one that is asked for. Counts what is there.
    ///
    /// # Errors
    /// [`RestoreError::OtherRestore`], [`RestoreError::Started`], [`RestoreError::InUse`].
    pub fn settle(
        &mut self,
        asked: &Asked<'_>,
        manifest: &Manifest,
        version_directory: &str,
    ) -> Result<(), RestoreError> {
        let places = asked.places;
        if let Found::Unfinished(record) = &self.found {
            let path = places.target_dir.to_owned();
            if let Some(what) = asked.difference(record, manifest, self.delta) {
                return Err(RestoreError::OtherRestore { path, what });
            }
            check_never_started(places.target_dir, &manifest.control.bytes)?;
        }
        if self.is_nothing() {
            return Ok(());
        }
        self.find_emptied(places);
        self.check_unused(places)?;
        self.count(places, version_directory)
    }

    /// Every place but the data directory, what is emptied too.
    fn other_places<'s>(&'s self, places: Places<'s>) -> impl Iterator<Item = &'s Path> {
        places.others().map(|(_, place)| place).chain(self.emptied.iter().map(PathBuf::as_path))
    }

    /// What is in other places and is emptied, and how everything that is there is read; `None` where nothing is.
    pub fn in_place(&self) -> Option<InPlace> {
        let reading = match &self.found {
            Found::Nothing => return None,
            Found::Cluster => reading_of(self.control.as_ref().map(|(control, _)| control.state)),
            Found::Unfinished(_) => Reading::Disk,
        };
        Some(InPlace { reading, emptied: self.emptied.clone(), kept_wal: self.kept_wal.clone() })
    }

    fn find_emptied(&mut self, places: Places<'_>) {
        let recorded = match &self.found {
            Found::Unfinished(record) => {
                let tablespaces = record.restore.tablespaces.iter().map(|tablespace| &tablespace.directory);
                record.restore.emptied.iter().chain(tablespaces).cloned().collect()
            }
            _ => Vec::new(),
        };
        let gone = |oid: u32| places.tablespaces.iter().all(|placed| placed.oid != oid);
        let linked = self.links.tablespaces.iter().filter(|(oid, _)| gone(*oid));
        let mut emptied: Vec<PathBuf> = Vec::new();
        for directory in recorded.into_iter().chain(linked.map(|(_, directory)| directory.clone())) {
            let is_used = places.tablespaces().any(|(_, place)| places::overlap(place, &directory));
            if !is_used && directory.is_dir() && self.owns(&directory) && !emptied.contains(&directory) {
                emptied.push(directory);
            }
        }
        self.emptied = emptied;
    }

    fn count(&mut self, places: Places<'_>, version_directory: &str) -> Result<(), RestoreError> {
        let mut counted = vec![(places.target_dir.to_owned(), places.target_dir.to_owned())];
        for place in self.other_places(places) {
            let is_wal = places.wal_dir == Some(place);
            let below = if is_wal { place.to_owned() } else { place.join(version_directory) };
            counted.push((place.to_owned(), below));
        }
        for (place, counted) in counted {
            let (files, bytes) = count_below(&counted)?;
            self.files += files;
            self.present.push((place, bytes));
        }
        Ok(())
    }

    /// Takes out of what makes room the WAL that is to be kept.
    pub fn keep(&mut self, kept_wal: Vec<KeptWal>) {
        for kept in &kept_wal {
            let place = self.present.iter_mut().filter(|(place, _)| kept.from.starts_with(place)).last();
            if let Some((_, bytes)) = place {
                *bytes = bytes.saturating_sub(kept.bytes);
            }
        }
        self.kept_wal = kept_wal;
    }

    /// Files in all places, as far as they were counted.
    pub fn files(&self) -> u64 {
        self.files
    }

    /// What each place takes of its filesystem, in bytes.
    pub fn present(&self) -> &[(PathBuf, u64)] {
        &self.present
    }

    /// WAL that is in no archive, to be moved aside.
    pub fn kept_wal(&self) -> &[KeptWal] {
        &self.kept_wal
    }

    /// Directories of tablespaces that the backup does not have, to be emptied.
    pub fn emptied(&self) -> &[PathBuf] {
        &self.emptied
    }
}

/// How the files of a cluster are read that was in this state when it was last written. Stopped cleanly, a server has made all that it wrote
/// durable, or it would have ended in a panic. After anything else a write may have failed that the page cache still shows; a
/// standby that is stopped need not have made a restartpoint (`CreateRestartPoint` in PostgreSQL's `xlog.c`).
fn reading_of(state: Option<ClusterState>) -> Reading {
    match state {
        Some(ClusterState::ShutDown) => Reading::PageCache,
        _ => Reading::Disk,
    }
}

/// What the command itself names.
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// The data directory.
    pub target_dir: &'a Path,
    /// Whether it names a place for `pg_wal`.
    pub wal_dir: bool,
    /// Places for tablespaces.
    pub mappings: &'a [Mapping],
}

/// The files below a directory, which may be absent, and what they take of the filesystem, in bytes. No link is followed.
fn count_below(directory: &Path) -> Result<(u64, u64), RestoreError> {
    let (mut files, mut bytes) = (0, 0);
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        let failed = |source| RestoreError::Io { what: "look into", path: directory.clone(), source };
        let entries = match std::fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let metadata = entry.metadata().map_err(failed)?;
            if metadata.is_dir() {
                if entry.file_name() != LOST_AND_FOUND {
                    directories.push(entry.path());
                }
            } else if metadata.is_file() {
                files += 1;
                // One with a second name gives nothing back when it is removed.
                bytes += if metadata.nlink() == 1 { metadata.blocks() * 512 } else { 0 };
            }
        }
    }
    Ok((files, bytes))
}

#[cfg(test)]
mod tests;
