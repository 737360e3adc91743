//! One repository made ready for a cluster: created where it is new, its keyring generated once, its store probed (I4).
//!
//! A repository that this host was set up with is only ever opened: one that is not there is one that is not mounted, and a new one
//! in the empty mount point would take the WAL that belongs into the old one. A key is written only for a cluster that is proven
//! to have no keyring; for any other, the key that opens it exists somewhere, and a new one would be the wrong one.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use highwater_archive::clock::Clock;
use highwater_archive::durable;
use highwater_archive::keyring::Unlock;
use highwater_archive::names::ClusterName;
use highwater_archive::probe::{ConditionalCreate, probe_conditional_create};
use highwater_archive::repository::{
    CreateParams, DEFAULT_EXTENT_BYTES, NameMode, Repository, RepositoryError,
};
use highwater_archive::store::{self, ExposeSecret as _, Store, StoreError};

use crate::config::{KeySource, RepositoryConfig};
use crate::host_state::PinnedRepository;
use crate::owner::Owner;
use crate::repositories::{OpenRepository, name_key, unlock};

/// A repository that is ready, and what had to be made.
pub struct Ready {
    /// The repository, open.
    pub repository: OpenRepository,
    /// What opens its keyring.
    pub unlock: Unlock,
    /// The repository was made by this call.
    pub is_new: bool,
    /// The cluster's keyring was made by this call.
    pub keyring_is_new: bool,
}

/// Makes one repository ready: opens it where it is `pinned`; else whatever is not there is created, so a second call changes
/// nothing.
///
/// # Errors
///
/// The key, the store, the repository or the keyring in it; a pinned repository that is not there or is another one.
pub async fn prepare(
    config: &RepositoryConfig,
    cluster: &ClusterName,
    pinned: Option<&PinnedRepository>,
    clock: &dyn Clock,
) -> anyhow::Result<Ready> {
    if let Some(pinned) = pinned {
        let repository = OpenRepository::open_pinned(config, cluster, pinned, Vec::new()).await?;
        return Ok(Ready { repository, unlock: unlock(config).await?, is_new: false, keyring_is_new: false });
    }
    let open = async {
        let store = store::open(&config.store)?;
        let there = find(store.clone()).await?;
        if !has_keyring(there.as_ref(), cluster).await? {
            generate_key(config, clock)?;
        }
        let unlock = unlock(config).await?;
        let (repository, is_new) = match there {
            Some(there) => (there, false),
            None => {
                let names = match probe_conditional_create(&*store, "").await? {
                    ConditionalCreate::Honoured => NameMode::Plain,
                    ConditionalCreate::Ignored(_) => NameMode::Content,
                };
                let params = CreateParams { names, extent_bytes: DEFAULT_EXTENT_BYTES, now: clock.now() };
                Repository::create(store, params).await?
            }
        };
        let recipients = unlock.recipients()?;
        let made = repository.create_cluster(cluster, &unlock, &recipients, clock.now()).await;
        let (cluster, keyring_is_new) = made.map_err(|error| name_key(error, &config.key))?;
        let repository = OpenRepository { name: config.name.clone(), cluster };
        anyhow::Ok(Ready { repository, unlock, is_new, keyring_is_new })
    };
    open.await.with_context(|| format!("repository {}", config.name))
}

/// The repository that is there; `None` where the store proves that there is none.
async fn find(store: Arc<dyn Store>) -> anyhow::Result<Option<Repository>> {
    match Repository::open(store).await {
        Ok(there) => Ok(Some(there)),
        Err(RepositoryError::NotARepository { .. } | RepositoryError::Store(StoreError::NoRoot { .. })) => {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the cluster has a keyring, which some key opens. False only where the store proves that it has none.
async fn has_keyring(repository: Option<&Repository>, cluster: &ClusterName) -> anyhow::Result<bool> {
    let Some(repository) = repository else { return Ok(false) };
    match repository.cluster(cluster).await {
        Ok(locked) => Ok(!locked.generations().await?.is_empty()),
        Err(RepositoryError::NoSuchCluster { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Does as root what only root may, and leaves the rest to the owner of the data directory.
///
/// # Errors
///
/// The key file or the directory of a local repository cannot be made.
pub async fn prepare_as_root(
    config: &RepositoryConfig,
    cluster: &ClusterName,
    pinned: Option<&PinnedRepository>,
    owner: &Owner,
    clock: &dyn Clock,
) -> anyhow::Result<()> {
    if let KeySource::File(path) = &config.key {
        if pinned.is_none() && path.try_exists().is_ok_and(|there| !there) {
            let look =
                async { has_keyring(find(store::open(&config.store)?).await?.as_ref(), cluster).await };
            if !look.await.with_context(|| format!("repository {}", config.name))? {
                generate_key(config, clock)?;
            }
        }
        // Also one that an earlier run was cut off before giving away: the server cannot read what is root's alone.
        if is_roots_alone(path) {
            owner.give(path)?;
        }
    }
    if pinned.is_none()
        && let Some(directory) = config.store.url.strip_prefix("file://").map(Path::new)
        && directory.is_absolute()
    {
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        owner.make_directory(directory)?;
    }
    Ok(())
}

fn is_roots_alone(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    std::fs::metadata(path)
        .is_ok_and(|metadata| metadata.is_file() && metadata.uid() == 0 && metadata.mode() & 0o077 == 0)
}

/// Writes a new age identity into the key file where that does not exist.
fn generate_key(config: &RepositoryConfig, clock: &dyn Clock) -> anyhow::Result<()> {
    let KeySource::File(path) = &config.key else { return Ok(()) };
    // Whatever is there, even unreadable, is never replaced: it may be the only key.
    let there =
        path.try_exists().with_context(|| format!("cannot look at the key file {}", path.display()))?;
    if there {
        return Ok(());
    }
    let (_, text) = Unlock::generate(clock.now());
    match durable::write_new(path, &[text.expose_secret()])
        .with_context(|| format!("cannot write the key file {}", path.display()))?
    {
        // Another init was faster: its key is the one that counts.
        durable::Published::New | durable::Published::Exists => Ok(()),
    }
}
