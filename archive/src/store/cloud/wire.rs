//! What passes between us and a service, seen on its way.
//!
//! `object_store` keeps to itself what a response says beside its content. Here each one is looked at for what all requests of a
//! store must know: the service's clock (`Date`), when it wants to be asked again (`Retry-After`), and until when a credential that was
//! just handed out is good. And a success must be one: a client takes any XML for a list, so that an error, the page of a proxy or
//! half an answer under status 200 would be an empty list, which proves absence. What is no whole list is a failure here, and so is
//! a put that was answered with an error.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
    ReqwestConnector,
};
use serde_json::Value;
use tokio::time::Instant;

use super::beside::Beside;
use super::line::Limits;
use super::throttle::Throttle;
use crate::clock::{Clock as _, SystemClock};

/// The longest answer to a put, or with a credential, that is looked into, in bytes.
const MAX_ANSWER_BYTES: usize = 64 << 10;
/// How much of an answer that cannot be used is passed on, in bytes.
const MAX_TOLD_BYTES: usize = 500;

/// What was seen of a service.
#[derive(Debug, Default)]
pub(super) struct Seen {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    skew: Option<SignedDuration>,
    credential_ends: Option<Instant>,
    renews: bool,
    /// When the last request began whose credential was refused.
    refused: Option<Instant>,
    /// Since when no request succeeded after such a refusal.
    in_vain: Option<Instant>,
}

impl Seen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far the service's clock is ahead of this host's, by its last answer.
    pub(super) fn skew(&self) -> Option<SignedDuration> {
        self.state().skew
    }

    /// Notes when the credential that was just handed out ends.
    pub(super) fn credential_ends(&self, at: Instant) {
        self.state().credential_ends = Some(at);
    }

    /// When the credential that was handed out last ends; forgotten by asking.
    pub(super) fn take_credential_end(&self) -> Option<Instant> {
        self.state().credential_ends.take()
    }

    /// Another credential can be had where one is refused.
    pub(super) fn can_renew(&self) {
        self.state().renews = true;
    }

    /// Notes that the service does not take the credential any more that a request had which began then. Answers whether another may do:
    /// not where one was asked for already and none has served since.
    pub(super) fn refuse(&self, begun: Instant) -> bool {
        let mut state = self.state();
        state.refused = state.refused.max(Some(begun));
        let since = *state.in_vain.get_or_insert_with(Instant::now);
        state.renews && begun < since
    }

    /// Notes that the service took a credential.
    pub(super) fn accept(&self) {
        self.state().in_vain = None;
    }

    /// Whether what was there at that moment was refused since.
    pub(super) fn refused_since(&self, moment: Instant) -> bool {
        self.state().refused.is_some_and(|refused| moment < refused)
    }
}

/// Makes clients whose answers are looked at.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    pub(super) seen: Arc<Seen>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) limits: Limits,
    /// What requests say beside what the client can.
    pub(super) beside: Arc<Beside>,
    /// Whether the other side is whoever hands out credentials, and not the store.
    pub(super) for_credentials: bool,
}

impl HttpConnector for Wire {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let inner = ReqwestConnector::default().connect(options)?;
        Ok(HttpClient::new(Watched { inner, wire: self.clone() }))
    }
}

#[derive(Debug)]
struct Watched {
    inner: HttpClient,
    wire: Wire,
}

/// Why an answer cannot be used, with its beginning.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {beginning}")]
struct Unusable {
    what: &'static str,
    beginning: String,
}

fn unusable(what: &'static str, body: &[u8]) -> HttpError {
    let beginning = String::from_utf8_lossy(body.get(..MAX_TOLD_BYTES).unwrap_or(body)).into_owned();
    HttpError::new(HttpErrorKind::Decode, Unusable { what, beginning })
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.wire.beside.say(&mut request)?;
        let query = request.uri().query().unwrap_or_default();
        let is_list = query.split('&').any(|pair| matches!(pair, "list-type=2" | "comp=list"));
        let is_put = request.method().as_str() == "PUT";
        let is_get = request.method().as_str() == "GET";
        let sent = SystemClock.now();
        let limits = self.wire.limits;
        let response = match is_put {
            true => limits.put(&self.inner, request).await?,
            false => limits.answer(&self.inner, request).await?,
        };
        let success = response.status().is_success();
        if !self.wire.for_credentials {
            self.look_at(&response, sent);
        }
        match success {
            true if self.wire.for_credentials => self.credential(response).await,
            true if is_list => self.list(response).await,
            true if is_put => self.put(response).await,
            // What is read has its own time.
            true if is_get => Ok(range(response)),
            true => self.whole(response, usize::MAX).await,
            false => self.whole(response, MAX_ANSWER_BYTES).await,
        }
    }
}

