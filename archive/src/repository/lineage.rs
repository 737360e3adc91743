//! A lineage: one life of a cluster, from `init` or `adopt` to its end (I1). The handle that all other code works with.

use std::sync::Arc;

use bytes::Bytes;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::WalSegmentSize;
use highwater_pitr::timeline::TimelineId;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::keyring::Keyring;
use crate::names::{self, ClusterId, LineageId};
use crate::racing::{NameMode, Published, RaceError};
use crate::repository::objects::Objects;
use crate::repository::{Cluster, Repository, RepositoryError};
use crate::seal::{Codec, ObjectKind, ObjectName, SealError};
use crate::store::{Created, ListEntry, Store, StoreError};

/// What a lineage is bound to; written once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineageRecord {
    /// Its id.
    pub lineage: LineageId,
    /// The cluster it belongs to.
    pub cluster_id: ClusterId,
    /// PostgreSQL's system identifier, in decimal.
    #[serde(with = "decimal")]
    pub system_identifier: u64,
    /// PostgreSQL's major version.
    pub pg_major: u16,
    /// `wal_segment_size`.
    pub wal_segment_bytes: WalSegmentSize,
    /// PostgreSQL's block size in bytes.
    pub block_bytes: u32,
    /// The lineage that it was forked from.
    pub parent: Option<LineageId>,
    /// On which of its timelines.
    pub parent_timeline: Option<TimelineId>,
    /// Where.
    pub fork_lsn: Option<Lsn>,
    /// When it began.
    pub created_at: Timestamp,
    /// What began it: `init`, `adopt`, `upgrade`.
    pub reason: String,
}

/// The end of a lineage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClosedRecord {
    /// The lineage that goes on in its place.
    pub successor: Option<LineageId>,
    /// When it ended.
    pub closed_at: Timestamp,
    /// What ended it.
    pub reason: String,
}

/// What can go wrong with a lineage and its objects.
#[derive(Debug, thiserror::Error)]
pub enum LineageError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An object does not open, or could not be sealed.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// A name that two writers raced for.
    #[error(transparent)]
    Race(RaceError),
    /// An object that opens, and whose content is not what it should be.
    #[error("{path}: {reason}")]
    Malformed {
        /// Path below the lineage.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository must not be written by this program, or is broken.
    #[error(transparent)]
    Repository(Box<RepositoryError>),
    /// There is no lineage with this id.
    #[error("no lineage {lineage} in cluster {cluster} of this repository")]
    NoSuchLineage {
        /// The id.
        lineage: LineageId,
        /// The cluster's name.
        cluster: String,
    },
    /// Its record is damaged.
    #[error("the record of lineage {lineage} cannot be read: {source}")]
    Record {
        /// The id.
        lineage: LineageId,
        /// What is wrong with it.
        source: Box<LineageError>,
    },
    /// Objects of a lineage without the record that was written before them.
    #[error(
        "the record of lineage {lineage} is missing, and {objects} objects lie there (clusters/{cluster}/{lineage}/lineage)"
    )]
    NoRecord {
        /// The id.
        lineage: LineageId,
        /// The cluster's name.
        cluster: String,
        /// How many objects.
        objects: usize,
    },
    /// The lineage has ended.
    #[error("lineage {lineage} was closed at {} ({})", closed.closed_at, closed.reason)]
    Closed {
        /// Its id.
        lineage: LineageId,
        /// How it ended.
        closed: Box<ClosedRecord>,
    },
}

impl From<RaceError> for LineageError {
    fn from(error: RaceError) -> Self {
        match error {
            RaceError::Store(error) => Self::Store(error),
            other => Self::Race(other),
        }
    }
}

impl From<RepositoryError> for LineageError {
    fn from(error: RepositoryError) -> Self {
        Self::Repository(Box::new(error))
    }
}

impl LineageError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Seal(error) => error.hint(),
            Self::Race(error) => error.hint(),
            Self::Repository(error) => error.hint(),
            Self::NoSuchLineage { .. } => Some("`highwater list` names the lineages of this cluster".into()),
            Self::Record { .. } | Self::NoRecord { .. } => Some(
                "without it nothing of this lineage can be read: put it back from another copy of the repository, or from a version \
                 that the storage kept"
                    .into(),
            ),
            Self::Closed { .. } => Some("`highwater adopt` on this host begins a lineage of its own".into()),
            Self::Malformed { .. } => Some("a newer version of Highwater may have written it".into()),
        }
    }

    /// Whether the repository needs a newer program, so that nothing was tried.
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::Repository(error) if error.is_too_new())
    }

    /// Whether the store itself proved that what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::Store(error) => error.is_not_found(),
            Self::NoSuchLineage { .. } => true,
            _ => false,
        }
    }

    /// Whether asking again cannot help until a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Store(error) => error.is_permanent(),
            Self::Repository(_)
            | Self::Seal(_)
            | Self::Race(_)
            | Self::Malformed { .. }
            | Self::NoSuchLineage { .. }
            | Self::Record { .. }
            | Self::NoRecord { .. }
            | Self::Closed { .. } => true,
        }
    }
}

