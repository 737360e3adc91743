//! `highwater/restore.json`: what `archive-get` needs to bring the WAL of one restore, and nothing more (I14).
//!
//! It holds where the repositories are, which lineage, which timelines with their switch points, and the first and last
//! segment that recovery reads. What opening a repository would ask for lies in it too, the keyring wrapped to an identity that
//! was made for this restore alone and stands in `restore.secrets` beside it with the stores' credentials: so a segment costs one
//! request, a passphrase is not stretched anew for each, and the person's own key never lands in a data directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use highwater_archive::durable::DurableError;
use highwater_archive::keyring::{Keyring, KeyringError, Unlock};
use highwater_archive::lineage::{Lineage, LineageError, LineageRecord};
use highwater_archive::names::ClusterName;
use highwater_archive::repository::{Cluster, Repository, RepositoryInfo};
use highwater_archive::store::{self, ExposeSecret as _, StoreSpec};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalFile, WalSegmentSize};
use highwater_pitr::timeline::{Ancestor, Ancestry, TimelineHistory, TimelineId};
use serde::{Deserialize, Serialize};

use crate::below;
use crate::ownership::Account;

/// The plan's place below the data directory.
pub const PLAN_FILE: &str = "highwater/restore.json";

/// The secrets' name beside the plan.
const SECRETS_FILE: &str = "restore.secrets";

/// What the first field of a plan says.
const FORMAT: &str = "highwater restore plan";

/// The largest plan that is read, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The plan of one restore.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanFile {
    format: String,
    version: u32,
    /// The cluster's name in the repositories.
    #[serde(with = "text")]
    pub cluster: ClusterName,
    /// `wal_segment_size`.
    pub wal_segment_bytes: WalSegmentSize,
    /// The backup that recovery begins with.
    pub backup: String,
    /// The target, in words.
    pub target: String,
    /// The timeline that recovery follows.
    pub timeline: TimelineId,
    /// The timelines before it, oldest first.
    pub ancestors: Vec<PlanAncestor>,
    /// The first segment that recovery reads.
    pub first_segment: SegmentName,
    /// The last one; none for a standby, which goes on.
    pub last_segment: Option<SegmentName>,
    /// The end of the last record that recovery reads; none for a standby.
    pub end_lsn: Option<Lsn>,
    /// Where the WAL is, in the order they are asked.
    pub repositories: Vec<PlanRepository>,
}

/// A timeline that another one left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanAncestor {
    /// The timeline.
    pub timeline: TimelineId,
    /// Where it was left.
    pub switch: Lsn,
}

/// One repository, without secrets.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PlanRepository {
    /// Its name in the configuration.
    pub name: String,
    /// How to reach it.
    #[serde(flatten)]
    pub store: StoreSpec,
    /// `highwater.json`, as it was when the restore was planned.
    info: RepositoryInfo,
    /// The lineage that is read.
    lineage: LineageRecord,
    /// The cluster's keyring there, an age file in base64, wrapped to this restore's identity.
    keyring: String,
}

/// `restore.secrets`.
#[derive(Serialize, Deserialize, Default)]
struct Secrets {
    identity: String,
    /// By repository, then by the name of the option.
    stores: BTreeMap<String, BTreeMap<String, String>>,
}

/// The bounds of what a restore reads.
#[derive(Debug, Clone)]
pub struct PlanBounds {
    /// The cluster's name in the repositories.
    pub cluster: ClusterName,
    /// `wal_segment_size`.
    pub wal_segment_bytes: WalSegmentSize,
    /// The backup that recovery begins with.
    pub backup: String,
    /// The target, in words.
    pub target: String,
    /// The timelines on the way, the last one open.
    pub ancestry: Ancestry,
    /// The first segment that recovery reads.
    pub first_segment: SegmentName,
    /// The last segment and the end of its last record; none for a standby.
    pub end: Option<(SegmentName, Lsn)>,
}

/// A plan could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum PlanFileError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Others could read the secrets.
    #[error("others may read {} (mode {mode:03o})", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode bits.
        mode: u32,
    },
    /// Not a plan of ours.
    #[error("{} is not a restore plan: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The keyring in it.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// A repository in it.
    #[error(transparent)]
    Repository(#[from] LineageError),
    /// The local disk.
    #[error(transparent)]
    Durable(#[from] DurableError),
}

impl PlanFileError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Io { .. } => {
                Some("restore_command needs the files that highwater restore wrote beside the cluster".into())
            }
            Self::Open { path, .. } => {
                Some(format!("run: chmod 600 {}", crate::conf_file::shell_word(&path.display().to_string())))
            }
            Self::Malformed { .. } => Some("restore again into an empty directory".into()),
            Self::Keyring(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::Durable(error) => error.hint(),
        }
    }
}

