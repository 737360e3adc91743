//! Fetching from stores that fail, lie and come back.

use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use futures::FutureExt as _;
use highwater_archive::store::memory::{Fault, MemoryStore, Operation};
use highwater_archive::testing;
use jiff::Timestamp;

use super::*;

const HISTORY: &[u8] = b"1\t0/5000028\tno recovery target specified\n";

/// A clock whose sleepers move it.
#[derive(Debug)]
struct Hurried(Mutex<Timestamp>);

#[async_trait]
impl Clock for Hurried {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }

    async fn sleep(&self, duration: Duration) {
        let mut now = self.0.lock().unwrap();
        *now = now.checked_add(duration).unwrap();
    }
}

/// A store with a repository, a cluster, a lineage and one history file in it.
async fn lineage(store: &MemoryStore) -> Arc<Lineage> {
    let lineage = testing::lineage(store.clone()).await;
    let stored = wal::put_small(&lineage, "00000002.history".parse().unwrap(), HISTORY).await.unwrap();
    assert_eq!(stored, wal::Stored::New);
    Arc::new(lineage)
}

fn source(name: &str, lineage: &Arc<Lineage>) -> Source {
    let lineage = lineage.clone();
    Source::new(name, Box::new(move || futures::future::ready(Ok(lineage.clone())).boxed()))
}

struct Asked {
    outcome: Result<Outcome, FetchError>,
    waited: i64,
    content: Option<Vec<u8>>,
}

async fn ask_for(file: &str, standby: bool, sources: &mut [Source]) -> Asked {
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("RECOVERYHISTORY");
    let clock = Hurried(Mutex::new(Timestamp::UNIX_EPOCH));
    let request = Request {
        file: file.parse().unwrap(),
        destination: &destination,
        plan: None,
        data_dir: directory.path(),
        standby,
        deadline: Duration::from_secs(120),
    };
    let outcome = fetch(&request, sources, &clock).await;
    Asked { outcome, waited: clock.now().as_second(), content: std::fs::read(&destination).ok() }
}

#[tokio::test]
async fn what_is_there_is_delivered_and_what_is_not_is_absent() {
    let store = MemoryStore::new();
    let lineage = lineage(&store).await;
    let found = ask_for("00000002.history", false, &mut [source("a", &lineage)]).await;
    assert_eq!(found.outcome.unwrap(), Outcome::Delivered);
    assert_eq!(found.content.as_deref(), Some(HISTORY));
    let absent = ask_for("00000003.history", false, &mut [source("a", &lineage)]).await;
    assert!(matches!(absent.outcome.unwrap(), Outcome::Absent(_)));
    assert_eq!((absent.waited, absent.content), (0, None));
}

/// A store that fails is asked again for the whole deadline, and then it is not known; it never reads as absence.
#[tokio::test]
async fn an_outage_is_waited_out_and_then_is_an_error() {
    let store = MemoryStore::new();
    let lineage = lineage(&store).await;
    store.inject(Operation::Get, "", Fault::FailBefore, true);
    let asked = ask_for("00000003.history", false, &mut [source("a", &lineage)]).await;
    assert!(matches!(asked.outcome, Err(FetchError::Unproven { .. })));
    assert!((90..=120).contains(&asked.waited), "{}", asked.waited);
    let standby = ask_for("00000003.history", true, &mut [source("a", &lineage)]).await;
    assert!(matches!(standby.outcome.unwrap(), Outcome::Absent(_)));
    assert_eq!(standby.waited, 0);
    store.heal();
    store.inject(Operation::Get, "", Fault::FailBefore, false);
    let passing = ask_for("00000002.history", false, &mut [source("a", &lineage)]).await;
    assert_eq!(passing.outcome.unwrap(), Outcome::Delivered);
}

/// The repository that answers does not speak for the one that fails.
#[tokio::test]
async fn one_repository_does_not_speak_for_another() {
    let (here, away) = (MemoryStore::new(), MemoryStore::new());
    let (first, second) = (lineage(&here).await, lineage(&away).await);
    away.inject(Operation::Get, "", Fault::FailBefore, true);
    let asked = ask_for("00000003.history", false, &mut [source("a", &first), source("b", &second)]).await;
    assert!(matches!(asked.outcome, Err(FetchError::Unproven { .. })));
    let found = ask_for("00000002.history", false, &mut [source("b", &second), source("a", &first)]).await;
    assert_eq!(found.outcome.unwrap(), Outcome::Delivered);
}

/// A repository that has gone, an unmounted directory for one, proves nothing; nor does another one in its place.
#[tokio::test]
async fn a_repository_that_is_gone_proves_nothing() {
    let store = MemoryStore::new();
    let opened = lineage(&store).await;
    for path in store.paths() {
        store.lose(&path);
    }
    let gone = ask_for("00000002.history", false, &mut [source("a", &opened)]).await;
    assert!(matches!(gone.outcome, Err(FetchError::Unproven { .. })));
    let _other = lineage(&store).await;
    let another = ask_for("00000009.history", false, &mut [source("a", &opened)]).await;
    assert!(matches!(another.outcome, Err(FetchError::Unproven { .. })));
    assert_eq!(another.waited, 0);
}

/// Damage is no absence and no outage: it is said at once, unless another repository has the file whole.
#[tokio::test]
async fn damage_is_said_at_once() {
    let (store, whole) = (MemoryStore::new(), MemoryStore::new());
    let (first, second) = (lineage(&store).await, lineage(&whole).await);
    let path = store.paths().into_iter().find(|path| path.ends_with("00000002.history")).unwrap();
    let mut bytes = store.peek(&path).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    store.tamper(&path, bytes);
    let damaged = ask_for("00000002.history", false, &mut [source("a", &first)]).await;
    assert!(matches!(damaged.outcome, Err(FetchError::Unproven { .. })));
    assert_eq!(damaged.waited, 0);
    let found = ask_for("00000002.history", false, &mut [source("a", &first), source("b", &second)]).await;
    assert_eq!(found.outcome.unwrap(), Outcome::Delivered);
}

