//! What can go wrong at a service, and a record of what was asked of it.
//!
//! - Conditional puts are ignored: every writer is told that it won, the last one's bytes stay.
//! - The n-th request of a kind fails *before* it has any effect: an overloaded or forbidden service.
//! - The n-th request of a kind fails *after* its effect: the reply is lost, the object is there.
//! - A failure is an HTTP status with S3's error code, or the connection is cut without a word.
//! - Every request takes longer, or a single one does.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Incoming;
use hyper::{Request as HttpRequest, StatusCode};
use s3s::service::S3Service;
use s3s::{HttpError, HttpResponse, S3Error, S3ErrorCode, S3Result};

/// Stands in a response for a connection to be cut, on its way from the backend to [`CutConnections`].
const CUT: u16 = 599;

/// What a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Operation {
    Put,
    Get,
    Head,
    Delete,
    List,
}

/// One request that arrived, faults included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What was asked.
    pub operation: Operation,
    /// The full key, or for a list its full prefix.
    pub key: String,
}

/// Whether a request has its effect before it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum When {
    BeforeEffect,
    AfterEffect,
}

/// How a request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Response {
    /// An HTTP status, and S3's code in the body (HEAD has none).
    Status(u16, &'static str),
    /// The connection ends without a reply.
    Cut,
}

/// A rule: which requests fail, and how.
#[derive(Debug, Clone)]
pub struct Fault {
    /// The kind of request.
    pub operation: Operation,
    /// Only keys that contain this.
    pub key_contains: String,
    /// How many matching requests pass first.
    pub pass_first: u64,
    /// How many fail then; `u64::MAX` for all.
    pub fail: u64,
    /// Before or after the effect.
    pub when: When,
    /// How.
    pub response: Response,
}

impl Fault {
    /// The next request of this kind fails before it has any effect.
    pub fn next(operation: Operation, response: Response) -> Self {
        Self {
            operation,
            key_contains: String::new(),
            pass_first: 0,
            fail: 1,
            when: When::BeforeEffect,
            response,
        }
    }

    /// All requests of this kind fail before they have any effect.
    pub fn always(operation: Operation, response: Response) -> Self {
        Self { fail: u64::MAX, ..Self::next(operation, response) }
    }
}

/// The knobs, and the log. All may be turned while requests are under way.
#[derive(Debug, Default)]
pub struct Faults {
    ignore_conditions: AtomicBool,
    latency_ms: AtomicU64,
    late: Mutex<Option<(String, Duration)>>,
    rules: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Request>>,
}

impl Faults {
    /// Takes `If-None-Match` for decoration, as some services do.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.ignore_conditions.store(ignore, Ordering::SeqCst);
    }

    pub(crate) fn ignores_conditions(&self) -> bool {
        self.ignore_conditions.load(Ordering::SeqCst)
    }

    /// Lets each request wait this long before anything else happens.
    pub fn set_latency(&self, latency: Duration) {
        self.latency_ms.store(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets the next request whose key contains this wait so long.
    pub fn delay_next(&self, key_contains: &str, delay: Duration) {
        *locked(&self.late) = Some((key_contains.to_owned(), delay));
    }

    /// Adds a rule; the first that matches a request decides.
    pub fn add(&self, fault: Fault) {
        locked(&self.rules).push(fault);
    }

    /// Removes all rules.
    pub fn clear(&self) {
        locked(&self.rules).clear();
    }

    /// Everything that was asked since the start or the last [`Faults::forget_requests`], in order of arrival.
    pub fn requests(&self) -> Vec<Request> {
        locked(&self.requests).clone()
    }

    /// How many requests of each kind were made.
    pub fn counts(&self) -> BTreeMap<Operation, usize> {
        let mut counts = BTreeMap::new();
        for request in locked(&self.requests).iter() {
            *counts.entry(request.operation).or_default() += 1;
        }
        counts
    }

    /// Empties the log.
    pub fn forget_requests(&self) {
        locked(&self.requests).clear();
    }

    /// Notes a request, and says how it fails, if it does.
    pub(crate) async fn arrived(&self, operation: Operation, key: &str) -> Option<(When, Response)> {
        locked(&self.requests).push(Request { operation, key: key.to_owned() });
        let latency_ms = self.latency_ms.load(Ordering::SeqCst);
        if latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        }
        let late = locked(&self.late).take_if(|(part, _)| key.contains(&**part));
        if let Some((_, delay)) = late {
            tokio::time::sleep(delay).await;
        }
        self.matching(operation, key)
    }

    /// Notes a request and runs it, or lets it fail.
    pub(super) async fn run<T>(
        &self,
        operation: Operation,
        key: &str,
        effect: impl AsyncFnOnce() -> S3Result<T>,
    ) -> S3Result<T> {
        match self.arrived(operation, key).await {
            Some((When::BeforeEffect, response)) => Err(response.into_error()),
            Some((When::AfterEffect, response)) => {
                effect().await?;
                Err(response.into_error())
            }
            None => effect().await,
        }
    }

    fn matching(&self, operation: Operation, key: &str) -> Option<(When, Response)> {
        let mut rules = locked(&self.rules);
        let rule = rules.iter_mut().find(|rule| {
            rule.operation == operation
                && key.contains(&rule.key_contains)
                && (rule.pass_first > 0 || rule.fail > 0)
        })?;
        if rule.pass_first > 0 {
            rule.pass_first -= 1;
            return None;
        }
        if rule.fail != u64::MAX {
            rule.fail -= 1;
        }
        Some((rule.when, rule.response.clone()))
    }
}

impl Response {
    fn into_error(self) -> S3Error {
        let (status, code) = match self {
            Self::Status(status, code) => (status, code),
            Self::Cut => (CUT, "Cut"),
        };
        let code = S3ErrorCode::from_bytes(code.as_bytes()).unwrap_or(S3ErrorCode::InternalError);
        let mut error = S3Error::with_message(code, "a fault that a test asked for");
        error.set_status_code(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        error
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service, except that a response marked so becomes a broken connection.
#[derive(Debug, Clone)]
pub(super) struct CutConnections {
    service: S3Service,
}

impl CutConnections {
    pub(super) fn new(service: S3Service) -> Self {
        Self { service }
    }
}

impl hyper::service::Service<HttpRequest<Incoming>> for CutConnections {
    type Response = HttpResponse;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, Self::Error>> + Send>>;

    fn call(&self, request: HttpRequest<Incoming>) -> Self::Future {
        let answer = hyper::service::Service::call(&self.service, request);
        Box::pin(async move {
            let response = answer
                .await
                .map_err(|error: HttpError| Box::<dyn std::error::Error + Send + Sync>::from(error))?;
            if response.status().as_u16() == CUT {
                Err("a cut that a test asked for".into())
            } else {
                Ok(response)
            }
        })
    }
}
