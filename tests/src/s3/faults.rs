//! What can go wrong at a service, and a record of what was asked of it.
//!
//! - The content of a put is damaged on its way.
//! - Conditional puts are ignored: every writer is told that it won, the last one's bytes stay.
//! - The n-th request of a kind fails *before* it has any effect: an overloaded or forbidden service.
//! - The n-th request of a kind fails *after* its effect: the reply is lost, the object is there.
//! - A failure is an HTTP status with the service's code, with or without the time to come back; a body that is no answer, or tells of
//!   an error under the status of a success; a connection cut without a word or in mid-body; or no answer at all.
//! - Every request takes longer, or a single one does; or all of a kind wait until the test has done something else.
//! - More than so many requests at once, or within a second, are told to slow down.
//! - The service's clock is wrong.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::header::HeaderMap;

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
    /// The date that it was signed with, and its signature.
    pub signed: (String, String),
    /// The storage class or tier that it asked for; empty where it named none.
    pub class: String,
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
    /// An HTTP status, and the service's code in the body (HEAD has none).
    Status(u16, &'static str),
    /// The same, with the seconds after which to come back.
    ComeBack(u16, &'static str, u64),
    /// An HTTP status with this body.
    Body(u16, &'static str),
    /// The answer as it should be, whose connection is cut in mid-body.
    Half,
    /// The connection ends without a reply.
    Cut,
    /// There is no reply, and the connection stays.
    Hang,
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
    damage_next_put: AtomicBool,
    latency_ms: AtomicU64,
    late: Mutex<Option<(String, Duration)>>,
    held: Mutex<Option<(Operation, String)>>,
    rules: Mutex<Vec<Fault>>,
    requests: Mutex<Vec<Request>>,
    pace: Mutex<Pace>,
    under_way: AtomicUsize,
    slowed: AtomicUsize,
    denied: Mutex<Vec<String>>,
    clock_ahead_s: AtomicI64,
}

/// What a service bears.
#[derive(Debug, Default)]
struct Pace {
    at_once: Option<usize>,
    /// Requests a second, and a bucket that holds a second's worth.
    rate: Option<(f64, f64, Instant)>,
}

/// A request that the service is at.
#[derive(Debug)]
pub(crate) struct UnderWay<'a>(&'a Faults);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Faults {
    /// Takes `If-None-Match` for decoration, as some services do.
    pub fn ignore_conditions(&self, ignore: bool) {
        self.ignore_conditions.store(ignore, Ordering::SeqCst);
    }

    pub(crate) fn ignores_conditions(&self) -> bool {
        self.ignore_conditions.load(Ordering::SeqCst)
    }

    /// Turns a bit of what the next put brings.
    pub fn damage_next_put(&self) {
        self.damage_next_put.store(true, Ordering::SeqCst);
    }

    pub(super) fn take_damage(&self) -> bool {
        self.damage_next_put.swap(false, Ordering::SeqCst)
    }

    /// Lets each request wait this long before anything else happens.
    pub fn set_latency(&self, latency: Duration) {
        self.latency_ms.store(u64::try_from(latency.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Lets the next request whose key contains this wait so long.
    pub fn delay_next(&self, key_contains: &str, delay: Duration) {
        *locked(&self.late) = Some((key_contains.to_owned(), delay));
    }

    /// Lets requests of this kind whose key contains this wait until they are [let go](Faults::let_go).
    pub fn hold(&self, operation: Operation, key_contains: &str) {
        *locked(&self.held) = Some((operation, key_contains.to_owned()));
    }

    /// Lets those that wait go on.
    pub fn let_go(&self) {
        *locked(&self.held) = None;
    }

    fn holds(&self, operation: Operation, key: &str) -> bool {
        locked(&self.held).as_ref().is_some_and(|(kind, part)| *kind == operation && key.contains(&**part))
    }

    /// Tells more requests at once than so many to slow down.
    pub fn bear_at_once(&self, at_once: Option<usize>) {
        locked(&self.pace).at_once = at_once;
    }

    /// Tells more requests a second than so many to slow down.
    pub fn bear_per_second(&self, rate: Option<f64>) {
        locked(&self.pace).rate = rate.map(|rate| (rate, rate, Instant::now()));
    }

    /// How many requests were told to slow down.
    pub fn slowed(&self) -> usize {
        self.slowed.load(Ordering::SeqCst)
    }

    /// Notes a request that a policy forbade.
    pub(super) fn denied(&self, operation: Operation, key: &str) {
        locked(&self.denied).push(format!("{operation:?} {key}"));
    }

    /// What policies forbade since this was asked last, `operation key` each.
    pub fn take_denied(&self) -> Vec<String> {
        std::mem::take(&mut *locked(&self.denied))
    }

    /// Sets the service's clock so many seconds ahead of the host's.
    pub fn set_clock_ahead(&self, seconds: i64) {
        self.clock_ahead_s.store(seconds, Ordering::SeqCst);
    }

    /// How far the service's clock is ahead, in seconds.
    pub(crate) fn clock_ahead(&self) -> i64 {
        self.clock_ahead_s.load(Ordering::SeqCst)
    }

    /// Lets a request in, unless there are too many.
    pub(crate) fn enter(&self) -> Option<UnderWay<'_>> {
        let inside = UnderWay(self);
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        let mut pace = locked(&self.pace);
        let mut too_many = pace.at_once.is_some_and(|most| now > most);
        if let Some((rate, bucket, since)) = &mut pace.rate {
            *bucket = (*bucket + since.elapsed().as_secs_f64() * *rate).min(*rate);
            *since = Instant::now();
            too_many |= *bucket < 1.0;
            *bucket -= if *bucket < 1.0 { 0.0 } else { 1.0 };
        }
        if too_many {
            self.slowed.fetch_add(1, Ordering::SeqCst);
        }
        (!too_many).then_some(inside)
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

    /// Empties the log, and counts those that were told to slow down from here.
    pub fn forget_requests(&self) {
        self.slowed.store(0, Ordering::SeqCst);
        locked(&self.requests).clear();
    }

    /// Notes a request, and says how it fails, if it does.
    pub(crate) async fn arrived(
        &self,
        operation: Operation,
        key: &str,
        headers: &HeaderMap,
    ) -> Option<(When, Response)> {
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let date = format!("{}{}", header("x-amz-date"), header("date"));
        let signed = (date, header("authorization").to_owned());
        let class = ["x-amz-storage-class", "x-goog-storage-class", "x-ms-access-tier"].map(header).concat();
        locked(&self.requests).push(Request { operation, key: key.to_owned(), signed, class });
        let latency_ms = self.latency_ms.load(Ordering::SeqCst);
        if latency_ms > 0 {
            tokio::time::sleep(Duration::from_millis(latency_ms)).await;
        }
        let late = locked(&self.late).take_if(|(part, _)| key.contains(&**part));
        if let Some((_, delay)) = late {
            tokio::time::sleep(delay).await;
        }
        while self.holds(operation, key) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.matching(operation, key)
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

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
