//! The repository: what it is, which clusters it holds, and the way to their keys.
//!
//! Everything needed is in the repository itself: from a blank host, the URL and the key are enough. Nothing here is ever
//! changed once written, so two `init`s at once are safe: each object is created by one of them, and the other reads
//! and uses what is there.
//!
//! The order of creation is `highwater.json`, `cluster.json`, keyring, lineage; a crash in between leaves a beginning
//! that the next `init` completes.

mod attend;
mod cluster;
pub mod lineage;
pub(crate) mod objects;

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::keyring::{Keyring, KeyringError, Recipients, Unlock};
use crate::names::{self, ClusterId, ClusterName, LineageId, RepositoryId, ShortDigest};
pub use crate::racing::NameMode;
use crate::racing::{self, Published, RaceError};
use crate::store::{Store, StoreError};

pub use attend::{Patience, Silent};
pub use cluster::{Cluster, LockedCluster};
use lineage::LineageError;

/// The reader version that this program implements.
pub const READER: u32 = 1;

/// The writer version that this program implements.
pub const WRITER: u32 = 1;

/// The extent length of a new repository, in bytes.
pub const DEFAULT_EXTENT_BYTES: u32 = 1 << 20;

/// The largest plain object that is read, in bytes.
const MAX_PLAIN_BYTES: u64 = 64 << 10;

/// `highwater.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryInfo {
    /// Always `highwater`.
    pub format: String,
    /// Version of the format: 1.
    pub version: u32,
    /// The least reader version that reads it.
    pub min_reader: u32,
    /// The least writer version that may write it.
    pub min_writer: u32,
    /// Its id.
    pub repository_id: RepositoryId,
    /// How names that could race are written.
    pub names: NameMode,
    /// Length of an extent in bytes.
    pub extent_bytes: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Program and version that made it.
    pub created_by: String,
}

/// What a new repository is to be.
#[derive(Debug, Clone, Copy)]
pub struct CreateParams {
    /// As the probe of conditional creates has found.
    pub names: NameMode,
    /// Length of an extent in bytes: a power of two of 64 KiB to 16 MiB; [`DEFAULT_EXTENT_BYTES`] as a rule.
    pub extent_bytes: u32,
    /// Now.
    pub now: Timestamp,
}

/// `cluster.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterInfo {
    /// Its name in this repository.
    pub name: String,
    /// Its id.
    pub cluster_id: ClusterId,
    /// When it was made.
    pub created_at: Timestamp,
}

/// What can go wrong with a repository or a cluster in it.
#[derive(Debug, thiserror::Error)]
pub enum RepositoryError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A name that two writers raced for.
    #[error(transparent)]
    Race(RaceError),
    /// The keyring.
    #[error("cluster {cluster}: {source}")]
    Keyring {
        /// The cluster's name.
        cluster: String,
        /// What is wrong.
        source: KeyringError,
    },
    /// A lineage.
    #[error(transparent)]
    Lineage(Box<LineageError>),
    /// There is no repository at this URL.
    #[error("{store}: no repository")]
    NotARepository {
        /// The URL, without secrets.
        store: String,
    },
    /// A plain object is not what the format says.
    #[error("{path} in {store}: {reason}")]
    Malformed {
        /// The object.
        path: String,
        /// The URL, without secrets.
        store: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The repository needs a newer program.
    #[error(
        "{store}: {action} it needs {action_version} version {needed}; this program implements {implemented}"
    )]
    TooNew {
        /// The URL, without secrets.
        store: String,
        /// `reading` or `writing`.
        action: &'static str,
        /// `reader` or `writer`.
        action_version: &'static str,
        /// The least version that may.
        needed: u32,
        /// This program's.
        implemented: u32,
    },
    /// The text cannot name a cluster.
    #[error(transparent)]
    ClusterName(#[from] names::ClusterNameError),
    /// No cluster has this name.
    #[error("{store}: no cluster {cluster}")]
    NoSuchCluster {
        /// The name.
        cluster: String,
        /// The URL, without secrets.
        store: String,
    },
    /// The keyring under this cluster's name belongs to another cluster.
    #[error("cluster {cluster}: its keyring belongs to the cluster with the id {found}, not {expected}")]
    ForeignKeyring {
        /// The cluster's name.
        cluster: String,
        /// The id in `cluster.json`.
        expected: ClusterId,
        /// The id in the keyring.
        found: ClusterId,
    },
    /// A parameter that the format does not allow.
    #[error("{0}")]
    Parameter(String),
    /// The system gives no random bytes.
    #[error("no random bytes for an id: {0}")]
    Random(#[from] getrandom::Error),
}

impl From<RaceError> for RepositoryError {
    fn from(error: RaceError) -> Self {
        match error {
            RaceError::Store(error) => Self::Store(error),
            other => Self::Race(other),
        }
    }
}

impl From<LineageError> for RepositoryError {
    fn from(error: LineageError) -> Self {
        Self::Lineage(Box::new(error))
    }
}

impl RepositoryError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::Race(error) => error.hint(),
            Self::Keyring { source, .. } => source.hint(),
            Self::Lineage(error) => error.hint(),
            Self::NotARepository { .. } => {
                Some("is the disk mounted, and the URL right? what `highwater init` made is not there".into())
            }
            Self::Malformed { .. } => Some(
                "it was changed after it was written, and without it nothing here can be read; take it from another copy of the \
                 repository, and the rest is as good as it was"
                    .into(),
            ),
            Self::TooNew { .. } => Some("install a newer version of Highwater on this host".into()),
            Self::NoSuchCluster { .. } => {
                Some("`highwater list` names the clusters; `highwater init` adds one".into())
            }
            Self::ForeignKeyring { .. } => Some("do not write to it; compare with the recovery kit".into()),
            Self::ClusterName(_) | Self::Parameter(_) | Self::Random(_) => None,
        }
    }

    /// Whether a newer program is needed, so that nothing was tried.
    pub fn is_too_new(&self) -> bool {
        match self {
            Self::TooNew { .. } => true,
            Self::Lineage(error) => error.is_too_new(),
            _ => false,
        }
    }

    /// Whether the repository itself proved that what was asked for is not there.
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::NotARepository { .. } | Self::NoSuchCluster { .. } => true,
            Self::Store(error) => error.is_not_found(),
            Self::Lineage(error) => error.is_not_found(),
            _ => false,
        }
    }
}

