//! From a rebuilt data directory to one that starts, recovers to its target, and goes no further.
//!
//! The order is the safety: the directories that replay will need, configuration, the plan and recovery settings, the signal file, `tablespace_map` and
//! `backup_label`, and only then `pg_control`, without which no server starts. What marks an unfinished restore goes last.
//! Whatever breaks on the way leaves a directory that cannot be mistaken for a cluster.

use std::path::{Path, PathBuf};

use highwater_archive::durable::{self, DurableError};
use highwater_pitr::control::ControlFile;
use highwater_pitr::target::TargetAction;

use crate::below;
use crate::conf_file::{self, is_on, last_value};
use crate::error::RestoreError;
use crate::host::{self, Resorted, SCRIPT_FILE};
use crate::in_effect;
use crate::listening::Listening;
use crate::outside;
use crate::ownership::Account;
use crate::plan_file::{self, PLAN_FILE, PlanBounds, RepositoryToPlan};
use crate::preflight::{Preflight, Request};
use crate::rebuild::{Claimed, OWN_DIRECTORY};
use crate::settings::{self, Recovery, SIGNAL_FILES};
use crate::tablespaces;
use crate::unfinished::Claim;

/// The file our settings go into: PostgreSQL reads it after every other one.
const AUTO_CONF: &str = "postgresql.auto.conf";

/// A data directory that would start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finished {
    /// `postgresql.conf`, when it lies outside the data directory.
    pub config_file: Option<PathBuf>,
    /// Where its configuration makes it listen.
    pub listening: Listening,
    /// The command that ends the isolation of the copy; none with `--replace-production`.
    pub end_isolation: Option<String>,
    /// What a person should know: each a sentence.
    pub notes: Vec<String>,
}

