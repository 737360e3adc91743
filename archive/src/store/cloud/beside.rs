//! What a request says beside all that its client can say: who pays for it at Google, and under which key Google or Azure encrypts what is put.
//!
//! The clients have no options for these headers, so they are added to a request that is ready to be sent. Google's tokens leave headers
//! alone, and so do Azure's tokens and shared access signatures; an account's key signs them, so with one the request is signed once more.

use std::fmt::{self, Debug};

use object_store::azure::{AzureAccessKey, AzureAuthorizer, AzureCredential};
use object_store::client::{HttpError, HttpErrorKind, HttpRequest};

/// Headers, and who signs what they were added to.
#[derive(Debug, Default)]
pub(super) struct Beside {
    of_all: Vec<Header>,
    of_puts: Vec<Header>,
    signer: Option<Signer>,
}

#[derive(Debug)]
struct Header {
    name: &'static str,
    value: String,
}

/// The key of an account in Azure.
struct Signer {
    credential: AzureCredential,
    account: String,
}

impl Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer").field("account", &self.account).finish_non_exhaustive()
    }
}

impl Beside {
    /// Every request says this, if there is anything to say. The name is in lower case.
    pub(super) fn in_all(mut self, name: &'static str, value: Option<&String>) -> Self {
        self.of_all.extend(value.map(|value| Header { name, value: value.clone() }));
        self
    }

    /// Every put says this, if there is anything to say.
    pub(super) fn in_puts(mut self, name: &'static str, value: Option<&String>) -> Self {
        self.of_puts.extend(value.map(|value| Header { name, value: value.clone() }));
        self
    }

    /// What is said is signed with this key.
    pub(super) fn signed_with(mut self, key: AzureAccessKey, account: &str) -> Self {
        let credential = AzureCredential::AccessKey(key);
        self.signer = Some(Signer { credential, account: account.to_owned() });
        self
    }

    /// Adds what is to be said to a request.
    pub(super) fn say(&self, request: &mut HttpRequest) -> Result<(), HttpError> {
        let is_put = request.method().as_str() == "PUT";
        let of_puts = self.of_puts.iter().filter(|_| is_put);
        let mut said = false;
        for Header { name, value } in self.of_all.iter().chain(of_puts) {
            let value = value.parse().map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
            request.headers_mut().insert(*name, value);
            said = true;
        }
        if let Some(Signer { credential, account }) = self.signer.as_ref().filter(|_| said) {
            request.headers_mut().remove("authorization");
            let signed = AzureAuthorizer::new(credential, account).try_authorize(request);
            signed.map_err(|error| HttpError::new(HttpErrorKind::Request, error))?;
        }
        Ok(())
    }
}