/// A repository that is open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    store: Arc<dyn Store>,
    info: Arc<RepositoryInfo>,
}

impl Repository {
    /// Makes a repository, or opens the one that is there. True with a new one.
    ///
    /// # Errors
    /// [`RepositoryError::Parameter`], [`RepositoryError::Store`], and all of [`Repository::open`].
    pub async fn create(
        store: Arc<dyn Store>,
        params: CreateParams,
    ) -> Result<(Self, bool), RepositoryError> {
        let extent = params.extent_bytes;
        if !extent.is_power_of_two() || !(64 << 10..=16 << 20).contains(&extent) {
            return Err(RepositoryError::Parameter(format!(
                "extents of {extent} bytes: a power of two from 64 KiB to 16 MiB is needed"
            )));
        }
        match Self::open(store.clone()).await {
            Ok(present) => return Ok((present, false)),
            Err(RepositoryError::NotARepository { .. }) => {}
            // The directory itself is not there yet; creating the first object makes it, or says why not.
            Err(RepositoryError::Store(StoreError::NoRoot { .. })) => {}
            Err(other) => return Err(other),
        }
        let info = RepositoryInfo {
            format: "highwater".into(),
            version: 1,
            min_reader: 1,
            min_writer: 1,
            repository_id: RepositoryId::random()?,
            names: params.names,
            extent_bytes: extent,
            created_at: params.now,
            created_by: concat!("highwater ", env!("CARGO_PKG_VERSION")).into(),
        };
        match create_plain(&*store, params.names, names::REPOSITORY, &info).await? {
            Published::New => Ok((Self { store, info: Arc::new(info) }, true)),
            Published::Exists(_) => Ok((Self::open(store).await?, false)),
        }
    }

    /// Opens the repository that is there, for reading at least.
    ///
    /// # Errors
    /// [`RepositoryError::NotARepository`], [`RepositoryError::TooNew`], [`RepositoryError::Malformed`] (also where clusters are
    /// there and it alone is missing), [`RepositoryError::Store`].
    pub async fn open(store: Arc<dyn Store>) -> Result<Self, RepositoryError> {
        let mut found = read_info(&*store).await?;
        if found.is_none() && may_hold_objects(&*store, names::CLUSTERS).await? {
            // Somebody may have made all of it since we looked.
            found = Some(read_info(&*store).await?.ok_or_else(|| lost(&*store, names::REPOSITORY))?);
        }
        let info = found.ok_or_else(|| RepositoryError::NotARepository { store: store.describe() })?;
        Self::remembered(store, info)
    }

