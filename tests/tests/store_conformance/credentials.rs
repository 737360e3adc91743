//! Getting in: each kind of credentials, where it is looked for, and how it is renewed, also in the middle of a transfer.
//!
//! What is handed out is good by the service's word alone, and a test ends it when it likes; nothing waits for time to pass but the one
//! test of how often is asked.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::TryStreamExt as _;
use highwater_archive::clock::{Clock as _, SystemClock};
use highwater_archive::store::{Created, Credentials, StoreError, StoreSpec};
use highwater_tests::az::{AzServer, SAS};
use highwater_tests::cloud::CloudServer;
use highwater_tests::gs::{GsServer, service_account_key};
use highwater_tests::highwater_binary;
use highwater_tests::http::{HttpServer, Listener, Reply};
use highwater_tests::identity::{Identities, TOKEN};
use highwater_tests::s3::{ACCESS_KEY_ID, Fault, Life, Operation, Response, S3Server};
use highwater_tests::tls::Authority;

use super::access::{file, open};
use super::create;

/// What hands out credentials, to a store of each kind that has it.
struct Office {
    scratch: tempfile::TempDir,
    authority: Authority,
    identities: Identities,
    /// Tokens travel to AWS's token service by TLS alone.
    tls: Listener,
}

impl Office {
    fn new(server: &CloudServer, life: impl Into<Life>) -> Self {
        let identities = Identities::start(Arc::clone(server.keys()), life);
        let authority = Authority::new();
        let tls = authority.in_front_of(identities.server().address());
        Self { scratch: tempfile::tempdir().expect("a directory"), authority, identities, tls }
    }

    /// The file of a web identity or a pod.
    fn token_file(&self) -> PathBuf {
        self.scratch.path().join("token")
    }

    /// Writes another token into the file; the one before is good no more.
    fn turn(&self, token: &str) {
        std::fs::write(self.token_file(), token).expect("a token");
        self.identities.expect_token(token);
    }

    /// A way in by what somebody hands out. Google's machines are known to the environment alone.
    fn spec(&self, server: &CloudServer, way: &Way) -> StoreSpec {
        self.turn(TOKEN);
        let url = self.identities.server().url();
        let keyless = StoreSpec {
            access_key_id: None,
            secret_access_key: None,
            account_key: None,
            credentials: way.kind,
            ..server.spec("p")
        };
        let application = StoreSpec {
            tenant_id: Some("tenant".into()),
            client_id: Some("application".into()),
            authority_host: Some(url.clone()),
            ..keyless.clone()
        };
        match (server, way.kind) {
            (CloudServer::Amazon(_), Credentials::WebIdentity) => StoreSpec {
                web_identity_token_file: Some(self.token_file()),
                role_arn: Some("arn:role".into()),
                sts_endpoint: Some(format!("https://{}", self.tls.address())),
                ca_file: Some(self.authority.write(self.scratch.path())),
                no_proxy: Some("127.0.0.1".into()),
                ..keyless
            },
            (CloudServer::Amazon(_), Credentials::Container) => StoreSpec {
                container_credentials_uri: Some(format!("{url}/v1/credentials")),
                container_token_file: Some(self.token_file()),
                ..keyless
            },
            (CloudServer::Amazon(_), _) => StoreSpec { metadata_endpoint: Some(url), ..keyless },
            (CloudServer::Azure(_), Credentials::Static) => {
                StoreSpec { client_secret: Some("hush".to_owned().into()), ..application }
            }
            (CloudServer::Azure(_), Credentials::WebIdentity) => {
                StoreSpec { federated_token_file: Some(self.token_file()), ..application }
            }
            (CloudServer::Azure(_), _) => StoreSpec {
                metadata_endpoint: Some(format!("{url}/metadata/identity/oauth2/token")),
                ..keyless
            },
            (CloudServer::Google(_), _) => {
                let file = self.token_file();
                let file = way.told.starts_with("the web identity in").then_some(file.as_path());
                let account = self.identities.external_account(file);
                StoreSpec { service_account_key: Some(account.into()), ..keyless }
            }
        }
    }
}

