//! `highwater restore`: the cluster as it was, into an empty directory, or over what is there and proven to be its own.
//!
//! The order of things is the promise: [`source`] finds the repositories and the lineage, preflight refuses what cannot be, the
//! plan is said, and only then is the first byte changed. What to type next is printed at the end ([`say`]).

mod arguments;
mod resorted;
mod say;
mod serving;
mod source;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_pitr::target::TargetAction;
use highwater_restore::RestoreError;
use highwater_restore::begin::begin;
use highwater_restore::finish::{Finished, finish, write_reindex};
use highwater_restore::host::{self, Answers, Resorted};
use highwater_restore::plan_file::RepositoryToPlan;
use highwater_restore::preflight::{Preflight, Request, preflight};
use highwater_restore::rebuild::{OWN_DIRECTORY, RebuildOptions, Rebuilt, rebuild};
use highwater_restore::server::{Goal, Server, ServerError, ServerOptions, State, is_running};

pub use arguments::Args;
use serving::Serving;
use source::Sources;
pub use source::choose_lineage;

use crate::context::Context;
use crate::exit::Exit;
use crate::report;

/// How often the position of a recovering server is said.
const SAY_EVERY: Duration = Duration::from_secs(10);

/// Restores.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let begun = Instant::now();
    let sources = Sources::open(context, &args).await?;
    let request = args.request(&sources)?;
    let planned: Vec<RepositoryToPlan<'_>> = sources.to_plan();
    let preflight = preflight(&planned, &request).await.map_err(problem)?;
    let plan = say::Plan::of(&preflight, &request, &sources);
    if !context.json {
        plan.warnings().for_each(|warning| report::line(&format!("warning: {warning}")));
    }
    if args.dry_run {
        context.print(&plan, &plan.json());
        return Ok(Exit::Done);
    }
    if !context.json {
        report::result(&plan.to_string());
    }
    let claim = begin(&preflight, &request, context.clock.now()).map_err(problem)?;
    let options = RebuildOptions {
        data_dir: request.target_dir.clone(),
        wal_dir: preflight.wal_dir.clone(),
        tablespaces: preflight.tablespaces.clone(),
        owner: preflight.owner.clone(),
        claimed: claim.claimed().to_vec(),
        jobs: args.jobs(&sources, &preflight),
        in_place: preflight.standing.in_place(),
    };
    let rebuilt = rebuild_data(context, &preflight, &request, options).await?;
    let now = context.clock.now();
    let finished = finish(claim, &preflight, &request, sources.cluster(), &planned, now).map_err(problem)?;
    let took = begun.elapsed();
    let mut done = say::Done {
        plan: &plan,
        preflight: &preflight,
        request: &request,
        serving: Serving::of(&finished, &request),
        rebuilt,
        finished: &finished,
        took,
        state: None,
        running: false,
        resorted: preflight.resorted.clone(),
        asked: Vec::new(),
    };
    if !context.json {
        report::result(&done.restored());
    }
    if request.start.is_some() {
        let options = server_options(&preflight, &request, &finished, &args)?;
        let started = start(context, options.clone(), &request, &args).await?;
        done.running = is_running(&request.target_dir);
        match started {
            Ok(state) => {
                done.state = Some(state);
                if done.running {
                    ask_what_is_sorted_otherwise(context, &mut done, options).await?;
                }
            }
            Err(error) => {
                if !context.json {
                    report::result(&done.next_steps());
                }
                return Err(report::failed(error.to_string(), done.hint_after(&error)));
            }
        }
    }
    context.print(done.next_steps(), &done.json());
    Ok(Exit::Done)
}

/// Rebuilds on threads that may block.
async fn rebuild_data(
    context: &Context,
    preflight: &Preflight,
    request: &Request,
    options: RebuildOptions,
) -> anyhow::Result<Rebuilt> {
    let progress = Arc::new(context.progress("restoring", preflight.manifest.counts.bytes));
    let (lineage, manifest) = (preflight.lineage.clone(), preflight.manifest.clone());
    let runtime = tokio::runtime::Handle::current();
    let shown = progress.clone();
    let work = tokio::task::spawn_blocking(move || {
        rebuild(&runtime, &lineage, &manifest, &options, &|bytes| shown.add(bytes))
    });
    let rebuilt = work.await?.map_err(|error| problem(preflight.unfinished(request, error)));
    progress.finish();
    rebuilt
}

