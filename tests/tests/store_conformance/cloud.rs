//! Google Cloud Storage and Azure Blob: the shared suite, and what S3's tests show of S3 once more of each.

use highwater_archive::store::{self, Created, StoreError, StoreSpec};
use highwater_tests::az::{self, AzServer};
use highwater_tests::cloud::CloudServer;
use highwater_tests::conformance::conforms;
use highwater_tests::gs::{self, GsServer};
use highwater_tests::s3::{Fault, Operation, Response, When};

use super::{a_missing_root_is_named, assert_young, create};

fn all() -> impl Iterator<Item = CloudServer> {
    // The suite's other files are S3's.
    CloudServer::all().into_iter().skip(1)
}

/// I3, I4: at a prefix and at the whole of a bucket or container.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn google_and_azure_conform() {
    for service in all() {
        let store = service.store("at/a/prefix");
        assert_eq!(create(&*store, "first", "x").await, Created::New);
        assert_young(&*store, "first").await;
        conforms(store).await;
        assert!(service.objects().keys().iter().all(|key| key.starts_with("at/a/prefix/")));
    }
    for service in all() {
        conforms(service.store("")).await;
    }
}

/// I14's ground: a missing bucket, refused credentials and a 404 of nobody knows whom are never mistaken for absence.
#[tokio::test(flavor = "multi_thread")]
async fn only_a_missing_object_is_absent() {
    for service in all() {
        a_missing_root_is_named(&service.spec("")).await;
        let store = service.store("p");
        let unnamed = Response::Status(404, "");
        for (operation, ask) in [(Operation::Get, 0), (Operation::Head, 1), (Operation::List, 2)] {
            service.faults().add(Fault { fail: 2, ..Fault::next(operation, unnamed.clone()) });
            let answer = match ask {
                0 => store.get("a").await.map(|_| ()),
                1 => {
                    service.faults().add(Fault::next(Operation::Get, unnamed.clone()));
                    store.head("a").await.map(|_| ())
                }
                _ => store.list("").await.map(|_| ()),
            };
            assert!(
                matches!(&answer, Err(StoreError::Refused { .. })),
                "{} {operation:?}: {answer:?}",
                store.describe()
            );
            service.faults().clear();
        }
        assert_eq!(store.head("a").await.expect("head"), None);
    }
}

/// Wrong credentials are a refusal with a hint, before or at the first request, and no message shows them.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_credentials_are_refused() {
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

    let google = GsServer::start();
    let key =
        |text: &str| StoreSpec { service_account_key: Some(text.to_owned().into()), ..google.spec("p") };
    for text in ["hunter2", "{}", &gs::service_account_key("authorized_user")] {
        let error = store::open(&key(text)).expect_err("no key of a service account");
        assert!(matches!(error, StoreError::MissingCredentials { .. }) && error.hint().is_some(), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// Passing failures are tried again; a put whose reply was lost is known by what it wrote (I4).
#[tokio::test(flavor = "multi_thread")]
async fn passing_failures_are_retried_and_lost_replies_compared() {
    for service in all() {
        let store = service.store("p");
        let busy = Response::Status(503, "ServerBusy");
        service.faults().add(Fault { fail: 2, ..Fault::next(Operation::Put, busy.clone()) });
        assert_eq!(create(&*store, "a", "a").await, Created::New);
        service.faults().add(Fault::next(Operation::Get, Response::Cut));
        service.faults().add(Fault::next(Operation::List, Response::Status(429, "TooManyRequests")));
        assert_eq!(store.get("a").await.expect("get"), "a");
        assert_eq!(store.list("").await.expect("list").len(), 1);
        assert_eq!(service.faults().counts()[&Operation::Put], 3);

        service.faults().add(Fault { when: When::AfterEffect, ..Fault::next(Operation::Put, busy) });
        assert_eq!(create(&*store, "b", "b").await, Created::New);
        assert_eq!(store.get("b").await.expect("get"), "b");
        service.faults().add(Fault::next(Operation::Put, service.conflict()));
        assert_eq!(create(&*store, "a", "a").await, Created::Exists);
        // A conflict that leaves no object is no proof of one.
        service.faults().add(Fault::next(Operation::Put, Response::Status(409, "OperationAborted")));
        assert_eq!(create(&*store, "c", "c").await, Created::New);
    }
    let azure = AzServer::start();
    let store = store::open(&azure.spec("p")).expect("open");
    azure.faults().add(Fault::next(Operation::Put, Response::Status(409, "ContainerBeingDeleted")));
    let answer = store.create("a", vec![]).await;
    assert!(matches!(answer, Err(StoreError::NoRoot { .. })), "{answer:?}");
}

/// Requests cost money: each call makes the one request that it must.
#[tokio::test(flavor = "multi_thread")]
async fn each_call_is_one_request() {
    for service in all() {
        let store = service.store("p");
        assert_eq!(create(&*store, "a", "a").await, Created::New);
        assert_eq!(create(&*store, "a", "b").await, Created::Exists);
        assert_eq!(store.get("a").await.expect("get"), "a");
        assert_eq!(store.get_range("a", 7..9).await.expect("range past the end"), "");
        assert_eq!(store.head("a").await.expect("head").map(|info| info.size), Some(1));
        assert_eq!(store.list("d/").await.expect("list").len(), 0);
        store.delete("a").await.expect("delete");
        store.delete("a").await.expect("delete what is gone");
        let counts: Vec<(Operation, usize)> = service.faults().counts().into_iter().collect();
        let expected = [
            (Operation::Put, 2),
            (Operation::Get, 2),
            (Operation::Head, 1),
            (Operation::Delete, 2),
            (Operation::List, 1),
        ];
        assert_eq!(counts, expected);
    }
}
