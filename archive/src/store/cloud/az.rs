//! Azure Blob Storage.
//!
//! A create carries `If-None-Match: *`; one that loses is 409 `BlobAlreadyExists`, or 412. The client's lists leave out a blob whose
//! name is the whole prefix, so it is asked for by itself. Names of blobs keep their case; those of containers have none.
//!
//! The account is `account`, `AZURE_STORAGE_ACCOUNT` or `AZURE_STORAGE_ACCOUNT_NAME`. Credentials, the first that is found, or the
//! kind that `credentials` names:
//!
//! 1. `static`: `account_key`; `sas_token`; `client_secret`; `AZURE_STORAGE_KEY` or `AZURE_STORAGE_ACCOUNT_KEY`;
//!    `AZURE_STORAGE_SAS_TOKEN`; `AZURE_CLIENT_SECRET`. A secret goes with `tenant_id` and `client_id`, or `AZURE_TENANT_ID` and
//!    `AZURE_CLIENT_ID`.
//! 2. `web_identity`: the federated token of a workload in `federated_token_file` or `AZURE_FEDERATED_TOKEN_FILE`, with the same two.
//! 3. `instance`: the machine's managed identity, where the firmware says that this is Azure or `IDENTITY_ENDPOINT` is set;
//!    `client_id` chooses where there are several.
//!
//! Tokens are renewed in time ([`super::renewed`]), at `AZURE_AUTHORITY_HOST` if that is set.

use std::sync::Arc;

use object_store::azure::{AzureAccessKey, MicrosoftAzureBuilder, split_sas};
use secrecy::ExposeSecret as _;
use url::Url;

use super::anew::Anew;
use super::beside::Beside;
use super::client::{self, Endpoint, Place};
use super::renewed::Renewed;
use super::service::Service;
use super::{CloudStore, Dialect, Persistence};
use crate::store::spec::Environment;
use crate::store::{Credentials, StoreError, StoreSpec};

/// What Azure calls things.
static DIALECT: Dialect = Dialect {
    root: "container",
    root_missing: &["ContainerNotFound", "ContainerBeingDeleted", "ContainerDisabled"],
    object_missing: &["BlobNotFound"],
    exists: &["BlobAlreadyExists", "ConditionNotMet", "TargetConditionNotMet"],
    busy: &["ServerBusy", "InternalError", "OperationTimedOut"],
    unknown_credentials: &["AuthenticationFailed", "InvalidAuthenticationInfo"],
    classes: &["Hot", "Cool", "Cold"],
    lists_omit_the_prefix_itself: true,
};

const HINT: &str =
    "set account_key or sas_token of the repository, or AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN";
const ACCOUNT_HINT: &str = "set account of the repository, or AZURE_STORAGE_ACCOUNT";

/// What the chassis of every machine in Azure carries.
const AZURE_CHASSIS: &str = "7783-7084-3265-9085-8269-3286-77";

/// A store for `az://container/prefix`. Makes no request.
pub(crate) fn open(
    url: &Url,
    spec: &StoreSpec,
    environment: &Environment<'_>,
    persistence: Persistence,
) -> Result<CloudStore, StoreError> {
    let place = Place::of(url)?;
    if !is_container(&place.root) {
        return Err(place.invalid("a container has 3 to 63 lower-case letters, digits and single dashes"));
    }
    let mut spec = spec.clone();
    let source = settle(&mut spec, environment, &place.name)?;
    let service = Service::new(&DIALECT, &place.name, persistence);
    let endpoint = Endpoint::of(&spec, &place)?;
    let options = client::options(&spec, endpoint.as_ref(), &place, persistence)?;
    let mut builder = MicrosoftAzureBuilder::new()
        .with_container_name(&place.root)
        .with_retry(client::retries())
        .with_client_options(options.clone());
    if let Some(account) = &spec.account {
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.text().to_owned());
    }
    builder = with_credentials(builder, &spec, &place)?;
    let wrong = |error: object_store::Error| place.invalid(error.to_string());
    if spec.account_key.is_none() && spec.sas_token.is_none() {
        let mut asking = builder.clone().with_http_connector(service.wire_for_credentials());
        if spec.credentials == Credentials::Instance {
            asking = asking.with_client_options(client::direct(options));
        }
        let asked = Anew::of(move || Ok(Arc::clone(asking.clone().build()?.credentials())), service.seen());
        builder =
            builder.with_credentials(Renewed::before(asked.map_err(wrong)?, Arc::clone(service.seen())));
    }
    let client =
        builder.with_http_connector(service.wire_with(beside(&spec, &place)?)).build().map_err(wrong)?;
    CloudStore::new(client, service, place, &spec, source)
}

/// Under which key what is put is encrypted: a scope of the account's. Its name is a part of what the account's key signs.
fn beside(spec: &StoreSpec, place: &Place) -> Result<Beside, StoreError> {
    let Some(scope) = &spec.encryption_scope else { return Ok(Beside::default()) };
    if !is_scope(scope) {
        let hint = "it has 3 to 63 letters, digits and dashes";
        return Err(place.wrong("encryption_scope", format!("{scope:?} is no name of a scope"), hint));
    }
    let beside = Beside::default().in_puts("x-ms-encryption-scope", Some(scope));
    let Some(key) = spec.account_key.as_ref().filter(|_| spec.credentials == Credentials::Static) else {
        return Ok(beside);
    };
    let key =
        AzureAccessKey::try_new(key.expose_secret()).map_err(|error| place.invalid(error.to_string()))?;
    Ok(beside.signed_with(key, spec.account.as_deref().unwrap_or_default()))
}