impl Watched {
    fn look_at(&self, response: &HttpResponse, sent: Timestamp) {
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let date = header("date").and_then(http_date);
        if let Some(date) = date {
            self.wire.seen.state().skew = Some(skew(date, sent, SystemClock.now()));
        }
        if matches!(response.status().as_u16(), 429 | 503)
            && let Some(wait) = header("retry-after").and_then(|text| retry_after(text, date))
        {
            self.wire.throttle.rest(wait);
        }
    }

    async fn credential(&self, response: HttpResponse) -> Result<HttpResponse, HttpError> {
        let (response, body) = self.short(response).await?;
        if let Some(life) = life(&body, SystemClock.now()) {
            self.wire.seen.credential_ends(Instant::now() + life);
        }
        Ok(response)
    }

    /// Passes on a list that is one, to its last element.
    async fn list(&self, response: HttpResponse) -> Result<HttpResponse, HttpError> {
        let (parts, body) = response.into_parts();
        let body = self.wire.limits.body(body, usize::MAX).await?;
        let end = body.trim_ascii_end();
        if end.ends_with(b"ListBucketResult>") || end.ends_with(b"EnumerationResults>") {
            return Ok(HttpResponse::from_parts(parts, body.into()));
        }
        Err(unusable("its answer is no list, or not the whole of one", &body))
    }

    /// Passes on the answer to a put, unless it tells of an error.
    async fn put(&self, response: HttpResponse) -> Result<HttpResponse, HttpError> {
        let (response, body) = self.short(response).await?;
        if body.windows(6).any(|part| part == b"<Error") {
            return Err(unusable("its answer is a success and tells of an error", &body));
        }
        Ok(response)
    }

    /// An answer that is looked into, and its body. Nothing that we ask for here is long: what goes on and on is cut off.
    async fn short(&self, response: HttpResponse) -> Result<(HttpResponse, Bytes), HttpError> {
        let (parts, body) = response.into_parts();
        let body = self.wire.limits.body(body, MAX_ANSWER_BYTES + 1).await?;
        if body.len() > MAX_ANSWER_BYTES {
            return Err(unusable("its answer is far too long", &body));
        }
        Ok((HttpResponse::from_parts(parts, body.clone().into()), body))
    }

    /// An answer with so much of its body as is of use.
    async fn whole(&self, response: HttpResponse, most: usize) -> Result<HttpResponse, HttpError> {
        let (parts, body) = response.into_parts();
        let body = self.wire.limits.body(body, most).await?;
        Ok(HttpResponse::from_parts(parts, body.into()))
    }
}

/// Passes on an object, or a part of one. Where a range begins at the object's end some services bring nothing and call that a success
/// (Azurite does); to the client it must be the refusal that it is elsewhere.
fn range(response: HttpResponse) -> HttpResponse {
    let told = response.headers().get("content-range").and_then(|value| value.to_str().ok());
    if !told.is_some_and(is_past_the_end) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    if let Ok(unsatisfiable) = 416_u16.try_into() {
        parts.status = unsatisfiable;
    }
    HttpResponse::from_parts(parts, body)
}

/// Whether this `Content-Range` begins where the object ends: `bytes 10-9/10`.
fn is_past_the_end(told: &str) -> bool {
    let parts = told.strip_prefix("bytes ").and_then(|rest| rest.split_once('/'));
    let Some((range, total)) = parts else { return false };
    let from = range.split('-').next().unwrap_or_default().parse::<u64>();
    matches!((from, total.parse()), (Ok(from), Ok(total)) if from >= total)
}

/// `Fri, 20 Nov 2026 10:00:00 GMT`.
fn http_date(text: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()
}

