//! Configuration with every value parsed: what the rest of the program works with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_archive::names::ClusterName;
use highwater_archive::seal::Codec;
use highwater_archive::store::{SecretString, StoreSpec};
use highwater_restore::conf_file::shell_word;

use super::options::{self as opt, Opt};
use super::raw::{Raw, environment_name};
use super::{ConfigError, DIRECTORY, secret};

/// How many repositories must hold WAL before it counts as archived (I11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequiredRepositories {
    /// Every one that is configured.
    All,
    /// At least so many.
    AtLeast(usize),
}

impl RequiredRepositories {
    /// The number, of `configured` ones.
    pub fn count(self, configured: usize) -> usize {
        match self {
            Self::All => configured,
            Self::AtLeast(count) => count,
        }
    }
}

/// A cluster's configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The file it was read from, if any.
    pub file: Option<PathBuf>,
    /// The cluster's name in the repositories.
    pub cluster: ClusterName,
    /// At least one, sorted by name.
    pub repositories: Vec<RepositoryConfig>,
    /// What counts as archived.
    pub required_repositories: RequiredRepositories,
    /// How long `archive-push` tries.
    pub push_deadline: Duration,
    /// The libpq connection string, where one is set.
    pub connection: Option<String>,
    data_dir: Option<PathBuf>,
}

/// One repository.
#[derive(Clone, Debug)]
pub struct RepositoryConfig {
    /// The name it has in the configuration.
    pub name: String,
    /// Where it lies, and how to get in.
    pub store: StoreSpec,
    /// How content is compressed.
    pub codec: Codec,
    /// Where the key that opens the keyring comes from.
    pub key: KeySource,
}

/// Where the age identity or passphrase comes from.
#[derive(Clone)]
pub enum KeySource {
    /// A file that only its owner may read.
    File(PathBuf),
    /// The environment: the text itself.
    Environment(String),
    /// A shell command that prints it.
    Command(String),
}

impl std::fmt::Debug for KeySource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Environment(_) => f.write_str("Environment(…)"),
            Self::Command(command) => write!(f, "Command({command:?})"),
        }
    }
}

impl Config {
    /// The data directory.
    ///
    /// # Errors
    ///
    /// It is not set; only some commands need it.
    pub fn data_dir(&self) -> Result<&Path, ConfigError> {
        self.data_dir
            .as_deref()
            .ok_or_else(|| missing(opt::CLUSTER_DATA_DIR.spec.key, opt::CLUSTER_DATA_DIR.spec.help))
    }

    /// The arguments that make another call of this program find this configuration: what a printed command carries.
    pub fn arguments(&self) -> String {
        let usual = Path::new(DIRECTORY).join(format!("{}.toml", self.cluster));
        match &self.file {
            Some(file) if *file != usual => {
                format!("--config {} --cluster {}", shell_word(&file.to_string_lossy()), self.cluster)
            }
            Some(_) | None => format!("--cluster {}", self.cluster),
        }
    }
}

