//! What a data directory says about its cluster, whether or not a server runs in it.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_pitr::control::{CONTROL_FILE_BYTES, ControlError, ControlFile};
use highwater_pitr::wal::PgMajor;

/// PostgreSQL's own tools read a torn `pg_control` again this often (`get_controlfile` in `common/controldata_utils.c`).
const ATTEMPTS: u32 = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(10);

/// The data directory is not one, or not one that we know.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// `pg_control` cannot be read.
    #[error("{data_dir} is not a data directory that can be read: {file}: {source}", data_dir = data_dir.display())]
    Unreadable {
        /// The directory.
        data_dir: PathBuf,
        /// The file in it.
        file: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// `pg_control` is damaged, or of a server that is not known.
    #[error("{data_dir}/global/pg_control: {source}", data_dir = data_dir.display())]
    Control {
        /// The directory.
        data_dir: PathBuf,
        /// What is wrong.
        source: ControlError,
    },
    /// Two files of it are of different versions.
    #[error("{data_dir} is of PostgreSQL {control} by its pg_control, and of {version} by its PG_VERSION", data_dir = data_dir.display())]
    Mixed {
        /// The directory.
        data_dir: PathBuf,
        /// What `pg_control` is of.
        control: PgMajor,
        /// What `PG_VERSION` says.
        version: String,
    },
    /// A version that is not supported.
    #[error("{data_dir} is of a PostgreSQL that is not supported (catalog version {catalog_version})", data_dir = data_dir.display())]
    Version {
        /// The directory.
        data_dir: PathBuf,
        /// What `pg_control` says.
        catalog_version: u32,
    },
}

impl DataDirError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unreadable { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
                Some("run as the owner of the data directory, usually postgres".to_owned())
            }
            Self::Unreadable { .. } => {
                Some("cluster.data_dir must be the directory that holds PG_VERSION and base".to_owned())
            }
            Self::Control { source, .. } => source.hint(),
            Self::Mixed { .. } => Some(
                "no server starts there: it was put together from two data directories, or an upgrade did not come to its end".to_owned(),
            ),
            Self::Version { .. } => Some("14, 15, 16, 17 and 18 are supported".to_owned()),
        }
    }
}

/// `global/pg_control` as it was read, and what it says.
#[derive(Clone, Debug)]
pub struct ControlRead {
    /// What it says.
    pub control: ControlFile,
    /// The file.
    pub bytes: Vec<u8>,
    /// Its mode bits.
    pub mode: u32,
}

/// What `global/pg_control` says.
///
/// # Errors
///
/// [`DataDirError`].
pub fn read_control(data_dir: &Path) -> Result<ControlFile, DataDirError> {
    Ok(read_control_file(data_dir)?.control)
}

/// Reads `global/pg_control`, again where a running server was just writing it: it does so in place, and the CRC tells.
///
/// # Errors
///
/// [`DataDirError`].
pub fn read_control_file(data_dir: &Path) -> Result<ControlRead, DataDirError> {
    let path = data_dir.join("global/pg_control");
    let read = || -> std::io::Result<(Vec<u8>, u32)> {
        let mut file = std::fs::File::open(&path)?;
        let mode = file.metadata()?.mode() & 0o7777;
        let mut bytes = Vec::with_capacity(CONTROL_FILE_BYTES);
        file.by_ref().take(CONTROL_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
        Ok((bytes, mode))
    };
    let mut attempt = 1;
    loop {
        let (bytes, mode) = read().map_err(|source| DataDirError::Unreadable {
            data_dir: data_dir.to_path_buf(),
            file: "global/pg_control",
            source,
        })?;
        match ControlFile::parse(&bytes) {
            Ok(control) => return Ok(ControlRead { control, bytes, mode }),
            Err(_) if attempt < ATTEMPTS => {
                attempt += 1;
                std::thread::sleep(BETWEEN_ATTEMPTS);
            }
            Err(source) => return Err(DataDirError::Control { data_dir: data_dir.to_path_buf(), source }),
        }
    }
}

/// The major version of the cluster.
///
/// # Errors
///
/// [`DataDirError::Version`], [`DataDirError::Mixed`].
pub fn major(data_dir: &Path, control: &ControlFile) -> Result<PgMajor, DataDirError> {
    let major = control.major().ok_or_else(|| DataDirError::Version {
        data_dir: data_dir.to_path_buf(),
        catalog_version: control.catalog_version,
    })?;
    let version = std::fs::read_to_string(data_dir.join("PG_VERSION")).unwrap_or_default();
    match version.trim() {
        "" => Ok(major),
        version if version == major.to_string() => Ok(major),
        version => Err(DataDirError::Mixed {
            data_dir: data_dir.to_path_buf(),
            control: major,
            version: version.to_owned(),
        }),
    }
}
