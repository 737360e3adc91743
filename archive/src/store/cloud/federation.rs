//! Google's workload identity federation: a token of somebody else's for one of Google's.
//!
//! A file of the kind `external_account`, which `gcloud iam workload-identity-pools create-cred-config` writes and which holds no secret, says
//! where the workload's own token is (a file that is written anew by whoever hands it out, or a URL that gives one) and where to show it. Each time a
//! token of Google's is needed, that token is read anew and exchanged at the token service (RFC 8693); where the file names a service account
//! to act as, what came is shown for a token of that account. Nothing is kept here: how long a token serves is for [`super::renewed`].
//!
//! Who can write that file decides whom the token is shown to. So whatever carries one goes by TLS, or stays on this host; only a metadata service
//! may be asked in the clear, which by its address is no farther away than the machine's own.

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use object_store::client::{HttpClient, HttpConnector as _, HttpError, HttpErrorKind, HttpRequest};
use object_store::gcp::GcpCredential;
use object_store::{ClientOptions, CredentialProvider};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use url::{Host, Url};

use super::client::{direct, is_loopback};
use super::service::Service;
use super::wire::Seen;
use crate::clock::{Clock as _, SystemClock};
use crate::store::spec::shown;

/// Google's token service.
const TOKEN_SERVICE: &str = "https://sts.googleapis.com/v1/token";
/// What a token is good for: as that of a service account's key, whatever its roles allow.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";
/// How long a service account's token is asked for, in seconds.
const LIFE_SECS: u64 = 3600;
/// The longest token that is read, in bytes.
const MAX_TOKEN_BYTES: u64 = 64 << 10;
/// How much of a token service's own words is passed on, in characters.
const MAX_TOLD_CHARS: usize = 300;

/// The file as it is written.
#[derive(Deserialize)]
struct Written {
    audience: String,
    subject_token_type: String,
    token_url: Option<String>,
    credential_source: WrittenSource,
    service_account_impersonation_url: Option<String>,
    service_account_impersonation: Option<WrittenImpersonation>,
    universe_domain: Option<String>,
    workforce_pool_user_project: Option<String>,
    client_id: Option<String>,
}

#[derive(Deserialize)]
struct WrittenSource {
    file: Option<PathBuf>,
    url: Option<String>,
    #[serde(default)]
    headers: HashMap<String, String>,
    format: Option<WrittenFormat>,
    environment_id: Option<String>,
    executable: Option<Value>,
    certificate: Option<Value>,
}

#[derive(Deserialize)]
struct WrittenFormat {
    #[serde(rename = "type")]
    kind: String,
    subject_token_field_name: Option<String>,
}

#[derive(Deserialize)]
struct WrittenImpersonation {
    token_lifetime_seconds: Option<u64>,
}

/// Whose token is shown where.
#[derive(Clone)]
pub(super) struct Federation {
    audience: String,
    kind: String,
    exchange: Url,
    account: Option<Account>,
    source: Source,
    /// The field of a JSON object that the token is in, where it is not the whole text.
    field: Option<String>,
}

/// The service account to act as.
#[derive(Clone)]
struct Account {
    url: Url,
    life_secs: u64,
}

/// Where the workload's own token is.
#[derive(Clone)]
enum Source {
    File(PathBuf),
    Url(Url, HashMap<String, String>),
}

// A header may hold a bearer, and a URL's query a key.
impl Debug for Federation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Federation").field(&self.told()).finish()
    }
}

impl Federation {
    /// Reads a file of the kind `external_account`; the error is a reason that quotes nothing which may be secret.
    pub(super) fn of(text: &SecretString) -> Result<Self, String> {
        let written: Written = serde_json::from_str(text.expose_secret()).map_err(|error| {
            let at = (error.line(), error.column());
            format!(
                "it is no external_account of Google's ({:?} at line {}, column {})",
                error.classify(),
                at.0,
                at.1
            )
        })?;
        if written.universe_domain.as_deref().is_some_and(|domain| domain != "googleapis.com") {
            return Err("it is of another universe than googleapis.com".into());
        }
        if written.workforce_pool_user_project.is_some() || written.client_id.is_some() {
            return Err("it is of a workforce pool, which lets people in and no workload".into());
        }
        let exchange = written.token_url.as_deref().unwrap_or(TOKEN_SERVICE);
        let exchange = safe("token_url", exchange, is_loopback)?;
        let life_secs = written.service_account_impersonation.and_then(|asked| asked.token_lifetime_seconds);
        let account = written.service_account_impersonation_url.as_deref().map(|url| {
            let url = safe("service_account_impersonation_url", url, is_loopback)?;
            Ok::<_, String>(Account { url, life_secs: life_secs.unwrap_or(LIFE_SECS) })
        });
        let (source, field) = source(written.credential_source)?;
        Ok(Self {
            audience: written.audience,
            kind: written.subject_token_type,
            exchange,
            account: account.transpose()?,
            source,
            field,
        })
    }

