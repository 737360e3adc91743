//! The access keys that the service knows: one for good, any number that end, and any number that a policy limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use s3s::auth::{S3Auth, SecretKey};
use s3s::{S3Result, s3_error};

use super::policy::Policy;
use super::{ACCESS_KEY_ID, SECRET_ACCESS_KEY};

/// Access keys.
#[derive(Debug, Default)]
pub struct Keys {
    temporary: Mutex<BTreeMap<String, Temporary>>,
    limited: Mutex<BTreeMap<String, Policy>>,
}

#[derive(Debug)]
struct Temporary {
    ends: Instant,
    used: bool,
}

impl Keys {
    /// A new key that ends after `lifetime`, and its secret.
    pub fn issue(&self, lifetime: Duration) -> (String, String) {
        let mut keys = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        let id = format!("TEMPORARY{}", keys.len());
        keys.insert(id.clone(), Temporary { ends: Instant::now() + lifetime, used: false });
        let secret = secret_of(&id);
        (id, secret)
    }

    /// A key that a policy limits, and its secret.
    pub fn limit(&self, id: &str, policy: Policy) -> String {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner).insert(id.to_owned(), policy);
        secret_of(id)
    }

    /// The policy of a key that has one.
    pub(super) fn policy(&self, id: &str) -> Option<Policy> {
        self.limited.lock().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// How many of them were issued, and how many of those signed a request.
    pub fn issued_and_used(&self) -> (usize, usize) {
        let keys = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        (keys.len(), keys.values().filter(|key| key.used).count())
    }
}

fn secret_of(id: &str) -> String {
    format!("secret of {id}")
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
        let mut keys = self.0.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        match keys.get_mut(id) {
            Some(key) if key.ends > Instant::now() => {
                key.used = true;
                Ok(SecretKey::from(secret_of(id)))
            }
            Some(_) => Err(s3_error!(ExpiredToken, "the key has ended")),
            None => Err(s3_error!(InvalidAccessKeyId, "there is no such key")),
        }
    }
}
