use std::fs::Permissions;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use super::*;

fn record(scratch: &Path) -> Record {
    let tablespaces = vec![RecordedTablespace { oid: 9, directory: scratch.join("ts") }];
    let begun = Begun { wal_dir: Some(scratch.join("wal")), tablespaces, ..Begun::sample() };
    Record::new(begun, Timestamp::UNIX_EPOCH).unwrap()
}

/// As it is begun where nothing else holds anything.
fn begin(data: &Path, record: Record, goes_on: bool) -> Result<Claim, RestoreError> {
    let owned = record.clone();
    take(data, None)?.mark(record, goes_on, &|place| owned.marks(place), None)?.unmake_cluster()
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// Every place says whose it is from the beginning to the end, a second restore is kept out, and nothing is left.
#[test]
fn a_restore_marks_its_places_and_keeps_others_out() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, record) = (scratch.path().join("data"), record(scratch.path()));
    assert_eq!(Record::read(&data).unwrap(), None);
    let claim = begin(&data, record.clone(), false).unwrap();
    assert!(is_at_work(&data).unwrap());
    assert_eq!(Record::read(&data).unwrap().as_ref(), Some(&record));
    assert!(record.marks(&scratch.path().join("wal")) && record.marks(&scratch.path().join("ts")));
    assert!(!record.marks(&data) && !self::record(scratch.path()).marks(&scratch.path().join("ts")));
    let again = begin(&data, record.clone(), true).unwrap_err();
    assert!(matches!(again, RestoreError::AtWork { .. }) && again.is_refusal());
    drop(claim);
    assert!(!is_at_work(&data).unwrap());
    // Another one that thought the directory was empty.
    assert!(matches!(begin(&data, self::record(scratch.path()), false), Err(RestoreError::AtWork { .. })));
    begin(&data, record.clone(), true).unwrap().end().unwrap();
    assert_eq!(Record::read(&data).unwrap(), None);
    for place in ["wal", "ts", "data/highwater"] {
        assert_eq!(std::fs::read_dir(scratch.path().join(place)).unwrap().count(), 0, "{place}");
    }
}

/// What makes a directory a cluster goes when the record is there, and not before.
#[test]
fn a_cluster_is_none_from_the_beginning_on() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, record) = (scratch.path().join("data"), record(scratch.path()));
    std::fs::create_dir_all(data.join("global")).unwrap();
    let control = data.join("global/pg_control");
    durable::replace(&control, &["control"]).unwrap();
    durable::replace(&scratch.path().join("wal"), &["in the way"]).unwrap();
    assert!(begin(&data, record.clone(), false).is_err());
    // Nothing was changed, so nothing is to be gone on with.
    assert!(control.exists() && Record::read(&data).unwrap().is_none());
    std::fs::remove_file(scratch.path().join("wal")).unwrap();
    begin(&data, record, false).unwrap();
    assert!(!control.exists());
}

/// Two restores into two directories cannot have the same place, whether the other one is at work, was cut off, or is none.
#[test]
fn a_place_is_one_restores() {
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    let (first, second) = (record(scratch.path()), record(scratch.path()));
    let claim = begin(&at("one"), first.clone(), false).unwrap();
    let refused = |words: &str| {
        let refused = begin(&at("two"), second.clone(), false).unwrap_err();
        assert!(refused.is_refusal() && refused.to_string().contains(words), "{refused}");
        assert_eq!(Record::read(&at("two")).unwrap(), None);
    };
    refused("another restore is at work");
    drop(claim);
    refused("is marked by another restore");
    assert!(first.marks(&at("wal")) && first.marks(&at("ts")));
    begin(&at("one"), first, true).unwrap().end().unwrap();
    // What has come since preflight looked.
    durable::replace(&at("ts/precious"), &["x"]).unwrap();
    refused("is not empty: it holds precious");
    assert_eq!((entries(&at("wal")), entries(&at("ts"))), (vec![], vec!["precious".to_owned()]));
    std::fs::remove_file(at("ts/precious")).unwrap();
    begin(&at("two"), second, false).unwrap();
}

