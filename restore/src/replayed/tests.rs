//! Paths that replay needs, on a host where they are free, taken, or out of reach.

#![allow(clippy::disallowed_methods, reason = "tests lay out directories as a host may have them")]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use super::*;

fn made(oid: u32, path: &Path) -> ReplayedTablespace {
    let path = path.as_os_str().as_bytes().to_vec();
    ReplayedTablespace { oid, path, lsn: Lsn::new(0x0500_0100), dropped: None }
}

fn placed(oid: u32, original: &Path, directory: &Path) -> Placed {
    Placed { oid, original: original.display().to_string(), directory: directory.to_owned() }
}

fn look(
    made: &[ReplayedTablespace],
    directories: &[&Path],
    placed: &[Placed],
) -> Result<Vec<Found>, ReplayedError> {
    let examined = examine(made, Destinations { directories, placed, emptied: &[], owner: None })?;
    Ok(examined.into_iter().map(|replayed| replayed.found).collect())
}

/// A path that is free is made, and only then; one that is taken is refused and not touched.
#[test]
fn a_free_path_is_made_and_a_taken_one_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("not/there/yet");
    let wanted = [made(16400, &path), made(16401, Path::new(""))];
    let found =
        examine(&wanted, Destinations { directories: &[], placed: &[], emptied: &[], owner: None }).unwrap();
    assert_eq!((found.len(), found[0].found), (1, Found::Absent));
    assert!(!path.exists());
    found[0].make(None).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(look(&wanted, &[], &[]).unwrap(), [Found::Empty]);
    fs::create_dir(path.join(LOST_AND_FOUND)).unwrap();
    assert_eq!(look(&wanted, &[], &[]).unwrap(), [Found::Empty]);

    // Another cluster takes it between the look and the making, or had it all along.
    fs::create_dir(path.join("PG_17_202406281")).unwrap();
    for error in [found[0].make(None).unwrap_err(), look(&wanted, &[], &[]).unwrap_err()] {
        assert!(matches!(error, ReplayedError::InUse { .. }), "{error}");
        for words in ["16400", "not/there/yet", "0/5000100", "PG_17_202406281"] {
            assert!(error.to_string().contains(words), "{words}: {error}");
        }
        assert!(error.hint().unwrap().contains("--to-lsn 0/5000100 --before"));
    }
    assert!(path.join("PG_17_202406281").exists());
}

/// The path comes from the WAL: an empty directory of somebody else's at it is not given away, neither at first nor at last.
#[test]
fn a_directory_of_somebody_else_is_not_taken() {
    use std::os::unix::fs::chown;
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().join("theirs");
    fs::create_dir(&path).unwrap();
    let me = Account::current();
    let another = Account { uid: 65_534, gid: 65_534, name: "nobody".into() };
    let wanted = [made(16400, &path)];
    let owned = |owner| examine(&wanted, Destinations { directories: &[], placed: &[], emptied: &[], owner });
    let error = owned(Some(&another)).unwrap_err();
    assert!(error.to_string().contains(&format!("belongs to user {}", me.name)), "{error}");
    assert!(error.hint().unwrap().contains("chown"));
    let mine = owned(None).unwrap();
    assert_eq!(mine[0].found, Found::Empty);
    assert!(matches!(mine[0].make(Some(&another)), Err(ReplayedError::Unusable { .. })));
    assert_eq!(fs::metadata(&path).unwrap().uid(), me.uid);
    mine[0].make(None).unwrap();
    if me.uid == 0 {
        chown(&path, Some(another.uid), Some(another.gid)).unwrap();
        assert!(matches!(owned(None), Err(ReplayedError::Unusable { .. })));
        // Its own, and yet out of its reach.
        let open_to_others =
            |mode| fs::set_permissions(scratch.path(), fs::Permissions::from_mode(mode)).unwrap();
        open_to_others(0o700);
        let error = owned(Some(&another)).unwrap_err();
        assert!(error.to_string().contains("user nobody, who runs the server, cannot enter"), "{error}");
        open_to_others(0o711);
        owned(Some(&another)).unwrap()[0].make(Some(&another)).unwrap();
    }
}

