//! A repository in object storage: archived into, backed up into, and restored from, through the binary.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use highwater_archive::store::{self, Credentials, StoreError, StoreSpec};
use highwater_tests::azurite::Azurite;
use highwater_tests::identity::{Identities, TOKEN};
use highwater_tests::s3::{ACCESS_KEY_ID, BUCKET, Faults, Operation, Request, S3Server, SECRET_ACCESS_KEY};
use highwater_tests::tls::Authority;
use highwater_tests::{Cluster, Finished, Highwater, Scale, Scratch, newest, scale, tell_campaign};

use crate::ground::Ground;
use crate::without_us::rebuild;

/// Where in the bucket the repository lies.
pub const PREFIX: &str = "some/prefix";

/// What `docs/storage.md` gives a host of a database in Azure, and one that restores.
const WRITER: &str = "racwdl";
const READER: &str = "rl";

/// Writes everything that the service holds below the prefix into a directory, as `aws s3 sync` would.
fn mirror(server: &S3Server, directory: &Path) {
    for key in server.objects().keys() {
        let below = key.strip_prefix(PREFIX).and_then(|below| below.strip_prefix('/'));
        let below = below.unwrap_or_else(|| panic!("{key} is outside the prefix"));
        let path = directory.join(below);
        std::fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        let bytes = server.objects().get(&key).expect("the object").bytes;
        highwater_archive::durable::replace(&path, &[bytes]).expect("a file");
    }
}

/// Restores and starts a copy as on a blank host: by flags and the service's own environment alone, without a configuration file.
/// Whoever sits at a terminal sees a bar, which is gone in the end.
fn restore_by_flags(scratch: &Scratch, server: &S3Server, ground: &Ground, name: &str) -> Cluster {
    let target = scratch.join(name);
    let url = format!("s3://{BUCKET}/{PREFIX}");
    let key = scratch.join("s3.key");
    let map = Ground::tablespace_map(scratch, name);
    let endpoint = server.endpoint();
    let mut command = ground.highwater.bare(&["restore", "--repository", &url, "--endpoint", &endpoint]);
    command.args(["--region", "us-east-1", "--key-file"]).arg(key).arg("--target-dir").arg(&target);
    command.args(["--tablespace-map", &map]);
    command.env("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID).env("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY);
    let done = Finished::on_a_terminal(&mut command);
    assert_eq!(done.code, Some(0), "{done}");
    let bar = done.stderr.find("restoring [").unwrap_or_else(|| panic!("no bar: {done}"));
    assert!(done.stderr[bar..].contains("MiB/"), "{done}");
    let cleared = done.stderr.trim_end().ends_with("\u{1b}[2K") || done.stderr.ends_with("\r\u{1b}[2K");
    assert!(cleared, "the bar stays: {done}");
    let copy = Cluster::open(ground.cluster.postgres(), scratch, name, &target);
    copy.start();
    copy.wait_until_writable();
    copy
}

/// A person pays for each request. A pack is stored by one and read by one: 32 for each GB, since none is smaller than 30 MiB but a
/// backup's last ones. `others` may be asked for beside them, whatever the size of the cluster.
fn assert_few_requests(server: &S3Server, what: &str, of: impl Fn(&str) -> bool, others: usize) {
    let packs = server.objects().keys().iter().filter(|key| key.contains("/packs/")).count();
    let asked = server.faults().requests();
    let is_of_a_pack =
        |request: &&Request| request.operation != Operation::List && request.key.contains("/packs/");
    let (of_packs, rest): (Vec<_>, Vec<_>) =
        asked.iter().filter(|request| of(&request.key)).partition(is_of_a_pack);
    assert_eq!(of_packs.len(), packs, "{what}: {of_packs:?}");
    assert!(rest.len() <= others, "{what}, {} requests: {rest:#?}", rest.len());
}

/// Packs, WAL and the rest were each put in the class that is asked for, and there were some of each.
pub fn assert_classes(faults: &Faults, [packs, wal, rest]: [&str; 3]) {
    let asked = faults.requests();
    let puts = asked.iter().filter(|request| request.operation == Operation::Put);
    let mut found = [0; 3];
    for put in puts {
        let (kind, class) = match &put.key {
            key if key.contains("/packs/") => (0, packs),
            key if key.contains("/wal/") => (1, wal),
            _ => (2, rest),
        };
        assert_eq!(put.class, class, "{put:?}");
        found[kind] += 1;
    }
    assert!(found.iter().all(|count| *count > 0), "{found:?} of {asked:#?}");
}

