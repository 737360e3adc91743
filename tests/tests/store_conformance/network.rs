//! The network between: what a proxy must not stand before, lines that are slow or stall, and what lies where it cannot be read from.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::{join, join_all};
use highwater_archive::store::{self, Created, Persistence, Store, StoreError, StoreSpec};
use highwater_tests::az::AzServer;
use highwater_tests::cloud::CloudServer;
use highwater_tests::gs::GsServer;
use highwater_tests::highwater_binary;
use highwater_tests::identity::{Identities, TOKEN};
use highwater_tests::line::Line;
use highwater_tests::proxy::Proxy;
use highwater_tests::s3::{Fault, Operation, Response, S3Server};
use highwater_tests::tls::{Authority, HOST};

/// Whoever hands out credentials to the host that asks is asked without a proxy, wherever the environment says that it is, and whatever
/// the environment says of proxies; the store itself is asked through the one.
#[test]
fn metadata_services_are_asked_without_a_proxy() {
    let scratch = tempfile::tempdir().expect("a directory");
    let authority = Authority::new();
    let token_file = scratch.path().join("token");
    std::fs::write(&token_file, TOKEN).expect("a token");
    let token_file = token_file.display().to_string();
    for kind in ["machine of Amazon", "pod of Amazon", "machine of Google", "machine of Azure"] {
        let server = match kind {
            "machine of Google" => CloudServer::Google(GsServer::start()),
            "machine of Azure" => CloudServer::Azure(AzServer::start()),
            _ => CloudServer::Amazon(S3Server::start()),
        };
        let identities = Identities::start(Arc::clone(server.keys()), Duration::from_secs(3600));
        let url = identities.server().url();
        let environment = match kind {
            "machine of Amazon" => vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)],
            "pod of Amazon" => vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/v1/credentials")),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file.clone()),
            ],
            "machine of Google" => vec![("GCE_METADATA_HOST", identities.server().address().to_string())],
            _ => vec![("IDENTITY_ENDPOINT", format!("{url}/metadata/identity/oauth2/token"))],
        };
        let spec = server.spec("p");
        let tls = authority.in_front_of(address(&spec));
        let proxy = Proxy::start(tls.address());
        let account = spec.account.map(|account| format!("account = \"{account}\"\n")).unwrap_or_default();
        let configuration = scratch.path().join("main.toml");
        let text = format!(
            "[cluster]\nname = \"main\"\n[repository.r]\nurl = \"{}\"\nendpoint = \"https://{HOST}\"\nca_file = \"{}\"\n{account}",
            spec.url,
            authority.write(scratch.path()).display()
        );
        std::fs::write(&configuration, text).expect("a configuration");
        let mut command = Command::new(highwater_binary());
        command.arg("list").arg("--config").arg(&configuration).env_clear().envs(environment);
        for variable in ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env(variable, proxy.url());
        }
        let said = command.output().expect("the program");
        let said = format!("{kind}: {}", String::from_utf8_lossy(&said.stderr));
        assert!(!identities.asked().is_empty(), "{said}");
        assert!(!server.faults().requests().is_empty(), "{said}");
        let asked = proxy.asked();
        assert!(!asked.is_empty() && asked.iter().all(|name| *name == format!("{HOST}:443")), "{asked:?}");
    }
}

/// What a lifecycle rule moved away is neither forbidden nor an outage: it is named, at once, with what brings it back.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_in_an_archive_tier_is_named() {
    let answers = [
        (CloudServer::Amazon(S3Server::start()), 403, "InvalidObjectState"),
        (CloudServer::Azure(AzServer::start()), 409, "BlobArchived"),
        (CloudServer::Azure(AzServer::start()), 409, "BlobBeingRehydrated"),
    ];
    for (server, status, code) in answers {
        let store = server.store("p");
        server.objects().put("p/a", "a".into());
        server.faults().add(Fault::always(Operation::Get, Response::Status(status, code)));
        for answer in [
            store.get("a").await.map(drop),
            store.get_range("a", 0..1).await.map(drop),
            store.stream("a").await.map(drop),
        ] {
            let error = answer.expect_err("it cannot be read");
            assert!(matches!(error, StoreError::Archived { .. }) && error.is_permanent(), "{error:?}");
            let hint = error.hint().expect("a hint");
            assert!(hint.contains("restore") && hint.contains("lifecycle rules"), "{hint}");
        }
        assert_eq!(server.faults().requests().len(), 3, "each is asked once");
        let there = store.head("a").await.expect("it is there all the same");
        assert_eq!(there.map(|info| info.size), Some(1));
    }
}

