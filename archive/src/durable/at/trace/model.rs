//! What is on the disk for certain after a power cut, by the least that filesystems promise: a file's bytes after an fsync of
//! the file, an entry of a directory after an fsync of that directory, and nothing else. What was there before the recording
//! counts as made by another writer a moment ago: its bytes are certain, its entries are not.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

use super::Step;

/// One recorded change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    Step(Step, PathBuf),
    /// Also a link: the first name is a temporary one and of no further interest.
    Rename(PathBuf, PathBuf),
}

/// The disk as a power cut would leave it.
#[derive(Debug, Default)]
pub(crate) struct Disk {
    /// Files whose bytes are not certain.
    unsynced_files: HashSet<PathBuf>,
    /// When an entry became certain, by the number of the event.
    entries: HashMap<PathBuf, usize>,
    /// When a public name appeared.
    published: HashMap<PathBuf, usize>,
    fsyncs: HashMap<PathBuf, Vec<usize>>,
}

impl Disk {
    /// Replays the events. Panics where a file gets its public name before its bytes are certain.
    pub(crate) fn replay(events: &[Event]) -> Self {
        let mut disk = Self::default();
        for (number, event) in events.iter().enumerate() {
            match event {
                Event::Step(Step::Create | Step::Write, path) => {
                    disk.unsynced_files.insert(path.clone());
                }
                Event::Step(Step::Fsync, path) => {
                    disk.unsynced_files.remove(path);
                    disk.fsyncs.entry(path.clone()).or_default().push(number);
                }
                Event::Step(Step::MakeDirectory, path) => {
                    disk.published.insert(path.clone(), number);
                }
                Event::Step(Step::Unlink, path) => {
                    disk.published.remove(path);
                }
                Event::Rename(from, to) => {
                    assert!(
                        !disk.unsynced_files.contains(from),
                        "published before its bytes were synced: {to:?}"
                    );
                    disk.published.insert(to.clone(), number);
                }
            }
        }
        for (directory, numbers) in &disk.fsyncs {
            for (path, made) in &disk.published {
                if path.parent() == Some(directory)
                    && let Some(synced) = numbers.iter().find(|number| *number > made)
                {
                    disk.entries.insert(path.clone(), *synced);
                }
            }
        }
        disk
    }

    /// Asserts that `path` was published, and that its entry and each directory below `root` on the way to it are certain:
    /// the directories even before it was published, because the next writer takes an object in them for the proof.
    pub(crate) fn assert_durable(&self, root: &Path, path: &Path) {
        let published = self.published.get(path).unwrap_or_else(|| panic!("{path:?} was never published"));
        assert!(self.entries.contains_key(path), "the entry of {path:?} is not certain: {self:#?}");
        for directory in path.ancestors().skip(1).take_while(|directory| *directory != root) {
            let made = self.published.get(directory).copied();
            let parent = directory.parent().unwrap_or_else(|| panic!("{directory:?} has a parent"));
            let numbers = self.fsyncs.get(parent).map(Vec::as_slice).unwrap_or_default();
            assert!(
                numbers.iter().any(|number| made.is_none_or(|made| *number > made) && number < published),
                "the entry of {directory:?} is not certain before {path:?} is published: {self:#?}"
            );
        }
    }

    /// Whether `path` was fsynced at all.
    pub(crate) fn was_fsynced(&self, path: &Path) -> bool {
        self.fsyncs.contains_key(path)
    }
}
