//! Opening the repositories that the configuration names, and the lineage that this host may write in them.
//!
//! Who can do without some of them opens all at once and waits for a while ([`all_in_a_minute`]): one that hangs is one of several.

use std::time::Duration;

use anyhow::Context as _;
use highwater_archive::keyring::{KeyringError, Unlock};
use highwater_archive::lineage::Lineage;
use highwater_archive::names::ClusterName;
use highwater_archive::repository::{
    Cluster, Patience, Repository, RepositoryError, Silent, objects_to_open,
};
use highwater_archive::store::{self, StoreError};

use crate::config::{
    Config, ConfigError, KeySource, RepositoryConfig, SECRET_WITHIN, in_time, secret_from_command,
};
use crate::host_state::{HostState, PinnedRepository};
use crate::report;

/// A repository that is open, with this cluster's keys.
#[derive(Debug, Clone)]
pub struct OpenRepository {
    /// Its name in the configuration.
    pub name: String,
    /// The cluster in it.
    pub cluster: Cluster,
}

impl OpenRepository {
    /// Opens one for reading: the store, the repository in it, the keyring of the cluster.
    ///
    /// # Errors
    ///
    /// The store, the repository, the cluster or the key; each with the name of the repository.
    pub async fn open(config: &RepositoryConfig, cluster: &ClusterName) -> anyhow::Result<Self> {
        Self::open_ahead(config, cluster, Vec::new()).await
    }

    /// Opens one, and asks with all that this takes for the objects `wanted` that are going to be read next.
    async fn open_ahead(
        config: &RepositoryConfig,
        cluster: &ClusterName,
        wanted: Vec<String>,
    ) -> anyhow::Result<Self> {
        let open = async {
            let asked = objects_to_open(cluster).into_iter().chain(wanted);
            let store = store::open_ahead(&config.store, asked)?;
            let locked = Repository::open(store).await?.cluster(cluster).await?;
            let unlock = unlock(config).await?;
            locked.unlock(&unlock).await.map_err(|error| name_key(error, &config.key))
        };
        let cluster = open.await.with_context(|| format!("repository {}", config.name))?;
        Ok(Self { name: config.name.clone(), cluster })
    }

    /// Opens the repository that this host was set up with, and compares it with what was pinned (I8). The objects `wanted`, which
    /// are going to be read next, are asked for meanwhile.
    ///
    /// # Errors
    ///
    /// As [`OpenRepository::open`] and [`OpenRepository::compare`]. A repository that is not there is one that is not mounted,
    /// and nobody is told to make a new one in its place.
    pub async fn open_pinned(
        config: &RepositoryConfig,
        cluster: &ClusterName,
        pinned: &PinnedRepository,
        wanted: Vec<String>,
    ) -> anyhow::Result<Self> {
        let open = Self::open_ahead(config, cluster, wanted).await.map_err(|error| {
            if !is_gone(&error) {
                return error;
            }
            report::refused(
                format!("{}; this host was set up with the one that was there", report::message(&error)),
                format!(
                    "mount it or bring it back; if it is lost for good, make a new one in its place: \
                     highwater init --replace-repository {}",
                    config.name
                ),
            )
        })?;
        open.compare(pinned)?;
        Ok(open)
    }

    /// Opens one: the one that is pinned, where the host has been set up for one of this name. `wanted` as there.
    ///
    /// # Errors
    ///
    /// As [`OpenRepository::open_pinned`].
    pub async fn open_for(
        config: &RepositoryConfig,
        cluster: &ClusterName,
        state: Option<&HostState>,
        wanted: Vec<String>,
    ) -> anyhow::Result<Self> {
        let state = state.filter(|state| state.cluster == cluster.as_str());
        match state.and_then(|state| state.repositories.get(&config.name)) {
            Some(pinned) => Self::open_pinned(config, cluster, pinned, wanted).await,
            None => Self::open_ahead(config, cluster, wanted).await.map_err(|error| {
                // A host that was set up for others may have this one in its configuration since.
                if state.is_none() || !is_gone(&error) {
                    return error;
                }
                report::failed(
                    report::message(&error),
                    "is the disk mounted, and the URL right? if this repository is new, run: highwater init",
                )
            }),
        }
    }

