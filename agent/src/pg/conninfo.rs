//! libpq's connection strings, as far as they go here.
//!
//! `key=value` words and `postgresql://` URLs are parsed by tokio-postgres; before that, what it lacks is taken out: `passfile`,
//! and the `sslmode`s. What is not set comes from libpq's environment variables, then from the server that runs in the data
//! directory. What would be weaker than asked for, in the text or in the environment, is refused; as for libpq, `sslmode` says
//! nothing about a Unix socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use highwater_restore::ownership::Account;
use highwater_restore::server::Postmaster;
use tokio_postgres::config::{Host, SslMode, SslNegotiation};
use url::form_urlencoded;

use super::{PgError, passfile};

/// Where libpq packages put the server's socket.
const SOCKET_DIRS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// Variables that ask for what this client lacks, over every kind of connection.
const NOT_SUPPORTED: [&str; 4] = ["PGREQUIREPEER", "PGREQUIREAUTH", "PGSERVICE", "PGSSLNEGOTIATION"];

/// Options that may follow a password: libpq's, as far as tokio-postgres has them, and those that are taken out before.
const KEYS_AFTER_A_PASSWORD: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "load_balance_hosts",
    "options",
    "passfile",
    "password",
    "port",
    "replication",
    "sslcert",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
    "sslpassword",
];

/// The connection to make: everything decided, the password looked up.
pub fn resolve(conninfo: Option<&str>, data_dir: Option<&Path>) -> Result<tokio_postgres::Config, PgError> {
    resolve_with(conninfo, data_dir, &|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

/// libpq's environment.
type Environment<'a> = &'a dyn Fn(&str) -> Option<String>;

fn resolve_with(
    conninfo: Option<&str>,
    data_dir: Option<&Path>,
    environment: Environment<'_>,
) -> Result<tokio_postgres::Config, PgError> {
    let Prepared { text, passfile, sslmode } = prepare(conninfo.unwrap_or_default())?;
    let wrong = |error: tokio_postgres::Error| {
        let (told, _) = super::error::told(&error);
        // What is quoted of a URL may be of a password that holds a sign which ends it.
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        not_understood(if is_url { told.split('`').next().unwrap_or_default().trim_end() } else { &told })
    };
    let mut config: tokio_postgres::Config = text.parse().map_err(wrong)?;
    // Whatever way it found into the text, what tokio-postgres read there was asked for.
    let sslmode =
        sslmode.or_else(|| (config.get_ssl_mode() == SslMode::Require).then(|| "require".to_owned()));
    config.ssl_mode(SslMode::Disable);
    fill_in(&mut config, data_dir, environment)?;
    check_security(&config, sslmode, environment)?;
    if config.get_password().is_none() {
        let found = match (environment("PGPASSWORD"), passfile.or_else(passfile::default_path)) {
            (Some(password), _) => Some(password),
            (None, Some(path)) => look_up_password(&config, &path)?,
            (None, None) => None,
        };
        if let Some(password) = found {
            config.password(password);
        }
    }
    config.application_name("highwater");
    Ok(config)
}

/// Refuses what asks for more safety than this client has (`connectOptions2` and `PQconnectPoll` in libpq's `fe-connect.c`).
/// `sslmode` is what the text says; the environment speaks where it says nothing.
fn check_security(
    config: &tokio_postgres::Config,
    sslmode: Option<String>,
    environment: Environment<'_>,
) -> Result<(), PgError> {
    if let Some((name, value)) = NOT_SUPPORTED.iter().find_map(|name| Some((name, environment(name)?))) {
        return Err(PgError::Conninfo {
            reason: format!("the environment says {name}={value}, which this version does not support"),
            hint: format!("unset {name} for highwater, and say the same in cluster.connection"),
        });
    }
    for name in ["PGGSSENCMODE", "PGCHANNELBINDING"] {
        if environment(name).as_deref() == Some("require") {
            return Err(refused(&format!("{name}=require in the environment"), "encryption"));
        }
    }
    let local = config.get_hostaddrs().is_empty()
        && config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_)));
    if local {
        return Ok(());
    }
    if config.get_ssl_negotiation() == SslNegotiation::Direct {
        return Err(refused("sslnegotiation=direct (cluster.connection)", "TLS"));
    }
    let (mode, whence) = match (sslmode, environment("PGSSLMODE")) {
        (Some(mode), _) => (mode, "cluster.connection".to_owned()),
        (None, Some(mode)) => (mode, "PGSSLMODE in the environment".to_owned()),
        (None, None) => return roots_alone(environment),
    };
    match mode.as_str() {
        // libpq's "allow" tries without TLS first, and with it only where that is refused.
        "disable" | "allow" | "prefer" => roots_alone(environment),
        "require" | "verify-ca" | "verify-full" => Err(refused(&format!("sslmode={mode} ({whence})"), "TLS")),
        _ => Err(not_understood(&format!("{mode:?} is no sslmode ({whence})"))),
    }
}

