//! Whoever hands out temporary credentials: the token service, the metadata services of machines and containers, and Azure's
//! authority, in one service.
//!
//! Each checks what the real one asks for: IMDSv2's session token, the container's authorization, a web identity's token from
//! its file. What it hands out is a key that the S3 service knows until it ends, or a bearer token.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use highwater_archive::clock::{Clock as _, SystemClock};
use serde_json::json;

use crate::http::{HttpServer, Reply, Request};
use crate::s3::Keys;

/// What the file of a web identity or container must hold.
pub const TOKEN: &str = "a token from a file";
/// The bearer token for Google and Azure.
pub const BEARER: &str = "a-bearer-of-the-tests";

/// A running service.
#[derive(Debug)]
pub struct Identities {
    server: HttpServer,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Identities {
    /// Starts one; what it hands out lives for `lifetime`.
    pub fn start(keys: Arc<Keys>, lifetime: Duration) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let server = HttpServer::start(move |request| {
            let reply = answer(&request, &keys, lifetime);
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(format!("{} {}", request.method, request.path));
            async move { reply }
        });
        Self { server, asked }
    }

    /// The service itself.
    pub fn server(&self) -> &HttpServer {
        &self.server
    }

    /// The requests so far, `METHOD /path` each.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn answer(request: &Request, keys: &Keys, lifetime: Duration) -> Reply {
    let refused = || Reply::text(403, "not in this test");
    let expiration = || {
        let lifetime = jiff::SignedDuration::try_from(lifetime).expect("a short lifetime");
        (SystemClock.now() + lifetime).to_string()
    };
    let as_json = || {
        let (id, secret) = keys.issue(lifetime);
        let body =
            json!({ "AccessKeyId": id, "SecretAccessKey": secret, "Token": "t", "Expiration": expiration() });
        Reply::text(200, body.to_string())
    };
    let bearer = || {
        let seconds = lifetime.as_secs();
        let until = SystemClock.now().as_second() + seconds.cast_signed();
        let body = json!({
            "access_token": BEARER, "expires_in": seconds, "expires_on": until.to_string(), "token_type": "Bearer",
        });
        Reply::text(200, body.to_string())
    };
    let body = String::from_utf8_lossy(&request.body).into_owned();
    match (request.method.as_str(), request.path.as_str()) {
        // AWS's token service.
        ("POST", "/")
            if request.query("WebIdentityToken") == TOKEN && request.query("RoleArn") == "arn:role" =>
        {
            let (id, secret) = keys.issue(lifetime);
            Reply::text(
                200,
                format!(
                    "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
                     <SessionToken>t</SessionToken><SecretAccessKey>{secret}</SecretAccessKey>\
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
        ("GET", "/v1/credentials") if request.header("authorization") == TOKEN => as_json(),
        // Google's metadata server, and Azure's.
        ("GET", "/computeMetadata/v1/instance/service-accounts/default/token")
            if request.header("metadata-flavor") == "Google" =>
        {
            bearer()
        }
        ("GET", "/metadata/identity/oauth2/token") if request.header("metadata") == "true" => bearer(),
        // Azure's authority: an application's secret, or a workload's federated token.
        ("POST", "/tenant/oauth2/v2.0/token")
            if body.contains("client_secret=hush")
                || body.contains("client_assertion=a+token+from+a+file") =>
        {
            bearer()
        }
        _ => refused(),
    }
}