/// Writes all that `rebuild` left out.
///
/// # Errors
/// [`RestoreError::Unfinished`]: the directory then does not start.
pub fn finish(
    mut claim: Claim,
    preflight: &Preflight,
    request: &Request,
    cluster: &highwater_archive::names::ClusterName,
    repositories: &[RepositoryToPlan<'_>],
    now: jiff::Timestamp,
) -> Result<Finished, RestoreError> {
    let finish = || -> Result<Finished, RestoreError> {
        let configuration = &preflight.configuration;
        // What comes next is written by name, and the rebuilding has taken its time.
        claim.claimed().iter().try_for_each(Claimed::look_again)?;
        configuration.check_entries()?;
        claim.configures(configuration.entries())?;
        let written = write(preflight, request, cluster, repositories, now);
        if let Err(RestoreError::ConfigExists { path }) = &written {
            claim.gives_up(path)?;
        }
        let finished = written?;
        claim.end()?;
        Ok(finished)
    };
    finish().map_err(|error| preflight.unfinished(request, error))
}

fn write(
    preflight: &Preflight,
    request: &Request,
    cluster: &highwater_archive::names::ClusterName,
    repositories: &[RepositoryToPlan<'_>],
    now: jiff::Timestamp,
) -> Result<Finished, RestoreError> {
    let Preflight { manifest, plan, owner, .. } = preflight;
    let (data_dir, owner) = (request.target_dir.as_path(), owner.as_ref());
    let control = ControlFile::parse(&manifest.control.bytes)?;
    for tablespace in &preflight.replayed {
        tablespace.make(owner)?;
    }

    let placed = outside::place(manifest, data_dir, &preflight.configuration, owner)?;
    let bounds = PlanBounds {
        cluster: cluster.clone(),
        wal_segment_bytes: plan.segment_size,
        backup: plan.backup.id.clone(),
        target: request.target.to_string(),
        ancestry: plan.ancestry.clone(),
        first_segment: plan.segment_name(plan.first_segment),
        end: (!request.standby).then(|| (plan.last_segment_name(), plan.stop.end)),
    };
    plan_file::write(data_dir, &bounds, repositories, owner, now)?;

    let original = Path::new(&manifest.data_directory);
    let main = placed.config_file.clone().unwrap_or_else(|| data_dir.join("postgresql.conf"));
    let mut in_effect = in_effect::read(&main);
    let mut lines: Vec<String> = in_effect::own_directory(&in_effect, data_dir).into_iter().collect();
    if placed.config_file.is_some() {
        // Where a person looks for them. What `ALTER SYSTEM` set wins over these lines, and is corrected below.
        let leads = placed.missing(&in_effect.text, data_dir);
        lines.extend(leads.iter().map(|(name, value)| conf_file::format(name, value)));
    }
    if !lines.is_empty() {
        outside::append_block(&main, &lines, owner)?;
        in_effect = in_effect::read(&main);
    }
    let kept = settings::cleaned(&auto_conf(data_dir)?);
    let configuration = format!("{}\n{kept}", in_effect.text);
    let mut notes = placed.notes.clone();
    notes.extend(
        in_effect
            .unread
            .iter()
            .map(|path| format!("{} could not be read: what it sets is not known here", path.display())),
    );
    let mut corrections = placed.missing(&configuration, data_dir);
    corrections.extend(in_effect::led_home(&configuration, original, data_dir));
    corrections.extend(tls_off(&configuration, data_dir, &mut notes));
    let recovery = Recovery {
        restore_command: settings::restore_command(
            &path_text(&request.program)?,
            &path_text(&data_dir.join(PLAN_FILE))?,
        ),
        stop: (!request.standby).then(|| plan.stop.stop.clone()),
        timeline: if request.standby { "latest".to_owned() } else { plan.timeline_setting() },
        action: if request.standby { TargetAction::Pause } else { request.action() },
        at_least: settings_to_raise(&control, &configuration),
        corrections,
    };
    let mut text = kept;
    text.push_str(&settings::recovery_block(&recovery));
    let end_isolation = (!request.replace_production).then(|| {
        let own = in_effect::not_shared(&configuration, original);
        text.push_str(&settings::isolation_block(&own));
        settings::end_isolation_command(&data_dir.join(AUTO_CONF))
    });
    put(data_dir, AUTO_CONF, text.as_bytes(), owner, 0o600)?;

    let [recovery_signal, standby_signal, _] = SIGNAL_FILES;
    let signal = if request.standby { standby_signal } else { recovery_signal };
    put(data_dir, signal, b"", owner, 0o600)?;
    if !manifest.tablespace_map.is_empty() {
        let map = tablespaces::rewrite_map(&manifest.tablespace_map, &preflight.tablespaces)?;
        if !map.is_empty() {
            put(data_dir, "tablespace_map", map.as_bytes(), owner, 0o600)?;
        }
    }
    put(data_dir, "backup_label", manifest.backup_label.as_bytes(), owner, 0o600)?;
    write_reindex(preflight, data_dir, &preflight.resorted)?;
    durable::fsync_dir(&data_dir.join(OWN_DIRECTORY))?;
    durable::fsync_dir(data_dir)?;
    put(data_dir, "global/pg_control", &manifest.control.bytes, owner, manifest.control.mode)?;
    Ok(Finished {
        config_file: placed.config_file,
        listening: Listening::of(|name| last_value(&configuration, name)),
        end_isolation,
        notes,
    })
}

/// Writes the script that rebuilds what this host sorts otherwise; where it sorts as the original did, there is none afterwards.
///
/// # Errors
/// [`RestoreError::Durable`], [`RestoreError::Io`].
pub fn write_reindex(
    preflight: &Preflight,
    data_dir: &Path,
    resorted: &[Resorted],
) -> Result<(), RestoreError> {
    if resorted.is_empty() {
        // One that an earlier restore left in a directory that was brought back in place would speak of another host or time.
        return Ok(durable::remove_below(data_dir, Path::new(SCRIPT_FILE))?);
    }
    let text = host::script(preflight.manifest.postgresql.major, resorted);
    put(data_dir, SCRIPT_FILE, text.as_bytes(), preflight.owner.as_ref(), 0o600)
}

/// Writes a file of the data directory, durably, with owner and mode.
fn put(
    data_dir: &Path,
    name: &str,
    content: &[u8],
    owner: Option<&Account>,
    mode: u32,
) -> Result<(), RestoreError> {
    Ok(below::put(data_dir, Path::new(name), &[content], owner, mode)?)
}

fn path_text(path: &Path) -> Result<String, RestoreError> {
    path.to_str()
        .map(str::to_owned)
        .ok_or_else(|| RestoreError::Unwritable { text: path.display().to_string() })
}

fn auto_conf(data_dir: &Path) -> Result<String, RestoreError> {
    match below::read(data_dir, Path::new(AUTO_CONF)) {
        Ok((bytes, _)) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(DurableError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(String::new())
        }
        Err(error) => Err(error.into()),
    }
}

/// Settings that are below what the original server had: hot standby refuses to begin with them
/// (`CheckRequiredParameterValues` in `xlogrecovery.c`).
fn settings_to_raise(control: &ControlFile, configuration: &str) -> Vec<(String, u64)> {
    [
        ("max_connections", control.max_connections, 100),
        ("max_worker_processes", control.max_worker_processes, 8),
        ("max_wal_senders", control.max_wal_senders, 10),
        ("max_prepared_transactions", control.max_prepared_xacts, 0),
        ("max_locks_per_transaction", control.max_locks_per_xact, 64),
    ]
    .into_iter()
    .filter(|(name, needed, default)| {
        let configured =
            last_value(configuration, name).and_then(|value| value.parse().ok()).unwrap_or(*default);
        configured < *needed
    })
    .map(|(name, needed, _)| (name.to_owned(), u64::from(needed)))
    .collect()
}

/// TLS is turned off where a file that it is set to read is not on this host: private keys are never in a backup, and a server that
/// is told to use one it has not does not start.
fn tls_off(configuration: &str, data_dir: &Path, notes: &mut Vec<String>) -> Option<(String, String)> {
    if !last_value(configuration, "ssl").is_some_and(|value| is_on(&value)) {
        return None;
    }
    for (setting, default) in [
        ("ssl_cert_file", "server.crt"),
        ("ssl_key_file", "server.key"),
        ("ssl_ca_file", ""),
        ("ssl_crl_file", ""),
        ("ssl_dh_params_file", ""),
    ] {
        let name = last_value(configuration, setting).unwrap_or_else(|| default.to_owned());
        let path = data_dir.join(&name);
        if !name.is_empty() && !path.exists() {
            notes.push(format!(
                "TLS is off: {setting} is {}, which is not here; put it there and remove `{}` from {AUTO_CONF}",
                path.display(),
                conf_file::format("ssl", "off")
            ));
            return Some(("ssl".to_owned(), "off".to_owned()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_without_its_key_is_off() {
        let directory = tempfile::tempdir().unwrap();
        let mut notes = Vec::new();
        assert_eq!(tls_off("ssl = off\n", directory.path(), &mut notes), None);
        assert_eq!(tls_off("", directory.path(), &mut notes), None);
        let off =
            tls_off("ssl = on\nssl_key_file = '/etc/ssl/private/absent.key'\n", directory.path(), &mut notes);
        assert_eq!(off, Some(("ssl".into(), "off".into())));
        assert_eq!(notes.len(), 1);
        for name in ["server.crt", "server.key"] {
            durable::replace(&directory.path().join(name), &[b"x"]).unwrap();
        }
        assert_eq!(tls_off("ssl = yes\n", directory.path(), &mut notes), None);
        for setting in ["ssl_ca_file", "ssl_crl_file", "ssl_dh_params_file"] {
            let configuration = format!("ssl = on\n{setting} = 'absent'\n");
            let off = tls_off(&configuration, directory.path(), &mut notes);
            assert_eq!(off, Some(("ssl".into(), "off".into())), "{setting}");
            assert!(notes.last().unwrap().contains(setting));
        }
    }
}
