//! Where a restore comes from: repositories, the cluster in them, and one of its lineages.
//!
//! With a configuration, every repository that answers and holds the lineage is planned on and written into the plan: with
//! `wal.required_repositories` below their number, each may lack what another has. One that is named gives the backup; else
//! the newest backup that serves is taken from wherever it is. They are opened all at once, and one that hangs is left out after a
//! minute, by name. From a blank host a URL and a key file are enough.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use highwater_archive::lineage::Lineage;
use highwater_archive::names::ClusterName;
use highwater_archive::repository::{Cluster, Repository};
use highwater_archive::seal::{Codec, LineageId};
use highwater_archive::store::{self, StoreSpec};
use highwater_restore::plan_file::RepositoryToPlan;

use super::arguments::{Args, describe};
use crate::config::{KeySource, RepositoryConfig};
use crate::context::Context;
use crate::report;
use crate::repositories::{OpenRepository, all_in_a_minute, attended, choose};

/// A repository that holds the lineage.
pub struct Source {
    /// Its name in the configuration; `repository` where there is none.
    pub name: String,
    /// How it was reached.
    pub store: StoreSpec,
    /// The lineage in it.
    pub lineage: Arc<Lineage>,
}

/// Every repository that holds the lineage and could be asked; at least one.
pub struct Sources {
    cluster: ClusterName,
    arguments: String,
    all: Vec<Source>,
    named: Option<String>,
    /// Repositories that could not be asked: each a sentence.
    pub notes: Vec<String>,
}

impl Sources {
    /// Opens what the arguments and the configuration name.
    ///
    /// # Errors
    ///
    /// No repository that can be opened, no such cluster, several lineages and none chosen.
    pub async fn open(context: &Context, args: &Args) -> anyhow::Result<Self> {
        match args.repository.as_deref().filter(|text| text.contains("://")) {
            Some(url) => Self::from_url(context, args, url).await,
            None => Self::from_configuration(context, args).await,
        }
    }

    async fn from_url(context: &Context, args: &Args, url: &str) -> anyhow::Result<Self> {
        let Some(key_file) = &args.key_file else {
            return Err(report::usage_error(
                "a repository given by URL needs --key-file",
                "it is the age identity or the passphrase that `highwater init` told you to keep",
            ));
        };
        let spec = StoreSpec {
            url: url.to_owned(),
            endpoint: args.endpoint.clone(),
            region: args.region.clone(),
            allow_http: args.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://")),
            ..StoreSpec::default()
        };
        let cluster = match context.asked_cluster() {
            Some(name) => name.parse()?,
            None => only_cluster(&spec).await?,
        };
        let repository = RepositoryConfig {
            name: "repository".to_owned(),
            store: spec.clone(),
            codec: Codec::Lz4,
            key: KeySource::File(key_file.clone()),
        };
        let open = OpenRepository::open(&repository, &cluster).await?;
        let lineage = choose_lineage(&open.cluster, args.lineage).await?;
        let only = Source { name: repository.name, store: spec, lineage: Arc::new(lineage) };
        // A configuration is yet to be written: in the usual place, as far as anyone knows.
        let arguments = format!("--cluster {cluster}");
        Ok(Self { cluster, arguments, all: vec![only], named: None, notes: Vec::new() })
    }

    async fn from_configuration(context: &Context, args: &Args) -> anyhow::Result<Self> {
        if args.key_file.is_some() || args.endpoint.is_some() || args.region.is_some() {
            return Err(report::usage_error(
                "--key-file, --endpoint and --region go with --repository URL",
                "with a configuration they stand in it",
            ));
        }
        let config = context.config()?;
        let named = args.repository.as_deref();
        let chosen = choose(config, named)?;
        let mut wanted: Vec<&RepositoryConfig> = vec![chosen];
        wanted.extend(config.repositories.iter().filter(|other| other.name != chosen.name));
        let (mut found, mut notes): (Vec<Source>, Vec<String>) = (Vec::new(), Vec::new());
        let mut failure = None;
        let opening = wanted.iter().map(|repository| OpenRepository::open(repository, &config.cluster));
        let opened = all_in_a_minute(opening).await;
        for (repository, open) in wanted.into_iter().zip(opened) {
            let id = found.first().map(|first| first.lineage.id()).or(args.lineage);
            let lineage = async {
                let cluster = open?.cluster;
                attended(cluster.repository(), choose_lineage(&cluster, id)).await
            };
            match lineage.await.with_context(|| format!("repository {}", repository.name)) {
                Ok(lineage) => found.push(Source {
                    name: repository.name.clone(),
                    store: repository.store.clone(),
                    lineage: Arc::new(lineage),
                }),
                // The one that was asked for by name is the one to restore from, or none.
                Err(error) if named == Some(repository.name.as_str()) => return Err(error),
                Err(error) => {
                    notes.push(format!(
                        "repository {} is left out, also for WAL during recovery, and what it alone holds is not in this plan: {}",
                        repository.name,
                        report::message(&error)
                    ));
                    failure.get_or_insert(error);
                }
            }
        }
        match (found.is_empty(), failure) {
            (false, _) => Ok(Self {
                cluster: config.cluster.clone(),
                arguments: config.arguments(),
                all: found,
                named: named.map(str::to_owned),
                notes,
            }),
            (true, Some(error)) => Err(error),
            (true, None) => anyhow::bail!("no repository is configured"),
        }
    }

