//! What it takes to open a store: where it lies, how to get there, and what lets us in.
//!
//! Everything a person or an environment can say about a store is one field here. What is secret is never serialised with the
//! rest: [`StoreSpec::secrets`] hands it out by name, to be kept where nobody else reads.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

/// All it takes to open a store. Options that do not apply to the URL's kind are ignored.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSpec {
    /// `file:///directory`, `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`.
    pub url: String,
    /// The service, as `https://host[:port]`; absent for the provider's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Allow plain `http://` beyond the loopback interface.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub allow_http: bool,
    /// A PEM file of certificates to trust besides the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// The proxy for all requests; absent means the environment's.
    #[serde(skip)]
    pub proxy: Option<SecretString>,
    /// Hosts, domains and networks that are reached without the proxy, separated by commas; absent means `NO_PROXY`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub no_proxy: Option<String>,
    /// Which kind of credentials lets us in.
    #[serde(skip_serializing_if = "Credentials::is_auto")]
    pub credentials: Credentials,
    /// The class or tier that packs are stored in; absent means the bucket's or account's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack_storage_class: Option<String>,
    /// The same of WAL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wal_storage_class: Option<String>,
    /// The same of everything else, which is small.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_storage_class: Option<String>,
    /// Where a host's or container's metadata service answers, if not where the provider says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata_endpoint: Option<String>,
    /// S3: the region that requests are signed for; absent means `AWS_REGION`, then `us-east-1`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// S3: bucket in the path instead of the host name; absent means yes with an `endpoint`, no without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// S3: the access key.
    #[serde(skip)]
    pub access_key_id: Option<SecretString>,
    /// S3: its secret.
    #[serde(skip)]
    pub secret_access_key: Option<SecretString>,
    /// S3: the token of temporary credentials.
    #[serde(skip)]
    pub session_token: Option<SecretString>,
    /// S3: the role that a web identity takes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role_arn: Option<String>,
    /// S3: the file that holds the web identity's token, written anew by whoever hands it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub web_identity_token_file: Option<PathBuf>,
    /// S3: the token service, as an `https://` URL; absent means the region's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sts_endpoint: Option<String>,
    /// S3: where a container's credentials are: a path on 169.254.170.2, or a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_credentials_uri: Option<String>,
    /// S3: the file that holds the token for such a URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub container_token_file: Option<PathBuf>,
    /// S3: how the service encrypts what it stores; absent means as the bucket says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption: Option<Encryption>,
    /// S3, Google: the key of KMS; absent means the account's or bucket's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_id: Option<String>,
    /// S3: whether KMS gives one key for the bucket instead of one for each object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bucket_key: Option<bool>,
    /// S3: our account pays for requests to somebody else's bucket.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub requester_pays: bool,
    /// Google: the project that pays for requests to a bucket that has them paid by whoever asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_project: Option<String>,
    /// Azure: the account's encryption scope; absent means the container's default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub encryption_scope: Option<String>,
    /// S3: leave the content out of the signature of a put, where TLS protects it already.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsigned_payload: bool,
    /// S3: the checksum that a put carries; absent means CRC-64/NVME at Amazon and where the content is not signed, none elsewhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload_checksum: Option<UploadChecksum>,
    /// Google: the JSON text of a service account's key.
    #[serde(skip)]
    pub service_account_key: Option<SecretString>,
    /// Azure: the storage account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Azure: the account's access key.
    #[serde(skip)]
    pub account_key: Option<SecretString>,
    /// Azure: a shared access signature.
    #[serde(skip)]
    pub sas_token: Option<SecretString>,
    /// Azure: the tenant of an application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<String>,
    /// Azure: the application, or the managed identity where there are several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_id: Option<String>,
    /// Azure: the application's secret.
    #[serde(skip)]
    pub client_secret: Option<SecretString>,
    /// Azure: the file that holds a workload's federated token, written anew by whoever hands it out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub federated_token_file: Option<PathBuf>,
    /// Azure: who hands out tokens; absent means the public cloud's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority_host: Option<String>,
    /// Where the secrets above were found, in words and by the names of their options; for messages alone.
    #[serde(skip)]
    pub secret_sources: BTreeMap<String, String>,
}

