//! Google Cloud Storage, by its XML API.
//!
//! A create carries `x-goog-if-generation-match: 0`; one that loses is 412.
//!
//! Credentials, the first that is found, or the kind that `credentials` names:
//!
//! 1. `service_account_key`; the file that `GOOGLE_APPLICATION_CREDENTIALS` names; the one that `gcloud` keeps below `HOME`. What is found
//!    first decides. `static`: it is the JSON key of a service account, with which every hour's token is signed here, without asking.
//!    `web_identity`: it is an `external_account`, which says where a workload's own token is and who exchanges it ([`super::federation`]).
//! 2. `instance`: the machine's or, in Kubernetes, the workload's account by the metadata server, where the firmware says that
//!    this is Google's or `GCE_METADATA_HOST` is set.
//!
//! Tokens that are asked for are renewed in time ([`super::renewed`]).

use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::gcp::GoogleCloudStorageBuilder;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use url::Url;

use super::anew::Anew;
use super::beside::Beside;
use super::client::{self, Endpoint, Place};
use super::federation::{Exchange, Federation};
use super::renewed::Renewed;
use super::service::Service;
use super::{CloudStore, Dialect, Persistence};
use crate::store::spec::Environment;
use crate::store::{Credentials, StoreError, StoreSpec};

/// What Google calls things, which is what S3 calls them.
static DIALECT: Dialect = Dialect {
    root: "bucket",
    root_missing: &["NoSuchBucket"],
    object_missing: &["NoSuchKey"],
    exists: &["PreconditionFailed"],
    busy: &["SlowDown", "InternalError", "ServiceUnavailable", "RequestTimeout"],
    unknown_credentials: &["ExpiredToken", "InvalidToken"],
    classes: &["STANDARD", "NEARLINE", "COLDLINE"],
    lists_omit_the_prefix_itself: false,
};

const HINT: &str = "set service_account_key_file of the repository, or GOOGLE_APPLICATION_CREDENTIALS, to the JSON key of a service account, or to an external_account whose token is in a file or at a URL";

/// Where `gcloud` keeps application default credentials, below `HOME`. Given no key, the client takes what is there by itself, before it
/// asks the metadata server: [`open`] refuses the machine's account where the file is.
const WELL_KNOWN: &str = ".config/gcloud/application_default_credentials.json";

/// The largest file of credentials that is read, in bytes.
const MAX_BYTES: u64 = 64 << 10;

/// A store for `gs://bucket/prefix`. Makes no request.
pub(crate) fn open(
    url: &Url,
    spec: &StoreSpec,
    environment: &Environment<'_>,
    persistence: Persistence,
) -> Result<CloudStore, StoreError> {
    let place = Place::of(url)?;
    let mut spec = spec.clone();
    let source = settle(&mut spec, environment, &place.name)?;
    let service = Service::new(&DIALECT, &place.name, persistence);
    if spec.credentials == Credentials::Instance
        && let Some(path) = well_known(environment)
    {
        return Err(StoreError::MissingCredentials {
            store: place.name,
            reason: format!(
                "the account of this machine cannot be used: {} comes before it, and may be another",
                path.display()
            ),
            hint: "set credentials of the repository to static, or its service_account_key_file, or move that file away",
        });
    }
    check_names(&spec, &place)?;
    let endpoint = Endpoint::of(&spec, &place)?;
    let options = client::options(&spec, endpoint.as_ref(), &place, persistence)?;
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_bucket_name(&place.root)
        .with_retry(client::retries())
        .with_client_options(options.clone());
    if let Some(endpoint) = &endpoint {
        builder = builder.with_base_url(endpoint.text());
    }
    if let Some(key) = spec.service_account_key.as_ref().filter(|_| spec.credentials == Credentials::Static) {
        builder = builder.with_service_account_key(key.expose_secret());
    }
    let wrong = |error: object_store::Error| place.invalid(error.to_string());
    let asked = if spec.credentials == Credentials::WebIdentity {
        let federation = federation(&spec).map_err(|reason| missing(&place.name, reason))?;
        let exchange: Arc<Exchange> = Exchange::new(federation, &options, &service).map_err(wrong)?.into();
        Anew::of(move || Ok(Arc::clone(&exchange) as _), service.seen())
    } else {
        let asking = builder.clone().with_http_connector(service.wire_for_credentials());
        let asking = asking.with_client_options(client::direct(options));
        Anew::of(move || Ok(Arc::clone(asking.clone().build()?.credentials())), service.seen())
    };
    let mut asked = asked.map_err(wrong)?;
    if spec.credentials != Credentials::Static {
        asked = Renewed::before(asked, Arc::clone(service.seen()));
    }
    builder = builder.with_credentials(asked);
    let beside = Beside::default()
        .in_all("x-goog-user-project", spec.user_project.as_ref())
        .in_puts("x-goog-encryption-kms-key-name", spec.kms_key_id.as_ref());
    let client = builder.with_http_connector(service.wire_with(beside)).build().map_err(wrong)?;
    CloudStore::new(client, service, place, &spec, source)
}