/// A kind of credentials, and a word of what is said of where it came from.
#[derive(Debug)]
struct Way {
    kind: Credentials,
    told: &'static str,
    has_file: bool,
}

const fn way(kind: Credentials, told: &'static str, has_file: bool) -> Way {
    Way { kind, told, has_file }
}

const AMAZONS: [Way; 3] = [
    way(Credentials::WebIdentity, "web identity", true),
    way(Credentials::Container, "container", true),
    way(Credentials::Instance, "machine", false),
];

const AZURES: [Way; 3] = [
    way(Credentials::Static, "client_secret", false),
    way(Credentials::WebIdentity, "federated token", true),
    way(Credentials::Instance, "machine", false),
];

const GOOGLES: [Way; 2] = [
    way(Credentials::WebIdentity, "the web identity in", true),
    way(Credentials::WebIdentity, "as backup@example.com", true),
];

/// Each way in by what is handed out, in this process.
fn ways() -> Vec<(CloudServer, &'static Way)> {
    let amazons = AMAZONS.iter().map(|way| (CloudServer::Amazon(S3Server::start()), way));
    let azures = AZURES.iter().map(|way| (CloudServer::Azure(AzServer::start()), way));
    let googles = GOOGLES.iter().map(|way| (CloudServer::Google(GsServer::start()), way));
    amazons.chain(azures).chain(googles).collect()
}

/// What is handed out serves as long as it was said to be good and not for one request more: the next has another, for which the
/// token's file is read anew. None comes too late.
#[tokio::test(flavor = "multi_thread")]
async fn each_kind_of_credentials_is_renewed() {
    for (server, way) in ways() {
        let office = Office::new(&server, Life::AmongTheLast(1));
        let store = open(&office.spec(&server, way));
        let source = store.credentials().expect("a source");
        assert!(source.contains(way.told), "{source}");
        for number in 0..3 {
            if way.has_file {
                office.turn(&format!("token {number} of the file"));
            }
            let name = format!("n/{number}");
            assert_eq!(create(&*store, &name, &name).await, Created::New, "{way:?}");
            assert_eq!(store.get(&name).await.expect("get"), name);
        }
        assert_eq!(store.list("").await.expect("list").len(), 3);
        let requests = server.faults().requests().len();
        assert_eq!(requests, 7, "{way:?}");
        assert_eq!(server.keys().issued_and_used(), (requests, requests), "{way:?}");
        assert_eq!(server.keys().refused(), 0, "{way:?}");
    }
}

/// What lives for an hour is asked for once.
#[tokio::test(flavor = "multi_thread")]
async fn what_lasts_is_asked_for_once() {
    for (server, way) in ways() {
        let office = Office::new(&server, Duration::from_secs(3600));
        let store = open(&office.spec(&server, way));
        for name in ["a", "b", "c"] {
            assert_eq!(create(&*store, name, name).await, Created::New);
        }
        assert_eq!(server.keys().issued_and_used(), (1, 1), "{way:?}: {:?}", office.identities.asked());
    }
}

/// A service may end what was to last longer, or this host slept meanwhile: then another is asked for, at most one for each refusal, and nothing
/// else is noticed. HEAD, whose refusal has no words, is no exception.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_ended_early_is_asked_for_anew() {
    for (server, way) in ways() {
        let office = Office::new(&server, Duration::from_secs(3600));
        let store = open(&office.spec(&server, way));
        assert_eq!(create(&*store, "a", "a").await, Created::New);
        for ask in 0..4 {
            server.keys().end_all();
            match ask {
                0 => assert_eq!(store.get("a").await.expect("get"), "a"),
                1 => assert_eq!(store.head("a").await.expect("head").map(|info| info.size), Some(1)),
                2 => assert_eq!(store.list("").await.expect("list").len(), 1),
                _ => assert_eq!(create(&*store, "b", "b").await, Created::New),
            }
        }
        assert_eq!(server.keys().issued_and_used(), (5, 5), "{way:?}");
    }
}