/// How far ahead a clock is that showed `date`, cut to seconds, between two moments of ours; zero where both may be right.
fn skew(date: Timestamp, sent: Timestamp, received: Timestamp) -> SignedDuration {
    let least = date.duration_since(received);
    let most = date.duration_since(sent) + SignedDuration::from_secs(1);
    match (least.is_positive(), most.is_negative()) {
        (true, _) => least,
        (_, true) => most,
        _ => SignedDuration::ZERO,
    }
}

/// Seconds, or a date by the service's own clock.
fn retry_after(text: &str, date: Option<Timestamp>) -> Option<Duration> {
    if let Ok(seconds) = text.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let wait = http_date(text)?.duration_since(date?);
    Some(Duration::try_from(wait).unwrap_or_default())
}

/// How long the credential in this answer is good, by what AWS, Google and Azure call it.
fn life(body: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(body).ok()?;
    let until = |text: &str| {
        let life = text.parse::<Timestamp>().ok()?.duration_since(now);
        Some(Duration::try_from(life).unwrap_or_default())
    };
    if let Some((_, rest)) = text.split_once("<Expiration>") {
        return until(rest.split('<').next()?);
    }
    let answer: Value = serde_json::from_str(text).ok()?;
    if let Some(end) = answer.get("Expiration").and_then(Value::as_str) {
        return until(end);
    }
    let seconds = answer.get("expires_in")?;
    seconds.as_u64().or_else(|| seconds.as_str()?.parse().ok()).map(Duration::from_secs)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_wrong_only_by_what_cannot_be_explained() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let date = http_date("Fri, 20 Nov 2026 10:00:00 GMT").unwrap();
        assert_eq!(date, at("2026-11-20T10:00:00Z"));
        let skew = |sent: &str, received: &str| super::skew(date, at(sent), at(received)).as_millis();
        assert_eq!(skew("2026-11-20T10:00:00.4Z", "2026-11-20T10:00:00.6Z"), 0);
        assert_eq!(skew("2026-11-20T09:59:00Z", "2026-11-20T10:01:00Z"), 0, "an answer that took long");
        assert_eq!(skew("2026-11-20T09:50:00Z", "2026-11-20T09:50:01Z"), 599_000);
        assert_eq!(skew("2026-11-20T10:20:01Z", "2026-11-20T10:20:02Z"), -1_200_000);
    }

    #[test]
    fn when_to_come_back_is_a_number_or_a_date() {
        let date = http_date("Fri, 20 Nov 2026 10:00:00 GMT");
        assert_eq!(retry_after("7", None), Some(Duration::from_secs(7)));
        assert_eq!(retry_after("Fri, 20 Nov 2026 10:00:30 GMT", date), Some(Duration::from_secs(30)));
        assert_eq!(retry_after("Fri, 20 Nov 2026 09:00:30 GMT", date), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", date), None);
    }

    #[test]
    fn a_range_past_the_end_is_none() {
        for (told, past) in [
            ("bytes 10-9/10", true),
            ("bytes 0--1/0", true),
            ("bytes 9-9/10", false),
            ("bytes 0-9/*", false),
            ("bytes */10", false),
            ("", false),
        ] {
            assert_eq!(is_past_the_end(told), past, "{told:?}");
        }
    }

    #[test]
    fn the_life_of_a_credential_is_read_as_each_provider_says_it() {
        let now = "2026-11-20T10:00:00Z".parse().unwrap();
        let seconds = |body: &str| life(body.as_bytes(), now).map(|life| life.as_secs());
        assert_eq!(seconds("<a><Expiration>2026-11-20T10:01:00Z</Expiration></a>"), Some(60));
        assert_eq!(seconds(r#"{"Expiration":"2026-11-20T09:00:00Z"}"#), Some(0));
        assert_eq!(seconds(r#"{"access_token":"t","expires_in":3599}"#), Some(3599));
        assert_eq!(seconds(r#"{"access_token":"t","expires_in":"86399"}"#), Some(86399));
        for nothing in ["session", "{}", "<html>", ""] {
            assert_eq!(seconds(nothing), None, "{nothing}");
        }
    }
}
