//! Every option, declared once.
//!
//! A row gives the type, the dotted key (`*` stands for the name of a repository), the form of its value, the default, who
//! may carry it and its help. Everything else about options is derived from this table.

use std::path::PathBuf;

use highwater_archive::names::ClusterName;
use highwater_archive::seal::Codec;
use highwater_archive::store::{Credentials, Encryption, UploadChecksum};

use super::resolve::RequiredRepositories;
use super::units;

/// An option with values of type `T`.
pub struct Opt<T> {
    /// What every option has.
    pub spec: Spec,
    /// Reads a value; the error says what would be right.
    pub parse: fn(&str) -> Result<T, String>,
}

/// What the reference and the checks know of an option.
pub struct Spec {
    /// The dotted key, with `*` for the name of a repository.
    pub key: &'static str,
    /// The form of the value, for people.
    pub form: &'static str,
    /// What holds when it is not set.
    pub default: Default,
    /// Where it may stand.
    pub carrier: Carrier,
    /// What it does, in one or two sentences.
    pub help: &'static str,
}

/// What holds when an option is not set.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Default {
    /// It must be set where it is needed.
    Required,
    /// This text is read as if it had been given.
    Text(&'static str),
    /// Something that depends on other things, in words.
    Computed(&'static str),
}

/// Where an option may stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// In the file, the environment and `--set`.
    Any,
    /// A secret: in the environment alone.
    Environment,
}

/// An option without its type: its row and a check of a value's form.
pub trait Described: Sync {
    /// The row.
    fn spec(&self) -> &Spec;
    /// Whether `text` is of the option's form.
    fn check(&self, text: &str) -> Result<(), String>;
}

impl<T> Described for Opt<T> {
    fn spec(&self) -> &Spec {
        &self.spec
    }
    fn check(&self, text: &str) -> Result<(), String> {
        (self.parse)(text).map(drop)
    }
}

