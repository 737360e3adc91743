//! What all providers' clients have in common: how a URL is read, where a service may be, by which way it is reached.

use std::net::IpAddr;
use std::path::Path as FilePath;
use std::time::Duration;

use object_store::path::Path;
use object_store::{Certificate, ClientOptions, RetryConfig};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::Persistence;
use crate::store::spec::{Environment, shown};
use crate::store::{StoreError, StoreSpec};

/// To open a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Every host, as a list of what is reached without a proxy: a star is names alone.
const EVERYWHERE: &str = "*,0.0.0.0/0,::/0";

/// Where in a service a repository lies.
pub(super) struct Place {
    /// The bucket or container.
    pub(super) root: String,
    /// What our paths are appended to: empty, or ending in `/`.
    pub(super) prefix: String,
    /// The URL, for messages.
    pub(super) name: String,
    /// Scheme and host of the URL: what else was given may be secret.
    url: String,
}

impl Place {
    /// Reads `scheme://root/prefix`.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`].
    pub(super) fn of(url: &Url) -> Result<Self, StoreError> {
        let scheme = url.scheme();
        let invalid = |reason: String| StoreError::InvalidUrl { url: shown(url.as_str()), reason };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(invalid("credentials do not belong into a URL".into()));
        }
        let root_is = if scheme == "az" { "container" } else { "bucket" };
        if let Some((host, port)) = url.host_str().zip(url.port()) {
            return Err(invalid(format!(
                "it must be {scheme}://{root_is}/prefix; where a service listens is the key endpoint beside it, such as \
                 https://{host}:{port}"
            )));
        }
        if url.query().is_some() || url.fragment().is_some() {
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
        Ok(Self { root, prefix, name, url: shown(url.as_str()) })
    }

    /// The error that this URL, or an option beside it, cannot be used.
    pub(super) fn invalid(&self, reason: impl Into<String>) -> StoreError {
        StoreError::InvalidUrl { url: self.url.clone(), reason: reason.into() }
    }

    /// The error that an option beside the URL cannot be used, and what to do.
    pub(super) fn wrong(
        &self,
        option: &'static str,
        reason: impl Into<String>,
        hint: impl Into<String>,
    ) -> StoreError {
        let (store, reason, hint) = (self.name.clone(), reason.into(), hint.into());
        StoreError::InvalidOption { store, option, reason, hint }
    }
}

/// The client's own retries are off: they would send what was signed once ([`super::service`]).
pub(super) fn retries() -> RetryConfig {
    RetryConfig { max_retries: 0, ..RetryConfig::default() }
}

/// Makes explicit which proxy the environment names, as curl reads it: by the scheme of the service, then for all.
pub(super) fn settle(spec: &mut StoreSpec, environment: &Environment<'_>) {
    let plain = spec.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
    let by_scheme: &[&'static str] = if plain { &["http_proxy"] } else { &["HTTPS_PROXY", "https_proxy"] };
    if spec.proxy.is_none() {
        let found =
            environment.first_of(by_scheme).or_else(|| environment.first_of(&["ALL_PROXY", "all_proxy"]));
        spec.proxy = found.map(|(_, proxy)| proxy.into());
    }
    if spec.no_proxy.is_none() {
        spec.no_proxy = environment.first_of(&["NO_PROXY", "no_proxy"]).map(|(_, hosts)| hosts);
    }
}

/// How long connecting may take, trust, proxy, and whether plain HTTP is allowed. They replace a builder's own options, so everything about
/// connections is here; what asks for tokens connects in the same way.
///
/// # Errors
/// [`StoreError::InvalidOption`].
pub(super) fn options(
    spec: &StoreSpec,
    endpoint: Option<&Endpoint>,
    place: &Place,
    persistence: Persistence,
) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new()
        .with_allow_http(endpoint.is_some_and(|endpoint| endpoint.url.scheme() == "http"))
        .with_connect_timeout(CONNECT_TIMEOUT.min(persistence.attempt))
        // What else may take how long, [`super::line`] knows.
        .with_read_timeout_disabled()
        .with_timeout_disabled();
    if let Some(path) = &spec.ca_file {
        let wrong = |reason| {
            let reason = format!("{}: {reason}", path.display());
            place.wrong(
                "ca_file",
                reason,
                "it is a PEM file with the certificates of the authorities to trust",
            )
        };
        for certificate in certificates(path).map_err(wrong)? {
            options = options.with_root_certificate(certificate);
        }
    }
    // Left to itself, the client would look for one in the environment, in another way.
    let Some(proxy) = &spec.proxy else { return Ok(direct(options)) };
    if !is_proxy(proxy) {
        // The text may hold a password.
        return Err(place.wrong(
            "proxy",
            "it is not the URL of a proxy",
            "use http://host:port or https://host:port",
        ));
    }
    let excluded = match spec.no_proxy.as_deref().unwrap_or_default() {
        "*" => EVERYWHERE,
        hosts => hosts,
    };
    Ok(options.with_proxy_url(proxy.expose_secret()).with_proxy_excludes(excluded))
}

