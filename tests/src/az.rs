//! Azure Blob Storage inside the test process: the part of its REST API that a store needs, atomic and in memory.
//!
//! Every request must be signed with the account's key (`SharedKey`), or carry the shared access signature or a bearer's token that is still
//! good; anything else is refused, and so is a put that could replace a blob.
//! Deletes come as batches, each part of which is answered on its own. Faults and the log of requests are those of the S3 service.

use std::fmt::Write as _;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use highwater_archive::store::StoreSpec;

use crate::demands::Demands;
use crate::http::{HttpServer, Reply, Request, element, faulty, http_date};
use crate::s3::{BUCKET, Faults, Keys, Objects, Operation};

/// The storage account.
pub const ACCOUNT: &str = "highwatertest";
/// The account's key, as bytes.
const KEY: &[u8] = b"a key that only the tests know";
/// The query of the only shared access signature that is accepted.
pub const SAS: &str = "sv=2023-11-03&sp=rwdlc&sig=of%2Fthe%2Ftests";

/// A running service.
#[derive(Debug)]
pub struct AzServer {
    server: HttpServer,
    objects: Arc<Objects>,
    faults: Arc<Faults>,
    keys: Arc<Keys>,
    demands: Arc<Demands>,
}

impl AzServer {
    /// Starts a service with an empty container.
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

    /// What is stored, by full name.
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

    /// How to open the service at a prefix of its container.
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        StoreSpec {
            url: format!("az://{BUCKET}/{prefix}"),
            endpoint: Some(self.server.url()),
            account: Some(ACCOUNT.to_owned()),
            account_key: Some(account_key().into()),
            ..StoreSpec::default()
        }
    }
}

/// The account's access key.
pub fn account_key() -> String {
    BASE64_STANDARD.encode(KEY)
}

struct Service {
    objects: Arc<Objects>,
    faults: Arc<Faults>,
    keys: Arc<Keys>,
    demands: Arc<Demands>,
}

fn gone() -> Reply {
    Reply::error(404, "BlobNotFound", "The specified blob does not exist.\nRequestId:1\nTime:2")
}

impl Service {
    async fn answer(&self, request: &Request) -> Reply {
        match request.header("authorization").strip_prefix("Bearer ") {
            Some(token) if self.keys.takes_bearer(token) => {}
            Some(_) => {
                let told = "Lifetime validation failed. The token is expired.";
                return Reply::error(401, "InvalidAuthenticationInfo", told);
            }
            None if is_allowed(request) => {}
            None => return Reply::error(403, "AuthenticationFailed", "the signature is not the account's"),
        }
        if let Some(refusal) = self.demands.refusal(request) {
            return refusal;
        }
        let path = request.path.trim_start_matches('/');
        let (container, name) = path.split_once('/').unwrap_or((path, ""));
        if container != BUCKET {
            return Reply::error(404, "ContainerNotFound", "The specified container does not exist.");
        }
        match (request.method.as_str(), request.query("comp")) {
            ("GET", "list") => {
                faulty(&self.faults, Operation::List, request.query("prefix"), request, || self.list(request))
                    .await
            }
            ("POST", "batch") => self.batch(request).await,
            ("GET" | "HEAD", _) => {
                let operation = if request.method == "HEAD" { Operation::Head } else { Operation::Get };
                faulty(&self.faults, operation, name, request, || match self.objects.get(name) {
                    Some(object) => {
                        let past = Reply::error(416, "InvalidRange", "The range is invalid.");
                        Reply::object(request, &object, past)
                    }
                    None if request.method == "HEAD" => Reply::status(404),
                    None => gone(),
                })
                .await
            }
            ("PUT", _) if request.header("if-none-match") != "*" => {
                Reply::error(400, "InvalidHeaderValue", "this put could replace a blob")
            }
            ("PUT", _) if request.header("x-ms-blob-type") == "BlockBlob" => {
                let only_if_absent = !self.faults.ignores_conditions();
                faulty(&self.faults, Operation::Put, name, request, || {
                    match self.objects.put_if(name, request.body.clone(), only_if_absent) {
                        Some(object) => Reply::status(201).with("etag", format!("\"{}\"", object.tag())),
                        None => Reply::error(409, "BlobAlreadyExists", "The specified blob already exists."),
                    }
                })
                .await
            }
            _ => Reply::error(400, "UnsupportedHttpVerb", "not in this test"),
        }
    }

