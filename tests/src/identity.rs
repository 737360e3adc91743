//! Whoever hands out temporary credentials: the token services of AWS and Google, the metadata services of machines and containers, and
//! Azure's authority, in one service.
//!
//! Each checks what the real one asks for: IMDSv2's session token, the container's authorization, a web identity's token from
//! its file, as that file should be at the time. What it hands out is a key or a bearer's token that the service knows until it ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use highwater_archive::clock::{Clock as _, SystemClock};
use serde_json::json;

use crate::http::{HttpServer, Reply, Request};
use crate::s3::{Keys, Life, Temporary};

/// What the file of a web identity or container must hold, until a test says otherwise.
pub const TOKEN: &str = "a token from a file";

/// The audience whose tokens Google's token service hands out by itself; those of any other are for its service account alone.
pub const DIRECT: &str = "//iam.googleapis.com/direct";
/// What a service account is asked with.
const FEDERATED: &str = "a workload at Google";

/// A running service.
#[derive(Debug)]
pub struct Identities {
    server: HttpServer,
    asked: Arc<Mutex<Vec<String>>>,
    token: Arc<Mutex<String>>,
}

impl Identities {
    /// Starts one; what it hands out is good as long as `life` says.
    pub fn start(keys: Arc<Keys>, life: impl Into<Life>) -> Self {
        let (asked, token) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(TOKEN.to_owned())));
        let (log, expected, life) = (Arc::clone(&asked), Arc::clone(&token), life.into());
        let server = HttpServer::start(move |request| {
            let expected = expected.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let reply = answer(&request, &keys, life, &expected);
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(format!("{} {}", request.method, request.path));
            async move { reply }
        });
        Self { server, asked, token }
    }

    /// The service itself.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// What a workload outside of Google is given: its token is in the file, and is shown directly; or it is at a URL, and acts as a service account.
    pub fn external_account(&self, file: Option<&std::path::Path>) -> String {
        let url = self.server.url();
        let account = format!("{url}/v1/projects/-/serviceAccounts/backup@example.com:generateAccessToken");
        let subject = json!({
            "url": format!("{url}/subject"), "headers": { "x-workload": "backup" },
            "format": { "type": "json", "subject_token_field_name": "value" },
        });
        json!({
            "type": "external_account",
            "audience": if file.is_some() { DIRECT } else { "//iam.googleapis.com/acting" },
            "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
            "token_url": format!("{url}/v1/token"),
            "service_account_impersonation_url": file.is_none().then_some(account),
            "credential_source": file.map_or(subject, |file| json!({ "file": file })),
        })
        .to_string()
    }

    /// From now on a token's file must hold this.
    pub fn expect_token(&self, token: &str) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token.to_owned();
    }

    /// The requests so far, `METHOD /path` each.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(request: &Request, keys: &Keys, life: Life, token: &str) -> Reply {
    let refused = || Reply::text(403, "not in this test");
    let told = life.told();
    let expiration = || {
        let told = jiff::SignedDuration::try_from(told).expect("a short life");
        (SystemClock.now() + told).to_string()
    };
    let as_json = || {
        let Temporary { id, secret, token } = keys.issue(life);
        let body = json!({
            "AccessKeyId": id, "SecretAccessKey": secret, "Token": token, "Expiration": expiration(),
        });
        Reply::text(200, body.to_string())
    };
    let bearer = || {
        let until = SystemClock.now().as_second() + told.as_secs().cast_signed();
        let body = json!({
            "access_token": keys.issue(life).token, "expires_in": told.as_secs(), "expires_on": until.to_string(),
            "token_type": "Bearer",
        });
        Reply::text(200, body.to_string())
    };
    let form: BTreeMap<String, String> = url::form_urlencoded::parse(&request.body).into_owned().collect();
    let says = |name: &str, value: &str| form.get(name).is_some_and(|found| found == value);
    match (request.method.as_str(), request.path.as_str()) {
        // AWS's token service.
        ("POST", "/")
            if request.query("WebIdentityToken") == token && request.query("RoleArn") == "arn:role" =>
        {
            let Temporary { id, secret, token } = keys.issue(life);
            Reply::text(
                200,
                format!(
                    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                     <SessionToken>{token}</SessionToken><SecretAccessKey>{secret}</SecretAccessKey>\
                     <AccessKeyId>{id}</AccessKeyId><Expiration>{}</Expiration>\
                     </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
                    expiration()
                ),
            )
        }
        // IMDSv2.
        ("PUT", "/latest/api/token")
            if !request.header("x-aws-ec2-metadata-token-ttl-seconds").is_empty() =>
        {
            Reply::text(200, "session")
        }
        ("GET", path) if path.starts_with("/latest/meta-data/iam/security-credentials/") => {
            if request.header("x-aws-ec2-metadata-token") != "session" {
                return Reply::text(401, "IMDSv1 is off");
            }
            if path.ends_with('/') { Reply::text(200, "backup-role") } else { as_json() }
        }
        // Pod identity.
        ("GET", "/v1/credentials") if request.header("authorization") == token => as_json(),
        // Google's metadata server, and Azure's.
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token")
            if request.header("metadata-flavor") == "Google" =>
        {
            bearer()
        }
        // Google's token service, for a workload's own token; and for what it gave, its service account.
        ("POST", "/v1/token")
            if says("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange")
                && says("requested_token_type", "urn:ietf:params:oauth:token-type:access_token")
                && says("subject_token_type", "urn:ietf:params:oauth:token-type:jwt")
                && says("scope", "https://www.googleapis.com/auth/cloud-platform")
                && says("subject_token", token) =>
        {
            if says("audience", DIRECT) {
                return bearer();
            }
            let body = json!({ "access_token": FEDERATED, "expires_in": 3600, "token_type": "Bearer" });
            Reply::text(200, body.to_string())
        }
        ("POST", "/v1/projects/-/serviceAccounts/backup@example.com:generateAccessToken")
            if request.header("authorization") == format!("Bearer {FEDERATED}")
                && request.body.as_ref()
                    == br#"{"lifetime":"3600s","scope":["https://www.googleapis.com/auth/cloud-platform"]}"# =>
        {
            let body = json!({ "accessToken": keys.issue(life).token, "expireTime": expiration() });
            Reply::text(200, body.to_string())
        }
        // Whoever gives a workload its own token.
        ("GET", "/subject") if request.header("x-workload") == "backup" => {
            Reply::text(200, json!({ "value": token }).to_string())
        }
        ("GET", "/metadata/identity/oauth2/token") if request.header("metadata") == "true" => bearer(),
        // Azure's authority: an application's secret, or a workload's federated token.
        ("POST", "/tenant/oauth2/v2.0/token")
            if says("client_id", "application")
                && (says("client_secret", "hush") || says("client_assertion", token)) =>
        {
            bearer()
        }
        _ => refused(),
    }
}