/// What `check` prints of credentials is where they were found, and never what they are.
#[test]
fn the_source_of_a_secret_is_told() {
    let sources = |option: &str| [(option.to_owned(), "some file".to_owned())].into();
    for (spec, option, expected) in [
        (
            S3Server::start().spec("p"),
            "secret_access_key",
            "access_key_id of the configuration, its secret from some file",
        ),
        (AzServer::start().spec("p"), "account_key", "some file"),
        (GsServer::start().spec("p"), "service_account_key", "some file"),
    ] {
        let told = |spec: &StoreSpec| store::open(spec).expect("open").credentials().expect("a source");
        assert!(told(&spec).ends_with(" of the configuration"));
        assert_eq!(told(&StoreSpec { secret_sources: sources(option), ..spec }), expected);
    }
}

/// A line that carries so many bytes a second to a service, and a store behind it.
fn over_a_line(
    server: &CloudServer,
    bytes_a_second: f64,
    stalls: Vec<u64>,
    persistence: Persistence,
) -> (Line, Arc<dyn Store>) {
    let spec = server.spec("p");
    let line = Line::start(address(&spec), bytes_a_second, stalls);
    let spec = StoreSpec { endpoint: Some(format!("http://{}", line.address())), ..spec };
    (line, store::open_with(&spec, persistence).expect("open"))
}

/// Where a service of the tests listens.
fn address(spec: &StoreSpec) -> SocketAddr {
    let endpoint = spec.endpoint.as_deref().and_then(|endpoint| endpoint.strip_prefix("http://"));
    endpoint.expect("plain HTTP").parse().expect("an address")
}

const MIB: usize = 1 << 20;

/// Over a slow line a pack takes longer than any answer may, and arrives all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_slow_line_carries_what_is_large() {
    let persistence =
        Persistence { attempt: Duration::from_secs(2), slowest: MIB as u64, ..Persistence::USUAL };
    let servers = [
        CloudServer::Amazon(S3Server::start()),
        CloudServer::Google(GsServer::start()),
        CloudServer::Azure(AzServer::start()),
    ];
    let put = async |store: &dyn Store| {
        let begun = Instant::now();
        let content = Bytes::from(vec![7; 12 * MIB]);
        let created = store.create("pack", vec![content.clone()]).await;
        assert_eq!(created.unwrap_or_else(|error| panic!("{error}")), Created::New);
        assert!(begun.elapsed() > persistence.attempt, "the line was not slow");
        assert_eq!(store.get("pack").await.expect("what was put"), content);
    };
    let rate = 3.0 * MIB as f64;
    let plain = servers.iter().map(async |server| {
        let (_line, store) = over_a_line(server, rate, vec![], persistence);
        put(&*store).await;
    });
    let over_tls = async {
        let (scratch, authority) = (tempfile::tempdir().expect("a directory"), Authority::new());
        let server = S3Server::start();
        let tls = authority.in_front_of(server.address());
        let line = Line::start(tls.address(), rate, vec![]);
        let spec = StoreSpec {
            endpoint: Some(format!("https://{}", line.address())),
            ca_file: Some(authority.write(scratch.path())),
            ..server.spec("p")
        };
        put(&*store::open_with(&spec, persistence).expect("open")).await;
    };
    join(join_all(plain), over_tls).await;
}

/// A put on which nothing moves any more is found, however much time its size would give it; and made again, where it did move.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_line_that_stalls_is_found() {
    let persistence = Persistence {
        attempt: Duration::from_secs(1),
        slowest: 1,
        // Nothing is tried again for its own sake.
        all: Duration::ZERO,
        ..Persistence::USUAL
    };
    let server = CloudServer::Amazon(S3Server::start());
    let content = vec![Bytes::from(vec![7; 12 * MIB])];
    let (line, store) = over_a_line(&server, 6.0 * MIB as f64, vec![5 * MIB as u64], persistence);
    let created = store.create("moved", content.clone()).await;
    assert_eq!(created.unwrap_or_else(|error| panic!("{error}")), Created::New);
    assert!(line.connections() > 1);

    let (_line, store) = over_a_line(&server, 6.0 * MIB as f64, vec![0; 8], persistence);
    let error = store.create("stuck", content).await.expect_err("nothing moves");
    assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("sent, and no more within"), "{error}");
}
