#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use super::lineage::{Lineage, LineageRecord};
use super::*;
use crate::keyring::KeyClass;
use crate::names::LineageId;
use crate::repository::lineage::ClosedRecord;
use crate::seal::{Codec, ObjectKind, SealError};
use crate::store::Created;
use crate::store::memory::{Fault, MemoryStore, Operation};
use crate::testing;

fn now() -> Timestamp {
    "2026-11-20T07:00:00Z".parse().unwrap()
}

fn params(names: NameMode) -> CreateParams {
    CreateParams { names, extent_bytes: DEFAULT_EXTENT_BYTES, now: now() }
}

fn store() -> (MemoryStore, Arc<dyn Store>) {
    let store = MemoryStore::new();
    (store.clone(), Arc::new(store))
}

fn key() -> (Unlock, Recipients) {
    let (unlock, _) = Unlock::generate(now());
    let recipients = unlock.recipients().unwrap();
    (unlock, recipients)
}

fn name(text: &str) -> ClusterName {
    text.parse().unwrap()
}

async fn repository() -> (MemoryStore, Repository) {
    let (memory, store) = store();
    (memory, Repository::create(store, params(NameMode::Plain)).await.unwrap().0)
}

fn record(cluster: &Cluster, system_identifier: u64) -> LineageRecord {
    let lineage = LineageId::random().unwrap();
    LineageRecord { lineage, system_identifier, created_at: now(), ..testing::record(cluster.id()) }
}

/// From a blank host: the store and the key are enough.
#[tokio::test]
async fn a_repository_describes_itself() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let (memory, store) = store();
        let (unlock, recipients) = key();
        let (repository, new) = Repository::create(store.clone(), params(mode)).await.unwrap();
        assert!(new);
        let (cluster, new) =
            repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
        assert!(new);
        let lineage = cluster.create_lineage(record(&cluster, 7)).await.unwrap();
        assert_eq!(
            lineage.create(ObjectKind::Intent, "x", Codec::None, b"content").await.unwrap(),
            Created::New
        );

        let again = Repository::open(store).await.unwrap();
        assert_eq!(again.info(), repository.info());
        assert_eq!(again.clusters().await.unwrap(), [name("main")]);
        let opened = again.cluster(&name("main")).await.unwrap().unlock(&unlock).await.unwrap();
        opened.keys().check_pin(cluster.keys().fingerprint()).unwrap();
        let lineages = opened.lineages().await.unwrap();
        assert_eq!(lineages[0].record(), lineage.record());
        assert_eq!(lineages[0].read(ObjectKind::Intent, "x").await.unwrap(), b"content");
        assert_eq!(lineages[0].list("").await.unwrap().last().unwrap().path, "x");

        let plain = memory.paths().contains(&"clusters/main/keys/00000001.age".to_owned());
        assert_eq!(plain, mode == NameMode::Plain, "{:?}", memory.paths());
    }
}

/// The plain objects are as docs/format.md shows them.
#[tokio::test]
async fn plain_objects_are_as_the_format_says() {
    let (memory, repository) = repository().await;
    let (unlock, recipients) = key();
    let (cluster, _) = repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
    let text = |path: &str| String::from_utf8(memory.peek(path).unwrap().to_vec()).unwrap();
    assert_eq!(
        text("highwater.json"),
        format!(
            "{{\"format\":\"highwater\",\"version\":1,\"min_reader\":1,\"min_writer\":1,\"repository_id\":\"{}\",\
             \"names\":\"plain\",\"extent_bytes\":1048576,\"created_at\":\"2026-11-20T07:00:00Z\",\
             \"created_by\":\"highwater {}\"}}",
            repository.info().repository_id,
            env!("CARGO_PKG_VERSION")
        )
    );
    assert_eq!(
        text("clusters/main/cluster.json"),
        format!(
            "{{\"name\":\"main\",\"cluster_id\":\"{}\",\"created_at\":\"2026-11-20T07:00:00Z\"}}",
            cluster.id()
        )
    );
    let lineage = cluster.create_lineage(record(&cluster, 7_000_000_000_000_000_001)).await.unwrap();
    let json = String::from_utf8(lineage.read(ObjectKind::Lineage, "lineage").await.unwrap()).unwrap();
    assert_eq!(
        json,
        format!(
            "{{\"lineage\":\"{}\",\"cluster_id\":\"{}\",\"system_identifier\":\"7000000000000000001\",\"pg_major\":17,\
             \"wal_segment_bytes\":16777216,\"block_bytes\":8192,\"parent\":null,\"parent_timeline\":null,\
             \"fork_lsn\":null,\"created_at\":\"2026-11-20T07:00:00Z\",\"reason\":\"init\"}}",
            lineage.id(),
            cluster.id()
        )
    );
}

