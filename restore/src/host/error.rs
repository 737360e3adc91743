//! Why this host cannot run the cluster.

use std::path::PathBuf;

use highwater_archive::manifest::ManifestError;

use super::libraries::package_like;

/// The cluster would not start here.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// The server's program will not open it.
    #[error("the server in {} cannot open this cluster: {detail}", bin.display())]
    Incompatible {
        /// The directory of its programs.
        bin: PathBuf,
        /// What it said itself.
        detail: String,
    },
    /// A library without which the server does not start.
    #[error(
        "{setting} names {library}, which the server in {} does not have: it would not start",
        bin.display()
    )]
    PreloadMissing {
        /// The setting that names it.
        setting: String,
        /// The library.
        library: String,
        /// The directory of the server's programs.
        bin: PathBuf,
    },
    /// A setting that this host cannot give the server.
    #[error("the server in {} would not start with the settings of this cluster: {detail}", bin.display())]
    SettingRefused {
        /// The directory of its programs.
        bin: PathBuf,
        /// What it said itself.
        detail: String,
    },
    /// Nobody could connect to the database through which the server is watched.
    #[error("locale {locale} is not on this host: nobody could connect to database postgres")]
    LocaleMissing {
        /// The locale.
        locale: String,
    },
    /// The relation map of the backup.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

impl HostError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Incompatible { .. } => Some(
                "name the programs of a server that was built like the original's with --pg-bin DIRECTORY; \
                 to bring the files here for another host, add --elsewhere"
                    .into(),
            ),
            Self::PreloadMissing { library, setting, .. } => Some(format!(
                "install {} for this server; or restore without --start, take it out of {setting} at the end of \
                 postgresql.auto.conf in the copy, and start it with the command that is printed",
                package_like(library)
            )),
            Self::SettingRefused { .. } => Some(
                "make the locale (Debian and Ubuntu: locale-gen; Fedora: a glibc-langpack) or install the time zones (tzdata); or restore \
                 without --start and correct it at the end of postgresql.auto.conf in the copy"
                    .into(),
            ),
            Self::LocaleMissing { .. } => Some(
                "make it (Debian and Ubuntu: locale-gen; Fedora: the glibc-langpack of its language), or restore without --start"
                    .into(),
            ),
            Self::Manifest(error) => error.hint(),
        }
    }

    /// Whether it is the host that was refused, and not the archive that failed.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Incompatible { .. }
            | Self::PreloadMissing { .. }
            | Self::SettingRefused { .. }
            | Self::LocaleMissing { .. } => true,
            Self::Manifest(_) => false,
        }
    }
}
