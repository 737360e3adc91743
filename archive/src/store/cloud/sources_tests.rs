//! Where each provider's credentials are looked for: the order that the heads of `s3`, `az` and `gs` promise, and each variable.
//!
//! A case is an environment in which several kinds are to be had. The first must win; without it the next; and so on to the end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

use super::{az, gs, s3};
use crate::store::spec::Environment;
use crate::store::{Credentials, StoreError, StoreSpec};

type Settle = fn(&mut StoreSpec, &Environment<'_>, &str) -> Result<String, StoreError>;

/// One kind of credentials: the variables that name it, which kind that is, and what is said of it.
type Source<'a> = (&'a [(&'a str, &'a str)], Credentials, &'a str);

/// Settles on what is found with these variables alone, on a machine of nobody.
fn settled(
    settle: Settle,
    variables: &BTreeMap<&str, &str>,
    spec: &StoreSpec,
) -> Result<(StoreSpec, String), StoreError> {
    let look_up = |name: &str| variables.get(name).map(|text| (*text).to_owned());
    let mut spec = spec.clone();
    let source = settle(&mut spec, &Environment::new(&look_up, &|_| None), "store")?;
    Ok((spec, source))
}

/// Each source wins over those that come after it, and is passed over where a later kind is asked for by name.
fn in_order(settle: Settle, always: &[(&str, &str)], sources: &[Source<'_>]) {
    for first in 0..sources.len() {
        let mut variables: BTreeMap<&str, &str> = always.iter().copied().collect();
        for (named, _, _) in &sources[first..] {
            variables.extend(named.iter().copied());
        }
        let (_, kind, told) = sources[first];
        for credentials in [Credentials::Auto, kind] {
            let wanted = StoreSpec { credentials, ..StoreSpec::default() };
            let (spec, source) =
                settled(settle, &variables, &wanted).unwrap_or_else(|error| panic!("{told}: {error}"));
            assert_eq!(spec.credentials, kind, "{variables:?}");
            assert!(source.contains(told), "{source} instead of {told}");
        }
        // What comes before it is there too, and another kind is asked for.
        let everything: BTreeMap<&str, &str> =
            always.iter().chain(sources.iter().flat_map(|(named, _, _)| *named)).copied().collect();
        if sources[..first].iter().all(|(_, earlier, _)| *earlier != kind) {
            let wanted = StoreSpec { credentials: kind, ..StoreSpec::default() };
            let (_, source) = settled(settle, &everything, &wanted).unwrap();
            assert!(source.contains(told), "{source} instead of {told}");
        }
    }
    let nothing = settled(settle, &always.iter().copied().collect(), &StoreSpec::default()).unwrap_err();
    assert!(
        matches!(nothing, StoreError::MissingCredentials { .. }) && nothing.hint().is_some(),
        "{nothing}"
    );
}

#[test]
fn amazon_is_asked_in_the_promised_order() {
    let static_keys = [("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s")];
    let web = [("AWS_WEB_IDENTITY_TOKEN_FILE", "/token"), ("AWS_ROLE_ARN", "arn:role")];
    let relative = [("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "/v2/credentials/1")];
    let full = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.170.23/v1/credentials"),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "/pod"),
    ];
    let machine = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://127.0.0.1:1")];
    let sources: [Source<'_>; 5] = [
        (&static_keys, Credentials::Static, "AWS_ACCESS_KEY_ID in the environment"),
        (&web, Credentials::WebIdentity, "the web identity in /token, as arn:role"),
        (&relative, Credentials::Container, "the container's at /v2/credentials/1"),
        (&full, Credentials::Container, "the container's at http://169.254.170.23/v1/credentials"),
        (&machine, Credentials::Instance, "the role of this machine"),
    ];
    in_order(s3::settle, &[], &sources);
    // A task of ECS has a path and no token; a pod of EKS has both.
    let of_task = settled(s3::settle, &relative.into(), &StoreSpec::default()).unwrap().0;
    assert_eq!(of_task.container_credentials_uri.as_deref(), Some("/v2/credentials/1"));
    assert_eq!(of_task.container_token_file, None);
    let of_pod = settled(s3::settle, &full.into(), &StoreSpec::default()).unwrap().0;
    assert_eq!(of_pod.container_token_file.as_deref(), Some(Path::new("/pod")));
    for half in [&full[..1], &web[..1], &static_keys[..1], &static_keys[1..]] {
        let error = settled(s3::settle, &half.iter().copied().collect(), &StoreSpec::default()).unwrap_err();
        assert!(matches!(error, StoreError::MissingCredentials { .. }), "{half:?}: {error}");
    }
}

#[test]
fn azure_is_asked_in_the_promised_order() {
    let application = [("AZURE_TENANT_ID", "t"), ("AZURE_CLIENT_ID", "c")];
    let secret = [&application[..], &[("AZURE_CLIENT_SECRET", "s")]].concat();
    let workload = [&application[..], &[("AZURE_FEDERATED_TOKEN_FILE", "/token")]].concat();
    let sources: [Source<'_>; 6] = [
        (&[("AZURE_STORAGE_KEY", "k")], Credentials::Static, "AZURE_STORAGE_KEY in the environment"),
        (&[("AZURE_STORAGE_ACCOUNT_KEY", "k")], Credentials::Static, "AZURE_STORAGE_ACCOUNT_KEY in"),
        (&[("AZURE_STORAGE_SAS_TOKEN", "sig=s")], Credentials::Static, "AZURE_STORAGE_SAS_TOKEN in"),
        (&secret, Credentials::Static, "AZURE_CLIENT_SECRET in the environment"),
        (&workload, Credentials::WebIdentity, "the workload's federated token in /token"),
        (&[("IDENTITY_ENDPOINT", "http://127.0.0.1:1")], Credentials::Instance, "the managed identity"),
    ];
    for account in ["AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_ACCOUNT_NAME"] {
        in_order(az::settle, &[(account, "a")], &sources);
    }
    let variables: BTreeMap<&str, &str> = workload
        .iter()
        .copied()
        .chain([("AZURE_STORAGE_ACCOUNT", "a"), ("AZURE_AUTHORITY_HOST", "https://h")])
        .collect();
    let (spec, _) = settled(az::settle, &variables, &StoreSpec::default()).unwrap();
    assert_eq!(spec.federated_token_file.as_deref(), Some(Path::new("/token")));
    let named = (spec.tenant_id.as_deref(), spec.client_id.as_deref(), spec.authority_host.as_deref());
    assert_eq!(named, (Some("t"), Some("c"), Some("https://h")));
    for half in [&secret[1..], &workload[1..]] {
        let variables = half.iter().copied().chain([("AZURE_STORAGE_ACCOUNT", "a")]).collect();
        let error = settled(az::settle, &variables, &StoreSpec::default()).unwrap_err();
        assert!(error.to_string().contains("an application needs"), "{error}");
    }
}

#[test]
fn google_is_asked_in_the_promised_order() {
    let directory = tempfile::tempdir().unwrap();
    let key = |path: &Path, kind: &str| {
        crate::durable::replace(path, &[format!("{{\"type\": \"{kind}\"}}").into_bytes()]).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let named = key(&directory.path().join("named.json"), "service_account");
    let home = directory.path().to_str().unwrap();
    let gcloud = directory.path().join(".config/gcloud/application_default_credentials.json");
    std::fs::create_dir_all(gcloud.parent().unwrap()).unwrap();
    let kept = key(&gcloud, "service_account");
    let sources: [Source<'_>; 3] = [
        (&[("GOOGLE_APPLICATION_CREDENTIALS", &named)], Credentials::Static, &named),
        (&[("HOME", home)], Credentials::Static, &kept),
        (&[("GCE_METADATA_HOST", "127.0.0.1:1")], Credentials::Instance, "the account of this machine"),
    ];
    in_order(gs::settle, &[], &sources);
    let own = StoreSpec {
        service_account_key: Some("{\"type\": \"service_account\"}".to_owned().into()),
        ..StoreSpec::default()
    };
    let variables = BTreeMap::from([("GOOGLE_APPLICATION_CREDENTIALS", named.as_str())]);
    let (_, source) = settled(gs::settle, &variables, &own).unwrap();
    assert_eq!(source, "service_account_key of the configuration");
    // What a workload shows stands where a key would, and is what it is under any name.
    let external = directory.path().join("external.json");
    let written = serde_json::json!({
        "type": "external_account", "audience": "a", "subject_token_type": "t",
        "credential_source": { "file": "/token" },
    });
    crate::durable::replace(&external, &[written.to_string().into_bytes()]).unwrap();
    let external = external.to_str().unwrap();
    let variables = BTreeMap::from([("GOOGLE_APPLICATION_CREDENTIALS", external)]);
    for credentials in [Credentials::Auto, Credentials::WebIdentity] {
        let wanted = StoreSpec { credentials, ..StoreSpec::default() };
        let (spec, source) = settled(gs::settle, &variables, &wanted).unwrap();
        assert_eq!(spec.credentials, Credentials::WebIdentity);
        assert_eq!(source, format!("the web identity in /token, by {external}"));
    }
    for (path, credentials) in [(external, Credentials::Static), (&named, Credentials::WebIdentity)] {
        let wanted = StoreSpec { credentials, ..StoreSpec::default() };
        let variables = BTreeMap::from([("GOOGLE_APPLICATION_CREDENTIALS", path)]);
        let error = settled(gs::settle, &variables, &wanted).unwrap_err();
        assert!(error.to_string().contains("rule out"), "{error}");
    }
    // A file that is named is used or refused, never passed over.
    let person = key(&directory.path().join("person.json"), "authorized_user");
    let absent = directory.path().join("absent.json").to_str().unwrap().to_owned();
    for path in [&person, &absent] {
        let variables =
            [("GOOGLE_APPLICATION_CREDENTIALS", path.as_str()), ("GCE_METADATA_HOST", "h")].into();
        let error = settled(gs::settle, &variables, &StoreSpec::default()).unwrap_err();
        assert!(matches!(error, StoreError::MissingCredentials { .. }), "{error}");
        assert!(error.to_string().contains(path), "{error}");
    }
}