/// A lineage that is open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Lineage {
    repository: Repository,
    objects: Arc<Objects>,
    record: Arc<LineageRecord>,
}

impl Lineage {
    pub(crate) async fn open(cluster: &Cluster, id: LineageId) -> Result<Self, LineageError> {
        let objects = Self::objects(cluster, id);
        let damaged = |error: LineageError| match error {
            LineageError::Seal(_) | LineageError::Malformed { .. } | LineageError::Race(_) => {
                LineageError::Record { lineage: id, source: Box::new(error) }
            }
            other => other,
        };
        let bytes = objects.read_racing(ObjectKind::Lineage, names::LINEAGE).await.map_err(damaged)?;
        let bytes = bytes.ok_or_else(|| LineageError::NoSuchLineage {
            lineage: id,
            cluster: cluster.name().to_string(),
        })?;
        let record: LineageRecord = from_json(names::LINEAGE, &bytes).map_err(damaged)?;
        if record.lineage != id || record.cluster_id != cluster.id() {
            let reason =
                format!("it is the record of lineage {} of cluster {}", record.lineage, record.cluster_id);
            return Err(damaged(LineageError::Malformed { path: names::LINEAGE.into(), reason }));
        }
        Ok(Self {
            repository: cluster.repository().clone(),
            objects: Arc::new(objects),
            record: Arc::new(record),
        })
    }

    pub(crate) async fn create_new(cluster: &Cluster, record: LineageRecord) -> Result<Self, LineageError> {
        let id = record.lineage;
        if record.cluster_id != cluster.id() {
            let reason = format!(
                "a lineage of cluster {} cannot begin in cluster {}",
                record.cluster_id,
                cluster.id()
            );
            return Err(LineageError::Malformed { path: names::LINEAGE.into(), reason });
        }
        let bytes = to_json(names::LINEAGE, &record)?;
        let objects = Self::objects(cluster, id);
        let published =
            objects.create_racing(ObjectKind::Lineage, names::LINEAGE, Codec::None, &bytes).await?;
        let present = Self::open(cluster, id).await?;
        // A retry finds what the first attempt wrote; anything else is not this lineage.
        if published != Published::New && *present.record != record {
            let reason = "another lineage has this id".into();
            return Err(LineageError::Malformed { path: names::LINEAGE.into(), reason });
        }
        Ok(present)
    }

    /// The lineage of `cluster` that was opened before and gave this `record`; the store is not asked.
    ///
    /// # Errors
    /// [`LineageError::Malformed`] for the record of another cluster.
    pub fn remembered(cluster: &Cluster, record: LineageRecord) -> Result<Self, LineageError> {
        if record.cluster_id != cluster.id() {
            let reason = format!("it is the record of a lineage of cluster {}", record.cluster_id);
            return Err(LineageError::Malformed { path: names::LINEAGE.into(), reason });
        }
        let objects = Arc::new(Self::objects(cluster, record.lineage));
        Ok(Self { repository: cluster.repository().clone(), objects, record: Arc::new(record) })
    }

    fn objects(cluster: &Cluster, id: LineageId) -> Objects {
        let repository = cluster.repository();
        Objects::new(
            repository.store().clone(),
            repository.info().names,
            cluster.keys().clone(),
            id,
            &names::lineage_dir(cluster.name(), id),
        )
    }

    /// What it is bound to.
    pub fn record(&self) -> &LineageRecord {
        &self.record
    }

    /// Its id.
    pub fn id(&self) -> LineageId {
        self.record.lineage
    }

    /// The keys of its cluster.
    pub fn keys(&self) -> &Arc<Keyring> {
        self.objects.keys()
    }

    /// The store that it lies in.
    pub fn store(&self) -> &Arc<dyn Store> {
        self.objects.store()
    }

    /// The repository that it lies in.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// How names that could race are written.
    pub fn name_mode(&self) -> NameMode {
        self.objects.mode()
    }

    /// The path in the store of the object `path` below the lineage.
    pub fn full_path(&self, path: &str) -> String {
        self.objects.full_path(path)
    }