macro_rules! options {
    ($( $(#[$doc:meta])* $name:ident: $type:ty = $key:literal, $form:literal, $parse:path, $default:expr, $carrier:expr, $help:literal; )+) => {
        $( $(#[$doc])* pub const $name: Opt<$type> = Opt {
            spec: Spec { key: $key, form: $form, default: $default, carrier: $carrier, help: $help },
            parse: $parse,
        }; )+
        /// Every option, in the order of the reference.
        pub static ALL: &[&dyn Described] = &[$( &$name ),+];
    };
}

options! {
    CLUSTER_NAME: ClusterName = "cluster.name", "name", units::name, Default::Required, Carrier::Any,
        "The cluster's name in the repositories: 1 to 63 of a-z, 0-9, dot, dash and underscore.";
    CLUSTER_DATA_DIR: PathBuf = "cluster.data_dir", "directory", units::absolute_path, Default::Required, Carrier::Any,
        "The data directory (PGDATA). Not needed to list or restore.";
    CLUSTER_CONNECTION: String = "cluster.connection", "libpq connection string", units::text,
        Default::Computed("the socket and port in the data directory's postmaster.pid, database postgres, the current user"), Carrier::Any,
        "How to reach the running cluster, as libpq writes it. Passwords come from passfile= or ~/.pgpass.";

    REPOSITORY_URL: String = "repository.*.url", "URL", units::text, Default::Required, Carrier::Any,
        "Where the repository lies: file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.";
    REPOSITORY_KEY_FILE: PathBuf = "repository.*.key_file", "file", units::absolute_path,
        Default::Computed("/etc/highwater/NAME.key for the cluster NAME"), Carrier::Any,
        "The age identity, or a passphrase, that opens the keyring. Only its owner may read it.";
    REPOSITORY_KEY: String = "repository.*.key", "age identity or passphrase", units::text, Default::Computed("none"), Carrier::Environment,
        "The content of the key file, where there is none.";
    REPOSITORY_KEY_COMMAND: String = "repository.*.key_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the content of the key file.";
    REPOSITORY_COMPRESSION: Codec = "repository.*.compression", "lz4, zstd or none", units::codec, Default::Text("lz4"), Carrier::Any,
        "How content is compressed before it is sealed.";
    REPOSITORY_ENDPOINT: String = "repository.*.endpoint", "URL", units::text, Default::Computed("the provider's own"), Carrier::Any,
        "The address of a service that is not the provider's own, such as https://storage.example.com:9000.";
    REPOSITORY_ALLOW_HTTP: bool = "repository.*.allow_http", "true or false", units::boolean, Default::Text("false"), Carrier::Any,
        "Whether an endpoint may be reached without TLS.";
    REPOSITORY_CA_FILE: PathBuf = "repository.*.ca_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A PEM file with certificates of authorities to trust besides the system's.";
    REPOSITORY_PROXY: String = "repository.*.proxy", "URL", units::proxy, Default::Computed("HTTPS_PROXY, or ALL_PROXY"), Carrier::Any,
        "The proxy for every request to the store, http://host:port. One that wants a password is given by HTTPS_PROXY in the environment.";
    REPOSITORY_NO_PROXY: String = "repository.*.no_proxy", "hosts, domains and networks, separated by commas", units::text, Default::Computed("NO_PROXY"), Carrier::Any,
        "What is reached without the proxy. Metadata services of machines and containers always are.";
    REPOSITORY_CREDENTIALS: Credentials = "repository.*.credentials", "auto, static, web_identity, container or instance", units::credentials, Default::Text("auto"), Carrier::Any,
        "Which kind of credentials is used; auto takes the first that is found, and `highwater check` prints which that was, and where its secret was found. \
         static: keys and secrets of the configuration, then those of the provider's usual environment. \
         web_identity: a token from a file, such as Kubernetes writes it, for a role of AWS (AWS_WEB_IDENTITY_TOKEN_FILE, AWS_ROLE_ARN) or an application in Azure (AZURE_FEDERATED_TOKEN_FILE), \
         or a workload's own token by an external_account of Google's, in the place of a service account's key (GOOGLE_APPLICATION_CREDENTIALS). \
         container: what AWS gives a container (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, or _FULL_URI with AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE). \
         instance: the role of an EC2 instance (IMDSv2), the account of a machine or workload at Google, a managed identity in Azure. \
         What is temporary is renewed before it expires.";
    REPOSITORY_PACK_STORAGE_CLASS: String = "repository.*.pack_storage_class", "class", units::text, Default::Computed("the bucket's or account's own"), Carrier::Any,
        "The storage class, or access tier, of the backups' data. S3: STANDARD, STANDARD_IA, ONEZONE_IA, INTELLIGENT_TIERING; Google: STANDARD, NEARLINE, COLDLINE; Azure: Hot, Cool, Cold. Archive tiers are refused: a restore cannot wait for them.";
    REPOSITORY_WAL_STORAGE_CLASS: String = "repository.*.wal_storage_class", "class", units::text, Default::Computed("the bucket's or account's own"), Carrier::Any,
        "The same for WAL. Most classes but the first of each provider's are billed for a least size or a least time: there, a segment of a few KiB may cost more, and so may one that is soon removed.";
    REPOSITORY_METADATA_STORAGE_CLASS: String = "repository.*.metadata_storage_class", "class", units::text, Default::Computed("the bucket's or account's own"), Carrier::Any,
        "The same for everything else: manifests, keyrings and records, which are small and read by every command. The first class of each provider's is the one for them, where the bucket's own is another.";
    REPOSITORY_REGION: String = "repository.*.region", "region", units::text, Default::Computed("AWS_REGION, or us-east-1"), Carrier::Any,
        "S3: the region that requests are signed for.";
    REPOSITORY_PATH_STYLE: bool = "repository.*.path_style", "true or false", units::boolean,
        Default::Computed("true with an endpoint, false without"), Carrier::Any,
        "S3: whether the bucket stands in the path of a request instead of its host name.";
    REPOSITORY_ACCESS_KEY_ID: String = "repository.*.access_key_id", "text", units::text, Default::Computed("AWS_ACCESS_KEY_ID"), Carrier::Any,
        "S3: the name of the access key.";
    REPOSITORY_SECRET: String = "repository.*.secret_access_key", "secret", units::text, Default::Computed("AWS_SECRET_ACCESS_KEY"), Carrier::Environment,
        "S3: the access key's secret.";
    REPOSITORY_SECRET_FILE: PathBuf = "repository.*.secret_access_key_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A file that holds the secret. Only its owner may read it.";
    REPOSITORY_SECRET_COMMAND: String = "repository.*.secret_access_key_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the secret.";
    REPOSITORY_SESSION_TOKEN: String = "repository.*.session_token", "secret", units::text, Default::Computed("AWS_SESSION_TOKEN"), Carrier::Environment,
        "S3: the session token of temporary credentials.";
    REPOSITORY_SESSION_TOKEN_FILE: PathBuf = "repository.*.session_token_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A file that holds the session token. Only its owner may read it.";
    REPOSITORY_SESSION_TOKEN_COMMAND: String = "repository.*.session_token_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the session token.";
    REPOSITORY_ROLE_ARN: String = "repository.*.role_arn", "ARN", units::text, Default::Computed("AWS_ROLE_ARN"), Carrier::Any,
        "S3: the role that a web identity takes on.";
    REPOSITORY_WEB_IDENTITY_TOKEN_FILE: PathBuf = "repository.*.web_identity_token_file", "file", units::absolute_path, Default::Computed("AWS_WEB_IDENTITY_TOKEN_FILE"), Carrier::Any,
        "S3: the file that holds the web identity's token. It is read anew at each renewal.";
    REPOSITORY_STS_ENDPOINT: String = "repository.*.sts_endpoint", "https URL", units::text, Default::Computed("AWS_ENDPOINT_URL_STS, or the region's"), Carrier::Any,
        "S3: the token service that a web identity is shown to.";
    REPOSITORY_ENCRYPTION: Encryption = "repository.*.encryption", "sse-s3 or sse-kms", units::encryption, Default::Computed("as the bucket says"), Carrier::Any,
        "S3: how the service encrypts what it stores, besides our own sealing.";
    REPOSITORY_KMS_KEY_ID: String = "repository.*.kms_key_id", "id, ARN or name", units::text, Default::Computed("the account's or bucket's default key"), Carrier::Any,
        "S3: the key of KMS, with encryption = \"sse-kms\". Google: the key of Cloud KMS, as projects/P/locations/L/keyRings/R/cryptoKeys/K.";
    REPOSITORY_BUCKET_KEY: bool = "repository.*.bucket_key", "true or false", units::boolean, Default::Computed("as the bucket says"), Carrier::Any,
        "S3: whether KMS is asked once for the bucket instead of once for each object, with encryption = \"sse-kms\".";
    REPOSITORY_ENCRYPTION_SCOPE: String = "repository.*.encryption_scope", "name", units::text, Default::Computed("the container's default"), Carrier::Any,
        "Azure: the encryption scope of the storage account under whose key everything is put.";
    REPOSITORY_REQUESTER_PAYS: bool = "repository.*.requester_pays", "true or false", units::boolean, Default::Text("false"), Carrier::Any,
        "S3: whether our account pays for requests to a bucket of somebody else's.";
    REPOSITORY_USER_PROJECT: String = "repository.*.user_project", "project", units::text, Default::Computed("none"), Carrier::Any,
        "Google: the id of the project that pays for requests to a bucket where whoever asks pays.";
    REPOSITORY_UNSIGNED_PAYLOAD: bool = "repository.*.unsigned_payload", "true or false", units::boolean, Default::Text("false"), Carrier::Any,
        "S3: whether the content of a put is left out of its signature (UNSIGNED-PAYLOAD). It saves CPU, and some services need it; over TLS nothing is lost by it, and without TLS it is refused.";
    REPOSITORY_UPLOAD_CHECKSUM: UploadChecksum = "repository.*.upload_checksum", "crc64nvme, sha256 or none", units::upload_checksum,
        Default::Computed("crc64nvme without an endpoint or with unsigned_payload, else none"), Carrier::Any,
        "S3: the checksum that a put carries, which the service holds the content against and keeps. Without one the signature's SHA-256 guards the content, unless unsigned_payload leaves it out. \
         Object Lock with a default retention wants one; a service that refuses crc64nvme may know sha256, which costs more CPU.";
    REPOSITORY_SERVICE_ACCOUNT: String = "repository.*.service_account_key", "secret", units::text,
        Default::Computed("the file that GOOGLE_APPLICATION_CREDENTIALS names, or gcloud's below HOME"), Carrier::Environment,
        "Google Cloud Storage: the JSON key of a service account, or an external_account of workload identity federation, whose token is in a file or at a URL.";
    REPOSITORY_SERVICE_ACCOUNT_FILE: PathBuf = "repository.*.service_account_key_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A file that holds the JSON key. Only its owner may read it.";
    REPOSITORY_SERVICE_ACCOUNT_COMMAND: String = "repository.*.service_account_key_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the JSON key.";
    REPOSITORY_ACCOUNT: String = "repository.*.account", "text", units::text, Default::Computed("AZURE_STORAGE_ACCOUNT"), Carrier::Any,
        "Azure: the storage account that the container belongs to.";
    REPOSITORY_ACCOUNT_KEY: String = "repository.*.account_key", "secret", units::text, Default::Computed("AZURE_STORAGE_KEY"), Carrier::Environment,
        "Azure: one of the storage account's access keys.";
    REPOSITORY_ACCOUNT_KEY_FILE: PathBuf = "repository.*.account_key_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A file that holds the account's key. Only its owner may read it.";
    REPOSITORY_ACCOUNT_KEY_COMMAND: String = "repository.*.account_key_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the account's key.";
    REPOSITORY_SAS_TOKEN: String = "repository.*.sas_token", "secret", units::text, Default::Computed("AZURE_STORAGE_SAS_TOKEN"), Carrier::Environment,
        "Azure: a shared access signature, where there is no account_key.";
    REPOSITORY_SAS_TOKEN_FILE: PathBuf = "repository.*.sas_token_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A file that holds the shared access signature. Only its owner may read it.";
    REPOSITORY_SAS_TOKEN_COMMAND: String = "repository.*.sas_token_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the shared access signature.";
    REPOSITORY_TENANT_ID: String = "repository.*.tenant_id", "text", units::text, Default::Computed("AZURE_TENANT_ID"), Carrier::Any,
        "Azure: the tenant of an application that has a secret or a federated token.";
    REPOSITORY_CLIENT_ID: String = "repository.*.client_id", "text", units::text, Default::Computed("AZURE_CLIENT_ID"), Carrier::Any,
        "Azure: the application; or which managed identity, where a machine has several.";
    REPOSITORY_CLIENT_SECRET: String = "repository.*.client_secret", "secret", units::text, Default::Computed("AZURE_CLIENT_SECRET"), Carrier::Environment,
        "Azure: the application's secret.";
    REPOSITORY_CLIENT_SECRET_FILE: PathBuf = "repository.*.client_secret_file", "file", units::absolute_path, Default::Computed("none"), Carrier::Any,
        "A file that holds the application's secret. Only its owner may read it.";
    REPOSITORY_CLIENT_SECRET_COMMAND: String = "repository.*.client_secret_command", "shell command", units::text, Default::Computed("none"), Carrier::Any,
        "A command that prints the application's secret.";
    REPOSITORY_FEDERATED_TOKEN_FILE: PathBuf = "repository.*.federated_token_file", "file", units::absolute_path, Default::Computed("AZURE_FEDERATED_TOKEN_FILE"), Carrier::Any,
        "Azure: the file that holds a workload's federated token. It is read anew at each renewal.";

    WAL_REQUIRED_REPOSITORIES: RequiredRepositories = "wal.required_repositories", "all, or a number", units::required, Default::Text("all"), Carrier::Any,
        "How many repositories must hold WAL before it counts as archived. The others are given five seconds more, and hardly any while they do not answer; check tells which WAL one of them lacks.";
    WAL_PUSH_DEADLINE: std::time::Duration = "wal.push_deadline", "duration", units::duration, Default::Text("50s"), Carrier::Any,
        "How long archive-push tries before it fails and PostgreSQL calls again. PostgreSQL's shutdown waits for it.";
}
