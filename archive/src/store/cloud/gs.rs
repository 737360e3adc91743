//! Google Cloud Storage, by its XML API.
//!
//! A create carries `x-goog-if-generation-match: 0`; one that loses is 412.
//!
//! Credentials, the first that is found: `service_account_key`; the file that `GOOGLE_APPLICATION_CREDENTIALS` names. Each is
//! the JSON key of a service account, with which every hour's token is signed here, without asking anyone.

use std::path::Path;

use object_store::gcp::GoogleCloudStorageBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::client::{self, Endpoint, Place};
use super::{CloudStore, Dialect};
use crate::store::spec::Environment;
use crate::store::{StoreError, StoreSpec};

/// What Google calls things, which is what S3 calls them.
static DIALECT: Dialect = Dialect {
    root: "bucket",
    root_missing: &["NoSuchBucket"],
    object_missing: &["NoSuchKey"],
    exists: &["PreconditionFailed"],
    busy: &["SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout"],
    unknown_credentials: &["ExpiredToken", "InvalidToken"],
    lists_omit_the_prefix_itself: false,
};

const HINT: &str = "set service_account_key_file of the repository, or GOOGLE_APPLICATION_CREDENTIALS, to the JSON key of a service account";

/// The largest file of credentials that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A store for `gs://bucket/prefix`. Makes no request.
pub(crate) fn open(
    url: &Url,
    spec: &StoreSpec,
    environment: &Environment<'_>,
) -> Result<CloudStore, StoreError> {
    let place = Place::of(url)?;
    let mut spec = spec.clone();
    settle(&mut spec, environment, &place.name)?;
    let endpoint = Endpoint::of(&spec, &place)?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&place.root)
        .with_retry(client::retries())
        .with_client_options(client::options(endpoint.as_ref()));
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint.text());
    }
    if let Some(key) = &spec.service_account_key {
        builder = builder.with_service_account_key(key.expose_secret());
    }
    let client = builder.build().map_err(|error| place.invalid(error.to_string()))?;
    Ok(CloudStore::new(client, &DIALECT, place))
}

/// Makes explicit what the environment decides.
pub(crate) fn settle(
    spec: &mut StoreSpec,
    environment: &Environment<'_>,
    store: &str,
) -> Result<(), StoreError> {
    let missing =
        |reason: String| StoreError::MissingCredentials { store: store.to_owned(), reason, hint: HINT };
    if let Some(key) = &spec.service_account_key {
        return check(key).map_err(|reason| missing(format!("service_account_key: {reason}")));
    }
    let Some(path) = environment.get("GOOGLE_APPLICATION_CREDENTIALS") else {
        return Err(missing("there are no credentials".into()));
    };
    let key = read(Path::new(&path)).map_err(|error| missing(format!("{path}: {error}")))?;
    check(&key).map_err(|reason| missing(format!("{path}: {reason}")))?;
    spec.service_account_key = Some(key);
    Ok(())
}

fn read(path: &Path) -> std::io::Result<SecretString> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text.into())
}

/// Whether the text is the key of a service account.
fn check(key: &SecretString) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Key {
        #[serde(rename = "type")]
        kind: String,
    }
    // The parser's message could quote the key.
    let key: Key = serde_json::from_str(key.expose_secret())
        .map_err(|error| format!("it is not the JSON key of a service account ({:?})", error.classify()))?;
    match key.kind.as_str() {
        "service_account" => Ok(()),
        kind => Err(format!("it holds credentials of the kind {kind}, not of a service account")),
    }
}
