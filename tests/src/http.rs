//! A small HTTP service inside the test process, for the providers' services that nobody else plays.
//!
//! It reads a whole request, hands it to a function, and sends what that gives; or it cuts the connection where a fault asks for
//! it. It runs on a thread of its own, so tests of every kind can use it, also through the program under test, and ends when
//! the handle is dropped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream};
use highwater_archive::clock::{Clock as _, SystemClock};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::s3::{Faults, Object, Operation, Response, When};

/// A request that has come in whole.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// The path, percent signs decoded.
    pub path: String,
    /// The path as it came, which is what signatures are made of.
    pub raw_path: String,
    /// The query's names and values, decoded.
    pub query: BTreeMap<String, String>,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Request {
    /// A header's text; empty where it is absent.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// A value of the query; empty where it is absent.
    pub fn query(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// The bytes that a `Range: bytes=from-to` header asks for of an object; the whole of it where there is none, nothing
    /// where it begins past the end.
    pub fn range(&self, length: usize) -> Option<(usize, usize)> {
        let Some((from, to)) =
            self.header("range").strip_prefix("bytes=").and_then(|range| range.split_once('-'))
        else {
            return Some((0, length));
        };
        let from: usize = from.parse().ok()?;
        let last: usize = to.parse().unwrap_or(usize::MAX);
        (from < length).then(|| (from, last.saturating_add(1).min(length)))
    }
}

/// What is sent back.
#[derive(Debug)]
pub enum Reply {
    /// A response.
    Response {
        /// The HTTP status.
        status: u16,
        /// Headers by name.
        headers: Vec<(&'static str, String)>,
        /// The body.
        body: Bytes,
        /// For HEAD: the length to announce instead of the body's.
        length: Option<usize>,
        /// The connection is cut after the body.
        cut: bool,
    },
    /// The connection ends without one.
    Cut,
}

impl Reply {
    /// A response without a body.
    pub fn status(status: u16) -> Self {
        Self::Response { status, headers: Vec::new(), body: Bytes::new(), length: None, cut: false }
    }

    /// A response of text.
    pub fn text(status: u16, text: impl Into<String>) -> Self {
        Self::Response {
            status,
            headers: Vec::new(),
            body: Bytes::from(text.into()),
            length: None,
            cut: false,
        }
    }

    /// A failure as the providers' services say it.
    pub fn error(status: u16, code: &str, message: &str) -> Self {
        Self::text(
            status,
            format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>{message}</Message></Error>"),
        )
    }

    /// The failure that a test asked for.
    pub(crate) async fn failed(failure: Response) -> Self {
        let told = "a fault that a test asked for";
        match failure {
            Response::Status(status, code) => Self::error(status, code, told),
            Response::ComeBack(status, code, seconds) => {
                Self::error(status, code, told).with("retry-after", seconds.to_string())
            }
            Response::Body(status, body) => Self::text(status, body).with("etag", "\"x\""),
            Response::Half | Response::Cut => Self::Cut,
            Response::Hang => std::future::pending().await,
        }
    }

    /// Half of the body, announced as the whole: the connection ends there.
    fn half(mut self) -> Self {
        if let Self::Response { body, length, cut, .. } = &mut self {
            (*length, *cut) = (Some(body.len()), true);
            body.truncate(body.len() / 2);
        }
        self
    }

    /// With a header more.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        if let Self::Response { headers, .. } = &mut self {
            headers.push((name, value.into()));
        }
        self
    }

    /// An object, or the range of it that was asked for.
    pub fn object(request: &Request, object: &Object, past_the_end: Reply) -> Self {
        let length = object.bytes.len();
        let head = request.method == "HEAD";
        let Some((from, to)) = request.range(length) else { return past_the_end };
        let partial = !head && request.headers.contains_key("range");
        let body = if head { Bytes::new() } else { object.bytes.slice(from..to) };
        let reply = Self::Response {
            status: if partial { 206 } else { 200 },
            headers: vec![
                ("etag", format!("\"{}\"", object.tag())),
                ("last-modified", http_date(object.modified)),
            ],
            body,
            length: head.then_some(length),
            cut: false,
        };
        if partial { reply.with("content-range", format!("bytes {from}-{}/{length}", to - 1)) } else { reply }
    }
}

