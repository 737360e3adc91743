//! S3, and everything that speaks it.
//!
//! Credentials, the first that is found, or the kind that `credentials` names:
//!
//! 1. `static`: `access_key_id` with `secret_access_key`; then `AWS_ACCESS_KEY_ID` with `AWS_SECRET_ACCESS_KEY` and, if set,
//!    `AWS_SESSION_TOKEN`. A pair is never made of halves.
//! 2. `web_identity`: `web_identity_token_file` or `AWS_WEB_IDENTITY_TOKEN_FILE` for the role `role_arn` or `AWS_ROLE_ARN`, at
//!    `sts_endpoint`, `AWS_ENDPOINT_URL_STS` or the region's token service.
//! 3. `container`: `AWS_CONTAINER_CREDENTIALS_RELATIVE_URI`, or `AWS_CONTAINER_CREDENTIALS_FULL_URI` with
//!    `AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE` (pod identity).
//! 4. `instance`: the machine's role by IMDSv2, where the firmware says that this is EC2 or
//!    `AWS_EC2_METADATA_SERVICE_ENDPOINT` is set, unless `AWS_EC2_METADATA_DISABLED` is `true`.
//!
//! All but the first are temporary, and renewed in time ([`super::renewed`]).
//!
//! What is put is held against a digest by the service: the SHA-256 in the signature, or, where the content is left out of that, a
//! checksum beside it ([`upload_checksum`]).

use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum, S3ConditionalPut};
use secrecy::ExposeSecret as _;
use url::Url;

use super::anew::Anew;
use super::client::{self, Endpoint, Place};
use super::renewed::Renewed;
use super::service::Service;
use super::{CloudStore, Dialect, Persistence};
use crate::store::spec::Environment;
use crate::store::{Credentials, Encryption, StoreError, StoreSpec, UploadChecksum};

/// The region that requests are signed for where nobody names one; most other services accept any.
const DEFAULT_REGION: &str = "us-east-1";

/// What S3 calls things. A create that loses is 412, or 409 while the other writer is under way.
static DIALECT: Dialect = Dialect {
    root: "bucket",
    root_missing: &["NoSuchBucket"],
    object_missing: &["NoSuchKey"],
    exists: &["PreconditionFailed"],
    busy: &[
        "RequestTimeout",
        "SlowDown",
        "InternalError",
        "ServiceUnavailable",
        "OperationAborted",
        // What came was not what was sent.
        "BadDigest",
        "XAmzContentSHA256Mismatch",
        "XAmzContentChecksumMismatch",
    ],
    unknown_credentials: &["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"],
    classes: &["STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING"],
    lists_omit_the_prefix_itself: false,
};

const HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id and secret_access_key of the repository; docs/configuration.md names the other kinds";

/// A store for `s3://bucket/prefix`. Makes no request.
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
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.root)
        .with_region(spec.region.as_deref().unwrap_or(DEFAULT_REGION))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Single deletes work everywhere, bulk ones do not.
        .with_disable_bulk_delete(true)
        .with_request_payer(spec.requester_pays)
        .with_unsigned_payload(spec.unsigned_payload)
        .with_retry(client::retries());
    builder = with_credentials(builder, &spec);
    builder = with_encryption(builder, &spec, &place)?;
    let mut endpoint = Endpoint::of(&spec, &place)?;
    if spec.unsigned_payload && endpoint.as_ref().is_some_and(Endpoint::is_exposed) {
        let hint = "use an https:// endpoint, or leave unsigned_payload out";
        return Err(place.wrong("unsigned_payload", "without TLS nothing else protects what is sent", hint));
    }
    if let Some(checksum) = upload_checksum(&spec) {
        builder = builder.with_checksum_algorithm(checksum);
    }
    let path_style = spec.path_style.unwrap_or(endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if !path_style {
        // Given an endpoint, the client takes it as it is.
        let prefixed = endpoint.map(|endpoint| endpoint.with_host_prefix(&place.root)).transpose();
        let hint = "an address cannot carry the bucket in front of it: set path_style = true";
        endpoint = prefixed.map_err(|reason| place.wrong("endpoint", reason, hint))?;
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.text());
    }
    let wrong = |error: object_store::Error| place.invalid(error.to_string());
    let options = client::options(&spec, endpoint.as_ref(), &place, persistence)?;
    builder = builder.with_client_options(options.clone());
    if !matches!(spec.credentials, Credentials::Auto | Credentials::Static) {
        let mut asking = builder.clone().with_http_connector(service.wire_for_credentials());
        if spec.credentials != Credentials::WebIdentity {
            asking = asking.with_client_options(client::direct(options));
        }
        let asked = Anew::of(move || Ok(Arc::clone(asking.clone().build()?.credentials())), service.seen());
        builder =
            builder.with_credentials(Renewed::before(asked.map_err(wrong)?, Arc::clone(service.seen())));
    }
    let client = builder.with_http_connector(service.wire()).build().map_err(wrong)?;
    CloudStore::new(client, service, place, &spec, source)
}