/// Parses what was merged.
///
/// # Errors
///
/// A missing option, a configuration of another cluster than `asked`, a secret that cannot be fetched.
pub fn resolve(raw: &Raw, file: Option<PathBuf>, asked: Option<&str>) -> Result<Config, ConfigError> {
    let place = file.as_ref().map_or_else(|| "the environment".to_owned(), |file| file.display().to_string());
    let cluster = match (raw.get(&opt::CLUSTER_NAME, "")?, asked) {
        (Some(found), Some(asked)) if found.as_str() != asked => {
            let (asked, found) = (asked.to_owned(), found.to_string());
            return Err(ConfigError::OtherCluster { asked, found, place });
        }
        (Some(found), _) => found,
        (None, Some(asked)) if file.is_none() => (opt::CLUSTER_NAME.parse)(asked).map_err(|reason| {
            let (key, place) = ("--cluster".to_owned(), "on the command line".to_owned());
            ConfigError::Value { key, value: asked.to_owned(), place, reason }
        })?,
        (None, _) => return Err(missing(opt::CLUSTER_NAME.spec.key, opt::CLUSTER_NAME.spec.help)),
    };
    let repositories: Vec<RepositoryConfig> =
        raw.repositories().iter().map(|name| repository(raw, name, &cluster)).collect::<Result<_, _>>()?;
    if repositories.is_empty() {
        return Err(missing("repository.NAME.url", opt::REPOSITORY_URL.spec.help));
    }
    let required_repositories =
        raw.get(&opt::WAL_REQUIRED_REPOSITORIES, "")?.unwrap_or(RequiredRepositories::All);
    if required_repositories.count(repositories.len()) > repositories.len() {
        return Err(ConfigError::Value {
            key: opt::WAL_REQUIRED_REPOSITORIES.spec.key.to_owned(),
            value: required_repositories.count(repositories.len()).to_string(),
            place,
            reason: format!("only {} configured", repositories.len()),
        });
    }
    Ok(Config {
        file,
        cluster,
        repositories,
        required_repositories,
        push_deadline: raw.get(&opt::WAL_PUSH_DEADLINE, "")?.unwrap_or(Duration::from_secs(50)),
        connection: raw.get(&opt::CLUSTER_CONNECTION, "")?,
        data_dir: raw.get(&opt::CLUSTER_DATA_DIR, "")?,
    })
}

