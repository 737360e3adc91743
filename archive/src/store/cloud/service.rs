//! Asking a service, again where that may help.
//!
//! `object_store` would send the same signed request again, with the date and the credentials of its first attempt, and let each
//! request hammer by itself. So its own retries are off, and every attempt here is a request of its own: signed anew, with whatever
//! credentials are then good, admitted by the store's [`Throttle`]. What may pass is tried again after a pause that doubles, drawn by lot
//! so that many do not return together; never before the time that the service named, and not for longer than [`Persistence`] allows.
//! A service that is merely full is asked as long as that; one that is silent or broken, a number of times. The time in which a put was on its way
//! is not counted, and one that stalled on it is made again with fewer beside it.

use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use tokio::time::{Instant, sleep};

use super::Dialect;
use super::beside::Beside;
use super::failure::Failure;
use super::line::{Limits, Sending};
use super::throttle::{Permit, Throttle};
use super::wire::{Seen, Wire};
use crate::clock::{Clock as _, SystemClock};
use crate::store::StoreError;

/// How often a request is made whose failures are not about being full.
const MOST_ATTEMPTS: u32 = 8;
/// What services call a credential whose time is over.
pub(super) const ENDED: [&str; 3] = ["ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"];
/// How far clocks may differ before a refusal is explained by it.
const NOTABLE_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// For how long a service is asked.
#[derive(Debug, Clone, Copy)]
pub struct Persistence {
    /// One attempt, beside what its content takes at the slowest rate.
    pub attempt: Duration,
    /// The rate that a put must have to be waited for, in bytes a second.
    pub slowest: u64,
    /// No attempt begins later than this after the first; what is longer is for the caller to decide.
    pub all: Duration,
    /// The pause after the first attempt; it doubles.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Persistence {
    /// Five minutes for an attempt, two for all that begin; pauses from a tenth of a second to fifteen. The rate is that of each of four over a
    /// line of 256 kbit/s.
    pub const USUAL: Self = Self {
        attempt: Duration::from_secs(300),
        slowest: 8 << 10,
        all: Duration::from_secs(120),
        pause: Duration::from_millis(100),
        longest_pause: Duration::from_secs(15),
    };
}

/// One service, as all requests of a store share it.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) dialect: &'static Dialect,
    /// The URL, for messages.
    pub(super) name: String,
    persistence: Persistence,
    throttle: Arc<Throttle>,
    seen: Arc<Seen>,
}

/// What the attempts came to that did not succeed.
pub(super) struct Failed {
    /// The last failure.
    pub(super) error: object_store::Error,
    /// How many attempts there were.
    pub(super) attempts: u32,
    took: Duration,
}

/// A request's attempts so far.
pub(super) struct Attempts {
    begun: Instant,
    made: u32,
    pause: Duration,
    /// For how long what was sent was seen to move, in all attempts; patience does not count that.
    moved: Duration,
    /// Whether it was so in the last one.
    moved_last: bool,
}

impl Service {
    pub(super) fn new(dialect: &'static Dialect, name: &str, persistence: Persistence) -> Arc<Self> {
        let (throttle, seen) = (Throttle::new(name), Arc::default());
        Arc::new(Self { dialect, name: name.to_owned(), persistence, throttle, seen })
    }

    /// What a client connects with.
    pub(super) fn wire(&self) -> Wire {
        let (seen, throttle) = (Arc::clone(&self.seen), Arc::clone(&self.throttle));
        Wire { seen, throttle, limits: self.limits(), beside: Arc::default(), for_credentials: false }
    }

    /// The same, where requests say more than the client can.
    pub(super) fn wire_with(&self, beside: Beside) -> Wire {
        Wire { beside: Arc::new(beside), ..self.wire() }
    }

    /// What whoever hands out credentials is connected with.
    pub(super) fn wire_for_credentials(&self) -> Wire {
        Wire { for_credentials: true, ..self.wire() }
    }

    /// How long a request may take.
    pub(super) fn limits(&self) -> Limits {
        Limits::of(self.persistence)
    }

    pub(super) fn seen(&self) -> &Arc<Seen> {
        &self.seen
    }

    pub(super) fn attempts(&self) -> Attempts {
        let (begun, pause) = (Instant::now(), self.persistence.pause);
        Attempts { begun, made: 0, pause, moved: Duration::ZERO, moved_last: false }
    }

    /// Makes a request until it succeeds, or trying again cannot help or lasts too long. The permit is for as long as the answer
    /// is read.
    pub(super) async fn run<T, F>(&self, ask: impl Fn() -> F) -> Result<(T, Permit), Failed>
    where
        F: Future<Output = Result<T, object_store::Error>>,
    {
        self.run_sending(&Sending::default(), ask).await
    }

