//! Secrets: from a file that only its owner may read, from the environment, or printed by a command.
//!
//! A command may ask a service that does not answer, and a file may lie on a mount that is gone: each has its time, and then is an
//! error that says which it was. PostgreSQL waits for us meanwhile, or a person does.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::ConfigError;
use super::command::{self, in_time};
use super::raw::environment_name;

/// The longest secret that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// How long a secret may take to be had: less than a repository may take to be opened, so that this is what is said.
pub const WITHIN: Duration = Duration::from_secs(45);

/// A secret, and where it was found, in words that do not show it.
pub struct Fetched {
    /// The secret itself.
    pub text: String,
    /// The variable, the option with its file, or the option that holds the command.
    pub source: String,
}

/// The secret `key` from whichever of its three sources is set; the environment comes first, then the file.
///
/// # Errors
///
/// A file that others may read, or a source that fails.
pub fn fetch(
    key: &str,
    environment: Option<String>,
    file: Option<PathBuf>,
    command: Option<String>,
) -> Result<Option<Fetched>, ConfigError> {
    let (source, fetched) = match (environment, file, command) {
        (Some(text), _, _) => (format!("{} in the environment", environment_name(key)), Ok(text)),
        (None, Some(path), _) => {
            let shown = path.display().to_string();
            let source = format!("{key}_file {shown}");
            (source, in_time(&shown, WITHIN, move || read_file(&path)).and_then(|read| read))
        }
        // A command may carry what is better not printed.
        (None, None, Some(command)) => (format!("{key}_command"), run(&command)),
        (None, None, None) => return Ok(None),
    };
    match fetched {
        Ok(text) => Ok(Some(Fetched { text, source })),
        Err(reason) => Err(ConfigError::Secret { key: key.to_owned(), reason }),
    }
}

/// A secret file's text without the newline at its end.
pub fn read_file(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = std::fs::File::open(path).map_err(failed)?;
    let mode = file.metadata().map_err(failed)?.mode();
    if mode & 0o077 != 0 {
        let shown = path.display();
        return Err(format!("others may read {shown} (mode {:03o}); run: chmod 600 {shown}", mode & 0o777));
    }
    let mut text = String::new();
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Ok(trimmed(text))
}

/// What a shell command prints, without the newline at its end.
pub fn run(command: &str) -> Result<String, String> {
    command::run_within(command, WITHIN, MAX_BYTES).map(trimmed)
}

fn trimmed(mut text: String) -> String {
    text.truncate(text.trim_end_matches(['\n', '\r']).len());
    text
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_secret_file_that_others_may_read_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(read_file(&path).unwrap_err().contains("chmod 600"));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(read_file(&path).unwrap(), "hush");
    }

    #[test]
    fn a_command_prints_a_secret_and_its_failure_is_an_error() {
        assert_eq!(run("printf 'a b\\n'").unwrap(), "a b");
        assert!(run("exit 3").unwrap_err().contains("exit status: 3"));
        assert!(fetch("k", None, Some("/absent".into()), None).is_err());
    }

    /// Of several sources the first wins, and what is said of it names it and never shows the secret.
    #[test]
    fn where_a_secret_was_found_is_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "hush\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let command = Some("printf hush".to_owned());
        let (text, file) = (Some("hush".to_owned()), Some(path.clone()));
        let key = "repository.main.account_key";
        for (sources, expected) in [
            (
                (text, file.clone(), command.clone()),
                "HIGHWATER__REPOSITORY__MAIN__ACCOUNT_KEY in the environment".to_owned(),
            ),
            ((None, file, command.clone()), format!("{key}_file {}", path.display())),
            ((None, None, command), format!("{key}_command")),
        ] {
            let fetched = fetch(key, sources.0, sources.1, sources.2).unwrap().unwrap();
            assert_eq!((fetched.text.as_str(), fetched.source), ("hush", expected));
        }
        assert!(fetch(key, None, None, None).unwrap().is_none());
    }
}