fn repository(raw: &Raw, name: &str, cluster: &ClusterName) -> Result<RepositoryConfig, ConfigError> {
    let url_key = opt::REPOSITORY_URL.spec.key.replace('*', name);
    let url = raw
        .get(&opt::REPOSITORY_URL, name)?
        .ok_or_else(|| missing(&url_key, opt::REPOSITORY_URL.spec.help))?;
    let key = match (raw.get(&opt::REPOSITORY_KEY, name)?, raw.get(&opt::REPOSITORY_KEY_COMMAND, name)?) {
        (Some(text), _) => KeySource::Environment(text),
        (None, Some(command)) => KeySource::Command(command),
        (None, None) => KeySource::File(
            raw.get(&opt::REPOSITORY_KEY_FILE, name)?
                .unwrap_or_else(|| Path::new(DIRECTORY).join(format!("{cluster}.key"))),
        ),
    };
    let mut secret_sources = BTreeMap::new();
    let mut secret = |value: &Opt<String>, file: &Opt<PathBuf>, command: &Opt<String>| {
        let key = value.spec.key.replace('*', name);
        let sources = (raw.get(value, name)?, raw.get(file, name)?, raw.get(command, name)?);
        let Some(fetched) = secret::fetch(&key, sources.0, sources.1, sources.2)? else { return Ok(None) };
        let option = value.spec.key.trim_start_matches("repository.*.");
        secret_sources.insert(option.to_owned(), fetched.source);
        Ok::<_, ConfigError>(Some(SecretString::from(fetched.text)))
    };
    let store = StoreSpec {
        url,
        endpoint: raw.get(&opt::REPOSITORY_ENDPOINT, name)?,
        allow_http: raw.get(&opt::REPOSITORY_ALLOW_HTTP, name)?.unwrap_or(false),
        ca_file: raw.get(&opt::REPOSITORY_CA_FILE, name)?,
        proxy: raw.get(&opt::REPOSITORY_PROXY, name)?.map(Into::into),
        no_proxy: raw.get(&opt::REPOSITORY_NO_PROXY, name)?,
        credentials: raw.get(&opt::REPOSITORY_CREDENTIALS, name)?.unwrap_or_default(),
        pack_storage_class: raw.get(&opt::REPOSITORY_PACK_STORAGE_CLASS, name)?,
        wal_storage_class: raw.get(&opt::REPOSITORY_WAL_STORAGE_CLASS, name)?,
        metadata_storage_class: raw.get(&opt::REPOSITORY_METADATA_STORAGE_CLASS, name)?,
        region: raw.get(&opt::REPOSITORY_REGION, name)?,
        path_style: raw.get(&opt::REPOSITORY_PATH_STYLE, name)?,
        access_key_id: raw.get(&opt::REPOSITORY_ACCESS_KEY_ID, name)?.map(Into::into),
        secret_access_key: secret(
            &opt::REPOSITORY_SECRET,
            &opt::REPOSITORY_SECRET_FILE,
            &opt::REPOSITORY_SECRET_COMMAND,
        )?,
        session_token: secret(
            &opt::REPOSITORY_SESSION_TOKEN,
            &opt::REPOSITORY_SESSION_TOKEN_FILE,
            &opt::REPOSITORY_SESSION_TOKEN_COMMAND,
        )?,
        role_arn: raw.get(&opt::REPOSITORY_ROLE_ARN, name)?,
        web_identity_token_file: raw.get(&opt::REPOSITORY_WEB_IDENTITY_TOKEN_FILE, name)?,
        sts_endpoint: raw.get(&opt::REPOSITORY_STS_ENDPOINT, name)?,
        encryption: raw.get(&opt::REPOSITORY_ENCRYPTION, name)?,
        kms_key_id: raw.get(&opt::REPOSITORY_KMS_KEY_ID, name)?,
        bucket_key: raw.get(&opt::REPOSITORY_BUCKET_KEY, name)?,
        user_project: raw.get(&opt::REPOSITORY_USER_PROJECT, name)?,
        encryption_scope: raw.get(&opt::REPOSITORY_ENCRYPTION_SCOPE, name)?,
        requester_pays: raw.get(&opt::REPOSITORY_REQUESTER_PAYS, name)?.unwrap_or(false),
        unsigned_payload: raw.get(&opt::REPOSITORY_UNSIGNED_PAYLOAD, name)?.unwrap_or(false),
        upload_checksum: raw.get(&opt::REPOSITORY_UPLOAD_CHECKSUM, name)?,
        service_account_key: secret(
            &opt::REPOSITORY_SERVICE_ACCOUNT,
            &opt::REPOSITORY_SERVICE_ACCOUNT_FILE,
            &opt::REPOSITORY_SERVICE_ACCOUNT_COMMAND,
        )?,
        account: raw.get(&opt::REPOSITORY_ACCOUNT, name)?,
        account_key: secret(
            &opt::REPOSITORY_ACCOUNT_KEY,
            &opt::REPOSITORY_ACCOUNT_KEY_FILE,
            &opt::REPOSITORY_ACCOUNT_KEY_COMMAND,
        )?,
        sas_token: secret(
            &opt::REPOSITORY_SAS_TOKEN,
            &opt::REPOSITORY_SAS_TOKEN_FILE,
            &opt::REPOSITORY_SAS_TOKEN_COMMAND,
        )?,
        tenant_id: raw.get(&opt::REPOSITORY_TENANT_ID, name)?,
        client_id: raw.get(&opt::REPOSITORY_CLIENT_ID, name)?,
        client_secret: secret(
            &opt::REPOSITORY_CLIENT_SECRET,
            &opt::REPOSITORY_CLIENT_SECRET_FILE,
            &opt::REPOSITORY_CLIENT_SECRET_COMMAND,
        )?,
        federated_token_file: raw.get(&opt::REPOSITORY_FEDERATED_TOKEN_FILE, name)?,
        secret_sources,
        // Whoever runs containers and machines says the rest in their environment.
        ..StoreSpec::default()
    };
    Ok(RepositoryConfig {
        name: name.to_owned(),
        store,
        codec: raw.get(&opt::REPOSITORY_COMPRESSION, name)?.unwrap_or(Codec::Lz4),
        key,
    })
}

