//! What a plan needs, keeps to itself, and refuses.

use super::*;
use highwater_archive::names::{ClusterId, LineageId, RepositoryId};
use highwater_archive::repository::NameMode;
use highwater_archive::store::SecretString;

fn bounds(end: Option<(&str, &str)>) -> PlanBounds {
    let history = b"1\t0/5000028\tno recovery target specified\n2\t0/7000000\tx\n";
    PlanBounds {
        cluster: "main".parse().unwrap(),
        wal_segment_bytes: WalSegmentSize::DEFAULT,
        backup: "20261120T060959Z-0a0b0c0d".into(),
        target: "LSN 0/9000000".into(),
        ancestry: TimelineHistory::parse(TimelineId::new(4).unwrap(), history).unwrap().ancestry(),
        first_segment: "000000010000000000000003".parse().unwrap(),
        end: end.map(|(segment, lsn)| (segment.parse().unwrap(), lsn.parse().unwrap())),
    }
}

fn written(end: Option<(&str, &str)>, directory: &Path) -> PlanFile {
    std::fs::create_dir(directory.join("highwater")).unwrap();
    let now = jiff::Timestamp::UNIX_EPOCH;
    let recipients = Unlock::generate(now).0.recipients().unwrap();
    let keys = Keyring::generate(ClusterId::from_bytes([1; 16]), &recipients, now).unwrap();
    let spec = StoreSpec {
        url: "s3://bucket/prefix".into(),
        region: Some("eu-1".into()),
        access_key_id: Some(SecretString::from("me")),
        secret_access_key: Some(SecretString::from("hush")),
        ..StoreSpec::default()
    };
    let info = RepositoryInfo {
        format: "highwater".into(),
        version: 1,
        min_reader: 1,
        min_writer: 1,
        repository_id: RepositoryId::from_bytes([2; 16]),
        names: NameMode::Plain,
        extent_bytes: 1 << 20,
        created_at: now,
        created_by: "highwater".into(),
    };
    let record = LineageRecord {
        lineage: LineageId::from_bytes([7; 16]),
        cluster_id: ClusterId::from_bytes([1; 16]),
        system_identifier: 7_000_000_000_000_000_001,
        pg_major: 17,
        wal_segment_bytes: WalSegmentSize::DEFAULT,
        block_bytes: 8192,
        parent: None,
        parent_timeline: None,
        fork_lsn: None,
        created_at: now,
        reason: "init".into(),
    };
    let repository = Repository::remembered(store::open(&spec).unwrap(), info).unwrap();
    let cluster = Cluster::remembered(repository, "main".parse().unwrap(), keys);
    let lineage = Lineage::remembered(&cluster, record).unwrap();
    let repositories = [RepositoryToPlan { name: "primary", store: &spec, lineage: &lineage }];
    write(directory, &bounds(end), &repositories, now).unwrap()
}

fn scope(plan: &PlanFile, file: &str) -> Scope {
    plan.scope(&file.parse().unwrap())
}

/// I14: within the plan a missing file is an error, beyond it nobody is asked.
#[test]
fn the_plan_knows_what_it_needs() {
    let directory = tempfile::tempdir().unwrap();
    let plan = written(Some(("000000040000000000000009", "0/9000000")), directory.path());
    for needed in [
        "000000010000000000000003",
        "000000010000000000000004",
        "000000020000000000000005",
        "000000020000000000000006",
        "000000040000000000000007",
        "000000040000000000000009",
        "00000002.history",
        "00000004.history",
    ] {
        assert_eq!(scope(&plan, needed), Scope::Needed, "{needed}");
    }
    for outside in [
        "00000004000000000000000A",
        "00000001000000000000000A",
        "000000030000000000000007",
        "00000001.history",
        "00000003.history",
    ] {
        assert!(matches!(scope(&plan, outside), Scope::Outside(_)), "{outside}");
    }
    for optional in [
        "000000010000000000000005",
        "000000010000000000000002",
        "000000010000000000000005.partial",
        // Taken or free: the next timeline's number depends on it.
        "00000005.history",
    ] {
        assert_eq!(scope(&plan, optional), Scope::Optional, "{optional}");
    }
}

#[test]
fn a_standby_has_no_end() {
    let directory = tempfile::tempdir().unwrap();
    let plan = written(None, directory.path());
    for optional in ["000000040000000000000044", "00000005.history", "000000050000000000000044"] {
        assert_eq!(scope(&plan, optional), Scope::Optional, "{optional}");
    }
}

/// A passphrase or a person's identity is never in a restored data directory; what is there opens this one keyring.
#[test]
fn the_plan_comes_back_with_its_keys_and_nobody_else_reads_them() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let plan = written(Some(("000000040000000000000009", "0/9000000")), directory.path());
    let path = directory.path().join(PLAN_FILE);
    let as_json = |plan: &PlanFile| serde_json::to_value(plan).unwrap();
    assert_eq!(as_json(&PlanFile::read(&path).unwrap()), as_json(&plan));
    assert_eq!(plan.ancestry(), bounds(None).ancestry);
    assert!(!std::fs::read_to_string(&path).unwrap().contains("hush"));
    let repositories = plan.repositories(&path).unwrap();
    let [primary] = repositories.as_slice() else { panic!("one repository") };
    assert_eq!(primary.store.secret_access_key.as_ref().unwrap().expose_secret(), "hush");
    assert_eq!(primary.lineage.keys().cluster_id(), ClusterId::from_bytes([1; 16]));
    assert_eq!(primary.lineage.id(), LineageId::from_bytes([7; 16]));
    let secrets = path.with_file_name(SECRETS_FILE);
    assert_eq!(std::fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o600);
    std::fs::set_permissions(&secrets, std::fs::Permissions::from_mode(0o640)).unwrap();
    assert!(matches!(plan.repositories(&path), Err(PlanFileError::Open { mode: 0o640, .. })));
}

#[test]
fn what_is_no_plan_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("plan");
    assert!(matches!(PlanFile::read(&path), Err(PlanFileError::Io { .. })));
    for text in ["", "{}", "[1]"] {
        durable::replace(&path, &[text.as_bytes()]).unwrap();
        assert!(matches!(PlanFile::read(&path), Err(PlanFileError::Malformed { .. })), "{text}");
    }
}
