//! Repositories that kept a push of WAL waiting: `<PGDATA>/highwater/silent/<repository>`.
//!
//! One that hangs, beyond those that must hold a file (I11), would cost each push the whole time that such repositories are given. So the
//! push that waited in vain leaves a mark, and those that follow ask the repository as ever but hardly wait for it. After a while, which
//! doubles up to a minute, it is given the whole time again; whatever it answers takes the mark away.
//!
//! A mark shortens a wait and decides nothing else: what counts as archived is the same with it and without it. It may be lost, and may be copied
//! with the data directory; one that cannot be written, or be read, is none.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_archive::durable;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host_state;

/// How long a repository is hardly waited for after the first time that it was silent.
const FIRST_PAUSE: Duration = Duration::from_secs(5);

/// And at most.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// A repository did not answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// When that began.
    pub since: Timestamp,
    /// When it was last given its whole time.
    asked: Timestamp,
    /// How often it was, since it began.
    times: u32,
}

impl Silence {
    /// What is remembered of a repository.
    pub fn of(data_dir: &Path, repository: &str) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path(data_dir, repository)).ok()?).ok()
    }

    /// Until when it is hardly waited for; none when its time has come, or the clock was set back.
    pub fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let pause = FIRST_PAUSE * 2u32.saturating_pow(self.times.saturating_sub(1));
        let until = self.asked.checked_add(pause.min(LONGEST_PAUSE)).ok()?;
        (self.asked <= now && now < until).then_some(until)
    }

    /// Remembers that a repository was given its whole time at `now` and did not answer.
    pub fn remember(data_dir: &Path, repository: &str, now: Timestamp) {
        let before = Self::of(data_dir, repository);
        let (since, times) = before.map_or((now, 0), |before| (before.since, before.times));
        let mark = Self { since, asked: now, times: times.saturating_add(1).min(16) };
        let path = path(data_dir, repository);
        let write = || -> anyhow::Result<()> {
            if let Some(directory) = path.parent() {
                durable::create_dir_all_durable(directory)?;
            }
            Ok(durable::replace(&path, &[serde_json::to_string(&mark)?])?)
        };
        if let Err(error) = write() {
            tracing::debug!("that repository {repository} is silent cannot be remembered: {error:#}");
        }
    }

    /// Forgets what was remembered of a repository: it has answered.
    pub fn forget(data_dir: &Path, repository: &str) {
        match std::fs::remove_file(path(data_dir, repository)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!("that repository {repository} was silent cannot be forgotten: {error}");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

fn path(data_dir: &Path, repository: &str) -> PathBuf {
    data_dir.join(host_state::DIRECTORY).join("silent").join(repository)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn a_silent_repository_is_given_its_time_again_ever_more_rarely() {
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path();
        assert_eq!(Silence::of(data, "second"), None);
        Silence::forget(data, "second");
        let mut now = 0;
        for pause in [5, 10, 20, 40, 60, 60] {
            Silence::remember(data, "second", at(now));
            let mark = Silence::of(data, "second").unwrap();
            assert_eq!(mark.since, at(0));
            assert_eq!(mark.until(at(now)), Some(at(now + pause)));
            assert_eq!(mark.until(at(now + pause - 1)), Some(at(now + pause)));
            assert_eq!(mark.until(at(now + pause)), None, "its time has come");
            assert_eq!(mark.until(at(now - 1)), None, "a clock that was set back keeps nobody from asking");
            now += pause;
        }
        assert_eq!(Silence::of(data, "third"), None);
        Silence::forget(data, "second");
        assert_eq!(Silence::of(data, "second"), None);
        // What cannot be written or read is no mark, and no failure.
        std::fs::remove_dir_all(data.join("highwater/silent")).unwrap();
        durable::replace(&data.join("highwater/silent"), &["a file"]).unwrap();
        Silence::remember(data, "second", at(0));
        assert_eq!(Silence::of(data, "second"), None);
    }
}
