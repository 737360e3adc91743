//! How many requests may be under way at a store that asks to slow down.
//!
//! A service that is overloaded answers 429 or 503, and every client that merely tries again keeps it so. All requests of one store
//! pass here. At first nothing holds them. An answer that asks to slow down, or one that does not come in time, halves the number that may be under way at once, once
//! for all requests that began before it; when there is but one, the pauses between one and the next double instead. Each success
//! lets a little more through, until the store bears as many as were under way before it complained, and nothing holds them again. A
//! service may say when to come back (`Retry-After`): until then nobody goes.
//!
//! The limit is advice and must never be a lock: whoever reads a stream may need another request before it goes on, and what is asked
//! to see whether a store is alive must not wait for what hangs. So a request waits [`LONGEST_WAIT`] at most, and then goes; all others
//! wait on, each for as long itself.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout_at};

/// A request goes after this long whatever the limit says.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// What an answer asks to wait is believed up to this.
const LONGEST_REST: Duration = Duration::from_secs(3600);
/// The pause between two requests where half a request at once is allowed; at a quarter it is three times that, and so on.
const PAUSE: Duration = Duration::from_millis(20);
/// The least that is allowed: a request every 1.3 seconds.
const LEAST: f64 = 1.0 / 64.0;
/// Below one request at once, each success allows this much more of it.
const RISE: f64 = 1.25;

