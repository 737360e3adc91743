//! What all providers' clients have in common: how a URL is read, where a service may be, how long anything may take.

use std::net::IpAddr;
use std::time::Duration;

use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};
use url::Url;

use crate::store::{StoreError, StoreSpec};

/// To open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Without any progress; a put of 32 MiB counts as one step, so this allows 270 kB/s.
const READ_TIMEOUT: Duration = Duration::from_secs(120);
/// For one attempt, body included.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
/// For all attempts of a request; what is longer is for the caller to decide.
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);
const MAX_RETRIES: usize = 8;

/// Where in a service a repository lies.
pub(super) struct Place {
    /// The bucket or container.
    pub(super) root: String,
    /// What our paths are appended to: empty, or ending in `/`.
    pub(super) prefix: String,
    /// The URL, for messages.
    pub(super) name: String,
    /// The URL as it was given, without anything secret.
    url: String,
}

impl Place {
    /// Reads `scheme://root/prefix`.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`].
    pub(super) fn of(url: &Url) -> Result<Self, StoreError> {
        let scheme = url.scheme();
        let invalid = |reason: String| StoreError::InvalidUrl { url: redacted(url), reason };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("credentials do not belong into a URL".into()));
        }
        let root_is = if scheme == "az" { "container" } else { "bucket" };
        if url.query().is_some() || url.fragment().is_some() || url.port().is_some() {
            return Err(invalid(format!(
                "it must be {scheme}://{root_is}/prefix; other options are keys beside it"
            )));
        }
        let root = url.host_str().filter(|root| !root.is_empty());
        let root = root.ok_or_else(|| invalid(format!("it names no {root_is}")))?.to_owned();
        let prefix = Path::from_url_path(url.path()).map_err(|error| invalid(error.to_string()))?;
        let (name, prefix) = match prefix.as_ref() {
            "" => (format!("{scheme}://{root}"), String::new()),
            prefix => (format!("{scheme}://{root}/{prefix}"), format!("{prefix}/")),
        };
        Ok(Self { root, prefix, name, url: redacted(url) })
    }

    /// The error that this URL, or an option beside it, cannot be used.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> StoreError {
        StoreError::InvalidUrl { url: self.url.clone(), reason: reason.into() }
    }
}

/// How requests are tried again.
pub(super) fn retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: MAX_RETRIES, retry_timeout: RETRY_TIMEOUT }
}

/// Time-outs, and whether plain HTTP is allowed. They replace a builder's own options, so everything about connections is here.
pub(super) fn options(endpoint: Option<&Endpoint>) -> ClientOptions {
    ClientOptions::new()
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.url.scheme() == "http"))
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_read_timeout(READ_TIMEOUT)
        .with_timeout(REQUEST_TIMEOUT)
}

/// A service's address.
pub(super) struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// The one that is configured, if any.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`].
    pub(super) fn of(spec: &StoreSpec, place: &Place) -> Result<Option<Self>, StoreError> {
        let parsed = spec.endpoint.as_deref().map(|text| Self::parse(text, spec.allow_http));
        parsed.transpose().map_err(|reason| place.invalid(reason))
    }

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

    /// With the bucket in front of the host's name.
    ///
    /// # Errors
    /// An address cannot carry it.
    pub(super) fn with_host_prefix(mut self, bucket: &str) -> Result<Self, String> {
        let host = format!("{bucket}.{}", self.url.host_str().unwrap_or_default());
        self.url.set_host(Some(&host)).map_err(|error| format!("endpoint host {host:?}: {error}"))?;
        Ok(self)
    }

    /// What a client wants.
    pub(super) fn text(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
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

fn redacted(url: &Url) -> String {
    let mut url = url.clone();
    if url.set_password(None).is_err() || url.set_username("").is_err() {
        return format!("{}://…", url.scheme());
    }
    url.to_string()
}