    /// Whose identity it is, in words.
    pub(super) fn told(&self) -> String {
        let subject = match &self.source {
            Source::File(path) => format!("in {}", path.display()),
            Source::Url(url, _) => format!("at {}", shown(url.as_str())),
        };
        let account = self.account.as_ref().and_then(Account::name);
        let account = account.map(|name| format!(", as {name}")).unwrap_or_default();
        format!("the web identity {subject}{account}")
    }
}

impl Account {
    /// `…/serviceAccounts/NAME:generateAccessToken`.
    fn name(&self) -> Option<&str> {
        self.url.path().rsplit('/').next()?.strip_suffix(":generateAccessToken")
    }
}

/// Where the token is, and in which field of it.
fn source(written: WrittenSource) -> Result<(Source, Option<String>), String> {
    if written.environment_id.is_some() {
        return Err(
            "its token is one of AWS (environment_id); have the machine's identity write a token into a file"
                .into(),
        );
    }
    if written.executable.is_some() {
        return Err("its token comes from a program (executable), which is never run; have it write the token into a file".into());
    }
    if written.certificate.is_some() {
        return Err("its token is a certificate, which is not supported; use a file or a URL".into());
    }
    let field = match written.format {
        None => None,
        Some(format) => match (format.kind.as_str(), format.subject_token_field_name) {
            ("text", _) => None,
            ("json", Some(field)) => Some(field),
            ("json", None) => {
                return Err("its format is json, and no subject_token_field_name says where in it".into());
            }
            (_, _) => return Err("the format of its token is neither text nor json".into()),
        },
    };
    let source = match (written.file, written.url) {
        (Some(path), None) if path.is_absolute() => Source::File(path),
        (Some(_), None) => return Err("the path of its token's file is not absolute".into()),
        (None, Some(url)) => Source::Url(safe("credential_source.url", &url, is_near)?, written.headers),
        (_, _) => return Err("its credential_source names neither a file nor a URL, or both".into()),
    };
    Ok((source, field))
}

/// A URL that a token may be sent to or come from: by TLS, or in the clear where that is `near`.
fn safe(option: &str, text: &str, near: fn(&Url) -> bool) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|_| format!("{option} is no URL"))?;
    let named = url.host_str().is_some_and(|host| !host.is_empty());
    match url.scheme() {
        "https" if named => Ok(url),
        "http" if near(&url) => Ok(url),
        _ => Err(format!("{option} is no https:// URL, and a token would leave this host in the clear")),
    }
}

/// Whether this is the host itself, or a metadata service by its link-local address.
fn is_near(url: &Url) -> bool {
    is_loopback(url) || matches!(url.host(), Some(Host::Ipv4(address)) if address.is_link_local())
}

/// Exchanges a workload's token for one of Google's, each time it is asked.
pub(super) struct Exchange {
    federation: Federation,
    /// To the token service, as the store is reached.
    google: HttpClient,
    /// To where the service account's tokens are, likewise.
    account: HttpClient,
    /// To whoever hands out the workload's token, which may answer only the host that asks.
    near: HttpClient,
    seen: Arc<Seen>,
}

