//! The demo's directory, the servers that run in it, and the commands run there.

use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use highwater_restore::ownership::Account;
use highwater_restore::server::{
    Goal, Installation, Server, ServerOptions, is_running, stop, without_our_environment,
};

use crate::pg::Session;
use crate::report;

/// The longest path of a directory in which a socket still has a usable name (`sun_path` is 108 bytes).
const MAX_DIRECTORY_BYTES: usize = 70;

/// How long a server may take to start and to recover.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How long it may take to stop.
const STOP_WITHIN: Duration = Duration::from_secs(20);

/// A directory of its own, removed with everything that runs in it.
pub struct Sandbox {
    directory: PathBuf,
    installation: Installation,
    /// Who servers and commands run as, where this process is root.
    account: Option<Account>,
    highwater: PathBuf,
    keep: bool,
    /// The data directories that servers were started on.
    started: Mutex<Vec<PathBuf>>,
}

impl Sandbox {
    /// Makes the directory below `parent`, and makes sure that the server's user can run this program.
    ///
    /// # Errors
    ///
    /// No directory, or no user for the server.
    pub fn create(parent: &Path, installation: Installation, keep: bool) -> anyhow::Result<Self> {
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
        let started = Mutex::default();
        let mut sandbox = Self { directory, installation, account, highwater, keep, started };
        sandbox.give_away(&sandbox.directory)?;
        sandbox.make_runnable()?;
        Ok(sandbox)
    }

    /// A path in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// The installation in use.
    pub fn installation(&self) -> &Installation {
        &self.installation
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
        let mut command = self.installation.command(program, self.account.as_ref());
        command.args(arguments);
        self.run(command, program).await
    }

    /// Runs a command of this program with the demo's configuration, as a person would.
    pub async fn highwater(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.own_command();
        command.arg("--config").arg(self.path("main.toml")).args(arguments);
        self.run(command, &format!("highwater {}", arguments.first().copied().unwrap_or_default())).await
    }

    /// Starts a server on a data directory, with its socket in `socket_dir`, and connects when its recovery is over. It runs until
    /// the sandbox goes.
    pub async fn start(&self, data_dir: &Path, socket_dir: &Path) -> anyhow::Result<Session> {
        let options = ServerOptions {
            installation: self.installation.clone(),
            data_dir: data_dir.to_owned(),
            config_file: None,
            run_as: self.account.clone(),
            settings: vec![
                ("unix_socket_directories".to_owned(), socket_dir.display().to_string()),
                ("listen_addresses".to_owned(), String::new()),
            ],
            log_file: data_dir.with_extension("log"),
            roles: vec!["postgres".to_owned()],
        };
        self.started.lock().unwrap_or_else(PoisonError::into_inner).push(data_dir.to_owned());
        let mut server = Server::start(options)?;
        let waiting =
            tokio::task::spawn_blocking(move || server.wait_for(Goal::Writable, START_WITHIN, |_| {}));
        waiting.await?.with_context(|| format!("the server in {} did not come up", data_dir.display()))?;
        let connection = format!("host={} port=5432 dbname=postgres user=postgres", socket_dir.display());
        Ok(Session::open(Some(&connection), None).await?)
    }

    /// This program, as the server's user.
    fn own_command(&self) -> Command {
        match &self.account {
            Some(account) => account.command(&self.highwater),
            None => Command::new(&self.highwater),
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

    /// Without settings of whoever runs the demo.
    fn dress(&self, command: &mut Command) {
        without_our_environment(command);
        command.env("LC_ALL", "C").current_dir(&self.directory).stdin(Stdio::null());
        if let Some(account) = &self.account {
            command.env("HOME", &self.directory).env("USER", &account.name);
        }
    }

    /// Copies this program into the directory where the server's user cannot run it from its own place.
    fn make_runnable(&mut self) -> anyhow::Result<()> {
        let mut attempt = self.own_command();
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
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        for data_dir in self.started.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            if is_running(&data_dir)
                && let Err(error) = stop(&self.installation, &data_dir, self.account.as_ref(), STOP_WITHIN)
            {
                report::line(&format!("error: {error}"));
            }
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