/// I5: two inits at once make one repository, one cluster and one keyring, and both use it.
#[tokio::test]
async fn two_inits_at_once_agree() {
    let (memory, store) = store();
    let (unlock, recipients) = key();
    let init = async || {
        let (repository, _) = Repository::create(store.clone(), params(NameMode::Plain)).await.unwrap();
        let (cluster, _) =
            repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
        (repository.info().repository_id, cluster.id(), cluster.keys().fingerprint())
    };
    let (a, b, c) = tokio::join!(init(), init(), init());
    assert!(a == b && b == c);
    assert_eq!(memory.paths().len(), 3);
}

/// I4: on a store that ignores conditions two inits at once never both believe in a repository of their own.
#[tokio::test]
async fn two_inits_without_conditional_creates_do_not_overwrite() {
    let (memory, store) = store();
    memory.ignore_conditions(true);
    let init = async || Repository::create(store.clone(), params(NameMode::Content)).await;
    let (a, b) = tokio::join!(init(), init());
    let ids: Vec<_> =
        [a, b].into_iter().flatten().map(|(repository, _)| repository.info().repository_id).collect();
    assert!(ids.windows(2).all(|pair| pair[0] == pair[1]), "{ids:?}");
}

/// An init that was cut off at any request is completed by the next.
#[tokio::test]
async fn a_cut_init_is_completed() {
    let (unlock, recipients) = key();
    for cut in ["highwater.json", "cluster.json", "00000001.age"] {
        for fault in [Fault::FailBefore, Fault::FailAfter] {
            let (memory, store) = store();
            memory.inject(Operation::Create, cut, fault, false);
            let init = async || -> Result<_, RepositoryError> {
                let (repository, _) = Repository::create(store.clone(), params(NameMode::Plain)).await?;
                repository.create_cluster(&name("main"), &unlock, &recipients, now()).await
            };
            assert!(matches!(init().await, Err(RepositoryError::Store(_))), "{cut}");
            let (cluster, _) = init().await.unwrap();
            assert_eq!(cluster.keys().cluster_id(), cluster.id());
        }
    }
}

/// One cluster's key opens nothing of another's: not its keyring, not an object copied over.
#[tokio::test]
async fn clusters_stand_apart() {
    let (memory, repository) = repository().await;
    let ((one_key, one_recipients), (two_key, two_recipients)) = (key(), key());
    let (one, _) = repository.create_cluster(&name("one"), &one_key, &one_recipients, now()).await.unwrap();
    let (two, _) = repository.create_cluster(&name("two"), &two_key, &two_recipients, now()).await.unwrap();
    let locked = repository.cluster(&name("one")).await.unwrap();
    let error = locked.unlock(&two_key).await.unwrap_err();
    assert!(
        matches!(error, RepositoryError::Keyring { source: KeyringError::WrongKey { .. }, .. }),
        "{error}"
    );

    let lineage = one.create_lineage(record(&one, 7)).await.unwrap();
    assert_eq!(lineage.create(ObjectKind::Intent, "x", Codec::None, b"content").await.unwrap(), Created::New);
    // The same system identifier, the same lineage id, the same path: still nothing opens.
    let twin =
        two.create_lineage(LineageRecord { cluster_id: two.id(), ..lineage.record().clone() }).await.unwrap();
    memory.tamper(&twin.full_path("x"), memory.peek(&lineage.full_path("x")).unwrap());
    let error = twin.read(ObjectKind::Intent, "x").await.unwrap_err();
    assert!(matches!(error, LineageError::Seal(SealError::HeaderMac { .. })), "{error}");

    // The keyring of one put in the place of the other's, for a host that holds both keys.
    memory.tamper("clusters/two/keys/00000001.age", memory.peek("clusters/one/keys/00000001.age").unwrap());
    let error = repository.cluster(&name("two")).await.unwrap().unlock(&one_key).await.unwrap_err();
    assert!(matches!(error, RepositoryError::ForeignKeyring { .. }), "{error}");
}

