//! What will run the copy: this program as its `restore_command`, and a server of PostgreSQL, which is held against the backup ([`host`]).

use std::process::Stdio;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::Manifest;

use super::{Request, Start};
use crate::error::RestoreError;
use crate::host::{self, Findings, Question};
use crate::listening::Listening;
use crate::outside::outside_path;
use crate::ownership::Account;
use crate::places;
use crate::server::{Installation, ServerError};

/// Whether the server's user can run this program: recovery would die of it much later.
pub fn check_program(request: &Request, owner: Option<&Account>) -> Result<(), RestoreError> {
    let program = &request.program;
    let text = program.to_str().unwrap_or_default();
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(RestoreError::Unwritable { text: program.display().to_string() });
    }
    let Some(owner) = owner else { return Ok(()) };
    let unrunnable = |reason: String| RestoreError::Unrunnable {
        user: owner.name.clone(),
        program: program.clone(),
        reason,
    };
    let mut command = owner.command(program);
    command.arg("--version").current_dir("/").stdin(Stdio::null());
    let output = command.output().map_err(|error| unrunnable(error.to_string()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(unrunnable(format!("{} {}", output.status, said.trim())));
    }
    for repository in &request.local_repositories {
        if !(places::may(owner, "-r", repository) && places::may(owner, "-x", repository)) {
            return Err(RestoreError::Unreadable { user: owner.name.clone(), path: repository.clone() });
        }
    }
    Ok(())
}

/// Whether the copy will have the settings that the original said of itself: not where they lay outside and are put nowhere.
fn same_settings(request: &Request, manifest: &Manifest) -> bool {
    request.config_to.is_some() || outside_path(manifest, "config_file").is_none()
}

/// The server that will run it. One that is named, or to be started, must be here; without one, nothing of it can be looked at.
pub fn find_server(
    request: &Request,
    major: u16,
    notes: &mut Vec<String>,
) -> Result<Option<Installation>, RestoreError> {
    let unseen = "that the server which will run it can open it, and has its libraries and its order of text, was not looked at";
    if request.elsewhere {
        notes.push(format!("it is for another host: {unseen}"));
        return Ok(None);
    }
    match Installation::find(major, request.pg_bin.as_deref()) {
        Ok(installation) => Ok(Some(installation)),
        Err(ServerError::NotInstalled { .. }) if request.start.is_none() => {
            notes.push(format!(
                "PostgreSQL {major} is not installed here (--pg-bin names its programs): {unseen}"
            ));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the server to start could listen. What its configuration says is known from what the original said of itself; one that
/// lay outside and is put nowhere says nothing.
fn check_port(request: &Request, start: &Start, manifest: &Manifest) -> Result<(), RestoreError> {
    let settings = Some(&manifest.postgresql.settings).filter(|_| same_settings(request, manifest));
    let configured = Listening::of(|name| settings?.get(name).cloned());
    let listening = configured.with(start.port, start.socket_dir.as_deref());
    match listening.taken() {
        Some(by) => Err(RestoreError::PortTaken { port: listening.port, by }),
        None => Ok(()),
    }
}

/// Looks at the server that will run it: at its port where it is to be started, and at what it has for the cluster.
pub async fn look_at(
    request: &Request,
    manifest: &Manifest,
    lineage: &Lineage,
    installation: Option<&Installation>,
    owner: Option<&Account>,
) -> Result<Findings, RestoreError> {
    if let Some(start) = &request.start {
        check_port(request, start, manifest)?;
    }
    let Some(installation) = installation else { return Ok(Findings::default()) };
    let question = Question {
        manifest,
        lineage,
        installation,
        owner,
        starts: request.start.is_some(),
        same_settings: same_settings(request, manifest),
    };
    Ok(host::examine(question).await?)
}
