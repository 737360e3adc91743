//! One file of WAL for `restore_command`, or the proof that there is none (I14).
//!
//! PostgreSQL takes exit 1 as the end of WAL and promotes, quietly, whatever it has; it takes anything above 125 as fatal.
//! So the answer "absent" is given only when it is proven: by the plan (the file is not on the way to the target), or by every
//! repository saying so. All else is tried again for minutes, from each repository in turn, and then is an error. Only where
//! `standby.signal` says that the server itself asks again for ever is a passing error answered like absence, so that an
//! outage does not end a standby. [`mod@verdict`] holds these rules as one pure function.
//!
//! What a repository gives was opened, authenticated and held against name, system identifier and size by
//! [`highwater_archive::wal::get`]. It is written beside the destination, fsynced and renamed: PostgreSQL sees all of it or
//! nothing, also when a file of an earlier call is still there.

mod standby;
mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use highwater_archive::clock::Clock;
use highwater_archive::durable::{self, DurableError};
use highwater_archive::lineage::{Lineage, LineageError};
use highwater_archive::repository::Repository;
use highwater_archive::wal::{self, WalGetError};
use highwater_pitr::index::TablespaceRecord;
use highwater_pitr::segment::WalFile;

pub use verdict::{Answer, Verdict, verdict};

use crate::plan_file::{PlanFile, Scope};
use crate::replayed::ReplayedError;

/// The wait after the first round in which nobody could answer; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait between two rounds.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Why a repository could not be opened, or a file in it not be read.
#[derive(Debug, thiserror::Error)]
#[error("repository {repository}: {message}")]
pub struct SourceError {
    /// The repository's name.
    pub repository: String,
    /// What went wrong, causes included.
    pub message: String,
    /// What a person can do.
    pub hint: Option<String>,
    /// Asking again cannot help.
    pub permanent: bool,
}

/// A way to open one repository's lineage; it is called again after a failure.
pub type Opener = Box<dyn Fn() -> BoxFuture<'static, Result<Arc<Lineage>, SourceError>> + Send + Sync>;

/// A repository that may hold the file.
pub struct Source {
    name: String,
    opener: Opener,
    lineage: Option<Arc<Lineage>>,
}

impl Source {
    /// The repository `name`, opened by `opener` when it is first asked.
    pub fn new(name: impl Into<String>, opener: Opener) -> Source {
        Source { name: name.into(), opener, lineage: None }
    }

    async fn lineage(&mut self) -> Result<Arc<Lineage>, SourceError> {
        if let Some(lineage) = &self.lineage {
            return Ok(lineage.clone());
        }
        let lineage = (self.opener)().await?;
        self.lineage = Some(lineage.clone());
        Ok(lineage)
    }
}

/// A file that a repository gave.
#[derive(Debug)]
struct Delivery {
    bytes: Vec<u8>,
    /// What its replay makes and drops, where that must be known; `None` while it is not.
    made: Option<Vec<TablespaceRecord>>,
}

/// What is wanted and how.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The file.
    pub file: WalFile,
    /// Where PostgreSQL wants it: `%p`, as it is seen from here.
    pub destination: &'a Path,
    /// The plan of this restore, where there is one.
    pub plan: Option<&'a PlanFile>,
    /// The server's data directory, in which it runs `restore_command`.
    pub data_dir: &'a Path,
    /// Whether the server is a standby: `standby.signal` lies in its data directory now.
    pub standby: bool,
    /// How long to go on while nobody can answer.
    pub deadline: Duration,
}

/// How it ended, when it ended with an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The file is at its destination, durable.
    Delivered,
    /// The file is proven absent, or a standby may be told so until it asks again; the text says why.
    Absent(String),
}

/// It could not be found out whether the file exists, or it could not be put.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody can say.
    #[error("{file}: not known whether it exists, after {} s: {reason}", waited.as_secs())]
    Unproven {
        /// The file.
        file: String,
        /// How long was tried.
        waited: Duration,
        /// The last answers.
        reason: String,
        /// What a person can do.
        hint: Option<String>,
    },
    /// The target needs it and no repository has it.
    #[error("{file} is needed to reach the target and is in no repository")]
    Missing {
        /// The file.
        file: String,
    },
    /// A standby must not replay it on this host.
    #[error("{file} is not handed out: {why}")]
    Tablespace {
        /// The file.
        file: String,
        /// What would happen.
        why: ReplayedError,
    },
    /// It could not be put where PostgreSQL wants it.
    #[error(transparent)]
    Put(#[from] DurableError),
}