/// A segment costs what it takes to know where we are, none of which waits for another, and the put that stores it.
fn assert_few_requests_of_a_push(server: &S3Server, cluster: &Cluster) {
    server.faults().forget_requests();
    cluster.execute("select pg_logical_emit_message(false, '', 'one more segment')");
    let segment = cluster.switch_wal();
    cluster.wait_until_archived(&segment);
    let asked = server.faults().requests();
    let pushes: Vec<_> = asked.split_inclusive(|request| request.operation == Operation::Put).collect();
    assert!(
        pushes.iter().any(|push| push.last().is_some_and(|put| put.key.ends_with(&segment))),
        "{asked:#?}"
    );
    assert!(pushes.iter().all(|push| push.len() <= 8), "{asked:#?}");
}

/// S3 as a repository: everything comes back from it, by few requests, and a mirror of it is read without us.
#[test]
fn a_cluster_lives_in_s3() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let spec = StoreSpec {
        pack_storage_class: Some("STANDARD_IA".into()),
        wal_storage_class: Some("INTELLIGENT_TIERING".into()),
        ..server.spec(PREFIX)
    };
    let ground = Ground::new(newest(), &scratch, |highwater| highwater.repository("s3", &spec));
    assert_classes(server.faults(), ["STANDARD_IA", "INTELLIGENT_TIERING", ""]);
    let expected = Ground::rows(&ground.cluster);
    let of_backups = |key: &str| key.contains("/packs/") || key.contains("/backups/");
    assert_few_requests(&server, "the backup", of_backups, 7);
    assert_few_requests_of_a_push(&server, &ground.cluster);
    server.faults().forget_requests();
    let copy = restore_by_flags(&scratch, &server, &ground, "copy");
    assert_few_requests(&server, "the restore", |key| !key.contains("/wal/"), 24);
    assert_eq!(Ground::rows(&copy), expected);
    copy.stop_proven();
    // A clock that is wrong is found while all else still works.
    server.faults().set_clock_ahead(-400);
    ground.highwater.run(&["check"]).says(4, &["this host's clock is", "s ahead of the store's", "NTP"]);
    server.faults().set_clock_ahead(0);
    // Once the service begins to ignore conditions, plain names are no longer safe, and `check` says so.
    server.faults().ignore_conditions(true);
    let found = ["ignores conditional creates, and this repository relies on them", "make a new repository"];
    ground.highwater.run(&["check"]).says(4, &found);
    server.faults().ignore_conditions(false);
    let keys = server.objects().keys();
    assert!(keys.iter().all(|key| !key.contains("/probe/")), "the probe cleans up");
    assert!(keys.contains(&"some/prefix/highwater.json".to_owned()));
    mirror(&server, &scratch.dir("mirror"));
    rebuild(&scratch, &ground, &scratch.join("mirror"), &scratch.join("s3.key"), &expected);
}

/// A whole Azure service that is not ours, over TLS: backed up into and checked by a host that a signature lets in, and restored from by one
/// that may only read. Neither reaches another container.
#[test]
#[ignore = "needs Azurite, which ./dev test fetches where npm's registry is reached"]
fn a_cluster_lives_in_azurite() {
    let scratch = Scratch::new();
    let server = Azurite::start(&scratch);
    let (writer, reader) = (server.spec_signed("p", WRITER), server.spec_signed("p", READER));
    let ground = Ground::new(newest(), &scratch, |highwater| highwater.repository("az", &writer));
    let checked = ground.highwater.ok(&["check"]);
    for words in ["credentials: repository.az.sas_token_file ", "conditional creates hold"] {
        assert!(checked.contains(words), "{words} is not in: {checked}");
    }
    let expected = Ground::rows(&ground.cluster);
    let highwater = Highwater::new(&scratch, "reader", &ground.cluster).repository("az", &reader);
    let (copy, _) = Ground { highwater, ..ground }.restore(&scratch, "copy");
    assert_eq!(Ground::rows(&copy), expected);
    copy.stop_proven();
    let refused = |answer: Result<(), StoreError>| {
        assert!(matches!(answer, Err(StoreError::PermissionDenied { .. })), "{answer:?}");
    };
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let reads_only = store::open(&reader).expect("open");
        refused(reads_only.create("new", vec![]).await.map(drop));
        refused(reads_only.delete("highwater.json").await);
        assert!(reads_only.head("highwater.json").await.expect("head").is_some());
        for spec in [writer, reader] {
            let elsewhere = StoreSpec { url: "az://another/p".into(), ..spec };
            let elsewhere = store::open(&elsewhere).expect("open");
            refused(elsewhere.get("a").await.map(drop));
            refused(elsewhere.list("").await.map(drop));
            refused(elsewhere.create("a", vec![]).await.map(drop));
        }
    });
}

