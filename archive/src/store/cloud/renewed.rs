//! Credentials that end, renewed once each and in time.
//!
//! The client asks for a new one when the old has less than five minutes left, at every request: a token that lives shorter than
//! that, or a machine's role in its last minutes, would be asked for again and again, up to ten times a second. Here a credential is
//! kept until a quarter of its life is left (five minutes at most), and asked for no more than once a second; one request asks, and the
//! others go on with the old one while it lasts. It also serves on while whoever hands out the next one does not answer. One that the
//! service refuses is forgotten ([`super::anew`]).

use std::fmt::{self, Debug};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use object_store::CredentialProvider;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::wire::Seen;

/// The longest time before its end that a credential is renewed.
const MARGIN: Duration = Duration::from_secs(300);
/// The least time between two questions.
const LEAST_BETWEEN: Duration = Duration::from_secs(1);

/// A provider before which credentials are kept.
pub(super) struct Renewed<C> {
    provider: Arc<dyn CredentialProvider<Credential = C>>,
    seen: Arc<Seen>,
    kept: RwLock<Option<Kept<C>>>,
    /// Held by the one that asks.
    asking: Mutex<()>,
    /// The present moment, or a test's.
    now: Box<dyn Fn() -> Instant + Send + Sync>,
}

struct Kept<C> {
    credential: Arc<C>,
    asked: Instant,
    renew: Instant,
    ends: Instant,
}

impl<C> Clone for Kept<C> {
    fn clone(&self) -> Self {
        Self { credential: Arc::clone(&self.credential), ..*self }
    }
}

impl<C> Debug for Renewed<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewed").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<C> Renewed<C> {
    pub(super) fn before(
        provider: Arc<dyn CredentialProvider<Credential = C>>,
        seen: Arc<Seen>,
    ) -> Arc<dyn CredentialProvider<Credential = C>>
    where
        C: Debug + Send + Sync + 'static,
    {
        Arc::new(Self::with_time(provider, seen, Instant::now))
    }

    fn with_time(
        provider: Arc<dyn CredentialProvider<Credential = C>>,
        seen: Arc<Seen>,
        now: impl Fn() -> Instant + Send + Sync + 'static,
    ) -> Self {
        Self { provider, seen, kept: RwLock::new(None), asking: Mutex::new(()), now: Box::new(now) }
    }

    fn kept(&self) -> Option<Kept<C>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).clone();
        kept.filter(|kept| !self.seen.refused_since(kept.asked))
    }

    /// What is kept, where nobody need ask for another yet.
    fn fresh(&self) -> Option<Arc<C>> {
        self.kept().filter(|kept| kept.is_fresh((self.now)())).map(|kept| kept.credential)
    }

    /// What is kept, while it has not ended.
    fn good(&self) -> Option<Kept<C>> {
        self.kept().filter(|kept| (self.now)() < kept.ends)
    }

    fn keep(&self, kept: Option<Kept<C>>) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

impl<C> Kept<C> {
    fn is_fresh(&self, now: Instant) -> bool {
        now < self.renew || now < self.ends && now < self.asked + LEAST_BETWEEN
    }
}

