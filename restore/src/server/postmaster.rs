//! `postmaster.pid`: which server runs in a data directory, and where it listens.
//!
//! The lines are pid, data directory, start time, port, first socket directory, first TCP address, shared memory key, status
//! (`LOCK_FILE_LINE_*` in PostgreSQL's `miscadmin.h`), written as the server learns them. The file outlives a crash, so its pid
//! says little by itself: it may be another program's by now, or of another container or host, where 1 is a usual one. So it counts for a server's
//! only where the process is called as one and may work in this directory; and since the file may be gone while its server lives,
//! before anything is taken from a data directory it is also asked which servers work in it ([`super::processes`]).
//!
//! A server that is not to be seen here may have crashed, or run where it cannot be seen. Only one thing proves that it is gone: this
//! system was started after it, and no other system can have the directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::FsWord;
use rustix::process::{Pid, test_kill_process};

use super::processes::{Process, identity};

/// Filesystems that only the system reaches on which they are mounted (`linux/magic.h`): ext2 to ext4, XFS, Btrfs, F2FS, JFS,
/// ReiserFS, bcachefs, tmpfs, and ZFS, which brings its own number.
const LOCAL_FILESYSTEMS: [FsWord; 9] = [
    0xEF53,
    0x5846_5342,
    0x9123_683E,
    0xF2F5_2010,
    0x3153_464A,
    0x5265_4973,
    0xCA45_1A4E,
    0x0102_1994,
    0x2FC1_2FC1,
];

/// The namespace of all processes of a system (`PROC_PID_INIT_INO` in Linux's `proc_ns.h`). In another one `/proc/stat` may
/// be a container's own.
const ALL_PROCESSES: &str = "pid:[4026531836]";

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

    /// Whether its process is there, and may be that of a server in this directory: what cannot be known of it counts as yes, the safe answer.
    fn lives(&self, data_dir: &Path) -> bool {
        let Some(pid) = self.pid.and_then(Pid::from_raw) else { return true };
        if matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)) {
            return false;
        }
        let process = Process::of(pid.as_raw_nonzero().get());
        // Of two mounts of one directory the devices may differ, and not the inodes.
        let elsewhere = match (identity(&process.directory()), identity(data_dir)) {
            (Some((_, there)), Some((_, here))) => there != here,
            _ => false,
        };
        process.is_server() != Some(false) && !elsewhere
    }
}

/// Whether a server runs in `data_dir`: its pid file names a process that lives.
pub fn is_running(data_dir: &Path) -> bool {
    match Postmaster::read(data_dir) {
        Ok(found) => found.is_some_and(|postmaster| postmaster.lives(data_dir)),
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

/// The process of a pid file that is not to be seen here, and may live all the same: it crashed, or runs in another container or host.
pub fn unseen(data_dir: &Path) -> Option<i32> {
    unseen_since(data_dir, begin_of_all(data_dir))
}

/// `begin`: no server that was started before it lives.
fn unseen_since(data_dir: &Path, begin: Option<u64>) -> Option<i32> {
    let postmaster = Postmaster::read(data_dir).ok()??;
    let is_over = postmaster.started.zip(begin).is_some_and(|(started, begin)| started < begin);
    postmaster.pid.filter(|_| !is_over && !postmaster.lives(data_dir))
}

/// When this system was started, in seconds since 1970, where no other system can have a server in the directory.
fn begin_of_all(data_dir: &Path) -> Option<u64> {
    let filesystem = rustix::fs::statfs(data_dir).ok()?.f_type;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let is_alone = LOCAL_FILESYSTEMS.contains(&filesystem) && namespace.as_os_str() == ALL_PROCESSES;
    is_alone.then(booted).flatten()
}

/// When this system was started, in seconds since 1970.
fn booted() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/stat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// Whether a server's process works there. A shell may, and what the server has started.
fn servers_work_in(data_dir: &Path) -> bool {
    let Some(data_dir) = identity(data_dir) else { return false };
    Process::servers().any(|process| identity(&process.directory()) == Some(data_dir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use highwater_archive::durable;

    use super::super::processes::pretend;
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
        let somewhere = Path::new("/");
        assert!(Postmaster::parse("x").lives(somewhere) && Postmaster::parse("").lives(somewhere));
        assert!(!Postmaster::parse("999999999\n").lives(somewhere));
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

    /// A pid that is another program's now, or a server's of another directory, is not this one's server: in a container 1 is whatever was
    /// started first.
    #[test]
    fn a_pid_that_is_anothers_is_no_server() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for name in ["here/data", "there/data"] {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        for (name, works_in, runs) in
            [("postgres", "here/data", true), ("postgres", "there/data", false), ("sh", "here/data", false)]
        {
            let mut process = pretend(name, &at(works_in));
            let text = format!("{}\n/data\n1\n5432\n", process.id());
            durable::replace(&at("here/data/postmaster.pid"), &[text]).unwrap();
            let (running, unseen) = (is_running(&at("here/data")), unseen_since(&at("here/data"), None));
            process.kill().unwrap();
            process.wait().unwrap();
            assert_eq!((running, unseen.is_none()), (runs, runs), "{name} in {works_in}");
        }
        // Neither is this program itself, nor what has called it, where that can be seen.
        let own = [std::process::id(), std::os::unix::process::parent_id()];
        for pid in own.into_iter().filter(|pid| *pid != 0) {
            durable::replace(&at("here/data/postmaster.pid"), &[format!("{pid}\n")]).unwrap();
            assert!(!is_running(&at("here/data")) && unseen(&at("here/data")).is_some());
        }
    }

    /// The pid of another container or host says nothing here, unless this system alone has the directory and was started after it.
    #[test]
    fn a_process_that_cannot_be_seen_is_told_from_one_before_the_boot() {
        let scratch = tempfile::tempdir().unwrap();
        assert_eq!(unseen(scratch.path()), None);
        let gone = 999_999_999;
        let begin = booted().unwrap();
        for (started, since, expected) in [
            (begin + 9, Some(begin), Some(gone)),
            (begin - 9, Some(begin), None),
            (begin - 9, None, Some(gone)),
        ] {
            let text = format!("{gone}\n/data\n{started}\n5432\n");
            durable::replace(&scratch.path().join("postmaster.pid"), &[text]).unwrap();
            assert_eq!(unseen_since(scratch.path(), since), expected);
        }
        durable::replace(&scratch.path().join("postmaster.pid"), &["999999999\n"]).unwrap();
        assert_eq!(unseen_since(scratch.path(), Some(begin)), Some(gone));
        // Of what lies on no disk of this system nothing is known.
        assert_eq!(begin_of_all(Path::new("/proc")), None);
        assert_eq!(begin_of_all(&scratch.path().join("absent")), None);
    }
}
