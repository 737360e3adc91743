//! `highwater archive-get %f %p`: one file of WAL, for PostgreSQL's `restore_command` (I14).
//!
//! Exit 0: the file is there, durable. 1: it is proven absent. Above 125: anything else, and recovery stops instead of
//! taking an outage for the end of WAL. Nothing is printed on success, one line otherwise, unless `--json` asks for an object.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use highwater_archive::seal::LineageId;
use highwater_pitr::segment::{NameError, WalFile};
use highwater_restore::fetch::{self, Opener, Outcome, Request, Source, SourceError};
use highwater_restore::plan_file::PlanFile;
use serde_json::json;

use super::restore::choose_lineage;
use crate::context::Context;
use crate::exit::{Caller, Exit};
use crate::host_state::HostState;
use crate::report;
use crate::repositories::OpenRepository;

/// How long is tried by default, in seconds: an outage of minutes is waited out.
const DEADLINE_SECONDS: u64 = 300;

/// What PostgreSQL passes, and what `restore` wrote into `restore_command`.
#[derive(clap::Args)]
pub struct Args {
    /// The file that is wanted: PostgreSQL's %f
    #[arg(value_name = "%f")]
    pub file: String,
    /// Where it is wanted: PostgreSQL's %p
    #[arg(value_name = "%p")]
    pub destination: PathBuf,
    /// The plan of a restore; without one the configuration says where WAL is
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Without a plan: read this lineage, where the cluster has several and this data directory writes none of them
    #[arg(long, value_name = "ID", conflicts_with = "plan")]
    pub lineage: Option<LineageId>,
    /// How long to try, in seconds: while no repository can answer, and while one that is slow sends
    #[arg(long, value_name = "SECONDS", default_value_t = DEADLINE_SECONDS)]
    pub deadline: u64,
}

/// Fetches the file.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let file: WalFile = args.file.parse().map_err(|error: NameError| {
        report::usage_error(
            error.to_string(),
            "PostgreSQL passes the name in restore_command: highwater archive-get %f \"%p\"",
        )
    })?;
    let (plan, mut sources) = match &args.plan {
        Some(path) => from_plan(path)?,
        None => (None, from_configuration(context, args.lineage)?),
    };
    // PostgreSQL runs restore_command in the data directory.
    let data_dir = Path::new(".");
    let request = Request {
        file,
        data_dir,
        destination: &args.destination,
        plan: plan.as_ref(),
        standby: fetch::is_standby(data_dir),
        deadline: Duration::from_secs(args.deadline),
    };
    match fetch::fetch(&request, &mut sources, &*context.clock).await {
        Ok(Outcome::Delivered) => {
            if context.json {
                report::result(&json!({ "version": 1, "file": file.to_string() }).to_string());
            }
            Ok(Exit::Done)
        }
        Ok(Outcome::Absent(why)) => {
            let said = format!("{file}: no such file: {why}");
            match context.json {
                true => report::say(&said, None, true, Caller::RestoreCommand),
                false => report::line(&said),
            }
            Ok(Exit::Failed)
        }
        Err(error) => match error.hint() {
            Some(hint) => Err(report::failed(error.to_string(), hint)),
            None => Err(error.into()),
        },
    }
}

/// The repositories of a plan; opening them asks nobody.
fn from_plan(path: &Path) -> anyhow::Result<(Option<PlanFile>, Vec<Source>)> {
    let plan = PlanFile::read(path)?;
    let repositories = plan.repositories(path)?;
    let sources = repositories
        .into_iter()
        .map(|repository| {
            let lineage = Arc::new(repository.lineage);
            let opener: Opener = Box::new(move || futures::future::ready(Ok(lineage.clone())).boxed());
            Source::new(repository.name, opener)
        })
        .collect();
    Ok((Some(plan), sources))
}

/// The configured repositories. The lineage is the one that was asked for, that this data directory writes, or that the cluster has.
fn from_configuration(context: &Context, asked: Option<LineageId>) -> anyhow::Result<Vec<Source>> {
    let config = context.config()?;
    let known = match asked {
        Some(lineage) => Some(lineage),
        None => HostState::read(Path::new("."))?.map(|state| state.lineage),
    };
    let sources = config
        .repositories
        .iter()
        .map(|repository| {
            let (repository, cluster) = (repository.clone(), config.cluster.clone());
            let name = repository.name.clone();
            let opener: Opener = Box::new(move || {
                let (repository, cluster) = (repository.clone(), cluster.clone());
                async move {
                    let opened = async {
                        let open = OpenRepository::open(&repository, &cluster).await?;
                        choose_lineage(&open.cluster, known).await
                    };
                    opened.await.map(Arc::new).map_err(|error: anyhow::Error| SourceError {
                        repository: repository.name.clone(),
                        message: report::message(&error),
                        hint: report::hint(&error),
                        permanent: false,
                    })
                }
                .boxed()
            });
            Source::new(name, opener)
        })
        .collect();
    Ok(sources)
}
