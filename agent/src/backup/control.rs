//! `global/pg_control`, as a backup reads it and as it goes into the manifest.

use std::path::Path;

use highwater_archive::manifest::ControlCopy;
use highwater_pitr::control::invalidate_checkpoint;

use super::error::BackupError;
use crate::pg::DataDirError;
pub use crate::pg::data_dir::ControlRead;
use crate::pg::data_dir::read_control_file;

/// Reads `global/pg_control` below `data_dir`.
pub fn read(data_dir: &Path) -> Result<ControlRead, BackupError> {
    let path = data_dir.join("global/pg_control");
    read_control_file(data_dir).map_err(|error| match error {
        DataDirError::Unreadable { source, .. } => BackupError::unreadable(&path, source),
        DataDirError::Control { source, .. } => BackupError::Control { path, problem: source.to_string() },
        other @ (DataDirError::Version { .. } | DataDirError::Mixed { .. }) => {
            BackupError::Control { path, problem: other.to_string() }
        }
    })
}

/// The copy for the manifest, of no use without a backup_label.
pub fn into_copy(read: ControlRead, data_dir: &Path) -> Result<ControlCopy, BackupError> {
    let ControlRead { control, mut bytes, mode } = read;
    invalidate_checkpoint(&mut bytes).map_err(|error| BackupError::Control {
        path: data_dir.join("global/pg_control"),
        problem: error.to_string(),
    })?;
    Ok(ControlCopy {
        bytes,
        mode,
        checkpoint_lsn: control.checkpoint,
        redo_lsn: control.redo,
        timeline: control.timeline,
    })
}