/// Gives the client the credentials that were settled on, and no others, since it has an order of its own.
fn with_credentials(mut builder: AmazonS3Builder, spec: &StoreSpec) -> AmazonS3Builder {
    match spec.credentials {
        Credentials::Auto | Credentials::Static => {
            if let (Some(id), Some(secret)) = (&spec.access_key_id, &spec.secret_access_key) {
                builder = builder
                    .with_access_key_id(id.expose_secret())
                    .with_secret_access_key(secret.expose_secret());
            }
            if let Some(token) = &spec.session_token {
                builder = builder.with_token(token.expose_secret());
            }
        }
        Credentials::WebIdentity => {
            let file = spec.web_identity_token_file.as_ref().map(|path| path.display().to_string());
            let role = spec.role_arn.clone().unwrap_or_default();
            builder = builder
                .with_config(AmazonS3ConfigKey::WebIdentityTokenFile, file.unwrap_or_default())
                .with_config(AmazonS3ConfigKey::RoleArn, role)
                .with_config(AmazonS3ConfigKey::RoleSessionName, "highwater");
            if let Some(endpoint) = &spec.sts_endpoint {
                builder = builder.with_config(AmazonS3ConfigKey::StsEndpoint, endpoint);
            }
        }
        Credentials::Container => {
            let uri = spec.container_credentials_uri.clone().unwrap_or_default();
            builder = match &spec.container_token_file {
                Some(file) => {
                    builder.with_config(AmazonS3ConfigKey::ContainerCredentialsFullUri, uri).with_config(
                        AmazonS3ConfigKey::ContainerAuthorizationTokenFile,
                        file.display().to_string(),
                    )
                }
                None => builder.with_config(AmazonS3ConfigKey::ContainerCredentialsRelativeUri, uri),
            };
        }
        Credentials::Instance => {
            if let Some(endpoint) = &spec.metadata_endpoint {
                builder = builder.with_metadata_endpoint(endpoint);
            }
        }
    }
    builder
}

fn with_encryption(
    mut builder: AmazonS3Builder,
    spec: &StoreSpec,
    place: &Place,
) -> Result<AmazonS3Builder, StoreError> {
    // The client names these only in text.
    let key =
        |name: &str| name.parse::<AmazonS3ConfigKey>().map_err(|error| place.invalid(error.to_string()));
    let kms = spec.encryption == Some(Encryption::SseKms);
    if !kms && (spec.kms_key_id.is_some() || spec.bucket_key.is_some()) {
        let option = if spec.kms_key_id.is_some() { "kms_key_id" } else { "bucket_key" };
        return Err(place.wrong(option, "it is about a key of KMS", "set encryption = \"sse-kms\" too"));
    }
    if let Some(encryption) = spec.encryption {
        let algorithm = match encryption {
            Encryption::SseS3 => "AES256",
            Encryption::SseKms => "aws:kms",
        };
        builder = builder.with_config(key("aws_server_side_encryption")?, algorithm);
    }
    if let Some(id) = &spec.kms_key_id {
        builder = builder.with_config(key("aws_sse_kms_key_id")?, id);
    }
    if let Some(enabled) = spec.bucket_key {
        builder = builder.with_bucket_key(enabled);
    }
    Ok(builder)
}

/// The checksum that a put carries. Amazon itself knows CRC-64/NVME, and wants a checksum beside the signature where Object Lock has a default
/// retention; other services may refuse a header that they do not know, so they get one where nothing else guards the content, or if
/// asked for.
fn upload_checksum(spec: &StoreSpec) -> Option<Checksum> {
    match spec.upload_checksum {
        Some(UploadChecksum::None) => None,
        Some(UploadChecksum::Crc64Nvme) => Some(Checksum::CRC64NVME),
        Some(UploadChecksum::Sha256) => Some(Checksum::SHA256),
        None => (spec.unsigned_payload || spec.endpoint.is_none()).then_some(Checksum::CRC64NVME),
    }
}

