//! A PostgreSQL server started, watched and stopped.
//!
//! The server is spawned directly and not through `pg_ctl start`, which may answer 0 for a server that ends with FATAL a
//! moment later. [`Server::poll`] looks at three things each time: whether the postmaster still lives, what it answers to
//! `pg_is_in_recovery()` and the pause state, and, once it has gone, what state it left in `pg_control`. A server that is
//! started on purpose stays when this process ends; a scratch one is stopped by its owner with [`stop`].

mod installation;
mod postmaster;
mod processes;
mod psql;

use std::fs::OpenOptions;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub use installation::Installation;
pub use postmaster::{Postmaster, is_occupied, is_running, unseen};
#[cfg(test)]
pub(crate) use processes::pretend;
pub use processes::{Process, identity};
pub use psql::query;

use crate::ownership::{self, Account};

/// How often a server is asked how far it is.
const POLL_EVERY: Duration = Duration::from_millis(100);

/// How much of the server's log is shown when it fails, in bytes.
const LOG_TAIL_BYTES: u64 = 4096;

/// A server could not be started, asked or stopped.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No installation of this major was found.
    #[error("PostgreSQL {major} is not installed here (looked in {looked_in})")]
    NotInstalled {
        /// The major version.
        major: u16,
        /// The directories looked at.
        looked_in: String,
    },
    /// No server of a major that we know was found.
    #[error("no PostgreSQL server, 14 to 18, was found on this machine")]
    NoneInstalled,
    /// A directory given holds another major, or none.
    #[error("{} is not the bin directory of PostgreSQL {major}: {found}", bin.display())]
    WrongInstallation {
        /// The major version needed.
        major: u16,
        /// The directory.
        bin: PathBuf,
        /// What was found there.
        found: String,
    },
    /// A program could not be run, or a file not be read.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The server ended where it should have gone on.
    #[error("the server ended ({status}) before it reached the target; the end of {}:\n{tail}", log.display())]
    Ended {
        /// How the process ended.
        status: String,
        /// Its log file.
        log: PathBuf,
        /// The end of that log.
        tail: String,
    },
    /// The server lives but did not get there in time.
    #[error("the server has not reached the target within {} s: {state}", waited.as_secs())]
    TooSlow {
        /// How long was waited.
        waited: Duration,
        /// What it was doing.
        state: String,
    },
    /// The server takes connections but not this one.
    #[error("the server runs and refuses our connection: {message}")]
    Refused {
        /// What psql printed.
        message: String,
    },
    /// The server answered with an error.
    #[error("the server did not answer in database {database}: {message}")]
    Query {
        /// The database.
        database: String,
        /// What psql printed.
        message: String,
    },
    /// The server did not stop in time.
    #[error("the server in {} did not stop: {message}", data_dir.display())]
    NotStopped {
        /// Its data directory.
        data_dir: PathBuf,
        /// What pg_ctl printed.
        message: String,
    },
}

impl ServerError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotInstalled { major, .. } => {
                Some(format!("install the server of PostgreSQL {major}, or name its programs with --pg-bin DIRECTORY"))
            }
            Self::NoneInstalled => Some(
                "install one (Debian and Ubuntu: apt install postgresql; Fedora: dnf install postgresql-server), \
                 or name the directory of its programs"
                    .into(),
            ),
            Self::WrongInstallation { .. } => Some("a data directory opens only with its own major version".into()),
            Self::Ended { log, .. } => Some(format!("the whole log is {}", log.display())),
            Self::TooSlow { .. } => Some("the server goes on by itself; ask it: SELECT pg_is_in_recovery()".into()),
            Self::Refused { .. } => {
                Some("the server is up and recovers by itself; connect as pg_hba.conf allows and ask pg_is_in_recovery()".into())
            }
            Self::Query { .. } | Self::Io { .. } | Self::NotStopped { .. } => None,
        }
    }
}

/// What to start and how.
#[derive(Debug, Clone)]
pub struct ServerOptions {
    /// Whose programs.
    pub installation: Installation,
    /// The data directory; `postgresql.conf` lies in it unless `config_file` says otherwise.
    pub data_dir: PathBuf,
    /// A configuration file elsewhere.
    pub config_file: Option<PathBuf>,
    /// Who runs it, when that is not this process's user.
    pub run_as: Option<Account>,
    /// Settings that win over every file, as `-c name=value`.
    pub settings: Vec<(String, String)>,
    /// Where its first output goes, appended; the directory must exist.
    pub log_file: PathBuf,
    /// Roles to connect as, in turn, where the server knows none that is called like the operating system's user.
    pub roles: Vec<String>,
}

/// What a server is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It lives and takes no connections yet.
    Starting {
        /// What it answered.
        answer: String,
    },
    /// It replays WAL and can be read.
    Recovering {
        /// Replay stands still, as it does at a target with the action `pause`.
        paused: bool,
        /// How far replay is, as PostgreSQL prints an LSN; empty before the first record.
        replayed: String,
    },
    /// Recovery is over: it takes writes.
    Writable,
    /// It has ended.
    Ended {
        /// How.
        status: String,
        /// `pg_control` says it was shut down in recovery, in order: the action `shutdown` at a target.
        in_order_in_recovery: bool,
    },
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Goal {
    /// Replay has reached the target and stands still.
    Paused,
    /// Recovery has ended and the server takes writes.
    Writable,
    /// The server has shut itself down at the target.
    ShutDown,
    /// It can be read; it goes on replaying (a standby).
    Readable,
}