impl FetchError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unproven { hint, .. } => hint.clone(),
            Self::Missing { .. } => {
                Some("`highwater list` shows gaps; choose a target before this one".into())
            }
            Self::Tablespace { .. } => Some(
                "a standby cannot put it elsewhere: let it run on another host, or move what is there away, and start it again".into(),
            ),
            Self::Put(error) => error.hint(),
        }
    }
}

/// Whether the server whose data directory is `data_dir` is a standby; looked at on each call, since a promotion removes the
/// file.
pub fn is_standby(data_dir: &Path) -> bool {
    data_dir.join("standby.signal").exists()
}

/// Brings the file to its destination.
///
/// # Errors
/// [`FetchError`]; the exit code must then be above 125.
pub async fn fetch(
    request: &Request<'_>,
    sources: &mut [Source],
    clock: &dyn Clock,
) -> Result<Outcome, FetchError> {
    let scope = request.plan.map_or(Scope::Optional, |plan| plan.scope(&request.file));
    if let Scope::Outside(why) = scope {
        return Ok(Outcome::Absent(why.to_owned()));
    }
    let begun = clock.now();
    let mut wait = FIRST_WAIT;
    loop {
        let mut answers = Vec::with_capacity(sources.len());
        for source in sources.iter_mut() {
            match ask(source, request).await {
                Ok(Some(Delivery { bytes, made })) => {
                    standby::may_be_replayed(made.iter().flatten(), request.data_dir)
                        .map_err(|why| FetchError::Tablespace { file: request.file.to_string(), why })?;
                    durable::replace(request.destination, &[bytes])?;
                    return Ok(Outcome::Delivered);
                }
                Ok(None) => answers.push(Answer::Absent),
                Err(error) => {
                    // What was opened may be the cause: the next round opens it anew.
                    source.lineage = None;
                    answers.push(Answer::Failed(error));
                }
            }
        }
        let waited = Duration::try_from(clock.now().duration_since(begun)).unwrap_or_default();
        match verdict(&answers, scope, request.standby, waited + wait > request.deadline) {
            Verdict::Absent(why) => return Ok(Outcome::Absent(why)),
            Verdict::Missing => return Err(FetchError::Missing { file: request.file.to_string() }),
            Verdict::Unproven { reason, hint } => {
                return Err(FetchError::Unproven { file: request.file.to_string(), waited, reason, hint });
            }
            Verdict::AskAgain => {
                clock.sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// Asks one repository. What it opened earlier may have been unmounted or removed since, and then everything in it looks absent:
/// so absence is only believed of a repository that is still there.
async fn ask(source: &mut Source, request: &Request<'_>) -> Result<Option<Delivery>, SourceError> {
    let lineage = source.lineage().await?;
    let failed = |message: String, hint: Option<String>, permanent: bool| SourceError {
        repository: source.name.clone(),
        message,
        hint,
        permanent,
    };
    let goes_on = request.plan.is_some_and(|plan| plan.last_segment.is_none());
    let got = match request.file {
        WalFile::Segment(name) if goes_on => standby::get(&lineage, name).await,
        _ => wal::get(&lineage, &request.file)
            .await
            .map(|found| found.map(|bytes| Delivery { bytes, made: Some(Vec::new()) })),
    };
    let got = got.map_err(|error| {
        // Whatever the store says may be mended while PostgreSQL waits: a mount, a permission, a network. Damage stays.
        let passing = matches!(error, WalGetError::Lineage(LineageError::Store(_)));
        failed(error.to_string(), error.hint(), !passing)
    })?;
    if got.is_none() {
        let known = lineage.repository().info().repository_id;
        let there = Repository::open(lineage.store().clone()).await;
        let there = there.map_err(|error| failed(error.to_string(), error.hint(), false))?;
        if there.info().repository_id != known {
            return Err(failed("another repository lies at this URL now".to_owned(), None, true));
        }
    }
    match got {
        Some(Delivery { made: None, .. }) => {
            let reason = "whether it makes a tablespace is not known without the segment before it";
            Err(failed(format!("{}: {reason}", request.file), None, false))
        }
        got => Ok(got),
    }
}

#[cfg(test)]
mod tests;
