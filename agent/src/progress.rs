//! How far a long transfer is: a bar on a terminal, a log line every few seconds elsewhere, always on standard error.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressStyle};

use crate::console;

/// How long between two log lines where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// The progress of one transfer in bytes. Cheap to call from many threads.
pub struct Progress {
    what: String,
    total: u64,
    done: AtomicU64,
    shown: Shown,
}

enum Shown {
    Bar(ProgressBar),
    Lines { last: Mutex<Instant> },
    Nothing,
}

impl Progress {
    /// Starts showing `what`, of `total` bytes (0 where that is not known yet).
    pub fn start(what: impl Into<String>, total: u64, quiet: bool) -> Self {
        let what = what.into();
        let shown = if quiet {
            Shown::Nothing
        } else if std::io::stderr().is_terminal() {
            let bar = ProgressBar::new(total);
            let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
            bar.set_style(
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar()),
            );
            bar.set_message(what.clone());
            Shown::Bar(bar)
        } else {
            Shown::Lines { last: Mutex::new(Instant::now()) }
        };
        Self { what, total, done: AtomicU64::new(0), shown }
    }

    /// `bytes` more are done.
    pub fn add(&self, bytes: u64) {
        let done = self.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        match &self.shown {
            Shown::Bar(bar) => bar.set_position(done),
            Shown::Lines { last } => {
                // Whoever finds the lock taken has nothing new to say.
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= LINE_EVERY
                {
                    *last = Instant::now();
                    self.line(done);
                }
            }
            Shown::Nothing => {}
        }
    }

    /// The transfer is over; the bar goes, and what the command prints next says the result.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish_and_clear();
        }
    }

    fn line(&self, done: u64) {
        console::line(&format!("{}: {} of {}", self.what, HumanBytes(done), HumanBytes(self.total)));
    }
}
