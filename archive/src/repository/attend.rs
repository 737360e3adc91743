//! Waiting for as long as the other side is there.
//!
//! How long a large object takes says nothing: a link may be slow, a disk busy. So work that takes long is not given up, to be begun
//! anew and be as slow again: the store is asked something small beside it, and only where that too stays without an answer is
//! the work. Any answer will do, also that something is wrong; the work will then hear of it by itself.

use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};

use super::Repository;

/// How long to wait, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// How long work may take before the repository is asked whether it is there; and again after as long.
    pub work: Duration,
    /// How long it has to answer that.
    pub answer: Duration,
}

impl Patience {
    /// A minute, and a quarter of one.
    pub const USUAL: Self = Self { work: Duration::from_secs(60), answer: Duration::from_secs(15) };
}

/// The repository answered neither the work nor a small question.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no answer within {} s", waited.as_secs())]
pub struct Silent {
    /// How long it has been silent.
    pub waited: Duration,
}

impl Silent {
    /// What to do next.
    pub fn hint(&self) -> String {
        "see whether the storage hangs: a mount that is gone, a service that is overloaded".to_owned()
    }
}

impl Repository {
    /// What `work`, which asks this repository, comes to; it may take any time as long as the repository answers at all.
    ///
    /// # Errors
    /// [`Silent`]; the work was dropped.
    pub async fn attend<T>(&self, patience: Patience, work: impl Future<Output = T>) -> Result<T, Silent> {
        let mut work = pin!(work);
        loop {
            if let Ok(done) = tokio::time::timeout(patience.work, &mut work).await {
                return Ok(done);
            }
            let sign = pin!(tokio::time::timeout(patience.answer, Self::open(self.store().clone())));
            match select(&mut work, sign).await {
                Either::Left((done, _)) => return Ok(done),
                Either::Right((Ok(_), _)) => {}
                Either::Right((Err(_), _)) => return Err(Silent { waited: patience.work + patience.answer }),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt as _;
    use jiff::Timestamp;

    use super::*;
    use crate::repository::{CreateParams, NameMode};
    use crate::store::memory::MemoryStore;

    const SHORT: Patience = Patience { work: Duration::from_millis(50), answer: Duration::from_secs(1) };

    /// What is slow is waited for as long as the repository answers; what hangs is given up, and so is both at once.
    #[tokio::test]
    async fn slow_work_is_waited_for_and_a_silent_repository_is_not() {
        let store = MemoryStore::new();
        let params =
            CreateParams { names: NameMode::Plain, extent_bytes: 1 << 20, now: Timestamp::UNIX_EPOCH };
        let (repository, _) = Repository::create(Arc::new(store.clone()), params).await.unwrap();
        let slow = || async {
            tokio::time::sleep(Duration::from_millis(400)).await;
            7
        };
        assert_eq!(repository.attend(SHORT, slow()).await, Ok(7));
        let hung = std::future::pending::<()>();
        let limit = Duration::from_millis(1600);
        assert!(tokio::time::timeout(limit, repository.attend(SHORT, hung)).await.is_err());

        store.set_gate(Some(Arc::new(|_, _| futures::future::pending().boxed())));
        let silent = repository.attend(SHORT, std::future::pending::<()>()).await.unwrap_err();
        assert_eq!(silent.waited, Duration::from_millis(1050));
        let quick = async { 7 };
        assert_eq!(repository.attend(SHORT, quick).await, Ok(7));
    }
}
