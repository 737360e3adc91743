//! `highwater archive-push %p`: one file of WAL, for PostgreSQL's `archive_command`.
//!
//! Prints nothing when it succeeds and one line when it fails, unless `--json` asks for an object; never exits above 125, since PostgreSQL would restart its archiver
//! and count no failure (`pgarch_archiveXlog` in `postmaster/pgarch.c`). A hung command hangs PostgreSQL's shutdown, so it has a
//! deadline of its own, which a second thread enforces should even the operating system not answer.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use highwater_archive::wal::Stored;
use highwater_pitr::segment::WalFile;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{self, Config};
use crate::context::Context;
use crate::exit::{Caller, Exit};
use crate::host_state::HostState;
use crate::push::{self, Outcome, WalSource};
use crate::report;
use crate::repositories::Failed;

/// How long after the deadline the process ends whatever it is doing.
const LAST_MOMENT: Duration = Duration::from_secs(2);

/// What PostgreSQL passes.
#[derive(clap::Args)]
pub struct Args {
    /// The file to archive: PostgreSQL's %p
    #[arg(value_name = "%p")]
    pub path: PathBuf,
}

/// Archives the file.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let config = context.config()?;
    end_after(config.push_deadline + LAST_MOMENT, context.json);
    let data_dir = config.data_dir()?;
    check_place(&args.path, data_dir, config)?;
    let state = HostState::require(data_dir)?;
    check_cluster(&state, config)?;
    let source = WalSource::new(&args.path)?;
    let file = source.file;
    let pushed = tokio::select! {
        pushed = push::push(config, &state, data_dir, &source, config.push_deadline, context.clock.now()) => pushed,
        name = interrupted() => Err(anyhow::anyhow!("interrupted by {}", name?)),
    };
    let outcomes = pushed.with_context(|| format!("{file} is not archived"))?;
    match context.json {
        true => report::result(&as_json(&file, outcomes).to_string()),
        false => outcomes.iter().for_each(|outcome| warn(&file, outcome)),
    }
    Ok(Exit::Done)
}

/// Says what is out of the ordinary.
fn warn(file: &WalFile, outcome: &Outcome) {
    match &outcome.held {
        Ok(Stored::New | Stored::Same) => {}
        Ok(Stored::Variant { beside, variant }) => report::line(&format!(
            "warning: {file} is kept beside another end of the same WAL in repository {}: {beside} there, {variant} here",
            outcome.repository
        )),
        Err(error) => {
            let message = report::message(error);
            report::line(&format!("warning: {file} is archived, but not everywhere: {message}"));
        }
    }
}

fn as_json(file: &WalFile, outcomes: Vec<Outcome>) -> Value {
    let (mut repositories, mut failed) = (Vec::new(), Vec::new());
    for Outcome { repository, held } in outcomes {
        match held {
            Ok(stored) => {
                let stored = match stored {
                    Stored::New => "new",
                    Stored::Same => "same",
                    Stored::Variant { .. } => "variant",
                };
                repositories.push(json!({ "repository": repository, "stored": stored }));
            }
            Err(error) => failed.push(Failed { repository, error }.as_json()),
        }
    }
    json!({ "version": 1, "file": file.to_string(), "repositories": repositories, "failed": failed })
}

/// The file must be of the data directory that the configuration names. PostgreSQL runs its commands in its own data directory,
/// so this tells a restored copy that still has production's `archive_command` from production.
fn check_place(path: &Path, data_dir: &Path, config: &Config) -> anyhow::Result<()> {
    let canonical = |path: &Path| {
        path.canonicalize().map_err(|error| {
            report::failed(
                format!("cannot find {}: {error}", path.display()),
                format!(
                    "PostgreSQL calls this in its data directory; by hand, do so too: cd {}",
                    data_dir.display()
                ),
            )
        })
    };
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (found, expected) = (canonical(directory)?, canonical(&data_dir.join("pg_wal"))?);
    if found == expected {
        return Ok(());
    }
    Err(report::refused(
        format!(
            "{} lies in {}, not in the pg_wal of cluster {} ({})",
            path.display(),
            found.display(),
            config.cluster,
            expected.display()
        ),
        "the archive_command must be of the configuration whose cluster.data_dir is this server's; a copy needs its own",
    ))
}

fn check_cluster(state: &HostState, config: &Config) -> anyhow::Result<()> {
    if state.cluster == config.cluster.as_str() {
        return Ok(());
    }
    Err(report::refused(
        format!("the data directory was set up as cluster {}, not {}", state.cluster, config.cluster),
        "give archive_command the --cluster that init printed",
    ))
}

/// Ends the process with a failure after a while, even when a system call hangs. The archive bears being cut off anywhere.
fn end_after(limit: Duration, json: bool) {
    std::thread::spawn(move || {
        std::thread::sleep(limit);
        report::say(
            "the deadline has passed and the operating system does not answer; PostgreSQL will try again",
            None,
            json,
            Caller::ArchiveCommand,
        );
        config::end_commands();
        std::process::exit(i32::from(Exit::Failed.code()));
    });
}

/// Waits for a signal that asks us to stop. Dying of it would be above 125 for PostgreSQL.
async fn interrupted() -> anyhow::Result<&'static str> {
    let listen = |kind| signal(kind).context("cannot listen for signals");
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut hangup = listen(SignalKind::hangup())?;
    Ok(tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        _ = hangup.recv() => "SIGHUP",
    })
}
