//! libpq's connection strings, as far as they go here.
//!
//! `key=value` words and `postgresql://` URLs are parsed by tokio-postgres; before that, what it lacks is taken out: `passfile`,
//! and the `sslmode`s. What would be weaker than asked for is refused. What is not set comes from libpq's environment variables,
//! then from the server that runs in the data directory.

use std::path::{Path, PathBuf};

use tokio_postgres::config::{Host, SslMode};

use super::{PgError, account, passfile, postmaster};

/// Where libpq packages put the server's socket.
const SOCKET_DIRS: [&str; 3] = ["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// The connection to make: everything decided, the password looked up.
pub fn resolve(conninfo: Option<&str>, data_dir: Option<&Path>) -> Result<tokio_postgres::Config, PgError> {
    let (text, passfile) = prepare(conninfo.unwrap_or_default())?;
    let mut config: tokio_postgres::Config =
        text.parse().map_err(|error: tokio_postgres::Error| not_understood(&super::error::told(&error).0))?;
    if config.get_ssl_mode() == SslMode::Require {
        return Err(tls_refused("sslmode=require"));
    }
    config.ssl_mode(SslMode::Disable);
    fill_in(&mut config, data_dir)?;
    if config.get_password().is_none() {
        let from_environment = std::env::var("PGPASSWORD").ok();
        let found = match (from_environment, passfile.or_else(passfile::default_path)) {
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

/// Host, port, database and user in one line, for messages.
pub fn describe(config: &tokio_postgres::Config) -> String {
    let login = login_of(config);
    format!("host {} port {} database {} user {}", login.0, login.1, login.2, login.3)
}

/// The text that tokio-postgres understands, and the `passfile` that was in it.
fn prepare(text: &str) -> Result<(String, Option<PathBuf>), PgError> {
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        for mode in ["verify-ca", "verify-full"] {
            if text.contains(&format!("sslmode={mode}")) {
                return Err(tls_refused(&format!("sslmode={mode}")));
            }
        }
        return Ok((text.to_owned(), None));
    }
    let mut kept = String::new();
    let mut passfile = None;
    for (key, value) in words(text)? {
        match key.as_str() {
            "passfile" => passfile = Some(PathBuf::from(value)),
            // libpq's "allow" tries without TLS first, and with it only where that is refused.
            "sslmode" if matches!(value.as_str(), "disable" | "allow" | "prefer") => {}
            "sslmode" => return Err(tls_refused(&format!("sslmode={value}"))),
            "application_name" | "fallback_application_name" | "client_encoding" => {}
            _ => {
                let value = value.replace('\\', "\\\\").replace('\'', "\\'");
                kept.push_str(&format!("{key}='{value}' "));
            }
        }
    }
    Ok((kept, passfile))
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
            return Err(not_understood(&format!("there is no \"=\" after {key:?}")));
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
                None if quoted => return Err(not_understood(&format!("the quote of {key:?} is not closed"))),
                None => break,
            }
        }
        words.push((key, value));
    }
}

/// What the text leaves open: host and port, user, database.
fn fill_in(config: &mut tokio_postgres::Config, data_dir: Option<&Path>) -> Result<(), PgError> {
    let environment = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let running = match data_dir {
        Some(data_dir) => postmaster::read(data_dir)?,
        None => None,
    };
    let no_port = config.get_ports().is_empty();
    if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
        let socket_dir = running.as_ref().and_then(|running| running.socket_dir.clone());
        match (environment("PGHOST"), socket_dir) {
            (Some(host), _) => config.host(host),
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
    if config.get_user().is_none()
        && let Some(user) = environment("PGUSER")
    {
        config.user(user);
    }
    if config.get_dbname().is_none() {
        config.dbname(environment("PGDATABASE").unwrap_or_else(|| "postgres".to_owned()));
    }
    if config.get_connect_timeout().is_none() {
        config.connect_timeout(std::time::Duration::from_secs(15));
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
    let user = config.get_user().map_or_else(|| account::own().name, str::to_owned);
    (host, port, config.get_dbname().unwrap_or("postgres").to_owned(), user)
}

fn not_understood(reason: &str) -> PgError {
    PgError::Conninfo {
        reason: reason.to_owned(),
        hint: "a connection string is like: host=/var/run/postgresql dbname=postgres user=highwater"
            .to_owned(),
    }
}

fn tls_refused(what: &str) -> PgError {
    PgError::Conninfo {
        reason: format!(
            "{what} asks for TLS, which this version cannot do; it will not connect without what was asked for"
        ),
        hint: "connect through the server's Unix socket, or over a network you trust with sslmode=prefer"
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

    #[test]
    fn a_stricter_sslmode_is_refused_and_never_weakened() {
        for text in [
            "host=/run sslmode=require",
            "sslmode=verify-full host=x",
            "sslmode='verify-ca'",
            "postgresql://u@h/d?sslmode=require",
            "postgres://u@h/d?sslmode=verify-full",
        ] {
            let error = resolve(Some(text), None).unwrap_err();
            assert!(error.to_string().contains("TLS"), "{text}: {error}");
        }
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