/// The same key for two clusters (one person, one key file): their keyrings, and so their objects, still stand apart.
#[tokio::test]
async fn one_key_for_two_clusters_mixes_nothing() {
    let (memory, repository) = repository().await;
    let (unlock, recipients) = key();
    let (one, _) = repository.create_cluster(&name("one"), &unlock, &recipients, now()).await.unwrap();
    let (two, _) = repository.create_cluster(&name("two"), &unlock, &recipients, now()).await.unwrap();
    let a = one.create_lineage(record(&one, 7)).await.unwrap();
    let b = two.create_lineage(record(&two, 7)).await.unwrap();
    assert_eq!(a.create(ObjectKind::Intent, "x", Codec::None, b"content").await.unwrap(), Created::New);
    memory.tamper(&b.full_path("x"), memory.peek(&a.full_path("x")).unwrap());
    assert!(b.read(ObjectKind::Intent, "x").await.is_err());
    assert_ne!(one.keys().digest(b"x"), two.keys().digest(b"x"));
}

/// I1: two lineages with one system identifier and one timeline coexist; nothing of one opens in the other.
#[tokio::test]
async fn two_lineages_of_one_system_identifier_coexist() {
    let (memory, repository) = repository().await;
    let (unlock, recipients) = key();
    let (cluster, _) = repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
    let first = cluster.create_lineage(record(&cluster, 7)).await.unwrap();
    let second = cluster.create_lineage(LineageRecord {
        parent: Some(first.id()),
        fork_lsn: Some("0/5000000".parse().unwrap()),
        created_at: "2026-11-20T08:00:00Z".parse().unwrap(),
        reason: "adopt".into(),
        ..record(&cluster, 7)
    });
    let second = second.await.unwrap();
    for (lineage, content) in [(&first, b"one"), (&second, b"two")] {
        assert_eq!(
            lineage.create(ObjectKind::Intent, "x", Codec::None, content).await.unwrap(),
            Created::New
        );
    }
    assert_eq!(first.read(ObjectKind::Intent, "x").await.unwrap(), b"one");
    assert_eq!(second.read(ObjectKind::Intent, "x").await.unwrap(), b"two");
    let listed: Vec<_> = cluster.lineages().await.unwrap().iter().map(Lineage::id).collect();
    assert_eq!(listed, [first.id(), second.id()]);
    memory.tamper(&second.full_path("x"), memory.peek(&first.full_path("x")).unwrap());
    assert!(second.read(ObjectKind::Intent, "x").await.is_err());
    // Nor does the record itself: a lineage cannot be passed off as another.
    memory.tamper(&second.full_path("lineage"), memory.peek(&first.full_path("lineage")).unwrap());
    assert!(cluster.lineage(second.id()).await.is_err());
}

/// I1: a lineage that was ended is not written, and says how it ended.
#[tokio::test]
async fn a_lineage_that_has_ended_is_closed() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let (_, store) = store();
        let (unlock, recipients) = key();
        let (repository, _) = Repository::create(store, params(mode)).await.unwrap();
        let (cluster, _) =
            repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
        let lineage = cluster.create_lineage(record(&cluster, 7)).await.unwrap();
        lineage.require_open().await.unwrap();
        let successor = Some(LineageId::random().unwrap());
        let record = ClosedRecord { successor, closed_at: now(), reason: "adopt".into() };
        let json = serde_json::to_vec(&record).unwrap();
        let closed =
            lineage.create_racing(ObjectKind::Closed, names::CLOSED, Codec::None, &json).await.unwrap();
        assert!(matches!(closed, Published::New));
        assert!(lineage.is_closed().await.unwrap());
        let error = lineage.require_open().await.unwrap_err();
        assert!(matches!(&error, LineageError::Closed { closed, .. } if **closed == record), "{error}");
    }
}

