//! The policies of `docs/storage.md`, as they stand there: each is enough for its host, and none reaches another cluster. Once on our own
//! service, which tells of absence as AWS does, and once on SeaweedFS, which is not ours and reads policies by itself.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_archive::store::{self, Created, Store, StoreError, StoreSpec};
use highwater_tests::s3::{Policy, S3Server};
use highwater_tests::seaweedfs::SeaweedFs;
use highwater_tests::{Cluster, Highwater, Scratch, newest};

use crate::ground::Ground;

/// A document of the page, by its name behind the fence.
fn document(name: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/storage.md");
    let page = fs::read_to_string(page).expect("docs/storage.md");
    let begin = format!("```json {name}\n");
    let (_, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no policy {name}"));
    rest.split("```").next().expect("a document").to_owned()
}

/// A service in which each host has a key of its own.
struct Tenancy<'a> {
    /// The whole bucket, by a key that may do everything.
    all: Arc<dyn Store>,
    /// How a host opens its repository.
    of_host: &'a dyn Fn(&str) -> StoreSpec,
    /// What was refused since this was asked last, where the service tells: `operation key`.
    take_denied: &'a dyn Fn() -> Vec<String>,
    /// How often the service is asked once more whether its conditional creates hold: its locks may end by a clock of their own.
    locks_may_end: u32,
}

/// What a check says that passes, of creates that hold.
fn checked(highwater: &Highwater, mut again: u32) -> String {
    loop {
        let finished = highwater.run(&["check"]);
        if again == 0 || finished.code == Some(0) || !finished.stdout.contains("do not hold in a race") {
            return finished.success();
        }
        again -= 1;
    }
}