/// A body that is cut half-way is gone on with under what is good then: what it began with has ended.
#[tokio::test(flavor = "multi_thread")]
async fn a_transfer_outlives_its_credentials() {
    let content = "0123456789abcdef".repeat(64 << 10);
    for life in [Life::AmongTheLast(1), Life::For(Duration::from_secs(3600))] {
        for (server, way) in ways() {
            let office = Office::new(&server, life);
            let store = open(&office.spec(&server, way));
            assert_eq!(create(&*store, "large", &content).await, Created::New);
            server.faults().forget_requests();
            server.faults().add(Fault { fail: 2, ..Fault::next(Operation::Get, Response::Half) });
            let mut stream = store.stream("large").await.expect("a stream");
            let mut received = stream.try_next().await.expect("its beginning").expect("some bytes").to_vec();
            assert!(received.len() < content.len(), "all of it came before the cut");
            server.keys().end_all();
            while let Some(chunk) = stream.try_next().await.expect("what follows") {
                received.extend_from_slice(&chunk);
            }
            assert!(received == content.as_bytes(), "{way:?}: {} bytes", received.len());
            let asked: Vec<String> =
                server.faults().requests().into_iter().map(|request| request.signed.1).collect();
            let (first, last) = (asked.first().expect("a request"), asked.last().expect("another"));
            let key = |authorization: &str| authorization.split('/').next().map(str::to_owned);
            assert_ne!(key(first), key(last), "{way:?}: {asked:?}");
        }
    }
}

/// Google: the account's own key signs another token where one was ended, and says of a clock that is wrong what it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_account_signs_anew() {
    let server = GsServer::start();
    let store = open(&server.spec("p"));
    assert_eq!(create(&*store, "a", "a").await, Created::New);
    // Within a second the same token would be signed.
    let second = SystemClock.now().as_second();
    while SystemClock.now().as_second() <= second {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server.keys().end_all();
    assert_eq!(store.get("a").await.expect("get"), "a");
    assert_eq!(server.keys().refused(), 1);
    server.faults().set_clock_ahead(3700);
    let error = open(&server.spec("p")).get("a").await.expect_err("over by the service's clock");
    assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error}");
    assert!(error.to_string().contains("behind the store's"), "{error}");
}

/// What lives for two seconds is asked for about that often, and not at each request; no request is refused for long.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn short_tokens_are_no_storm_of_renewals() {
    let mut all = Vec::new();
    for (server, way) in ways() {
        all.push(tokio::spawn(async move {
            let office = Office::new(&server, Duration::from_secs(2));
            let store = open(&office.spec(&server, way));
            let begun = Instant::now();
            let mut number = 0;
            while server.keys().issued_and_used().1 < 3 {
                assert!(begun.elapsed() < Duration::from_secs(120), "{way:?} is not renewed");
                let name = format!("n/{number}");
                assert_eq!(create(&*store, &name, &name).await, Created::New);
                assert_eq!(store.get(&name).await.expect("get"), name);
                number += 1;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let most = usize::try_from(begun.elapsed().as_secs()).expect("seconds") + 2;
            let (issued, _) = server.keys().issued_and_used();
            // One more for each that was over before its request arrived, as on a machine that is very busy.
            let most = most + server.keys().refused();
            assert!(issued <= most, "{way:?}: {issued} were asked for where {most} are enough");
        }));
    }
    for one in all {
        one.await.expect("renewed as often as needed");
    }
}

/// Keys that a person wrote down with their token send that too, and a token that is not theirs is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_token_goes_with_its_key() {
    let server = S3Server::start();
    let issued = server.keys().issue(Duration::from_secs(3600));
    let spec = |token: Option<&str>| StoreSpec {
        access_key_id: Some(issued.id.clone().into()),
        secret_access_key: Some(issued.secret.clone().into()),
        session_token: token.map(|token| token.to_owned().into()),
        ..server.spec("p")
    };
    assert_eq!(create(&*open(&spec(Some(&issued.token))), "a", "a").await, Created::New);
    for wrong in [None, Some("another")] {
        let error = open(&spec(wrong)).get("a").await.expect_err("refused");
        assert!(matches!(error, StoreError::PermissionDenied { .. }), "{error}");
    }
}

