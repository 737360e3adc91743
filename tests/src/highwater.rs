//! Running the binary as an administrator would: a configuration file, a command, an exit code, what it printed.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use highwater_archive::store::StoreSpec;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::binary::highwater_binary;
use crate::cluster::Cluster;
use crate::scratch::{Scratch, private_file};
use crate::user::command_as_server_user;

/// A configuration file of one cluster, and the binary that reads it.
#[derive(Debug)]
pub struct Highwater {
    config: PathBuf,
    directory: PathBuf,
    text: String,
    /// Root itself runs the commands, where the tests are root's; otherwise the server user does.
    as_root: bool,
}

/// A command that has ended.
#[derive(Debug)]
pub struct Finished {
    /// The exit code; None if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output.
    pub stdout: String,
    /// What it wrote to standard error.
    pub stderr: String,
    command: String,
}

impl Highwater {
    /// A configuration `<name>.toml` for the cluster `main` that `cluster` is, without repositories yet.
    pub fn new(scratch: &Scratch, name: &str, cluster: &Cluster) -> Self {
        let connection = cluster.connection();
        let text = format!(
            "[cluster]\nname = \"main\"\ndata_dir = \"{}\"\nconnection = \"{connection}\"\n",
            cluster.data().display()
        );
        let config = scratch.file(format!("{name}.toml"), &text);
        Self { config, directory: scratch.path().to_owned(), text, as_root: false }
    }

    /// Adds a repository: a local directory of this name in the scratch directory, with its key beside it.
    pub fn local_repository(self, name: &str) -> Self {
        let url = format!("file://{}", self.directory.join(name).display());
        let key = self.directory.join(format!("{name}.key"));
        self.lines(&format!("\n[repository.{name}]\nurl = \"{url}\"\nkey_file = \"{}\"\n", key.display()))
    }

    /// Adds a repository in a service: every option of `store`, each secret in a file of this configuration's own, and the key in the
    /// scratch directory.
    pub fn repository(self, name: &str, store: &StoreSpec) -> Self {
        let key = self.directory.join(format!("{name}.key"));
        let mut text = format!("\n[repository.{name}]\nkey_file = \"{}\"\n", key.display());
        let options = serde_json::to_value(store).unwrap();
        // A text or a truth is written in JSON as it is in TOML.
        for (option, value) in options.as_object().unwrap() {
            writeln!(text, "{option} = {value}").unwrap();
        }
        for (option, secret) in store.secrets() {
            if matches!(option.as_str(), "access_key_id" | "proxy") {
                writeln!(text, "{option} = {secret:?}").unwrap();
                continue;
            }
            let file = self.config.with_extension(format!("{name}.{option}"));
            private_file(&file, &secret);
            writeln!(text, "{option}_file = {:?}", file.display().to_string()).unwrap();
        }
        self.lines(&text)
    }

    /// Adds lines to the configuration.
    pub fn lines(mut self, lines: &str) -> Self {
        writeln!(self.text, "{lines}").unwrap();
        std::fs::write(&self.config, &self.text).unwrap();
        self
    }

    /// Commands run as root, where the tests are root's.
    pub fn as_root(mut self) -> Self {
        self.as_root = true;
        self
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// What belongs into `archive_command`.
    pub fn archive_command(&self) -> String {
        format!("{} --config {} archive-push %p", highwater_binary().display(), self.config.display())
    }

    /// The command, ready to be changed and run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.bare(arguments);
        command.arg("--config").arg(&self.config);
        command
    }

    /// The command without the configuration file.
    pub fn bare(&self, arguments: &[&str]) -> Command {
        let binary = highwater_binary();
        let mut command = if self.as_root { Command::new(binary) } else { command_as_server_user(binary) };
        for (name, _) in std::env::vars_os() {
            // The harness's own variables are none of the binary's.
            if name.to_string_lossy().starts_with("HIGHWATER") {
                command.env_remove(name);
            }
        }
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command to its end, whatever that is.
    pub fn run(&self, arguments: &[&str]) -> Finished {
        Finished::of(&mut self.command(arguments))
    }

    /// Runs a command that must succeed, and gives its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        self.run(arguments).success()
    }

    /// Runs a command with `--json` that must succeed, and gives what it said.
    pub fn json(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        let output = self.ok(&arguments);
        serde_json::from_str(&output).unwrap_or_else(|error| panic!("{arguments:?}: {error} in\n{output}"))
    }

    /// Runs a command that must fail with this exit code and these words on standard error, which it returns.
    pub fn fails(&self, arguments: &[&str], code: i32, words: &[&str]) -> String {
        self.run(arguments).failure(code, words)
    }
}

impl Finished {
    /// Runs a command to its end.
    pub fn of(command: &mut Command) -> Self {
        let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self::from_output(format!("{command:?}"), output)
    }

    /// A command that was started otherwise and has ended.
    pub fn from_output(command: String, output: Output) -> Self {
        let Output { status, stdout, stderr } = output;
        Self {
            code: status.code(),
            stdout: String::from_utf8_lossy(&stdout).into_owned(),
            stderr: String::from_utf8_lossy(&stderr).into_owned(),
            command,
        }
    }

    /// Runs a command to its end whose standard error is a terminal of 100 columns, as a person's is.
    pub fn on_a_terminal(command: &mut Command) -> Self {
        use std::io::Read as _;
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&ours).and_then(|()| unlockpt(&ours)).unwrap();
        let name = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let size = Winsize { ws_row: 24, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).unwrap();
        let theirs = std::fs::File::options().write(true).open(name).unwrap();
        command.env("TERM", "xterm").stderr(theirs).stdout(Stdio::piped());
        let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        // Our copy of their end goes, so that the last writer's end is the end of what there is to read.
        command.stderr(Stdio::null());
        let seen = std::thread::spawn(move || {
            let (mut ours, mut seen) = (std::fs::File::from(ours), Vec::new());
            // When nobody is left at the other end, Linux answers EIO.
            let _ = ours.read_to_end(&mut seen);
            String::from_utf8_lossy(&seen).into_owned()
        });
        let output = child.wait_with_output().unwrap();
        let stderr = seen.join().unwrap();
        Self { stderr, ..Self::from_output(format!("{command:?}"), output) }
    }

    /// Standard output of a command that must have succeeded.
    #[track_caller]
    pub fn success(self) -> String {
        assert_eq!(self.code, Some(0), "{self}");
        self.stdout
    }

    /// Holds that the command ended so, with these words on standard output.
    #[track_caller]
    pub fn says(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self}");
        for word in words {
            assert!(self.stdout.contains(word), "standard output does not say {word:?}: {self}");
        }
    }

    /// Standard error of a command that must have failed so.
    #[track_caller]
    pub fn failure(self, code: i32, words: &[&str]) -> String {
        assert_eq!(self.code, Some(code), "{self}");
        for word in words {
            assert!(self.stderr.contains(word), "standard error does not say {word:?}: {self}");
        }
        self.stderr
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { code, stdout, stderr, command } = self;
        writeln!(f, "{command}\nended with {code:?}\nstandard output:\n{stdout}\nstandard error:\n{stderr}")
    }
}