    /// The lineage that this data directory writes, after the repository has been compared with what was pinned (I8).
    ///
    /// # Errors
    ///
    /// Another repository or keyring than before, or one this host has not been set up for.
    pub async fn lineage_of(&self, state: &HostState) -> anyhow::Result<Lineage> {
        let pinned = state.repositories.get(&self.name).ok_or_else(|| {
            report::refused(
                format!("repository {} is configured, and this host has not been set up for it", self.name),
                "run: highwater init",
            )
        })?;
        self.compare(pinned)?;
        self.cluster.lineage(state.lineage).await.map_err(|error| match error.is_not_found() {
            true => report::failed(
                format!(
                    "repository {}: the record of lineage {}, which this data directory writes, is not there (clusters/{}/{}/lineage)",
                    self.name, state.lineage, state.cluster, state.lineage
                ),
                "put it back from another copy of the repository; if all of the lineage is lost, run: highwater adopt --new-lineage",
            ),
            false => anyhow::Error::new(error).context(format!("repository {}", self.name)),
        })
    }

    /// What to pin of it.
    pub fn pin(&self) -> PinnedRepository {
        PinnedRepository {
            id: self.cluster.repository().info().repository_id,
            fingerprint: self.cluster.keys().fingerprint(),
        }
    }

    /// Whether it is the repository that was pinned, with the keyring that was.
    ///
    /// # Errors
    ///
    /// It is not.
    pub fn compare(&self, pinned: &PinnedRepository) -> anyhow::Result<()> {
        let found = self.cluster.repository().info().repository_id;
        if found != pinned.id {
            return Err(report::refused(
                format!(
                    "repository {} is another one than before: its id is {found}, not {}",
                    self.name, pinned.id
                ),
                format!(
                    "mount the right one; if you moved to a new repository on purpose, run: \
                     highwater init --replace-repository {}",
                    self.name
                ),
            ));
        }
        self.cluster.keys().check_pin(pinned.fingerprint).with_context(|| format!("repository {}", self.name))
    }
}

/// How long a repository may take to be opened where others may serve.
const OPEN_WITHIN: Duration = Duration::from_secs(60);

/// What `work`, which asks one repository something small, comes to while it may be expected to answer.
///
/// # Errors
///
/// Its own, or that there was no answer.
pub async fn in_a_minute<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    within(OPEN_WITHIN, work).await
}

/// The same of each of several, all at the same time: in their order. Where there is only one, nothing is won by giving it up.
pub async fn all_in_a_minute<T>(
    works: impl Iterator<Item = impl Future<Output = anyhow::Result<T>>>,
) -> Vec<anyhow::Result<T>> {
    all_within(OPEN_WITHIN, works.collect()).await
}

async fn all_within<T>(
    limit: Duration,
    works: Vec<impl Future<Output = anyhow::Result<T>>>,
) -> Vec<anyhow::Result<T>> {
    let limit = if works.len() > 1 { limit } else { Duration::MAX };
    futures::future::join_all(works.into_iter().map(|work| within(limit, work))).await
}

async fn within<T>(limit: Duration, work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let done = tokio::time::timeout(limit, work).await;
    done.unwrap_or_else(|_| Err(silent(Silent { waited: limit })))
}

/// What `work` comes to that asks an open repository for what may take any time: as long as it answers at all.
///
/// # Errors
///
/// Its own, or that there is no answer any more.
pub async fn attended<T>(
    repository: &Repository,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    repository.attend(Patience::USUAL, work).await.unwrap_or_else(|no_more| Err(silent(no_more)))
}

fn silent(silent: Silent) -> anyhow::Error {
    report::failed(silent.to_string(), silent.hint())
}

/// A repository that failed while others did not.
pub struct Failed {
    /// Its name.
    pub repository: String,
    /// Why.
    pub error: anyhow::Error,
}

impl Failed {
    /// The error, with the name of the repository.
    pub fn named(self) -> anyhow::Error {
        self.error.context(format!("repository {}", self.repository))
    }

    /// One element of a result's `failed[]`.
    pub fn as_json(&self) -> serde_json::Value {
        let (error, hint) = (report::message(&self.error), report::hint(&self.error));
        serde_json::json!({ "repository": self.repository, "error": error, "hint": hint })
    }

    /// Says it, after the result of the others: `what` the repository, such as `no backup in`.
    pub fn tell(&self, gravity: &str, what: &str) {
        let message = report::message(&self.error);
        report::line(&format!("{gravity}: {what} repository {}: {message}", self.repository));
        if let Some(hint) = report::hint(&self.error) {
            report::line(&format!("hint: {hint}"));
        }
    }
}

