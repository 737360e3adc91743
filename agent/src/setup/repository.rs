//! One repository made ready for a cluster: created where it is new, its keyring generated once, its store probed (I4).

use std::path::Path;

use anyhow::Context as _;
use highwater_archive::clock::Clock;
use highwater_archive::durable;
use highwater_archive::keyring::Unlock;
use highwater_archive::names::ClusterName;
use highwater_archive::probe::{ConditionalCreate, probe_conditional_create};
use highwater_archive::repository::{
    CreateParams, DEFAULT_EXTENT_BYTES, NameMode, Repository, RepositoryError,
};
use highwater_archive::store::{self, ExposeSecret as _, StoreError};

use crate::config::{KeySource, RepositoryConfig};
use crate::owner::Owner;
use crate::repositories::{OpenRepository, unlock};

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

/// Makes one repository ready. Everything is created only where it is not there, so a second call changes nothing.
///
/// # Errors
///
/// The key, the store, the repository or the keyring in it.
pub async fn prepare(
    config: &RepositoryConfig,
    cluster: &ClusterName,
    clock: &dyn Clock,
) -> anyhow::Result<Ready> {
    generate_key(config, clock)?;
    let unlock = unlock(config)?;
    let open = async {
        let store = store::open(&config.store)?;
        let (repository, is_new) = match Repository::open(store.clone()).await {
            Ok(there) => (there, false),
            Err(
                RepositoryError::NotARepository { .. } | RepositoryError::Store(StoreError::NoRoot { .. }),
            ) => {
                let names = match probe_conditional_create(&*store, "").await? {
                    ConditionalCreate::Honoured => NameMode::Plain,
                    ConditionalCreate::Ignored => NameMode::Content,
                };
                let params = CreateParams { names, extent_bytes: DEFAULT_EXTENT_BYTES, now: clock.now() };
                Repository::create(store, params).await?
            }
            Err(error) => return Err(error.into()),
        };
        let recipients = unlock.recipients()?;
        let (cluster, keyring_is_new) =
            repository.create_cluster(cluster, &unlock, &recipients, clock.now()).await?;
        let repository = OpenRepository { name: config.name.clone(), cluster };
        anyhow::Ok((repository, is_new, keyring_is_new))
    };
    let (repository, is_new, keyring_is_new) =
        open.await.with_context(|| format!("repository {}", config.name))?;
    Ok(Ready { repository, unlock, is_new, keyring_is_new })
}

/// Does as root what only root may, and leaves the rest to the owner of the data directory.
///
/// # Errors
///
/// The key file or the directory of a local repository cannot be made.
pub fn prepare_as_root(config: &RepositoryConfig, owner: Owner, clock: &dyn Clock) -> anyhow::Result<()> {
    if let KeySource::File(path) = &config.key
        && generate_key(config, clock)?
    {
        owner.give(path)?;
    }
    if let Some(directory) = config.store.url.strip_prefix("file://").map(Path::new)
        && directory.is_absolute()
        && !directory.exists()
    {
        if let Some(parent) = directory.parent() {
            std::fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
        }
        owner.make_directory(directory)?;
    }
    Ok(())
}

/// Writes a new age identity into the key file where that does not exist. True where it did so.
fn generate_key(config: &RepositoryConfig, clock: &dyn Clock) -> anyhow::Result<bool> {
    let KeySource::File(path) = &config.key else { return Ok(false) };
    // Whatever is there, even unreadable, is never replaced: it may be the only key.
    let there =
        path.try_exists().with_context(|| format!("cannot look at the key file {}", path.display()))?;
    if there {
        return Ok(false);
    }
    let (_, text) = Unlock::generate(clock.now());
    let written = durable::write_new(path, &[text.expose_secret()])
        .with_context(|| format!("cannot write the key file {}", path.display()))?;
    Ok(written == durable::Published::New)
}