impl Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").field("federation", &self.federation).finish_non_exhaustive()
    }
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
enum NoToken {
    #[error("the workload's token in {}: {reason}", path.display())]
    File { path: PathBuf, reason: String },
    #[error("{what} at {at}: status code: {status} {told}")]
    Refused { what: &'static str, at: String, status: u16, told: String },
    #[error("{what} at {at}: {reason}")]
    Unreadable { what: &'static str, at: String, reason: &'static str },
    #[error("{what} at {at}")]
    Unreachable { what: &'static str, at: String, source: HttpError },
}

impl From<NoToken> for object_store::Error {
    fn from(error: NoToken) -> Self {
        Self::Generic { store: "Google", source: error.into() }
    }
}

/// One request, and what it is about.
struct Question<'a> {
    what: &'static str,
    url: &'a Url,
    method: &'static str,
    headers: HashMap<String, String>,
    body: Bytes,
}

impl Exchange {
    pub(super) fn new(
        federation: Federation,
        options: &ClientOptions,
        service: &Service,
    ) -> object_store::Result<Self> {
        let wire = service.wire_for_credentials();
        // Each URL was held against what may be asked in the clear; what is near
        // is asked directly, for a proxy would be shown the token.
        let client = |url: &Url| {
            let options = if is_near(url) { direct(options.clone()) } else { options.clone() };
            wire.connect(&options.with_allow_http(url.scheme() == "http"))
        };
        let google = client(&federation.exchange)?;
        let account = match &federation.account {
            None => google.clone(),
            Some(account) => client(&account.url)?,
        };
        let near = match &federation.source {
            Source::File(_) => google.clone(),
            Source::Url(url, _) => client(url)?,
        };
        Ok(Self { federation, google, account, near, seen: Arc::clone(service.seen()) })
    }

