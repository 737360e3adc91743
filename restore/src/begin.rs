//! The first change: what is at the target is marked as this restore's, and is no cluster any more.
//!
//! Preflight may have taken minutes, in which a volume was mounted there, `initdb` was run, or the same command came to its end. So
//! what it found is looked at again, before anything is made and once more under the lock, and each place when it is marked as this
//! restore's. `pg_control` goes only where a cluster or an unfinished restore was found, never where nothing was.

use std::path::Path;

use crate::error::RestoreError;
use crate::ownership::Account;
use crate::preflight::{Preflight, Request};
use crate::standing::{Found, Standing};
use crate::unfinished::{self, Begun, Claim, Record, RecordedTablespace, Taken};

/// Begins: from here on the target is no cluster, until [`crate::finish`] has made it one.
///
/// # Errors
/// [`RestoreError::Running`], [`RestoreError::AtWork`], and whatever else has come in the way since preflight;
/// [`RestoreError::Unfinished`] where something was changed.
pub fn begin(preflight: &Preflight, request: &Request, now: jiff::Timestamp) -> Result<Claim, RestoreError> {
    let Preflight { standing, manifest, lineage, .. } = preflight;
    let begun = Begun {
        repository: lineage.repository().info().repository_id.to_string(),
        lineage: lineage.id().to_string(),
        backup: manifest.backup.to_string(),
        system_identifier: manifest.postgresql.system_identifier,
        target: request.target.to_string(),
        in_place: matches!(standing.found(), Found::Cluster),
        wal_dir: preflight.wal_dir.clone(),
        tablespaces: preflight.tablespaces.iter().map(RecordedTablespace::from).collect(),
        emptied: standing.emptied().to_vec(),
        config_to: request.config_to.clone(),
    };
    let new = Record::new(begun, now)?;
    let look_again = || preflight.look_again(request);
    let begin = || begin_where(&request.target_dir, standing, new, preflight.owner.as_ref(), &look_again);
    begin().map_err(|error| match Record::read(&request.target_dir) {
        Ok(Some(_)) if !error.is_refusal() => preflight.unfinished(request, error),
        _ => error,
    })
}

fn begin_where(
    data_dir: &Path,
    standing: &Standing,
    new: Record,
    owner: Option<&Account>,
    look_again: &dyn Fn() -> Result<(), RestoreError>,
) -> Result<Claim, RestoreError> {
    look_again()?;
    let taken = unfinished::take(data_dir, owner)?;
    match look_again() {
        Ok(()) => begin_taken(taken, standing, new, owner),
        Err(error) => {
            taken.leave();
            Err(error)
        }
    }
}

fn begin_taken(
    taken: Taken,
    standing: &Standing,
    new: Record,
    owner: Option<&Account>,
) -> Result<Claim, RestoreError> {
    let record = match (standing.found(), standing.record()) {
        (Found::Unfinished(old), _) => old.as_ref().clone().continued(new),
        (_, Some(history)) => new.in_place_of(history),
        (_, None) => new,
    };
    let claim = taken.mark(record, standing.record().is_some(), &|place| standing.owns(place), owner)?;
    if standing.is_nothing() { Ok(claim) } else { claim.unmake_cluster() }
}

#[cfg(test)]
mod tests {
    use highwater_archive::durable;
    use highwater_pitr::control::{CONTROL_FILE_BYTES, ControlFile};
    use jiff::Timestamp;

    use super::*;
    use crate::unfinished::CONTROL_FILE;

    /// The zeros that follow are not stored.
    fn control() -> Vec<u8> {
        let mut bytes = include_bytes!("../../pitr/fixtures/control/17.bin").to_vec();
        bytes.resize(CONTROL_FILE_BYTES, 0);
        bytes
    }

    fn identifier() -> u64 {
        ControlFile::parse(&control()).unwrap().system_identifier
    }

    /// The same cluster, after a server has worked on it.
    fn lived() -> Vec<u8> {
        let mut bytes = control();
        // A byte that no check covers.
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    }

    fn put(data: &Path, control: &[u8]) {
        std::fs::create_dir_all(data.join("global")).unwrap();
        durable::replace(&data.join(CONTROL_FILE), &[control]).unwrap();
    }

    fn record(in_place: bool) -> Record {
        let begun = Begun { system_identifier: identifier(), in_place, ..Begun::sample() };
        Record::new(begun, Timestamp::UNIX_EPOCH).unwrap()
    }

    fn begin(data: &Path, standing: &Standing) -> Result<Claim, RestoreError> {
        let (new, identifier) = (record(matches!(standing.found(), Found::Cluster)), identifier());
        begin_where(data, standing, new, None, &|| standing.look_again(data, identifier, &control()))
    }