/// A repository that cannot be opened is opened anew each round.
#[tokio::test]
async fn opening_is_tried_again() {
    let store = MemoryStore::new();
    let lineage = lineage(&store).await;
    let attempts = Arc::new(AtomicUsize::new(0));
    let counted = attempts.clone();
    let opener: Opener = Box::new(move || {
        let attempt = counted.fetch_add(1, Ordering::Relaxed);
        let answer = if attempt < 3 {
            let (repository, message) = ("a".to_owned(), "connection refused".to_owned());
            Err(SourceError { repository, message, hint: None, permanent: false })
        } else {
            Ok(lineage.clone())
        };
        futures::future::ready(answer).boxed()
    });
    let asked = ask_for("00000002.history", false, &mut [Source::new("a", opener)]).await;
    assert_eq!(asked.outcome.unwrap(), Outcome::Delivered);
    assert_eq!(attempts.load(Ordering::Relaxed), 4);
}

/// Lets every operation of a store wait for ever.
fn hang(store: &MemoryStore) {
    store.set_gate(Some(Arc::new(|_, _| futures::future::pending().boxed())));
}

/// A repository that hangs is given a bounded time, and stops nobody meanwhile: the next one is asked beside it.
#[tokio::test]
async fn one_that_hangs_does_not_keep_another_from_answering() {
    let (hung, whole) = (MemoryStore::new(), MemoryStore::new());
    let (first, second) = (lineage(&hung).await, lineage(&whole).await);
    hang(&hung);
    let begun = std::time::Instant::now();
    let found = ask_for("00000002.history", false, &mut [source("a", &first), source("b", &second)]).await;
    assert_eq!(found.outcome.unwrap(), Outcome::Delivered);
    assert_eq!(found.content.as_deref(), Some(HISTORY));
    assert!((SLOW..SLOW * 3).contains(&begun.elapsed()), "{:?}", begun.elapsed());
}

/// I14: one that hangs has not said that the file is absent, whatever the others say; and the question ends.
#[tokio::test]
async fn one_that_hangs_proves_nothing_and_ends() {
    let (hung, whole) = (MemoryStore::new(), MemoryStore::new());
    let (first, second) = (lineage(&hung).await, lineage(&whole).await);
    hang(&hung);
    let directory = tempfile::tempdir().unwrap();
    let destination = directory.path().join("RECOVERYHISTORY");
    let clock = Hurried(Mutex::new(Timestamp::UNIX_EPOCH));
    let mut request = Request {
        file: "00000003.history".parse().unwrap(),
        destination: &destination,
        data_dir: directory.path(),
        plan: None,
        standby: false,
        deadline: Duration::from_secs(1),
    };
    let mut sources = [source("a", &second), source("b", &first)];
    let begun = std::time::Instant::now();
    let answer = fetch(&request, &mut sources, &clock).await.unwrap_err();
    let said = answer.to_string();
    assert!(said.contains("repository b: no answer within 1 s") && answer.hint().is_some(), "{said}");
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    // A standby asks again by itself.
    request.standby = true;
    assert!(matches!(fetch(&request, &mut sources, &clock).await, Ok(Outcome::Absent(_))));
}

/// A slow repository gets all the time there is: what it has sent is not thrown away while it answers. One that does not is given up.
#[tokio::test]
async fn a_slow_one_is_waited_for_and_one_that_hangs_is_opened_anew() {
    const SHORT: Patience = Patience { work: Duration::from_millis(50), answer: Duration::from_secs(1) };
    let store = MemoryStore::new();
    let lineage = lineage(&store).await;
    store.set_gate(Some(Arc::new(|_, path| {
        let slow = path.ends_with(".history");
        async move {
            if slow {
                tokio::time::sleep(Duration::from_millis(1500)).await;
            }
        }
        .boxed()
    })));
    let short = |name, lineage| Source { patience: SHORT, ..source(name, lineage) };
    let found = ask_for("00000002.history", true, &mut [short("a", &lineage)]).await;
    assert_eq!(found.outcome.unwrap(), Outcome::Delivered);
    assert_eq!(found.content.as_deref(), Some(HISTORY));
    hang(&store);
    let begun = std::time::Instant::now();
    let hung = ask_for("00000002.history", true, &mut [short("a", &lineage)]).await;
    assert!(matches!(hung.outcome.unwrap(), Outcome::Absent(why) if why.contains("no answer")));
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
    let opener: Opener = Box::new(|| futures::future::pending().boxed());
    let never = Source { patience: SHORT, ..Source::new("a", opener) };
    let never = ask_for("00000002.history", true, &mut [never]).await;
    assert!(matches!(never.outcome.unwrap(), Outcome::Absent(_)));
}

/// No question outlives the deadline by much, and a person can give a slow repository more.
#[test]
fn a_round_is_bounded_by_the_deadline_alone() {
    let request = |deadline| Request {
        file: "00000003.history".parse().unwrap(),
        destination: Path::new("x"),
        data_dir: Path::new("."),
        plan: None,
        standby: false,
        deadline: Duration::from_secs(deadline),
    };
    let seconds = Duration::from_secs;
    assert_eq!(request(300).left(seconds(0)), seconds(300));
    assert_eq!(request(300).left(seconds(299)), seconds(1));
    assert_eq!(request(300).left(seconds(301)), SHORTEST_QUESTION);
    assert_eq!(request(9000).left(seconds(0)), seconds(9000));
}

mod crossing;