    /// The workload's own token, as it is now.
    async fn subject(&self) -> Result<String, NoToken> {
        let (text, unreadable): (String, Box<dyn Fn(&'static str) -> NoToken + Send + Sync>) =
            match &self.federation.source {
                Source::File(path) => {
                    let told = path.clone();
                    let wrong = move |reason: String| NoToken::File { path: told.clone(), reason };
                    let text = read(path).map_err(|error| wrong(error.to_string()))?;
                    (text, Box::new(move |reason| wrong(reason.to_owned())))
                }
                Source::Url(url, headers) => {
                    let what = "the workload's token";
                    let headers = headers.clone();
                    let body = Bytes::new();
                    let question = Question { what, url, method: "GET", headers, body };
                    let at = shown(url.as_str());
                    let unreadable = move |reason| NoToken::Unreadable { what, at: at.clone(), reason };
                    let answer = ask(&self.near, question).await?;
                    let text = String::from_utf8(answer.to_vec()).map_err(|_| unreadable("it is no text"))?;
                    (text, Box::new(unreadable))
                }
            };
        let token = match &self.federation.field {
            None => text,
            Some(field) => {
                let json: Value = serde_json::from_str(&text).map_err(|_| unreadable("it is no JSON"))?;
                let token = json.get(field).and_then(Value::as_str);
                token.ok_or_else(|| unreadable("the field of its format is not there"))?.to_owned()
            }
        };
        let token = token.trim();
        if token.is_empty() { Err(unreadable("it is empty")) } else { Ok(token.to_owned()) }
    }

    /// A token of Google's for it, and how long that is good.
    async fn exchanged(&self, subject: &str) -> Result<(String, Duration), NoToken> {
        let Federation { audience, kind, exchange, .. } = &self.federation;
        let what = "the token service";
        let body = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
            .append_pair("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
            .append_pair("audience", audience)
            .append_pair("scope", SCOPE)
            .append_pair("subject_token_type", kind)
            .append_pair("subject_token", subject)
            .finish();
        let headers = [("content-type".to_owned(), "application/x-www-form-urlencoded".to_owned())].into();
        let question = Question { what, url: exchange, method: "POST", headers, body: body.into() };
        let answer = ask(&self.google, question).await?;
        let json: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let token = json.get("access_token").and_then(Value::as_str);
        let life =
            json.get("expires_in").and_then(|life| life.as_u64().or_else(|| life.as_str()?.parse().ok()));
        let unreadable = || NoToken::Unreadable {
            what,
            at: shown(exchange.as_str()),
            reason: "its answer is no token with a time that it is good",
        };
        let (token, life) = token.zip(life).ok_or_else(unreadable)?;
        Ok((token.to_owned(), Duration::from_secs(life)))
    }

    /// A token of the service account, for one of the workload's at Google, and how long that is good.
    async fn acted_as(&self, account: &Account, token: &str) -> Result<(String, Duration), NoToken> {
        let what = "the service account to act as";
        let headers = [
            ("content-type".to_owned(), "application/json".to_owned()),
            ("authorization".to_owned(), format!("Bearer {token}")),
        ];
        let body = json!({ "scope": [SCOPE], "lifetime": format!("{}s", account.life_secs) }).to_string();
        let question =
            Question { what, url: &account.url, method: "POST", headers: headers.into(), body: body.into() };
        let answer = ask(&self.account, question).await?;
        let json: Value = serde_json::from_slice(&answer).unwrap_or_default();
        let token = json.get("accessToken").and_then(Value::as_str);
        let ends = json.get("expireTime").and_then(Value::as_str);
        let ends = ends.and_then(|text| text.parse::<Timestamp>().ok());
        let unreadable = || NoToken::Unreadable {
            what,
            at: shown(account.url.as_str()),
            reason: "its answer is no token with a time that it is good",
        };
        let (token, ends) = token.zip(ends).ok_or_else(unreadable)?;
        let life = Duration::try_from(ends.duration_since(SystemClock.now())).unwrap_or_default();
        Ok((token.to_owned(), life))
    }
}

#[async_trait]
impl CredentialProvider for Exchange {
    type Credential = GcpCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<GcpCredential>> {
        let subject = self.subject().await?;
        let (mut bearer, mut life) = self.exchanged(&subject).await?;
        if let Some(account) = &self.federation.account {
            (bearer, life) = self.acted_as(account, &bearer).await?;
        }
        self.seen.credential_ends(Instant::now() + life);
        Ok(Arc::new(GcpCredential { bearer }))
    }
}

/// The answer to a question, which must be a success.
async fn ask(client: &HttpClient, question: Question<'_>) -> Result<Bytes, NoToken> {
    let Question { what, url, method, headers, body } = question;
    let at = shown(url.as_str());
    let unreachable = |source: HttpError| NoToken::Unreachable { what, at: at.clone(), source };
    let mut request = HttpRequest::new(body.into());
    *request.method_mut() = method.parse().map_err(|error| unreachable(unsayable(error)))?;
    *request.uri_mut() = url.as_str().parse().map_err(|error| unreachable(unsayable(error)))?;
    *request.headers_mut() = (&headers).try_into().map_err(|error| unreachable(unsayable(error)))?;
    let response = client.execute(request).await.map_err(unreachable)?;
    let status = response.status();
    let body = response.into_body().collect().await.map_err(unreachable)?.to_bytes();
    if !status.is_success() {
        return Err(NoToken::Refused { what, at, status: status.as_u16(), told: told(&body) });
    }
    Ok(body)
}

fn unsayable<E: std::error::Error + Send + Sync + 'static>(error: E) -> HttpError {
    HttpError::new(HttpErrorKind::Request, error)
}

/// What a refusal says of itself, by OAuth's fields and Google's. Nothing else is passed on, which might quote the token; nor a sign by which
/// it would be taken for the store's own words.
fn told(body: &[u8]) -> String {
    let json: Value = serde_json::from_slice(body).unwrap_or_default();
    let error = json.get("error").unwrap_or(&Value::Null);
    let texts = [Some(error), json.get("error_description"), error.get("status"), error.get("message")];
    let texts: Vec<&str> = texts.into_iter().flatten().filter_map(Value::as_str).collect();
    texts.join(": ").chars().filter(|sign| !matches!(sign, '<' | '>')).take(MAX_TOLD_CHARS).collect()
}

fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_TOKEN_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A file that is right, with one thing changed: a dotted key and its value.
    fn of(key: &str, value: Value) -> Result<Federation, String> {
        let mut file = json!({
            "type": "external_account",
            "audience": "//iam.googleapis.com/projects/1/locations/global/workloadIdentityPools/p/providers/q",
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": "https://sts.googleapis.com/v1/token",
            "credential_source": { "file": "/run/token" },
        });
        let place = match key.split_once('.') {
            Some((outer, inner)) => file.get_mut(outer).unwrap().as_object_mut().unwrap().entry(inner),
            None => file.as_object_mut().unwrap().entry(key),
        };
        *place.or_insert(Value::Null) = value;
        Federation::of(&file.to_string().into())
    }

    #[test]
    fn what_a_file_says_is_told() {
        let kind = json!("urn:ietf:params:oauth:token-type:id_token");
        assert_eq!(of("subject_token_type", kind).unwrap().told(), "the web identity in /run/token");
        let account = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/b@p.iam.gserviceaccount.com:generateAccessToken";
        let acting = of("service_account_impersonation_url", json!(account)).unwrap();
        assert_eq!(acting.told(), "the web identity in /run/token, as b@p.iam.gserviceaccount.com");
        let url = json!({ "url": "http://169.254.169.254/token?x=1", "headers": { "Metadata": "True" },
            "format": { "type": "json", "subject_token_field_name": "access_token" } });
        let by_url = of("credential_source", url).unwrap();
        assert_eq!(by_url.told(), "the web identity at http://169.254.169.254/…");
        assert_eq!(by_url.field.as_deref(), Some("access_token"));
    }

    /// I14: neither a header, which may be a bearer, nor a URL's query is printed.
    #[test]
    fn debug_shows_what_is_told_alone() {
        let url = json!({ "url": "https://tokens.example.com/hush?key=hush",
            "headers": { "Authorization": "Bearer hush" } });
        let printed = format!("{:?}", of("credential_source", url).unwrap());
        assert!(printed.contains("tokens.example.com") && !printed.contains("hush"), "{printed}");
        let exchange = format!("{:?}", of("token_url", json!("https://sts.example.com/?key=hush")).unwrap());
        assert!(exchange.contains("/run/token") && !exchange.contains("hush"), "{exchange}");
    }

    /// What would run a program, or show a token to anyone on the way, is refused, and so is what is not known here; no reason quotes more than where.
    #[test]
    fn what_is_not_supported_or_not_safe_is_refused() {
        for (key, value, reason) in [
            ("credential_source", json!({ "environment_id": "aws1" }), "one of AWS"),
            ("credential_source", json!({ "executable": { "command": "/bin/hush" } }), "never run"),
            ("credential_source", json!({ "certificate": {} }), "a certificate"),
            ("credential_source", json!({}), "neither a file nor a URL"),
            ("credential_source", json!({ "file": "/a", "url": "https://h" }), "or both"),
            ("credential_source.file", json!("token"), "not absolute"),
            (
                "credential_source",
                json!({ "url": "http://metadata.example.com/hush" }),
                "credential_source.url",
            ),
            ("credential_source.format", json!({ "type": "json" }), "subject_token_field_name"),
            ("credential_source.format", json!({ "type": "xml" }), "neither text nor json"),
            ("token_url", json!("http://sts.example.com/hush"), "token_url"),
            ("token_url", json!("http://169.254.169.254/hush"), "token_url"),
            ("token_url", json!("file:///hush"), "token_url"),
            (
                "service_account_impersonation_url",
                json!("http://h/hush"),
                "service_account_impersonation_url",
            ),
            ("universe_domain", json!("example.com"), "another universe"),
            ("workforce_pool_user_project", json!("p"), "a workforce pool"),
            ("audience", json!(["hush"]), "no external_account"),
        ] {
            let error = of(key, value).unwrap_err();
            assert!(error.contains(reason) && !error.contains("hush"), "{key}: {error}");
        }
        assert!(of("token_url", json!("http://127.0.0.1:1/token")).is_ok());
    }

    /// I14: whatever a token service says, it is not taken for the store's word about an object, and it quotes no token.
    #[test]
    fn a_refusal_is_told_by_its_own_fields_alone() {
        let oauth = br#"{"error":"invalid_grant","error_description":"The token is <Code>NoSuchKey</Code>","subject_token":"hush"}"#;
        assert_eq!(told(oauth), "invalid_grant: The token is CodeNoSuchKey/Code");
        let google = br#"{"error":{"code":403,"status":"PERMISSION_DENIED","message":"not yours"}}"#;
        assert_eq!(told(google), "PERMISSION_DENIED: not yours");
        assert_eq!(told(b"<html>hush</html>"), "");
    }
}
