//! Where the restored server listens, told so that nobody takes the answers of another for its own.
//!
//! Beside a production that lives, the copy's configuration names production's port and socket: a start would fail, and a client
//! would be answered by production. So what is printed starts the copy on a port that is free, and asks it there.

use std::path::PathBuf;

use highwater_restore::finish::Finished;
use highwater_restore::listening::Listening;
use highwater_restore::preflight::Request;

use super::say::word;

/// Where the restored server listens when it is started as is said, and why there.
pub struct Serving {
    listening: Listening,
    /// The command line says the port.
    tells_port: bool,
    /// The command line says the socket's directory.
    socket_dir: Option<PathBuf>,
    /// The port that its configuration names, and what on this host has it.
    taken: Option<(u16, String)>,
}

impl Serving {
    /// As was asked for; else as it is configured, or on another port where that one is taken. A server that takes production's
    /// place takes its port too.
    pub fn of(finished: &Finished, request: &Request) -> Self {
        if let Some(start) = &request.start {
            let listening = finished.listening.clone().with(start.port, start.socket_dir.as_deref());
            let (tells_port, socket_dir) = (start.port.is_some(), start.socket_dir.clone());
            return Self { listening, tells_port, socket_dir, taken: None };
        }
        let configured = finished.listening.clone();
        let taken = configured.taken().map(|by| (configured.port, by));
        let another = configured.on_a_free_port().filter(|_| taken.is_some() && !request.replace_production);
        let tells_port = another.is_some();
        Self { listening: another.unwrap_or(configured), tells_port, socket_dir: None, taken }
    }

    /// What `postgres` is told on its command line.
    pub fn options(&self) -> Vec<String> {
        let port = self.tells_port.then(|| format!("-p {}", self.listening.port));
        let socket = self.socket_dir.as_ref().map(|path| format!("-k {}", word(path)));
        port.into_iter().chain(socket).collect()
    }

    /// Why it is started so.
    pub fn why_start(&self) -> String {
        let it = "it recovers to the target by itself";
        let port = self.listening.port;
        match &self.taken {
            Some((taken, by)) if self.tells_port => {
                format!("start it on port {port}, since {taken} is in use on this host ({by}); {it}")
            }
            Some((_, by)) => format!("when port {port} is free ({by}), start it; {it}"),
            None => format!("start it; {it}"),
        }
    }

    /// The options of a client that asks this server and no other.
    pub fn client(&self) -> String {
        let host = self.listening.socket_dir().map_or_else(String::new, |path| format!(" -h {}", word(path)));
        let port = Some(self.listening.port).filter(|port| *port != 5432 || self.tells_port);
        host + &port.map_or_else(String::new, |port| format!(" -p {port}"))
    }
}
