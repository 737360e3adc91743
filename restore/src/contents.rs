//! What lies in the directories that a restore fills over what is there: whether all of it is the cluster's to be removed.
//!
//! A link of the data directory says where `pg_wal` or a tablespace is, and not that nothing else is there. A disk that was given to the WAL
//! may hold the repository, another cluster or somebody's files beside it. So in a place of its own only such names are taken as
//! PostgreSQL gives in `pg_wal`; anything else there is a refusal before a byte is changed, and is left alone by
//! [`crate::rebuild`] should it come later. In a tablespace's directory it is the folder of the backup's version
//! (`TABLESPACE_VERSION_DIRECTORY`), and what lies beside it is not looked at. No two of the places may contain each other, nor a
//! repository, and no other filesystem may be mounted within one: it is somebody's decision that what is on it is apart.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use highwater_archive::durable::TEMP_PREFIX;
use highwater_pitr::segment::WalFile;

use crate::kept_wal;
use crate::places::{self, LOST_AND_FOUND, PLACE_MARKER, PlaceError};
use crate::tablespaces::TablespaceError;

/// What the kernel says of the filesystems that this process sees.
const MOUNTS: &str = "/proc/self/mountinfo";

/// Whether this entry of a place for `pg_wal` is the server's, to be removed with the rest.
pub fn is_of_wal(name: &[u8]) -> bool {
    let temporary = |prefix: &[u8]| name.starts_with(prefix);
    matches!(name, b"archive_status" | b"summaries" | b"RECOVERYXLOG" | b"RECOVERYHISTORY")
        || temporary(b"xlogtemp.")
        || temporary(TEMP_PREFIX.as_bytes())
        || std::str::from_utf8(name).is_ok_and(|name| name.parse::<WalFile>().is_ok())
}

/// Whether it is nobody's, the mark of this restore, or what one kept: it stays as it is.
pub fn is_apart(name: &[u8]) -> bool {
    [LOST_AND_FOUND, PLACE_MARKER, kept_wal::IN_PLACE_OF_WAL].iter().any(|apart| name == apart.as_bytes())
}

/// Whether a place for `pg_wal` holds nothing but WAL.
///
/// # Errors
/// [`PlaceError::Stranger`] naming what it holds, [`PlaceError::Unseen`].
pub fn check_wal(place: &Path) -> Result<(), PlaceError> {
    let failed = |source| PlaceError::Unseen { path: place.to_owned(), source };
    let entries = match std::fs::read_dir(place) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    let mut strangers = Vec::new();
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if !is_of_wal(name.as_bytes()) && !is_apart(name.as_bytes()) {
            strangers.push(name.to_string_lossy().into_owned());
        }
    }
    strangers.sort_unstable();
    match strangers.into_iter().next() {
        Some(found) => Err(PlaceError::Stranger { path: place.to_owned(), found }),
        None => Ok(()),
    }
}

/// Whether these entries of the data directory are no links: the server's user could lead root anywhere by them.
///
/// # Errors
/// [`PlaceError::Link`].
pub fn check_no_links(data_dir: &Path, names: &[&str]) -> Result<(), PlaceError> {
    let mut paths = names.iter().map(|name| data_dir.join(name));
    match paths.find(|path| path.is_symlink()) {
        Some(path) => Err(PlaceError::Link { path }),
        None => Ok(()),
    }
}

