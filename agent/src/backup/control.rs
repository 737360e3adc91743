//! `global/pg_control`, read whole.
//!
//! PostgreSQL rewrites it in place, so a reader can catch half of it; its CRC tells, and it is read again, as `get_controlfile`
//! does (`common/controldata_utils.c`: up to ten times, 10 ms apart).

use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use highwater_archive::manifest::ControlCopy;
use highwater_pitr::control::{CONTROL_FILE_BYTES, ControlFile, invalidate_checkpoint};

use super::error::BackupError;

const ATTEMPTS: usize = 10;
const PAUSE: Duration = Duration::from_millis(10);

/// The file as it was read, and what it says.
#[derive(Clone, Debug)]
pub struct ControlRead {
    /// What it says.
    pub control: ControlFile,
    bytes: Vec<u8>,
    mode: u32,
}

/// Reads `global/pg_control` below `data_dir`.
pub fn read(data_dir: &Path) -> Result<ControlRead, BackupError> {
    let path = data_dir.join("global/pg_control");
    let mut problem = String::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            std::thread::sleep(PAUSE);
        }
        let unreadable = |error| BackupError::unreadable(&path, error);
        let mut file = std::fs::File::open(&path).map_err(unreadable)?;
        let mut bytes = Vec::with_capacity(CONTROL_FILE_BYTES);
        file.by_ref().take(CONTROL_FILE_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        match ControlFile::parse(&bytes) {
            Ok(control) => {
                let mode = file.metadata().map_err(unreadable)?.mode() & 0o7777;
                return Ok(ControlRead { control, bytes, mode });
            }
            Err(error) => problem = error.to_string(),
        }
    }
    Err(BackupError::Control { path, problem })
}

impl ControlRead {
    /// The copy for the manifest, of no use without a backup_label.
    pub fn into_copy(self, data_dir: &Path) -> Result<ControlCopy, BackupError> {
        let ControlRead { control, mut bytes, mode } = self;
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
}
