//! Configuration: a file, the environment, then flags; the later wins.
//!
//! [`options`] declares each option once: key, form, default and help. From that come the check of keys and values, the
//! environment names, `--set`, and the reference in docs/configuration.md. [`raw`] merges the sources as text with the place
//! each value came from; [`resolve`] turns that into [`Config`], below which nobody sees an unparsed string. [`discover`]
//! finds the file, [`secret`] fetches what must not stand in it.

mod discover;
mod error;
mod options;
mod raw;
mod reference;
mod resolve;
mod secret;
mod units;

pub use error::ConfigError;
pub use reference::{described, reference};
pub use resolve::{Config, KeySource, RepositoryConfig};
pub use secret::{WITHIN as SECRET_WITHIN, in_time, run as secret_from_command};

use std::path::PathBuf;

/// Where configuration files lie, one for each cluster: `NAME.toml`.
pub const DIRECTORY: &str = "/etc/highwater";

/// What the command line says about configuration.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// `--config FILE`.
    pub file: Option<PathBuf>,
    /// `--cluster NAME`.
    pub cluster: Option<String>,
    /// `--set KEY=VALUE`, in the order given.
    pub set: Vec<String>,
}

/// Reads the configuration that the selection, the environment and [`DIRECTORY`] give.
///
/// # Errors
///
/// A file that cannot be chosen, read or parsed, an unknown key, a value that is not of its option's form, a missing option.
pub fn load(selection: &Selection) -> Result<Config, ConfigError> {
    let file = discover::choose(selection, std::path::Path::new(DIRECTORY))?;
    let raw = raw::merge(file.as_deref(), raw::process_environment()?, &selection.set)?;
    resolve::resolve(&raw, file, selection.cluster.as_deref())
}
