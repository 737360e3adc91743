//! Whether a server would open this cluster, and take its settings: the server itself is asked.
//!
//! No program prints the catalog version, the block size or the alignment it was built with; but every server holds them against
//! `pg_control` before it does anything else (`ReadControlFile` in `xlog.c`), and says what differs. So it is shown the backup's
//! `pg_control` in an empty directory, in single-user mode, with a library to preload that is not there: one that likes the file
//! ends at that library (15 and on) or at the missing rest of the data directory (14), one that does not says so first. It takes
//! some milliseconds and touches nothing but that directory, which is removed. Settings that this host cannot give it, a
//! locale or a time zone, it refuses even before that, one at a time.

use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use highwater_archive::manifest::Manifest;

use crate::ownership::{self, Account};
use crate::server::{Installation, without_our_environment};

/// The library that is not there.
const NO_LIBRARY: &str = "highwater_goes_no_further";

/// What 14 finds missing first.
const NO_DIRECTORY: &str = "could not open directory \"pg_notify\"";

/// What every server says of a `pg_control` that it was not built for.
const REFUSAL: &str = "database files are incompatible with server";

/// What the server thinks of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It opens it.
    Opens,
    /// It was built otherwise.
    Refuses {
        /// What differs, in its words.
        detail: String,
    },
    /// It could not be asked, or ended of something else.
    Unknown {
        /// Why.
        reason: String,
    },
}

/// What the words of a server that has ended mean.
fn judgement(said: &str) -> Judgement {
    let after = |mark: &str| {
        let found = said.lines().find_map(|line| line.split_once(mark));
        found.map(|(_, text)| text.trim().to_owned())
    };
    if said.contains(REFUSAL) {
        return Judgement::Refuses { detail: after("DETAIL:").unwrap_or_else(|| REFUSAL.to_owned()) };
    }
    if said.contains(NO_LIBRARY) || said.contains(NO_DIRECTORY) {
        return Judgement::Opens;
    }
    let reason = after("FATAL:").or_else(|| said.lines().last().map(str::to_owned));
    Judgement::Unknown { reason: reason.unwrap_or_else(|| "it ended without a word".into()) }
}

/// What a server says of a setting that it cannot take; the name follows in double quotes.
const INVALID: &str = "invalid value for parameter ";

/// A directory that looks as much like a cluster as the server looks at, and the server.
pub struct Trial<'a> {
    directory: PathBuf,
    installation: &'a Installation,
    owner: Option<&'a Account>,
}

impl<'a> Trial<'a> {
    /// Makes the directory.
    ///
    /// # Errors
    /// The system's: there is no temporary directory that can be written.
    pub fn new(
        installation: &'a Installation,
        owner: Option<&'a Account>,
        manifest: &Manifest,
    ) -> io::Result<Trial<'a>> {
        let mut nonce = [0; 8];
        getrandom::fill(&mut nonce).map_err(io::Error::other)?;
        let name = format!("highwater-trial.{:016x}", u64::from_le_bytes(nonce));
        let trial = Trial { directory: std::env::temp_dir().join(name), installation, owner };
        make_directory(&trial.directory, owner)?;
        make_directory(&trial.directory.join("global"), owner)?;
        let version = format!("{}\n", manifest.postgresql.major);
        put(&trial.directory.join("PG_VERSION"), version.as_bytes(), owner)?;
        put(&trial.directory.join("postgresql.conf"), b"", owner)?;
        put(&trial.directory.join("global/pg_control"), &manifest.control.bytes, owner)?;
        Ok(trial)
    }

    /// Shows the server the backup's `pg_control` under these settings. Those that it cannot take on this host it refuses first, one
    /// at a time and in its words; they are left out then, and the judgement is of the rest.
    pub fn judge(&self, settings: &[(&str, &str)]) -> (Judgement, Vec<Refused>) {
        let (mut left, mut refused) = (settings.to_vec(), Vec::new());
        loop {
            let said = match self.run(&left) {
                Ok(said) => said,
                Err(error) => return (Judgement::Unknown { reason: error.to_string() }, refused),
            };
            let before = left.len();
            let found = invalid(&said);
            if let Some((name, _)) = &found {
                left.retain(|(setting, _)| !setting.eq_ignore_ascii_case(name));
            }
            match found {
                Some((setting, detail)) if left.len() < before => refused.push(Refused { setting, detail }),
                _ => return (judgement(&said), refused),
            }
        }
    }

    /// What it says in the end.
    fn run(&self, settings: &[(&str, &str)]) -> io::Result<String> {
        let mut command = self.installation.command("postgres", self.owner);
        command.arg("--single").arg("-D").arg(&self.directory);
        command.arg("-c").arg(format!("shared_preload_libraries={NO_LIBRARY}"));
        for (name, value) in settings {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        without_our_environment(&mut command);
        command.arg("postgres").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
        Ok(String::from_utf8_lossy(&command.output()?.stderr).into_owned())
    }
}

/// A setting that the server cannot take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Its name, as the server writes it.
    pub setting: String,
    /// What the server said.
    pub detail: String,
}

/// The setting that a server ended of, and its words.
fn invalid(said: &str) -> Option<(String, String)> {
    let detail = said.lines().find_map(|line| line.split_once(INVALID).map(|(_, rest)| rest.trim()))?;
    let name = detail.strip_prefix('"')?.split('"').next()?;
    Some((name.to_owned(), format!("{INVALID}{detail}")))
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.directory) {
            tracing::debug!("{} stays: {error}", self.directory.display());
        }
    }
}

fn make_directory(path: &Path, owner: Option<&Account>) -> io::Result<()> {
    std::fs::DirBuilder::new().mode(0o700).create(path)?;
    ownership::give(std::fs::File::open(path)?, owner)
}

fn put(path: &Path, content: &[u8], owner: Option<&Account>) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    io::Write::write_all(&mut file, content)?;
    ownership::give(file, owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 14, 16 and 18 said it.
    #[test]
    fn the_last_words_of_a_server_are_its_judgement() {
        let opens_14 =
            "2026-11-20 13:37:20.731 GMT [3289] FATAL:  could not open directory \"pg_notify\": No such file";
        let opens = format!(
            "[1] LOG:  skipping missing file\n[1] FATAL:  could not access file \"{NO_LIBRARY}\": No"
        );
        assert_eq!(judgement(opens_14), Judgement::Opens);
        assert_eq!(judgement(&opens), Judgement::Opens);
        let detail = "The database cluster was initialized with CATALOG_VERSION_NO 202307071, but the server was \
                      compiled with CATALOG_VERSION_NO 202107181.";
        let refuses = format!("x [1] FATAL:  {REFUSAL}\nx [1] DETAIL:  {detail}\nx [1] HINT:  initdb.\n");
        assert_eq!(judgement(&refuses), Judgement::Refuses { detail: detail.into() });
        let other = judgement("x FATAL:  could not map anonymous shared memory: Cannot allocate memory\n");
        assert!(matches!(other, Judgement::Unknown { reason } if reason.starts_with("could not map")));
        assert!(matches!(judgement(""), Judgement::Unknown { .. }));
    }

    #[test]
    fn a_setting_that_is_refused_is_known_by_its_name() {
        let said = "[1] LOG:  skipping\n[1] FATAL:  invalid value for parameter \"lc_time\": \"de_DE\"\n";
        let detail = "invalid value for parameter \"lc_time\": \"de_DE\"";
        assert_eq!(invalid(said), Some(("lc_time".into(), detail.into())));
        assert_eq!(invalid("FATAL:  something else"), None);
    }
}