    /// The repository that was opened before and gave this `info`; the store is not asked.
    ///
    /// # Errors
    /// [`RepositoryError::TooNew`], [`RepositoryError::Malformed`].
    pub fn remembered(store: Arc<dyn Store>, info: RepositoryInfo) -> Result<Self, RepositoryError> {
        let malformed = |reason: &str| RepositoryError::Malformed {
            path: names::REPOSITORY.into(),
            store: store.describe(),
            reason: reason.into(),
        };
        if info.format != "highwater" {
            return Err(malformed("it does not describe a repository of Highwater"));
        }
        if info.min_reader > READER {
            return Err(too_new(&*store, "reading", "reader", info.min_reader, READER));
        }
        if info.extent_bytes == 0 || info.extent_bytes > 16 << 20 {
            return Err(malformed("its extent length is not one"));
        }
        Ok(Self { store, info: Arc::new(info) })
    }

    /// What `highwater.json` says.
    pub fn info(&self) -> &RepositoryInfo {
        &self.info
    }

    /// Where it lies.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// Refuses when the repository is one that this program must not write.
    ///
    /// # Errors
    /// [`RepositoryError::TooNew`] names the version that is needed.
    pub fn require_writer(&self) -> Result<(), RepositoryError> {
        if self.info.min_writer > WRITER {
            return Err(too_new(&*self.store, "writing", "writer", self.info.min_writer, WRITER));
        }
        Ok(())
    }

    /// The names of the clusters in it, sorted.
    ///
    /// # Errors
    /// [`RepositoryError::Store`].
    pub async fn clusters(&self) -> Result<Vec<ClusterName>, RepositoryError> {
        let listing = self.store.list_dir(names::CLUSTERS).await?;
        let last = |path: &String| path.rsplit('/').next().and_then(|name| name.parse().ok());
        Ok(listing.directories.iter().filter_map(last).collect())
    }

    /// A cluster as far as it can be seen without a key.
    ///
    /// # Errors
    /// [`RepositoryError::NoSuchCluster`], [`RepositoryError::Malformed`], [`RepositoryError::Store`].
    pub async fn cluster(&self, name: &ClusterName) -> Result<LockedCluster, RepositoryError> {
        let path = names::cluster_object(name);
        let (store, names) = (&*self.store, self.info.names);
        let mut found = read_plain::<ClusterInfo>(store, names, &path).await?;
        if found.is_none() && holds_objects(store, &names::cluster_dir(name)).await? {
            found = Some(read_plain(store, names, &path).await?.ok_or_else(|| lost(store, &path))?);
        }
        let info = found.ok_or_else(|| RepositoryError::NoSuchCluster {
            cluster: name.to_string(),
            store: store.describe(),
        })?;
        if info.name != name.as_str() {
            return Err(RepositoryError::Malformed {
                path,
                store: self.store.describe(),
                reason: format!(
                    "it is of a cluster named {:?}",
                    info.name.chars().take(80).collect::<String>()
                ),
            });
        }
        Ok(LockedCluster::new(self.clone(), name.clone(), info))
    }

    /// Adds a cluster with a keyring of its own, or opens the one that is there. True when this call made its keyring.
    ///
    /// # Errors
    /// [`RepositoryError::TooNew`], [`RepositoryError::Keyring`] (also when the cluster is there and `unlock` does not
    /// open it), [`RepositoryError::Store`].
    pub async fn create_cluster(
        &self,
        name: &ClusterName,
        unlock: &Unlock,
        recipients: &Recipients,
        now: Timestamp,
    ) -> Result<(Cluster, bool), RepositoryError> {
        self.require_writer()?;
        match self.cluster(name).await {
            Ok(_) | Err(RepositoryError::NoSuchCluster { .. }) => {}
            // A new one beside an old keyring would only make it worse.
            Err(damaged) => return Err(damaged),
        }
        let info = ClusterInfo { name: name.to_string(), cluster_id: ClusterId::random()?, created_at: now };
        // Whoever wins: from here on the object that is there counts.
        let _published =
            create_plain(&*self.store, self.info.names, &names::cluster_object(name), &info).await?;
        let locked = self.cluster(name).await?;
        if !locked.generations().await?.is_empty() {
            return Ok((locked.unlock(unlock).await?, false));
        }
        let failed = |source| RepositoryError::Keyring { cluster: name.to_string(), source };
        let keyring = Keyring::generate(locked.info().cluster_id, recipients, now).map_err(failed)?;
        let wrapped = keyring.wrap(recipients).map_err(failed)?;
        // Before it counts: a keyring that this key cannot open again would be a lock without a key.
        Keyring::unwrap(&wrapped, unlock).map_err(failed)?;
        let path = names::keyring_object(name, 1);
        let published = publish_plain(&*self.store, self.info.names, &path, wrapped).await?;
        Ok((locked.unlock(unlock).await?, published == Published::New))
    }
}