#[async_trait]
impl<C: Debug + Send + Sync + 'static> CredentialProvider for Renewed<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        let _asking = match self.good() {
            // Somebody asks already, and the old one is good as long.
            Some(kept) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(kept.credential),
            },
            None => self.asking.lock().await,
        };
        if let Some(credential) = self.fresh() {
            return Ok(credential);
        }
        let asked = (self.now)();
        match self.provider.get_credential().await {
            Ok(credential) => {
                let same = self.kept().filter(|kept| Arc::ptr_eq(&kept.credential, &credential));
                let new = self.seen.take_credential_end().map(|ends| {
                    let life = ends.saturating_duration_since(asked);
                    let renew = ends.checked_sub(MARGIN.min(life / 4)).unwrap_or(asked);
                    Kept { credential: Arc::clone(&credential), asked, renew, ends }
                });
                // Without an end it is the provider's matter how long it is good: its next answer may be another.
                self.keep(new.or(same.map(|kept| Kept { asked, ..kept })));
                Ok(credential)
            }
            Err(error) => match self.good() {
                Some(kept) => {
                    tracing::warn!(%error, "no new credentials came; going on with those that are there");
                    let credential = Arc::clone(&kept.credential);
                    self.keep(Some(Kept { asked, ..kept }));
                    Ok(credential)
                }
                None => Err(error),
            },
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures::FutureExt as _;
    use futures::future::join_all;
    use tokio::sync::Semaphore;

    use super::*;

    /// Time that stands still until a test moves it.
    #[derive(Debug, Clone)]
    struct Hand(Arc<RwLock<Instant>>);

    impl Hand {
        fn now(&self) -> Instant {
            *self.0.read().unwrap()
        }

        fn advance(&self, time: Duration) {
            *self.0.write().unwrap() += time;
        }
    }

    /// Hands out numbers, each good for so long; or does not answer.
    #[derive(Debug)]
    struct Office {
        seen: Arc<Seen>,
        hand: Hand,
        life: Duration,
        asked: AtomicUsize,
        fails: AtomicBool,
        /// A question is answered with a permit only.
        open: Semaphore,
    }

    #[async_trait]
    impl CredentialProvider for Office {
        type Credential = usize;

        async fn get_credential(&self) -> object_store::Result<Arc<usize>> {
            let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
            let _permit = self.open.acquire().await.unwrap();
            if self.fails.load(Ordering::SeqCst) {
                return Err(object_store::Error::NotImplemented {
                    operation: "an office that is closed".into(),
                    implementer: "a test".into(),
                });
            }
            self.seen.credential_ends(self.hand.now() + self.life);
            Ok(Arc::new(number))
        }
    }

    fn office(life: Duration) -> (Arc<Office>, Renewed<usize>, Hand) {
        let (seen, hand) = (Arc::new(Seen::default()), Hand(Arc::new(RwLock::new(Instant::now()))));
        let office = Arc::new(Office {
            seen: Arc::clone(&seen),
            hand: hand.clone(),
            life,
            asked: AtomicUsize::new(0),
            fails: AtomicBool::new(false),
            open: Semaphore::new(1),
        });
        let time = hand.clone();
        let renewed = Renewed::with_time(Arc::clone(&office) as _, seen, move || time.now());
        (office, renewed, hand)
    }

    fn asked(office: &Office) -> usize {
        office.asked.load(Ordering::SeqCst)
    }

    /// From a quarter before its end on, once a second and no more often; until then, and as long as it lasts, the old one serves.
    #[tokio::test]
    async fn the_old_one_serves_on_while_no_other_comes() {
        let (office, renewed, hand) = office(Duration::from_secs(100));
        for _ in 0..75 {
            assert_eq!(*renewed.get_credential().await.unwrap(), 1);
            hand.advance(Duration::from_secs(1));
        }
        assert_eq!(asked(&office), 1);
        office.fails.store(true, Ordering::SeqCst);
        for tenth in 0..250 {
            assert_eq!(*renewed.get_credential().await.unwrap(), 1);
            assert_eq!(asked(&office), 2 + tenth / 10, "after {tenth} tenths of a second");
            hand.advance(Duration::from_millis(100));
        }
        renewed.get_credential().await.unwrap_err();
        office.fails.store(false, Ordering::SeqCst);
        assert_eq!(*renewed.get_credential().await.unwrap(), 28);
        hand.advance(Duration::from_secs(74));
        assert_eq!(*renewed.get_credential().await.unwrap(), 28);
        assert_eq!(asked(&office), 28);
    }

    /// A long life is renewed five minutes before its end.
    #[tokio::test]
    async fn a_long_life_is_renewed_five_minutes_before_its_end() {
        let (office, renewed, hand) = office(Duration::from_secs(3600));
        assert_eq!(*renewed.get_credential().await.unwrap(), 1);
        hand.advance(Duration::from_secs(3299));
        assert_eq!(*renewed.get_credential().await.unwrap(), 1);
        hand.advance(Duration::from_secs(1));
        assert_eq!(*renewed.get_credential().await.unwrap(), 2);
        assert_eq!(asked(&office), 2);
    }

    /// One asks for all; those who have none yet wait for it, and those who have one go on.
    #[tokio::test]
    async fn one_asks_and_the_others_go_on() {
        let (office, renewed, hand) = office(Duration::from_secs(100));
        let first = join_all((0..16).map(|_| renewed.get_credential())).await;
        assert!(first.into_iter().all(|credential| *credential.unwrap() == 1));
        assert_eq!(asked(&office), 1);
        hand.advance(Duration::from_secs(80));
        let closed = office.open.acquire().await.unwrap();
        let mut asking = renewed.get_credential();
        assert!((&mut asking).now_or_never().is_none());
        for _ in 0..16 {
            assert_eq!(*renewed.get_credential().now_or_never().unwrap().unwrap(), 1);
        }
        drop(closed);
        assert_eq!(*asking.await.unwrap(), 2);
        assert_eq!(*renewed.get_credential().await.unwrap(), 2);
        assert_eq!(asked(&office), 2);
    }
}
