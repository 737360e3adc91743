//! A cluster in a repository: first with its keyring closed, then open.

use std::sync::Arc;

use bytes::Bytes;

use super::lineage::{Lineage, LineageError, LineageRecord};
use super::{ClusterInfo, Repository, RepositoryError, publish_plain, read_bounded};
use crate::keyring::{Keyring, KeyringError, MAX_WRAPPED_BYTES, Recipients, Unlock};
use crate::names::{self, ClusterId, ClusterName, LineageId};
use crate::racing::Published;

/// The most generations of a keyring that are read.
const MAX_GENERATIONS: u32 = 1000;

/// A cluster whose keyring has not been opened.
#[derive(Debug, Clone)]
pub struct LockedCluster {
    repository: Repository,
    name: ClusterName,
    info: ClusterInfo,
}

impl LockedCluster {
    pub(super) fn new(repository: Repository, name: ClusterName, info: ClusterInfo) -> Self {
        Self { repository, name, info }
    }

    /// What `cluster.json` says.
    pub fn info(&self) -> &ClusterInfo {
        &self.info
    }

    /// Opens the keyring with `unlock`.
    ///
    /// # Errors
    /// [`RepositoryError::Keyring`], [`RepositoryError::ForeignKeyring`], [`RepositoryError::Store`].
    pub async fn unlock(&self, unlock: &Unlock) -> Result<Cluster, RepositoryError> {
        let generations = self.generations().await?;
        let failed = |source| RepositoryError::Keyring { cluster: self.name.to_string(), source };
        if generations.is_empty() {
            let others = self.repository.store.list(&names::keyring_dir(&self.name)).await?;
            return Err(failed(if others.is_empty() {
                KeyringError::Empty
            } else {
                KeyringError::FirstMissing
            }));
        }
        let keys = Keyring::unwrap_chain(&generations, unlock).map_err(failed)?;
        if keys.cluster_id() != self.info.cluster_id {
            return Err(RepositoryError::ForeignKeyring {
                cluster: self.name.to_string(),
                expected: self.info.cluster_id,
                found: keys.cluster_id(),
            });
        }
        let wrapped = generations.into_iter().next_back().unwrap_or_default();
        Ok(Cluster {
            repository: self.repository.clone(),
            name: self.name.clone(),
            id: self.info.cluster_id,
            keys: Arc::new(keys),
            wrapped_keyring: wrapped,
        })
    }

    /// The wrapped generations of its keyring, from the first to the highest contiguous number.
    ///
    /// # Errors
    /// [`RepositoryError::Store`], [`RepositoryError::Malformed`] for one that is absurdly large.
    pub async fn generations(&self) -> Result<Vec<Bytes>, RepositoryError> {
        let (store, mode) = (&*self.repository.store, self.repository.info.names);
        let mut generations = Vec::new();
        for generation in 1..=MAX_GENERATIONS {
            let path = names::keyring_object(&self.name, generation);
            let Some(bytes) = read_bounded(store, mode, &path, MAX_WRAPPED_BYTES as u64).await? else {
                break;
            };
            generations.push(bytes);
        }
        Ok(generations)
    }
}

/// A cluster whose keys are open. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cluster {
    repository: Repository,
    name: ClusterName,
    id: ClusterId,
    keys: Arc<Keyring>,
    wrapped_keyring: Bytes,
}

impl Cluster {
    /// A cluster whose keys were kept since it was opened before; the store is not asked. It has no wrapped keyring.
    pub fn remembered(repository: Repository, name: ClusterName, keys: Keyring) -> Self {
        let id = keys.cluster_id();
        Self { repository, name, id, keys: Arc::new(keys), wrapped_keyring: Bytes::new() }
    }

    /// The repository that it lies in.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Its name in the repository.
    pub fn name(&self) -> &ClusterName {
        &self.name
    }

    /// Its id.
    pub fn id(&self) -> ClusterId {
        self.id
    }

    /// Its keys.
    pub fn keys(&self) -> &Arc<Keyring> {
        &self.keys
    }