/// Makes explicit what the environment decides; gives in words where the credentials come from.
pub(crate) fn settle(
    spec: &mut StoreSpec,
    environment: &Environment<'_>,
    store: &str,
) -> Result<String, StoreError> {
    client::settle(spec, environment);
    if spec.region.is_none() {
        spec.region = environment.first_of(&["AWS_REGION", "AWS_DEFAULT_REGION"]).map(|(_, value)| value);
    }
    let wanted = spec.credentials;
    let ways = [
        (Credentials::Static, static_keys as Way),
        (Credentials::WebIdentity, web_identity),
        (Credentials::Container, container),
        (Credentials::Instance, instance),
    ];
    let missing =
        |reason: String| StoreError::MissingCredentials { store: store.to_owned(), reason, hint: HINT };
    for (kind, find) in ways {
        if wanted.allow(kind)
            && let Some(source) = find(spec, environment).map_err(missing)?
        {
            spec.credentials = kind;
            return Ok(source);
        }
    }
    Err(missing("there are no credentials".into()))
}

/// Looks for one kind of credentials, and puts them into the spec; gives in words where they were.
type Way = fn(&mut StoreSpec, &Environment<'_>) -> Result<Option<String>, String>;

fn static_keys(spec: &mut StoreSpec, environment: &Environment<'_>) -> Result<Option<String>, String> {
    match (&spec.access_key_id, &spec.secret_access_key) {
        (Some(_), Some(_)) => {
            let secret = spec.secret_sources.get("secret_access_key");
            let secret = secret.map(|source| format!(", its secret from {source}")).unwrap_or_default();
            return Ok(Some(format!("access_key_id of the configuration{secret}")));
        }
        (Some(_), None) => return Err("access_key_id is set and secret_access_key is not".into()),
        (None, Some(_)) => return Err("secret_access_key is set and access_key_id is not".into()),
        (None, None) => {}
    }
    match (environment.secret("AWS_ACCESS_KEY_ID"), environment.secret("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            (spec.access_key_id, spec.secret_access_key) = (Some(id), Some(secret));
            spec.session_token = environment.secret("AWS_SESSION_TOKEN");
            Ok(Some("AWS_ACCESS_KEY_ID in the environment".into()))
        }
        (Some(_), None) => Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not".into()),
        (None, Some(_)) => Err("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not".into()),
        (None, None) => Ok(None),
    }
}

fn web_identity(spec: &mut StoreSpec, environment: &Environment<'_>) -> Result<Option<String>, String> {
    let from_environment = environment.get("AWS_WEB_IDENTITY_TOKEN_FILE").map(Into::into);
    let Some(file) = spec.web_identity_token_file.clone().or(from_environment) else { return Ok(None) };
    let Some(role) = spec.role_arn.clone().or_else(|| environment.get("AWS_ROLE_ARN")) else {
        return Err("there is a web identity, and neither role_arn nor AWS_ROLE_ARN names its role".into());
    };
    let source = format!("the web identity in {}, as {role}", file.display());
    (spec.web_identity_token_file, spec.role_arn) = (Some(file), Some(role));
    spec.sts_endpoint = spec.sts_endpoint.take().or_else(|| environment.get("AWS_ENDPOINT_URL_STS"));
    Ok(Some(source))
}

fn container(spec: &mut StoreSpec, environment: &Environment<'_>) -> Result<Option<String>, String> {
    if spec.container_credentials_uri.is_none() {
        let full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        let relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let token_file = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
        match (relative, full, token_file) {
            (Some(relative), _, _) => spec.container_credentials_uri = Some(relative),
            (None, Some(full), Some(file)) => {
                spec.container_credentials_uri = Some(full);
                spec.container_token_file = Some(file.into());
            }
            (None, Some(_), None) => {
                return Err("AWS_CONTAINER_CREDENTIALS_FULL_URI is set and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not".into());
            }
            (None, None, _) => {}
        }
    }
    Ok(spec.container_credentials_uri.as_ref().map(|uri| format!("the container's at {uri}")))
}

fn instance(spec: &mut StoreSpec, environment: &Environment<'_>) -> Result<Option<String>, String> {
    let disabled = environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text == "true");
    let named = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT");
    spec.metadata_endpoint = spec.metadata_endpoint.take().or(named);
    let there = spec.metadata_endpoint.is_some() || environment.machine_is("sys_vendor", "Amazon EC2");
    let asked = spec.credentials == Credentials::Instance;
    Ok((asked || there && !disabled).then(|| "the role of this machine".into()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A pair is never made of halves: a key of one account with the token of another would be refused for a reason nobody finds.
    #[test]
    fn keys_come_from_one_source() {
        let look_up = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("environment".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("its secret".to_owned()),
            "AWS_SESSION_TOKEN" => Some("its token".to_owned()),
            "AWS_REGION" => Some("eu-central-1".to_owned()),
            _ => None,
        };
        let no_firmware = |_: &str| None;
        let environment = Environment::new(&look_up, &no_firmware);
        let own = |text: &str| Some(text.to_owned().into());
        let mut spec = StoreSpec::default();
        settle(&mut spec, &environment, "s3://b").unwrap();
        let secrets = spec.secrets();
        assert_eq!(spec.region.as_deref(), Some("eu-central-1"));
        assert_eq!(
            (secrets["access_key_id"].as_str(), secrets["session_token"].as_str()),
            ("environment", "its token")
        );
        let mut spec =
            StoreSpec { access_key_id: own("a"), secret_access_key: own("b"), ..StoreSpec::default() };
        settle(&mut spec, &environment, "s3://b").unwrap();
        assert_eq!(spec.secrets().len(), 2);
        let mut half = StoreSpec { access_key_id: own("a"), ..StoreSpec::default() };
        let error = settle(&mut half, &environment, "s3://b").unwrap_err();
        assert!(error.to_string().contains("secret_access_key"), "{error}");
    }

    /// The order is that of the head of this file, and a kind that is named passes over what comes before it.
    #[test]
    fn content_that_is_not_signed_has_a_checksum() {
        let of = |endpoint: Option<&str>, unsigned_payload, upload_checksum| {
            let endpoint = endpoint.map(str::to_owned);
            super::upload_checksum(&StoreSpec {
                endpoint,
                unsigned_payload,
                upload_checksum,
                ..StoreSpec::default()
            })
        };
        let elsewhere = Some("https://h");
        assert_eq!(of(None, false, None), Some(Checksum::CRC64NVME));
        assert_eq!(of(elsewhere, false, None), None);
        assert_eq!(of(elsewhere, true, None), Some(Checksum::CRC64NVME));
        assert_eq!(of(elsewhere, true, Some(UploadChecksum::Sha256)), Some(Checksum::SHA256));
        assert_eq!(of(None, true, Some(UploadChecksum::None)), None);
    }

    #[test]
    fn the_first_kind_that_is_found_wins() {
        let mut variables = std::collections::BTreeMap::from([
            ("AWS_ACCESS_KEY_ID", "k"),
            ("AWS_SECRET_ACCESS_KEY", "s"),
            ("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"),
            ("AWS_ROLE_ARN", "arn:role"),
            ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
            ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/pod"),
        ]);
        let firmware = |name: &str| (name == "sys_vendor").then(|| "Amazon EC2".to_owned());
        let settled = |variables: &std::collections::BTreeMap<&str, &str>, credentials| {
            let look_up = |name: &str| variables.get(name).map(|text| (*text).to_owned());
            let mut spec = StoreSpec { credentials, ..StoreSpec::default() };
            let source = settle(&mut spec, &Environment::new(&look_up, &firmware), "s3://b").unwrap();
            (spec.credentials, source)
        };
        let auto = Credentials::Auto;
        assert_eq!(settled(&variables, Credentials::Instance).0, Credentials::Instance);
        assert_eq!(settled(&variables, Credentials::Container).0, Credentials::Container);
        let (kind, source) = settled(&variables, auto);
        assert_eq!((kind, source.as_str()), (Credentials::Static, "AWS_ACCESS_KEY_ID in the environment"));
        variables.retain(|name, _| !name.ends_with("KEY_ID") && !name.ends_with("ACCESS_KEY"));
        let (kind, source) = settled(&variables, auto);
        assert_eq!(
            (kind, source.as_str()),
            (Credentials::WebIdentity, "the web identity in /token, as arn:role")
        );
        variables.remove("AWS_WEB_IDENTITY_TOKEN_FILE");
        assert_eq!(settled(&variables, auto).0, Credentials::Container);
        variables.remove("AWS_CONTAINER_CREDENTIALS_FULL_URI");
        assert_eq!(settled(&variables, auto).0, Credentials::Instance);
        variables.insert("AWS_EC2_METADATA_DISABLED", "true");
        let look_up = |name: &str| variables.get(name).map(|text| (*text).to_owned());
        let error =
            settle(&mut StoreSpec::default(), &Environment::new(&look_up, &firmware), "s3://b").unwrap_err();
        assert!(error.to_string().contains("there are no credentials"), "{error}");
    }
}
