//! Proving a set-up: each thing that archiving and backups rest on is one line, ok or failed, with what to do.
//!
//! In the order a person would look: the data directory, the repositories and what one of them lacks, the connection, PostgreSQL's settings, a
//! segment of WAL sent all the way and read back, and at the end whether what the repositories hold is whole. What depends on something
//! that failed is left out and says so.

mod findings;
mod held;
mod lag;
mod repositories;
mod round_trip;
mod server;

use std::time::Duration;

use highwater_archive::lineage::Lineage;

use crate::config::Config;
use crate::context::Context;
use crate::host_state::HostState;
use crate::pg::data_dir;
pub use findings::Findings;

/// Runs every check; `timeout` bounds the wait for PostgreSQL's archiver.
///
/// # Errors
///
/// Only the configuration itself; whatever else is wrong is a finding.
pub async fn run(context: &Context, timeout: Duration) -> anyhow::Result<Findings> {
    let config = context.config()?;
    let mut findings = Findings::default();
    let file = config
        .file
        .as_ref()
        .map_or_else(|| "from the environment".to_owned(), |file| file.display().to_string());
    findings.ok("configuration", format!("cluster {}, {file}", config.cluster));

    let state = check_data_dir(config, &mut findings)?;
    let lineages = repositories::check(config, state.as_ref(), context.clock.now(), &mut findings).await;
    let session = server::check(config, state.as_ref(), &mut findings).await;
    if let Some(server) = session {
        round_trip(&server, &lineages, config, timeout, &mut findings).await;
    }
    // Behind the round trip: what it has archived shows whether something is missing in front of it.
    held::check(&lineages, config.data_dir()?, &mut findings).await;
    findings.note("retention", "none is configured: nothing in the repositories is ever deleted");
    findings.note("drill", "none is configured: that a backup comes back is proven by restoring it");
    Ok(findings)
}

/// The data directory and what binds it to a lineage.
fn check_data_dir(config: &Config, findings: &mut Findings) -> anyhow::Result<Option<HostState>> {
    let data_dir = config.data_dir()?;
    let what = "data directory";
    let control = match data_dir::read_control(data_dir) {
        Ok(control) => control,
        Err(error) => {
            findings.error(what, error.into());
            return Ok(None);
        }
    };
    match data_dir::major(data_dir, &control) {
        Ok(major) => findings.ok(
            what,
            format!(
                "{}, PostgreSQL {major}, system identifier {}",
                data_dir.display(),
                control.system_identifier
            ),
        ),
        Err(error) => findings.error(what, error.into()),
    }
    let state = match HostState::require(data_dir) {
        Ok(state) => state,
        Err(error) => {
            findings.error("lineage", error);
            return Ok(None);
        }
    };
    if state.system_identifier != control.system_identifier {
        findings.failed(
            "lineage",
            format!(
                "the data directory was set up as system identifier {}, and now holds {}",
                state.system_identifier, control.system_identifier
            ),
            "after pg_upgrade or a new initdb, run: highwater adopt --new-lineage",
        );
    } else if state.cluster != config.cluster.as_str() {
        findings.failed(
            "lineage",
            format!("the data directory was set up as cluster {}, not {}", state.cluster, config.cluster),
            "set cluster.name as it was",
        );
    } else {
        findings.ok("lineage", state.lineage.to_string());
    }
    Ok(Some(state))
}

async fn round_trip(
    server: &server::Server,
    lineages: &[(String, Lineage)],
    config: &Config,
    timeout: Duration,
    findings: &mut Findings,
) {
    let what = "WAL round trip";
    let reason = if server.settings.in_recovery {
        "the server is a standby, which cannot end a segment; check its primary"
    } else if !server.archives {
        "archiving is not set up"
    } else if lineages.is_empty() {
        "no repository can be used"
    } else {
        match round_trip::run(server, lineages, config, timeout).await {
            Ok(done) => findings.ok(what, done),
            Err(error) => findings.error(what, error),
        }
        return;
    };
    findings.skipped(what, reason);
}