    /// The newest generation of the keyring as it is stored: what a recovery kit and a backup hold a copy of.
    pub fn wrapped_keyring(&self) -> &Bytes {
        &self.wrapped_keyring
    }

    /// Stores `next` as the generation after the current one, and answers the cluster with it.
    ///
    /// # Errors
    /// [`RepositoryError::Keyring`] when another generation with that number is there already: open the cluster again.
    pub async fn append_generation(
        &self,
        next: Keyring,
        recipients: &Recipients,
    ) -> Result<Self, RepositoryError> {
        self.repository.require_writer()?;
        let failed = |source| RepositoryError::Keyring { cluster: self.name.to_string(), source };
        let generation = next.generation();
        if Some(generation) != self.keys.generation().checked_add(1) {
            return Err(failed(KeyringError::Chain { generation, reason: "its number is not the next one" }));
        }
        let wrapped = next.wrap(recipients).map_err(failed)?;
        let path = names::keyring_object(&self.name, generation);
        let (store, mode) = (&*self.repository.store, self.repository.info.names);
        match publish_plain(store, mode, &path, wrapped.clone()).await? {
            Published::New => {}
            Published::Exists(_) => {
                let reason = "somebody else has stored one with this number";
                return Err(failed(KeyringError::Chain { generation, reason }));
            }
        }
        Ok(Self { keys: Arc::new(next), wrapped_keyring: wrapped.into(), ..self.clone() })
    }

    /// All lineages, oldest first.
    ///
    /// # Errors
    /// [`RepositoryError::Lineage`] when one cannot be opened, [`RepositoryError::Store`].
    pub async fn lineages(&self) -> Result<Vec<Lineage>, RepositoryError> {
        let (lineages, mut damaged) = self.survey().await?;
        match damaged.pop() {
            Some(error) => Err(error.into()),
            None => Ok(lineages),
        }
    }

    /// All lineages that can be opened, oldest first; and for each other one what is wrong with its record.
    ///
    /// # Errors
    /// [`RepositoryError::Store`], and whatever else says nothing about one lineage alone.
    pub async fn survey(&self) -> Result<(Vec<Lineage>, Vec<LineageError>), RepositoryError> {
        let store = &self.repository.store;
        let listing = store.list_dir(&names::cluster_dir(&self.name)).await?;
        let (mut lineages, mut damaged) = (Vec::new(), Vec::new());
        for directory in listing.directories {
            let Some(id) = directory.rsplit('/').next().and_then(|name| name.parse::<LineageId>().ok())
            else {
                continue;
            };
            match self.lineage(id).await {
                Ok(lineage) => lineages.push(lineage),
                // Its record is the first thing written: without it nothing has begun, or something took it away.
                Err(RepositoryError::Lineage(error)) if error.is_not_found() => {
                    let objects = store.list(&(names::lineage_dir(&self.name, id) + "/")).await?.len();
                    if objects > 0 {
                        let cluster = self.name.to_string();
                        damaged.push(LineageError::NoRecord { lineage: id, cluster, objects });
                    }
                }
                Err(RepositoryError::Lineage(error)) if matches!(*error, LineageError::Record { .. }) => {
                    damaged.push(*error);
                }
                Err(other) => return Err(other),
            }
        }
        lineages.sort_by_key(|lineage| (lineage.record().created_at, lineage.record().lineage));
        Ok((lineages, damaged))
    }

    /// The lineage with this id.
    ///
    /// # Errors
    /// [`RepositoryError::Lineage`], whose `is_not_found` is true when there is none.
    pub async fn lineage(&self, id: LineageId) -> Result<Lineage, RepositoryError> {
        Ok(Lineage::open(self, id).await?)
    }

    /// Begins a lineage (I1).
    ///
    /// # Errors
    /// [`RepositoryError::TooNew`], [`RepositoryError::Lineage`].
    pub async fn create_lineage(&self, record: LineageRecord) -> Result<Lineage, RepositoryError> {
        self.repository.require_writer()?;
        Ok(Lineage::create_new(self, record).await?)
    }
}
