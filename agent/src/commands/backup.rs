//! `highwater backup`: one base backup, now, into every configured repository or the one that is named.

use std::fmt::Write as _;
use std::time::Duration;

use highwater_archive::manifest::Manifest;
use highwater_archive::seal::Codec;
use indicatif::{HumanBytes, HumanCount, HumanDuration};
use serde_json::json;

use crate::backup::{self, Destination, Options};
use crate::config::{Config, RepositoryConfig};
use crate::context::Context;
use crate::exit::Exit;
use crate::host_state::HostState;
use crate::host_state::newest::{Newest, went_back};
use crate::report;
use crate::repositories::{self, Failed, OpenRepository};
use crate::silence::Silence;

/// More threads than this only wait for each other or for the disk, unless more are asked for.
const MOST_JOBS: usize = 4;

/// The arguments.
#[derive(clap::Args)]
pub struct Args {
    /// Only into this repository
    #[arg(long, value_name = "NAME")]
    repository: Option<String>,
    /// A label, shown by list
    #[arg(long, default_value = "highwater backup", value_parser = label)]
    label: String,
    /// Ask for an immediate checkpoint: the backup begins at once, with more load on the disk
    #[arg(long)]
    fast_checkpoint: bool,
    /// Threads that read, compress and encrypt [default: the number of cores, at most 4]
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: Option<u16>,
    /// How many seconds a segment of WAL may take into the repository
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..))]
    archive_timeout: u64,
}

/// A backup_label is a file of lines (`do_pg_backup_start` allows 1,024 bytes).
fn label(text: &str) -> Result<String, String> {
    if text.len() > 1000 || text.chars().any(char::is_control) {
        return Err("a label is one line of at most 1000 bytes".to_owned());
    }
    Ok(text.to_owned())
}

/// Backs up into one repository after the other; damaged pages are told, and show in the exit code.
///
/// One that fails does not keep the others from theirs. It is a failure of the whole unless as many have succeeded as
/// `wal.required_repositories` asks to hold WAL.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let state = HostState::require(config.data_dir()?)?;
    let wanted: Vec<&RepositoryConfig> = match &args.repository {
        Some(name) => vec![repositories::choose(config, Some(name))?],
        None => config.repositories.iter().collect(),
    };
    let (mut made, mut failed) = (Vec::new(), Vec::new());
    for repository in &wanted {
        let opening = OpenRepository::open(repository, &config.cluster);
        let open = if wanted.len() > 1 { repositories::in_a_minute(opening).await } else { opening.await };
        let made_there = async { one(context, config, &state, open?, repository.codec, &args).await };
        match made_there.await {
            Ok(manifest) => made.push((repository.name.as_str(), manifest)),
            Err(error) => failed.push(Failed { repository: repository.name.clone(), error }),
        }
    }
    if made.is_empty() {
        let several = failed.len() > 1;
        failed.iter().skip(1).for_each(|other| other.tell("error", "no backup in"));
        // The first is told as every error is.
        if let Some(first) = failed.drain(..).next() {
            return Err(if several { first.named() } else { first.error });
        }
    }
    let mut said = String::new();
    for (repository, manifest) in &made {
        tell(&mut said, repository, manifest)?;
    }
    let backups: Vec<_> = made.iter().map(|(repository, manifest)| as_json(repository, manifest)).collect();
    let failures: Vec<_> = failed.iter().map(Failed::as_json).collect();
    context.print(said.trim_end(), &json!({ "version": 1, "backups": backups, "failed": failures }));
    let sound = made.iter().all(|(_, manifest)| manifest.page_failure_count == 0);
    let required = config.required_repositories.count(wanted.len()).min(wanted.len());
    let exit = exit(made.len(), required, sound);
    let gravity = if exit == Exit::Failed { "error" } else { "warning" };
    failed.iter().for_each(|one| one.tell(gravity, "no backup in"));
    Ok(exit)
}

/// How it ends where at least one backup was made.
fn exit(made: usize, required: usize, sound: bool) -> Exit {
    match (made >= required, sound) {
        (false, _) => Exit::Failed,
        (true, false) => Exit::Unsound,
        (true, true) => Exit::Done,
    }
}