/// `Fri, 20 Nov 2026 10:00:00 GMT`.
pub fn http_date(time: jiff::Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// Runs a request's effect, unless a fault or too many requests say otherwise.
pub(crate) async fn faulty(
    faults: &Faults,
    operation: Operation,
    key: &str,
    request: &Request,
    effect: impl FnOnce() -> Reply,
) -> Reply {
    let inside = faults.enter();
    let fault = faults.arrived(operation, key, &request.headers).await;
    let Some(_inside) = inside else {
        return Reply::error(503, "ServerBusy", "Please reduce your request rate.");
    };
    let reply = match fault {
        None => effect(),
        Some((_, Response::Half)) => effect().half(),
        Some((When::BeforeEffect, failure)) => Reply::failed(failure).await,
        Some((When::AfterEffect, failure)) => {
            drop(effect());
            Reply::failed(failure).await
        }
    };
    reply.with("date", service_date(faults))
}

/// What the service's own clock shows.
pub(crate) fn service_date(faults: &Faults) -> String {
    http_date(SystemClock.now() + jiff::SignedDuration::from_secs(faults.clock_ahead()))
}

pub(crate) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// The beginning of a body, after which the connection is cut.
pub(crate) fn cut_after(bytes: Bytes) -> UnsyncBoxBody<Bytes, BoxError> {
    let cut = BoxError::from("a cut that a test asked for");
    let frames = [Ok(Frame::data(bytes)), Err(cut)];
    // What is sent must be on its way before the cut.
    let frames = stream::iter(frames).then(|frame| async move {
        if frame.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        frame
    });
    StreamBody::new(frames).boxed_unsync()
}

type Answer = Pin<Box<dyn Future<Output = Reply> + Send>>;
type Handler = Arc<dyn Fn(Request) -> Answer + Send + Sync>;

/// Something that takes connections on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct Listener {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Listener {
    /// Starts one on a free port of the loopback interface; each connection goes to `serve`.
    pub fn start<F>(name: &'static str, serve: impl Fn(TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener =
            std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on the loopback interface");
        listener.set_nonblocking(true).expect("a listener that does not block");
        let address = listener.local_addr().expect("the address just bound");
        let (stop, stopped) = oneshot::channel();
        let accept = async move |listener: TcpListener| {
            loop {
                let (socket, _) = listener.accept().await.expect("a connection");
                tokio::spawn(serve(socket));
            }
        };
        let thread = std::thread::Builder::new().name(name.into()).spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
            runtime.expect("a runtime for the service").block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a listener inside the runtime");
                tokio::select! {
                    () = accept(listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address, stop: Some(stop), thread: Some(thread.expect("a thread for the service")) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Dropping the sender is the sign to stop.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "a service of the tests panicked");
        }
    }
}

/// A running HTTP service.
#[derive(Debug)]
pub struct HttpServer(Listener);

impl HttpServer {
    /// Starts one; each request goes to `handler`.
    pub fn start<F>(handler: impl Fn(Request) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Reply> + Send + 'static,
    {
        let handler: Handler = Arc::new(move |request| Box::pin(handler(request)));
        Self(Listener::start("http", move |socket| {
            let handler = Arc::clone(&handler);
            async move {
                let service = service_fn(move |request| answer(request, Arc::clone(&handler)));
                // A connection that breaks is the client's matter, or a fault that was asked for.
                drop(Builder::new().serve_connection(TokioIo::new(socket), service).await);
            }
        }))
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.0.address()
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    handler: Handler,
) -> Result<hyper::Response<UnsyncBoxBody<Bytes, BoxError>>, BoxError> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let query = parts.uri.query().unwrap_or_default();
    let reply = handler(Request {
        method: parts.method.as_str().to_owned(),
        path: decoded(parts.uri.path()),
        raw_path: parts.uri.path().to_owned(),
        query: url::form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
        headers: parts.headers,
        body,
    })
    .await;
    let Reply::Response { status, headers, body, length, cut } = reply else {
        return Err("a cut that a test asked for".into());
    };
    let body = match cut {
        true => cut_after(body),
        false => Full::new(body).map_err(|never| match never {}).boxed_unsync(),
    };
    let mut response = hyper::Response::new(body);
    *response.status_mut() = hyper::StatusCode::from_u16(status)?;
    for (name, value) in headers {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(&value)?);
    }
    if let Some(length) = length {
        response.headers_mut().insert("content-length", HeaderValue::from(length));
    }
    Ok(response)
}

/// `%41` is `A`.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        let escaped = match tail {
            [high, low, ..] if *first == b'%' => {
                std::str::from_utf8(&[*high, *low]).ok().and_then(|hex| u8::from_str_radix(hex, 16).ok())
            }
            _ => None,
        };
        bytes.push(escaped.unwrap_or(*first));
        rest = if escaped.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One element of XML; the text needs no escaping, as names of objects do not.
pub(crate) fn element(out: &mut String, name: &str, text: &str) {
    write!(out, "<{name}>{text}</{name}>").expect("writing into a string");
}
