//! Does the store keep its word on conditional creates?
//!
//! A store may ignore `If-None-Match` without saying so, and some do only under a race, so one put after another proves
//! nothing (I4). The probe races 16 creates of one name with different contents, for several rounds. The store
//! passes when in each round exactly one racer was told [`Created::New`] and its content is what a reader gets. What it did instead is told
//! apart: one that replaces objects as it pleases, and one whose locks do not hold in a race, as those of SeaweedFS may when the machine
//! is so busy that they end before their holder is done.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;

use crate::store::{Created, Store, StoreError};

/// How many creates of one name run at once.
const RACERS: usize = 16;
/// How many names are raced for.
const ROUNDS: usize = 4;
/// How long the clean-up waits before its second try at a name.
const RETRY_DELETE_AFTER: Duration = Duration::from_millis(200);

/// What the probe found out about a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConditionalCreate {
    /// One writer of a name wins, all others are told so: names may be plain.
    Honoured,
    /// At least once several writers were told that they won, or the winner was overwritten: names must carry the content.
    Ignored(Breach),
}

/// How a store broke its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Breach {
    /// So many writers of one name, all at once, were told that they had written it.
    Winners(usize),
    /// One was told so, and another's content is there.
    Overwritten,
    /// What had been there before was replaced.
    Replaced,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Winners(winners) => {
                write!(f, "{winners} of {RACERS} writers of one name were told that they had written it")
            }
            Self::Overwritten => write!(
                f,
                "of {RACERS} writers of one name, another than the one that was told so had written it"
            ),
            Self::Replaced => write!(f, "an object that was there was replaced by a create"),
        }
    }
}

/// Races creates under `<prefix>/probe/` (`probe/` for the empty prefix) and removes what it wrote, whatever the outcome.
///
/// # Errors
/// The first [`StoreError`] of a request: then nothing is known of the store.
pub async fn probe_conditional_create(
    store: &dyn Store,
    prefix: &str,
) -> Result<ConditionalCreate, StoreError> {
    let directory = if prefix.is_empty() {
        "probe".to_owned()
    } else {
        format!("{}/probe", prefix.trim_end_matches('/'))
    };
    let mut nonce = [0_u8; 16];
    getrandom::fill(&mut nonce).map_err(|error| StoreError::Unavailable {
        operation: "probe",
        path: directory.clone(),
        store: store.describe(),
        reason: format!("the system has no random numbers: {error}"),
    })?;
    let nonce = hex::encode(nonce);
    let paths: Vec<String> = (0..ROUNDS).map(|round| format!("{directory}/{nonce}.{round}")).collect();

    // All at once: a service may take its time over each (SeaweedFS lets racers wait for whole seconds).
    let outcomes = join_all(paths.iter().map(|path| race(store, path))).await;
    let cleaned = clean_up(store, &paths).await;
    let mut worst: Option<Breach> = None;
    for outcome in outcomes {
        worst = worst.max(outcome?);
    }
    cleaned?;
    Ok(worst.map_or(ConditionalCreate::Honoured, ConditionalCreate::Ignored))
}

/// One round: all racers create `path`, then one reads it. How the store broke its word, if it did.
async fn race(store: &dyn Store, path: &str) -> Result<Option<Breach>, StoreError> {
    let answers = join_all((0..RACERS).map(|racer| {
        let body = vec![Bytes::from(format!("racer {racer:02}\n"))];
        async move { (racer, store.create(path, body).await) }
    }))
    .await;

    let mut winners = Vec::new();
    for (racer, answer) in answers {
        match answer? {
            Created::New => winners.push(racer),
            Created::Exists => {}
        }
    }
    let found = store.get(path).await?;
    // No winner at all is what a lost reply to the real one looks like: it says nothing against the store.
    let breach = match winners.as_slice() {
        [] => None,
        [winner] => (found != format!("racer {winner:02}\n")).then_some(Breach::Overwritten),
        several => Some(Breach::Winners(several.len())),
    };
    // A late create must be turned away too: some stores look only at writers that are under way.
    let late = store.create(path, vec![Bytes::from_static(b"late\n")]).await?;
    let kept = store.get(path).await? == found;
    Ok(if late == Created::New || !kept { Some(Breach::Replaced) } else { breach })
}

/// Deletes the probe's objects, each with a second try; the first failure that stays is reported.
async fn clean_up(store: &dyn Store, paths: &[String]) -> Result<(), StoreError> {
    let mut outcome = Ok(());
    for path in paths {
        let mut deleted = store.delete(path).await;
        if deleted.as_ref().is_err_and(|error| !error.is_permanent()) {
            tokio::time::sleep(RETRY_DELETE_AFTER).await;
            deleted = store.delete(path).await;
        }
        if outcome.is_ok() {
            outcome = deleted;
        }
    }
    outcome
}
