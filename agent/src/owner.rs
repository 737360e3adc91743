//! Root hands over to the owner of the data directory.
//!
//! The server archives as its own user, so what root would write into a local repository, that user could not add to. A command
//! that writes there is therefore run again by the owner of the data directory, in place of this process. Before that, `init`
//! makes as root what only root may: the key file and the directory of a local repository.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;

use highwater_restore::ownership::{Account, group_name};

use crate::config::Config;
use crate::report;

/// The owner of the data directory, where that is someone else and we are root.
///
/// # Errors
///
/// The data directory is not set, or cannot be looked at.
pub fn other_owner(config: &Config) -> anyhow::Result<Option<Owner>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let data_dir = config.data_dir()?;
    let metadata =
        std::fs::metadata(data_dir).with_context(|| format!("cannot look at {}", data_dir.display()))?;
    Ok((metadata.uid() != 0).then(|| Owner(Account::of(metadata.uid(), metadata.gid()))))
}

/// Who owns the data directory.
#[derive(Clone, Debug)]
pub struct Owner(Account);

impl Owner {
    /// Makes sure that the owner can read the configuration, before anything is made for a command that then could not go on.
    ///
    /// # Errors
    ///
    /// They cannot.
    pub fn must_read(&self, config: &Path) -> anyhow::Result<()> {
        let mut test = self.0.command(Path::new("test"));
        let tried = test.arg("-r").arg(config).stdout(Stdio::null()).stderr(Stdio::null()).status();
        // Any other answer is of what could not be asked; running again as the owner says why.
        if !tried.is_ok_and(|status| status.code() == Some(1)) {
            return Ok(());
        }
        let directory = config.parent().unwrap_or(Path::new("/"));
        Err(report::usage_error(
            format!("{}, the owner of the data directory, cannot read {}", self.0.name, config.display()),
            format!(
                "highwater goes on as {}, who must be able to, and others need not: chmod 755 {}; chgrp {} {}; chmod 640 {}",
                self.0.name,
                directory.display(),
                group_name(self.0.gid),
                config.display(),
                config.display()
            ),
        ))
    }

    /// Makes a directory, if it is not there, that belongs to the owner alone; also one that an earlier run made and was cut off before
    /// giving away.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn make_directory(&self, path: &Path) -> anyhow::Result<()> {
        let made = std::fs::DirBuilder::new().mode(0o700).create(path);
        match made {
            Ok(()) => self.give(path),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                if is_as_made(path) {
                    self.give(path)
                } else {
                    Ok(())
                }
            }
            Err(error) => Err(error).with_context(|| format!("cannot create {}", path.display())),
        }
    }

    /// Gives a path to the owner.
    ///
    /// # Errors
    ///
    /// It cannot be given.
    pub fn give(&self, path: &Path) -> anyhow::Result<()> {
        chown(path, Some(self.0.uid), Some(self.0.gid))
            .with_context(|| format!("cannot give {} to {}", path.display(), self.0.name))
    }

    /// Runs this very command as the owner, in place of this process. Returns only if that failed.
    pub fn run_again(&self) -> anyhow::Error {
        let program = match std::env::current_exe() {
            Ok(program) => program,
            Err(error) => return anyhow::Error::new(error).context("cannot find this program"),
        };
        let unrunnable = |reason: String| {
            report::failed(
                format!(
                    "cannot run {} as {}, the owner of the data directory: {reason}",
                    program.display(),
                    self.0.name
                ),
                "install it where that user may run it, such as /usr/bin",
            )
        };
        // What changes the user may be a program of its own, and would end in its own words.
        let tried =
            self.0.command(&program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        match tried {
            Ok(status) if status.success() => {}
            Ok(status) => return unrunnable(status.to_string()),
            Err(error) => return unrunnable(error.to_string()),
        }
        // Root's home is not theirs; without the variable the account's own is looked up.
        let mut command = self.0.command(&program);
        let error = command.args(std::env::args_os().skip(1)).env_remove("HOME").exec();
        unrunnable(error.to_string())
    }
}

/// Whether a directory is as [`Owner::make_directory`] has made it and not yet given it away: root's alone, and empty.
fn is_as_made(path: &Path) -> bool {
    let is_roots = std::fs::symlink_metadata(path)
        .is_ok_and(|found| found.is_dir() && found.uid() == 0 && found.mode() & 0o7777 == 0o700);
    is_roots && std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_none())
}
