//! `docs/decrypt.py`, the reader that is not ours, with the packages it needs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::highwater::Finished;

fn repository_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// A Python that has the packages; `tests/python-env` makes it when it is missing.
///
/// # Panics
/// When it cannot be made: nothing is skipped in silence.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let mut script = Command::new(repository_root().join("tests/python-env"));
        PathBuf::from(Finished::of(&mut script).success().trim_end())
    })
}

/// The command `decrypt.py ARGUMENTS`.
pub fn decrypt_py_command<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(python());
    command
        .arg(repository_root().join("docs/decrypt.py"))
        .args(arguments)
        .env("PYTHONDONTWRITEBYTECODE", "1");
    command
}

/// Runs `decrypt.py ARGUMENTS` to its end, whatever that is.
pub fn decrypt_py<S: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = S>) -> Finished {
    Finished::of(&mut decrypt_py_command(arguments))
}