    /// A volume is mounted, `initdb` is run, or the same command comes to its end: what was not there is not taken.
    #[test]
    fn what_came_since_it_was_looked_at_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        for delta in [false, true] {
            let nothing = Standing::look(&data, delta).unwrap();
            put(&data, &control());
            let refused = begin(&data, &nothing).unwrap_err();
            assert!(matches!(refused, RestoreError::Place(_)), "{refused}");
            assert_eq!(std::fs::read(data.join(CONTROL_FILE)).unwrap(), control());
            assert!(!data.join("highwater").exists());
            std::fs::remove_dir_all(&data).unwrap();
        }
        // It comes between the looking and the lock.
        let nothing = Standing::look(&data, false).unwrap();
        let again = std::cell::Cell::new(false);
        let refused = begin_where(&data, &nothing, record(false), None, &|| {
            if again.replace(true) {
                put(&data, &control());
            }
            nothing.look_again(&data, identifier(), &control())
        });
        assert!(matches!(refused, Err(RestoreError::Place(_))), "{refused:?}");
        assert!(data.join(CONTROL_FILE).exists() && !data.join("highwater").exists());
        // Nothing but what was found is removed, also where nobody looks.
        begin_taken(unfinished::take(&data, None).unwrap(), &nothing, record(false), None).unwrap();
        assert!(data.join(CONTROL_FILE).exists());
    }

    /// Another attempt went on with it, came to its end, or a server has run since.
    #[test]
    fn an_unfinished_restore_is_the_one_that_was_seen() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        drop(begin(&data, &Standing::look(&data, false).unwrap()).unwrap());
        let seen = Standing::look(&data, false).unwrap();
        put(&data, &lived());
        assert!(matches!(begin(&data, &seen), Err(RestoreError::Started { .. })));
        put(&data, &control());
        drop(begin(&data, &seen).unwrap());
        // It says the same still, but for what the next attempt asks for.
        let seen = Standing::look(&data, false).unwrap();
        begin(&data, &seen).unwrap().end().unwrap();
        put(&data, &control());
        assert!(matches!(begin(&data, &seen), Err(RestoreError::AtWork { .. })));
        assert!(data.join(CONTROL_FILE).exists());
    }

    /// A record that was left behind says nothing of the cluster that is there: it must be of the backup, and its links count.
    #[test]
    fn a_cluster_is_believed_before_a_record() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        drop(begin(&data, &Standing::look(&data, false).unwrap()).unwrap());
        assert!(matches!(Standing::look(&data, true).unwrap().found(), Found::Unfinished(_)));
        put(&data, &lived());
        let standing = Standing::look(&data, true).unwrap();
        assert!(matches!(standing.found(), Found::Cluster) && standing.record().is_some());
        for delta in [false, true] {
            let standing = Standing::look(&data, delta).unwrap();
            let refused = standing.look_again(&data, identifier() + 1, &lived()).unwrap_err();
            assert!(matches!(refused, RestoreError::OtherCluster { .. }), "{refused}");
        }
        assert!(data.join(CONTROL_FILE).exists());
        let left = Record::read(&data).unwrap().unwrap();
        begin(&data, &standing).unwrap();
        let now = Record::read(&data).unwrap().unwrap();
        assert!(!data.join(CONTROL_FILE).exists() && now.restore.in_place && now.id == left.id);
    }

    /// The process of its pid file may run in another container, and WAL may wait by now.
    #[test]
    fn a_cluster_is_at_rest_until_it_is_taken() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path().join("data");
        put(&data, &control());
        let standing = Standing::look(&data, true).unwrap();
        let pid_file = data.join("postmaster.pid");
        durable::replace(&pid_file, &["999999999\n"]).unwrap();
        let refused = Standing::look(&data, true).unwrap_err();
        assert!(refused.is_refusal() && refused.hint().unwrap().contains("postmaster.pid"), "{refused}");
        assert!(matches!(begin(&data, &standing), Err(RestoreError::Unseen { .. })));
        std::fs::remove_file(pid_file).unwrap();
        std::fs::create_dir_all(data.join("pg_wal/archive_status")).unwrap();
        durable::replace(&data.join("pg_wal/archive_status/000000010000000000000001.ready"), &[""]).unwrap();
        assert!(matches!(begin(&data, &standing), Err(RestoreError::Unarchived { .. })));
        std::fs::remove_dir_all(data.join("pg_wal")).unwrap();
        // A server ran and ended: what it wrote was not looked at.
        put(&data, &lived());
        assert!(matches!(begin(&data, &standing), Err(RestoreError::Changed { .. })));
        assert!(data.join(CONTROL_FILE).exists() && Record::read(&data).unwrap().is_none());
    }
}
