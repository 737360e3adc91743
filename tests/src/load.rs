//! Sessions that write while something else happens.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::{Cluster, Session};

/// Threads with a session each, until they are stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    turns: Arc<AtomicU64>,
    threads: Vec<JoinHandle<()>>,
}

impl Load {
    /// Calls `turn(thread, turn, session)` in `sessions` threads, again and again. A turn that panics fails [`Load::stop`].
    pub fn start<F>(cluster: &Cluster, sessions: usize, turn: F) -> Self
    where
        F: Fn(usize, u64, &Session) + Send + Sync + 'static,
    {
        let (stop, turns, turn) =
            (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)), Arc::new(turn));
        let threads = (0..sessions).map(|thread| {
            let (stop, turns, turn, session) = (stop.clone(), turns.clone(), turn.clone(), cluster.session());
            std::thread::spawn(move || {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    turn(thread, count, &session);
                    count += 1;
                    turns.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, turns, threads }
    }

    /// The turns that all threads have finished.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Waits until `turns` more turns are finished.
    pub fn wait_for(&self, turns: u64) {
        let (goal, deadline) = (self.turns() + turns, Instant::now() + Duration::from_secs(120));
        while self.turns() < goal {
            assert!(Instant::now() < deadline, "the load has not made {turns} turns in two minutes");
            assert!(
                !self.threads.iter().all(JoinHandle::is_finished),
                "every session of the load has failed"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the threads and gives the number of turns.
    pub fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().expect("a session of the load failed");
        }
        self.turns()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