/// What hands out credentials may be away or refuse; that is never taken for an object's absence (I14).
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_credentials_is_no_absence() {
    let server = S3Server::start();
    let nobody = HttpServer::start(|_| async { Reply::status(404) });
    let spec = StoreSpec {
        access_key_id: None,
        secret_access_key: None,
        credentials: Credentials::Instance,
        metadata_endpoint: Some(nobody.url()),
        ..server.spec("p")
    };
    let store = open(&spec);
    for answer in [
        store.get("a").await.map(|_| ()),
        store.head("a").await.map(|_| ()),
        store.list("").await.map(|_| ()),
        store.delete("a").await,
        store.create("a", vec![]).await.map(|_| ()),
    ] {
        assert!(matches!(&answer, Err(StoreError::Refused { .. })), "{answer:?}");
    }
    assert!(server.faults().requests().is_empty());
}

/// An application whose secret Azure does not take is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_secret_of_an_application_is_refused() {
    let server = CloudServer::Azure(AzServer::start());
    let office = Office::new(&server, Duration::from_secs(3600));
    let right = office.spec(&server, &AZURES[0]);
    let wrong = StoreSpec { client_secret: Some("wrong".to_owned().into()), ..right };
    let answer = open(&wrong).get("secret").await;
    assert!(matches!(answer, Err(StoreError::PermissionDenied { .. })), "{answer:?}");
}

/// Puts a repository that the fixtures hold below `p` in the bucket.
fn fill(server: &CloudServer) {
    fn copy(server: &CloudServer, directory: &Path, key: &str) {
        for entry in std::fs::read_dir(directory).expect("a directory") {
            let path = entry.expect("an entry").path();
            let key = format!("{key}/{}", path.file_name().expect("a name").to_string_lossy());
            match path.is_dir() {
                true => copy(server, &path, &key),
                false => server.objects().put(&key, std::fs::read(&path).expect("an object").into()),
            }
        }
    }
    copy(server, &fixtures().join("plain"), "p");
}

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/format-1")
}

/// Lists the repository by the program, whose environment is this alone.
fn list(office: &Office, server: &CloudServer, environment: &[(&str, String)]) -> Output {
    let spec = server.spec("p");
    let key = std::fs::read_to_string(fixtures().join("keys/main.key")).expect("a key");
    let text = format!(
        "[cluster]\nname = \"main\"\n[repository.r]\nurl = \"{}\"\nendpoint = \"{}\"\nca_file = \"{}\"\nno_proxy = \"127.0.0.1\"\n",
        spec.url,
        spec.endpoint.unwrap_or_default(),
        office.authority.write(office.scratch.path()).display(),
    );
    let configuration = file(office.scratch.path(), "main.toml", &text);
    let mut command = Command::new(highwater_binary());
    command.arg("list").arg("--config").arg(configuration);
    command.env_clear().env("HIGHWATER__REPOSITORY__R__KEY", key);
    command.envs(environment.iter().map(|(name, value)| (name, value)));
    command.output().expect("the program")
}