/// Gives the client the credentials that were settled on, and no others, since it has an order of its own.
fn with_credentials(
    mut builder: MicrosoftAzureBuilder,
    spec: &StoreSpec,
    place: &Place,
) -> Result<MicrosoftAzureBuilder, StoreError> {
    if let Some(host) = &spec.authority_host {
        builder = builder.with_authority_host(host.trim_end_matches('/'));
    }
    let application = |builder: MicrosoftAzureBuilder| {
        let builder = builder.with_client_id(spec.client_id.as_deref().unwrap_or_default());
        builder.with_tenant_id(spec.tenant_id.as_deref().unwrap_or_default())
    };
    Ok(match spec.credentials {
        Credentials::Auto | Credentials::Static | Credentials::Container => {
            match (&spec.account_key, &spec.sas_token, &spec.client_secret) {
                (Some(key), _, _) => builder.with_access_key(key.expose_secret()),
                (None, Some(token), _) => {
                    // The parser's message could quote the token.
                    let pairs = split_sas(token.expose_secret()).map_err(|_| {
                        place.wrong(
                            "sas_token",
                            "it is no signature",
                            "it is a list of name=value joined by &",
                        )
                    })?;
                    builder.with_sas_authorization(pairs)
                }
                (None, None, Some(secret)) => application(builder).with_client_secret(secret.expose_secret()),
                (None, None, None) => builder,
            }
        }
        Credentials::WebIdentity => {
            let file = spec.federated_token_file.as_ref().map(|path| path.display().to_string());
            application(builder).with_federated_token_file(file.unwrap_or_default())
        }
        Credentials::Instance => {
            if let Some(id) = &spec.client_id {
                builder = builder.with_client_id(id);
            }
            match &spec.metadata_endpoint {
                Some(endpoint) => builder.with_msi_endpoint(endpoint),
                None => builder,
            }
        }
    })
}

/// Makes explicit what the environment decides; gives in words where the credentials come from.
pub(crate) fn settle(
    spec: &mut StoreSpec,
    environment: &Environment<'_>,
    store: &str,
) -> Result<String, StoreError> {
    client::settle(spec, environment);
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
    spec.tenant_id = spec.tenant_id.take().or_else(|| environment.get("AZURE_TENANT_ID"));
    spec.client_id = spec.client_id.take().or_else(|| environment.get("AZURE_CLIENT_ID"));
    spec.authority_host = spec.authority_host.take().or_else(|| environment.get("AZURE_AUTHORITY_HOST"));
    let is_application = spec.tenant_id.is_some() && spec.client_id.is_some();
    let half = "an application needs tenant_id and client_id, or AZURE_TENANT_ID and AZURE_CLIENT_ID";
    let wanted = spec.credentials;
    if wanted.allow(Credentials::Static)
        && let Some(source) = secrets(spec, environment)
    {
        if spec.account_key.is_none() && spec.sas_token.is_none() && !is_application {
            return Err(missing(half, HINT));
        }
        spec.credentials = Credentials::Static;
        return Ok(source);
    }
    if wanted.allow(Credentials::WebIdentity) {
        let from_environment = environment.get("AZURE_FEDERATED_TOKEN_FILE").map(Into::into);
        spec.federated_token_file = spec.federated_token_file.take().or(from_environment);
        if let Some(file) = &spec.federated_token_file {
            if !is_application {
                return Err(missing(half, HINT));
            }
            spec.credentials = Credentials::WebIdentity;
            return Ok(format!("the workload's federated token in {}", file.display()));
        }
    }
    spec.metadata_endpoint = spec.metadata_endpoint.take().or_else(|| environment.get("IDENTITY_ENDPOINT"));
    let here = spec.metadata_endpoint.is_some() || environment.machine_is("chassis_asset_tag", AZURE_CHASSIS);
    if wanted == Credentials::Instance || wanted == Credentials::Auto && here {
        spec.credentials = Credentials::Instance;
        return Ok("the managed identity of this machine".into());
    }
    Err(missing("there are no credentials", HINT))
}

/// The first secret that is found, put into the spec.
fn secrets(spec: &mut StoreSpec, environment: &Environment<'_>) -> Option<String> {
    for (found, name) in [
        (spec.account_key.is_some(), "account_key"),
        (spec.sas_token.is_some(), "sas_token"),
        (spec.client_secret.is_some(), "client_secret"),
    ] {
        if found {
            return Some(spec.source_of(name));
        }
    }
    let keys = ["AZURE_STORAGE_KEY", "AZURE_STORAGE_ACCOUNT_KEY"];
    let (name, secret, slot) = if let Some((name, key)) = environment.first_of(&keys) {
        (name, key, &mut spec.account_key)
    } else if let Some((name, token)) = environment.first_of(&["AZURE_STORAGE_SAS_TOKEN"]) {
        (name, token, &mut spec.sas_token)
    } else {
        let (name, secret) = environment.first_of(&["AZURE_CLIENT_SECRET"])?;
        (name, secret, &mut spec.client_secret)
    };
    *slot = Some(secret.into());
    Some(format!("{name} in the environment"))
}

/// Azure's rule for names of encryption scopes.
fn is_scope(name: &str) -> bool {
    (3..=63).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
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
        let no_firmware = |_: &str| None;
        let environment = Environment::new(&look_up, &no_firmware);
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
        let error =
            settle(&mut StoreSpec::default(), &Environment::new(&nothing, &nothing), "az://c").unwrap_err();
        assert!(error.hint().unwrap().contains("AZURE_STORAGE_ACCOUNT"), "{error}");
    }

    #[test]
    fn names_of_scopes_have_rules() {
        for (name, good) in [("our-Scope1", true), ("ab", false), ("a b c", false), ("a\r\nb: c", false)] {
            assert_eq!(is_scope(name), good, "{name}");
        }
        assert!(!is_scope(&"a".repeat(64)));
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
