//! The repositories: reachable, what was pinned, open for writing, and as good as the names in them need.

use highwater_archive::lineage::Lineage;
use highwater_archive::probe::{ConditionalCreate, probe_conditional_create};
use highwater_archive::repository::NameMode;
use jiff::SignedDuration;

use super::Findings;
use crate::config::{Config, RepositoryConfig};
use crate::host_state::HostState;
use crate::repositories::OpenRepository;

/// How far this host's clock may be from a store's: retention refuses to judge ages beyond that, and services to be asked at three
/// times as much (I23).
const MOST_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Checks each; gives the lineage that this data directory writes in those that can be used.
pub async fn check(
    config: &Config,
    state: Option<&HostState>,
    findings: &mut Findings,
) -> Vec<(String, Lineage)> {
    let mut usable = Vec::new();
    for repository in &config.repositories {
        let what = format!("repository {}", repository.name);
        match check_one(repository, config, state).await {
            Ok(Checked { message, lineage, skew }) => {
                findings.ok(&what, message);
                if let Some(skew) = skew {
                    check_clock(&repository.name, skew, findings);
                }
                usable.extend(lineage.map(|lineage| (repository.name.clone(), lineage)));
            }
            Err(error) => findings.error(&what, error),
        }
    }
    let required = config.required_repositories.count(config.repositories.len());
    let all = config.repositories.len();
    if required < all {
        let message =
            format!("{required} of {all} must hold WAL; what the others lack is not noticed by PostgreSQL");
        findings.note("required repositories", message);
    }
    usable
}

/// A repository that can be used.
struct Checked {
    message: String,
    lineage: Option<Lineage>,
    /// How far its store's clock is ahead of this host's.
    skew: Option<SignedDuration>,
}

fn check_clock(repository: &str, skew: SignedDuration, findings: &mut Findings) {
    let what = format!("clock of {repository}");
    let (seconds, side) = (skew.abs().as_secs(), if skew.is_negative() { "ahead of" } else { "behind" });
    match skew.abs() > MOST_SKEW {
        false => findings.ok(what, format!("within {} s of this host's", seconds + 1)),
        true => findings.failed(
            what,
            format!("this host's clock is {seconds} s {side} the store's"),
            "set this host's clock, and keep it right by NTP: a service refuses what is signed 15 minutes off, and the ages of \
             backups would be wrong",
        ),
    }
}

async fn check_one(
    config: &RepositoryConfig,
    all: &Config,
    state: Option<&HostState>,
) -> anyhow::Result<Checked> {
    let open = OpenRepository::open(config, &all.cluster).await?;
    let repository = open.cluster.repository();
    repository.require_writer()?;
    let store = repository.store();
    let honoured = probe_conditional_create(&**store, "").await?;
    let names = match (honoured, repository.info().names) {
        (ConditionalCreate::Honoured, _) => "conditional creates hold",
        (ConditionalCreate::Ignored, NameMode::Content) => {
            "the store ignores conditional creates; names carry the content"
        }
        (ConditionalCreate::Ignored, NameMode::Plain) => {
            return Err(crate::report::failed(
                "the store ignores conditional creates, and this repository relies on them",
                "two writers could overwrite each other unseen: make a new repository on this store, which will carry the \
                 content in its names",
            ));
        }
    };
    let fingerprint = open.cluster.keys().fingerprint();
    let credentials =
        store.credentials().map(|source| format!("credentials: {source}, ")).unwrap_or_default();
    let message = format!("{}, {credentials}{names}, fingerprint {fingerprint}", store.describe());
    let lineage = match state {
        None => None,
        Some(state) => {
            let lineage = open.lineage_of(state).await?;
            lineage.require_open().await?;
            Some(lineage)
        }
    };
    Ok(Checked { message, lineage, skew: store.clock_skew() })
}
