//! `postmaster.pid`: which server runs in a data directory, and where it listens.
//!
//! The lines are pid, data directory, start time, port, first socket directory, first TCP address, shared memory key, status
//! (`LOCK_FILE_LINE_*` in PostgreSQL's `miscadmin.h`), written as the server learns them. The file outlives a crash, so its pid
//! says little by itself; and it may be gone while its server lives, or name a process of another container. So before anything is
//! taken from a data directory it is also asked which servers work in it: a server's processes do (`ChangeToDataDir` in
//! `miscinit.c`), by whatever name the directory is known to them.

use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, test_kill_process};

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postmaster {
    /// Its process; a negative number in the file is a standalone backend. None where the file does not say.
    pub pid: Option<i32>,
    /// When it was started, in seconds since 1970.
    pub started: Option<u64>,
    /// The port, also of the socket's name.
    pub port: Option<u16>,
    /// The first of `unix_socket_directories`.
    pub socket_dir: Option<PathBuf>,
    /// The first of `listen_addresses`.
    pub address: Option<String>,
}

impl Postmaster {
    /// Reads the file of a data directory; `None` where there is none, and so no server.
    ///
    /// # Errors
    /// The file exists and cannot be read.
    pub fn read(data_dir: &Path) -> io::Result<Option<Postmaster>> {
        match std::fs::read_to_string(data_dir.join("postmaster.pid")) {
            Ok(text) => Ok(Some(Postmaster::parse(&text))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn parse(text: &str) -> Postmaster {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let line = |number: usize| lines.get(number).copied().filter(|line| !line.is_empty());
        Postmaster {
            pid: line(0).and_then(|line| line.trim_start_matches('-').parse().ok()),
            started: line(2).and_then(|line| line.parse().ok()),
            port: line(3).and_then(|line| line.parse().ok()),
            socket_dir: line(4).map(PathBuf::from),
            address: line(5).map(|line| if line == "*" { "localhost" } else { line }.to_owned()),
        }
    }

    /// Whether its process lives. One of another boot or host can look alive; then the answer is yes, the safe one.
    fn lives(&self) -> bool {
        match self.pid.and_then(Pid::from_raw) {
            Some(pid) => !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)),
            None => true,
        }
    }
}

/// Whether a server runs in `data_dir`: its pid file names a process that lives.
pub fn is_running(data_dir: &Path) -> bool {
    match Postmaster::read(data_dir) {
        Ok(found) => found.is_some_and(|postmaster| postmaster.lives()),
        // A file that is there and cannot be read may be that of a server that lives.
        Err(_) => data_dir.join("postmaster.pid").exists(),
    }
}

/// A server that goes has removed its pid file, and is gone a moment later.
const LONGEST_EXIT: Duration = Duration::from_secs(2);

/// Whether a server runs in `data_dir`, also one without its pid file. Processes of other users may not be seen.
pub fn is_occupied(data_dir: &Path) -> bool {
    let begun = Instant::now();
    loop {
        if is_running(data_dir) {
            return true;
        }
        if !servers_work_in(data_dir) {
            return false;
        }
        if begun.elapsed() >= LONGEST_EXIT {
            return true;
        }
        std::thread::sleep(LONGEST_EXIT / 40);
    }
}

/// The process of a pid file that is of this boot and is not to be seen here: it crashed, or runs in another container or host.
pub fn unseen(data_dir: &Path) -> Option<i32> {
    let postmaster = Postmaster::read(data_dir).ok()??;
    let is_old = postmaster.started.zip(booted()).is_some_and(|(started, booted)| started < booted);
    postmaster.pid.filter(|_| !is_old && !postmaster.lives())
}

/// When this system was started, in seconds since 1970.
fn booted() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Which directory it is, by whatever name; of a process, the one it works in.
pub fn identity(directory: &Path) -> Option<(u64, u64)> {
    let found = directory.metadata().ok()?;
    Some((found.dev(), found.ino()))
}

/// Whether a process works there that is called as PostgreSQL's are. A shell may, and what the server has started.
fn servers_work_in(data_dir: &Path) -> bool {
    let Some(data_dir) = identity(data_dir) else { return false };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    processes.map(|process| process.path()).any(|process| {
        let is_server = std::fs::read_to_string(process.join("comm"))
            .is_ok_and(|name| name.contains("postgres") || name.contains("postmaster"));
        is_server && identity(&process.join("cwd")) == Some(data_dir)
    })
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
    let comm = format!("/proc/{}/comm", process.id());
    while std::fs::read_to_string(&comm).unwrap().trim() != name {
        std::thread::yield_now();
    }
    process
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use highwater_archive::durable;

    use super::*;

    #[test]
    fn the_lines_are_read_and_a_half_written_file_is_not_an_error() {
        let whole = "4242\n/srv/pg\n1763635267\n5433\n/run/pg\n*\n 1 2\nready   \n";
        let expected = Postmaster {
            pid: Some(4242),
            started: Some(1_763_635_267),
            port: Some(5433),
            socket_dir: Some("/run/pg".into()),
            address: Some("localhost".into()),
        };
        assert_eq!(Postmaster::parse(whole), expected);
        let no_socket = Postmaster::parse("-7\n/srv/pg\n1\n5432\n\n127.0.0.1\n");
        assert_eq!((no_socket.pid, no_socket.socket_dir), (Some(7), None));
        assert_eq!(no_socket.address.as_deref(), Some("127.0.0.1"));
        assert_eq!(Postmaster::parse("12\n").port, None);
        // What cannot be understood may be a server that lives.
        assert!(Postmaster::parse("x").lives() && Postmaster::parse("").lives());
        assert!(!Postmaster::parse("999999999\n").lives());
        assert!(!is_running(Path::new("/no/such/directory")) && !is_running(Path::new("/dev/null/data")));
    }

    /// A server whose pid file is gone is seen by where it works, whatever the directory's name; a shell there is none.
    #[test]
    fn a_server_without_its_file_is_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, other_name) = (scratch.path().join("data"), scratch.path().join("name"));
        std::fs::create_dir(&data).unwrap();
        symlink(&data, &other_name).unwrap();
        for (name, is_server) in [("postgres", true), ("sh", false)] {
            let mut process = pretend(name, &data);
            assert!(!is_running(&other_name));
            let seen = is_occupied(&other_name);
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!(seen, is_server, "{name}");
            assert!(!is_occupied(&data));
        }
    }

    /// The pid of another container says nothing here, unless this system was started after it.
    #[test]
    fn a_process_that_cannot_be_seen_is_told_from_one_before_the_boot() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(unseen(scratch.path()), None);
        let booted = booted().unwrap();
        let own = i32::try_from(std::process::id()).unwrap();
        let gone = 999_999_999;
        for (pid, started, expected) in
            [(gone, booted + 9, Some(gone)), (gone, booted - 9, None), (own, booted + 9, None)]
        {
            let text = format!("{pid}\n/data\n{started}\n5432\n");
            durable::replace(&scratch.path().join("postmaster.pid"), &[text]).unwrap();
            assert_eq!(unseen(scratch.path()), expected);
        }
        durable::replace(&scratch.path().join("postmaster.pid"), &["999999999\n"]).unwrap();
        assert_eq!(unseen(scratch.path()), Some(gone));
    }
}