/// Holds the names of a key and of a project against their forms, which also keeps them sendable.
fn check_names(spec: &StoreSpec, place: &Place) -> Result<(), StoreError> {
    if let Some(key) = spec.kms_key_id.as_ref().filter(|key| !is_key(key)) {
        let hint = "write projects/P/locations/L/keyRings/R/cryptoKeys/K, without a version of the key";
        return Err(place.wrong("kms_key_id", format!("{key:?} is no name of a key in Cloud KMS"), hint));
    }
    if let Some(project) = spec.user_project.as_ref().filter(|project| !is_part(project, b".:-")) {
        let hint = "it is the id or the number of the project that pays";
        return Err(place.wrong("user_project", format!("{project:?} is no project"), hint));
    }
    Ok(())
}

fn is_key(name: &str) -> bool {
    let parts: Vec<&str> = name.split('/').collect();
    match parts.as_slice() {
        ["projects", project, "locations", location, "keyRings", ring, "cryptoKeys", key] => {
            is_part(project, b".:-") && [location, ring, key].iter().all(|part| is_part(part, b"-_"))
        }
        _ => false,
    }
}

/// Letters and digits, and what else is named.
fn is_part(text: &str, others: &[u8]) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || others.contains(&byte))
}

/// Makes explicit what the environment decides; gives in words where the credentials come from.
pub(crate) fn settle(
    spec: &mut StoreSpec,
    environment: &Environment<'_>,
    store: &str,
) -> Result<String, StoreError> {
    client::settle(spec, environment);
    let missing = |reason: String| missing(store, reason);
    if spec.credentials.allow(Credentials::Static) || spec.credentials.allow(Credentials::WebIdentity) {
        let named = environment.get("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from);
        let path = named.or_else(|| well_known(environment)).filter(|_| spec.service_account_key.is_none());
        let place = path.as_ref().map_or("service_account_key".to_owned(), |path| path.display().to_string());
        let wrong = |reason: String| missing(format!("{place}: {reason}"));
        if let Some(path) = &path {
            spec.service_account_key = Some(read(path).map_err(|error| wrong(error.to_string()))?);
        }
        if let Some(key) = &spec.service_account_key {
            let kind = kind(key).map_err(wrong)?;
            if !spec.credentials.allow(kind) {
                let is = if kind == Credentials::Static {
                    "the key of a service account"
                } else {
                    "an external_account"
                };
                return Err(wrong(format!("it is {is}, which credentials of the repository rule out")));
            }
            let told = match (kind, &path) {
                (Credentials::WebIdentity, path) => {
                    let whose = federation(spec).map_err(wrong)?.told();
                    let by = path
                        .as_ref()
                        .map_or_else(|| spec.source_of("service_account_key"), |_| place.clone());
                    format!("{whose}, by {by}")
                }
                (_, Some(_)) => format!("the service account's key in {place}"),
                (_, None) => spec.source_of("service_account_key"),
            };
            spec.credentials = kind;
            return Ok(told);
        }
    }
    let here = environment.get("GCE_METADATA_HOST").is_some()
        || environment.machine_is("product_name", "Google Compute Engine");
    if spec.credentials == Credentials::Instance || spec.credentials == Credentials::Auto && here {
        spec.credentials = Credentials::Instance;
        return Ok("the account of this machine or workload".into());
    }
    Err(missing("there are no credentials".into()))
}

fn missing(store: &str, reason: String) -> StoreError {
    StoreError::MissingCredentials { store: store.to_owned(), reason, hint: HINT }
}

/// What the credentials that were found say of a workload outside of Google.
fn federation(spec: &StoreSpec) -> Result<Federation, String> {
    spec.service_account_key.as_ref().map_or_else(|| Err("there is none".to_owned()), Federation::of)
}

/// The file that `gcloud` keeps, where there is one.
fn well_known(environment: &Environment<'_>) -> Option<PathBuf> {
    environment.get("HOME").map(|home| Path::new(&home).join(WELL_KNOWN)).filter(|path| path.exists())
}

fn read(path: &Path) -> std::io::Result<SecretString> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_BYTES).read_to_string(&mut text)?;
    Ok(text.into())
}