/// A repository as a plan opens it.
#[derive(Debug)]
pub struct PlannedRepository {
    /// Its name.
    pub name: String,
    /// How to reach it.
    pub store: StoreSpec,
    /// The lineage in it, open; it was not asked yet.
    pub lineage: Lineage,
}

/// A repository to be written into a plan.
#[derive(Debug, Clone, Copy)]
pub struct RepositoryToPlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// How to reach it; credentials go into the secrets.
    pub store: &'a StoreSpec,
    /// The lineage that is read.
    pub lineage: &'a Lineage,
}

/// Writes the plan and its secrets below `data_dir`, durably, both readable by `owner` and nobody else.
///
/// # Errors
/// [`PlanFileError::Keyring`], [`PlanFileError::Durable`].
pub fn write(
    data_dir: &Path,
    bounds: &PlanBounds,
    repositories: &[RepositoryToPlan<'_>],
    owner: Option<&Account>,
    now: jiff::Timestamp,
) -> Result<PlanFile, PlanFileError> {
    let (identity, key_text) = Unlock::generate(now);
    let recipients = identity.recipients()?;
    let mut secrets = Secrets { identity: key_text.expose_secret().to_owned(), stores: BTreeMap::new() };
    let mut planned = Vec::with_capacity(repositories.len());
    for RepositoryToPlan { name, store, lineage } in repositories {
        let wrapped = lineage.keys().wrap(&recipients)?;
        // The server that asks for WAL will not have the environment of this restore.
        let settled = store::settled(store).map_err(LineageError::from)?;
        secrets.stores.insert((*name).to_owned(), settled.secrets());
        planned.push(PlanRepository {
            name: (*name).to_owned(),
            store: settled,
            info: lineage.repository().info().clone(),
            lineage: lineage.record().clone(),
            keyring: base64::engine::general_purpose::STANDARD.encode(wrapped),
        });
    }
    let timelines = bounds.ancestry.spans();
    let plan = PlanFile {
        format: FORMAT.to_owned(),
        version: 1,
        cluster: bounds.cluster.clone(),
        wal_segment_bytes: bounds.wal_segment_bytes,
        backup: bounds.backup.clone(),
        target: bounds.target.clone(),
        timeline: bounds.ancestry.timeline().unwrap_or(TimelineId::FIRST),
        ancestors: timelines
            .iter()
            .filter_map(|span| span.end.map(|switch| PlanAncestor { timeline: span.timeline, switch }))
            .collect(),
        first_segment: bounds.first_segment,
        last_segment: bounds.end.map(|(segment, _)| segment),
        end_lsn: bounds.end.map(|(_, lsn)| lsn),
        repositories: planned,
    };
    let path = data_dir.join(PLAN_FILE);
    let malformed =
        |error: serde_json::Error| PlanFileError::Malformed { path: path.clone(), reason: error.to_string() };
    let secrets = serde_json::to_vec_pretty(&secrets).map_err(malformed)?;
    let text = serde_json::to_vec_pretty(&plan).map_err(malformed)?;
    let [plan_file, secrets_file] = files();
    below::put(data_dir, &secrets_file, &[&secrets], owner, 0o600)?;
    below::put(data_dir, &plan_file, &[&text], owner, 0o600)?;
    Ok(plan)
}

/// The files that [`write()`] makes, below the data directory.
pub fn files() -> [PathBuf; 2] {
    [PathBuf::from(PLAN_FILE), Path::new(PLAN_FILE).with_file_name(SECRETS_FILE)]
}

impl PlanFile {
    /// Reads a plan.
    ///
    /// # Errors
    /// [`PlanFileError::Io`], [`PlanFileError::Malformed`].
    pub fn read(path: &Path) -> Result<PlanFile, PlanFileError> {
        let (bytes, _) = read_bounded(path)?;
        let malformed = |reason: String| PlanFileError::Malformed { path: path.to_owned(), reason };
        let plan: PlanFile = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        if plan.format != FORMAT || plan.version != 1 {
            return Err(malformed(format!("{} version {}", plan.format, plan.version)));
        }
        Ok(plan)
    }

    /// The plan's repositories with what opens them, from the secrets beside the plan.
    ///
    /// # Errors
    /// [`PlanFileError::Open`] when others may read the secrets, [`PlanFileError::Keyring`], and those of [`PlanFile::read`].
    pub fn repositories(&self, path: &Path) -> Result<Vec<PlannedRepository>, PlanFileError> {
        let secrets_path = path.with_file_name(SECRETS_FILE);
        let malformed = |reason: String| PlanFileError::Malformed { path: secrets_path.clone(), reason };
        let (bytes, mode) = read_bounded(&secrets_path)?;
        if mode & 0o077 != 0 {
            return Err(PlanFileError::Open { path: secrets_path, mode: mode & 0o777 });
        }
        let secrets: Secrets =
            serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        let unlock = Unlock::from_text(&secrets.identity).map_err(|error| malformed(error.to_string()))?;
        let mut opened = Vec::with_capacity(self.repositories.len());
        for repository in &self.repositories {
            let wrapped = base64::engine::general_purpose::STANDARD
                .decode(&repository.keyring)
                .map_err(|error| malformed(error.to_string()))?;
            let nothing = BTreeMap::new();
            let secrets = secrets.stores.get(&repository.name).unwrap_or(&nothing);
            let store = repository.store.clone().with_secrets(secrets);
            let keys = Keyring::unwrap(&wrapped, &unlock)?;
            let lineage = repository.open(&store, &self.cluster, keys)?;
            opened.push(PlannedRepository { name: repository.name.clone(), store, lineage });
        }
        Ok(opened)
    }

    /// The timelines on the way.
    pub fn ancestry(&self) -> Ancestry {
        let ancestor = |ancestor: &PlanAncestor| Ancestor {
            timeline: ancestor.timeline,
            switch: ancestor.switch,
            reason: String::new(),
        };
        let ancestors = self.ancestors.iter().map(ancestor).collect();
        TimelineHistory { timeline: self.timeline, ancestors }.ancestry()
    }

    /// What a file asked for is to this plan.
    pub fn scope(&self, file: &WalFile) -> Scope {
        let size = self.wal_segment_bytes;
        let on_the_way = |timeline: TimelineId| {
            timeline == self.timeline || self.ancestors.iter().any(|ancestor| ancestor.timeline == timeline)
        };
        match file {
            WalFile::Segment(name) => {
                let number = name.number(size);
                if !on_the_way(name.timeline) && self.last_segment.is_some() {
                    Scope::Outside("its timeline is not on the way to the target")
                } else if self.last_segment.is_some_and(|last| number > last.number(size)) {
                    Scope::Outside("it lies past the last segment of the plan")
                } else if self.ancestry().timeline_for_segment(number, size) == Some(name.timeline)
                    && number >= self.first_segment.number(size)
                    && self.last_segment.is_some()
                {
                    Scope::Needed
                } else {
                    Scope::Optional
                }
            }
            WalFile::History(timeline) => {
                let has_parent = self.ancestors.first().is_some_and(|first| first.timeline != *timeline);
                if on_the_way(*timeline) && has_parent {
                    Scope::Needed
                } else if self.last_segment.is_none() || *timeline > self.timeline {
                    // A standby follows its upstream to timelines that nobody knows yet. A server at its target looks for a
                    // free number for its own timeline (`findNewestTimeLine`): one that is taken in the archive must be
                    // seen, or two histories would claim the same. Its target timeline is a number, so it is never led there.
                    Scope::Optional
                } else {
                    Scope::Outside("its timeline is not on the way to the target")
                }
            }
            WalFile::Partial(_) | WalFile::Backup { .. } => Scope::Optional,
        }
    }
}

impl PlanRepository {
    fn open(&self, spec: &StoreSpec, cluster: &ClusterName, keys: Keyring) -> Result<Lineage, LineageError> {
        let repository = Repository::remembered(store::open(spec)?, self.info.clone())?;
        Lineage::remembered(&Cluster::remembered(repository, cluster.clone(), keys), self.lineage.clone())
    }
}

/// What a file of WAL is to a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Recovery cannot reach its target without it: absence is an error.
    Needed,
    /// It may be there or not.
    Optional,
    /// No part of the way; the answer is "no such file" and nobody is asked. The text says why.
    Outside(&'static str),
}

/// A whole file, of at most [`MAX_BYTES`], and its mode.
fn read_bounded(path: &Path) -> Result<(Vec<u8>, u32), PlanFileError> {
    use std::io::Read as _;
    use std::os::unix::fs::MetadataExt as _;
    let failed = |source| PlanFileError::Io { path: path.to_owned(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok((bytes, mode))
}

/// A value stored as the text its `Display` prints and its `FromStr` reads.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<T: std::fmt::Display, S: Serializer>(
        value: &T,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: std::str::FromStr<Err: std::fmt::Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests;