/// The roots of the system ask for a server that is fully verified, whatever the mode.
fn roots_alone(environment: Environment<'_>) -> Result<(), PgError> {
    match environment("PGSSLROOTCERT").as_deref() {
        Some("system") => Err(refused("PGSSLROOTCERT=system in the environment", "TLS")),
        _ => Ok(()),
    }
}

/// Host, port, database and user in one line, for messages.
pub fn describe(config: &tokio_postgres::Config) -> String {
    let login = login_of(config);
    format!("host {} port {} database {} user {}", login.0, login.1, login.2, login.3)
}

/// A connection string without what tokio-postgres lacks.
#[derive(Default)]
struct Prepared {
    text: String,
    passfile: Option<PathBuf>,
    sslmode: Option<String>,
}

fn prepare(text: &str) -> Result<Prepared, PgError> {
    let mut prepared = Prepared::default();
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        // A password may hold a question mark: the parameters begin behind the host, as tokio-postgres reads it.
        let host = text.find('@').unwrap_or(0);
        let parameters = text.get(host..).and_then(|rest| rest.find('?')).map_or(text.len(), |at| host + at);
        let (place, query) = text.split_at(parameters);
        let query = query.strip_prefix('?').unwrap_or_default();
        let mut kept = Vec::new();
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            // Any letter of it may be written as its number.
            match form_urlencoded::parse(parameter.as_bytes()).next() {
                Some((key, mode)) if key == "sslmode" => prepared.sslmode = Some(mode.into_owned()),
                _ => kept.push(parameter),
            }
        }
        prepared.text = place.to_owned();
        if !kept.is_empty() {
            prepared.text.push_str(&format!("?{}", kept.join("&")));
        }
        return Ok(prepared);
    }
    for (number, (key, value)) in (1..).zip(words(text)?) {
        // What follows a password without quotes may be the rest of it.
        if prepared.text.contains("password='") && !KEYS_AFTER_A_PASSWORD.contains(&key.as_str()) {
            return Err(not_understood(&format!(
                "its word number {number} begins with no option of this version's"
            )));
        }
        match key.as_str() {
            "passfile" => prepared.passfile = Some(PathBuf::from(value)),
            "sslmode" => prepared.sslmode = Some(value),
            "application_name" | "fallback_application_name" | "client_encoding" => {}
            _ => {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                prepared.text.push_str(&format!("{key}='{value}' "));
            }
        }
    }
    Ok(prepared)
}

/// The `key = value` words of a connection string, unquoted (`conninfo_parse` in libpq's `fe-connect.c`).
fn words(text: &str) -> Result<Vec<(String, String)>, PgError> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.peek().is_none() {
            return Ok(words);
        }
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && !c.is_whitespace()) {
            key.push(c);
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        if chars.next() != Some('=') {
            // Not named: it may be the rest of a password that was not quoted.
            let number = words.len() + 1;
            return Err(not_understood(&format!(
                "its word number {number} has no \"=\"; a value with spaces is quoted: '…'"
            )));
        }
        while chars.next_if(|c| c.is_whitespace()).is_some() {}
        let quoted = chars.next_if_eq(&'\'').is_some();
        let mut value = String::new();
        loop {
            match chars.next() {
                Some('\'') if quoted => break,
                Some('\\') => value.extend(chars.next()),
                Some(c) if !quoted && c.is_whitespace() => break,
                Some(c) => value.push(c),
                None if quoted => {
                    let number = words.len() + 1;
                    return Err(not_understood(&format!(
                        "the quote of its word number {number} is not closed"
                    )));
                }
                None => break,
            }
        }
        words.push((key, value));
    }
}