async fn one(
    context: &Context,
    config: &Config,
    state: &HostState,
    repository: OpenRepository,
    codec: Codec,
    args: &Args,
) -> anyhow::Result<Manifest> {
    let lineage = repository.lineage_of(state).await?;
    // It answers: a push gives it its time again, so that the WAL of this backup comes to lie there.
    Silence::forget(config.data_dir()?, &repository.name);
    let destination = Destination {
        lineage: &lineage,
        wrapped_keyring: repository.cluster.wrapped_keyring(),
        codec,
        writer: state.writer.to_string(),
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let options = Options {
        label: args.label.clone(),
        fast_checkpoint: args.fast_checkpoint,
        jobs: args.jobs.map_or(cores.min(MOST_JOBS), usize::from),
        archive_deadline: Duration::from_secs(args.archive_timeout),
        quiet: context.json,
    };
    let newest = Newest::of(config.data_dir()?, &lineage);
    if let Some(gone) = newest.gone(&lineage).await? {
        let (message, hint) = went_back(&gone);
        report::line(&format!("warning: repository {}: {message}", repository.name));
        report::line(&format!("hint: {hint}"));
    }
    let manifest = backup::run(config, &destination, &options, &*context.clock).await?;
    if let Err(error) = newest.remember(&manifest.backup) {
        // The backup is sound; only that it is gone would not be seen.
        report::line(&format!(
            "warning: this host cannot remember backup {}: {}",
            manifest.backup,
            report::message(&error)
        ));
    }
    Ok(manifest)
}

fn tell(said: &mut String, repository: &str, manifest: &Manifest) -> std::fmt::Result {
    let counts = &manifest.counts;
    let took = manifest.stopped_at.duration_since(manifest.started_at);
    writeln!(said, "backup {} is complete in repository {}", manifest.backup, repository)?;
    writeln!(
        said,
        "  {} in {} files, stored as {} in {} packs, {}",
        HumanBytes(counts.bytes),
        HumanCount(counts.files),
        HumanBytes(counts.stored_bytes),
        manifest.packs,
        HumanDuration(took.unsigned_abs()),
    )?;
    let wal = &manifest.wal;
    writeln!(said, "  WAL {} to {} on timeline {}, all archived", wal.start_lsn, wal.stop_lsn, wal.timeline)?;
    for left_out in &manifest.left_out {
        writeln!(said, "  left out: {} ({})", left_out.path, left_out.reason)?;
    }
    if manifest.page_failure_count > 0 {
        writeln!(
            said,
            "warning: {} damaged pages are in this backup as they were read:",
            manifest.page_failure_count
        )?;
        for failure in manifest.page_failures.iter().take(20) {
            let relation = failure.relation.as_deref().unwrap_or("no known relation");
            writeln!(said, "  {} block {} ({relation}): {}", failure.file, failure.block, failure.problem)?;
        }
        let more = manifest.page_failure_count.saturating_sub(20);
        if more > 0 {
            writeln!(said, "  and {more} more")?;
        }
        writeln!(
            said,
            "hint: keep older backups; the relations named can be restored from one without damage"
        )?;
    }
    Ok(())
}

fn as_json(repository: &str, manifest: &Manifest) -> serde_json::Value {
    json!({
        "repository": repository,
        "backup": manifest.backup.as_str(),
        "lineage": manifest.lineage.to_string(),
        "label": manifest.label,
        "started_at": manifest.started_at,
        "stopped_at": manifest.stopped_at,
        "wal": manifest.wal,
        "counts": manifest.counts,
        "packs": manifest.packs,
        "left_out": manifest.left_out,
        "page_failure_count": manifest.page_failure_count,
        "page_failures": manifest.page_failures,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_few_backups_are_a_failure_whatever_their_pages() {
        assert_eq!(exit(1, 2, true), Exit::Failed);
        assert_eq!(exit(1, 2, false), Exit::Failed);
        assert_eq!(exit(1, 1, true), Exit::Done);
        assert_eq!(exit(2, 1, false), Exit::Unsound);
    }
}
