//! `postmaster.pid`: which server runs in a data directory, and where it listens.
//!
//! The lines are pid, data directory, start time, port, first socket directory, first TCP address, shared memory key, status
//! (`LOCK_FILE_LINE_*` in PostgreSQL's `miscadmin.h`), written as the server learns them. The file outlives a crash, so its pid
//! says little by itself.

use std::io;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postmaster {
    /// Its process; a negative number in the file is a standalone backend. None where the file does not say.
    pub pid: Option<i32>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_read_and_a_half_written_file_is_not_an_error() {
        let whole = "4242\n/srv/pg\n1763635267\n5433\n/run/pg\n*\n 1 2\nready   \n";
        let expected = Postmaster {
            pid: Some(4242),
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
}
