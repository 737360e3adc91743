//! A store in memory, for tests, with the faults that real stores have.
//!
//! The faults it can be told to have:
//! - it ignores the condition of a create, as Garage and other S3 servers do: the later of two puts wins, and both are told
//!   that they were first (I4);
//! - it fails an operation, once or from now on, before or after it took effect (a reply that is lost);
//! - an object changes, shrinks, vanishes, or is swapped for another, behind the writer's back.
//!
//! Every operation gives way to other tasks before it takes effect and after it, and can be made to wait at a gate, so
//! that races can be arranged. It counts operations, so that a test can say what something costs.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream;
use jiff::{SignedDuration, Timestamp};

use super::{
    Created, ListEntry, Listing, MAX_WHOLE_OBJECT_BYTES, ObjectInfo, ObjectStream, STREAM_CHUNK_BYTES, Store,
    StoreError, path,
};

/// An operation of a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// [`Store::create`].
    Create,
    /// [`Store::confirm`].
    Confirm,
    /// [`Store::get`] and [`Store::stream`].
    Get,
    /// [`Store::get_range`].
    GetRange,
    /// [`Store::head`].
    Head,
    /// [`Store::list_from`] and [`Store::list_dir`].
    List,
    /// [`Store::delete`].
    Delete,
}

/// What happens to operations that match.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails and has no effect.
    FailBefore,
    /// It takes effect and the answer is lost.
    FailAfter,
}

/// Waits at a point of a test's choosing; called before each operation.
pub type Gate = Arc<dyn Fn(Operation, &str) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The store. Clones share their objects.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, (Bytes, Timestamp)>,
    counts: BTreeMap<Operation, u64>,
    ignore_conditions: bool,
    faults: Vec<(Operation, String, Fault, bool)>,
    gate: Option<Gate>,
    writes: i64,
}