impl Tenancy<'_> {
    fn store(&self, host: &str) -> Arc<dyn Store> {
        store::open(&(self.of_host)(host)).expect("open")
    }

    /// Whatever is asked of these places is refused, and nothing is there or gone afterwards.
    async fn cannot(&self, host: &str, reads: &[&str], writes: &[&str]) {
        let store = self.store(host);
        // PostgreSQL may archive meanwhile.
        let others = async || {
            let entries = self.all.list("").await.expect("list").into_iter();
            let keys = entries.map(|entry| entry.path).filter(|key| !key.contains("/wal/0"));
            keys.collect::<Vec<String>>()
        };
        let before = others().await;
        let refused = |answer: Result<(), StoreError>, what: &str, path: &str| {
            let is_refused = matches!(answer, Err(StoreError::PermissionDenied { .. }));
            assert!(is_refused, "{host}: {what} {path:?}: {answer:?}");
        };
        for path in reads {
            refused(store.list(path).await.map(drop), "list", path);
            let name = format!("{path}x");
            refused(store.get(&name).await.map(drop), "get", &name);
            refused(store.head(&name).await.map(drop), "head", &name);
        }
        for path in writes {
            let name = format!("{path}x");
            let created = store.create(&name, vec![Bytes::from_static(b"x")]).await;
            refused(created.map(|_| ()), "create", &name);
            refused(store.delete(&name).await, "delete", &name);
        }
        assert_eq!(others().await, before);
    }

    /// A writer, a restorer and a drill host of one cluster, each with what it needs and no more.
    fn hosts_stand_apart(&self, scratch: &Scratch) {
        let ground =
            Ground::new(newest(), scratch, |highwater| highwater.repository("s3", &(self.of_host)("writer")));
        let checked = checked(&ground.highwater, self.locks_may_end);
        let source = format!(
            "credentials: access_key_id of the configuration, its secret from repository.s3.secret_access_key_file {}",
            scratch.join("main.s3.secret_access_key").display()
        );
        for words in [source.as_str(), "conditional creates hold"] {
            assert!(checked.contains(words), "{words} is not in: {checked}");
        }
        ground.highwater.ok(&["list"]);
        let expected = Ground::rows(&ground.cluster);
        let nowhere = scratch.join("absent");
        let absent = ["archive-get", "0000000100000000000000F0", &nowhere.to_string_lossy()];
        let told = ground.highwater.run(&absent);
        assert_eq!(told.code, Some(1), "a segment that is not there: {told}");

        let runtime = tokio::runtime::Runtime::new().expect("a runtime");
        let others = ["clusters/other/", "clusters/main2/", "clusters/", "keys/"];
        let lineage = runtime.block_on(async {
            // Another cluster lies beside it.
            for key in ["pg/clusters/other/cluster.json", "pg/clusters/main2/x", "elsewhere/x"] {
                let created = self.all.create(key, vec![Bytes::from_static(b"another's")]).await;
                assert_eq!(created.expect("another's"), Created::New);
            }
            let of_main = self.all.list_dir("pg/clusters/main").await.expect("list").directories;
            of_main
                .into_iter()
                .find_map(|path| path.rsplit('/').next().filter(|name| name.len() == 32).map(str::to_owned))
        });
        let lineage = lineage.expect("a lineage");
        let (wal, drills) =
            (format!("clusters/main/{lineage}/wal/"), format!("clusters/main/{lineage}/drills/"));
        runtime.block_on(async {
            self.cannot("writer", &others, &others).await;
            // What is stored stays: only the probe's own objects can be deleted.
            let deleted = self.store("writer").delete(&format!("{wal}x")).await;
            assert!(matches!(deleted, Err(StoreError::PermissionDenied { .. })), "{deleted:?}");
        });

        for name in ["restorer", "drill"] {
            (self.take_denied)();
            let host = Highwater::new(scratch, name, &ground.cluster).repository("s3", &(self.of_host)(name));
            assert!(host.ok(&["list"]).contains(&ground.backup));
            let target = scratch.join(name);
            let map = Ground::tablespace_map(scratch, name);
            host.ok(&["restore", "--target-dir", &target.to_string_lossy(), "--tablespace-map", &map]);
            let copy = Cluster::open(ground.cluster.postgres(), scratch, name, &target);
            copy.start();
            copy.wait_until_writable();
            assert_eq!(Ground::rows(&copy), expected);
            copy.stop_proven();
            // What is not there is told as forbidden, and a list tells the two apart; nothing else was refused.
            let denied = (self.take_denied)();
            let are_reads = denied.iter().all(|what| what.starts_with("Get ") || what.starts_with("Head "));
            assert!(are_reads, "{denied:#?}");
            runtime.block_on(async {
                self.cannot(name, &others, &others).await;
                let writes = ["", "probe/", "clusters/main/", wal.as_str()];
                self.cannot(name, &[], &writes).await;
                let evidence = self.store(name).create(&format!("{drills}{name}"), vec![]).await;
                assert_eq!(evidence.is_ok(), name == "drill", "{evidence:?}");
            });
        }
    }
}

#[test]
fn each_policy_is_enough_and_reaches_no_other_cluster() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let of_host = |name: &str| {
        let id = format!("KEYOF{name}");
        let secret = server.keys().limit(&id, Policy::parse(&document(name)));
        StoreSpec {
            access_key_id: Some(id.into()),
            secret_access_key: Some(secret.into()),
            ..server.spec("pg")
        }
    };
    let all = server.store("").expect("open");
    let take_denied = || server.faults().take_denied();
    Tenancy { all, of_host: &of_host, take_denied: &take_denied, locks_may_end: 0 }
        .hosts_stand_apart(&scratch);
}

/// A whole S3 service that is not ours, over TLS: backed up into, checked, and restored from, by hosts that its own IAM limits. The
/// signatures leave the content out, and a checksum guards it.
#[test]
fn a_cluster_lives_in_seaweedfs_whose_iam_keeps_hosts_apart() {
    let scratch = Scratch::new();
    let policies = ["writer", "restorer", "drill"].map(|name| (name, document(name)));
    let server = SeaweedFs::with_policies(&scratch, &policies);
    let of_host = |name: &str| StoreSpec { unsigned_payload: true, ..server.spec_limited("pg", name) };
    let all = store::open(&server.spec("")).expect("open");
    // A lock of SeaweedFS is for five seconds, which on a machine that is busy enough may be over before the create is.
    Tenancy { all, of_host: &of_host, take_denied: &Vec::new, locks_may_end: 4 }.hosts_stand_apart(&scratch);
}