/// What the text leaves open: host and port, user, database.
fn fill_in(
    config: &mut tokio_postgres::Config,
    data_dir: Option<&Path>,
    environment: Environment<'_>,
) -> Result<(), PgError> {
    let running = match data_dir {
        Some(data_dir) => Postmaster::read(data_dir)
            .map_err(|source| PgError::Unreadable { path: data_dir.join("postmaster.pid"), source })?,
        None => None,
    };
    let no_port = config.get_ports().is_empty();
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        if let Some(address) = environment("PGHOSTADDR") {
            let address = address.parse();
            config.hostaddr(address.map_err(|_| not_understood("PGHOSTADDR is no address"))?);
        }
        let socket_dir = running.as_ref().and_then(|running| running.socket_dir.clone());
        match (environment("PGHOST"), socket_dir) {
            (Some(host), _) => config.host(host),
            _ if !config.get_hostaddrs().is_empty() => config,
            (None, Some(directory)) => config.host_path(directory),
            (None, None) => {
                let usual = SOCKET_DIRS.iter().find(|directory| Path::new(directory).is_dir());
                config.host_path(usual.unwrap_or(&"/tmp"))
            }
        };
    }
    if no_port {
        let from_environment = environment("PGPORT").and_then(|port| port.parse().ok());
        let port = from_environment.or(running.and_then(|running| running.port)).unwrap_or(5432);
        config.port(port);
    }
    if config.get_user().is_none() {
        config.user(environment("PGUSER").unwrap_or_else(|| Account::current().name));
    }
    if config.get_dbname().is_none() {
        config.dbname(environment("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
    }
    if config.get_connect_timeout().is_none() {
        let seconds = environment("PGCONNECT_TIMEOUT").and_then(|seconds| seconds.parse().ok());
        config.connect_timeout(Duration::from_secs(seconds.filter(|seconds| *seconds > 0).unwrap_or(15)));
    }
    Ok(())
}

fn look_up_password(config: &tokio_postgres::Config, path: &Path) -> Result<Option<String>, PgError> {
    let (host, port, database, user) = login_of(config);
    passfile::look_up(path, &passfile::Login { host: &host, port, database: &database, user: &user })
}

fn login_of(config: &tokio_postgres::Config) -> (String, u16, String, String) {
    let host = match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(name)), _) => name.clone(),
        (Some(Host::Unix(path)), _) => path.display().to_string(),
        (None, Some(address)) => address.to_string(),
        (None, None) => "localhost".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().map_or_else(|| Account::current().name, str::to_owned);
    (host, port, config.get_dbname().unwrap_or("postgres").to_owned(), user)
}

fn not_understood(reason: &str) -> PgError {
    PgError::Conninfo {
        reason: reason.to_owned(),
        hint: "a connection string is like: host=/var/run/postgresql dbname=postgres user=highwater"
            .to_owned(),
    }
}