/// A repository whose keys a token service hands out for a while each, to a web identity that a file holds.
fn of_web_identity(
    scratch: &Scratch,
    server: &S3Server,
    token_service: &str,
    authority: &Authority,
) -> StoreSpec {
    StoreSpec {
        access_key_id: None,
        secret_access_key: None,
        credentials: Credentials::WebIdentity,
        web_identity_token_file: Some(scratch.file("token", TOKEN)),
        role_arn: Some("arn:role".into()),
        sts_endpoint: Some(token_service.to_owned()),
        ca_file: Some(scratch.file("ca.pem", authority.certificate_pem())),
        no_proxy: Some("127.0.0.1".into()),
        ..server.spec(PREFIX)
    }
}

/// A backup and a restore that last longer than any key that they have: the service, by its own clock, takes none that has ended.
fn outlive_keys(ground: &Ground, scratch: &Scratch, server: &S3Server, life: Duration) {
    // Each request takes its time, but no longer than a segment can wait for several of them; in the long run one takes more.
    let (latency, is_long) = (scale().pick(life / 16, life / 30), scale() == Scale::Soak);
    let slow = || {
        if is_long {
            server.faults().delay_next("/packs/", life * 5 / 12);
        }
    };
    server.faults().set_latency(latency);
    slow();
    let begun = Instant::now();
    ground.highwater.ok(&["backup", "--fast-checkpoint"]);
    assert!(begun.elapsed() > life, "the backup was too quick to prove anything: {:?}", begun.elapsed());
    let (target, map) = (scratch.join("slow"), Ground::tablespace_map(scratch, "slow"));
    slow();
    let begun = Instant::now();
    ground.highwater.ok(&["restore", "--target-dir", &target.to_string_lossy(), "--tablespace-map", &map]);
    assert!(begun.elapsed() > life, "the restore was too quick to prove anything: {:?}", begun.elapsed());
    server.faults().set_latency(Duration::ZERO);
}

/// I4: on a service that ignores conditional puts, `init` finds that out, names carry the content, and all the rest is the same.
/// What lets us in are keys of a web identity that live for seconds, or in the long run for a minute: the program, the archiver's commands and the restored server's
/// each get their own, and renew them on the way.
#[test]
fn a_service_that_ignores_conditions_is_found_out_and_still_serves() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    server.faults().ignore_conditions(true);
    let authority = Authority::new();
    let life = Duration::from_secs(scale().pick(4, 60));
    let identities = Identities::start(Arc::clone(server.keys()), life);
    let token_service = authority.in_front_of(identities.server().address());
    let url = format!("https://{}", token_service.address());
    let ground = Ground::new(newest(), &scratch, |highwater| {
        highwater.repository("s3", &of_web_identity(&scratch, &server, &url, &authority))
    });
    let expected = Ground::rows(&ground.cluster);
    let keys = server.objects().keys();
    assert!(keys.iter().any(|key| key.starts_with("some/prefix/highwater.json.")), "{keys:?}");
    let checked = ground.highwater.ok(&["check"]);
    assert!(checked.contains("ignores conditional creates; names carry the content"), "{checked}");
    assert!(checked.contains("credentials: the web identity in"), "{checked}");
    outlive_keys(&ground, &scratch, &server, life);
    let (_, before) = server.keys().issued_and_used();
    // Where nobody looks at a terminal, a slow transfer says a line every ten seconds.
    server.faults().delay_next("/packs/", Duration::from_millis(10_500));
    let (copy, said) = ground.restore(&scratch, "copy");
    let lines: Vec<&str> = said.lines().filter(|line| line.starts_with("restoring: ")).collect();
    assert!(matches!(lines.as_slice(), [line, ..] if line.contains(" MiB of ")), "{said}");
    assert!(!said.contains('\r') && !said.contains('\u{1b}'), "{said}");
    assert_eq!(Ground::rows(&copy), expected);
    let (_, used) = server.keys().issued_and_used();
    assert!(used >= before + 3, "the restore and the restored server's commands had {} keys", used - before);
    copy.stop_proven();
    mirror(&server, &scratch.dir("mirror"));
    rebuild(&scratch, &ground, &scratch.join("mirror"), &scratch.join("s3.key"), &expected);
    tell_campaign(&format!(
        "a backup and a restore outlived keys of {} s; {used} keys in all",
        life.as_secs()
    ));
}
