//! The demo's directory, the servers that run in it, and the commands run there.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use highwater_restore::ownership::Account;

use super::binaries::Binaries;
use crate::pg::{Session, postmaster};
use crate::report;

/// The longest path of a directory in which a socket still has a usable name (`sun_path` is 108 bytes).
const MAX_DIRECTORY_BYTES: usize = 70;

/// How long a server may take to start.
const START_WITHIN: Duration = Duration::from_secs(60);

/// A directory of its own, removed with everything that runs in it.
pub struct Sandbox {
    directory: PathBuf,
    binaries: Binaries,
    /// Who servers and commands run as, where this process is root.
    account: Option<Account>,
    highwater: PathBuf,
    keep: bool,
}

impl Sandbox {
    /// Makes the directory below `parent`, and makes sure that the server's user can run this program.
    ///
    /// # Errors
    ///
    /// No directory, or no user for the server.
    pub fn create(parent: &Path, binaries: Binaries, keep: bool) -> anyhow::Result<Self> {
        let mut random = [0; 4];
        getrandom::fill(&mut random).context("the operating system gives no random bytes")?;
        let directory = parent.join(format!("highwater-demo-{}", hex::encode(random)));
        if directory.as_os_str().len() > MAX_DIRECTORY_BYTES {
            return Err(report::usage_error(
                format!("{} is too long for a Unix socket", directory.display()),
                "choose a shorter one with --directory",
            ));
        }
        let account = match rustix::process::geteuid().is_root() {
            true => Some(server_account()?),
            false => None,
        };
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let highwater = std::env::current_exe().context("cannot find this program")?;
        let mut sandbox = Self { directory, binaries, account, highwater, keep };
        sandbox.give_away(&sandbox.directory)?;
        sandbox.make_runnable()?;
        Ok(sandbox)
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The installation in use.
    pub fn binaries(&self) -> &Binaries {
        &self.binaries
    }

    /// The program that commands and the server call.
    pub fn highwater_path(&self) -> &Path {
        &self.highwater
    }

    /// Writes a file for the server's user.
    pub fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        highwater_archive::durable::replace(&path, &[text])?;
        self.give_away(&path)?;
        Ok(path)
    }

    /// Makes a directory for the server's user.
    pub fn make_directory(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.path(name);
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot create {}", path.display()))?;
        self.give_away(&path)?;
        Ok(path)
    }

    /// Runs one of PostgreSQL's programs to its end.
    pub async fn postgres(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.binaries.command(program);
        command.args(arguments);
        self.run(command, program).await
    }

    /// Runs a command of this program with the demo's configuration, as a person would.
    pub async fn highwater(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::new(&self.highwater);
        command.arg("--config").arg(self.path("main.toml")).args(arguments);
        self.run(command, &format!("highwater {}", arguments.first().copied().unwrap_or_default())).await
    }

    /// Starts a server on a data directory, with its socket in `socket_dir`.
    pub async fn start(&self, data_dir: &Path, socket_dir: &Path) -> anyhow::Result<()> {
        let log = data_dir.with_extension("log");
        let options = format!("-k {} -c listen_addresses=''", socket_dir.display());
        let mut command = self.binaries.command("pg_ctl");
        command.arg("-D").arg(data_dir).arg("-l").arg(&log).args(["-o", &options, "-w", "-t", "60", "start"]);
        self.run(command, "pg_ctl start").await.map_err(|error| {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            let last: Vec<&str> = log.lines().rev().take(3).collect();
            error.context(format!("the server did not start: {}", last.join(" / ")))
        })?;
        Ok(())
    }

