//! The network between: what a proxy must not stand before, and what lies where it cannot be read from.

use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use highwater_archive::store::{StoreError, StoreSpec};
use highwater_tests::az::AzServer;
use highwater_tests::cloud::CloudServer;
use highwater_tests::gs::GsServer;
use highwater_tests::highwater_binary;
use highwater_tests::identity::{Identities, TOKEN};
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
        let keys = match &server {
            CloudServer::Amazon(server) => Arc::clone(server.keys()),
            _ => Arc::default(),
        };
        let identities = Identities::start(keys, Duration::from_secs(3600));
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
        let address = spec.endpoint.as_deref().and_then(|endpoint| endpoint.strip_prefix("http://"));
        let tls = authority.in_front_of(address.expect("an address").parse().expect("an address"));
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
        let told = |spec: &StoreSpec| {
            highwater_archive::store::open(spec).expect("open").credentials().expect("a source")
        };
        assert!(told(&spec).ends_with(" of the configuration"));
        assert_eq!(told(&StoreSpec { secret_sources: sources(option), ..spec }), expected);
    }
}