/// What is read to open a cluster and its keyring, for [`store::open_ahead`](crate::store::open_ahead).
pub fn objects_to_open(cluster: &ClusterName) -> Vec<String> {
    let generations = [1, 2].map(|generation| names::keyring_object(cluster, generation));
    [names::REPOSITORY.to_owned(), names::cluster_object(cluster)].into_iter().chain(generations).collect()
}

/// What is read of a lineage before anything is written into it.
pub fn objects_to_write(cluster: &ClusterName, lineage: LineageId) -> Vec<String> {
    let directory = names::lineage_dir(cluster, lineage);
    [names::LINEAGE, names::CLOSED].map(|name| format!("{directory}/{name}")).into()
}

fn too_new(
    store: &dyn Store,
    action: &'static str,
    action_version: &'static str,
    needed: u32,
    implemented: u32,
) -> RepositoryError {
    RepositoryError::TooNew { store: store.describe(), action, action_version, needed, implemented }
}

/// What `highwater.json` says. Its name cannot be known from that: it lies under the plain name or, with `names: content`, the other.
async fn read_info(store: &dyn Store) -> Result<Option<RepositoryInfo>, RepositoryError> {
    match read_plain(store, NameMode::Plain, names::REPOSITORY).await? {
        Some(info) => Ok(Some(info)),
        None => read_plain(store, NameMode::Content, names::REPOSITORY).await,
    }
}

/// Whether an object lies below a directory. Directories without one, as an interrupted writer leaves them, are nothing.
async fn holds_objects(store: &dyn Store, directory: &str) -> Result<bool, RepositoryError> {
    Ok(!store.list(&format!("{directory}/")).await?.is_empty())
}

/// The same, where a key may be limited to one cluster: it cannot see what others wrote, and finds its own by the cluster's record.
async fn may_hold_objects(store: &dyn Store, directory: &str) -> Result<bool, RepositoryError> {
    match holds_objects(store, directory).await {
        Err(RepositoryError::Store(StoreError::PermissionDenied { .. })) => Ok(false),
        held => held,
    }
}

/// The first object of a repository or a cluster is gone, and what was written after it is there.
fn lost(store: &dyn Store, path: &str) -> RepositoryError {
    let reason = "it is missing, and what was written after it is there".to_owned();
    RepositoryError::Malformed { path: path.to_owned(), store: store.describe(), reason }
}

/// Creates a plain JSON object under a name that could race.
async fn create_plain<T: Serialize>(
    store: &dyn Store,
    mode: NameMode,
    path: &str,
    value: &T,
) -> Result<Published, RepositoryError> {
    let bytes = serde_json::to_vec(value).map_err(|error| RepositoryError::Parameter(error.to_string()))?;
    publish_plain(store, mode, path, bytes).await
}

/// Creates an object that is not sealed: its name carries the SHA-256, where names carry the content.
async fn publish_plain(
    store: &dyn Store,
    mode: NameMode,
    path: &str,
    bytes: Vec<u8>,
) -> Result<Published, RepositoryError> {
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    let short = ShortDigest::from_bytes(*hash.first_chunk().unwrap_or(&[0; 16]));
    Ok(racing::publish(store, mode, path, &mode.name(path, short), vec![bytes.into()]).await?)
}

async fn read_plain<T: DeserializeOwned>(
    store: &dyn Store,
    mode: NameMode,
    path: &str,
) -> Result<Option<T>, RepositoryError> {
    let Some(bytes) = read_bounded(store, mode, path, MAX_PLAIN_BYTES).await? else { return Ok(None) };
    let value = serde_json::from_slice(&bytes).map_err(|error| RepositoryError::Malformed {
        path: path.to_owned(),
        store: store.describe(),
        reason: match bytes.is_empty() {
            true => "it is empty".to_owned(),
            false if error.is_eof() => "it is cut short".to_owned(),
            false => format!("it is not what Highwater writes there: {error}"),
        },
    })?;
    Ok(Some(value))
}

/// Reads an object of at most `limit` bytes; `None` when it is proven absent.
async fn read_bounded(
    store: &dyn Store,
    mode: NameMode,
    path: &str,
    limit: u64,
) -> Result<Option<Bytes>, RepositoryError> {
    let Some(name) = racing::find(store, mode, path).await? else { return Ok(None) };
    match store.get_range(&name, 0..limit + 1).await {
        Ok(bytes) if bytes.len() as u64 > limit => Err(RepositoryError::Malformed {
            path: name,
            store: store.describe(),
            reason: format!("it is longer than {limit} bytes"),
        }),
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
