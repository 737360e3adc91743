//! Where a server would listen, and whether another one on this host does.
//!
//! A postmaster makes a lock file beside each of its sockets and ends where a living process holds it (`CreateLockFile` in
//! `miscinit.c`); an address that is bound already costs it that address, or its life where it has no other. Beside a
//! production that lives, a client that is not told which of the two is asked gets the answer of the wrong one.

use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, test_kill_process};

/// The port of a server that is told none.
const DEFAULT_PORT: u16 = 5432;

/// Where a server puts its socket that is told nothing: as PostgreSQL is built, and as Debian and Fedora build it.
const DEFAULT_SOCKET_DIRS: [&str; 2] = ["/tmp", "/var/run/postgresql"];

/// How many ports after the configured one are tried for one that is free.
const PORTS_TRIED: u16 = 100;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Its port, also of the socket's name.
    pub port: u16,
    /// `unix_socket_directories`; none where it is not set, and the server's build decides.
    pub socket_dirs: Option<Vec<PathBuf>>,
    /// `listen_addresses`.
    addresses: Vec<String>,
}

impl Listening {
    /// What these settings say; `setting` gives a value by its name.
    pub fn of(setting: impl Fn(&str) -> Option<String>) -> Self {
        let list = |text: String| -> Vec<String> {
            let parts = text.split(',').map(|part| part.trim().trim_matches('"').to_owned());
            parts.filter(|part| !part.is_empty()).collect()
        };
        Self {
            port: setting("port").and_then(|port| port.trim().parse().ok()).unwrap_or(DEFAULT_PORT),
            socket_dirs: setting("unix_socket_directories")
                .map(|text| list(text).into_iter().map(PathBuf::from).collect()),
            addresses: list(setting("listen_addresses").unwrap_or_else(|| "localhost".to_owned())),
        }
    }

    /// The same with what the command line says.
    pub fn with(self, port: Option<u16>, socket_dir: Option<&Path>) -> Self {
        Self {
            port: port.unwrap_or(self.port),
            socket_dirs: socket_dir.map(|path| vec![path.to_owned()]).or(self.socket_dirs),
            addresses: self.addresses,
        }
    }

    /// Where a client finds the socket, when the client's own default would not do.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.socket_dirs.as_ref().and_then(|all| all.first()).map(PathBuf::as_path)
    }

    /// What on this host has the port already, in words.
    pub fn taken(&self) -> Option<String> {
        let usual = || DEFAULT_SOCKET_DIRS.iter().map(PathBuf::from).collect();
        let directories: Vec<PathBuf> = self.socket_dirs.clone().unwrap_or_else(usual);
        let socket = directories.iter().find_map(|directory| socket_taken(directory, self.port));
        socket.or_else(|| {
            let bound = self.addresses.iter().find(|address| address_taken(address, self.port));
            bound.map(|address| format!("something listens on {address}:{}", self.port))
        })
    }

    /// The same on the next port that nothing has.
    pub fn on_a_free_port(&self) -> Option<Self> {
        let ports = (1..=PORTS_TRIED).filter_map(|more| self.port.checked_add(more));
        ports.map(|port| Self { port, ..self.clone() }).find(|other| other.taken().is_none())
    }
}

/// A server's socket in this directory, in words.
fn socket_taken(directory: &Path, port: u16) -> Option<String> {
    let socket = directory.join(format!(".s.PGSQL.{port}"));
    if UnixStream::connect(&socket).is_ok() {
        return Some(format!("a server answers at {}", socket.display()));
    }
    let lock = directory.join(format!(".s.PGSQL.{port}.lock"));
    let held = match std::fs::read_to_string(&lock) {
        // What the file does not say may be the lock of a server that lives.
        Ok(text) => {
            let pid = text.lines().next().and_then(|line| line.trim().parse().ok()).and_then(Pid::from_raw);
            pid.is_none_or(|pid| !matches!(test_kill_process(pid), Err(rustix::io::Errno::SRCH)))
        }
        Err(error) => error.kind() == ErrorKind::PermissionDenied,
    };
    held.then(|| format!("a server holds {}", lock.display()))
}

/// Whether the address is bound: tried as a server would, and given up at once.
fn address_taken(address: &str, port: u16) -> bool {
    let bind = |address: &str| TcpListener::bind((address, port)).err().map(|error| error.kind());
    match address {
        "*" => ["0.0.0.0", "::"].into_iter().any(|all| bind(all) == Some(ErrorKind::AddrInUse)),
        // Every address of a name is bound by a server, and the first that is free by us.
        "localhost" => ["127.0.0.1", "::1"].into_iter().any(|own| bind(own) == Some(ErrorKind::AddrInUse)),
        one => bind(one) == Some(ErrorKind::AddrInUse),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn set(pairs: &[(&str, &str)]) -> Listening {
        let find = |name: &str| pairs.iter().find(|(known, _)| *known == name);
        Listening::of(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn settings_are_read_as_postgresql_reads_them() {
        let unset = set(&[]);
        assert_eq!((unset.port, unset.socket_dir()), (5432, None));
        assert_eq!(unset.addresses, ["localhost"]);
        let several = [
            ("port", "5433"),
            ("unix_socket_directories", "/run/pg, \"/tmp/a b\""),
            ("listen_addresses", " "),
        ];
        let several = set(&several);
        assert_eq!((several.port, several.socket_dir()), (5433, Some(Path::new("/run/pg"))));
        assert_eq!(several.socket_dirs.as_ref().unwrap()[1], Path::new("/tmp/a b"));
        assert!(several.addresses.is_empty());
        let told = several.with(Some(7), Some(Path::new("/s")));
        assert_eq!((told.port, told.socket_dir()), (7, Some(Path::new("/s"))));
        assert_eq!(set(&[("unix_socket_directories", "")]).socket_dir(), None);
    }

    /// What a server would end of is found: a socket that answers, a lock of a living process, an address.
    #[test]
    #[allow(clippy::disallowed_methods)]
    fn a_port_in_use_is_told_by_what_has_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_str().unwrap();
        let here = set(&[("unix_socket_directories", path), ("listen_addresses", "")]);
        assert_eq!(here.taken(), None);
        let lock = directory.path().join(".s.PGSQL.5432.lock");
        std::fs::write(&lock, "999999999\n").unwrap();
        assert_eq!(here.taken(), None, "what a killed server left");
        std::fs::write(&lock, format!("{}\n/data\n", std::process::id())).unwrap();
        assert!(here.taken().unwrap().contains("5432.lock"));
        assert_eq!(here.on_a_free_port().unwrap().port, 5433);
        let listener = UnixListener::bind(directory.path().join(".s.PGSQL.5433")).unwrap();
        assert_eq!(here.on_a_free_port().unwrap().port, 5434);
        drop(listener);

        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        for address in ["127.0.0.1", "localhost"] {
            let tcp =
                set(&[("unix_socket_directories", path), ("listen_addresses", address), ("port", &port)]);
            assert!(tcp.taken().unwrap().contains(&format!("{address}:{port}")));
        }
        let none = set(&[("unix_socket_directories", path), ("listen_addresses", ""), ("port", &port)]);
        assert_eq!(none.taken(), None, "a server without TCP is not in its way");
    }
}
