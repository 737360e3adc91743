//! Getting there: private authorities, proxies, the bucket's place, and what a request says beside its object.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use highwater_archive::store::{self, Created, Encryption, Store, StoreError, StoreSpec, UploadChecksum};
use highwater_tests::az::{AzServer, SAS};
use highwater_tests::conformance::conforms;
use highwater_tests::gs::GsServer;
use highwater_tests::http::{HttpServer, Reply};
use highwater_tests::proxy::Proxy;
use highwater_tests::s3::{BUCKET, Operation, S3Server};
use highwater_tests::tls::{Authority, HOST};

use super::create;

pub fn open(spec: &StoreSpec) -> Arc<dyn Store> {
    store::open(spec).unwrap_or_else(|error| panic!("{error}"))
}

/// A file that only its owner reads.
pub fn file(directory: &Path, name: &str, content: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

/// A store whose certificate a private authority signed is trusted with `ca_file`, and gets no request without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_private_authority_is_trusted_by_its_file() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (server, authority) = (S3Server::start(), Authority::new());
    let tls = authority.in_front_of(server.address());
    let spec = StoreSpec {
        endpoint: Some(format!("https://{}", tls.address())),
        no_proxy: Some("127.0.0.1".into()),
        ..server.spec("p")
    };
    let stranger = open(&spec);
    let answer = tokio::time::timeout(Duration::from_secs(2), stranger.get("a")).await;
    assert!(!matches!(answer, Ok(Ok(_))));
    assert!(server.faults().requests().is_empty());

    let spec = StoreSpec { ca_file: Some(authority.write(scratch.path())), ..spec };
    let store = open(&spec);
    assert_eq!(create(&*store, "a", "a").await, Created::New);
    assert_eq!(store.get("a").await.expect("get"), "a");

    for (name, content) in [("empty.pem", ""), ("none.pem", "no certificate\n")] {
        let ca_file = Some(file(scratch.path(), name, content));
        let error = store::open(&StoreSpec { ca_file, ..spec.clone() }).expect_err(name);
        assert!(matches!(error, StoreError::InvalidOption { option: "ca_file", .. }), "{error}");
    }
    let ca_file = Some(scratch.path().join("absent.pem"));
    let error = store::open(&StoreSpec { ca_file, ..spec }).expect_err("absent");
    assert!(error.to_string().contains("absent.pem") && error.hint().is_some(), "{error}");
}

/// A proxy leads to what the host cannot resolve; `no_proxy` passes it by.
#[tokio::test(flavor = "multi_thread")]
async fn a_proxy_is_used_and_passed_by() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (server, authority) = (S3Server::start(), Authority::new());
    let tls = authority.in_front_of(server.address());
    let proxy = Proxy::start(tls.address());
    let spec = StoreSpec {
        endpoint: Some(format!("https://{HOST}")),
        proxy: Some(proxy.url().into()),
        no_proxy: Some("elsewhere.example.com".into()),
        ca_file: Some(authority.write(scratch.path())),
        ..server.spec("p")
    };
    let store = open(&spec);
    assert_eq!(create(&*store, "a", "a").await, Created::New);
    assert_eq!(store.list("").await.expect("list").len(), 1);
    let asked = proxy.asked();
    assert!(!asked.is_empty() && asked.iter().all(|name| *name == format!("{HOST}:443")), "{asked:?}");

    let direct = StoreSpec {
        endpoint: Some(format!("https://{}", tls.address())),
        no_proxy: Some("elsewhere.example.com,127.0.0.0/8".into()),
        ..spec.clone()
    };
    assert_eq!(open(&direct).get("a").await.expect("get"), "a");
    assert_eq!(proxy.asked(), asked, "what no_proxy names goes straight");

    let secret = StoreSpec { proxy: Some("hunter2@nonsense".to_owned().into()), ..spec };
    let error = store::open(&secret).expect_err("no proxy");
    assert!(matches!(error, StoreError::InvalidOption { option: "proxy", .. }), "{error}");
    assert!(!format!("{error} {error:?} {secret:?}").contains("hunter2"));
}

