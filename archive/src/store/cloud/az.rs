//! Azure Blob Storage.
//!
//! A create carries `If-None-Match: *`; one that loses is 409 `BlobAlreadyExists`, or 412. The client's lists leave out a blob whose
//! name is the whole prefix, so it is asked for by itself. Names of blobs keep their case; those of containers have none.
//!
//! Credentials, the first that is found: `account_key`; `sas_token`; `AZURE_STORAGE_KEY` (or `AZURE_STORAGE_ACCOUNT_KEY`);
//! `AZURE_STORAGE_SAS_TOKEN`. The account is `account`, `AZURE_STORAGE_ACCOUNT` or `AZURE_STORAGE_ACCOUNT_NAME`.

use object_store::azure::MicrosoftAzureBuilder;
use object_store::azure::split_sas;
use secrecy::ExposeSecret as _;
use url::Url;

use super::client::{self, Endpoint, Place};
use super::{CloudStore, Dialect};
use crate::store::spec::Environment;
use crate::store::{StoreError, StoreSpec};

/// What Azure calls things.
static DIALECT: Dialect = Dialect {
    root: "container",
    root_missing: &["ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"],
    object_missing: &["BlobNotFound"],
    exists: &["BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"],
    busy: &["ServerBusy", "InternalError", "OperationTimedOut"],
    unknown_credentials: &["AuthenticationFailed", "InvalidAuthenticationInfo"],
    lists_omit_the_prefix_itself: true,
};

const HINT: &str =
    "set account_key or sas_token of the repository, or AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN";
const ACCOUNT_HINT: &str = "set account of the repository, or AZURE_STORAGE_ACCOUNT";

/// A store for `az://container/prefix`. Makes no request.
pub(crate) fn open(
    url: &Url,
    spec: &StoreSpec,
    environment: &Environment<'_>,
) -> Result<CloudStore, StoreError> {
    let place = Place::of(url)?;
    if !is_container(&place.root) {
        return Err(place.invalid("a container has 3 to 63 lower-case letters, digits and single dashes"));
    }
    let mut spec = spec.clone();
    settle(&mut spec, environment, &place.name)?;
    let endpoint = Endpoint::of(&spec, &place)?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&place.root)
        .with_retry(client::retries())
        .with_client_options(client::options(endpoint.as_ref()));
    if let Some(account) = &spec.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.text().to_owned());
    }
    builder = match (&spec.account_key, &spec.sas_token) {
        (Some(key), _) => builder.with_access_key(key.expose_secret()),
        (None, Some(token)) => {
            // The parser's message could quote the token.
            let pairs = split_sas(token.expose_secret())
                .map_err(|_| place.invalid("sas_token is not a list of name=value joined by &"))?;
            builder.with_sas_authorization(pairs)
        }
        (None, None) => builder,
    };
    let client = builder.build().map_err(|error| place.invalid(error.to_string()))?;
    Ok(CloudStore::new(client, &DIALECT, place))
}

/// Makes explicit what the environment decides.
pub(crate) fn settle(
    spec: &mut StoreSpec,
    environment: &Environment<'_>,
    store: &str,
) -> Result<(), StoreError> {
    let missing = |reason: &str, hint| StoreError::MissingCredentials {
        store: store.to_owned(),
        reason: reason.to_owned(),
        hint,
    };
    if spec.account.is_none() {
        let found = environment.first_of(&["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"]);
        let (_, account) = found.ok_or_else(|| missing("no storage account is named", ACCOUNT_HINT))?;
        spec.account = Some(account);
    }
    if spec.account_key.is_some() || spec.sas_token.is_some() {
        return Ok(());
    }
    if let Some((_, key)) = environment.first_of(&["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"]) {
        spec.account_key = Some(key.into());
        return Ok(());
    }
    spec.sas_token = environment.secret("AZURE_STORAGE_SAS_TOKEN");
    if spec.sas_token.is_some() { Ok(()) } else { Err(missing("there are no credentials", HINT)) }
}

/// Azure's rule for names of containers.
fn is_container(name: &str) -> bool {
    let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (3..=63).contains(&name.len())
        && name.bytes().all(legal)
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_configured_comes_before_the_environment() {
        let look_up = |name: &str| match name {
            "AZURE_STORAGE_ACCOUNT" => Some("there".to_owned()),
            "AZURE_STORAGE_KEY" => Some("key of the environment".to_owned()),
            "AZURE_STORAGE_SAS_TOKEN" => Some("sas of the environment".to_owned()),
            _ => None,
        };
        let environment = Environment::new(&look_up);
        let settled = |mut spec: StoreSpec| {
            settle(&mut spec, &environment, "az://c").unwrap();
            (spec.account.clone().unwrap(), spec.secrets())
        };
        let (account, secrets) = settled(StoreSpec::default());
        assert_eq!(account, "there");
        assert_eq!(secrets["account_key"], "key of the environment");
        let own = StoreSpec {
            account: Some("own".into()),
            sas_token: Some("own".to_owned().into()),
            ..StoreSpec::default()
        };
        let (account, secrets) = settled(own);
        assert_eq!((account.as_str(), secrets["sas_token"].as_str(), secrets.len()), ("own", "own", 1));
        let nothing = |_: &str| None;
        let error = settle(&mut StoreSpec::default(), &Environment::new(&nothing), "az://c").unwrap_err();
        assert!(error.hint().unwrap().contains("AZURE_STORAGE_ACCOUNT"), "{error}");
    }

    #[test]
    fn names_of_containers_have_rules() {
        for good in ["abc", "a-b", "0b0", &"a".repeat(63)] {
            assert!(is_container(good), "{good}");
        }
        for bad in ["ab", "Abc", "-ab", "ab-", "a--b", "a.b", "$root", &"a".repeat(64)] {
            assert!(!is_container(bad), "{bad}");
        }
    }
}