/// Whether a place that holds something belongs to one of these users: the server's own make the links that lead to it.
///
/// # Errors
/// [`PlaceError::NotTheServers`], [`PlaceError::Unseen`].
pub fn check_owner(place: &Path, users: &[u32]) -> Result<(), PlaceError> {
    let failed = |source| PlaceError::Unseen { path: place.to_owned(), source };
    let owner = match std::fs::metadata(place) {
        Ok(metadata) => metadata.uid(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if users.contains(&owner) || std::fs::read_dir(place).map_err(failed)?.next().is_none() {
        return Ok(());
    }
    Err(PlaceError::NotTheServers { path: place.to_owned(), owner })
}

/// Whether none of the directories contains another, also by another name. `read` are only read, and may contain each other.
///
/// # Errors
/// [`TablespaceError::Overlap`].
pub fn check_overlap<'p>(
    filled: impl IntoIterator<Item = &'p Path>,
    read: &[PathBuf],
) -> Result<(), TablespaceError> {
    let mut seen: Vec<&Path> = Vec::new();
    for place in filled {
        let others = seen.iter().copied().chain(read.iter().map(PathBuf::as_path));
        for other in others {
            if places::overlap(other, place) {
                let (first, second) = (place.display().to_string(), other.display().to_string());
                return Err(TablespaceError::Overlap { first, second });
            }
        }
        seen.push(place);
    }
    Ok(())
}

/// Whether no filesystem is mounted within `own` of the place, of which all is to be the cluster's; the place itself may be one.
///
/// # Errors
/// [`PlaceError::Mounted`], [`PlaceError::Unseen`].
pub fn check_mounts(place: &Path, own: &str) -> Result<(), PlaceError> {
    let mounts =
        std::fs::read(MOUNTS).map_err(|source| PlaceError::Unseen { path: MOUNTS.into(), source })?;
    let place = places::resolved(place);
    let own = place.join(own);
    match mounted(&mounts).find(|point| point.starts_with(&own) && *point != place) {
        Some(found) => Err(PlaceError::Mounted { path: place, found }),
        None => Ok(()),
    }
}

/// Where filesystems are mounted: the fifth field of each line, with blanks and backslashes in octal (`proc_pid_mountinfo(5)`).
fn mounted(mounts: &[u8]) -> impl Iterator<Item = PathBuf> {
    let points = mounts.split(|byte| *byte == b'\n').filter_map(|line| {
        let field = line.split(|byte| *byte == b' ').nth(4)?;
        Some(PathBuf::from(OsString::from_vec(unescaped(field))))
    });
    points.filter(|point| point.is_absolute())
}

fn unescaped(mut text: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(text.len());
    while let Some((first, rest)) = text.split_first() {
        match rest.split_at_checked(3) {
            Some((octal, behind))
                if *first == b'\\' && octal.iter().all(|digit| matches!(digit, b'0'..=b'7')) =>
            {
                let value = octal.iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
                plain.push(u8::try_from(value).unwrap_or(b'?'));
                text = behind;
            }
            _ => {
                plain.push(*first);
                text = rest;
            }
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use highwater_archive::durable;

    use super::*;

    #[test]
    fn what_postgresql_calls_its_wal_is_known() {
        for name in [
            "0000000100000000000000AB",
            "0000000100000000000000AB.partial",
            "0000000100000000000000AB.00000028.backup",
            "00000002.history",
            "archive_status",
            "summaries",
            "xlogtemp.4711",
            "RECOVERYXLOG",
            "RECOVERYHISTORY",
        ] {
            assert!(is_of_wal(name.as_bytes()), "{name}");
        }
        for name in
            ["highwater", "PG_17_202406281", "0000000100000000000000AB.gz", "base", ".ssh", "1.history"]
        {
            assert!(!is_of_wal(name.as_bytes()), "{name}");
        }
    }

    /// I7: a disk that was given to the WAL may hold other things beside it, such as the repository itself.
    #[test]
    fn a_place_of_wal_with_something_else_is_refused_by_name() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(check_wal(&scratch.path().join("absent")).is_ok());
        for name in ["archive_status", "lost+found", "highwater"] {
            std::fs::create_dir(scratch.path().join(name)).unwrap();
        }
        durable::replace(&scratch.path().join("000000010000000000000001"), &["x"]).unwrap();
        durable::replace(&scratch.path().join(PLACE_MARKER), &["x"]).unwrap();
        let refused = check_wal(scratch.path()).unwrap_err();
        assert!(matches!(&refused, PlaceError::Stranger { found, .. } if found == "highwater"), "{refused}");
        assert!(refused.hint().is_some());
        std::fs::remove_dir(scratch.path().join("highwater")).unwrap();
        check_wal(scratch.path()).unwrap();
    }

    #[test]
    fn places_lie_apart_from_each_other_and_from_repositories() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("fast/ts")).unwrap();
        std::os::unix::fs::symlink(at("fast"), at("link")).unwrap();
        let check = |filled: &[&str], read: &str| {
            let filled: Vec<PathBuf> = filled.iter().map(|name| at(name)).collect();
            check_overlap(filled.iter().map(PathBuf::as_path), &[at(read)])
        };
        assert!(check(&["data", "fast", "other"], "repository").is_ok());
        for (filled, read) in [
            (["fast", "fast/ts"], "repository"),
            (["link/ts", "fast"], "repository"),
            (["fast", "link"], "repository"),
            (["data", "fast"], "link/repository"),
            (["data", "fast/ts"], "fast"),
        ] {
            assert!(
                matches!(check(&filled, read), Err(TablespaceError::Overlap { .. })),
                "{filled:?} {read}"
            );
        }
    }

    /// The server's user makes the links, and root follows them.
    #[test]
    fn a_link_leads_nowhere_that_is_not_the_servers() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::create_dir_all(at("etc/ssh")).unwrap();
        let own = std::fs::metadata(at("etc")).unwrap().uid();
        check_owner(&at("etc"), &[own]).unwrap();
        check_owner(&at("absent"), &[own + 1]).unwrap();
        check_owner(&at("etc/ssh"), &[own + 1]).unwrap();
        let refused = check_owner(&at("etc"), &[own + 1]).unwrap_err();
        assert!(matches!(refused, PlaceError::NotTheServers { .. }) && refused.hint().is_some(), "{refused}");
        check_no_links(scratch.path(), &["etc", "absent"]).unwrap();
        std::os::unix::fs::symlink("/nowhere", at("global")).unwrap();
        let refused = check_no_links(scratch.path(), &["etc", "global"]).unwrap_err();
        assert!(matches!(refused, PlaceError::Link { path } if path == at("global")));
    }

    #[test]
    fn mount_points_are_read_as_the_kernel_writes_them() {
        let mounts = b"36 35 98:0 /mnt1 /mnt/with\\040blank rw,noatime - ext3 /dev/root rw\n\
                       37 36 0:5 / /a\\134b rw - proc proc rw\nrubbish\n";
        let points: Vec<PathBuf> = mounted(mounts).collect();
        assert_eq!(points, [PathBuf::from("/mnt/with blank"), PathBuf::from("/a\\b")]);
        // Whatever else is mounted on a host, this is.
        let refused = check_mounts(Path::new("/"), "").unwrap_err();
        assert!(matches!(refused, PlaceError::Mounted { .. }), "{refused}");
        check_mounts(Path::new("/proc"), "no such folder").unwrap();
        // A volume for the WAL alone is to be a link.
        let of_wal = PlaceError::Mounted { path: "/srv/pg".into(), found: "/srv/pg/pg_wal".into() };
        assert!(of_wal.hint().unwrap().contains("ln -s THAT_PLACE /srv/pg/pg_wal"));
    }
}