fn missing(key: &str, help: &str) -> ConfigError {
    let variable = environment_name(key);
    ConfigError::Missing {
        key: key.to_owned(),
        hint: format!("set it in the file, or as {variable}. {help}"),
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]
mod tests {
    use std::collections::BTreeMap;
    use std::os::unix::fs::PermissionsExt as _;

    use serde_json::Value;

    use super::super::options::Described;
    use super::super::raw;
    use super::*;

    /// What the options of a repository with a URL and these lines come to: all that is no secret, and the secrets.
    fn store(
        lines: &str,
        environment: &[(String, String)],
    ) -> (BTreeMap<String, Value>, BTreeMap<String, String>) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("main.toml");
        let text = format!("[cluster]\nname = \"main\"\n[repository.r]\nurl = \"s3://bucket/p\"\n{lines}\n");
        std::fs::write(&file, text).unwrap();
        let raw = raw::merge(Some(&file), environment.to_vec(), &[])
            .unwrap_or_else(|error| panic!("{lines}: {error}"));
        let config = resolve(&raw, Some(file), None).unwrap_or_else(|error| panic!("{lines}: {error}"));
        let spec = &config.repositories[0].store;
        (serde_json::from_value(serde_json::to_value(spec).unwrap()).unwrap(), spec.secrets())
    }

    /// The last part of a key below `repository.*`, unless it is about something else than the store.
    fn of_a_store(option: &dyn Described) -> Option<&'static str> {
        let name = option.spec().key.strip_prefix("repository.*.")?;
        (!["url", "key", "key_file", "key_command", "compression"].contains(&name)).then_some(name)
    }

    /// Texts of every form that options have.
    const TEXTS: [&str; 7] = [
        "true",
        "container",
        "sse-kms",
        "sha256",
        "http://proxy.example.com:3128",
        "/some/file",
        "some text",
    ];

    /// Each option of a store reaches the field of its name, and nothing else changes.
    #[test]
    fn each_option_reaches_the_store() {
        let (plain, none) = store("", &[]);
        assert!(none.is_empty());
        let names: Vec<&str> = opt::ALL.iter().filter_map(|option| of_a_store(*option)).collect();
        let mut reached = 0;
        for option in opt::ALL {
            let Some(name) = of_a_store(*option) else { continue };
            let is_source = ["_file", "_command"]
                .iter()
                .any(|end| name.strip_suffix(end).is_some_and(|secret| names.contains(&secret)));
            if is_source {
                continue;
            }
            let text = TEXTS.iter().find(|text| option.check(text).is_ok()).expect(name);
            // What a person may write anywhere is taken from the environment too.
            let variable = environment_name(&format!("repository.r.{name}"));
            let (mut fields, mut secrets) = store("", &[(variable, (*text).to_owned())]);
            let secret = secrets.remove(name);
            let field = fields.remove(name);
            let found = secret.or(field.map(|value| match value {
                Value::String(text) => text,
                other => other.to_string(),
            }));
            assert_eq!(found.as_deref(), Some(*text), "{name}");
            let mut others = plain.clone();
            others.remove(name);
            assert_eq!((fields, secrets), (others, BTreeMap::new()), "{name}");
            reached += 1;
        }
        assert!(reached >= 25, "only {reached} options are looked at");
    }

    /// A secret comes from the environment, a file or a command, whichever is set; the first of them wins.
    #[test]
    fn each_secret_has_three_sources() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "of a file\n").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut names = Vec::new();
        for option in opt::ALL {
            let Some(name) = of_a_store(*option).and_then(|name| name.strip_suffix("_command")) else {
                continue;
            };
            names.push(name);
            let file = format!("{name}_file = \"{}\"", path.display());
            let command = format!("{name}_command = \"echo of a command\"");
            let variable =
                (environment_name(&format!("repository.r.{name}")), "of the environment".to_owned());
            let all = format!("{file}\n{command}");
            for (lines, environment, expected) in [
                (&all, vec![variable], "of the environment"),
                (&all, vec![], "of a file"),
                (&file, vec![], "of a file"),
                (&command, vec![], "of a command"),
            ] {
                let (_, secrets) = store(lines, &environment);
                assert_eq!(secrets, BTreeMap::from([(name.to_owned(), expected.to_owned())]), "{lines}");
            }
        }
        for name in ["secret_access_key", "service_account_key", "account_key", "sas_token", "client_secret"]
        {
            assert!(names.contains(&name), "{name} is no secret of three sources: {names:?}");
        }
    }
}