    /// The repository that was asked for by name: it gives the backup, or there is no restore.
    pub fn asked_for(&self) -> Option<&str> {
        self.named.as_deref()
    }

    /// Whether the repository with this name is a directory of this host.
    pub fn is_local(&self, name: &str) -> bool {
        self.all.iter().any(|source| source.name == name && source.store.url.starts_with("file:"))
    }

    /// The cluster's name in the repositories.
    pub fn cluster(&self) -> &ClusterName {
        &self.cluster
    }

    /// The arguments with which another command finds the configuration.
    pub fn arguments(&self) -> &str {
        &self.arguments
    }

    /// All of them, as the plan of the restore takes them.
    pub fn to_plan(&self) -> Vec<RepositoryToPlan<'_>> {
        let planned = self.all.iter().map(|source| RepositoryToPlan {
            name: &source.name,
            store: &source.store,
            lineage: &source.lineage,
        });
        planned.collect()
    }

    /// Directories of those that are local.
    pub fn local_directories(&self) -> Vec<PathBuf> {
        let all = self.all.iter();
        all.filter_map(|source| url::Url::parse(&source.store.url).ok())
            .filter(|url| url.scheme() == "file")
            .filter_map(|url| url.to_file_path().ok())
            .collect()
    }
}

/// The name of the only cluster in a repository.
async fn only_cluster(spec: &StoreSpec) -> anyhow::Result<ClusterName> {
    let repository = Repository::open(store::open(spec)?).await?;
    let mut clusters = repository.clusters().await?;
    match (clusters.pop(), clusters.as_slice()) {
        (Some(only), []) => Ok(only),
        (None, _) => Err(report::failed("the repository holds no cluster", "check the URL")),
        (Some(last), others) => {
            let names: Vec<String> = others.iter().chain([&last]).map(ToString::to_string).collect();
            Err(report::usage_error(
                format!("the repository holds several clusters: {}", names.join(", ")),
                "choose one with --cluster NAME",
            ))
        }
    }
}

/// The lineage that was asked for, or the only one that is not closed, or the only one there is.
pub async fn choose_lineage(cluster: &Cluster, asked: Option<LineageId>) -> anyhow::Result<Lineage> {
    if let Some(id) = asked {
        return Ok(cluster.lineage(id).await?);
    }
    let (all, damaged) = cluster.survey().await?;
    if let Some(error) = damaged.into_iter().next() {
        let sound: Vec<String> = all.iter().map(|lineage| describe(lineage.record())).collect();
        let hint = error.hint().unwrap_or_default();
        return Err(report::failed(
            error.to_string(),
            match sound.is_empty() {
                true => hint,
                false => format!("{hint}; or choose another lineage with --lineage ID: {}", sound.join("; ")),
            },
        ));
    }
    let mut open = Vec::new();
    for lineage in &all {
        if !lineage.is_closed().await.context("cannot see whether a lineage is closed")? {
            open.push(lineage.clone());
        }
    }
    let candidates = if open.is_empty() { all } else { open };
    match candidates.as_slice() {
        [only] => Ok(only.clone()),
        [] => Err(report::failed(
            "the cluster has no lineage: nothing was ever archived",
            "check --cluster NAME",
        )),
        several => {
            let list: Vec<String> = several.iter().map(|lineage| describe(lineage.record())).collect();
            Err(report::usage_error(
                format!("the cluster has several lineages: {}", list.join("; ")),
                "choose one with --lineage ID",
            ))
        }
    }
}
