//! Whether what a cluster or an unfinished restore has in other places is there.
//!
//! A host that was just booted may lack a volume, which is often why its server does not start. The empty directory that it is
//! mounted on then looks like a place to fill; and once the volume is mounted again, its old files would cover the new ones under
//! a `pg_control` that knows nothing of them.

use std::path::Path;

use crate::error::RestoreError;
use crate::filled::Places;
use crate::rebuild::OWN_DIRECTORY;
use crate::standing::{Found, Standing};
use crate::unfinished::{CONTROL_FILE, Record};

/// Looks for what must be in each place: a tablespace's folder, some WAL, or the mark of the restore that is gone on with.
///
/// # Errors
/// [`RestoreError::NotMounted`].
pub fn check(standing: &Standing, places: Places<'_>, version_directory: &str) -> Result<(), RestoreError> {
    let absent = |path: &Path, lacks: String| RestoreError::NotMounted { path: path.to_owned(), lacks };
    match standing.found() {
        Found::Nothing => Ok(()),
        Found::Cluster => {
            let mut tablespaces = places.tablespaces().map(|(_, place)| place);
            let lacking =
                tablespaces.find(|place| standing.owns(place) && !place.join(version_directory).is_dir());
            if let Some(place) = lacking {
                return Err(absent(place, format!("the cluster's {version_directory}")));
            }
            let wal = places.target_dir.join("pg_wal");
            if is_empty(&wal) { Err(absent(&wal, "any WAL".to_owned())) } else { Ok(()) }
        }
        // All places are marked before anything else is changed.
        Found::Unfinished(record) if has_begun(record, places.target_dir) => {
            match record.places().find(|(_, place)| !record.marks(place)) {
                Some((_, place)) => {
                    Err(absent(place, "the mark of the restore that has not finished".to_owned()))
                }
                None => Ok(()),
            }
        }
        Found::Unfinished(_) => Ok(()),
    }
}

/// Whether more was changed than the marks were made.
fn has_begun(record: &Record, target: &Path) -> bool {
    if record.restore.in_place {
        return !target.join(CONTROL_FILE).exists();
    }
    let mut entries = std::fs::read_dir(target).into_iter().flatten().flatten();
    entries.any(|entry| entry.file_name() != OWN_DIRECTORY)
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).map_or(true, |mut entries| entries.next().is_none())
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use highwater_archive::durable;
    use highwater_pitr::control::CONTROL_FILE_BYTES;

    use super::*;
    use crate::places::PLACE_MARKER;
    use crate::tablespaces::Placed;
    use crate::unfinished::Begun;

    /// A volume that is away is no empty place: neither a tablespace's, nor that of the WAL.
    #[test]
    fn what_is_not_mounted_is_not_filled() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for directory in ["data/global", "data/pg_tblspc", "data/pg_wal/archive_status", "space/PG_17_1"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        let mut control = include_bytes!("../../pitr/fixtures/control/17.bin").to_vec();
        control.resize(CONTROL_FILE_BYTES, 0);
        durable::replace(&at("data").join(CONTROL_FILE), &[&control]).unwrap();
        std::os::unix::fs::symlink(at("space"), at("data/pg_tblspc/7")).unwrap();
        let tablespaces = [Placed { oid: 7, original: "/o".into(), directory: at("space") }];
        let data = at("data");
        let places = Places { target_dir: &data, wal_dir: None, tablespaces: &tablespaces };
        let standing = Standing::look(&at("data"), true).unwrap();
        check(&standing, places, "PG_17_1").unwrap();
        std::fs::rename(at("space/PG_17_1"), at("away")).unwrap();
        let refused = check(&standing, places, "PG_17_1").unwrap_err();
        assert!(refused.is_refusal() && refused.to_string().contains("is that mounted?"), "{refused}");
        std::fs::rename(at("away"), at("space/PG_17_1")).unwrap();
        std::fs::remove_dir(at("data/pg_wal/archive_status")).unwrap();
        let refused = check(&standing, places, "PG_17_1").unwrap_err();
        assert!(refused.to_string().contains("pg_wal lacks any WAL"), "{refused}");
    }

    /// A restore that has begun has marked its places: one without its mark is another volume, or none.
    #[test]
    fn a_place_without_its_mark_is_not_gone_on_with() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        let begun = Begun { wal_dir: Some(at("wal")), ..Begun::sample() };
        let record = Record::new(begun, jiff::Timestamp::UNIX_EPOCH).unwrap();
        let (data, wal) = (at("data"), at("wal"));
        let claim =
            crate::unfinished::take(&data, None).unwrap().mark(record, false, &|_| false, None).unwrap();
        drop(claim);
        let places = Places { target_dir: &data, wal_dir: Some(&wal), tablespaces: &[] };
        let standing = Standing::look(&data, false).unwrap();
        std::fs::rename(wal.join(PLACE_MARKER), at("mark")).unwrap();
        check(&standing, places, "PG_17_1").unwrap();
        std::fs::create_dir(data.join("base")).unwrap();
        let refused = check(&standing, places, "PG_17_1").unwrap_err();
        assert!(refused.is_refusal() && refused.to_string().contains("lacks the mark"), "{refused}");
        std::fs::rename(at("mark"), wal.join(PLACE_MARKER)).unwrap();
        check(&standing, places, "PG_17_1").unwrap();
    }
}
