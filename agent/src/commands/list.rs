//! `highwater list`: what the repositories hold of a cluster, and to which moments it can be brought back.
//!
//! Needs no data directory, no server and no agent: the repository's URL and the key are enough.

mod document;
mod table;

use highwater_archive::catalog::{Catalog, windows};
use highwater_archive::lineage::LineageError;
use highwater_archive::repository::{Repository, RepositoryError};
use highwater_archive::store;
use serde_json::json;

use crate::config::{Config, RepositoryConfig};
use crate::context::Context;
use crate::exit::Exit;
use crate::host_state::HostState;
use crate::report;
use crate::repositories::{self, Failed, OpenRepository};
use document::LineageContent;

/// What to list.
#[derive(clap::Args)]
pub struct Args {
    /// Only this repository
    #[arg(long, value_name = "NAME")]
    pub repository: Option<String>,
}

/// Lists every lineage of the cluster in every repository, oldest first. All are asked at once. One that fails does not keep the
/// others from being shown; it is named, and the exit code says that something is missing.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let chosen: Vec<&RepositoryConfig> = match &args.repository {
        Some(name) => vec![repositories::choose(config, Some(name))?],
        None => config.repositories.iter().collect(),
    };
    let state = own_state(config);
    let asked = chosen.iter().map(|repository| async {
        let open = repositories::in_a_minute(open(repository, config)).await?;
        // What it holds may take minutes to be read; it need not be waited for once it is silent.
        let content = repositories::attended(open.cluster.repository(), read(&open, state.as_ref())).await?;
        anyhow::Ok((open, content))
    });
    let answers = futures::future::join_all(asked).await;
    let (mut documents, mut text, mut failed) = (Vec::new(), String::new(), Vec::new());
    for (repository, answer) in chosen.iter().zip(answers) {
        match answer {
            Ok((open, (lineages, damaged))) => {
                text.push_str(&table::repository(&open, &lineages, damaged.is_empty()));
                documents.push(document::repository(&open, &lineages));
                failed.extend(damaged.into_iter().map(|error| {
                    let error = anyhow::Error::new(error);
                    Failed { repository: repository.name.clone(), error }
                }));
            }
            Err(error) => failed.push(Failed { repository: repository.name.clone(), error }),
        }
    }
    if documents.is_empty() {
        failed.iter().skip(1).for_each(|other| other.tell("error", "cannot list"));
        // The first is told as every error is.
        if let Some(first) = failed.drain(..).next() {
            return Err(first.named());
        }
    }
    let failures: Vec<_> = failed.iter().map(Failed::as_json).collect();
    let result = json!({
        "version": 1,
        "cluster": config.cluster.as_str(),
        "repositories": documents,
        "failed": failures,
    });
    context.print(text.trim_end(), &result);
    failed.iter().for_each(|one| one.tell("error", "cannot list all of"));
    Ok(if failed.is_empty() { Exit::Done } else { Exit::Failed })
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

/// Reads what each lineage holds; and for each that has no sound record, what is wrong with it.
async fn read(
    open: &OpenRepository,
    state: Option<&HostState>,
) -> anyhow::Result<(Vec<LineageContent>, Vec<LineageError>)> {
    let mut all = Vec::new();
    let (lineages, mut damaged) = open.cluster.survey().await?;
    for lineage in lineages {
        let catalog = Catalog::load(&lineage).await?;
        let windows = windows(&lineage, &catalog).await?;
        let closed = lineage.closed().await?;
        let is_ours = state.is_some_and(|state| state.lineage == lineage.id());
        all.push(LineageContent { record: lineage.record().clone(), closed, is_ours, catalog, windows });
    }
    // What this host writes must be there, in every repository that it was set up for.
    let ours = state
        .filter(|state| state.cluster == open.cluster.name().as_str())
        .filter(|state| state.repositories.contains_key(&open.name))
        .map(|state| state.lineage);
    if let Some(lineage) = ours
        && damaged.is_empty()
        && !all.iter().any(|content| content.record.lineage == lineage)
    {
        damaged.push(LineageError::NoSuchLineage { lineage, cluster: open.cluster.name().to_string() });
    }
    Ok((all, damaged))
}
