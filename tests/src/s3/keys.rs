//! What lets a client in: an access key for good, any number that a policy limits, and what is handed out for a time.
//!
//! What is handed out is a key, its secret and its session token; for Google and Azure the token alone, shown by its bearer. No two are
//! alike, and each is good as long as its [`Life`] says by this side's clock, whatever the client believes, or until a test ends all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::policy::Policy;
use super::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// How long something that is handed out is good.
#[derive(Debug, Clone, Copy)]
pub enum Life {
    /// For so long, and the client is told so.
    For(Duration),
    /// While no more than so many were handed out since, itself counted. The client is told that it has no time left: whoever keeps it for the
    /// next request is found out without waiting.
    AmongTheLast(usize),
}

impl Life {
    /// What the client is told.
    pub fn told(self) -> Duration {
        match self {
            Self::For(time) => time,
            Self::AmongTheLast(_) => Duration::ZERO,
        }
    }
}

impl From<Duration> for Life {
    fn from(time: Duration) -> Self {
        Self::For(time)
    }
}

/// Access keys.
#[derive(Debug, Default)]
pub struct Keys {
    handed_out: Mutex<Vec<HandedOut>>,
    limited: Mutex<BTreeMap<String, Policy>>,
    /// Tokens that a client signed itself, and whether they were ended.
    signed: Mutex<BTreeMap<String, bool>>,
    refused: AtomicUsize,
}

#[derive(Debug)]
struct HandedOut {
    ends: Option<Instant>,
    ended: bool,
    used: bool,
}

/// What is handed out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Temporary {
    /// The key's name.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// The session token, or the bearer's.
    pub token: String,
}

/// What there is to say of something that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Good,
    Ended,
    Unknown,
}

impl Keys {
    /// A new key.
    pub fn issue(&self, life: impl Into<Life>) -> Temporary {
        let mut handed_out = locked(&self.handed_out);
        let ends = match life.into() {
            Life::For(time) => Some(Instant::now() + time),
            Life::AmongTheLast(most) => {
                let before = (handed_out.len() + 1).saturating_sub(most);
                handed_out.iter_mut().take(before).for_each(|earlier| earlier.ended = true);
                None
            }
        };
        let issued = temporary(handed_out.len());
        handed_out.push(HandedOut { ends, ended: false, used: false });
        issued
    }

    /// Ends everything that was handed out or signed so far, whatever time was told.
    pub fn end_all(&self) {
        locked(&self.handed_out).iter_mut().for_each(|key| key.ended = true);
        locked(&self.signed).values_mut().for_each(|ended| *ended = true);
    }

    /// A key that a policy limits, and its secret.
    pub fn limit(&self, id: &str, policy: Policy) -> String {
        locked(&self.limited).insert(id.to_owned(), policy);
        secret_of(id)
    }

    /// The policy of a key that has one.
    pub(super) fn policy(&self, id: &str) -> Option<Policy> {
        locked(&self.limited).get(id).cloned()
    }

    /// How many were handed out, and how many of those were used.
    pub fn issued_and_used(&self) -> (usize, usize) {
        let handed_out = locked(&self.handed_out);
        (handed_out.len(), handed_out.iter().filter(|key| key.used).count())
    }

    /// How many requests came with something that is not good, or not good any more.
    pub fn refused(&self) -> usize {
        self.refused.load(Ordering::SeqCst)
    }

    /// Counts such a request.
    pub(super) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::SeqCst);
    }

    /// The token that must come with this key; none where it is one for good.
    pub(super) fn token_of(&self, id: &str) -> Option<String> {
        let number = self.number(|known| known.id == id)?;
        Some(temporary(number).token)
    }

    /// Whether a bearer's token is good.
    pub(crate) fn takes_bearer(&self, token: &str) -> bool {
        self.show(|known| known.token == token) == Standing::Good
    }

    /// Whether a token that the client signed itself is good still.
    pub(crate) fn takes_signed(&self, token: &str) -> bool {
        let ended = *locked(&self.signed).entry(token.to_owned()).or_default();
        if ended {
            self.refuse();
        }
        !ended
    }

    fn number(&self, is_it: impl Fn(&Temporary) -> bool) -> Option<usize> {
        (0..locked(&self.handed_out).len()).find(|number| is_it(&temporary(*number)))
    }

    /// What there is to say of something that is shown.
    fn show(&self, is_it: impl Fn(&Temporary) -> bool) -> Standing {
        let number = self.number(is_it);
        let mut handed_out = locked(&self.handed_out);
        let standing = match number.and_then(|number| handed_out.get_mut(number)) {
            None => Standing::Unknown,
            Some(key) if key.ended || key.ends.is_some_and(|ends| ends <= Instant::now()) => Standing::Ended,
            Some(key) => {
                key.used = true;
                Standing::Good
            }
        };
        if standing != Standing::Good {
            self.refuse();
        }
        standing
    }
}

fn temporary(number: usize) -> Temporary {
    let id = format!("TEMPORARY{number}");
    Temporary { secret: secret_of(&id), token: format!("token-{number}-for-a-time"), id }
}

fn secret_of(id: &str) -> String {
    format!("secret of {id}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The keys as the protocol's half asks for them.
pub(super) struct Shared(pub(super) Arc<Keys>);

#[async_trait::async_trait]
impl S3Auth for Shared {
    async fn get_secret_key(&self, id: &str) -> S3Result<SecretKey> {
        if id == ACCESS_KEY_ID {
            return Ok(SecretKey::from(SECRET_ACCESS_KEY));
        }
        if self.0.policy(id).is_some() {
            return Ok(SecretKey::from(secret_of(id)));
        }
        match self.0.show(|known| known.id == id) {
            Standing::Good => Ok(SecretKey::from(secret_of(id))),
            Standing::Ended => Err(s3_error!(ExpiredToken, "the key has ended")),
            Standing::Unknown => Err(s3_error!(InvalidAccessKeyId, "there is no such key")),
        }
    }
}
