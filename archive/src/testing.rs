//! The ground that tests stand on, here and in the crates above: a lineage in a store of the test's choice, and content.
//!
//! It is compiled for tests alone: by `cfg(test)` here, by the feature `testing` for the tests of other crates.
#![allow(
    clippy::unwrap_used,
    reason = "this is test code: a broken expectation ends the test where it is seen"
)]

use std::sync::Arc;

use highwater_pitr::segment::WalSegmentSize;
use jiff::Timestamp;

use crate::keyring::{Keyring, Unlock};
use crate::names::{ClusterId, LineageId, RepositoryId};
use crate::racing::NameMode;
use crate::repository::lineage::{Lineage, LineageRecord};
use crate::repository::{Cluster, CreateParams, DEFAULT_EXTENT_BYTES, Repository, RepositoryInfo};
use crate::store::Store;

/// The cluster's id in [`remembered`].
pub const CLUSTER: ClusterId = ClusterId::from_bytes([1; 16]);
/// The repository's id in [`remembered`].
pub const REPOSITORY: RepositoryId = RepositoryId::from_bytes([2; 16]);
/// The lineage's id.
pub const LINEAGE: LineageId = LineageId::from_bytes([7; 16]);
/// The lineage's system identifier.
pub const SYSTEM_IDENTIFIER: u64 = 7_000_000_000_000_000_001;

/// What `highwater.json` says.
pub fn info() -> RepositoryInfo {
    RepositoryInfo {
        format: "highwater".into(),
        version: 1,
        min_reader: 1,
        min_writer: 1,
        repository_id: REPOSITORY,
        names: NameMode::Plain,
        extent_bytes: DEFAULT_EXTENT_BYTES,
        created_at: Timestamp::UNIX_EPOCH,
        created_by: "highwater".into(),
    }
}

/// What the lineage's object says: the first lineage of a cluster of PostgreSQL 17 with segments of the usual size.
pub fn record(cluster: ClusterId) -> LineageRecord {
    LineageRecord {
        lineage: LINEAGE,
        cluster_id: cluster,
        system_identifier: SYSTEM_IDENTIFIER,
        pg_major: 17,
        wal_segment_bytes: WalSegmentSize::DEFAULT,
        block_bytes: 8192,
        parent: None,
        parent_timeline: None,
        fork_lsn: None,
        created_at: Timestamp::UNIX_EPOCH,
        reason: "init".into(),
    }
}

/// A lineage of cluster `main` that is created in the store, with all that comes before it.
pub async fn lineage(store: impl Store + 'static) -> Lineage {
    let now = Timestamp::UNIX_EPOCH;
    let params = CreateParams { names: NameMode::Plain, extent_bytes: DEFAULT_EXTENT_BYTES, now };
    let (repository, _) = Repository::create(Arc::new(store), params).await.unwrap();
    let (unlock, _) = Unlock::generate(now);
    let recipients = unlock.recipients().unwrap();
    let name = "main".parse().unwrap();
    let (cluster, _) = repository.create_cluster(&name, &unlock, &recipients, now).await.unwrap();
    cluster.create_lineage(record(cluster.id())).await.unwrap()
}

/// A lineage of cluster `main` of which the store is not asked: it may hold nothing, or not be there at all.
pub fn remembered(store: Arc<dyn Store>, info: RepositoryInfo, record: LineageRecord) -> Lineage {
    let recipients = Unlock::generate(Timestamp::UNIX_EPOCH).0.recipients().unwrap();
    let keys = Keyring::generate(record.cluster_id, &recipients, Timestamp::UNIX_EPOCH).unwrap();
    let repository = Repository::remembered(store, info).unwrap();
    Lineage::remembered(&Cluster::remembered(repository, "main".parse().unwrap(), keys), record).unwrap()
}
