//! A directory of one test, and everything that runs in it. When it is dropped, also by a panic, every process whose
//! working directory lies inside (a postmaster's is its data directory) is ended and the directory removed. A run that was
//! killed could not do so; its directories carry its process id, and the next run sweeps those whose process is gone.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::user::give_to_server_user;

const PREFIX: &str = "hwtest-";

/// Numbers the scratch directories of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Free bytes that a scratch directory in memory asks for.
const ROOM_IN_MEMORY: u64 = 512 << 20;

/// A scratch directory that the server user owns.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes an empty directory under `HIGHWATER_TEST_DIR` or `/tmp`. The path is short: the sockets of servers lie in it,
    /// and a socket's path may hold 107 bytes.
    #[allow(clippy::new_without_default, reason = "it makes a directory; a default should not")]
    pub fn new() -> Self {
        static SWEEP: Once = Once::new();
        let root = root();
        SWEEP.call_once(|| sweep(&root));
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = root.join(format!("{PREFIX}{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        let scratch = Self { path };
        scratch.own(&scratch.path);
        scratch
    }

    /// The same in memory, where the machine has room for it: for tests that wait for disks and ask nothing of them.
    pub fn in_memory() -> Self {
        static SWEEP: Once = Once::new();
        let root = Path::new("/dev/shm");
        let free = rustix::fs::statvfs(root).map_or(0, |space| space.f_bavail * space.f_frsize);
        if free < ROOM_IN_MEMORY {
            return Self::new();
        }
        SWEEP.call_once(|| sweep(root));
        let path =
            root.join(format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
        if fs::create_dir(&path).is_err() {
            return Self::new();
        }
        let scratch = Self { path };
        scratch.own(&scratch.path);
        scratch
    }

    /// The directory itself.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path inside, which need not exist.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes a directory inside, mode 0700, owned by the server user.
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("create {}: {error}", path.display()));
        let mut at = path.as_path();
        while at != self.path && at.starts_with(&self.path) {
            self.own(at);
            at = at.parent().unwrap();
        }
        path
    }

    /// Writes a file inside, mode 0600, owned by the server user.
    pub fn file(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        private_file(&path, content);
        path
    }

    fn own(&self, path: &Path) {
        fs::set_permissions(path, fs::Permissions::from_mode(0o700)).unwrap();
        give_to_server_user(path);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        end_processes_in(&self.path);
        if std::env::var_os("HIGHWATER_KEEP").is_some() {
            eprintln!("kept {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("could not remove {}: {error}", self.path.display());
        }
    }
}

/// Writes a file that only the server user reads.
pub(crate) fn private_file(path: &Path, content: impl AsRef<[u8]>) {
    fs::write(path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    give_to_server_user(path);
}

fn root() -> PathBuf {
    std::env::var_os("HIGHWATER_TEST_DIR").map_or_else(|| PathBuf::from("/tmp"), PathBuf::from)
}

/// Removes what runs of this user that no longer exist left behind.
fn sweep(root: &Path) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(owner) = name.to_str().and_then(owner_of) else { continue };
        // Root gives its scratch directories to the server user, so root sweeps what that user owns too.
        let owned_by_us = entry.metadata().is_ok_and(|metadata| {
            metadata.uid() == rustix::process::geteuid().as_raw()
                || metadata.uid() == crate::user::server_user().uid
        });
        if owned_by_us && !Path::new("/proc").join(owner.to_string()).exists() {
            end_processes_in(&entry.path());
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// The process id in a scratch directory's name.
fn owner_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

/// Ends what runs inside: SIGQUIT first, on which PostgreSQL frees its shared memory, and SIGKILL after five seconds.
fn end_processes_in(path: &Path) {
    for (signal, patience) in [(Signal::QUIT, Duration::from_secs(5)), (Signal::KILL, Duration::from_secs(5))]
    {
        let deadline = Instant::now() + patience;
        let running = processes_in(path);
        if running.is_empty() {
            return;
        }
        for pid in running {
            // It may have ended by itself since it was listed.
            let _ = kill_process(pid, signal);
        }
        while !processes_in(path).is_empty() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn processes_in(path: &Path) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter(|entry| fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(path)))
        .filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_directory_takes_its_processes_along() {
        let scratch = Scratch::new();
        let path = scratch.path().to_owned();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(&path).spawn().unwrap();
        // The child is ours to reap: a zombie has no working directory any more, so the drop does not wait for it.
        drop(scratch);
        assert!(!path.exists());
        assert!(!child.wait().unwrap().success());
    }

    #[test]
    fn a_directory_of_a_run_that_is_gone_is_swept() {
        let root = Scratch::new();
        // Process ids end at 4,194,304 on Linux, so this one never runs.
        let left = root.path().join(format!("{PREFIX}4294967000-0"));
        let ours = root.path().join(format!("{PREFIX}{}-9", std::process::id()));
        fs::create_dir_all(left.join("data")).unwrap();
        fs::create_dir_all(&ours).unwrap();
        sweep(root.path());
        assert!(!left.exists());
        assert!(ours.exists());
    }
}