impl Goal {
    /// Whether `state` is what is waited for.
    pub fn is_reached_by(self, state: &State) -> bool {
        match (self, state) {
            (Goal::Paused, State::Recovering { paused, .. }) => *paused,
            (Goal::Writable, State::Writable) => true,
            (Goal::ShutDown, State::Ended { in_order_in_recovery, .. }) => *in_order_in_recovery,
            (Goal::Readable, State::Recovering { .. } | State::Writable) => true,
            _ => false,
        }
    }
}

/// A running server that this process started.
#[derive(Debug)]
pub struct Server {
    options: ServerOptions,
    child: Child,
}

impl Server {
    /// Starts the server and returns at once.
    ///
    /// # Errors
    /// [`ServerError::Io`] when the program cannot be run or the log not be opened.
    pub fn start(options: ServerOptions) -> Result<Server, ServerError> {
        let failed = |what: String| move |source| ServerError::Io { what, source };
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(&options.log_file)
            .map_err(failed(format!("open {}", options.log_file.display())))?;
        ownership::give(&log, options.run_as.as_ref()).map_err(failed("give away the log".into()))?;
        let errors = log.try_clone().map_err(failed("share the log".into()))?;
        let mut command = options.installation.command("postgres", options.run_as.as_ref());
        command.arg("-D").arg(&options.data_dir);
        // No file may lead it to another one.
        command.arg("-c").arg(format!("data_directory={}", options.data_dir.display()));
        if let Some(file) = &options.config_file {
            command.arg("-c").arg(format!("config_file={}", file.display()));
        }
        for (name, value) in &options.settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        // The same server whoever starts it, and the commands that it runs.
        without_our_environment(&mut command);
        // A process group of its own: an interrupt typed at our terminal is not meant for the server.
        command.stdin(Stdio::null()).stdout(log).stderr(errors).process_group(0);
        // Anyone may run us from a directory that the server's user cannot enter.
        command.current_dir("/");
        let child = command.spawn().map_err(failed("start postgres".into()))?;
        Ok(Server { options, child })
    }

    /// Looks at the server once.
    ///
    /// # Errors
    /// [`ServerError::Io`], and [`ServerError::Refused`] when it takes connections but not ours.
    pub fn poll(&mut self) -> Result<State, ServerError> {
        let waited = self.child.try_wait();
        if let Some(status) =
            waited.map_err(|source| ServerError::Io { what: "look at postgres".into(), source })?
        {
            return Ok(self.ended(status));
        }
        psql::ask_recovery(&self.options)
    }

    /// Polls until `goal` is reached. `progress` is called with every state seen.
    ///
    /// # Errors
    /// [`ServerError::Ended`] when it ends otherwise, [`ServerError::TooSlow`] after `limit`, and those of [`Server::poll`].
    pub fn wait_for(
        &mut self,
        goal: Goal,
        limit: Duration,
        mut progress: impl FnMut(&State),
    ) -> Result<State, ServerError> {
        let begun = Instant::now();
        loop {
            let state = self.poll()?;
            progress(&state);
            if goal.is_reached_by(&state) {
                return Ok(state);
            }
            if let State::Ended { status, .. } = state {
                return Err(ServerError::Ended {
                    status,
                    log: self.options.log_file.clone(),
                    tail: log_tail(&self.options.log_file),
                });
            }
            if begun.elapsed() > limit {
                return Err(ServerError::TooSlow { waited: begun.elapsed(), state: format!("{state:?}") });
            }
            std::thread::sleep(POLL_EVERY);
        }
    }

    fn ended(&self, status: ExitStatus) -> State {
        let state = control_state(&self.options.data_dir);
        State::Ended {
            status: status.to_string(),
            in_order_in_recovery: state == Some(highwater_pitr::control::ClusterState::ShutDownInRecovery),
        }
    }
}

/// Stops whatever server runs in `data_dir` (fast mode) and waits until it is gone.
///
/// # Errors
/// [`ServerError::NotStopped`], [`ServerError::Io`].
pub fn stop(
    installation: &Installation,
    data_dir: &Path,
    run_as: Option<&Account>,
    limit: Duration,
) -> Result<(), ServerError> {
    let mut command = installation.command("pg_ctl", run_as);
    command
        .arg("stop")
        .arg("-D")
        .arg(data_dir)
        .args(["-m", "fast", "-w", "-t"])
        .arg(limit.as_secs().max(1).to_string());
    let output = command
        .current_dir("/")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| ServerError::Io { what: "run pg_ctl stop".into(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(ServerError::NotStopped { data_dir: data_dir.to_owned(), message })
}

/// Keeps from a program what is set here for libpq or for us: it shall do the same whoever starts it.
pub fn without_our_environment(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        if ["PG", "HIGHWATER_"].iter().any(|prefix| name.as_bytes().starts_with(prefix.as_bytes())) {
            command.env_remove(name);
        }
    }
}

/// The cluster's state as `pg_control` has it, when it can be read.
fn control_state(data_dir: &Path) -> Option<highwater_pitr::control::ClusterState> {
    let bytes = std::fs::read(data_dir.join("global/pg_control")).ok()?;
    highwater_pitr::control::ControlFile::parse(&bytes).ok().map(|control| control.state)
}

/// The last lines of a log, or why they cannot be shown.
fn log_tail(path: &Path) -> String {
    let read = || -> io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => {
            let lines: Vec<&str> = text.lines().collect();
            lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
        }
        Err(error) => format!("({error})"),
    }
}
