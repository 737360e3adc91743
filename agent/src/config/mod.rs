//! Configuration: a file, the environment, then flags; the later wins.
//!
//! [`options`] declares each option once: key, form, default and help. From that come the check of keys and values, the
//! environment names, `--set`, and the reference in docs/configuration.md. [`raw`] merges the sources as text with the place
//! each value came from; [`resolve`] turns that into [`Config`], below which nobody sees an unparsed string. [`discover`]
//! finds the file, [`secret`] fetches what must not stand in it, [`command`] runs what may not come back, [`overlooked`] tells of variables that are almost an option's.

mod command;
mod discover;
mod error;
mod options;
mod overlooked;
mod raw;
mod reference;
mod resolve;
mod secret;
mod units;

pub use command::{end_all as end_commands, in_time, is_any_running as is_command_running};
pub use error::ConfigError;
pub use reference::{described, reference};
pub use resolve::{Config, KeySource, RepositoryConfig};
pub use secret::{WITHIN as SECRET_WITHIN, run as secret_from_command};

use std::path::{Path, PathBuf};

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

/// Whether a command that names no configuration reads this one: the only one in `directory`, which is [`DIRECTORY`] but for tests.
pub fn is_the_only_one(config: &Config, directory: &Path) -> bool {
    let chosen = discover::choose(&Selection::default(), directory);
    config.file.is_some() && chosen.is_ok_and(|chosen| chosen == config.file)
}

/// Reads the configuration that the selection, the environment and [`DIRECTORY`] give.
///
/// # Errors
///
/// A file that cannot be chosen, read or parsed, an unknown key, a value that is not of its option's form, a missing option.
pub fn load(selection: &Selection) -> Result<Config, ConfigError> {
    overlooked::overlooked().iter().for_each(|sentence| tracing::warn!("{sentence}"));
    let file = discover::choose(selection, Path::new(DIRECTORY))?;
    let raw = raw::merge(file.as_deref(), raw::process_environment()?, &selection.set)?;
    resolve::resolve(&raw, file, selection.cluster.as_deref())
}
