//! What stands before the S3 service: it sees each request as it came, and answers in the service's place where a fault says so.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request as HttpRequest, StatusCode, Uri};
use s3s::service::S3Service;
use s3s::{Body, HttpError, HttpResponse};

use super::BUCKET;
use super::backend::Objects;
use super::faults::{Faults, Operation, Response, When};
use super::keys::Keys;
use crate::http::{BoxError, Reply, cut_after, service_date};

/// What carries a session token.
const TOKEN_HEADER: &str = "x-amz-security-token";

/// The service with its faults.
#[derive(Debug, Clone)]
pub(super) struct Front {
    service: S3Service,
    objects: Arc<Objects>,
    faults: Arc<Faults>,
    keys: Arc<Keys>,
}

impl Front {
    pub(super) fn new(
        service: S3Service,
        objects: Arc<Objects>,
        faults: Arc<Faults>,
        keys: Arc<Keys>,
    ) -> Self {
        Self { service, objects, faults, keys }
    }

    /// What is wrong with a request before anybody looks at its signature. A put must be unable to replace what is there: nothing of ours ever
    /// writes a name twice. A key for a time comes with its token, which its signature covers, and any other with none.
    fn refusal(&self, operation: Operation, headers: &HeaderMap) -> Option<Reply> {
        if operation == Operation::Put && text(headers, "if-none-match") != "*" {
            return Some(Reply::error(400, "InvalidRequest", "this put could replace an object"));
        }
        let authorization = text(headers, "authorization");
        let token = key_id(authorization).and_then(|id| self.keys.token_of(id));
        let right = match token {
            Some(token) => text(headers, TOKEN_HEADER) == token && is_signed(authorization, TOKEN_HEADER),
            None => !headers.contains_key(TOKEN_HEADER),
        };
        (!right).then(|| {
            self.keys.refuse();
            Reply::error(400, "InvalidToken", "The provided token is not that of the key.")
        })
    }

    /// Whether the key's policy forbids the request, or to know that there is no such object.
    fn is_forbidden(&self, operation: Operation, key: &str, authorization: &str) -> bool {
        let Some(policy) = key_id(authorization).and_then(|id| self.keys.policy(id)) else { return false };
        let is_read = matches!(operation, Operation::Get | Operation::Head);
        !policy.allows(operation, key)
            || is_read && !policy.tells_absence() && self.objects.get(key).is_none()
    }

    async fn answer(self, request: HttpRequest<Incoming>) -> Result<HttpResponse, BoxError> {
        let (operation, key) = asked(request.method().as_str(), request.uri());
        let inside = self.faults.enter();
        let fault = self.faults.arrived(operation, &key, request.headers()).await;
        let Some(_inside) = inside else {
            drop(request.into_body().collect().await?);
            return reply(operation, Reply::error(503, "SlowDown", "Please reduce your request rate."));
        };
        if let Some(refusal) = self.refusal(operation, request.headers()) {
            drop(request.into_body().collect().await?);
            return reply(operation, refusal);
        }
        if self.is_forbidden(operation, &key, text(request.headers(), "authorization")) {
            self.faults.denied(operation, &key);
            drop(request.into_body().collect().await?);
            return reply(operation, Reply::error(403, "AccessDenied", "Access Denied"));
        }
        let (when, failure) = match fault {
            None => return self.pass(request).await,
            Some(fault) => fault,
        };
        match (when, &failure) {
            (When::BeforeEffect, Response::Half) | (When::AfterEffect, _) => {
                let answer = self.pass(request).await?;
                if failure == Response::Half {
                    half(answer).await
                } else {
                    reply(operation, Reply::failed(failure).await)
                }
            }
            // The body comes first: a client that is turned away half-way through sees a broken pipe and not the reason.
            (When::BeforeEffect, _) => {
                drop(request.into_body().collect().await?);
                reply(operation, Reply::failed(failure).await)
            }
        }
    }

    async fn pass(&self, request: HttpRequest<Incoming>) -> Result<HttpResponse, BoxError> {
        let answer = hyper::service::Service::call(&self.service, request).await;
        answer.map_err(|error: HttpError| BoxError::from(error))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

/// The access key that a request is signed with.
fn key_id(authorization: &str) -> Option<&str> {
    authorization.split_once("Credential=")?.1.split('/').next()
}

/// Whether the signature covers a header.
fn is_signed(authorization: &str, header: &str) -> bool {
    let signed = authorization.split_once("SignedHeaders=").and_then(|(_, rest)| rest.split(',').next());
    signed.is_some_and(|names| names.split(';').any(|name| name == header))
}

/// What a request asks for, and of what.
fn asked(method: &str, uri: &Uri) -> (Operation, String) {
    let path = uri.path().trim_start_matches('/');
    // With the bucket in the host's name, the path is the key.
    let key = path.strip_prefix(BUCKET).map_or(path, |rest| rest.trim_start_matches('/'));
    let query = uri.query().unwrap_or_default();
    let operation = match method {
        "PUT" => Operation::Put,
        "HEAD" => Operation::Head,
        "DELETE" => Operation::Delete,
        _ if query.contains("list-type=2") => {
            let prefix = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "prefix");
            return (Operation::List, prefix.map(|(_, prefix)| prefix.into_owned()).unwrap_or_default());
        }
        _ => Operation::Get,
    };
    (operation, key.to_owned())
}

fn reply(operation: Operation, reply: Reply) -> Result<HttpResponse, BoxError> {
    let Reply::Response { status, headers, body, .. } = reply else {
        return Err("a cut that a test asked for".into());
    };
    let body = if operation == Operation::Head { Bytes::new() } else { body };
    let mut response = HttpResponse::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status)?;
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_str(&value)?);
    }
    Ok(response)
}

/// Half of an answer, announced as the whole: the connection ends there.
async fn half(answer: HttpResponse) -> Result<HttpResponse, BoxError> {
    let (mut parts, body) = answer.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?.to_bytes();
    parts.headers.insert("content-length", HeaderValue::from(body.len()));
    parts.headers.remove("transfer-encoding");
    Ok(HttpResponse::from_parts(parts, Body::http_body_unsync(cut_after(body.slice(..body.len() / 2)))))
}

impl hyper::service::Service<HttpRequest<Incoming>> for Front {
    type Response = HttpResponse;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, BoxError>> + Send>>;

    fn call(&self, request: HttpRequest<Incoming>) -> Self::Future {
        let front = self.clone();
        Box::pin(async move {
            let date = HeaderValue::from_str(&service_date(&front.faults))?;
            let mut answer = front.answer(request).await?;
            answer.headers_mut().insert("date", date);
            Ok(answer)
        })
    }
}
