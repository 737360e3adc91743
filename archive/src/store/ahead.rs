//! Objects that are asked for before anybody wants them.
//!
//! Opening a repository reads half a dozen small objects, one after another, since each is made sense of before the next is
//! wanted. Their names are known from the start, so here all of them are asked for at once: over a network that is one round
//! trip in place of six. Whoever reads one of them then, by whatever way through the code, finds the answer on its way.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use jiff::SignedDuration;
use tokio::task::JoinHandle;

use super::{Created, ListEntry, Listing, ObjectInfo, ObjectStream, Store, StoreError};

/// A store with some answers on their way. Each of them serves one read, and any further one asks the store again: an answer is
/// as old as the `Ahead` itself.
#[derive(Debug)]
pub struct Ahead {
    store: Arc<dyn Store>,
    asked: Mutex<HashMap<String, Answer>>,
}

type Answer = JoinHandle<Result<Bytes, StoreError>>;

impl Ahead {
    /// Asks for the small objects `paths`; absent ones are asked for in vain and do no harm. Needs a runtime.
    pub fn ask(store: Arc<dyn Store>, paths: impl IntoIterator<Item = String>) -> Self {
        let ask = |path: String| {
            let (store, asked) = (Arc::clone(&store), path.clone());
            (path, tokio::spawn(async move { store.get(&asked).await }))
        };
        let asked = Mutex::new(paths.into_iter().map(ask).collect());
        Self { store, asked }
    }

    /// The answer for `path`, if it was asked for and not taken yet.
    async fn answer(&self, path: &str) -> Option<Result<Bytes, StoreError>> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner).remove(path)?;
        // A task that was cut off has no answer; the store has.
        asked.await.ok()
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        let asked = self.asked.get_mut().unwrap_or_else(PoisonError::into_inner);
        asked.values().for_each(JoinHandle::abort);
    }
}

#[async_trait]
impl Store for Ahead {
    async fn create(&self, path: &str, body: Vec<Bytes>) -> Result<Created, StoreError> {
        self.store.create(path, body).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        match self.answer(path).await {
            Some(answer) => answer,
            None => self.store.get(path).await,
        }
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        match self.answer(path).await {
            Some(answer) => answer.map(|whole| {
                let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(whole.len());
                whole.slice(at(range.start)..at(range.end).max(at(range.start)))
            }),
            None => self.store.get_range(path, range).await,
        }
    }

    async fn confirm(&self, path: &str) -> Result<(), StoreError> {
        self.store.confirm(path).await
    }

    async fn stream(&self, path: &str) -> Result<ObjectStream, StoreError> {
        self.store.stream(path).await
    }

    async fn file(&self, path: &str) -> Result<Option<File>, StoreError> {
        self.store.file(path).await
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        self.store.head(path).await
    }

    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError> {
        self.store.list_from(prefix, after).await
    }

    async fn list_dir(&self, directory: &str) -> Result<Listing, StoreError> {
        self.store.list_dir(directory).await
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        self.store.delete(path).await
    }

    async fn sweep(&self, directory: &str) -> Result<usize, StoreError> {
        self.store.sweep(directory).await
    }

    fn describe(&self) -> String {
        self.store.describe()
    }

    fn credentials(&self) -> Option<String> {
        self.store.credentials()
    }

    fn clock_skew(&self) -> Option<SignedDuration> {
        self.store.clock_skew()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::super::memory::{MemoryStore, Operation};
    use super::*;

    /// What was asked for is answered once by what was found then, absence and ranges too; anything else asks the store.
    #[tokio::test]
    async fn an_answer_serves_one_read() {
        let memory = MemoryStore::new();
        for path in ["a", "b"] {
            let _new = memory.create(path, vec![Bytes::from_static(b"0123456789")]).await.unwrap();
        }
        let paths = ["a", "b", "absent"].map(str::to_owned);
        let ahead = Ahead::ask(Arc::new(memory.clone()), paths);
        assert_eq!(ahead.get("a").await.unwrap(), "0123456789");
        assert_eq!(ahead.get_range("b", 8..100).await.unwrap(), "89");
        assert!(ahead.get("absent").await.unwrap_err().is_not_found());
        assert_eq!((memory.count(Operation::Get), memory.count(Operation::GetRange)), (3, 0));

        memory.tamper("a", "new");
        let _new = memory.create("absent", vec![Bytes::from_static(b"there")]).await.unwrap();
        assert_eq!(ahead.get("a").await.unwrap(), "new");
        assert_eq!(ahead.get("absent").await.unwrap(), "there");
        assert_eq!(ahead.get_range("b", 20..30).await.unwrap(), "");
        assert_eq!((memory.count(Operation::Get), memory.count(Operation::GetRange)), (5, 1));
    }

    /// Nothing of it waits for another: each is answered once all have been asked.
    #[tokio::test]
    async fn all_are_asked_at_once() {
        let memory = MemoryStore::new();
        let all = Arc::new(tokio::sync::Barrier::new(3));
        memory.set_gate(Some(Arc::new(move |_, _| {
            let all = Arc::clone(&all);
            Box::pin(async move {
                all.wait().await;
            })
        })));
        let ahead = Ahead::ask(Arc::new(memory), ["a", "b", "c"].map(str::to_owned));
        let answers = async { (ahead.get("c").await, ahead.get("a").await, ahead.get("b").await) };
        let answers = tokio::time::timeout(std::time::Duration::from_secs(60), answers).await;
        assert!(matches!(answers.unwrap(), (Err(_), Err(_), Err(_))));
    }

    /// A range that begins behind the end is empty, as every store answers.
    #[tokio::test]
    async fn a_range_behind_the_end_is_empty() {
        let memory = MemoryStore::new();
        let _new = memory.create("a", vec![Bytes::from_static(b"01")]).await.unwrap();
        let ahead = Ahead::ask(Arc::new(memory), ["a".to_owned()]);
        assert_eq!(ahead.get_range("a", 5..9).await.unwrap(), "");
    }
}
