//! Services that are not ours, behind TLS under a private authority.

use highwater_archive::store::{self, Created, StoreError, StoreSpec, UploadChecksum};
use highwater_tests::Scratch;
use highwater_tests::azurite::Azurite;
use highwater_tests::conformance::conforms;
use highwater_tests::seaweedfs::SeaweedFs;

use super::{assert_young, create};

/// Starts a service, which brings a runtime of its own for that.
fn started<T: Send>(start: fn(&Scratch) -> T, scratch: &Scratch) -> T {
    tokio::task::block_in_place(|| {
        std::thread::scope(|scope| scope.spawn(|| start(scratch)).join().expect("a service"))
    })
}

/// The suite at a prefix; and that a bucket or container that is not there is named.
async fn a_service_conforms(spec: &StoreSpec) {
    let store = store::open(spec).expect("open");
    assert_eq!(create(&*store, "first", "x").await, Created::New);
    assert_young(&*store, "first").await;
    conforms(store).await;
    let url = spec.url.replace("backups", "other-backups");
    let elsewhere = store::open(&StoreSpec { url, ..spec.clone() }).expect("open");
    for answer in [elsewhere.get("a").await.map(drop), elsewhere.list("").await.map(drop)] {
        assert!(matches!(answer, Err(StoreError::NoRoot { .. })), "{answer:?}");
    }
}

/// I3, I4: SeaweedFS, for S3; also with content that is not signed and each checksum in its place.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn seaweedfs_conforms() {
    let scratch = Scratch::in_memory();
    let server = started(SeaweedFs::start, &scratch);
    a_service_conforms(&server.spec("at/a/prefix")).await;
    for (name, checksum) in [("crc64nvme", None), ("sha256", Some(UploadChecksum::Sha256))] {
        let spec = StoreSpec { unsigned_payload: true, upload_checksum: checksum, ..server.spec("unsigned") };
        let store = store::open(&spec).expect("open");
        assert_eq!(create(&*store, name, "content").await, Created::New);
        assert_eq!(create(&*store, name, "another").await, Created::Exists);
        assert_eq!(store.get(name).await.expect("get"), "content");
    }
}

/// I3, I4: Azurite, for Azure Blob.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "needs Azurite, which ./dev test fetches where npm's registry is reached"]
async fn azurite_conforms() {
    let scratch = Scratch::in_memory();
    let server = started(Azurite::start, &scratch);
    a_service_conforms(&server.spec("at/a/prefix")).await;
}