/// The kind of credentials that the text is.
fn kind(key: &SecretString) -> Result<Credentials, String> {
    #[derive(Deserialize)]
    struct Key {
        #[serde(rename = "type")]
        kind: String,
    }
    // The parser's message could quote the key.
    let key: Key = serde_json::from_str(key.expose_secret())
        .map_err(|error| format!("it is not the JSON key of a service account ({:?})", error.classify()))?;
    match key.kind.as_str() {
        "service_account" => Ok(Credentials::Static),
        "external_account" => Ok(Credentials::WebIdentity),
        kind => Err(format!(
            "it holds credentials of the kind {kind}, neither of a service account nor of an external_account"
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_of_keys_and_projects_have_forms() {
        let place = Place::of(&Url::parse("gs://bucket/p").unwrap()).unwrap();
        let check = |key: Option<&str>, project: Option<&str>| {
            let (kms_key_id, user_project) = (key.map(str::to_owned), project.map(str::to_owned));
            check_names(&StoreSpec { kms_key_id, user_project, ..StoreSpec::default() }, &place)
        };
        let key = "projects/example.com:p-1/locations/europe-west3/keyRings/r/cryptoKeys/k_1";
        for project in ["payer-1", "example.com:payer", "123456789012"] {
            check(Some(key), Some(project)).unwrap();
        }
        let version = format!("{key}/cryptoKeyVersions/1");
        for wrong in ["", "k", "alias/ours", &version, &key.replace("k_1", ""), &key.replace('r', "r\n")] {
            let error = check(Some(wrong), None).unwrap_err();
            assert!(error.to_string().contains("kms_key_id") && error.hint().is_some(), "{error}");
        }
        for wrong in ["", "a b", "projects/p", "p\r\nx: y"] {
            let error = check(None, Some(wrong)).unwrap_err();
            assert!(error.to_string().contains("user_project"), "{error}");
        }
    }

    /// The client would sign with what gcloud left, and `check` would print another account.
    #[test]
    fn the_machines_account_is_not_claimed_where_gclouds_file_comes_before_it() {
        let home = tempfile::tempdir().unwrap();
        let look_up = |name: &str| (name == "HOME").then(|| home.path().to_str().unwrap().to_owned());
        let environment = Environment::new(&look_up, &|_| None);
        let spec = StoreSpec {
            url: "gs://bucket/p".into(),
            credentials: Credentials::Instance,
            ..StoreSpec::default()
        };
        let path = home.path().join(WELL_KNOWN);
        assert_eq!(well_known(&environment), None);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::File::create_new(&path).unwrap();
        let url = Url::parse(&spec.url).unwrap();
        let error = open(&url, &spec, &environment, Persistence::USUAL).unwrap_err();
        assert!(matches!(error, StoreError::MissingCredentials { .. }), "{error:?}");
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert!(error.hint().unwrap().contains("static"));
    }
}