/// Root makes no directory for the server's user where the WAL alone asks for it, as below `/etc`.
#[test]
fn root_makes_nothing_that_only_the_wal_asks_for() {
    let scratch = tempfile::tempdir().unwrap();
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = scratch.path().join("systemd/x.service.d");
    let another = Account { uid: 65_534, gid: 65_534, name: "nobody".into() };
    let wanted = [made(16400, &path)];
    let look = |owner| examine(&wanted, Destinations { directories: &[], placed: &[], emptied: &[], owner });
    let error = look(Some(&another)).unwrap_err();
    assert!(matches!(error, ReplayedError::Unasked { .. } | ReplayedError::Unusable { .. }), "{error}");
    // The server's own user makes what it may make.
    let absent = look(None).unwrap();
    assert_eq!(absent[0].found, Found::Absent);
    let refused = absent[0].make(Some(&another)).unwrap_err();
    let hint = refused.hint().unwrap();
    assert!(hint.contains("install -d -o nobody") && hint.contains("--to-lsn 0/5000100 --before"), "{hint}");
    assert!(!scratch.path().join("systemd").exists());
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(scratch.path(), Some(another.uid), Some(another.gid)).unwrap();
        look(Some(&another)).unwrap()[0].make(Some(&another)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().uid(), another.uid);
    }
}

#[test]
fn a_path_that_cannot_be_made_is_refused() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("file");
    fs::write(&file, b"x").unwrap();
    let link = scratch.path().join("link");
    std::os::unix::fs::symlink(scratch.path().join("nowhere"), &link).unwrap();
    for path in [&file, &file.join("below"), &link, &link.join("below")] {
        let error = look(&[made(1, path)], &[], &[]).unwrap_err();
        assert!(matches!(error, ReplayedError::Unusable { .. }), "{error}");
        assert!(error.hint().unwrap().contains(&path.display().to_string()));
    }
    if !rustix::process::geteuid().is_root() {
        let closed = scratch.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o500)).unwrap();
        let error = look(&[made(1, &closed.join("new"))], &[], &[]).unwrap_err();
        assert!(error.to_string().contains("nothing can be written into"), "{error}");
    } else {
        // Root can make it, and the server's user could not reach it.
        let closed = scratch.path().join("closed");
        fs::create_dir(&closed).unwrap();
        fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
        let nobody = Account { uid: 65_534, gid: 65_534, name: "nobody".into() };
        let destinations = Destinations { directories: &[], placed: &[], emptied: &[], owner: Some(&nobody) };
        let error = examine(&[made(1, &closed.join("new"))], destinations).unwrap_err();
        assert!(error.to_string().contains("user nobody, who runs the server, cannot enter"), "{error}");
    }
}

/// Nothing of the restore may lie in the way, by whatever name it goes.
#[test]
fn another_directory_of_the_restore_is_no_place_for_it() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, link) = (scratch.path().join("data"), scratch.path().join("link"));
    fs::create_dir(&data).unwrap();
    std::os::unix::fs::symlink(&data, &link).unwrap();
    for (path, other) in
        [(data.join("ts"), &data), (link.join("ts"), &data), (data.clone(), &data.join("wal"))]
    {
        let error = look(&[made(1, &path)], &[other], &[]).unwrap_err();
        assert!(matches!(error, ReplayedError::Overlap { .. }), "{error}");
    }
    let (original, mapped) = (scratch.path().join("a"), scratch.path().join("b"));
    let placed = [placed(16384, &original, &mapped)];
    for path in [mapped.clone(), mapped.join("below")] {
        let error = look(&[made(16400, &path)], &[&data], &placed).unwrap_err();
        assert!(matches!(error, ReplayedError::Overlap { .. }), "{error}");
    }
    // The path that the backup's own left to be dropped by the original, and taken again, is free here.
    assert_eq!(look(&[made(16400, &original)], &[&data], &placed).unwrap(), [Found::Absent]);
}

/// A tablespace of the backup that replay makes again stays where it was, or the restore is refused.
#[test]
fn replay_leads_a_tablespace_back_to_its_original_path() {
    let scratch = tempfile::tempdir().unwrap();
    let (original, mapped) = (scratch.path().join("a"), scratch.path().join("b"));
    let there = [made(16384, &original)];
    assert_eq!(look(&there, &[], &[placed(16384, &original, &original)]).unwrap(), [Found::Restored]);
    // Dropped, and another one made in its place: the directory is this restore's own.
    let again = [made(16400, &original)];
    assert_eq!(look(&again, &[], &[placed(16384, &original, &original)]).unwrap(), [Found::Restored]);
    let error = look(&there, &[], &[placed(16384, &original, &mapped)]).unwrap_err();
    assert!(matches!(error, ReplayedError::LedBack { .. }), "{error}");
    assert!(error.hint().unwrap().contains("--backup"));
}

#[test]
fn a_mapping_of_what_replay_makes_is_explained() {
    let unknown = |from: &str| TablespaceError::Unknown { from: from.to_owned(), known: "none".to_owned() };
    let made = [made(16400, Path::new("/srv/new"))];
    for from in ["16400", "/srv/new"] {
        let error = explain(unknown(from), &made).unwrap_err();
        assert!(error.to_string().contains("cannot be mapped"), "{error}");
    }
    assert!(matches!(explain(unknown("other"), &made), Ok(TablespaceError::Unknown { .. })));
}
