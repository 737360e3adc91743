//! S3, and everything that speaks it.
//!
//! Credentials, the first that is found: `access_key_id` with `secret_access_key`; `AWS_ACCESS_KEY_ID` with
//! `AWS_SECRET_ACCESS_KEY` and, if set, `AWS_SESSION_TOKEN`. A pair is never made of halves.

use object_store::aws::{AmazonS3Builder, S3ConditionalPut};
use secrecy::ExposeSecret as _;
use url::Url;

use super::client::{self, Endpoint, Place};
use super::{CloudStore, Dialect};
use crate::store::spec::Environment;
use crate::store::{StoreError, StoreSpec};

/// The region that requests are signed for where nobody names one; most other services accept any.
const DEFAULT_REGION: &str = "us-east-1";

/// What S3 calls things. A create that loses is 412, or 409 while the other writer is under way.
static DIALECT: Dialect = Dialect {
    root: "bucket",
    root_missing: &["NoSuchBucket"],
    object_missing: &["NoSuchKey"],
    exists: &["PreconditionFailed"],
    busy: &["RequestTimeout", "SlowDown", "InternalError", "ServiceUnavailable", "OperationAborted"],
    unknown_credentials: &["ExpiredToken", "InvalidToken", "InvalidAccessKeyId"],
    lists_omit_the_prefix_itself: false,
};

const HINT: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or access_key_id and secret_access_key of the repository";

/// A store for `s3://bucket/prefix`. Makes no request.
pub(crate) fn open(
    url: &Url,
    spec: &StoreSpec,
    environment: &Environment<'_>,
) -> Result<CloudStore, StoreError> {
    let place = Place::of(url)?;
    let mut spec = spec.clone();
    settle(&mut spec, environment, &place.name)?;
    let mut builder = AmazonS3Builder::new()
        .with_bucket_name(&place.root)
        .with_region(spec.region.as_deref().unwrap_or(DEFAULT_REGION))
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        // Single deletes work everywhere, bulk ones do not.
        .with_disable_bulk_delete(true)
        .with_retry(client::retries());
    if let (Some(id), Some(secret)) = (&spec.access_key_id, &spec.secret_access_key) {
        builder =
            builder.with_access_key_id(id.expose_secret()).with_secret_access_key(secret.expose_secret());
    }
    if let Some(token) = &spec.session_token {
        builder = builder.with_token(token.expose_secret());
    }
    let mut endpoint = Endpoint::of(&spec, &place)?;
    let path_style = spec.path_style.unwrap_or(endpoint.is_some());
    builder = builder.with_virtual_hosted_style_request(!path_style);
    if !path_style {
        // Given an endpoint, the client takes it as it is.
        let prefixed = endpoint.map(|endpoint| endpoint.with_host_prefix(&place.root)).transpose();
        endpoint = prefixed.map_err(|reason| place.invalid(reason))?;
    }
    if let Some(endpoint) = &endpoint {
        builder = builder.with_endpoint(endpoint.text());
    }
    let builder = builder.with_client_options(client::options(endpoint.as_ref()));
    let client = builder.build().map_err(|error| place.invalid(error.to_string()))?;
    Ok(CloudStore::new(client, &DIALECT, place))
}

/// Makes explicit what the environment decides.
pub(crate) fn settle(
    spec: &mut StoreSpec,
    environment: &Environment<'_>,
    store: &str,
) -> Result<(), StoreError> {
    let missing = |reason: &str| StoreError::MissingCredentials {
        store: store.to_owned(),
        reason: reason.to_owned(),
        hint: HINT,
    };
    if spec.region.is_none() {
        spec.region = environment.first_of(&["AWS_REGION", "AWS_DEFAULT_REGION"]).map(|(_, value)| value);
    }
    match (&spec.access_key_id, &spec.secret_access_key) {
        (Some(_), Some(_)) => return Ok(()),
        (Some(_), None) => return Err(missing("access_key_id is set and secret_access_key is not")),
        (None, Some(_)) => return Err(missing("secret_access_key is set and access_key_id is not")),
        (None, None) => {}
    }
    match (environment.secret("AWS_ACCESS_KEY_ID"), environment.secret("AWS_SECRET_ACCESS_KEY")) {
        (Some(id), Some(secret)) => {
            (spec.access_key_id, spec.secret_access_key) = (Some(id), Some(secret));
            spec.session_token = environment.secret("AWS_SESSION_TOKEN");
            Ok(())
        }
        (Some(_), None) => Err(missing("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not")),
        (None, Some(_)) => Err(missing("AWS_SECRET_ACCESS_KEY is set and AWS_ACCESS_KEY_ID is not")),
        (None, None) => Err(missing("there are no credentials")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// A pair is never made of halves: a key of one account with the token of another would be refused for a reason nobody finds.
    #[test]
    fn keys_come_from_one_source() {
        let look_up = |name: &str| match name {
            "AWS_ACCESS_KEY_ID" => Some("environment".to_owned()),
            "AWS_SECRET_ACCESS_KEY" => Some("its secret".to_owned()),
            "AWS_SESSION_TOKEN" => Some("its token".to_owned()),
            "AWS_REGION" => Some("eu-central-1".to_owned()),
            _ => None,
        };
        let environment = Environment::new(&look_up);
        let own = |text: &str| Some(text.to_owned().into());
        let mut spec = StoreSpec::default();
        settle(&mut spec, &environment, "s3://b").unwrap();
        let secrets = spec.secrets();
        assert_eq!(spec.region.as_deref(), Some("eu-central-1"));
        assert_eq!(
            (secrets["access_key_id"].as_str(), secrets["session_token"].as_str()),
            ("environment", "its token")
        );
        let mut spec =
            StoreSpec { access_key_id: own("a"), secret_access_key: own("b"), ..StoreSpec::default() };
        settle(&mut spec, &environment, "s3://b").unwrap();
        assert_eq!(spec.secrets().len(), 2);
        let mut half = StoreSpec { access_key_id: own("a"), ..StoreSpec::default() };
        let error = settle(&mut half, &environment, "s3://b").unwrap_err();
        assert!(error.to_string().contains("secret_access_key"), "{error}");
    }
}