/// The variables that each provider's own tools read let the program in, and what is handed out is renewed there too: each request has its
/// own, of which the service takes none that is older than the last 32.
#[test]
fn the_usual_environment_lets_the_program_in() {
    let amazon = || CloudServer::Amazon(S3Server::start());
    let azure = || CloudServer::Azure(AzServer::start());
    let google = || CloudServer::Google(GsServer::start());
    let account = ("AZURE_STORAGE_ACCOUNT", highwater_tests::az::ACCOUNT.to_owned());
    let application = |url: &str| {
        vec![
            account.clone(),
            ("AZURE_TENANT_ID", "tenant".to_owned()),
            ("AZURE_CLIENT_ID", "application".to_owned()),
            ("AZURE_AUTHORITY_HOST", url.to_owned()),
        ]
    };
    type Environment<'a> = &'a dyn Fn(&Office, &CloudServer) -> Vec<(&'static str, String)>;
    let url = |office: &Office| office.identities.server().url();
    let token_file = |office: &Office| office.token_file().display().to_string();
    let cases: [(&str, CloudServer, bool, Environment<'_>); 12] = [
        ("keys of AWS", amazon(), false, &|_, server| match server {
            CloudServer::Amazon(server) => server.environment().to_vec(),
            _ => unreachable!("a service of another provider"),
        }),
        ("keys of AWS with a token", amazon(), false, &|_, server| {
            let issued = server.keys().issue(Duration::from_secs(3600));
            assert_ne!(issued.id, ACCESS_KEY_ID);
            vec![
                ("AWS_ACCESS_KEY_ID", issued.id),
                ("AWS_SECRET_ACCESS_KEY", issued.secret),
                ("AWS_SESSION_TOKEN", issued.token),
            ]
        }),
        ("AWS's web identity", amazon(), true, &|office, _| {
            vec![
                ("AWS_WEB_IDENTITY_TOKEN_FILE", token_file(office)),
                ("AWS_ROLE_ARN", "arn:role".to_owned()),
                ("AWS_ENDPOINT_URL_STS", format!("https://{}", office.tls.address())),
            ]
        }),
        ("AWS's pod identity", amazon(), true, &|office, _| {
            vec![
                ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{}/v1/credentials", url(office))),
                ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token_file(office)),
            ]
        }),
        ("AWS's machine", amazon(), true, &|office, _| {
            vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", url(office))]
        }),
        ("a signature of Azure", azure(), false, &|_, _| {
            vec![account.clone(), ("AZURE_STORAGE_SAS_TOKEN", SAS.to_owned())]
        }),
        ("Azure's application", azure(), true, &|office, _| {
            [application(&url(office)), vec![("AZURE_CLIENT_SECRET", "hush".to_owned())]].concat()
        }),
        ("Azure's workload", azure(), true, &|office, _| {
            [application(&url(office)), vec![("AZURE_FEDERATED_TOKEN_FILE", token_file(office))]].concat()
        }),
        ("Azure's machine", azure(), true, &|office, _| {
            let endpoint = format!("{}/metadata/identity/oauth2/token", url(office));
            vec![account.clone(), ("IDENTITY_ENDPOINT", endpoint)]
        }),
        ("Google's service account", google(), false, &|office, _| {
            let key = file(office.scratch.path(), "account.json", &service_account_key("service_account"));
            vec![("GOOGLE_APPLICATION_CREDENTIALS", key.display().to_string())]
        }),
        ("Google's workload", google(), true, &|office, _| {
            let account = office.identities.external_account(Some(&office.token_file()));
            let account = file(office.scratch.path(), "external.json", &account);
            vec![("GOOGLE_APPLICATION_CREDENTIALS", account.display().to_string())]
        }),
        ("Google's machine", google(), true, &|office, _| {
            vec![("GCE_METADATA_HOST", office.identities.server().address().to_string())]
        }),
    ];
    for (what, server, handed_out, environment) in &cases {
        let office = Office::new(server, Life::AmongTheLast(32));
        office.turn(TOKEN);
        fill(server);
        let done = list(&office, server, &environment(&office, server));
        let (stdout, stderr) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
        assert_eq!(done.status.code(), Some(0), "{what}: {stdout}{stderr}");
        assert!(stdout.contains("20261120T102633Z-cdcdcdcd"), "{what}: {stdout}{stderr}");
        assert_eq!(server.keys().refused(), 0, "{what}");
        if *handed_out {
            let (requests, (issued, used)) =
                (server.faults().requests().len(), server.keys().issued_and_used());
            assert!(
                requests > 3 && used == requests && issued >= used,
                "{what}: {requests}, {issued}, {used}"
            );
        }
    }
}
