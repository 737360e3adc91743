//! `highwater list`: what the repositories hold of a cluster, and to which moments it can be brought back.
//!
//! Needs no data directory, no server and no agent: the repository's URL and the key are enough.

mod document;
mod table;

use anyhow::Context as _;
use highwater_archive::catalog::{Catalog, windows};
use highwater_archive::repository::{Repository, RepositoryError};
use highwater_archive::store;
use serde_json::json;

use crate::config::{Config, RepositoryConfig};
use crate::context::Context;
use crate::exit::Exit;
use crate::host_state::HostState;
use crate::report;
use crate::repositories::{self, OpenRepository};
use document::LineageContent;

/// What to list.
#[derive(clap::Args)]
pub struct Args {
    /// Only this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
}

/// Lists every lineage of the cluster in every repository, oldest first.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let chosen: Vec<&RepositoryConfig> = match &args.repository {
        Some(name) => vec![repositories::choose(config, Some(name))?],
        None => config.repositories.iter().collect(),
    };
    let state = own_state(config);
    let mut documents = Vec::new();
    let mut text = String::new();
    for repository in chosen {
        let open = open(repository, config).await?;
        let lineages =
            read(&open, state.as_ref()).await.with_context(|| format!("repository {}", open.name))?;
        text.push_str(&table::repository(&open, &lineages));
        documents.push(document::repository(&open, &lineages));
    }
    let result = json!({ "version": 1, "cluster": config.cluster.as_str(), "repositories": documents });
    context.print(text.trim_end(), &result);
    Ok(Exit::Done)
}

/// Which lineage this host writes; on a blank host, none.
fn own_state(config: &Config) -> Option<HostState> {
    let data_dir = config.data_dir().ok()?;
    HostState::read(data_dir).ok().flatten()
}

/// Opens a repository. One that has no such cluster says which it has.
async fn open(repository: &RepositoryConfig, config: &Config) -> anyhow::Result<OpenRepository> {
    let error = match OpenRepository::open(repository, &config.cluster).await {
        Ok(open) => return Ok(open),
        Err(error) => error,
    };
    let absent = error
        .chain()
        .any(|cause| matches!(cause.downcast_ref(), Some(RepositoryError::NoSuchCluster { .. })));
    if !absent {
        return Err(error);
    }
    let known = Repository::open(store::open(&repository.store)?).await?.clusters().await?;
    let names: Vec<&str> = known.iter().map(|name| name.as_str()).collect();
    let hint = match names.as_slice() {
        [] => "it holds no cluster at all; highwater init adds one".to_owned(),
        names => format!("it holds: {}; choose one with --set cluster.name=NAME", names.join(", ")),
    };
    Err(report::failed(report::message(&error), hint))
}

/// Reads what each lineage holds.
async fn read(open: &OpenRepository, state: Option<&HostState>) -> anyhow::Result<Vec<LineageContent>> {
    let mut all = Vec::new();
    for lineage in open.cluster.lineages().await? {
        let catalog = Catalog::load(&lineage).await?;
        let windows = windows(&lineage, &catalog).await?;
        let closed = lineage.closed().await?;
        let is_ours = state.is_some_and(|state| state.lineage == lineage.id());
        all.push(LineageContent { record: lineage.record().clone(), closed, is_ours, catalog, windows });
    }
    Ok(all)
}
