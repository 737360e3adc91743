//! The PostgreSQL servers among the processes of this system, and the directories that they work in.
//!
//! A server's processes work in its data directory (`ChangeToDataDir` in PostgreSQL's `miscinit.c`), in a container too. They are told by
//! the name of their program: a shell that somebody left there is none, and neither is this program or whoever has called it, so long
//! as it only sounds like one (PostgreSQL's `CreateLockFile` passes over its own parents so). Which directory it is, the kernel says by
//! device and inode, whatever its name in another mount namespace. Processes of other users and of other containers may not be seen: what is found
//! here proves that there is a server, and never that there is none.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// How PostgreSQL's program is called; some put a word before or behind it.
const PROGRAMS: [&str; 2] = ["postgres", "postmaster"];

/// A process, which may be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process(i32);

impl Process {
    /// The process with this number.
    pub fn of(pid: i32) -> Process {
        Process(pid)
    }

    /// The servers that can be seen, each of their processes.
    pub fn servers() -> impl Iterator<Item = Process> {
        let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.map(Process).filter(|process| process.is_server() == Some(true))
    }

    /// Whether it is called as PostgreSQL's are, and has not ended; `None` where that cannot be seen.
    pub fn is_server(self) -> Option<bool> {
        let name = std::fs::read(self.at("comm")).ok()?;
        let name = String::from_utf8_lossy(&name);
        let program = std::fs::read_link(self.at("exe")).unwrap_or_default();
        let program = program.file_name().unwrap_or_default().to_string_lossy();
        let is_called = PROGRAMS.contains(&name.trim_end());
        let sounds = PROGRAMS.iter().any(|known| name.contains(known) || program.contains(known));
        Some((is_called || sounds && !self.is_own()) && !self.has_ended())
    }

    /// The directory that it works in, to be opened, whatever its name is there.
    pub fn directory(self) -> PathBuf {
        self.at("cwd")
    }

    /// What it takes for `/`, to be opened.
    pub fn root(self) -> PathBuf {
        self.at("root")
    }

    /// Whether it is this one, or has called it.
    fn is_own(self) -> bool {
        let own = i32::try_from(std::process::id()).ok().map(Process);
        std::iter::successors(own, |process| process.parent()).any(|process| process == self)
    }

    /// Whether it only waits to be asked how it ended. In a container whose first process asks no other, it does so for ever.
    fn has_ended(self) -> bool {
        self.status("State:").is_some_and(|state| state.starts_with(['Z', 'X']))
    }

    fn parent(self) -> Option<Process> {
        let pid = self.status("PPid:")?.parse().ok()?;
        // The first of a container has none that could be seen.
        (pid > 0).then_some(Process(pid))
    }

    /// A line of what the kernel says of it (`proc_pid_status(5)`).
    fn status(self, label: &str) -> Option<String> {
        let status = std::fs::read(self.at("status")).ok()?;
        let status = String::from_utf8_lossy(&status);
        Some(status.lines().find_map(|line| line.strip_prefix(label))?.trim().to_owned())
    }

    fn at(self, what: &str) -> PathBuf {
        Path::new("/proc").join(self.0.to_string()).join(what)
    }
}

/// Which directory it is, by whatever name: its device and inode.
pub fn identity(directory: &Path) -> Option<(u64, u64)> {
    let found = directory.metadata().ok()?;
    Some((found.dev(), found.ino()))
}

/// A process of this name that works in `data_dir` until it is killed; its program is put beside it. A process bears the name only some
/// time after it was started.
#[cfg(test)]
pub(crate) fn pretend(name: &str, data_dir: &Path) -> std::process::Child {
    let program = data_dir.with_file_name(name);
    std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
    let mut command = std::process::Command::new(&program);
    command.args(["-c", "read line; :"]).stdin(std::process::Stdio::piped()).current_dir(data_dir);
    let process = command.spawn().unwrap();
    let (comm, begun) = (format!("/proc/{}/comm", process.id()), std::time::Instant::now());
    while std::fs::read_to_string(&comm).unwrap().trim() != name {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "no process was called {name}");
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
    process
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server is told by its name, and what has called this program by sounding like one is not taken for it.
    #[test]
    fn a_server_is_told_by_its_name() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        std::fs::create_dir(&data).unwrap();
        for (name, is_server) in
            [("postgres", true), ("postmaster", true), ("edb-postgres", true), ("sh", false)]
        {
            let mut process = pretend(name, &data);
            let found = Process::of(process.id().cast_signed());
            let (said, works_in) = (found.is_server(), identity(&found.directory()));
            let (listed, parent) = (Process::servers().any(|server| server == found), found.parent());
            let root = identity(&found.root());
            process.kill().unwrap();
            // It has ended, and nobody has asked how.
            let pid = rustix::process::Pid::from_child(&process);
            let ended = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
            rustix::process::waitid(rustix::process::WaitId::Pid(pid), ended).unwrap();
            assert_eq!(found.is_server(), Some(false));
            process.wait().unwrap();
            assert_eq!((said, listed), (Some(is_server), is_server), "{name}");
            assert_eq!((works_in, root), (identity(&data), identity(Path::new("/"))), "{name}");
            assert_eq!(parent, Some(Process::of(std::process::id().cast_signed())));
            assert_eq!(found.is_server(), None);
        }
        let own = Process::of(std::process::id().cast_signed());
        assert!(own.is_own() && own.parent().is_none_or(Process::is_own) && !Process::of(i32::MAX).is_own());
    }
}
