//! Google Cloud Storage inside the test process: the part of its XML API that a store needs, atomic and in memory.
//!
//! Every request must carry a token that the service account signed, or one that the metadata server handed out, while it is good by the
//! service's clock; anything else is 401. A put that could replace an object is refused. Faults and the log of requests are those of the
//! S3 service.

use std::sync::{Arc, OnceLock};

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine as _;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use highwater_archive::clock::{Clock as _, SystemClock};
use highwater_archive::store::StoreSpec;

use crate::demands::Demands;
use crate::http::{HttpServer, Reply, Request, element, faulty, service_date};
use crate::s3::{BUCKET, Faults, Keys, Objects, Operation};

/// The service account.
const ACCOUNT: &str = "backup@example.com";

/// A running service.
#[derive(Debug)]
pub struct GsServer {
    server: HttpServer,
    objects: Arc<Objects>,
    faults: Arc<Faults>,
    keys: Arc<Keys>,
    demands: Arc<Demands>,
}

impl GsServer {
    /// Starts a service with an empty bucket.
    pub fn start() -> Self {
        let (objects, faults) = (Arc::new(Objects::default()), Arc::new(Faults::default()));
        let (keys, demands) = (Arc::new(Keys::default()), Arc::new(Demands::default()));
        let service = Arc::new(Service {
            objects: Arc::clone(&objects),
            faults: Arc::clone(&faults),
            keys: Arc::clone(&keys),
            demands: Arc::clone(&demands),
        });
        let server = HttpServer::start(move |request| {
            let service = Arc::clone(&service);
            async move { service.answer(&request).await }
        });
        Self { server, objects, faults, keys, demands }
    }

    /// What is stored, by full key.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What goes wrong, and what was asked.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The tokens that it takes.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// What requests must say beside everything else.
    pub fn demands(&self) -> &Demands {
        &self.demands
    }

    /// How to open the service at a prefix of its bucket.
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        StoreSpec {
            url: format!("gs://{BUCKET}/{prefix}"),
            endpoint: Some(self.server.url()),
            service_account_key: Some(service_account_key("service_account").into()),
            ..StoreSpec::default()
        }
    }
}

/// The service account's RSA key: made once, since making one is slow.
fn key() -> &'static KeyPair {
    static KEY: OnceLock<KeyPair> = OnceLock::new();
    KEY.get_or_init(|| KeyPair::generate(KeySize::Rsa2048).expect("an RSA key"))
}

/// The JSON key as Google hands it out, or something else of that form.
pub fn service_account_key(kind: &str) -> String {
    let der: Pkcs8V1Der<'_> = key().as_der().expect("a PKCS#8 key");
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        BASE64_STANDARD.encode(der.as_ref())
    );
    serde_json::json!({
        "type": kind,
        "private_key": pem,
        "private_key_id": "test",
        "client_email": ACCOUNT,
    })
    .to_string()
}

struct Service {
    objects: Arc<Objects>,
    faults: Arc<Faults>,
    keys: Arc<Keys>,
    demands: Arc<Demands>,
}

impl Service {
    async fn answer(&self, request: &Request) -> Reply {
        if !self.is_allowed(request.header("authorization")) {
            return Reply::error(401, "AuthenticationRequired", "Authentication required.")
                .with("date", service_date(&self.faults));
        }
        if let Some(refusal) = self.demands.refusal(request) {
            return refusal;
        }
        let path = request.path.trim_start_matches('/');
        let (bucket, key) = path.split_once('/').unwrap_or((path, ""));
        if bucket != BUCKET {
            return Reply::error(404, "NoSuchBucket", "The specified bucket does not exist.");
        }
        let gone = || Reply::error(404, "NoSuchKey", "The specified key does not exist.");
        match request.method.as_str() {
            "GET" if key.is_empty() => {
                faulty(&self.faults, Operation::List, request.query("prefix"), request, || self.list(request))
                    .await
            }
            "GET" | "HEAD" => {
                let operation = if request.method == "HEAD" { Operation::Head } else { Operation::Get };
                faulty(&self.faults, operation, key, request, || match self.objects.get(key) {
                    Some(object) => {
                        let past = Reply::error(416, "InvalidRange", "The range cannot be satisfied.");
                        Reply::object(request, &object, past).with("x-goog-generation", "1")
                    }
                    None if request.method == "HEAD" => Reply::status(404),
                    None => gone(),
                })
                .await
            }
            "PUT" if request.header("x-goog-if-generation-match") != "0" => {
                Reply::error(400, "InvalidArgument", "this put could replace an object")
            }
            "PUT" => {
                let only_if_absent = !self.faults.ignores_conditions();
                faulty(&self.faults, Operation::Put, key, request, || {
                    match self.objects.put_if(key, request.body.clone(), only_if_absent) {
                        Some(object) => Reply::status(200).with("etag", format!("\"{}\"", object.tag())),
                        None => Reply::error(412, "PreconditionFailed", "The generation is not 0."),
                    }
                })
                .await
            }
            "DELETE" => {
                faulty(&self.faults, Operation::Delete, key, request, || {
                    if self.objects.remove(key) { Reply::status(204) } else { gone() }
                })
                .await
            }
            _ => Reply::error(405, "MethodNotAllowed", "not in this test"),
        }
    }

    /// Whether a request carries a token that was handed out, or one that the service account signed for an hour at most which is not over
    /// by the service's clock.
    fn is_allowed(&self, authorization: &str) -> bool {
        let Some(token) = authorization.strip_prefix("Bearer ") else { return false };
        let Some(claims) = claims(token) else { return self.keys.takes_bearer(token) };
        let now = SystemClock.now().as_second() + self.faults.clock_ahead();
        let right = claims.iss == ACCOUNT && claims.scope.ends_with("/auth/cloud-platform");
        let hour = claims.exp <= claims.iat + 3600 && claims.exp > now;
        right && hour && self.keys.takes_signed(token)
    }

    fn list(&self, request: &Request) -> Reply {
        let delimiter = Some(request.query("delimiter")).filter(|text| !text.is_empty());
        let after = request.query("continuation-token").max(request.query("start-after"));
        let page = self.objects.page(request.query("prefix"), delimiter, after, usize::MAX);
        let mut xml = String::from("<?xml version='1.0' encoding='UTF-8'?><ListBucketResult>");
        for (key, object) in page.objects {
            xml.push_str("<Contents>");
            element(&mut xml, "Key", &key);
            element(&mut xml, "LastModified", &object.modified.to_string());
            element(&mut xml, "ETag", &object.tag());
            element(&mut xml, "Size", &object.bytes.len().to_string());
            xml.push_str("</Contents>");
        }
        for directory in page.directories {
            xml.push_str("<CommonPrefixes>");
            element(&mut xml, "Prefix", &directory);
            xml.push_str("</CommonPrefixes>");
        }
        if let Some(next) = page.next {
            element(&mut xml, "NextContinuationToken", &next);
        }
        xml.push_str("</ListBucketResult>");
        Reply::text(200, xml)
    }
}

/// What the claims of a token are when its signature is that of the service account.
fn claims(token: &str) -> Option<Claims> {
    let (message, signature) = token.rsplit_once('.')?;
    let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
    let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key().public_key().as_ref());
    public.verify(message.as_bytes(), &signature).ok()?;
    let (_, claims) = message.split_once('.')?;
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(claims).ok()?).ok()
}

/// What a token says of itself.
#[derive(serde::Deserialize)]
struct Claims {
    iss: String,
    scope: String,
    iat: i64,
    exp: i64,
}