/// The same without any proxy, whatever the environment says: as metadata services of machines and containers must be asked, wherever they
/// are, since they answer the host that asks.
pub(super) fn direct(options: ClientOptions) -> ClientOptions {
    // Only a client that is told of a proxy does not look for one itself; this one is for no host.
    options.with_proxy_url("http://localhost").with_proxy_excludes(EVERYWHERE)
}

/// At least one certificate from a file.
fn certificates(path: &FilePath) -> Result<Vec<Certificate>, String> {
    let pem = std::fs::read(path).map_err(|error| error.to_string())?;
    match Certificate::from_pem_bundle(&pem) {
        Ok(found) if found.is_empty() => Err("it holds no certificate".into()),
        Ok(found) => Ok(found),
        Err(error) => Err(error.to_string()),
    }
}

fn is_proxy(text: &SecretString) -> bool {
    Url::parse(text.expose_secret()).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty())
    })
}

/// A service's address.
pub(super) struct Endpoint {
    url: Url,
}

impl Endpoint {
    /// The one that is configured, if any.
    ///
    /// # Errors
    /// [`StoreError::InvalidOption`].
    pub(super) fn of(spec: &StoreSpec, place: &Place) -> Result<Option<Self>, StoreError> {
        let parsed = spec.endpoint.as_deref().map(|text| Self::parse(text, spec.allow_http));
        parsed.transpose().map_err(|(reason, hint)| place.wrong("endpoint", reason, hint))
    }

    /// The error is a reason, without what may be secret of the text, and a hint.
    fn parse(text: &str, allow_http: bool) -> Result<Self, (String, &'static str)> {
        const FORM: &str = "write it as https://host or https://host:port, without the bucket";
        let told = shown(text);
        let wrong = |reason: &str| Err((format!("{told:?} {reason}"), FORM));
        let Ok(url) = Url::parse(text) else { return wrong("is no URL") };
        if !url.username().is_empty() || url.password().is_some() {
            return wrong("holds credentials, which have keys of their own");
        }
        if url.query().is_some() || url.fragment().is_some() {
            return wrong("is more than the address of a service");
        }
        match url.scheme() {
            "https" => {}
            "http" if allow_http || is_loopback(&url) => {}
            "http" => {
                let hint =
                    "use https://, with ca_file where the authority is your own; or set allow_http = true";
                return Err((format!("{told:?} is plain http, which leaves this host"), hint));
            }
            _ => return wrong("is no https:// URL"),
        }
        if url.host_str().is_none_or(str::is_empty) {
            return wrong("names no host");
        }
        Ok(Self { url })
    }

    /// With the bucket in front of the host's name.
    ///
    /// # Errors
    /// An address cannot carry it.
    pub(super) fn with_host_prefix(mut self, bucket: &str) -> Result<Self, String> {
        let host = format!("{bucket}.{}", self.url.host_str().unwrap_or_default());
        self.url.set_host(Some(&host)).map_err(|error| format!("{host:?}: {error}"))?;
        Ok(self)
    }

    /// Whether what is sent there passes a network without TLS.
    pub(super) fn is_exposed(&self) -> bool {
        self.url.scheme() == "http" && !is_loopback(&self.url)
    }

    /// What a client wants.
    pub(super) fn text(&self) -> &str {
        self.url.as_str().trim_end_matches('/')
    }
}

pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(url::Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        None => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_the_one_for_the_scheme() {
        let look_up = |name: &str| match name {
            "HTTPS_PROXY" => Some("http://secure:3128".to_owned()),
            "http_proxy" => Some("http://plain:3128".to_owned()),
            "NO_PROXY" => Some("localhost".to_owned()),
            _ => None,
        };
        let settled = |mut spec: StoreSpec| {
            settle(&mut spec, &Environment::new(&look_up, &|_| None));
            (spec.proxy.unwrap().expose_secret().to_owned(), spec.no_proxy.unwrap())
        };
        let at = |endpoint: &str| StoreSpec { endpoint: Some(endpoint.into()), ..StoreSpec::default() };
        assert_eq!(settled(StoreSpec::default()).0, "http://secure:3128");
        assert_eq!(settled(at("http://127.0.0.1:1")).0, "http://plain:3128");
        let own = StoreSpec {
            proxy: Some("http://own".to_owned().into()),
            no_proxy: Some("a".into()),
            ..at("https://h")
        };
        assert_eq!(settled(own), ("http://own".to_owned(), "a".to_owned()));
    }
}