/// The kinds of credentials, by the same names for every provider.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Credentials {
    /// The first that is found.
    #[default]
    Auto,
    /// Keys and secrets that somebody wrote down.
    Static,
    /// A token of an identity outside the provider, such as Kubernetes' for a pod.
    WebIdentity,
    /// What the provider gives a container.
    Container,
    /// What the provider gives a machine.
    Instance,
}

impl Credentials {
    #[allow(clippy::trivially_copy_pass_by_ref)] // Serde asks for a reference.
    fn is_auto(&self) -> bool {
        *self == Self::Auto
    }

    /// Whether a person who asked for this one takes `kind`.
    pub(super) fn allow(self, kind: Self) -> bool {
        self == Self::Auto || self == kind
    }
}

/// How S3 encrypts what it stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encryption {
    /// With a key of S3's own.
    SseS3,
    /// With a key of KMS.
    SseKms,
}

/// The checksum that S3 holds a put against before it stores it, and keeps beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadChecksum {
    /// For services that refuse every checksum.
    None,
    /// CRC-64/NVME, which costs next to nothing.
    Crc64Nvme,
    /// SHA-256, which older services know too.
    Sha256,
}

impl StoreSpec {
    /// Where the secret of this name was found, in words.
    pub(super) fn source_of(&self, option: &str) -> String {
        let found = self.secret_sources.get(option);
        found.cloned().unwrap_or_else(|| format!("{option} of the configuration"))
    }

    /// The first option that promises what a store of this scheme would not do: who asked for encryption under a key of theirs is not
    /// to learn one day that there was none.
    pub(super) fn promises_beyond(&self, scheme: &str) -> Option<&'static str> {
        let asked: [(&str, bool, &[&str]); 10] = [
            ("encryption", self.encryption.is_some(), &["s3"]),
            ("kms_key_id", self.kms_key_id.is_some(), &["s3", "gs"]),
            ("bucket_key", self.bucket_key.is_some(), &["s3"]),
            ("encryption_scope", self.encryption_scope.is_some(), &["az"]),
            ("requester_pays", self.requester_pays, &["s3"]),
            ("user_project", self.user_project.is_some(), &["gs"]),
            ("upload_checksum", self.upload_checksum.is_some(), &["s3"]),
            ("pack_storage_class", self.pack_storage_class.is_some(), &["s3", "gs", "az"]),
            ("wal_storage_class", self.wal_storage_class.is_some(), &["s3", "gs", "az"]),
            ("metadata_storage_class", self.metadata_storage_class.is_some(), &["s3", "gs", "az"]),
        ];
        let beyond =
            |(_, is_asked, schemes): &&(&str, bool, &[&str])| *is_asked && !schemes.contains(&scheme);
        asked.iter().find(beyond).map(|(option, _, _)| *option)
    }

    /// The secrets by the names of their options.
    pub fn secrets(&self) -> BTreeMap<String, String> {
        let mut copy = self.clone();
        let present = copy.slots().into_iter().filter_map(|(name, slot)| {
            slot.as_ref().map(|secret| (name.to_owned(), secret.expose_secret().to_owned()))
        });
        present.collect()
    }

    /// Takes back what [`StoreSpec::secrets`] gave; names of no secret are ignored.
    #[must_use]
    pub fn with_secrets(mut self, secrets: &BTreeMap<String, String>) -> Self {
        for (name, slot) in self.slots() {
            if let Some(text) = secrets.get(name) {
                *slot = Some(text.clone().into());
            }
        }
        self
    }

    /// Every secret, so that none is forgotten.
    fn slots(&mut self) -> [(&'static str, &mut Option<SecretString>); 8] {
        [
            ("access_key_id", &mut self.access_key_id),
            ("secret_access_key", &mut self.secret_access_key),
            ("session_token", &mut self.session_token),
            ("service_account_key", &mut self.service_account_key),
            ("account_key", &mut self.account_key),
            ("sas_token", &mut self.sas_token),
            ("client_secret", &mut self.client_secret),
            ("proxy", &mut self.proxy),
        ]
    }
}

/// Where usual variables are looked up, and what the machine says of its maker: the real ones, or a test's.
pub(super) struct Environment<'a> {
    look_up: &'a dyn Fn(&str) -> Option<String>,
    firmware: &'a dyn Fn(&str) -> Option<String>,
}

