//! What can be wrong with the configuration, and what to do about each.

use std::path::PathBuf;

/// A configuration that cannot be used. Nothing was tried yet.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("the configuration {path} is not valid TOML: {reason}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        reason: String,
    },
    /// No option of this name.
    #[error("unknown option {key} ({place})")]
    UnknownKey {
        /// The dotted key.
        key: String,
        /// Where it stands.
        place: String,
        /// The known key that is spelled most like it.
        nearest: Option<String>,
    },
    /// The value is not of the option's form.
    #[error("{key} = {value:?} ({place}): {reason}")]
    Value {
        /// The dotted key.
        key: String,
        /// The text found.
        value: String,
        /// Where it stands.
        place: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A secret stands where others can read it.
    #[error("{key} must not be given {place}")]
    SecretInTheOpen {
        /// The dotted key.
        key: String,
        /// Where it stands.
        place: String,
        /// Where it may come from.
        instead: String,
    },
    /// An option that this command needs is not set.
    #[error("{key} is not set")]
    Missing {
        /// The dotted key.
        key: String,
        /// What it is for and how to set it.
        hint: String,
    },
    /// Several configurations, and none chosen.
    #[error("several clusters are configured: {}", names.join(", "))]
    SeveralClusters {
        /// Their names.
        names: Vec<String>,
    },
    /// Nothing is configured.
    #[error("no configuration: there is no file NAME.toml in {directory}")]
    NoConfiguration {
        /// Where files would lie.
        directory: PathBuf,
    },
    /// The chosen cluster has no file and the environment names no cluster.
    #[error("no configuration for cluster {name}: {path} does not exist")]
    NoSuchCluster {
        /// The name asked for.
        name: String,
        /// The file that would hold it.
        path: PathBuf,
        /// The clusters there are.
        known: Vec<String>,
    },
    /// The file is about another cluster than the one asked for.
    #[error("--cluster {asked} was given, but the configuration ({place}) is of cluster {found}")]
    OtherCluster {
        /// What the command line says.
        asked: String,
        /// What the configuration says.
        found: String,
        /// Where.
        place: String,
    },
    /// A secret could not be fetched.
    #[error("cannot get {key}: {reason}")]
    Secret {
        /// The dotted key.
        key: String,
        /// Why.
        reason: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Unreadable { path, source } if source.kind() == std::io::ErrorKind::NotFound => {
                format!("write {}, or choose another with --config", path.display())
            }
            Self::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::InvalidData => {
                "a configuration is text in UTF-8; docs/configuration.md shows a complete file".to_owned()
            }
            Self::Unreadable { path, source } if source.kind() == std::io::ErrorKind::IsADirectory => {
                format!("name a file: {}/NAME.toml", path.display())
            }
            Self::Unreadable { path, .. } => {
                format!(
                    "run as the user who owns {}, usually postgres, or choose another with --config",
                    path.display()
                )
            }
            Self::Syntax { .. } => "docs/configuration.md shows a complete file".to_owned(),
            Self::UnknownKey { nearest: Some(nearest), .. } => format!("did you mean {nearest}?"),
            Self::UnknownKey { nearest: None, .. } => "docs/configuration.md lists every option".to_owned(),
            Self::Secret { key, .. } if key.ends_with("_command") => {
                "run the command as the user that highwater runs as: it must print the secret, nothing else, and exit with 0"
                    .to_owned()
            }
            Self::Value { .. } | Self::Secret { .. } => return None,
            Self::SecretInTheOpen { instead, .. } => instead.clone(),
            Self::Missing { hint, .. } => hint.clone(),
            Self::SeveralClusters { .. } => "choose one with --cluster NAME".to_owned(),
            Self::NoConfiguration { directory } => format!(
                "write {}/NAME.toml, or give --config FILE; docs/configuration.md shows a complete one",
                directory.display()
            ),
            Self::NoSuchCluster { known, .. } if known.is_empty() => {
                "write that file, or give --config FILE; docs/configuration.md shows a complete one"
                    .to_owned()
            }
            Self::NoSuchCluster { known, .. } => format!("configured here: {}", known.join(", ")),
            Self::OtherCluster { .. } => "give the --config that belongs to this cluster".to_owned(),
        })
    }
}
