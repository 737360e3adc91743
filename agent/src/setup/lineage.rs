//! Which lineage a data directory may write (I1).
//!
//! A data directory that was set up before goes on with its own. A new one takes a lineage only if nothing has been written to
//! it, which is what an `init` that was cut short leaves; anything else that lies under the cluster's name belongs to someone:
//! to another cluster of the same name, or to the original of this copy.

use highwater_archive::lineage::{Lineage, LineageRecord};
use highwater_archive::names::{self, ClusterId, ClusterName, LineageId, WriterId};
use highwater_pitr::control::ControlFile;
use highwater_pitr::wal::PgMajor;
use jiff::Timestamp;

use crate::host_state::HostState;
use crate::report;
use crate::repositories::OpenRepository;

/// The cluster in a data directory.
pub struct Identity {
    /// Its `pg_control`.
    pub control: ControlFile,
    /// Its major version.
    pub major: PgMajor,
}

/// Finds or begins the lineage of a data directory in all repositories, and gives the state to write on the host.
///
/// # Errors
///
/// What is there belongs to someone else; nothing has been changed then.
pub async fn claim(
    repositories: &[OpenRepository],
    identity: &Identity,
    state: Option<HostState>,
    now: Timestamp,
) -> anyhow::Result<HostState> {
    let lineages = all_lineages(repositories).await?;
    // A copy that was set up by its original stays one.
    let (earlier_writers, home) = match &state {
        Some(state) => (state.earlier_writers.clone(), state.home.clone()),
        None => (Vec::new(), None),
    };
    let (record, writer) = match state {
        Some(state) => {
            let record = lineages.iter().find(|lineage| lineage.id() == state.lineage);
            let known = record.map(|lineage| lineage.record().clone());
            (known.unwrap_or_else(|| begin(identity, state.lineage, now)), state.writer)
        }
        None => {
            let record = match unwritten(&lineages, identity).await? {
                Some(record) => record,
                None => begin(identity, LineageId::random()?, now),
            };
            (record, WriterId::random()?)
        }
    };
    write(repositories, &record).await?;
    Ok(HostState { earlier_writers, home, ..host_state(repositories, &record, writer) })
}

/// Begins a lineage in every repository where it is not there yet.
///
/// # Errors
///
/// A repository that cannot be written.
pub async fn write(repositories: &[OpenRepository], record: &LineageRecord) -> anyhow::Result<()> {
    for repository in repositories {
        // The cluster has an id of its own in each repository.
        let record = LineageRecord { cluster_id: repository.cluster.id(), ..record.clone() };
        match repository.cluster.lineage(record.lineage).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                repository.cluster.create_lineage(record).await?;
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The state that binds a data directory to a lineage.
pub fn host_state(repositories: &[OpenRepository], record: &LineageRecord, writer: WriterId) -> HostState {
    HostState {
        cluster: repositories.first().map_or_else(String::new, |first| first.cluster.name().to_string()),
        lineage: record.lineage,
        repositories: repositories.iter().map(|one| (one.name.clone(), one.pin())).collect(),
        system_identifier: record.system_identifier,
        writer,
        earlier_writers: Vec::new(),
        home: None,
    }
}

/// The record of a new lineage without a parent.
pub fn begin(identity: &Identity, lineage: LineageId, now: Timestamp) -> LineageRecord {
    LineageRecord {
        lineage,
        // Filled in for each repository when it is written.
        cluster_id: ClusterId::from_bytes([0; 16]),
        system_identifier: identity.control.system_identifier,
        pg_major: u16::try_from(identity.major.number()).unwrap_or(u16::MAX),
        wal_segment_bytes: identity.control.segment_size,
        block_bytes: identity.control.block_size,
        parent: None,
        parent_timeline: None,
        fork_lsn: None,
        created_at: now,
        reason: "init".to_owned(),
    }
}

/// The lineages of the cluster in all repositories.
///
/// # Errors
///
/// One that cannot be read.
pub async fn all_lineages(repositories: &[OpenRepository]) -> anyhow::Result<Vec<Lineage>> {
    let mut lineages = Vec::new();
    for repository in repositories {
        lineages.extend(repository.cluster.lineages().await?);
    }
    Ok(lineages)
}

/// Whether the state of a data directory is of this cluster.
///
/// # Errors
///
/// It is not, and nothing may be made on its behalf.
pub fn check_state(state: &HostState, cluster: &ClusterName, identity: &Identity) -> anyhow::Result<()> {
    if state.system_identifier != identity.control.system_identifier {
        return Err(report::refused(
            format!(
                "the data directory was set up as the cluster with system identifier {}, and now holds {}",
                state.system_identifier, identity.control.system_identifier
            ),
            "after pg_upgrade or a new initdb, run: highwater adopt --new-lineage",
        ));
    }
    if state.cluster != cluster.as_str() {
        return Err(report::refused(
            format!("the data directory was set up as cluster {}, not {cluster}", state.cluster),
            "set cluster.name as it was; to begin anew under this name, move highwater/lineage.json out of the data directory \
             and run init again",
        ));
    }
    Ok(())
}

/// A lineage of this cluster that nobody has written to; none where there is no lineage at all.
async fn unwritten(lineages: &[Lineage], identity: &Identity) -> anyhow::Result<Option<LineageRecord>> {
    let ours = identity.control.system_identifier;
    let mut found = None;
    for lineage in lineages {
        let record = lineage.record();
        if record.system_identifier != ours {
            return Err(report::refused(
                format!(
                    "the cluster of this name in {} is another one: its system identifier is {}, that of this data directory {ours}",
                    lineage.store().describe(),
                    record.system_identifier,
                ),
                "give this cluster another cluster.name; after pg_upgrade or a new initdb of the same cluster, run: \
                 highwater adopt --new-lineage",
            ));
        }
        let written =
            !lineage.list(names::WAL).await?.is_empty() || !lineage.list(names::BACKUPS).await?.is_empty();
        if written || lineage.is_closed().await? {
            return Err(report::refused(
                format!(
                    "lineage {} in {} is written by another data directory",
                    record.lineage,
                    lineage.store().describe()
                ),
                "if this is a restored copy that is to become the cluster, run: highwater adopt",
            ));
        }
        found = Some(record.clone());
    }
    Ok(found)
}
