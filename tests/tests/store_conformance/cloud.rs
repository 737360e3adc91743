//! S3, Google Cloud Storage and Azure Blob: the shared suite, and what there is to show of each beside it.

use highwater_archive::store::{self, Created, StoreError, StoreSpec};
use highwater_tests::az::{self, AzServer};
use highwater_tests::cloud::CloudServer;
use highwater_tests::conformance::conforms;
use highwater_tests::gs::{self, GsServer};
use highwater_tests::s3::{Fault, Operation, Response, S3Server};

use super::{assert_young, create};

for_each_provider!(it_conforms, a_missing_root_is_named, each_call_is_one_request);

/// I3, I4: at a prefix and at the whole of a bucket or container.
async fn it_conforms(service: CloudServer) {
    let store = service.store("at/a/prefix");
    assert_eq!(create(&*store, "first", "x").await, Created::New);
    assert_young(&*store, "first").await;
    conforms(store).await;
    let keys = service.objects().keys();
    assert!(keys.iter().all(|key| key.starts_with("at/a/prefix/")));
    for key in keys {
        service.objects().remove(&key);
    }
    conforms(service.store("")).await;
}

/// I14's ground: whatever is asked of a bucket that is not there, the answer names the bucket, and no object as absent.
async fn a_missing_root_is_named(service: CloudServer) {
    let service = service.spec("");
    let (scheme, _) = service.url.split_once("://").expect("a URL");
    let elsewhere = StoreSpec { url: format!("{scheme}://other-bucket/p"), ..service.clone() };
    let elsewhere = store::open(&elsewhere).expect("open");
    for answer in [
        elsewhere.get("a").await.map(|_| ()),
        elsewhere.get_range("a", 0..1).await.map(|_| ()),
        elsewhere.head("a").await.map(|_| ()),
        elsewhere.list("a").await.map(|_| ()),
        elsewhere.list_dir("a").await.map(|_| ()),
        elsewhere.stream("a").await.map(|_| ()),
        elsewhere.create("a", vec![]).await.map(|_| ()),
        elsewhere.delete("a").await,
    ] {
        assert!(matches!(&answer, Err(StoreError::NoRoot { .. })), "{scheme}: {answer:?}");
    }
}

/// Requests cost money: each call makes the one request that it must.
async fn each_call_is_one_request(service: CloudServer) {
    let store = service.store("p");
    assert_eq!(create(&*store, "a", "a").await, Created::New);
    assert_eq!(create(&*store, "a", "b").await, Created::Exists);
    assert_eq!(store.get("a").await.expect("get"), "a");
    assert_eq!(store.get_range("a", 0..1).await.expect("range"), "a");
    assert_eq!(store.get_range("a", 7..9).await.expect("range past the end"), "");
    assert_eq!(store.head("a").await.expect("head").map(|info| info.size), Some(1));
    assert_eq!(store.list("d/").await.expect("list").len(), 0);
    store.delete("a").await.expect("delete");
    store.delete("a").await.expect("delete what is gone");
    let counts: Vec<(Operation, usize)> = service.faults().counts().into_iter().collect();
    let expected = [
        (Operation::Put, 2),
        (Operation::Get, 3),
        (Operation::Head, 1),
        (Operation::Delete, 2),
        (Operation::List, 1),
    ];
    assert_eq!(counts, expected);
    service.faults().forget_requests();
    assert_eq!(store.head("a").await.expect("head"), None);
    let asked = service.faults().requests();
    assert_eq!(asked.len(), 2, "absence is asked for twice: HEAD cannot name what is missing: {asked:?}");
}

/// A refusal of S3 has a hint; other refusals are told in the service's own words. Neither is an absence.
#[tokio::test(flavor = "multi_thread")]
async fn s3_refuses_in_words() {
    let server = S3Server::start();
    let stranger = StoreSpec { secret_access_key: Some("wrong".to_owned().into()), ..server.spec("p") };
    let error = store::open(&stranger).expect("open").get("a").await.expect_err("refused");
    assert!(matches!(error, StoreError::PermissionDenied { .. }) && error.is_permanent(), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("secret")), "{error}");

    let store = server.store("p").expect("open");
    server.faults().add(Fault::next(Operation::Get, Response::Status(400, "InvalidRequest")));
    let error = store.get("a").await.expect_err("refused");
    let words = "status 400, InvalidRequest: a fault that a test asked for";
    assert!(matches!(error, StoreError::Refused { .. }) && error.to_string().contains(words), "{error}");
    assert!(matches!(store.get("a").await, Err(StoreError::NotFound { .. })));
}

/// Azure lets in by a key or a signature. Wrong ones are a refusal with a hint, before or at the first request, and no message shows them.
#[tokio::test(flavor = "multi_thread")]
async fn azure_refuses_wrong_keys_and_signatures() {
    let azure = AzServer::start();
    let stranger = StoreSpec { account_key: Some("c3RyYW5nZXI=".to_owned().into()), ..azure.spec("p") };
    let error = store::open(&stranger).expect("open").get("a").await.expect_err("refused");
    assert!(matches!(error, StoreError::PermissionDenied { .. }) && error.hint().is_some(), "{error}");
    let sas = |token: &str| StoreSpec {
        account_key: None,
        sas_token: Some(token.to_owned().into()),
        ..azure.spec("p")
    };
    let store = store::open(&sas(az::SAS)).expect("open");
    assert_eq!(create(&*store, "a", "a").await, Created::New);
    store.delete("a").await.expect("delete");
    let error = store::open(&sas("sv=1&sig=hunter2")).expect("open").get("a").await.expect_err("refused");
    assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let error = store::open(&sas("hunter2")).expect_err("no signature");
    assert!(matches!(error, StoreError::InvalidOption { option: "sas_token", .. }), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

/// What is no key of a service account is refused before any request, and not shown.
#[test]
fn google_refuses_what_is_no_key() {
    let google = GsServer::start();
    for text in ["hunter2", "{}", &gs::service_account_key("authorized_user")] {
        let spec = StoreSpec { service_account_key: Some(text.to_owned().into()), ..google.spec("p") };
        let error = store::open(&spec).expect_err("no key of a service account");
        assert!(matches!(error, StoreError::MissingCredentials { .. }) && error.hint().is_some(), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
