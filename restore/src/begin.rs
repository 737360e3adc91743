//! The first change: what is at the target is marked as this restore's, and is no cluster any more.

use crate::error::RestoreError;
use crate::preflight::{Preflight, Request};
use crate::server;
use crate::standing::Found;
use crate::unfinished::{self, Begun, Claim, Record};

/// Begins: from here on the target is no cluster, until [`crate::finish`] has made it one.
///
/// # Errors
/// [`RestoreError::Running`], [`RestoreError::AtWork`]; [`RestoreError::Unfinished`] where something was changed.
pub fn begin(preflight: &Preflight, request: &Request, now: jiff::Timestamp) -> Result<Claim, RestoreError> {
    let Preflight { standing, manifest, lineage, .. } = preflight;
    // It was looked at, but that is a while ago.
    if server::is_running(&request.target_dir) {
        return Err(RestoreError::Running { path: request.target_dir.clone() });
    }
    let begun = Begun {
        repository: lineage.repository().info().repository_id.to_string(),
        lineage: lineage.id().to_string(),
        backup: manifest.backup.to_string(),
        system_identifier: manifest.postgresql.system_identifier,
        target: request.target.to_string(),
        in_place: matches!(standing.found(), Found::Cluster),
        wal_dir: preflight.wal_dir.clone(),
        emptied: standing.emptied().to_vec(),
        config_to: request.config_to.clone(),
    };
    let new = Record::new(begun, &preflight.tablespaces, now)?;
    let (record, goes_on) = match standing.found() {
        Found::Nothing | Found::Cluster => (new, false),
        Found::Unfinished(old) => (old.as_ref().clone().continued(new), true),
    };
    unfinished::begin(&request.target_dir, record, goes_on, preflight.owner.as_ref()).map_err(|error| {
        match error {
            RestoreError::AtWork { .. } => error,
            error => preflight.unfinished(request, error),
        }
    })
}
