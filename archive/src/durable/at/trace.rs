//! What the door did, in order and with full paths, so that a test can hold the order of writes, publication and fsyncs
//! (I3): see `model`. Outside of this crate's unit tests nothing is recorded.

#[cfg(not(test))]
pub(crate) use silent::{on, on_entry, renamed};

#[cfg(test)]
pub(crate) use recording::{on, on_entry, record, renamed};

#[cfg(test)]
pub(crate) mod model;

/// One change of the disk, noted after the system call returned success.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Create,
    Write,
    Fsync,
    Unlink,
    MakeDirectory,
}

#[cfg(not(test))]
mod silent {
    use std::ffi::OsStr;
    use std::os::fd::AsFd;

    use super::Step;

    pub(crate) fn on(_step: Step, _what: impl AsFd) {}

    pub(crate) fn on_entry(_step: Step, _directory: impl AsFd, _name: &OsStr) {}

    pub(crate) fn renamed(_directory: impl AsFd, _from: &OsStr, _to: &OsStr) {}
}

#[cfg(test)]
mod recording {
    use std::cell::RefCell;
    use std::ffi::OsStr;
    use std::os::fd::{AsFd, AsRawFd};
    use std::path::PathBuf;

    use super::Step;
    use super::model::Event;

    thread_local! {
        static EVENTS: RefCell<Option<Vec<Event>>> = const { RefCell::new(None) };
    }

    /// Runs `work` on this thread and answers what it did to the disk.
    pub(crate) fn record<T>(work: impl FnOnce() -> T) -> (T, Vec<Event>) {
        EVENTS.with(|events| *events.borrow_mut() = Some(Vec::new()));
        let answer = work();
        (answer, EVENTS.with(|events| events.borrow_mut().take()).unwrap_or_default())
    }

    pub(crate) fn on(step: Step, what: impl AsFd) {
        note(|| Event::Step(step, path_of(&what)));
    }

    pub(crate) fn on_entry(step: Step, directory: impl AsFd, name: &OsStr) {
        note(|| Event::Step(step, path_of(&directory).join(name)));
    }

    pub(crate) fn renamed(directory: impl AsFd, from: &OsStr, to: &OsStr) {
        note(|| Event::Rename(path_of(&directory).join(from), path_of(&directory).join(to)));
    }

    fn note(event: impl FnOnce() -> Event) {
        EVENTS.with(|events| {
            if let Some(events) = events.borrow_mut().as_mut() {
                events.push(event());
            }
        });
    }

    fn path_of(what: &impl AsFd) -> PathBuf {
        let descriptor = what.as_fd().as_raw_fd();
        std::fs::read_link(format!("/proc/self/fd/{descriptor}")).expect("the path of an open file")
    }
}