fn refused(what: &str, lacking: &str) -> PgError {
    PgError::Conninfo {
        reason: format!(
            "{what} asks for {lacking}, which this version cannot do; it will not connect without what was asked for"
        ),
        hint: "connect through the server's Unix socket; or, over a network you trust, say sslmode=prefer in cluster.connection"
            .to_owned(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn words_are_unquoted_as_libpq_does() {
        let found = words(r"host = /run user='o\'b c'  dbname=a\ b passfile=''").unwrap();
        let expected = [("host", "/run"), ("user", "o'b c"), ("dbname", "a b"), ("passfile", "")];
        assert_eq!(found, expected.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(words("host").is_err() && words("a='x").is_err());
        assert!(words("").unwrap().is_empty());
    }

    /// A password with a space that was not quoted falls into words: none of them is shown.
    #[test]
    fn no_part_of_a_password_is_named() {
        for text in [
            "host=/run password=correct horse",
            "password=correct horse=staple",
            "password='correct' 'horse'",
            "user=u password=correct horse='staple",
            "password='correct horse",
            "password = correct horse user=u",
            "postgresql://u:correct@x?horse=staple@h/d",
        ] {
            let error = resolved(text, &[]).unwrap_err();
            let told = format!("{error} {:?}", error.hint());
            assert!(["correct", "horse", "staple"].iter().all(|word| !told.contains(word)), "{text}: {told}");
        }
        assert!(resolved("host=/run password='correct horse' user=u", &[]).is_ok());
    }

    fn resolved(text: &str, environment: &[(&str, &str)]) -> Result<tokio_postgres::Config, PgError> {
        let lookup = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        resolve_with(Some(text), None, &lookup)
    }

    #[test]
    fn a_stricter_sslmode_is_refused_and_never_weakened() {
        for text in [
            "host=db.example sslmode=require",
            "sslmode=verify-full host=x",
            "host=x,/run sslmode='verify-ca'",
            "hostaddr=127.0.0.1 host=/run sslmode=require",
            "postgresql://u@h/d?sslmode=require",
            "postgres://u@h/d?connect_timeout=3&sslmode=verify-full",
            "postgresql://u@h/d?%73slmode=require",
            "postgresql://u@h/d?%73%73lmode=verify%2Dfull",
            "postgresql://u@h/d?sslmode=r%65quire",
            "postgresql://u:what?@h/d?sslmode=require",
            "postgresql://u:what?sslmode=prefer&x@h/d?%73slmode=require",
            "postgresql://u@h/d?sslnegotiation=direct",
        ] {
            let error = resolved(text, &[]).unwrap_err();
            assert!(error.to_string().contains("TLS"), "{text}: {error}");
        }
        assert!(resolved("host=x sslmode=never", &[]).is_err());
        // A Unix socket has no TLS, and needs none.
        assert!(resolved("host=/run sslmode=require", &[]).is_ok());
        assert!(resolved("postgres://u@%2Frun/d?sslmode=verify-full", &[]).is_ok());
    }

    /// What the environment asks for is asked for, as it is of every libpq client; what the connection string says wins.
    #[test]
    fn the_environment_is_refused_like_the_text() {
        for environment in [
            [("PGSSLMODE", "require")],
            [("PGSSLMODE", "verify-full")],
            [("PGSSLROOTCERT", "system")],
            [("PGSSLNEGOTIATION", "direct")],
            [("PGGSSENCMODE", "require")],
            [("PGCHANNELBINDING", "require")],
            [("PGREQUIREPEER", "postgres")],
            [("PGREQUIREAUTH", "scram-sha-256")],
            [("PGSERVICE", "main")],
        ] {
            let error = resolved("host=db.example", &environment).unwrap_err();
            let name = environment.map(|(name, _)| name).concat();
            assert!(error.to_string().contains(&name), "{name}: {error}");
            assert!(error.hint().is_some());
        }
        assert!(resolved("host=/run", &[("PGSSLMODE", "require")]).is_ok());
        assert!(resolved("host=x sslmode=prefer", &[("PGSSLMODE", "require")]).is_ok());
        assert!(resolved("host=x", &[("PGSSLMODE", "prefer"), ("PGSSLCERT", "/x.crt")]).is_ok());
        assert!(resolved("", &[("PGHOST", "db.example"), ("PGSSLMODE", "require")]).is_err());
    }

    #[test]
    fn the_environment_fills_in_what_the_text_leaves_open() {
        let environment = [
            ("PGHOSTADDR", "192.0.2.7"),
            ("PGPORT", "5499"),
            ("PGUSER", "u"),
            ("PGDATABASE", "d"),
            ("PGCONNECT_TIMEOUT", "3"),
        ];
        let config = resolved("", &environment).unwrap();
        assert_eq!(describe(&config), "host 192.0.2.7 port 5499 database d user u");
        assert_eq!(config.get_connect_timeout(), Some(&Duration::from_secs(3)));
        let config = resolved("host=/run user=v", &environment).unwrap();
        assert_eq!(describe(&config), "host /run port 5499 database d user v");
    }

    #[test]
    fn words_survive_the_way_through() {
        let config =
            resolve(Some(r"host=/srv/x port=5433 user='a b\'c' dbname='d e' password='p\\w'"), None).unwrap();
        assert_eq!(config.get_user(), Some("a b'c"));
        assert_eq!(config.get_password(), Some(br"p\w".as_slice()));
        assert_eq!(describe(&config), "host /srv/x port 5433 database d e user a b'c");
        let error = resolve(Some("host=/x frobnicate=1"), None).unwrap_err().to_string();
        assert!(error.contains("frobnicate"), "{error}");
    }

    #[test]
    fn the_server_of_the_data_directory_is_found() {
        let directory = tempfile::tempdir().unwrap();
        let lines = "1\n/x\n2\n5477\n/srv/socket\n\n";
        highwater_archive::durable::replace(&directory.path().join("postmaster.pid"), &[lines]).unwrap();
        let config = resolve(None, Some(directory.path())).unwrap();
        assert!(describe(&config).starts_with("host /srv/socket port 5477 database postgres user "));
    }
}
