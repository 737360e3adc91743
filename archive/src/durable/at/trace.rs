//! What the door did, in order, so that a test can hold the order of writes, publication and fsyncs (I3).
//!
//! Outside of this crate's unit tests nothing is recorded.

#[cfg(not(test))]
use std::ffi::OsStr;

/// One change of the disk, noted after the system call returned success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(not(test), allow(dead_code))]
pub(crate) enum Step {
    Create,
    Write,
    Fsync,
    Rename,
    Unlink,
    MakeDirectory,
}

#[cfg(not(test))]
pub(crate) fn note(_step: Step, _name: &OsStr) {}

#[cfg(not(test))]
pub(crate) fn note_rename(_from: &str, _to: &OsStr) {}

#[cfg(test)]
pub(crate) use recording::{note, note_rename, record};

#[cfg(test)]
mod recording {
    use std::cell::RefCell;
    use std::ffi::OsStr;

    use super::Step;

    thread_local! {
        static STEPS: RefCell<Option<Vec<(Step, String)>>> = const { RefCell::new(None) };
    }

    /// Runs `work` on this thread and answers what it changed.
    pub(crate) fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<(Step, String)>) {
        STEPS.with(|steps| *steps.borrow_mut() = Some(Vec::new()));
        let answer = work();
        (answer, STEPS.with(|steps| steps.borrow_mut().take()).unwrap_or_default())
    }

    pub(crate) fn note(step: Step, name: &OsStr) {
        STEPS.with(|steps| {
            if let Some(steps) = steps.borrow_mut().as_mut() {
                steps.push((step, name.to_string_lossy().into_owned()));
            }
        });
    }

    pub(crate) fn note_rename(_from: &str, to: &OsStr) {
        note(Step::Rename, to);
    }
}
