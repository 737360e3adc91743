//! Whether every place is apart from the others and from repositories, and where something is in place, whether all that would be
//! removed is the cluster's: asked when the plan is made, and again before the first change.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::contents;
use crate::error::RestoreError;
use crate::filled::Places;
use crate::ownership::Account;
use crate::rebuild::OWN_DIRECTORY;
use crate::standing::Standing;

/// Looks at all places. `repositories` are those in directories of this host, `version_directory` is what is this cluster's in a tablespace's.
///
/// # Errors
/// [`RestoreError::Tablespace`], [`RestoreError::Place`].
pub(super) fn check(
    standing: &Standing,
    places: Places<'_>,
    repositories: &[PathBuf],
    owner: Option<&Account>,
    version_directory: &str,
) -> Result<(), RestoreError> {
    let emptied = standing.emptied().iter().map(PathBuf::as_path);
    contents::check_overlap(places.all().chain(emptied.clone()), repositories)?;
    if standing.is_nothing() {
        return Ok(());
    }
    contents::check_no_links(places.target_dir, &[OWN_DIRECTORY, "global"])?;
    let users: Vec<u32> = std::fs::metadata(places.target_dir)
        .map(|found| found.uid())
        .into_iter()
        .chain([owner.map_or_else(|| Account::current().uid, |owner| owner.uid)])
        .collect();
    let in_tablespaces = || places.tablespaces().map(|(_, place)| place).chain(emptied.clone());
    for place in places.wal_dir.into_iter().chain(in_tablespaces()) {
        contents::check_owner(place, &users)?;
    }
    if let Some(wal_dir) = places.wal_dir {
        contents::check_wal(wal_dir)?;
    }
    for directory in [Some(places.target_dir), places.wal_dir].into_iter().flatten() {
        contents::check_mounts(directory, "")?;
    }
    in_tablespaces().try_for_each(|place: &Path| Ok(contents::check_mounts(place, version_directory)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use highwater_archive::durable;
    use highwater_pitr::control::CONTROL_FILE_BYTES;

    use super::*;
    use crate::places::PlaceError;
    use crate::unfinished::CONTROL_FILE;

    /// It is asked again under the lock, of what stands there then: whatever came in between is refused.
    #[test]
    fn what_comes_meanwhile_is_refused_by_the_second_look() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        for directory in ["data/global", "wal/archive_status", "repository"] {
            std::fs::create_dir_all(at(directory)).unwrap();
        }
        symlink(at("wal"), at("data/pg_wal")).unwrap();
        let mut control = include_bytes!("../../../pitr/fixtures/control/17.bin").to_vec();
        control.resize(CONTROL_FILE_BYTES, 0);
        durable::replace(&at("data").join(CONTROL_FILE), &[&control]).unwrap();
        let standing = Standing::look(&at("data"), true).unwrap();
        let (data, wal) = (at("data"), at("wal"));
        let places = Places { target_dir: &data, wal_dir: Some(&wal), tablespaces: &[] };
        let check = || check(&standing, places, &[at("repository")], None, "PG_17_1");
        check().unwrap();
        std::fs::create_dir(at("wal/somebody's")).unwrap();
        let refused = check().unwrap_err();
        assert!(matches!(&refused, RestoreError::Place(PlaceError::Stranger { .. })), "{refused}");
        std::fs::remove_dir(at("wal/somebody's")).unwrap();
        symlink(at("repository"), at("data/highwater")).unwrap();
        let refused = check().unwrap_err();
        assert!(matches!(&refused, RestoreError::Place(PlaceError::Link { .. })), "{refused}");
    }
}