/// The requests of one store.
#[derive(Debug)]
pub(super) struct Throttle {
    store: String,
    state: Mutex<State>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct State {
    under_way: usize,
    limit: Option<Limit>,
    /// How often it was cut: what began before the last time has nothing new to say.
    cuts: u64,
    /// Nobody goes before this.
    rest_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Limit {
    /// How many at once; below one, there is a pause after each.
    at_once: f64,
    /// As many were under way when the store first complained.
    before: f64,
}

/// The right to one request; it ends with it.
#[derive(Debug)]
pub(super) struct Permit {
    throttle: Arc<Throttle>,
    cuts: u64,
}

/// What a request that wants to go is told.
enum Turn {
    Go(u64),
    NotBefore(Instant),
    WhenOneEnds,
}

impl Throttle {
    pub(super) fn new(store: &str) -> Arc<Self> {
        Arc::new(Self { store: store.to_owned(), state: Mutex::default(), freed: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until one more request may go.
    pub(super) async fn admit(self: &Arc<Self>) -> Permit {
        let last = Instant::now() + LONGEST_WAIT;
        loop {
            let freed = self.freed.notified();
            let now = Instant::now();
            let turn = self.state().turn(now, now >= last);
            match turn {
                Turn::Go(cuts) => return Permit { throttle: Arc::clone(self), cuts },
                Turn::NotBefore(when) => sleep_until(when.min(last)).await,
                // Whether one ended or the time did, the next turn tells.
                Turn::WhenOneEnds => drop(timeout_at(last, freed).await),
            }
        }
    }

    /// A service said when to come back.
    pub(super) fn rest(&self, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_REST);
        let mut state = self.state();
        state.rest_until = state.rest_until.max(Some(until));
    }

    /// How long nobody is to go.
    pub(super) fn resting(&self) -> Duration {
        let until = self.state().rest_until;
        until.map(|until| until.saturating_duration_since(Instant::now())).unwrap_or_default()
    }
}

impl Permit {
    /// The store answered as it should.
    pub(super) fn succeeded(&self) {
        let mut state = self.throttle.state();
        let Some(limit) = &mut state.limit else { return };
        limit.at_once =
            if limit.at_once < 1.0 { limit.at_once * RISE } else { limit.at_once + 1.0 / limit.at_once };
        if limit.at_once >= limit.before {
            state.limit = None;
            tracing::info!("{} keeps up: requests are held no longer", self.throttle.store);
        }
        drop(state);
        self.throttle.freed.notify_one();
    }

    /// The store asked to slow down, or the time was over.
    pub(super) fn slow_down(&self) {
        let mut state = self.throttle.state();
        if self.cuts < state.cuts {
            return;
        }
        state.cuts += 1;
        #[allow(clippy::cast_precision_loss, reason = "a handful of requests")]
        let under_way = state.under_way.max(1) as f64;
        let first = state.limit.is_none();
        let limit = state.limit.unwrap_or(Limit { at_once: under_way, before: under_way });
        let limit = Limit { at_once: halved(limit.at_once), ..limit };
        state.limit = Some(limit);
        drop(state);
        let most = limit.at_once.ceil();
        match first {
            true => {
                tracing::warn!("{} does not keep up: {most} requests at once now", self.throttle.store);
            }
            false => tracing::debug!("{} still does not: {most} requests at once now", self.throttle.store),
        }
    }
}

/// Half as many, in whole requests while there are several.
fn halved(at_once: f64) -> f64 {
    let half = at_once / 2.0;
    if at_once > 1.0 { half.floor().max(1.0) } else { half.max(LEAST) }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.throttle.state();
        state.under_way = state.under_way.saturating_sub(1);
        drop(state);
        self.throttle.freed.notify_one();
    }
}

impl State {
    fn turn(&mut self, now: Instant, is_last: bool) -> Turn {
        if !is_last {
            if let Some(until) = self.rest_until.filter(|until| *until > now) {
                return Turn::NotBefore(until);
            }
            #[allow(clippy::cast_precision_loss, reason = "a handful of requests")]
            let under_way = self.under_way as f64;
            if self.limit.is_some_and(|limit| under_way + 1.0 > limit.at_once.max(1.0)) {
                return Turn::WhenOneEnds;
            }
        }
        self.under_way += 1;
        let pause = self.limit.filter(|limit| limit.at_once < 1.0).map(|limit| now + limit.pause());
        // One that went all the same does not end for all others what the service asked for.
        self.rest_until = self.rest_until.max(pause);
        Turn::Go(self.cuts)
    }
}

impl Limit {
    fn pause(self) -> Duration {
        PAUSE.mul_f64((1.0 / self.at_once - 1.0).max(0.0))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    fn at_once(throttle: &Throttle) -> Option<f64> {
        throttle.state().limit.map(|limit| limit.at_once)
    }

    /// A permit, where nothing holds it.
    fn admit(throttle: &Arc<Throttle>) -> Option<Permit> {
        throttle.admit().now_or_never()
    }

    /// Requests that were under way together are one complaint, whatever their number; successes bring back what was before.
    #[test]
    fn one_complaint_halves_and_successes_restore() {
        let throttle = Throttle::new("s3://b");
        let mut permits: Vec<Permit> = (0..8).map(|_| admit(&throttle).unwrap()).collect();
        permits.iter().for_each(Permit::slow_down);
        assert_eq!(at_once(&throttle), Some(4.0));
        permits.truncate(4);
        assert!(matches!(throttle.state().turn(Instant::now(), false), Turn::WhenOneEnds));
        permits.truncate(3);
        permits.push(admit(&throttle).unwrap());
        let mut successes = 0;
        while at_once(&throttle).is_some() {
            permits[0].succeeded();
            successes += 1;
        }
        assert!((4..=32).contains(&successes), "{successes}");
        assert!(admit(&throttle).is_some());
    }

    /// The limit is advice: whoever has waited long enough goes.
    #[test]
    fn nobody_waits_for_ever() {
        let throttle = Throttle::new("s3://b");
        let permits = [admit(&throttle).unwrap(), admit(&throttle).unwrap()];
        permits[0].slow_down();
        throttle.rest(Duration::from_secs(60));
        let now = Instant::now();
        assert!(matches!(throttle.state().turn(now, false), Turn::NotBefore(_)));
        let later = now + Duration::from_secs(61);
        assert!(matches!(throttle.state().turn(later, false), Turn::WhenOneEnds));
        assert!(matches!(throttle.state().turn(now, true), Turn::Go(1)));
        // One that has waited long enough speaks for itself alone.
        assert!(matches!(throttle.state().turn(now, false), Turn::NotBefore(_)));
        assert!(throttle.resting() > Duration::from_secs(30));
    }

    /// Below one at once there are pauses, which double and end again.
    #[test]
    fn a_single_request_is_followed_by_pauses() {
        let throttle = Throttle::new("s3://b");
        let mut now = Instant::now();
        // What each in a row is told: the pause before it.
        let mut one = |told: fn(&Permit)| {
            let begun = now;
            loop {
                let turn = throttle.state().turn(now, false);
                match turn {
                    Turn::Go(cuts) => {
                        told(&Permit { throttle: Arc::clone(&throttle), cuts });
                        return now.duration_since(begun).as_millis();
                    }
                    Turn::NotBefore(when) => now = when,
                    Turn::WhenOneEnds => panic!("nothing is under way"),
                }
            }
        };
        let pauses: Vec<u128> = (0..10).map(|_| one(Permit::slow_down)).collect();
        assert_eq!(pauses, [0, 0, 20, 60, 140, 300, 620, 1260, 1260, 1260]);
        assert_eq!(at_once(&throttle), Some(LEAST));
        let mut successes = 0;
        while at_once(&throttle).is_some() {
            one(Permit::succeeded);
            successes += 1;
        }
        assert!((10..40).contains(&successes), "{successes}");
        assert_eq!((one(Permit::succeeded), one(Permit::succeeded)).1, 0);
    }
}