/// The bucket may stand in the host's name: there alone, and the signature covers it.
#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_may_stand_in_the_hosts_name() {
    let scratch = tempfile::tempdir().expect("a directory");
    let (server, authority) = (S3Server::start(), Authority::new());
    let tls = authority.in_front_of(server.address());
    for (path_style, host) in [(Some(false), format!("{BUCKET}.{HOST}")), (None, HOST.to_owned())] {
        let proxy = Proxy::start(tls.address());
        let store = open(&StoreSpec {
            endpoint: Some(format!("https://{HOST}")),
            path_style,
            proxy: Some(proxy.url().into()),
            ca_file: Some(authority.write(scratch.path())),
            ..server.spec("p")
        });
        assert_eq!(create(&*store, &host, "content").await, Created::New);
        assert_eq!(store.get(&host).await.expect("get"), "content");
        assert_eq!(store.list(&host).await.expect("list").len(), 1);
        let asked = proxy.asked();
        assert!(!asked.is_empty() && asked.iter().all(|name| *name == format!("{host}:443")), "{asked:?}");
        // The service takes the bucket from the host's name, or else from the path: a bucket in both would be a part of the key.
        assert!(server.objects().get(&format!("p/{host}")).is_some(), "{:?}", server.objects().keys());
        let requests = server.faults().requests();
        assert!(
            requests.iter().all(|request| request.signed.1.contains("SignedHeaders=host;")),
            "{requests:?}"
        );
    }
}

/// The headers of every put to a service that takes them all.
fn recorder() -> (HttpServer, Arc<Mutex<Vec<hyper::HeaderMap>>>) {
    let puts = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&puts);
    let server = HttpServer::start(move |request| {
        log.lock().expect("the log").push(request.headers.clone());
        async { Reply::status(200).with("etag", "\"1\"") }
    });
    (server, puts)
}

const PACK: &str = "clusters/packs/0/packs/20261120T000000Z-00000000/0";
const SEGMENT: &str = "clusters/packs/0/wal/00000001/00000000/000000010000000000000001";
const MANIFEST: &str = "clusters/packs/0/backups/20261120T000000Z-00000000/manifest";

/// The same with a class for packs and one for WAL.
fn classes(spec: &StoreSpec, packs: &str, wal: &str) -> StoreSpec {
    StoreSpec {
        pack_storage_class: Some(packs.to_owned()),
        wal_storage_class: Some(wal.to_owned()),
        ..spec.clone()
    }
}

/// Encryption, KMS, who pays, and the storage class of each kind of object are said with each request.
#[tokio::test(flavor = "multi_thread")]
async fn puts_say_what_the_service_is_to_do() {
    let (server, puts) = recorder();
    let put = async |spec: &StoreSpec, path: &str| {
        let created = open(spec).create(path, vec![Bytes::from_static(b"x")]).await;
        assert_eq!(created.expect("create"), Created::New);
        puts.lock().expect("the log").pop().expect("a request")
    };
    let is = |headers: &hyper::HeaderMap, name: &str, value: Option<&str>| {
        assert_eq!(headers.get(name).map(|found| found.to_str().expect("text")), value, "{name}");
    };
    let plain = StoreSpec { endpoint: Some(server.url()), ..S3Server::start().spec("p") };
    let headers = put(&plain, PACK).await;
    let (crc, sha256) = ("x-amz-checksum-crc64nvme", "x-amz-checksum-sha256");
    for name in ["x-amz-server-side-encryption", "x-amz-storage-class", "x-amz-request-payer", crc, sha256] {
        is(&headers, name, None);
    }
    is(&headers, "if-none-match", Some("*"));
    let digest_of_x = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881";
    is(&headers, "x-amz-content-sha256", Some(digest_of_x));
    let unsigned = StoreSpec { unsigned_payload: true, ..plain.clone() };
    let headers = put(&unsigned, PACK).await;
    is(&headers, "x-amz-content-sha256", Some("UNSIGNED-PAYLOAD"));
    is(&headers, crc, Some("Lb1nAmRU5LE="));
    let other = StoreSpec { upload_checksum: Some(UploadChecksum::Sha256), ..unsigned.clone() };
    let headers = put(&other, PACK).await;
    is(&headers, crc, None);
    is(&headers, sha256, Some("LXEWQrcmsEQBYnyp+6wy9chTD7GQPMTbAiWHF5IaSIE="));
    let s3 = StoreSpec {
        encryption: Some(Encryption::SseKms),
        kms_key_id: Some("key-1".into()),
        bucket_key: Some(true),
        requester_pays: true,
        ..classes(&plain, "STANDARD_IA", "INTELLIGENT_TIERING")
    };
    let headers = put(&s3, PACK).await;
    is(&headers, "x-amz-server-side-encryption", Some("aws:kms"));
    is(&headers, "x-amz-server-side-encryption-aws-kms-key-id", Some("key-1"));
    is(&headers, "x-amz-server-side-encryption-bucket-key-enabled", Some("true"));
    is(&headers, "x-amz-request-payer", Some("requester"));
    let of_s3 = StoreSpec { encryption: Some(Encryption::SseS3), ..plain.clone() };
    is(&put(&of_s3, PACK).await, "x-amz-server-side-encryption", Some("AES256"));

    let google = StoreSpec { endpoint: Some(server.url()), ..GsServer::start().spec("p") };
    let azure = StoreSpec { endpoint: Some(server.url()), ..AzServer::start().spec("p") };
    for (spec, header, cold, cool, warm) in [
        (&plain, "x-amz-storage-class", "STANDARD_IA", "INTELLIGENT_TIERING", "STANDARD"),
        (&google, "x-goog-storage-class", "COLDLINE", "NEARLINE", "STANDARD"),
        (&azure, "x-ms-access-tier", "Cold", "Cool", "Hot"),
    ] {
        let spec = classes(spec, cold, cool);
        for (path, class) in [(PACK, Some(cold)), (SEGMENT, Some(cool)), (MANIFEST, None)] {
            is(&put(&spec, path).await, header, class);
        }
        let all = StoreSpec { metadata_storage_class: Some(warm.into()), ..spec };
        is(&put(&all, MANIFEST).await, header, Some(warm));
        is(&put(&all, SEGMENT).await, header, Some(cool));
    }

    let exposed = StoreSpec {
        endpoint: Some("http://storage.example.com".into()),
        allow_http: true,
        ..unsigned.clone()
    };
    let half = StoreSpec { kms_key_id: Some("key-1".into()), ..plain.clone() };
    let warm = "STANDARD";
    for wrong in [
        classes(&plain, "GLACIER", warm),
        classes(&plain, warm, "DEEP_ARCHIVE"),
        classes(&google, "ARCHIVE", warm),
        classes(&google, warm, "ARCHIVE"),
        classes(&azure, "Hot", "Archive"),
        StoreSpec { metadata_storage_class: Some("Archive".into()), ..azure },
        half,
        exposed,
    ] {
        let error = store::open(&wrong).expect_err("refused");
        assert!(matches!(error, StoreError::InvalidOption { .. }), "{error}");
        assert!(error.is_permanent() && error.hint().is_some(), "{error}");
    }
}

