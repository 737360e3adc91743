//! Whether a data directory is at rest: no server has run in it, or is running, and it holds nothing that is nowhere else.

use std::io;
use std::path::Path;

use highwater_pitr::control::ControlFile;

use crate::error::RestoreError;
use crate::server;
use crate::unfinished::CONTROL_FILE;

/// Where a server keeps what says which of its WAL is archived.
pub const ARCHIVE_STATUS: &str = "pg_wal/archive_status";

/// The `pg_control` of a data directory and its bytes; `None` where there is none.
///
/// # Errors
/// It cannot be read, or is none.
pub fn read_control(data_dir: &Path) -> Result<Option<(ControlFile, Vec<u8>)>, RestoreError> {
    let path = data_dir.join(CONTROL_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(source) => return Err(RestoreError::Io { what: "read", path, source }),
    };
    match ControlFile::parse(&bytes) {
        Ok(control) => Ok(Some((control, bytes))),
        Err(error) => {
            let reason = format!("its {CONTROL_FILE} cannot be read: {error}");
            Err(RestoreError::NoCluster { path: data_dir.to_owned(), reason })
        }
    }
}

/// Whether there is no `pg_control` yet, or only the one that a restore ends with: a server has changed it from its first moment on.
///
/// # Errors
/// [`RestoreError::Started`].
pub fn check_never_started(data_dir: &Path, control: &[u8]) -> Result<(), RestoreError> {
    match read_control(data_dir)? {
        Some((found, bytes)) if bytes != control => {
            let system_identifier = found.system_identifier;
            Err(RestoreError::Started { path: data_dir.to_owned(), system_identifier })
        }
        _ => Ok(()),
    }
}

/// Whether it is a cluster that no server can be running, with nothing that is nowhere else.
///
/// # Errors
/// It is none, its server runs, or some of its WAL is not archived.
pub fn check_cluster_at_rest(data_dir: &Path) -> Result<(), RestoreError> {
    let path = data_dir.to_owned();
    if read_control(data_dir)?.is_none() {
        return Err(RestoreError::NoCluster { path, reason: format!("it has no {CONTROL_FILE}") });
    }
    check_none_unseen(data_dir)?;
    check_archived(data_dir)
}

/// Whether its pid file tells of no server that may run where it cannot be seen.
///
/// # Errors
/// [`RestoreError::Unseen`].
pub fn check_none_unseen(data_dir: &Path) -> Result<(), RestoreError> {
    match server::unseen(data_dir) {
        Some(pid) => Err(RestoreError::Unseen { path: data_dir.to_owned(), pid }),
        None => Ok(()),
    }
}

/// WAL that waits to be archived is in no archive, and would be removed with the rest.
///
/// # Errors
/// [`RestoreError::Unarchived`]; or its WAL is not there to be looked at.
pub fn check_archived(data_dir: &Path) -> Result<(), RestoreError> {
    let path = data_dir.join(ARCHIVE_STATUS);
    let failed = |source| RestoreError::Io { what: "look into", path: path.clone(), source };
    let entries = match std::fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return match std::fs::read_link(data_dir.join("pg_wal")) {
                Ok(to) => {
                    let reason =
                        format!("its pg_wal leads to {}, where no WAL is: is that mounted?", to.display());
                    Err(RestoreError::NoCluster { path: data_dir.to_owned(), reason })
                }
                Err(_) => Ok(()),
            };
        }
        Err(error) => return Err(failed(error)),
    };
    let mut waiting = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        waiting.extend(name.to_string_lossy().strip_suffix(".ready").map(str::to_owned));
    }
    waiting.sort_unstable();
    match waiting.as_slice() {
        [] => Ok(()),
        [first, ..] => Err(RestoreError::Unarchived {
            path: data_dir.to_owned(),
            count: waiting.len(),
            first: first.clone(),
        }),
    }
}
