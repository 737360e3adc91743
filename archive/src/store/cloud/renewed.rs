//! Credentials that end, renewed once each and in time.
//!
//! The client asks for a new one when the old has less than five minutes left, at every request: a token that lives shorter than
//! that, or a machine's role in its last minutes, would be asked for again and again, up to ten times a second. Here a credential is
//! kept until a quarter of its life is left (five minutes at most), and asked for no more than once a second; one request asks, and the
//! others go on with the old one while it lasts. It also serves on while whoever hands out the next one does not answer.

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
        Arc::new(Self { provider, seen, kept: RwLock::new(None), asking: Mutex::new(()) })
    }

    fn kept(&self) -> Option<Kept<C>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, kept: Option<Kept<C>>) {
        *self.kept.write().unwrap_or_else(PoisonError::into_inner) = kept;
    }
}

impl<C> Kept<C> {
    fn is_good(&self) -> bool {
        Instant::now() < self.ends
    }

    fn is_fresh(&self) -> bool {
        let now = Instant::now();
        now < self.renew || now < self.ends && now < self.asked + LEAST_BETWEEN
    }
}

#[async_trait]
impl<C: Debug + Send + Sync + 'static> CredentialProvider for Renewed<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let kept = self.kept();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_fresh()) {
            return Ok(Arc::clone(&kept.credential));
        }
        let _asking = match kept.filter(Kept::is_good) {
            // Somebody asks already, and the old one is good as long.
            Some(kept) => match self.asking.try_lock() {
                Ok(asking) => asking,
                Err(_) => return Ok(kept.credential),
            },
            None => self.asking.lock().await,
        };
        let kept = self.kept();
        if let Some(kept) = kept.as_ref().filter(|kept| kept.is_fresh()) {
            return Ok(Arc::clone(&kept.credential));
        }
        let asked = Instant::now();
        match self.provider.get_credential().await {
            Ok(credential) => {
                let same = kept.filter(|kept| Arc::ptr_eq(&kept.credential, &credential));
                let new = self.seen.take_credential_end().map(|ends| {
                    let life = ends.saturating_duration_since(asked);
                    let renew = ends.checked_sub(MARGIN.min(life / 4)).unwrap_or(asked);
                    Kept { credential: Arc::clone(&credential), asked, renew, ends }
                });
                // Without an end it is the provider's matter how long it is good: its next answer may be another.
                self.keep(new.or(same.map(|kept| Kept { asked, ..kept })));
                Ok(credential)
            }
            Err(error) => match kept.filter(Kept::is_good) {
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