/// Google is told with every request who pays, and with every put the key, and with nothing else.
#[tokio::test(flavor = "multi_thread")]
async fn google_is_told_who_pays_and_under_which_key() {
    const KEY: &str = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k";
    let server = GsServer::start();
    server.demands().on_all("x-goog-user-project", "payer-1");
    server.demands().on_puts("x-goog-encryption-kms-key-name", KEY);
    let plain = server.spec("p");
    let pays = StoreSpec { user_project: Some("payer-1".into()), ..plain.clone() };
    let answer = open(&plain).list("").await;
    assert!(matches!(answer, Err(StoreError::Refused { .. })), "{answer:?}");
    assert_eq!(open(&pays).list("").await.expect("list").len(), 0);
    let answer = open(&pays).create("a", vec![]).await;
    assert!(matches!(answer, Err(StoreError::Refused { .. })), "{answer:?}");
    conforms(open(&StoreSpec { kms_key_id: Some(KEY.into()), ..pays })).await;
}

/// Azure is told the scope with every put, under whatever lets us in: the account's key signs it, too.
#[tokio::test(flavor = "multi_thread")]
async fn azure_is_told_the_scope() {
    let server = AzServer::start();
    server.demands().on_puts("x-ms-encryption-scope", "ours-1");
    let by_key = server.spec("key");
    let answer = open(&by_key).create("a", vec![]).await;
    assert!(matches!(answer, Err(StoreError::Refused { .. })), "{answer:?}");
    let by_signature =
        StoreSpec { account_key: None, sas_token: Some(SAS.to_owned().into()), ..server.spec("sas") };
    for spec in [by_key, by_signature] {
        conforms(open(&StoreSpec { encryption_scope: Some("ours-1".into()), ..spec })).await;
    }
}

/// What was damaged on its way is refused by the service and sent again, by whatever the service holds it against.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_damaged_on_its_way_is_sent_again() {
    let server = S3Server::start();
    let with =
        |upload_checksum| open(&StoreSpec { unsigned_payload: true, upload_checksum, ..server.spec("p") });
    for (name, checksum) in [("crc64nvme", None), ("sha256", Some(UploadChecksum::Sha256))] {
        server.faults().damage_next_put();
        assert_eq!(create(&*with(checksum), name, "content").await, Created::New);
        assert_eq!(with(checksum).get(name).await.expect("get"), "content");
    }
    assert_eq!(server.faults().counts()[&Operation::Put], 4);
    // A service that knows no checksum stores what came.
    server.faults().damage_next_put();
    assert_eq!(create(&*with(Some(UploadChecksum::None)), "none", "content").await, Created::New);
    assert_ne!(with(None).get("none").await.expect("get"), "content");
}
