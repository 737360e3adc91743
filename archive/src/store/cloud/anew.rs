//! Whoever asks for credentials, begun anew where the service takes what it gave no longer.
//!
//! The client's own providers keep what they were given until its time is nearly over, by a clock that stands still while a machine
//! sleeps. A service may end a credential early, too. Either way the same one would be shown again and again, for up to an hour. So a
//! request that was refused for it is noted ([`Seen::refuse`]); what was asked for before that request began is forgotten, and a provider
//! without a memory is asked. What came later stays: many requests that are refused together are one reason to ask.

use std::fmt::{self, Debug};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use object_store::CredentialProvider;
use tokio::time::Instant;

use super::wire::Seen;

type Provider<C> = Arc<dyn CredentialProvider<Credential = C>>;

/// A provider that can be begun anew.
pub(super) struct Anew<C, F> {
    make: F,
    seen: Arc<Seen>,
    current: RwLock<(Instant, Provider<C>)>,
}

impl<C, F> Debug for Anew<C, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Anew").field("seen", &self.seen).finish_non_exhaustive()
    }
}

impl<C, F> Anew<C, F>
where
    C: Debug + Send + Sync + 'static,
    F: Fn() -> object_store::Result<Provider<C>> + Send + Sync + 'static,
{
    /// What `make` makes, which must remember nothing.
    ///
    /// # Errors
    /// As `make`.
    pub(super) fn of(make: F, seen: &Arc<Seen>) -> object_store::Result<Provider<C>> {
        let current = RwLock::new((Instant::now(), make()?));
        seen.can_renew();
        Ok(Arc::new(Self { make, seen: Arc::clone(seen), current }))
    }

    fn current(&self) -> object_store::Result<Provider<C>> {
        let refused = |made| self.seen.refused_since(made);
        let (made, provider) = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if !refused(made) {
            return Ok(provider);
        }
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        if refused(current.0) {
            *current = (Instant::now(), (self.make)()?);
        }
        Ok(Arc::clone(&current.1))
    }
}

#[async_trait]
impl<C, F> CredentialProvider for Anew<C, F>
where
    C: Debug + Send + Sync + 'static,
    F: Fn() -> object_store::Result<Provider<C>> + Send + Sync + 'static,
{
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        self.current()?.get_credential().await
    }
}