impl MemoryStore {
    /// An empty store without faults.
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on creates overwrite what is there and say that they were first.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.state().ignore_conditions = ignore;
    }

    /// The next operation of this kind on a path that contains `part` has this fault; all of them with `always`.
    pub fn inject(&self, operation: Operation, part: &str, fault: Fault, always: bool) {
        self.state().faults.push((operation, part.to_owned(), fault, always));
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Calls `gate` before each operation; `None` for no longer.
    pub fn set_gate(&self, gate: Option<Gate>) {
        self.state().gate = gate;
    }

    /// How many operations of this kind there were.
    pub fn count(&self, operation: Operation) -> u64 {
        self.state().counts.get(&operation).copied().unwrap_or(0)
    }

    /// The paths of all objects.
    pub fn paths(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }

    /// The bytes of an object, behind everybody's back.
    pub fn peek(&self, path: &str) -> Option<Bytes> {
        self.state().objects.get(path).map(|object| object.0.clone())
    }

    /// Puts bytes in place of an object's, behind everybody's back.
    pub fn tamper(&self, path: &str, bytes: impl Into<Bytes>) {
        let mut state = self.state();
        let modified = state.tick();
        state.objects.insert(path.to_owned(), (bytes.into(), modified));
    }

    /// Removes an object, behind everybody's back.
    pub fn lose(&self, path: &str) {
        self.state().objects.remove(path);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks the path, counts, waits, and says what is to happen.
    async fn enter(
        &self,
        operation: Operation,
        name: &'static str,
        path: &str,
    ) -> Result<Option<StoreError>, StoreError> {
        let gate = {
            let mut state = self.state();
            *state.counts.entry(operation).or_default() += 1;
            state.gate.clone()
        };
        if let Some(gate) = gate {
            gate(operation, path).await;
        }
        tokio::task::yield_now().await;
        let mut state = self.state();
        let matching =
            state.faults.iter().position(|(kind, part, ..)| *kind == operation && path.contains(part));
        let Some(at) = matching else { return Ok(None) };
        let fault = match state.faults.get(at) {
            Some((.., fault, true)) => *fault,
            _ => state.faults.remove(at).2,
        };
        let error = StoreError::Unavailable {
            operation: name,
            path: path.to_owned(),
            store: self.describe(),
            reason: "a fault that the test asked for".into(),
        };
        match fault {
            Fault::FailBefore => Err(error),
            Fault::FailAfter => Ok(Some(error)),
        }
    }

    async fn leave<T>(&self, answer: T, lost: Option<StoreError>) -> Result<T, StoreError> {
        tokio::task::yield_now().await;
        match lost {
            Some(error) => Err(error),
            None => Ok(answer),
        }
    }

    fn find(&self, path: &str) -> Result<Bytes, StoreError> {
        let missing = || StoreError::NotFound { path: path.to_owned(), store: self.describe() };
        self.state().objects.get(path).map(|object| object.0.clone()).ok_or_else(missing)
    }
}

impl State {
    /// Each write is a second later than the one before.
    fn tick(&mut self) -> Timestamp {
        self.writes += 1;
        Timestamp::UNIX_EPOCH.saturating_add(SignedDuration::from_secs(self.writes)).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryStore({} objects)", self.state().objects.len())
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn create(&self, path: &str, body: Vec<Bytes>) -> Result<Created, StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::Create, "create", path).await?;
        let created = {
            let mut state = self.state();
            if state.objects.contains_key(path) && !state.ignore_conditions {
                Created::Exists
            } else {
                let modified = state.tick();
                state.objects.insert(path.to_owned(), (body.concat().into(), modified));
                Created::New
            }
        };
        self.leave(created, lost).await
    }

    async fn confirm(&self, path: &str) -> Result<(), StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::Confirm, "confirm", path).await?;
        let found = self.find(path).map(drop)?;
        self.leave(found, lost).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::Get, "get", path).await?;
        let bytes = self.find(path)?;
        if bytes.len() as u64 > MAX_WHOLE_OBJECT_BYTES {
            return Err(StoreError::TooLarge {
                path: path.to_owned(),
                store: self.describe(),
                size: bytes.len() as u64,
                limit: MAX_WHOLE_OBJECT_BYTES,
            });
        }
        self.leave(bytes, lost).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::GetRange, "get", path).await?;
        let bytes = self.find(path)?;
        let clamp = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(bytes.len());
        let (begin, end) = (clamp(range.start), clamp(range.end));
        self.leave(bytes.slice(begin.min(end)..end), lost).await
    }

    async fn stream(&self, path: &str) -> Result<ObjectStream, StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::Get, "get", path).await?;
        let mut bytes = self.find(path)?;
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            chunks.push(Ok(bytes.split_to(bytes.len().min(STREAM_CHUNK_BYTES))));
        }
        self.leave(stream::iter(chunks).boxed(), lost).await
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::Head, "head", path).await?;
        let info = self
            .state()
            .objects
            .get(path)
            .map(|(bytes, modified)| ObjectInfo { size: bytes.len() as u64, modified: *modified });
        self.leave(info, lost).await
    }

    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError> {
        path::check_prefix(prefix)?;
        let lost = self.enter(Operation::List, "list", prefix).await?;
        let entries = self
            .state()
            .objects
            .iter()
            .filter(|(path, _)| path.starts_with(prefix) && after.is_none_or(|after| path.as_str() > after))
            .map(|(path, (bytes, modified))| ListEntry {
                path: path.clone(),
                size: bytes.len() as u64,
                modified: *modified,
            })
            .collect();
        self.leave(entries, lost).await
    }

    async fn list_dir(&self, directory: &str) -> Result<Listing, StoreError> {
        path::check_prefix(directory)?;
        let lost = self.enter(Operation::List, "list", directory).await?;
        let stem = directory.trim_end_matches('/');
        let prefix = if stem.is_empty() { String::new() } else { format!("{stem}/") };
        let mut listing = Listing::default();
        for (path, (bytes, modified)) in &self.state().objects {
            let Some(rest) = path.strip_prefix(&prefix) else { continue };
            match rest.split_once('/') {
                None => listing.objects.push(ListEntry {
                    path: path.clone(),
                    size: bytes.len() as u64,
                    modified: *modified,
                }),
                Some((name, _)) => listing.directories.push(format!("{prefix}{name}")),
            }
        }
        listing.directories.dedup();
        self.leave(listing, lost).await
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        path::check(path)?;
        let lost = self.enter(Operation::Delete, "delete", path).await?;
        self.state().objects.remove(path);
        self.leave((), lost).await
    }

    fn describe(&self) -> String {
        "memory:".into()
    }
}
