//! PostgreSQL's programs on this host, by major version.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use highwater_pitr::wal::PgMajor;

use super::ServerError;
use crate::ownership::Account;

/// One installed PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Installation {
    major: u16,
    bin: PathBuf,
}

impl Installation {
    /// Finds the server of `major`: in `asked` and nowhere else when that is given, otherwise wherever distributions put it.
    ///
    /// # Errors
    /// [`ServerError::NotInstalled`] with where was looked, [`ServerError::WrongInstallation`] for a bad `asked`.
    pub fn find(major: u16, asked: Option<&Path>) -> Result<Installation, ServerError> {
        if let Some(bin) = asked {
            let wrong = |found: String| ServerError::WrongInstallation { major, bin: bin.to_owned(), found };
            return match version_of(bin) {
                Some(found) if found == major => Ok(Installation { major, bin: bin.to_owned() }),
                Some(found) => Err(wrong(format!("it holds {found}"))),
                None => Err(wrong("no program `postgres` there answers --version".into())),
            };
        }
        let candidates = candidates(major);
        let found = candidates.iter().find(|bin| version_of(bin) == Some(major));
        match found {
            Some(bin) => Ok(Installation { major, bin: bin.clone() }),
            None => {
                let looked_in: Vec<String> = candidates.iter().map(|bin| bin.display().to_string()).collect();
                Err(ServerError::NotInstalled { major, looked_in: looked_in.join(", ") })
            }
        }
    }

    /// The newest server that we know, in `asked` and nowhere else when that is given.
    ///
    /// # Errors
    /// [`ServerError::NoneInstalled`].
    pub fn newest(asked: Option<&Path>) -> Result<Installation, ServerError> {
        let majors = PgMajor::ALL.into_iter().rev().filter_map(|major| u16::try_from(major.number()).ok());
        let mut found = majors.filter_map(|major| Installation::find(major, asked).ok());
        found.next().ok_or(ServerError::NoneInstalled)
    }

    /// The major version.
    pub fn major(&self) -> u16 {
        self.major
    }

    /// The directory of its programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// A command that runs `tool` of this installation, as `run_as` when that is someone else.
    pub fn command(&self, tool: &str, run_as: Option<&Account>) -> Command {
        let program = self.bin.join(tool);
        let mut command = match run_as {
            Some(account) => account.command(&program),
            None => Command::new(program),
        };
        // Relocated builds carry their own libpq; it must win over the distribution's.
        if let Some(lib) = self.bin.parent().map(|prefix| prefix.join("lib"))
            && lib.join("libpq.so.5").exists()
        {
            command.env("LD_LIBRARY_PATH", lib);
        }
        command
    }
}

/// Where the server of `major` may be: Debian, Fedora and PGDG, Homebrew, the source's default, what tests install, `PATH`.
fn candidates(major: u16) -> Vec<PathBuf> {
    let mut list = vec![
        PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")),
        PathBuf::from(format!("/usr/pgsql-{major}/bin")),
        PathBuf::from(format!("/opt/homebrew/opt/postgresql@{major}/bin")),
        PathBuf::from(format!("/usr/local/opt/postgresql@{major}/bin")),
        PathBuf::from("/usr/local/pgsql/bin"),
    ];
    let cache = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache/highwater/postgresql"));
    let roots = std::env::var_os("HIGHWATER_POSTGRES_DIR").map(PathBuf::from).into_iter().chain(cache);
    for root in roots.chain([PathBuf::from("/var/cache/highwater/postgresql")]) {
        list.push(root.join(major.to_string()).join("bin"));
    }
    list.extend(std::env::var_os("PATH").iter().flat_map(std::env::split_paths));
    list
}

/// The major version that `bin/postgres --version` answers, as in `postgres (PostgreSQL) 17.2 (Debian 17.2-1)`.
fn version_of(bin: &Path) -> Option<u16> {
    if !bin.join("postgres").is_file() {
        return None;
    }
    let installation = Installation { major: 0, bin: bin.to_owned() };
    let output =
        installation.command("postgres", None).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    let number = text.split_whitespace().nth(2)?;
    let digits: String = number.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