    /// The name that an object's key is bound to.
    pub fn object_name<'a>(&self, kind: ObjectKind, path: &'a str) -> ObjectName<'a> {
        self.objects.name(kind, path)
    }

    /// Seals `plain` and creates it as the object `path` below the lineage. For names that nobody else can mean; those
    /// that two writers could race for go through [`Lineage::create_racing`].
    ///
    /// # Errors
    /// [`LineageError`]; refuses when this program must not write the repository.
    pub async fn create(
        &self,
        kind: ObjectKind,
        path: &str,
        codec: Codec,
        plain: &[u8],
    ) -> Result<Created, LineageError> {
        self.repository.require_writer()?;
        self.objects.create(kind, path, codec, plain).await
    }

    /// Creates an object that was sealed before, under exactly this path below the lineage.
    ///
    /// # Errors
    /// As [`Lineage::create`].
    pub async fn create_sealed(&self, path: &str, sealed: Vec<Bytes>) -> Result<Created, LineageError> {
        self.repository.require_writer()?;
        Ok(self.store().create(&self.full_path(path), sealed).await?)
    }

    /// Reads and opens the object `path` below the lineage.
    ///
    /// # Errors
    /// [`LineageError::Store`] with `is_not_found` when it is absent; [`LineageError::Seal`] when a check fails.
    pub async fn read(&self, kind: ObjectKind, path: &str) -> Result<Vec<u8>, LineageError> {
        self.objects.read(kind, path).await
    }

    /// Seals `plain` and creates it under a name that two writers could race for (I4).
    ///
    /// # Errors
    /// As [`Lineage::create`], and [`LineageError::Race`] when two contents stand for one name.
    pub async fn create_racing(
        &self,
        kind: ObjectKind,
        path: &str,
        codec: Codec,
        plain: &[u8],
    ) -> Result<Published, LineageError> {
        self.repository.require_writer()?;
        self.objects.create_racing(kind, path, codec, plain).await
    }

    /// Reads an object that was created with [`Lineage::create_racing`]; `None` when it is proven absent.
    ///
    /// # Errors
    /// [`LineageError`].
    pub async fn read_racing(&self, kind: ObjectKind, path: &str) -> Result<Option<Vec<u8>>, LineageError> {
        self.objects.read_racing(kind, path).await
    }

    /// Publishes an object that was sealed as `name` under the path that others could race for.
    pub(crate) async fn publish(
        &self,
        path: &str,
        name: &str,
        sealed: Vec<Bytes>,
    ) -> Result<Published, LineageError> {
        self.repository.require_writer()?;
        self.objects.publish(path, name, sealed).await
    }

    /// Makes the object `name` durable, which was found and not created.
    pub(crate) async fn confirm(&self, name: &str) -> Result<(), LineageError> {
        Ok(self.store().confirm(&self.full_path(name)).await?)
    }

    /// The name under which `path` lies; with `names: plain` without asking the store.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<String>, LineageError> {
        self.objects.find(path).await
    }

    /// All objects whose path below the lineage begins with `prefix`, sorted; the paths are below the lineage.
    ///
    /// # Errors
    /// [`LineageError::Store`].
    pub async fn list(&self, prefix: &str) -> Result<Vec<ListEntry>, LineageError> {
        self.objects.list(prefix).await
    }

    /// How the lineage ended; `None` while it may be written.
    ///
    /// # Errors
    /// [`LineageError`].
    pub async fn closed(&self) -> Result<Option<ClosedRecord>, LineageError> {
        let bytes = self.objects.read_racing(ObjectKind::Closed, names::CLOSED).await?;
        bytes.map(|bytes| from_json(names::CLOSED, &bytes)).transpose()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// [`LineageError`].
    pub async fn is_closed(&self) -> Result<bool, LineageError> {
        Ok(self.closed().await?.is_some())
    }

    /// Refuses when the lineage has ended.
    ///
    /// # Errors
    /// [`LineageError::Closed`] with how it ended.
    pub async fn require_open(&self) -> Result<(), LineageError> {
        match self.closed().await? {
            None => Ok(()),
            Some(closed) => Err(LineageError::Closed { lineage: self.id(), closed: Box::new(closed) }),
        }
    }
}

/// The compact JSON of a small object.
pub(crate) fn to_json<T: Serialize>(path: &str, value: &T) -> Result<Vec<u8>, LineageError> {
    serde_json::to_vec(value)
        .map_err(|error| LineageError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// Reads the JSON of a small object.
pub(crate) fn from_json<T: DeserializeOwned>(path: &str, bytes: &[u8]) -> Result<T, LineageError> {
    serde_json::from_slice(bytes)
        .map_err(|error| LineageError::Malformed { path: path.to_owned(), reason: error.to_string() })
}

/// A 64-bit number as a decimal string, because JSON's numbers are not exact that far everywhere.
mod decimal {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
