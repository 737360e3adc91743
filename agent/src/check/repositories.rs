//! The repositories: reachable, what was pinned, open for writing, and as good as the names in them need.

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{BackupId, list_backups};
use highwater_archive::probe::{Breach, ConditionalCreate, probe_conditional_create};
use highwater_archive::repository::NameMode;
use jiff::{SignedDuration, Timestamp};

use super::{Findings, lag};
use crate::config::Config;
use crate::host_state::HostState;
use crate::repositories::{OpenRepository, all_in_a_minute, attended};
use crate::silence::Silence;

/// How far this host's clock may be from a store's: retention refuses to judge ages beyond that, and services to be asked at three
/// times as much (I23).
const MOST_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// Checks each; gives the lineage that this data directory writes in those that can be used.
pub async fn check(
    config: &Config,
    state: Option<&HostState>,
    now: Timestamp,
    findings: &mut Findings,
) -> Vec<(String, Lineage)> {
    let mut usable = Vec::new();
    let opening = config.repositories.iter().map(|one| OpenRepository::open(one, &config.cluster));
    let opened = all_in_a_minute(opening).await;
    for (repository, open) in config.repositories.iter().zip(opened) {
        let what = format!("repository {}", repository.name);
        let checked = match open {
            Ok(open) => attended(open.cluster.repository(), check_one(&open, state)).await,
            Err(error) => Err(error),
        };
        let answers = checked.is_ok();
        match checked {
            Ok(Checked { message, lineage, newest, skew }) => {
                findings.ok(&what, message);
                if let Some(newest) = newest {
                    check_newest(&repository.name, &newest, now, findings);
                }
                if let Some(skew) = skew {
                    check_clock(&repository.name, skew, findings);
                }
                usable.extend(lineage.map(|lineage| (repository.name.clone(), lineage)));
            }
            Err(error) => findings.error(&what, error),
        }
        check_silence(config, &repository.name, answers, findings);
    }
    lag::check(&usable, findings).await;
    let required = config.required_repositories.count(config.repositories.len());
    let all = config.repositories.len();
    if required < all {
        let message =
            format!("{required} of {all} must hold WAL; what the others lack is not noticed by PostgreSQL");
        findings.note("required repositories", message);
    }
    usable
}

/// What `archive-push` remembers of a repository: one that answers is given its whole time again.
fn check_silence(config: &Config, name: &str, answers: bool, findings: &mut Findings) {
    let Ok(data_dir) = config.data_dir() else { return };
    let Some(silence) = Silence::of(data_dir, name) else { return };
    let now = if answers { "answers now" } else { "is asked each time, and waited for once in a while" };
    findings.note(
        format!("silence of {name}"),
        format!("since {:.0} archive-push had no answer from it in time; it {now}", silence.since),
    );
    if answers {
        Silence::forget(data_dir, name);
    }
}

/// A repository that can be used.
struct Checked {
    message: String,
    lineage: Option<Lineage>,
    /// The backup with the highest name.
    newest: Option<BackupId>,
    /// How far its store's clock is ahead of this host's.
    skew: Option<SignedDuration>,
}

/// A clock that was set back shows by a backup that it has named before. Nothing depends on such names but what a person reads in them.
fn check_newest(repository: &str, newest: &BackupId, now: Timestamp, findings: &mut Findings) {
    let Some(ahead) = newest.began_at().map(|began| began.duration_since(now)) else { return };
    if ahead > MOST_SKEW {
        findings.failed(
            format!("backups of {repository}"),
            format!("backup {newest} was named by a clock {} s ahead of this host's", ahead.as_secs()),
            "one of the two clocks is or was wrong, and commits made by a wrong clock are found at its times: keep this host's \
             right by NTP. Lists and restores follow the WAL and not such names",
        );
    }
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

async fn check_one(open: &OpenRepository, state: Option<&HostState>) -> anyhow::Result<Checked> {
    let repository = open.cluster.repository();
    repository.require_writer()?;
    let store = repository.store();
    let honoured = probe_conditional_create(&**store, "").await?;
    let names = match (honoured, repository.info().names) {
        (ConditionalCreate::Honoured, _) => "conditional creates hold",
        (ConditionalCreate::Ignored(_), NameMode::Content) => {
            "the store ignores conditional creates; names carry the content"
        }
        (ConditionalCreate::Ignored(Breach::Replaced), NameMode::Plain) => {
            return Err(crate::report::failed(
                "the store ignores conditional creates, and this repository relies on them",
                "two writers could overwrite each other unseen: make a new repository on this store, which will carry the \
                 content in its names",
            ));
        }
        (ConditionalCreate::Ignored(breach), NameMode::Plain) => {
            return Err(crate::report::failed(
                format!(
                    "the store's conditional creates do not hold in a race, and this repository relies on them: {breach}"
                ),
                "was the store overloaded, so that a lock of its own ended too early? two writers of one name could overwrite each other \
                 unseen; if another check finds it again, make a new repository on this store, which will carry the content in its names",
            ));
        }
    };
    let fingerprint = open.cluster.keys().fingerprint();
    let credentials =
        store.credentials().map(|source| format!("credentials: {source}, ")).unwrap_or_default();
    let message = format!("{}, {credentials}{names}, fingerprint {fingerprint}", store.describe());
    let (lineage, newest) = match state {
        None => (None, None),
        Some(state) => {
            let lineage = open.lineage_of(state).await?;
            lineage.require_open().await?;
            let newest = list_backups(&lineage).await?.complete.pop();
            (Some(lineage), newest)
        }
    };
    Ok(Checked { message, lineage, newest, skew: store.clock_skew() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// I23: a clock that was an hour ahead and is right again is told by what it left; one that is right is not.
    #[test]
    fn a_backup_from_the_future_is_told() {
        let newest: BackupId = "20261120T061000Z-00000000".parse().unwrap();
        for (now, is_told) in [
            ("2026-11-20T05:10:00Z", true),
            ("2026-11-20T06:04:59Z", true),
            ("2026-11-20T06:09:00Z", false),
            ("2026-11-21T00:00:00Z", false),
        ] {
            let mut findings = Findings::default();
            check_newest("primary", &newest, now.parse().unwrap(), &mut findings);
            assert_eq!(!findings.all_well(), is_told, "{now}");
        }
    }
}
