//! The lock on a directory that keeps two restores apart.
//!
//! It belongs to the open file, not to the process: a program that is just being started may hold a copy of it for a moment, so the
//! lock is given back by name and not merely closed. Who only asks whether somebody has it shares it for that moment, and who wants it
//! alone waits so long.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::error::RestoreError;
use crate::rebuild::Claimed;

/// Who merely looks whether a restore is at work is gone again within this time.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// How often the lock is asked for meanwhile.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// The lock on a directory. Whoever was started meanwhile may hold a copy of the open file, so closing it does not end the lock.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Lock {
    /// Has it alone; `None` where another restore has it.
    pub(super) fn take(directory: &Path) -> Result<Option<Lock>, RestoreError> {
        Lock::take_within(directory, LONGEST_LOOK)
    }

    fn take_within(directory: &Path, patience: Duration) -> Result<Option<Lock>, RestoreError> {
        let begun = Instant::now();
        loop {
            let lock = Lock::attempt(directory, FlockOperation::NonBlockingLockExclusive)?;
            if lock.is_some() || begun.elapsed() >= patience {
                return Ok(lock);
            }
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
    }

    /// Which directory is locked, by the name that it was locked by.
    pub(super) fn claimed(&self, directory: &Path) -> Result<Claimed, RestoreError> {
        let failed = |source| RestoreError::Io { what: "look at", path: directory.to_owned(), source };
        Claimed::of(directory, &self.0).map_err(failed)
    }

    /// Whether nobody has it alone.
    pub(super) fn is_free(directory: &Path) -> Result<bool, RestoreError> {
        Ok(Lock::attempt(directory, FlockOperation::NonBlockingLockShared)?.is_some())
    }

    fn attempt(directory: &Path, how: FlockOperation) -> Result<Option<Lock>, RestoreError> {
        let failed = |source| RestoreError::Io { what: "lock", path: directory.to_owned(), source };
        let file = File::open(directory).map_err(failed)?;
        match rustix::fs::flock(&file, how) {
            Ok(()) => Ok(Some(Lock(file))),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(failed(errno.into())),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // What could not be given back is closed now, which is the same but for copies.
        rustix::fs::flock(&self.0, FlockOperation::Unlock).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that is being started has copies of all open files; who merely looks keeps nobody out.
    #[test]
    fn a_lock_ends_with_its_owner_and_looking_is_none() {
        let scratch = tempfile::tempdir().unwrap();
        let own = scratch.path().to_owned();
        let lock = Lock::take(&own).unwrap().unwrap();
        let copy = lock.0.try_clone().unwrap();
        assert!(!Lock::is_free(scratch.path()).unwrap());
        drop(lock);
        assert!(Lock::is_free(scratch.path()).unwrap());
        drop(copy);
        let looking = Lock::attempt(&own, FlockOperation::NonBlockingLockShared).unwrap().unwrap();
        assert!(Lock::is_free(scratch.path()).unwrap());
        let patience = Duration::from_secs(120);
        let waiting = std::thread::spawn(move || Lock::take_within(&own, patience).unwrap().is_some());
        drop(looking);
        assert!(waiting.join().unwrap());
    }
}
