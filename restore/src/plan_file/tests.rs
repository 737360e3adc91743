//! What a plan needs, keeps to itself, and refuses.

use super::*;
use highwater_archive::durable;
use highwater_archive::names::{ClusterId, LineageId};
use highwater_archive::store::SecretString;
use highwater_archive::testing;

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
    try_written(end, directory).unwrap()
}

fn try_written(end: Option<(&str, &str)>, directory: &Path) -> Result<PlanFile, PlanFileError> {
    let now = jiff::Timestamp::UNIX_EPOCH;
    let spec = StoreSpec {
        url: "s3://bucket/prefix".into(),
        region: Some("eu-1".into()),
        access_key_id: Some(SecretString::from("me")),
        secret_access_key: Some(SecretString::from("hush")),
        ..StoreSpec::default()
    };
    let store = store::open(&spec).unwrap();
    let lineage = testing::remembered(store, testing::info(), testing::record(testing::CLUSTER));
    let repositories = [RepositoryToPlan { name: "primary", store: &spec, lineage: &lineage }];
    write(directory, &bounds(end), &repositories, None, now)
}

/// The secrets of the stores go into the data directory, and not to where somebody's link leads.
#[test]
fn no_secret_is_written_through_a_link() {
    let scratch = tempfile::tempdir().unwrap();
    let (data, elsewhere) = (scratch.path().join("data"), scratch.path().join("elsewhere"));
    for made in [&data, &elsewhere] {
        std::fs::create_dir(made).unwrap();
    }
    std::os::unix::fs::symlink("../elsewhere", data.join("highwater")).unwrap();
    let refused = try_written(None, &data).unwrap_err();
    assert!(refused.to_string().contains("highwater/restore.secrets"), "{refused}");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0);
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
    assert_eq!(primary.lineage.keys().cluster_id(), testing::CLUSTER);
    assert_eq!(primary.lineage.id(), testing::LINEAGE);
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

/// What `tests/fixtures/format-1/host` holds was written once and is read as it was; and today's code writes the same bytes. A restored
/// cluster that recovers for days is served by a binary that was upgraded meanwhile.
#[test]
fn plans_of_version_1_are_read_and_written_the_same() {
    use std::os::unix::fs::PermissionsExt as _;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/format-1/host");
    for (host, last, end) in
        [("copy", Some("000000040000000000000009"), Some("0/9000000")), ("standby", None, None)]
    {
        // Git keeps no modes, and secrets that others may read are refused.
        let data = tempfile::tempdir().unwrap();
        std::fs::create_dir(data.path().join("highwater")).unwrap();
        for file in files() {
            let copy = data.path().join(&file);
            durable::replace(&copy, &[std::fs::read(fixtures.join(host).join(&file)).unwrap()]).unwrap();
            std::fs::set_permissions(copy, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let path = data.path().join(PLAN_FILE);
        let plan = PlanFile::read(&path).unwrap();
        assert_eq!(plan.last_segment.map(|segment| segment.to_string()).as_deref(), last);
        assert_eq!(plan.end_lsn.map(|lsn| lsn.to_string()).as_deref(), end);
        assert_eq!(plan.ancestry(), bounds(None).ancestry);
        assert_eq!(serde_json::to_vec_pretty(&plan).unwrap(), std::fs::read(&path).unwrap());
        let bytes = std::fs::read(path.with_file_name(SECRETS_FILE)).unwrap();
        let secrets: Secrets = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(serde_json::to_vec_pretty(&secrets).unwrap(), bytes);

        let repositories = plan.repositories(&path).unwrap();
        let [s3, local, az] = &repositories[..] else { panic!("three repositories") };
        let secret = |secret: &Option<SecretString>| secret.as_ref().unwrap().expose_secret().to_owned();
        assert_eq!(
            [&s3.store.access_key_id, &s3.store.secret_access_key, &s3.store.session_token].map(secret),
            ["me", "hush", "for today"]
        );
        let place = (s3.store.endpoint.as_deref(), s3.store.region.as_deref());
        assert_eq!(place, (Some("http://s3.example:9000"), Some("eu-1")));
        assert_eq!((s3.store.path_style, s3.store.allow_http), (Some(true), true));
        assert_eq!((local.name.as_str(), local.store.url.as_str()), ("second", "file:///srv/backup"));
        assert_eq!(az.store.account.as_deref(), Some("account"));
        assert_eq!(secret(&az.store.account_key), "aHVzaA==");
        for repository in &repositories {
            assert_eq!(repository.lineage.id(), LineageId::from_bytes([0x11; 16]));
            assert_eq!(repository.lineage.keys().cluster_id(), ClusterId::from_bytes([0x66; 16]));
        }
    }
}
