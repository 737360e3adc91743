//! libpq's password file: lines of `host:port:database:user:password`, where `*` matches anything and a backslash escapes
//! (`passwordFromFile` in `interfaces/libpq/fe-connect.c`). A socket directory is looked up as `localhost` where it is the
//! default one, and by its path otherwise.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::PgError;

/// Whose password is wanted.
pub struct Login<'a> {
    /// Host name or socket directory.
    pub host: &'a str,
    /// Port.
    pub port: u16,
    /// Database.
    pub database: &'a str,
    /// User.
    pub user: &'a str,
}

/// The file libpq would read: `PGPASSFILE`, else `~/.pgpass`.
pub fn default_path() -> Option<PathBuf> {
    match std::env::var_os("PGPASSFILE") {
        Some(path) => Some(path.into()),
        None => std::env::home_dir().map(|home| home.join(".pgpass")),
    }
}

/// The password of `login`, if the file is there and has it.
///
/// # Errors
///
/// A file that others may read (libpq ignores it with a warning; we say it), or one that cannot be read. One that is not ours to
/// look at counts as absent, as for libpq.
pub fn look_up(path: &Path, login: &Login<'_>) -> Result<Option<String>, PgError> {
    let unreadable = |source| PgError::Unreadable { path: path.to_path_buf(), source };
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata,
        Ok(_) => return Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
            return Ok(None);
        }
        Err(error) => return Err(unreadable(error)),
    };
    if metadata.mode() & 0o077 != 0 {
        return Err(PgError::OpenPassfile { path: path.to_path_buf() });
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(find(&text, login))
}

fn find(text: &str, login: &Login<'_>) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| password_of(line, login))
}

fn password_of(line: &str, login: &Login<'_>) -> Option<String> {
    let mut fields = split(line).into_iter();
    let (host, port, database, user, password) =
        (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let local = matches!(login.host, "/var/run/postgresql" | "/run/postgresql" | "/tmp");
    let host_matches = host == "*" || host == login.host || (local && host == "localhost");
    let matches = |field: &str, value: &str| field == "*" || field == value;
    let found = host_matches
        && matches(&port, &login.port.to_string())
        && matches(&database, login.database)
        && matches(&user, login.user);
    found.then_some(password)
}

/// Splits at colons that no backslash precedes, and removes the backslashes; a fifth colon belongs to the password.
fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        let starts_field = c == ':' && fields.len() < 5;
        if starts_field {
            fields.push(String::new());
            continue;
        }
        let kept = if c == '\\' { chars.next() } else { Some(c) };
        if let (Some(kept), Some(field)) = (kept, fields.last_mut()) {
            field.push(kept);
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_wins() {
        let file =
            "# who\nother:5432:*:u:no\n/srv/s\\:x:5432:*:u:a\\:b:c\nlocalhost:*:*:*:here\n*:*:*:u:last";
        let of = |host, user| find(file, &Login { host, port: 5432, database: "d", user });
        assert_eq!(of("/srv/s:x", "u").as_deref(), Some("a:b:c"));
        assert_eq!(of("/var/run/postgresql", "v").as_deref(), Some("here"));
        assert_eq!(of("db.example", "u").as_deref(), Some("last"));
        assert_eq!(of("db.example", "v"), None);
        assert_eq!(find("short:1:2", &Login { host: "short", port: 1, database: "2", user: "u" }), None);
    }
}