/// How the server is started, and asked when it runs.
fn server_options(
    preflight: &Preflight,
    request: &Request,
    finished: &Finished,
    args: &Args,
) -> anyhow::Result<ServerOptions> {
    let Some(installation) = preflight.installation.clone() else { anyhow::bail!("no server to start") };
    let mut settings = Vec::new();
    settings.extend(args.port.map(|port| ("port".to_owned(), port.to_string())));
    settings.extend(
        args.socket_dir
            .as_ref()
            .map(|directory| ("unix_socket_directories".to_owned(), directory.display().to_string())),
    );
    Ok(ServerOptions {
        installation,
        data_dir: request.target_dir.clone(),
        config_file: finished.config_file.clone(),
        run_as: preflight.owner.clone(),
        settings,
        log_file: log_file(&request.target_dir),
        // Whoever ran initdb is the superuser by name, and the files may be another user's now.
        roles: vec![preflight.manifest.owner.user.clone(), "postgres".to_owned()],
    })
}

/// A server that can be read says itself which text its libraries sort otherwise, of the cluster as it is at the target.
async fn ask_what_is_sorted_otherwise(
    context: &Context,
    done: &mut say::Done<'_>,
    options: ServerOptions,
) -> anyhow::Result<()> {
    let major = done.preflight.manifest.postgresql.major;
    let known = done.preflight.resorted.clone();
    let asked = tokio::task::spawn_blocking(move || host::ask(&options, major, &known)).await?;
    match asked {
        Ok(Answers { resorted, failures }) => {
            write_reindex(done.preflight, &done.request.target_dir, &resorted).map_err(problem)?;
            let known: Vec<String> = done.plan.warnings().collect();
            let said = resorted.iter().map(Resorted::warning).chain(failures);
            done.asked = said.filter(|warning| !known.contains(warning)).collect();
            done.resorted = resorted;
        }
        Err(error) => done
            .asked
            .push(format!("the server could not be asked which text its libraries sort otherwise: {error}")),
    }
    if !context.json {
        done.asked.iter().for_each(|warning| report::line(&format!("warning: {warning}")));
    }
    Ok(())
}

/// Starts the server and waits until it is where it was sent. It stays when this process ends.
async fn start(
    context: &Context,
    options: ServerOptions,
    request: &Request,
    args: &Args,
) -> anyhow::Result<Result<State, ServerError>> {
    let goal = match request.action() {
        _ if request.standby => Goal::Readable,
        TargetAction::Pause => Goal::Paused,
        TargetAction::Promote => Goal::Writable,
        TargetAction::Shutdown => Goal::ShutDown,
    };
    let limit = Duration::from_secs(args.start_timeout);
    let quiet = context.json;
    let waited = tokio::task::spawn_blocking(move || {
        let mut server = Server::start(options)?;
        let mut said = Instant::now();
        server.wait_for(goal, limit, |state| {
            if let State::Recovering { replayed, .. } = state
                && said.elapsed() >= SAY_EVERY
                && !quiet
            {
                said = Instant::now();
                report::line(&format!("recovery is at {replayed}"));
            }
        })
    });
    Ok(waited.await?)
}

/// Where a server that we start logs until its own logging takes over.
fn log_file(target_dir: &Path) -> std::path::PathBuf {
    target_dir.join(OWN_DIRECTORY).join("start.log")
}

/// A restore's error with its hint and exit code.
fn problem(error: RestoreError) -> anyhow::Error {
    match (error.is_refusal(), error.hint()) {
        (true, hint) => report::refused(error.to_string(), hint.unwrap_or_default()),
        (false, Some(hint)) => report::failed(error.to_string(), hint),
        (false, None) => error.into(),
    }
}