    /// The same for a put, whose requests carry `sending`.
    pub(super) async fn run_sending<T, F>(
        &self,
        sending: &Sending,
        ask: impl Fn() -> F,
    ) -> Result<(T, Permit), Failed>
    where
        F: Future<Output = Result<T, object_store::Error>>,
    {
        let mut attempts = self.attempts();
        loop {
            let permit = self.throttle.admit().await;
            let begun = Instant::now();
            match ask().await {
                Ok(answer) => {
                    permit.succeeded();
                    self.seen.accept();
                    return Ok((answer, permit));
                }
                Err(error) => {
                    let failure = Failure::of(&error);
                    if failure.asks_to_slow_down() || failure.timed_out {
                        permit.slow_down();
                    }
                    drop(permit);
                    let moved = sending.take_moved();
                    attempts.moved += moved;
                    attempts.moved_last = !moved.is_zero();
                    // A credential may end on the way; the next attempt is signed with another, where there is one.
                    let ended = failure.is_one_of(&ENDED) || failure.status == Some(401);
                    let again = ended && (self.seen.refuse(begun) || failure.is_one_of(&ENDED));
                    self.pause(&mut attempts, error, again).await?;
                }
            }
        }
    }

    /// Waits before the next attempt, where there is to be one: after what may pass, or where the credential `ended` and another may do.
    pub(super) async fn pause(
        &self,
        attempts: &mut Attempts,
        error: object_store::Error,
        ended: bool,
    ) -> Result<(), Failed> {
        attempts.made += 1;
        let took = attempts.begun.elapsed();
        let failure = Failure::of(&error);
        let full = failure.asks_to_slow_down();
        // A line that fails under what is sent at once may bear fewer: then what did move is sent again, however long it took.
        let stalled = failure.timed_out && attempts.moved_last && attempts.made < 3;
        let ended = ended && attempts.made < 3;
        // Whether a conflict may pass is for the create to find out.
        let may_pass = !matches!(error, object_store::Error::AlreadyExists { .. })
            && !failure.into_store_error(self.dialect, "", "", "").is_permanent();
        let wait = self.throttle.resting().max(by_lot(attempts.pause));
        let patient = took.saturating_sub(attempts.moved) + wait <= self.persistence.all;
        let in_time = stalled || patient && (full || attempts.made < MOST_ATTEMPTS);
        if !(may_pass || ended) || !in_time {
            return Err(Failed { error, attempts: attempts.made, took });
        }
        tracing::debug!(%error, attempt = attempts.made, ?wait, "a request to {} failed; trying again", self.name);
        attempts.pause = (attempts.pause * 2).min(self.persistence.longest_pause);
        sleep(wait).await;
        Ok(())
    }

    /// The failure in our words, with how often it was tried and, for a refusal, what the clocks have to do with it.
    pub(super) fn fail(&self, operation: &'static str, path: &str, failed: &Failed) -> StoreError {
        let mut failure = Failure::of(&failed.error);
        if failed.attempts > 1 {
            failure.add(&format!("{} attempts in {:.1} s", failed.attempts, failed.took.as_secs_f64()));
        }
        if failure.is_refusal(self.dialect)
            && let Some(told) = self.seen.skew().and_then(tell_skew)
        {
            failure.add(&told);
        }
        failure.into_store_error(self.dialect, operation, path, &self.name)
    }
}

/// Between half of a pause and the whole.
fn by_lot(pause: Duration) -> Duration {
    let mut lot = [0_u8; 2];
    // Without random numbers all return together, which the throttle bears.
    let _whole = getrandom::fill(&mut lot);
    pause / 2 + (pause / 2).mul_f64(f64::from(u16::from_be_bytes(lot)) / f64::from(u16::MAX))
}

/// What clocks that differ say, where they do by much.
fn tell_skew(skew: SignedDuration) -> Option<String> {
    if skew.abs() < NOTABLE_SKEW {
        return None;
    }
    let side = if skew.is_positive() { "behind" } else { "ahead of" };
    let now = SystemClock.now();
    let store = now.checked_add(skew).unwrap_or(now);
    Some(format!(
        "this host's clock is {} s {side} the store's: {now:.0} here, {store:.0} there",
        skew.abs().as_secs()
    ))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures::future::join_all;
    use object_store::client::{HttpError, HttpErrorKind};
    use tokio::sync::Barrier;
    use tokio::task::yield_now;

    use super::*;

    static DIALECT: Dialect = Dialect {
        root: "bucket",
        root_missing: &[],
        object_missing: &[],
        exists: &[],
        busy: &[],
        unknown_credentials: &[],
        classes: &[],
        lists_omit_the_prefix_itself: false,
    };

    /// What is too slow for eight at once is not asked by eight at once again.
    #[tokio::test]
    async fn after_a_time_out_fewer_are_under_way() {
        let pause = Duration::from_millis(1);
        let quick = Persistence { pause, longest_pause: pause, ..Persistence::USUAL };
        let service = Service::new(&DIALECT, "s3://b", quick);
        let (all, asked) = (Barrier::new(8), AtomicUsize::new(0));
        let (now, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let ask = async || {
            if asked.fetch_add(1, Ordering::SeqCst) < 8 {
                all.wait().await;
                let over = HttpError::new(HttpErrorKind::Timeout, std::io::Error::other("too slow"));
                return Err(object_store::Error::Generic { store: "", source: over.into() });
            }
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            for _ in 0..100 {
                yield_now().await;
            }
            now.fetch_sub(1, Ordering::SeqCst);
            Ok(())
        };
        let requests = (0..8).map(async |_| service.run(&ask).await.is_ok());
        assert!(join_all(requests).await.into_iter().all(|answered| answered));
        // Each success lets a little more through again.
        let most = most.load(Ordering::SeqCst);
        assert!((1..8).contains(&most), "{most}");
    }
}
