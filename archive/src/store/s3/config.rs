//! From a URL and the options beside it to a client. The environment is looked at here, and for secrets and region only.

use std::net::IpAddr;
use std::time::Duration;

use object_store::aws::{AmazonS3, AmazonS3Builder, S3ConditionalPut};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::store::{StoreError, StoreSpec};

/// The region that requests are signed for where nobody names one; most other services accept any.
const DEFAULT_REGION: &str = "us-east-1";
/// To open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without any progress; a put of 32 MiB counts as one step, so this allows 270 kB/s.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// For one attempt, body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// For all attempts of a request; what is longer is for the caller to decide.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_RETRIES: usize = 8;

pub(super) struct Opened {
    pub(super) client: AmazonS3,
    pub(super) prefix: String,
    pub(super) name: String,
}

pub(super) fn open(url: &Url, spec: &StoreSpec) -> Result<Opened, StoreError> {
    let invalid = |reason: String| StoreError::InvalidUrl { url: redacted(url), reason };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(invalid("credentials do not belong into a URL".into()));
    }
    if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
        return Err(invalid("it must be s3://bucket/prefix; other options are keys beside it".into()));
    }
    let bucket = url.host_str().filter(|bucket| !bucket.is_empty());
    let bucket = bucket.ok_or_else(|| invalid("it names no bucket".into()))?;
    let prefix = Path::from_url_path(url.path()).map_err(|error| invalid(error.to_string()))?;
    let name = match prefix.as_ref() {
        "" => format!("s3://{bucket}"),
        prefix => format!("s3://{bucket}/{prefix}"),
    };

    let credentials = Credentials::find(spec, &name)?;
    let region =
        spec.region.clone().or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(bucket)
        .with_region(region.unwrap_or_else(|| DEFAULT_REGION.to_owned()))
        .with_access_key_id(credentials.access_key_id.expose_secret())
        .with_secret_access_key(credentials.secret_access_key.expose_secret())
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_retry(RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: MAX_RETRIES,
            retry_timeout: RETRY_TIMEOUT,
        });
    if let Some(token) = &credentials.session_token {
        builder = builder.with_token(token.expose_secret());
    }

    let path_style = spec.path_style.unwrap_or(spec.endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!path_style);
    let mut plain_http = false;
    if let Some(endpoint) = &spec.endpoint {
        let endpoint = Endpoint::parse(endpoint, spec.allow_http).map_err(invalid)?;
        plain_http = endpoint.url.scheme() == "http";
        builder = builder.with_endpoint(endpoint.for_bucket(bucket, path_style).map_err(invalid)?);
    }
    // The options of the client replace the builder's own, so this one goes in through them.
    let options = ClientOptions::new()
        .with_allow_http(plain_http)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT);
    let client = builder.with_client_options(options).build().map_err(|error| invalid(error.to_string()))?;
    let prefix = if prefix.as_ref().is_empty() { String::new() } else { format!("{prefix}/") };
    Ok(Opened { client, prefix, name })
}

struct Credentials {
    access_key_id: SecretString,
    secret_access_key: SecretString,
    session_token: Option<SecretString>,
}

impl Credentials {
    /// Both keys from the options, or both from the environment: a pair is never made of halves.
    fn find(spec: &StoreSpec, store: &str) -> Result<Self, StoreError> {
        let missing = |reason: &str| StoreError::MissingCredentials {
            store: store.to_owned(),
            reason: reason.to_owned(),
        };
        match (&spec.access_key_id, &spec.secret_access_key) {
            (Some(access_key_id), Some(secret_access_key)) => Ok(Self {
                access_key_id: access_key_id.clone(),
                secret_access_key: secret_access_key.clone(),
                session_token: spec.session_token.clone(),
            }),
            (Some(_), None) => Err(missing("access_key_id is set and secret_access_key is not")),
            (None, Some(_)) => Err(missing("secret_access_key is set and access_key_id is not")),
            (None, None) => match (variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY")) {
                (Some(access_key_id), Some(secret_access_key)) => Ok(Self {
                    access_key_id: access_key_id.into(),
                    secret_access_key: secret_access_key.into(),
                    session_token: variable("AWS_SESSION_TOKEN").map(SecretString::from),
                }),
                (Some(_), None) => Err(missing("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")),
                (None, Some(_)) => Err(missing("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")),
                (None, None) => Err(missing("there are no credentials")),
            },
        }
    }
}

/// A service's address.
struct Endpoint {
    url: Url,
}

impl Endpoint {
    fn parse(text: &str, allow_http: bool) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("endpoint {text:?}: {error}"))?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials do not belong into an endpoint".into());
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(format!("endpoint {text:?}: it must be https://host[:port]"));
        }
        match url.scheme() {
            "https" => {}
            "http" if allow_http || is_loopback(&url) => {}
            "http" => {
                return Err(format!(
                    "endpoint {text:?}: plain http is allowed on the loopback interface only, unless allow_http is set"
                ));
            }
            _ => return Err(format!("endpoint {text:?}: it must be https://host[:port]")),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(format!("endpoint {text:?}: it names no host"));
        }
        Ok(Self { url })
    }

    /// What the client wants: with the bucket in the host name where that is the style.
    fn for_bucket(mut self, bucket: &str, path_style: bool) -> Result<String, String> {
        if !path_style {
            let host = format!("{bucket}.{}", self.url.host_str().unwrap_or_default());
            self.url.set_host(Some(&host)).map_err(|error| format!("endpoint host {host:?}: {error}"))?;
        }
        Ok(self.url.as_str().trim_end_matches('/').to_owned())
    }
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

/// An environment variable that is set to something.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    if url.set_password(None).is_err() || url.set_username("").is_err() {
        return format!("{}://…", url.scheme());
    }
    url.to_string()
}
