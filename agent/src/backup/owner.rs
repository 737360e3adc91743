//! Names of the owner of the data directory.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use highwater_archive::manifest::Owner;

use super::error::BackupError;

/// Who owns the directory, and its mode bits. A number stands where `/etc/passwd` or `/etc/group` has no name.
pub fn of(directory: &Path) -> Result<(Owner, u32), BackupError> {
    let meta = std::fs::metadata(directory).map_err(|error| BackupError::unreadable(directory, error))?;
    let (uid, gid) = (meta.uid(), meta.gid());
    let owner = Owner { user: name("/etc/passwd", uid), group: name("/etc/group", gid), uid, gid };
    Ok((owner, meta.mode() & 0o7777))
}

/// The name in the first field of the line whose third field is the number.
fn name(table: &str, number: u32) -> String {
    let number = number.to_string();
    let text = std::fs::read_to_string(table).unwrap_or_default();
    let mut lines = text.lines().map(|line| line.split(':'));
    let found = lines.find_map(|mut fields| {
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    found.unwrap_or(number)
}
