//! What may be taken, and what is somebody's.

use std::os::unix::fs::symlink;

use highwater_archive::durable;

use super::*;

/// A data directory that was copied with its links leads into another cluster's tablespaces.
#[test]
fn what_another_server_uses_is_not_taken() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    for data in ["original", "copy"] {
        std::fs::create_dir_all(at(data).join("pg_tblspc")).unwrap();
        durable::replace(&at(data).join("PG_VERSION"), &["17\n"]).unwrap();
        symlink(at("space"), at(data).join("pg_tblspc/16384")).unwrap();
    }
    std::fs::create_dir(at("space")).unwrap();
    assert!(check_unused(&at("space"), &at("copy")).is_ok());
    let checked = |name: &str| {
        let mut process = server::pretend(name, &at("original"));
        let (other, own) = ("copy", "original");
        let answers = [other, own].map(|target| check_unused(&at("space"), &at(target)));
        process.kill().unwrap();
        process.wait().unwrap();
        answers
    };
    let [refused, own] = checked("postgres");
    let refused = refused.unwrap_err();
    // A shell that somebody left there serves nobody.
    assert!(checked("sh").iter().all(Result::is_ok));
    assert!(matches!(&refused, RestoreError::InUse { data_dir, .. } if data_dir.ends_with("original")));
    assert!(refused.is_refusal() && own.is_ok(), "{refused}");
}

/// What an unfinished restore did not name is not its own, wherever a link leads.
#[test]
fn of_an_unfinished_restore_a_link_proves_nothing() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    std::fs::create_dir_all(at("data/pg_tblspc")).unwrap();
    std::fs::create_dir(at("data/highwater")).unwrap();
    for (oid, name) in [(7, "named"), (8, "stranger")] {
        std::fs::create_dir(at(name)).unwrap();
        symlink(at(name), at("data/pg_tblspc").join(oid.to_string())).unwrap();
    }
    let begun =
        |in_place| unfinished::Begun { in_place, emptied: vec![at("named")], ..unfinished::Begun::sample() };
    for (in_place, owned) in [(false, false), (true, true)] {
        let record = Record::new(begun(in_place), jiff::Timestamp::UNIX_EPOCH).unwrap();
        let text = serde_json::to_vec(&record).unwrap();
        durable::replace(&at("data").join(crate::rebuild::INCOMPLETE_MARKER), &[text]).unwrap();
        for delta in [false, true] {
            let standing = Standing::look(&at("data"), delta).unwrap();
            assert_eq!(standing.owns(&at("named")), owned, "{in_place} {delta}");
            assert!(!standing.owns(&at("stranger")), "{in_place} {delta}");
        }
    }
}

/// What cannot be compared is not taken, and neither is what cannot be known to be a cluster.
#[test]
fn only_a_data_directory_is_brought_back_in_place() {
    let scratch = tempfile::tempdir().unwrap();
    let data = scratch.path().join("data");
    assert!(Standing::look(&data, true).unwrap().is_nothing());
    std::fs::create_dir_all(data.join("global")).unwrap();
    let file = scratch.path().join("file");
    durable::replace(&file, &["x"]).unwrap();
    for (target, words) in [(&data, "has no global/pg_control"), (&file, "Not a directory")] {
        let refused = Standing::look(target, true).unwrap_err();
        assert!(refused.is_refusal() && refused.to_string().contains(words), "{refused}");
    }
    durable::replace(&data.join(CONTROL_FILE), &["not one"]).unwrap();
    let refused = Standing::look(&data, true).unwrap_err();
    assert!(refused.is_refusal() && refused.to_string().contains("cannot be read"), "{refused}");
    assert!(matches!(Standing::look(&data, false), Err(RestoreError::Place(_))));
}

/// What waits to be archived is nowhere else.
#[test]
fn wal_that_waits_to_be_archived_is_kept() {
    let scratch = tempfile::tempdir().unwrap();
    assert!(check_archived(scratch.path()).is_ok());
    // Only what is absent is nothing: a disk that is not mounted is not.
    for to in ["absent", "empty"] {
        std::fs::create_dir_all(scratch.path().join("empty")).unwrap();
        symlink(to, scratch.path().join("pg_wal")).unwrap();
        let refused = check_archived(scratch.path()).unwrap_err();
        assert!(refused.is_refusal() && refused.to_string().contains("is that mounted?"), "{refused}");
        std::fs::remove_file(scratch.path().join("pg_wal")).unwrap();
    }
    durable::replace(&scratch.path().join("pg_wal"), &["not a directory"]).unwrap();
    assert!(matches!(check_archived(scratch.path()), Err(RestoreError::Io { .. })));
    std::fs::remove_file(scratch.path().join("pg_wal")).unwrap();
    let status = scratch.path().join(at_rest::ARCHIVE_STATUS);
    std::fs::create_dir_all(&status).unwrap();
    durable::replace(&status.join("000000010000000000000001.done"), &[""]).unwrap();
    assert!(check_archived(scratch.path()).is_ok());
    for segment in ["000000010000000000000003", "000000010000000000000002"] {
        durable::replace(&status.join(format!("{segment}.ready")), &[""]).unwrap();
    }
    let refused = check_archived(scratch.path()).unwrap_err();
    let words = "2 files from 000000010000000000000002 on";
    assert!(refused.is_refusal() && refused.to_string().contains(words), "{refused}");
}

/// Only what a server has stopped cleanly on is read as any program reads it: after all else a write may have failed that the page
/// cache still shows.
#[test]
fn what_was_not_stopped_cleanly_is_read_from_the_disk() {
    for (state, reading) in [
        (ClusterState::ShutDown, Reading::PageCache),
        (ClusterState::ShutDownInRecovery, Reading::Disk),
        (ClusterState::InProduction, Reading::Disk),
        (ClusterState::InCrashRecovery, Reading::Disk),
        (ClusterState::StartingUp, Reading::Disk),
    ] {
        assert_eq!(reading_of(Some(state)), reading, "{state:?}");
    }
    let scratch = tempfile::tempdir().unwrap();
    let mut control = include_bytes!("../../../pitr/fixtures/control/17.bin").to_vec();
    control.resize(highwater_pitr::control::CONTROL_FILE_BYTES, 0);
    std::fs::create_dir(scratch.path().join("global")).unwrap();
    durable::replace(&scratch.path().join(CONTROL_FILE), &[&control]).unwrap();
    let standing = Standing::look(scratch.path(), true).unwrap();
    assert_eq!(standing.in_place().unwrap().reading, Reading::PageCache);
}