/// Killed before anything was marked, a restore leaves what no command minds and the next one removes.
#[test]
fn what_is_cut_off_before_it_is_marked_does_not_count() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, record) = (scratch.path().join("data"), record(scratch.path()));
    let left = format!("{}host.1.00", durable::TEMP_PREFIX);
    for place in ["data/highwater", "wal", "ts"] {
        std::fs::create_dir_all(scratch.path().join(place)).unwrap();
        assert!(places::check_empty(Purpose::Target, &data).is_ok());
        durable::replace(&scratch.path().join(place).join(&left), &["half"]).unwrap();
        assert!(places::check_empty(Purpose::Wal, &scratch.path().join("wal")).is_ok());
    }
    assert!(places::check_empty(Purpose::Target, &data).is_ok());
    assert!(places::check_empty(Purpose::Wal, &data).is_err());
    let claim = begin(&data, record, false).unwrap();
    for place in ["data/highwater", "wal", "ts"] {
        let entries = entries(&scratch.path().join(place));
        assert!(entries.len() == 1 && entries[0].ends_with(".incomplete"), "{entries:?}");
    }
    claim.end().unwrap();
    durable::replace(&data.join("highwater/lineage.json"), &["{}"]).unwrap();
    assert!(places::check_empty(Purpose::Target, &data).is_err());
}

/// A server that came at the last moment has its `pg_control` again, as it was.
#[test]
fn what_made_it_a_cluster_is_put_back_for_a_server_that_runs() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, record) = (scratch.path().join("data"), record(scratch.path()));
    std::fs::create_dir_all(data.join("global")).unwrap();
    let control = data.join(CONTROL_FILE);
    durable::replace(&control, &["control"]).unwrap();
    std::fs::set_permissions(&control, Permissions::from_mode(0o640)).unwrap();
    let was = control.metadata().unwrap().ino();
    let mut server = server::pretend("postgres", &data);
    let refused = begin(&data, record.clone(), false);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(matches!(refused, Err(RestoreError::Running { .. })), "{refused:?}");
    assert_eq!(std::fs::read(&control).unwrap(), b"control");
    // It is the very file.
    assert_eq!(
        (control.metadata().unwrap().ino(), control.metadata().unwrap().mode() & 0o7777),
        (was, 0o640)
    );
    assert!(!data.join(CONTROL_ASIDE).exists());
    assert!(Record::read(&data).unwrap().is_none() && !record.marks(&scratch.path().join("ts")));
    begin(&data, record, false).unwrap();
    assert!(!control.exists());
}

/// Killed while `pg_control` is aside, there is no cluster, the file is whole, and the same command goes on.
#[test]
fn what_is_aside_is_whole_and_the_same_command_goes_on() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, record) = (scratch.path().join("data"), record(scratch.path()));
    std::fs::create_dir_all(data.join("global")).unwrap();
    let (control, aside) = (data.join(CONTROL_FILE), data.join(CONTROL_ASIDE));
    durable::replace(&control, &["control"]).unwrap();
    drop(begin(&data, record.clone(), false).unwrap());
    assert!(!control.exists() && std::fs::read(&aside).unwrap() == b"control");
    assert_eq!(Record::read(&data).unwrap().as_ref(), Some(&record));
    drop(begin(&data, record.clone(), true).unwrap());
    // Where a filesystem only links, it may be cut off with both names; or a person has put a copy back.
    durable::replace(&control, &["newer"]).unwrap();
    let claim = begin(&data, record, true).unwrap();
    assert!(!control.exists() && std::fs::read(&aside).unwrap() == b"newer");
    let paths: Vec<&Path> = claim.claimed().iter().map(Claimed::path).collect();
    assert_eq!(paths, [&data, &scratch.path().join("wal"), &scratch.path().join("ts")]);
}

#[test]
fn a_record_that_says_nothing_is_no_record() {
    let scratch = tempfile::tempdir().unwrap();
    std::fs::create_dir(scratch.path().join(OWN_DIRECTORY)).unwrap();
    for text in ["", "highwater restore has not finished here", "{\"format\":\"x\"}"] {
        durable::replace(&scratch.path().join(INCOMPLETE_MARKER), &[text]).unwrap();
        let refused = Record::read(scratch.path()).unwrap_err();
        assert!(matches!(refused, RestoreError::Incomplete { .. }) && refused.is_refusal(), "{text}");
    }
}
