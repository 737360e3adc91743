//! The policies of `docs/storage.md`, as they stand there: each is enough for its host, and none reaches another cluster.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_archive::store::{self, Store, StoreError, StoreSpec};
use highwater_tests::s3::{Policy, S3Server};
use highwater_tests::{Cluster, Highwater, Scratch, newest};

use crate::ground::Ground;

/// A document of the page, by its name behind the fence.
fn policy(name: &str) -> Policy {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/storage.md");
    let page = fs::read_to_string(page).expect("docs/storage.md");
    let begin = format!("```json {name}\n");
    let (_, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("no policy {name}"));
    Policy::parse(rest.split("```").next().expect("a document"))
}

/// A key that only this document limits.
struct Key {
    id: String,
    secret: String,
}

impl Key {
    fn of(server: &S3Server, name: &str) -> Self {
        let id = format!("KEYOF{name}");
        let secret = server.keys().limit(&id, policy(name));
        Self { id, secret }
    }

    fn spec(&self, server: &S3Server) -> StoreSpec {
        StoreSpec {
            access_key_id: Some(self.id.clone().into()),
            secret_access_key: Some(self.secret.clone().into()),
            ..server.spec("pg")
        }
    }

    fn store(&self, server: &S3Server) -> Arc<dyn Store> {
        store::open(&self.spec(server)).expect("open")
    }

    /// Whatever is asked of these places is refused, and nothing is there or gone afterwards.
    async fn cannot(&self, server: &S3Server, reads: &[&str], writes: &[&str]) {
        let store = self.store(server);
        // PostgreSQL may archive meanwhile.
        let others = || {
            let keys = server.objects().keys().into_iter();
            keys.filter(|key| !key.contains("/wal/0")).collect::<Vec<String>>()
        };
        let before = others();
        let refused = |answer: Result<(), StoreError>, what: &str, path: &str| {
            assert!(
                matches!(answer, Err(StoreError::PermissionDenied { .. })),
                "{}: {what} {path:?}: {answer:?}",
                self.id
            );
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
        assert_eq!(others(), before);
    }
}

/// The tenants stand apart: a writer, a restorer and a drill host of one cluster, each with what it needs and no more.
#[test]
fn each_policy_is_enough_and_reaches_no_other_cluster() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let writer = Key::of(&server, "writer");
    let ground =
        Ground::new(newest(), &scratch, |highwater| highwater.repository("s3", &writer.spec(&server)));
    ground.highwater.ok(&["check"]);
    ground.highwater.ok(&["list"]);
    let expected = Ground::rows(&ground.cluster);
    let nowhere = scratch.join("absent");
    let told = ground.highwater.run(&["archive-get", "0000000100000000000000F0", &nowhere.to_string_lossy()]);
    assert_eq!(told.code, Some(1), "a segment that is not there: {told}");

    // Another cluster lies beside it.
    for key in ["pg/clusters/other/cluster.json", "pg/clusters/main2/x", "elsewhere/x"] {
        server.objects().put(key, Bytes::from_static(b"another's"));
    }
    let lineage = server.objects().keys().into_iter().find_map(|key| {
        let rest = key.strip_prefix("pg/clusters/main/")?;
        rest.split('/').next().filter(|name| name.len() == 32).map(str::to_owned)
    });
    let lineage = lineage.expect("a lineage");
    let others = ["clusters/other/", "clusters/main2/", "clusters/", "keys/"];
    let drills = format!("clusters/main/{lineage}/drills/");
    let wal = format!("clusters/main/{lineage}/wal/");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        writer.cannot(&server, &others, &others).await;
        // What is stored stays: only the probe's own objects can be deleted.
        let deleted = writer.store(&server).delete(&format!("{wal}x")).await;
        assert!(matches!(deleted, Err(StoreError::PermissionDenied { .. })), "{deleted:?}");
    });

    for name in ["restorer", "drill"] {
        let key = Key::of(&server, name);
        server.faults().take_denied();
        let host = Highwater::new(&scratch, name, &ground.cluster).repository("s3", &key.spec(&server));
        assert!(host.ok(&["list"]).contains(&ground.backup));
        let target = scratch.join(name);
        let map = Ground::tablespace_map(&scratch, name);
        host.ok(&["restore", "--target-dir", &target.to_string_lossy(), "--tablespace-map", &map]);
        let copy = Cluster::open(ground.cluster.postgres(), &scratch, name, &target);
        copy.start();
        copy.wait_until_writable();
        assert_eq!(Ground::rows(&copy), expected);
        copy.stop_proven();
        // What is not there is told as forbidden, and a list tells the two apart; nothing else was refused.
        let denied = server.faults().take_denied();
        assert!(
            denied.iter().all(|what| what.starts_with("Get ") || what.starts_with("Head ")),
            "{denied:#?}"
        );
        runtime.block_on(async {
            key.cannot(&server, &others, &others).await;
            let writes = ["", "probe/", "clusters/main/", wal.as_str()];
            key.cannot(&server, &[], &writes).await;
            let evidence = key.store(&server).create(&format!("{drills}{name}"), vec![]).await;
            assert_eq!(evidence.is_ok(), name == "drill", "{evidence:?}");
        });
    }
}