/// A variable of this process.
pub(super) fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// What the machine's firmware says (SMBIOS), such as `sys_vendor`. Providers' own libraries look there too: asking the address of
/// a metadata service on any other machine would only wait.
pub(super) fn firmware(name: &str) -> Option<String> {
    let text = std::fs::read_to_string(format!("/sys/class/dmi/id/{name}")).ok()?;
    Some(text.trim().to_owned())
}

impl<'a> Environment<'a> {
    pub(super) fn new(
        look_up: &'a dyn Fn(&str) -> Option<String>,
        firmware: &'a dyn Fn(&str) -> Option<String>,
    ) -> Self {
        Self { look_up, firmware }
    }

    /// Whether the firmware says this.
    pub(super) fn machine_is(&self, name: &str, text: &str) -> bool {
        (self.firmware)(name).is_some_and(|found| found == text)
    }

    /// A variable that is set to something.
    pub(super) fn get(&self, name: &str) -> Option<String> {
        (self.look_up)(name).filter(|value| !value.is_empty())
    }

    /// The same, as a secret.
    pub(super) fn secret(&self, name: &str) -> Option<SecretString> {
        self.get(name).map(SecretString::from)
    }

    /// The first of several names that is set, with its name.
    pub(super) fn first_of(&self, names: &[&'static str]) -> Option<(&'static str, String)> {
        names.iter().find_map(|name| self.get(name).map(|value| (*name, value)))
    }
}

/// A URL or an address for messages. A person who pastes credentials into one gets anything but a URL, so only what cannot be
/// secret is shown: a directory of this host, a text without the signs of a URL, else scheme and host.
pub(super) fn shown(text: &str) -> String {
    match url::Url::parse(text) {
        Ok(url) if url.scheme() == "file" && !url.has_host() => format!("file://{}", url.path()),
        Ok(url) => {
            let Some(host) = url.host_str().filter(|host| !host.is_empty()) else {
                return if url.cannot_be_a_base() {
                    "…".to_owned()
                } else {
                    format!("{}://…", url.scheme())
                };
            };
            let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
            let is_all = matches!(url.path(), "" | "/") && url.query().is_none();
            format!("{}://{host}{port}{}", url.scheme(), if is_all { "" } else { "/…" })
        }
        Err(_) if !text.contains([':', '@', '?', '#', '=']) => text.to_owned(),
        Err(_) => match text.split_once("://") {
            Some((scheme, _)) if scheme.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()) => {
                format!("{scheme}://…")
            }
            _ => "…".to_owned(),
        },
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// Whatever a person pasted into a URL, a message holds no more of it than where it leads.
    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        for (text, expected) in [
            ("s3://KEY:ab/cd@b", "s3://…"),
            ("s3://KEY:ab@b/prefix", "s3://b/…"),
            (
                "https://account.blob.core.windows.net/c?sv=1&sig=ab",
                "https://account.blob.core.windows.net/…",
            ),
            ("https://host:9000", "https://host:9000"),
            ("KEY:ab@host:9000", "…"),
            ("KEY:ab@host", "…"),
            ("s3:///prefix", "s3://…"),
            ("host?sig=ab", "…"),
            ("file:///srv/backups", "file:///srv/backups"),
            ("/srv/backups", "/srv/backups"),
        ] {
            assert_eq!(shown(text), expected, "{text}");
        }
    }

    /// What is written beside others never holds a secret, and comes back whole with them.
    #[test]
    fn secrets_go_their_own_way() {
        let mut spec =
            StoreSpec { url: "az://c/p".into(), account: Some("a".into()), ..StoreSpec::default() };
        for (name, slot) in spec.slots() {
            *slot = Some(format!("hush {name}").into());
        }
        let text = serde_json::to_string(&spec).unwrap();
        assert!(!text.contains("hush") && !format!("{spec:?}").contains("hush"), "{text}");
        let back: StoreSpec = serde_json::from_str(&text).unwrap();
        assert!(back.secrets().is_empty());
        let back = back.with_secrets(&spec.secrets());
        assert_eq!((back.secrets(), back.account.as_deref()), (spec.secrets(), Some("a")));
    }
}
