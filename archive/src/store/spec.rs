//! What it takes to open a store: where it lies, how to get there, and what lets us in.
//!
//! Everything a person or an environment can say about a store is one field here. What is secret is never serialised with the
//! rest: [`StoreSpec::secrets`] hands it out by name, to be kept where nobody else reads.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// All it takes to open a store. Options that do not apply to the URL's kind are ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSpec {
    /// `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The service, as `https://host[:port]`; absent for the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Allow plain `http://` beyond the loopback interface.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// S3: the region that requests are signed for; absent means `AWS_REGION`, then `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3: bucket in the path instead of the host name; absent means yes with an `endpoint`, no without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// S3: the access key.
    #[serde(skip)]
    pub access_key_id: Option<SecretString>,
    /// S3: its secret.
    #[serde(skip)]
    pub secret_access_key: Option<SecretString>,
    /// S3: the token of temporary credentials.
    #[serde(skip)]
    pub session_token: Option<SecretString>,
    /// Google: the JSON text of a service account's key, or of application default credentials.
    #[serde(skip)]
    pub service_account_key: Option<SecretString>,
    /// Azure: the storage account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Azure: the account's access key.
    #[serde(skip)]
    pub account_key: Option<SecretString>,
    /// Azure: a shared access signature.
    #[serde(skip)]
    pub sas_token: Option<SecretString>,
}

impl StoreSpec {
    /// The secrets by the names of their options.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let mut copy = self.clone();
        let present = copy.slots().into_iter().filter_map(|(name, slot)| {
            slot.as_ref().map(|secret| (name.to_owned(), secret.expose_secret().to_owned()))
        });
        present.collect()
    }

    /// Takes back what [`StoreSpec::secrets`] gave; names of no secret are ignored.
    #[must_use]
    pub fn with_secrets(mut self, secrets: &BTreeMap<String, String>) -> Self {
        for (name, slot) in self.slots() {
            if let Some(text) = secrets.get(name) {
                *slot = Some(text.clone().into());
            }
        }
        self
    }

    /// Every secret, so that none is forgotten.
    fn slots(&mut self) -> [(&'static str, &mut Option<SecretString>); 6] {
        [
            ("access_key_id", &mut self.access_key_id),
            ("secret_access_key", &mut self.secret_access_key),
            ("session_token", &mut self.session_token),
            ("service_account_key", &mut self.service_account_key),
            ("account_key", &mut self.account_key),
            ("sas_token", &mut self.sas_token),
        ]
    }
}

/// Where usual variables are looked up: the process's environment, or a test's.
pub(super) struct Environment<'a>(&'a dyn Fn(&str) -> Option<String>);

impl<'a> Environment<'a> {
    pub(super) fn new(look_up: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self(look_up)
    }

    /// A variable that is set to something.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|value| !value.is_empty())
    }

    /// The same, as a secret.
    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).map(SecretString::from)
    }

    /// The first of several names that is set, with its name.
    pub(super) fn first_of(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| self.get(name).map(|value| (*name, value)))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What is written beside others never holds a secret, and comes back whole with them.
    #[test]
    fn secrets_go_their_own_way() {
        let mut spec =
            StoreSpec { url: "az://c/p".into(), account: Some("a".into()), ..StoreSpec::default() };
        for (name, slot) in spec.slots() {
            *slot = Some(format!("hush {name}").into());
        }
        let text = serde_json::to_string(&spec).unwrap();
        assert!(!text.contains("hush") && !format!("{spec:?}").contains("hush"), "{text}");
        let back: StoreSpec = serde_json::from_str(&text).unwrap();
        assert!(back.secrets().is_empty());
        let back = back.with_secrets(&spec.secrets());
        assert_eq!((back.secrets(), back.account.as_deref()), (spec.secrets(), Some("a")));
    }
}