/// An error of a repository; where the key does not open the keyring, with the place that the key is from.
pub fn name_key(error: RepositoryError, key: &KeySource) -> anyhow::Error {
    let is_wrong_key = matches!(
        &error,
        RepositoryError::Keyring {
            source: KeyringError::WrongKey { .. } | KeyringError::OtherKey { .. },
            ..
        }
    );
    let error = anyhow::Error::new(error);
    if is_wrong_key { error.context(place_of(key)) } else { error }
}

/// Where a key is from, in words and without what is secret of it.
fn place_of(key: &KeySource) -> String {
    match key {
        KeySource::File(path) => format!("the key file {}", path.display()),
        KeySource::Environment(_) => "the key from the environment".to_owned(),
        KeySource::Command(command) => format!("the key that {command} gives"),
    }
}

/// Whether the store answered that there is no such repository, or no such cluster in it.
fn is_gone(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|cause| cause.downcast_ref::<RepositoryError>()).any(|error| {
        matches!(error, RepositoryError::Store(StoreError::NoRoot { .. }))
            || matches!(error, RepositoryError::NotARepository { .. } | RepositoryError::NoSuchCluster { .. })
    })
}

/// What opens the keyring in a repository. It is had on a thread of its own: other repositories are asked meanwhile.
///
/// # Errors
///
/// A key file that is absent, open to others or empty; a command that fails; either when its time is over.
pub async fn unlock(config: &RepositoryConfig) -> anyhow::Result<Unlock> {
    let config = config.clone();
    tokio::task::spawn_blocking(move || unlock_now(&config)).await.context("cannot read the key")?
}

fn unlock_now(config: &RepositoryConfig) -> anyhow::Result<Unlock> {
    match &config.key {
        KeySource::File(path) => {
            let (what, file) = (format!("reading the key file {}", path.display()), path.clone());
            let read = in_time(&what, SECRET_WITHIN, move || {
                file.try_exists().unwrap_or(true).then(|| Unlock::from_file(&file))
            });
            let read =
                read.map_err(|late| report::failed(late, "see whether the mount that it lies on is there"))?;
            match read {
                Some(unlock) => Ok(unlock?),
                None => Err(report::refused(
                    format!("the key file of repository {} is missing: {}", config.name, path.display()),
                    "take it from the vault and put it there, readable by its user alone; no other key opens what is in the repository",
                )),
            }
        }
        KeySource::Environment(text) => Unlock::from_text(text).with_context(|| place_of(&config.key)),
        KeySource::Command(command) => {
            let key = format!("repository.{}.key_command", config.name);
            let text = secret_from_command(command).map_err(|reason| ConfigError::Secret { key, reason })?;
            Unlock::from_text(&text).with_context(|| place_of(&config.key))
        }
    }
}

/// The configuration of the repository that a command is to use: the one named, or the only or first one.
///
/// # Errors
///
/// None has that name.
pub fn choose<'a>(config: &'a Config, name: Option<&str>) -> anyhow::Result<&'a RepositoryConfig> {
    let found = match name {
        Some(name) => config.repositories.iter().find(|repository| repository.name == name),
        None => config.repositories.first(),
    };
    found.ok_or_else(|| {
        let known: Vec<&str> =
            config.repositories.iter().map(|repository| repository.name.as_str()).collect();
        report::usage_error(
            format!("no repository is named {}", name.unwrap_or_default()),
            format!("configured: {}", known.join(", ")),
        )
    })
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    /// I14: what hangs is given up by the time, as an error; what answers is had at once and in its place, and who is alone is waited for.
    #[tokio::test]
    async fn one_that_hangs_is_one_of_several() {
        let limit = Duration::from_millis(50);
        let hangs = || std::future::pending().boxed();
        let works = vec![hangs(), async { Ok(7) }.boxed(), hangs(), async { anyhow::bail!("away") }.boxed()];
        let mut said = Vec::new();
        for answer in all_within(limit, works).await {
            said.push(answer.map_or_else(
                |error: anyhow::Error| report::message(&error),
                |answer: u8| answer.to_string(),
            ));
        }
        assert_eq!(said, ["no answer within 0 s", "7", "no answer within 0 s", "away"]);
        let alone = all_within::<u8>(limit, vec![hangs()]);
        assert!(tokio::time::timeout(4 * limit, alone).await.is_err());
        let slow = async {
            tokio::time::sleep(4 * limit).await;
            Ok(7)
        };
        assert_eq!(all_within(limit, vec![slow]).await.pop().unwrap().unwrap(), 7);
    }
}