    /// Connects to the server on `data_dir` as soon as it lets us, and waits until its recovery is over.
    pub async fn connect(&self, data_dir: &Path, socket_dir: &Path) -> anyhow::Result<Session> {
        let connection = format!("host={} port=5432 dbname=postgres user=postgres", socket_dir.display());
        let begun = Instant::now();
        loop {
            let last = match Session::open(Some(&connection), None).await {
                Ok(session) => {
                    let row =
                        session.row("SELECT pg_is_in_recovery()", &[], "tell whether it recovers").await?;
                    if !row.try_get::<_, bool>(0)? {
                        return Ok(session);
                    }
                    "it is still in recovery".to_owned()
                }
                Err(error) => error.to_string(),
            };
            // pg_ctl's success says little about a recovery that is still to fail.
            if !postmaster::is_running(data_dir)? || begun.elapsed() > START_WITHIN {
                let log = std::fs::read_to_string(data_dir.with_extension("log")).unwrap_or_default();
                let why = log.lines().rfind(|line| line.contains("FATAL")).unwrap_or(&last).to_owned();
                return Err(anyhow::anyhow!("the server in {} did not come up: {why}", data_dir.display()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn run(&self, mut command: Command, what: &str) -> anyhow::Result<String> {
        self.dress(&mut command);
        let output = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("cannot run {what}"))?;
        if !output.status.success() {
            return Err(anyhow::anyhow!("{what} failed ({}): {}", output.status, told(&output)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// As the server's user, without settings of whoever runs the demo.
    fn dress(&self, command: &mut Command) {
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("PG") || name.starts_with("HIGHWATER_")) {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").current_dir(&self.directory).stdin(Stdio::null());
        if let Some(account) = &self.account {
            // Without groups of its own, root's are dropped by the standard library when the user changes.
            command.uid(account.uid).gid(account.gid).env("HOME", &self.directory).env("USER", &account.name);
        }
    }

    /// Copies this program into the directory where the server's user cannot run it from its own place.
    fn make_runnable(&mut self) -> anyhow::Result<()> {
        let mut attempt = Command::new(&self.highwater);
        attempt.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        self.dress(&mut attempt);
        if attempt.status().is_ok_and(|status| status.success()) {
            return Ok(());
        }
        let copy = self.path("highwater");
        let program = std::fs::read(&self.highwater).context("cannot read this program")?;
        highwater_archive::durable::replace(&copy, &[program]).context("cannot copy this program")?;
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o700))
            .context("cannot copy this program")?;
        self.give_away(&copy)?;
        self.highwater = copy;
        Ok(())
    }

    fn give_away(&self, path: &Path) -> anyhow::Result<()> {
        if let Some(account) = &self.account {
            std::os::unix::fs::chown(path, Some(account.uid), Some(account.gid))
                .with_context(|| format!("cannot give {} to {}", path.display(), account.name))?;
        }
        Ok(())
    }

    fn stop_server(&self, data_dir: &Path) {
        if !postmaster::is_running(data_dir).unwrap_or(false) {
            return;
        }
        let mut command = self.binaries.command("pg_ctl");
        command.arg("-D").arg(data_dir).args(["-w", "-t", "20", "-m", "immediate", "stop"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        self.dress(&mut command);
        if !command.status().is_ok_and(|status| status.success()) {
            report::line(&format!("error: the demo's server in {} could not be stopped", data_dir.display()));
        }
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for name in ["cluster", "restored"] {
            self.stop_server(&self.path(name));
        }
        if self.keep {
            return;
        }
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            report::line(&format!("error: {} could not be removed: {error}", self.directory.display()));
        }
    }
}

/// The user that PostgreSQL runs as where we are root: it refuses to run as root itself.
fn server_account() -> anyhow::Result<Account> {
    Account::parse("postgres").or_else(|_| Account::parse("nobody")).map_err(|_| {
        report::failed(
            "PostgreSQL does not run as root, and there is no user postgres",
            "run the demo as an ordinary user",
        )
    })
}

/// What a failed command said, on one line.
fn told(output: &Output) -> String {
    let text = [&output.stderr, &output.stdout].map(|bytes| String::from_utf8_lossy(bytes).trim().to_owned());
    text.iter()
        .filter(|part| !part.is_empty())
        .map(|part| part.replace('\n', " / "))
        .collect::<Vec<_>>()
        .join(" / ")
}