/// A repository of a later writer is read, and refused for writing with the version it needs; of a later reader, refused.
#[tokio::test]
async fn a_later_format_is_read_or_refused_by_its_number() {
    let (memory, repository) = repository().await;
    let (unlock, recipients) = key();
    let (cluster, _) = repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
    let lineage = cluster.create_lineage(record(&cluster, 7)).await.unwrap();
    assert_eq!(lineage.create(ObjectKind::Intent, "x", Codec::None, b"content").await.unwrap(), Created::New);

    let mut info = repository.info().clone();
    info.min_writer = 2;
    let mut json = serde_json::to_value(&info).unwrap();
    json["a_key_of_the_future"] = true.into();
    memory.tamper("highwater.json", serde_json::to_vec(&json).unwrap());
    let later = Repository::open(Arc::new(memory.clone())).await.unwrap();
    let opened = later.cluster(&name("main")).await.unwrap().unlock(&unlock).await.unwrap();
    let read = opened.lineages().await.unwrap().remove(0);
    assert_eq!(read.read(ObjectKind::Intent, "x").await.unwrap(), b"content");
    let refused = read.create(ObjectKind::Intent, "y", Codec::None, b"content").await.unwrap_err();
    assert!(refused.to_string().contains("writer version 2"), "{refused}");
    assert!(opened.create_lineage(record(&opened, 7)).await.is_err());
    assert!(later.create_cluster(&name("other"), &unlock, &recipients, now()).await.is_err());
    assert!(!memory.paths().iter().any(|path| path.ends_with("/y") || path.contains("other")));

    info.min_reader = 3;
    memory.tamper("highwater.json", serde_json::to_vec(&info).unwrap());
    let error = Repository::open(Arc::new(memory)).await.unwrap_err();
    assert!(error.to_string().contains("reader version 3"), "{error}");
    assert!(error.hint().is_some());
}

/// I7, I8: after a rotation old objects open, new ones use the new key, and two rotations at once do not both count.
#[tokio::test]
async fn generations_are_appended_once() {
    let (_, repository) = repository().await;
    let (unlock, recipients) = key();
    let (cluster, _) = repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
    let lineage = cluster.create_lineage(record(&cluster, 7)).await.unwrap();
    assert_eq!(lineage.create(ObjectKind::Segment, "x", Codec::None, b"old").await.unwrap(), Created::New);
    let next = || cluster.keys().next_generation(&[KeyClass::Content], &recipients, now()).unwrap();
    let rotated = cluster.append_generation(next(), &recipients).await.unwrap();
    assert!(matches!(
        cluster.append_generation(next(), &recipients).await,
        Err(RepositoryError::Keyring { .. })
    ));

    let opened = repository.cluster(&name("main")).await.unwrap().unlock(&unlock).await.unwrap();
    assert_eq!(opened.keys().generation(), 2);
    assert_eq!(opened.keys().fingerprint(), cluster.keys().fingerprint());
    assert_eq!(opened.wrapped_keyring(), rotated.wrapped_keyring());
    let after = opened.lineage(lineage.id()).await.unwrap();
    assert_eq!(after.read(ObjectKind::Segment, "x").await.unwrap(), b"old");
    assert_eq!(after.create(ObjectKind::Segment, "y", Codec::None, b"new").await.unwrap(), Created::New);
    assert_eq!(after.read(ObjectKind::Segment, "y").await.unwrap(), b"new");
    assert!(lineage.read(ObjectKind::Segment, "y").await.is_err());
}

/// What lies at a plain object's place and is none is named, and never taken for absence.
#[tokio::test]
async fn damage_is_not_absence() {
    let (memory, repository) = repository().await;
    let (unlock, recipients) = key();
    repository.create_cluster(&name("main"), &unlock, &recipients, now()).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(memory.clone());
    for bad in [&b""[..], b"{}", b"null", &[b' '; 70_000]] {
        memory.tamper("highwater.json", bad);
        let error = Repository::open(store.clone()).await.unwrap_err();
        assert!(matches!(error, RepositoryError::Malformed { .. }), "{error}");
        // And an init does not write over it.
        assert!(Repository::create(store.clone(), params(NameMode::Plain)).await.is_err());
    }
    // Where clusters are there, it is lost: nothing is made anew beside them.
    memory.lose("highwater.json");
    assert!(matches!(Repository::open(store.clone()).await, Err(RepositoryError::Malformed { .. })));
    assert!(Repository::create(store.clone(), params(NameMode::Plain)).await.is_err());
    memory.lose("clusters/main/cluster.json");
    let made = repository.create_cluster(&name("main"), &unlock, &recipients, now()).await;
    assert!(matches!(made, Err(RepositoryError::Malformed { .. })));
    memory.lose("clusters/main/keys/00000001.age");
    assert!(matches!(Repository::open(store.clone()).await, Err(RepositoryError::NotARepository { .. })));
    memory.inject(Operation::GetRange, "cluster.json", Fault::FailBefore, true);
    assert!(matches!(repository.cluster(&name("main")).await, Err(RepositoryError::Store(_))));
    assert!(matches!(
        repository.create_cluster(&name("main"), &unlock, &recipients, now()).await,
        Err(RepositoryError::Store(_))
    ));
}
