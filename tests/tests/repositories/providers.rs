//! One cluster in Google Cloud Storage and in Azure Blob at once: archived into both, backed up into both, and restored from each.

use highwater_tests::az::{ACCOUNT, AzServer, account_key};
use highwater_tests::gs::{GsServer, service_account_key};
use highwater_tests::s3::{BUCKET, Operation};
use highwater_tests::{Cluster, Scratch, newest};

use crate::ground::Ground;
use crate::object_storage::assert_classes;

/// The key that Google is to encrypt under.
const KMS_KEY: &str = "projects/p/locations/europe-west3/keyRings/r/cryptoKeys/k";

/// I11: both hold everything, by creates that replace nothing (their services refuse any other), and neither needs the other to bring it back.
/// Each is told in which class to put what, under which key, and who pays.
#[test]
fn a_cluster_lives_in_google_and_azure() {
    let (scratch, google, azure) = (Scratch::new(), GsServer::start(), AzServer::start());
    google.demands().on_all("x-goog-user-project", "payer-1");
    google.demands().on_puts("x-goog-encryption-kms-key-name", KMS_KEY);
    azure.demands().on_puts("x-ms-encryption-scope", "ours-1");
    let endpoint = |spec: highwater_archive::store::StoreSpec| spec.endpoint.expect("an endpoint");
    let (account, secret) = (
        scratch.file("account.json", service_account_key("service_account")),
        scratch.file("secret", account_key()),
    );
    let ground = Ground::new(newest(), &scratch, |highwater| {
        highwater.lines(&format!(
            "\n[repository.google]\nurl = \"gs://{BUCKET}/some/prefix\"\nendpoint = \"{}\"\n\
             service_account_key_file = \"{}\"\nkey_file = \"{}\"\n\
             pack_storage_class = \"COLDLINE\"\nwal_storage_class = \"NEARLINE\"\nmetadata_storage_class = \"STANDARD\"\n\
             kms_key_id = \"{KMS_KEY}\"\nuser_project = \"payer-1\"\n\
             \n[repository.azure]\nurl = \"az://{BUCKET}/some/prefix\"\nendpoint = \"{}\"\naccount = \"{ACCOUNT}\"\n\
             account_key_file = \"{}\"\nkey_file = \"{}\"\npack_storage_class = \"Cold\"\nwal_storage_class = \"Cool\"\n\
             encryption_scope = \"ours-1\"\n",
            endpoint(google.spec("")),
            account.display(),
            scratch.join("google.key").display(),
            endpoint(azure.spec("")),
            secret.display(),
            scratch.join("azure.key").display(),
        ))
    });
    let expected = Ground::rows(&ground.cluster);
    let checked = ground.highwater.ok(&["check"]);
    for words in ["service_account_key", "account_key", "conditional creates hold"] {
        assert!(checked.contains(words), "{words} is not in: {checked}");
    }
    assert_classes(google.faults(), ["COLDLINE", "NEARLINE", "STANDARD"]);
    assert_classes(azure.faults(), ["Cold", "Cool", ""]);
    for (name, objects, faults, other) in [
        ("google", google.objects(), google.faults(), azure.faults()),
        ("azure", azure.objects(), azure.faults(), google.faults()),
    ] {
        let keys = objects.keys();
        for part in [ground.last.as_str(), "/manifest", "/packs/"] {
            assert!(keys.iter().any(|key| key.contains(part)), "{part} is not in {name}: {keys:#?}");
        }
        assert!(keys.iter().all(|key| key.starts_with("some/prefix/")), "{keys:#?}");
        faults.forget_requests();
        other.forget_requests();
        let target = scratch.join(name);
        let map = Ground::tablespace_map(&scratch, name);
        let directory = target.to_string_lossy();
        let from = ["restore", "--repository", name, "--target-dir", &directory, "--tablespace-map", &map];
        ground.highwater.ok(&from);
        let copy = Cluster::open(ground.cluster.postgres(), &scratch, name, &target);
        copy.start();
        copy.wait_until_writable();
        assert_eq!(Ground::rows(&copy), expected);
        copy.stop_proven();
        // The archiver goes on meanwhile; what was read came from here alone.
        let packs = |request: &highwater_tests::s3::Request| {
            request.operation == Operation::Get && request.key.contains("/packs/")
        };
        assert!(faults.requests().iter().any(packs), "{name}");
        assert!(!other.requests().iter().any(packs), "{name}");
    }
}
