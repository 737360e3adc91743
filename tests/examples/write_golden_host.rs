//! Writes the fixtures of what lies on a host: `cargo run -p highwater-tests --example write_golden_host -- tests/fixtures/format-1/host`.
//!
//! As those of the repository they are written once for a version. The plans are written by the product; the state of a host, which
//! is the binary's own, is composed here, and the binary's test holds that it would write the same bytes.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_archive::durable;
use highwater_archive::keyring::{Keyring, Unlock};
use highwater_archive::lineage::{Lineage, LineageRecord};
use highwater_archive::names::{ClusterId, LineageId, RepositoryId};
use highwater_archive::repository::{Cluster, NameMode, Repository, RepositoryInfo};
use highwater_archive::store::local::LocalStore;
use highwater_archive::store::{SecretString, StoreSpec};
use highwater_pitr::segment::WalSegmentSize;
use highwater_pitr::timeline::{TimelineHistory, TimelineId};
use highwater_restore::plan_file::{self, PlanBounds, RepositoryToPlan};

const LINEAGE: [u8; 16] = [0x11; 16];
const REPOSITORY: [u8; 16] = [0x22; 16];
const WRITER: [u8; 16] = [0x33; 16];
const EARLIER_WRITER: [u8; 16] = [0x44; 16];
const SYSTEM_IDENTIFIER: u64 = 7_710_198_082_293_327_983;

fn main() {
    let target = PathBuf::from(std::env::args().nth(1).expect("the directory of the fixtures"));
    assert!(!target.exists(), "{} exists: fixtures are never replaced", target.display());
    for (name, standby) in [("copy", false), ("standby", true)] {
        let data = target.join(name);
        for directory in ["claims", "newest"] {
            durable::create_dir_all_durable(&data.join("highwater").join(directory)).expect("a directory");
        }
        write_plan(&data, standby);
    }
    write_state(&target.join("copy/highwater"));
}

/// The state of a promoted copy, which has a writer of its own and the one it found; its notes of a claim and of the newest backup.
fn write_state(directory: &Path) {
    let [lineage, repository, writer, earlier] =
        [LINEAGE, REPOSITORY, WRITER, EARLIER_WRITER].map(hex::encode);
    let fingerprint = "55".repeat(16);
    let state = format!(
        r#"{{
  "cluster": "main",
  "lineage": "{lineage}",
  "repositories": {{
    "primary": {{
      "id": "{repository}",
      "fingerprint": "{fingerprint}"
    }}
  }},
  "system_identifier": "{SYSTEM_IDENTIFIER}",
  "writer": "{writer}",
  "earlier_writers": [
    "{earlier}"
  ],
  "home": "1234567-1763635267000000000"
}}
"#
    );
    let note = format!("claims/00000002.{repository}");
    let newest = format!("newest/{repository}");
    for (name, text) in [
        ("lineage.json", state),
        (&note, format!("{lineage} {writer}\n")),
        (&newest, format!("{lineage} 20261120T061000Z-0a1b2c3d\n")),
    ] {
        durable::replace(&directory.join(name), &[text]).expect("a file");
    }
}

/// A plan over three repositories, two of them with credentials, and three timelines.
fn write_plan(data: &Path, standby: bool) {
    let now = "2026-11-20T06:00:00Z".parse().expect("a time");
    let history = b"1\t0/5000028\tno recovery target specified\n2\t0/7000000\tx\n";
    let bounds = PlanBounds {
        cluster: "main".parse().expect("a name"),
        wal_segment_bytes: WalSegmentSize::DEFAULT,
        backup: "20261120T060959Z-0a0b0c0d".into(),
        target: "LSN 0/9000000".into(),
        ancestry: TimelineHistory::parse(TimelineId::new(4).expect("4"), history)
            .expect("a history")
            .ancestry(),
        first_segment: "000000010000000000000003".parse().expect("a segment"),
        end: (!standby).then(|| {
            let last = "000000040000000000000009".parse().expect("a segment");
            (last, "0/9000000".parse().expect("a position"))
        }),
    };
    let s3 = StoreSpec {
        url: "s3://backups/pg".into(),
        endpoint: Some("http://s3.example:9000".into()),
        region: Some("eu-1".into()),
        path_style: Some(true),
        allow_http: true,
        access_key_id: Some(SecretString::from("me")),
        secret_access_key: Some(SecretString::from("hush")),
        session_token: Some(SecretString::from("for today")),
        ..StoreSpec::default()
    };
    let local = StoreSpec { url: "file:///srv/backup".into(), ..StoreSpec::default() };
    let az = StoreSpec {
        url: "az://backups/pg".into(),
        account: Some("account".into()),
        account_key: Some(SecretString::from("aHVzaA==")),
        ..StoreSpec::default()
    };
    let lineage = lineage(now);
    let repositories = [("primary", &s3), ("second", &local), ("third", &az)]
        .map(|(name, store)| RepositoryToPlan { name, store, lineage: &lineage });
    plan_file::write(data, &bounds, &repositories, None, now).expect("a plan");
}

fn lineage(now: jiff::Timestamp) -> Lineage {
    let recipients = Unlock::generate(now).0.recipients().expect("recipients");
    let cluster_id = ClusterId::from_bytes([0x66; 16]);
    let keys = Keyring::generate(cluster_id, &recipients, now).expect("a keyring");
    let info = RepositoryInfo {
        format: "highwater".into(),
        version: 1,
        min_reader: 1,
        min_writer: 1,
        repository_id: RepositoryId::from_bytes(REPOSITORY),
        names: NameMode::Plain,
        extent_bytes: 1 << 20,
        created_at: now,
        created_by: "highwater 0.1.0".into(),
    };
    let record = LineageRecord {
        lineage: LineageId::from_bytes(LINEAGE),
        cluster_id,
        system_identifier: SYSTEM_IDENTIFIER,
        pg_major: 17,
        wal_segment_bytes: WalSegmentSize::DEFAULT,
        block_bytes: 8192,
        parent: None,
        parent_timeline: None,
        fork_lsn: None,
        created_at: now,
        reason: "init".into(),
    };
    let store = Arc::new(LocalStore::new(Path::new("/nowhere")));
    let repository = Repository::remembered(store, info).expect("a repository");
    let cluster = Cluster::remembered(repository, "main".parse().expect("a name"), keys);
    Lineage::remembered(&cluster, record).expect("a lineage")
}
