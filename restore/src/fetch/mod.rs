//! One file of WAL for `restore_command`, or the proof that there is none (I14).
//!
//! PostgreSQL takes exit 1 as the end of WAL and promotes, quietly, whatever it has; it takes anything above 125 as fatal.
//! So the answer "absent" is given only when it is proven: by the plan (the file is not on the way to the target), or by every
//! repository saying so. All else is tried again for minutes, from each repository in turn, and then is an error. Only where
//! `standby.signal` says that the server itself asks again for ever is a passing error answered like absence, so that an
//! outage does not end a standby. [`mod@verdict`] holds these rules as one pure function.
//!
//! Repositories are asked in their order. The next one is asked too as soon as the one before has said no, failed, or kept us waiting
//! for [`SLOW`]: one that hangs stops no recovery while another has the file. The first that has it ends the round; absence is
//! only said when every one of them has answered. A file that several are sending is held in memory once for each.
//!
//! One that hangs is given up, and opened anew in the next round; one that is slow is not, for it would be as slow again. They are
//! told apart by a small question that is asked beside a long one ([`Repository::attend`]). Only the deadline ends all.
//!
//! What a repository gives was opened, authenticated and held against name, system identifier and size by
//! [`highwater_archive::wal::get`]. It is written beside the destination, fsynced and renamed: PostgreSQL sees all of it or
//! nothing, also when a file of an earlier call is still there.

mod standby;
mod verdict;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use highwater_archive::clock::Clock;
use highwater_archive::durable::{self, DurableError};
use highwater_archive::lineage::{Lineage, LineageError};
use highwater_archive::repository::{Patience, Repository, Silent};
use highwater_archive::wal::{self, WalGetError};
use highwater_pitr::index::SegmentIndex;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::WalFile;

use standby::Held;
pub use verdict::{Answer, Verdict, verdict};

use crate::plan_file::{PlanFile, Scope};
use crate::replayed::ReplayedError;

/// The wait after the first round in which nobody could answer; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// The longest wait between two rounds.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// How long a repository may keep us waiting before the next one is asked too.
const SLOW: Duration = Duration::from_secs(2);

/// The least time that a question is given, however near the deadline is.
const SHORTEST_QUESTION: Duration = Duration::from_secs(1);

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
    patience: Patience,
}

impl Source {
    /// The repository `name`, opened by `opener` when it is first asked.
    pub fn new(name: impl Into<String>, opener: Opener) -> Source {
        Source { name: name.into(), opener, lineage: None, patience: Patience::USUAL }
    }

    async fn lineage(&mut self) -> Result<Arc<Lineage>, SourceError> {
        if let Some(lineage) = &self.lineage {
            return Ok(lineage.clone());
        }
        let opened = tokio::time::timeout(self.patience.work, (self.opener)()).await;
        let lineage = opened.unwrap_or_else(|_| Err(self.silent(Silent { waited: self.patience.work })))?;
        self.lineage = Some(lineage.clone());
        Ok(lineage)
    }

    fn silent(&self, silent: Silent) -> SourceError {
        let (message, hint) = (silent.to_string(), Some(silent.hint()));
        SourceError { repository: self.name.clone(), message, hint, permanent: false }
    }
}

/// A file that a repository gave.
#[derive(Debug)]
struct Delivery {
    bytes: Vec<u8>,
    /// Its index, where it must be known what its replay makes and drops.
    index: Option<Box<SegmentIndex>>,
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

impl Request<'_> {
    /// How long a round may take when `waited` of the deadline is over.
    fn left(&self, waited: Duration) -> Duration {
        self.deadline.saturating_sub(waited).max(SHORTEST_QUESTION)
    }
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
    #[error("{file} cannot be had, and is not proven absent{}: {reason}", tried_for(*waited))]
    Unproven {
        /// The file.
        file: String,
        /// How long was tried; none where trying again could not help.
        waited: Option<Duration>,
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
    /// A record in it is of the tablespace manager, and nobody knows what it does.
    #[error("{file} is not handed out: what its record at LSN {lsn} does with a tablespace cannot be told")]
    StrangeTablespace {
        /// The file.
        file: String,
        /// The record.
        lsn: Lsn,
    },
    /// It begins with the end of a record that may make a tablespace, and the beginning is nowhere.
    #[error(
        "{file} is not handed out: the record that comes in from {before} may make a tablespace, and that segment is whole neither in a repository nor in pg_wal"
    )]
    CutTablespace {
        /// The file.
        file: String,
        /// The segment before it.
        before: String,
    },
    /// It could not be put where PostgreSQL wants it.
    #[error(transparent)]
    Put(#[from] DurableError),
}