    fn list(&self, request: &Request) -> Reply {
        let delimiter = Some(request.query("delimiter")).filter(|text| !text.is_empty());
        let page = self.objects.page(request.query("prefix"), delimiter, request.query("marker"), usize::MAX);
        let mut xml = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><EnumerationResults><Blobs>");
        for (name, object) in page.objects {
            xml.push_str("<Blob>");
            element(&mut xml, "Name", &name);
            xml.push_str("<Properties>");
            element(&mut xml, "Last-Modified", &http_date(object.modified));
            element(&mut xml, "Etag", &object.tag());
            element(&mut xml, "Content-Length", &object.bytes.len().to_string());
            element(&mut xml, "Content-Type", "application/octet-stream");
            xml.push_str("</Properties></Blob>");
        }
        for directory in page.directories {
            xml.push_str("<BlobPrefix>");
            element(&mut xml, "Name", &directory);
            xml.push_str("</BlobPrefix>");
        }
        xml.push_str("</Blobs>");
        element(&mut xml, "NextMarker", &page.next.unwrap_or_default());
        xml.push_str("</EnumerationResults>");
        Reply::text(200, xml)
    }

    /// Deletes in one request: each part has a number and one `DELETE /container/name`.
    async fn batch(&self, request: &Request) -> Reply {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let names = body.lines().filter_map(|line| line.strip_prefix("DELETE /")?.strip_suffix(" HTTP/1.1"));
        let mut answer = String::new();
        for (number, target) in names.enumerate() {
            let (_, name) = target.split_once('/').expect("a container and a name");
            let name = name.split('?').next().unwrap_or_default();
            let reply = faulty(&self.faults, Operation::Delete, name, request, || {
                if self.objects.remove(name) { Reply::status(202) } else { gone() }
            })
            .await;
            // What is no status of its own is the whole batch's.
            let Reply::Response { status, headers, .. } = &reply else { return reply };
            if *status == 200 || headers.iter().any(|(name, _)| *name == "retry-after") {
                return reply;
            }
            write!(
                answer,
                "--answer\r\nContent-Type: application/http\r\nContent-ID: {number}\r\n\r\n\
                 HTTP/1.1 {status} Said\r\nx-ms-version: 2023-11-03\r\n\r\n"
            )
            .expect("writing into a string");
        }
        answer.push_str("--answer--\r\n");
        Reply::text(202, answer).with("content-type", "multipart/mixed; boundary=answer")
    }
}

/// Whether a request is signed with the account's key, or carries the shared access signature.
fn is_allowed(request: &Request) -> bool {
    if request.query("sig") == "of/the/tests" {
        return true;
    }
    request.header("authorization") == authorization(request)
}

/// What a request must carry that the account's key signs.
pub(crate) fn authorization(request: &Request) -> String {
    format!("SharedKey {ACCOUNT}:{}", signature(&string_to_sign(request)))
}

/// What the account's key makes of a text.
pub(crate) fn signature(text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY);
    BASE64_STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// <https://learn.microsoft.com/en-us/rest/api/storageservices/authorize-with-shared-key>
fn string_to_sign(request: &Request) -> String {
    let length = Some(request.header("content-length")).filter(|length| *length != "0").unwrap_or_default();
    let mut text = format!("{}\n\n\n{length}\n\n{}\n", request.method, request.header("content-type"));
    for name in ["date", "if-modified-since", "if-match", "if-none-match", "if-unmodified-since", "range"] {
        writeln!(text, "{}", request.header(name)).expect("writing into a string");
    }
    let mut names: Vec<&str> =
        request.headers.keys().map(|name| name.as_str()).filter(|name| name.starts_with("x-ms-")).collect();
    names.sort_unstable();
    for name in names {
        writeln!(text, "{name}:{}", request.header(name)).expect("writing into a string");
    }
    write!(text, "/{ACCOUNT}{}", request.raw_path).expect("writing into a string");
    for (name, value) in &request.query {
        write!(text, "\n{name}:{value}").expect("writing into a string");
    }
    text
}
