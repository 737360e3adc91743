//! Secrets: from a file that only its owner may read, from the environment, or printed by a command.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::ConfigError;

/// The longest secret that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

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
) -> Result<Option<String>, ConfigError> {
    let fetched = match (environment, file, command) {
        (Some(text), _, _) => Ok(text),
        (None, Some(path), _) => read_file(&path),
        (None, None, Some(command)) => run(&command),
        (None, None, None) => return Ok(None),
    };
    fetched.map(Some).map_err(|reason| ConfigError::Secret { key: key.to_owned(), reason })
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
    let output = Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed: {}", output.status));
    }
    String::from_utf8(output.stdout)
        .map(trimmed)
        .map_err(|_| format!("{command:?} printed something that is not text"))
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
        let order = fetch("k", Some("e".into()), Some("/absent".into()), None).unwrap();
        assert_eq!(order.as_deref(), Some("e"));
        assert!(fetch("k", None, Some("/absent".into()), None).is_err());
    }
}