fn tried_for(waited: Option<Duration>) -> String {
    waited.map_or_else(String::new, |waited| format!(", after {} s", waited.as_secs()))
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
            Self::StrangeTablespace { .. } => Some(
                "use the newest version of highwater; else let the standby get this segment from its upstream, where no other server's tablespaces lie on its host".into(),
            ),
            Self::CutTablespace { .. } => Some(
                "bring that segment from the upstream's pg_wal into the standby's, and start it again; or restore from a newer backup".into(),
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
    let waited = || Duration::try_from(clock.now().duration_since(begun)).unwrap_or_default();
    loop {
        let answers = match ask_all(sources, request, request.left(waited())).await {
            Round::Found(delivery) => match standby::hold_against_host(&delivery, request, sources).await? {
                Held::Free => {
                    durable::replace(request.destination, &[delivery.bytes])?;
                    return Ok(Outcome::Delivered);
                }
                Held::NotKnown(failed) => vec![Answer::Failed(failed)],
            },
            Round::Answers(answers) => answers,
        };
        let waited = waited();
        match verdict(&answers, scope, request.standby, waited + wait > request.deadline) {
            Verdict::Absent(why) => return Ok(Outcome::Absent(why)),
            Verdict::Missing => return Err(FetchError::Missing { file: request.file.to_string() }),
            Verdict::Unproven { reason, hint, beyond_mending } => {
                let waited = (!beyond_mending).then_some(waited);
                return Err(FetchError::Unproven { file: request.file.to_string(), waited, reason, hint });
            }
            Verdict::AskAgain => {
                clock.sleep(wait).await;
                wait = (wait * 2).min(LONGEST_WAIT);
            }
        }
    }
}

/// What a round of questions came to.
enum Round {
    /// A repository gave the file.
    Found(Delivery),
    /// Every repository answered, or its time was over; in their order.
    Answers(Vec<Answer>),
}

/// Asks every repository, the later ones as those before are slow or have it not.
async fn ask_all(sources: &mut [Source], request: &Request<'_>, limit: Duration) -> Round {
    let mut answers: Vec<Option<Answer>> = sources.iter().map(|_| None).collect();
    let mut waiting = sources.iter_mut().enumerate();
    let mut asked = FuturesUnordered::new();
    loop {
        if let Some((number, source)) = waiting.next() {
            asked.push(async move { (number, ask_within(source, request, limit).await) });
        }
        let answer = match tokio::time::timeout(SLOW, asked.next()).await {
            Ok(answer) => answer,
            Err(_) if waiting.len() > 0 => continue,
            Err(_) => asked.next().await,
        };
        let Some((number, answer)) = answer else { break };
        let answer = match answer {
            Ok(Some(delivery)) => return Round::Found(delivery),
            Ok(None) => Answer::Absent,
            Err(error) => Answer::Failed(error),
        };
        if let Some(place) = answers.get_mut(number) {
            *place = Some(answer);
        }
    }
    Round::Answers(answers.into_iter().flatten().collect())
}

/// Asks one repository for at most `limit`, and no longer than it answers at all.
async fn ask_within(
    source: &mut Source,
    request: &Request<'_>,
    limit: Duration,
) -> Result<Option<Delivery>, SourceError> {
    let answer = tokio::time::timeout(limit, ask(source, request)).await;
    let answer = answer.unwrap_or_else(|_| {
        let slow = "if it is merely slow, raise --deadline of archive-get in restore_command";
        let error = source.silent(Silent { waited: limit });
        Err(SourceError { hint: error.hint.map(|hangs| format!("{hangs}; {slow}")), ..error })
    });
    if answer.is_err() {
        // What was opened may be the cause: the next round opens it anew.
        source.lineage = None;
    }
    answer
}

/// Asks one repository, as long as it answers at all.
async fn ask(source: &mut Source, request: &Request<'_>) -> Result<Option<Delivery>, SourceError> {
    let lineage = source.lineage().await?;
    let answer = lineage.repository().attend(source.patience, ask_lineage(&source.name, &lineage, request));
    answer.await.unwrap_or_else(|silent| Err(source.silent(silent)))
}

/// Asks one repository. What it opened earlier may have been unmounted or removed since, and then everything in it looks absent:
/// so absence is only believed of a repository that is still there.
async fn ask_lineage(
    repository: &str,
    lineage: &Lineage,
    request: &Request<'_>,
) -> Result<Option<Delivery>, SourceError> {
    let failed = |message: String, hint: Option<String>, permanent: bool| SourceError {
        repository: repository.to_owned(),
        message,
        hint,
        permanent,
    };
    let goes_on = request.plan.is_some_and(|plan| plan.last_segment.is_none());
    let got = match request.file {
        WalFile::Segment(name) if goes_on => wal::get_indexed(lineage, name)
            .await
            .map(|found| found.map(|(bytes, index)| Delivery { bytes, index: Some(Box::new(index)) })),
        _ => wal::get(lineage, &request.file)
            .await
            .map(|found| found.map(|bytes| Delivery { bytes, index: None })),
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
    Ok(got)
}

#[cfg(test)]
mod tests;
