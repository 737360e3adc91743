//! What must hold before a backup begins (I20).
//!
//! Everything here is found out without writing to the repository, so a backup that is refused leaves nothing behind.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use highwater_archive::lineage::Lineage;
use highwater_pitr::control::ControlFile;

use super::error::BackupError;
use crate::pg::Session;
use crate::pg::settings::Settings;

/// The only size of data and WAL pages that is known (PostgreSQL's default; others need a build of one's own).
const PAGE_BYTES: u32 = 8192;

/// Refuses a server that no backup can be taken from, or that is not the one of this lineage.
pub fn server(settings: &Settings, session: &Session, lineage: &Lineage) -> Result<(), BackupError> {
    let record = lineage.record();
    if settings.in_recovery {
        return refuse(
            "the server is a standby, and backups are taken from the primary",
            "run the backup on the primary's host",
        );
    }
    if settings.system_identifier != record.system_identifier {
        return refuse(
            &format!(
                "the server's system identifier is {}, and this lineage is of {}",
                settings.system_identifier, record.system_identifier
            ),
            "cluster.connection leads to another cluster; a re-initialised or upgraded one begins a lineage of its own with \
             `highwater init`",
        );
    }
    if session.major().number() != u32::from(record.pg_major) {
        return refuse(
            &format!(
                "the server is PostgreSQL {}, and this lineage is of {}",
                session.major(),
                record.pg_major
            ),
            "an upgraded cluster begins a lineage of its own with `highwater init`",
        );
    }
    if !settings.is_on("fsync") {
        return refuse(
            "fsync is off: a crash of the host could damage what was copied in ways WAL does not repair",
            "set fsync = on in postgresql.conf and reload",
        );
    }
    if settings.text("wal_level") == "minimal" {
        return refuse(
            "wal_level is minimal: WAL lacks what a restore needs",
            "set wal_level = replica in postgresql.conf and restart the server",
        );
    }
    if settings.text("archive_mode") == "off" {
        return refuse(
            "archive_mode is off: no WAL reaches the repository, and without it a backup cannot be restored",
            "set archive_mode = on and archive_command as `highwater check` prints it, and restart the server",
        );
    }
    if settings.segment_size != record.wal_segment_bytes {
        return refuse(
            &format!(
                "the server's WAL segments are {} bytes long, and this lineage's are {}",
                settings.segment_size.bytes(),
                record.wal_segment_bytes.bytes()
            ),
            "a cluster whose wal_segment_size was changed begins a lineage of its own with `highwater init`",
        );
    }
    Ok(())
}

/// Refuses a data directory that is not the server's, or of a build that is not known.
pub fn data_directory(
    data_dir: &Path,
    control: &ControlFile,
    settings: &Settings,
    extent_bytes: u32,
) -> Result<(), BackupError> {
    if control.system_identifier != settings.system_identifier {
        return refuse(
            &format!("{} is the data directory of another cluster than the server's", data_dir.display()),
            "set cluster.data_dir to what `SHOW data_directory` prints",
        );
    }
    // Both names may be right and differ, as in a container; but where both exist they must be one directory.
    if let Some(named) = &settings.data_directory
        && let (Ok(ours), Ok(theirs)) = (std::fs::metadata(data_dir), std::fs::metadata(named))
        && (ours.dev(), ours.ino()) != (theirs.dev(), theirs.ino())
    {
        return refuse(
            &format!("the server's data directory is {}, not {}", named.display(), data_dir.display()),
            "set cluster.data_dir to what `SHOW data_directory` prints",
        );
    }
    if control.block_size != PAGE_BYTES || control.wal_block_size != PAGE_BYTES {
        return refuse(
            &format!(
                "the server was built with pages of {} bytes and WAL pages of {}; only {PAGE_BYTES} is supported",
                control.block_size, control.wal_block_size
            ),
            "there is no setting for this; it was chosen when PostgreSQL was compiled",
        );
    }
    if !extent_bytes.is_multiple_of(PAGE_BYTES) {
        return refuse(
            &format!("the repository's extents of {extent_bytes} bytes are no multiple of a page"),
            "the repository was created with a wrong extent_bytes; create another",
        );
    }
    Ok(())
}

fn refuse(problem: &str, hint: &str) -> Result<(), BackupError> {
    Err(BackupError::Refused { problem: problem.to_owned(), hint: hint.to_owned() })
}
