//! `postmaster.pid`: which server runs in a data directory, and where it listens.
//!
//! The lines are pid, data directory, start time, port, first socket directory, listen address, shared memory key, status
//! (`CreateDataDirLockFile` and `AddToDataDirLockFile` in PostgreSQL's `utils/init/miscinit.c`). The file outlives a crash, so
//! its pid says little by itself.

use std::path::{Path, PathBuf};

use super::PgError;

/// What `postmaster.pid` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Postmaster {
    /// Process id; a negative number in the file is a standalone backend.
    pub pid: u32,
    /// The port, also of the socket's name.
    pub port: Option<u16>,
    /// The first of `unix_socket_directories`.
    pub socket_dir: Option<PathBuf>,
}

/// Reads the file; `None` where there is none, and so no server.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn read(data_dir: &Path) -> Result<Option<Postmaster>, PgError> {
    let path = data_dir.join("postmaster.pid");
    match std::fs::read_to_string(&path) {
        Ok(text) => Ok(parse(&text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(PgError::Unreadable { path, source }),
    }
}

/// Whether a server runs in the data directory: the file is there and its process lives.
///
/// # Errors
///
/// The file exists and cannot be read.
pub fn is_running(data_dir: &Path) -> Result<bool, PgError> {
    let Some(postmaster) = read(data_dir)? else { return Ok(false) };
    // /proc is there on every system we run on; a pid that was reused makes us careful, not wrong.
    Ok(Path::new("/proc").join(postmaster.pid.to_string()).exists())
}

fn parse(text: &str) -> Option<Postmaster> {
    let mut lines = text.lines().map(str::trim);
    let pid = lines.next()?.trim_start_matches('-').parse().ok()?;
    let port = lines.nth(2).and_then(|line| line.parse().ok());
    let socket_dir = lines.next().filter(|line| line.starts_with('/')).map(PathBuf::from);
    Some(Postmaster { pid, port, socket_dir })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_are_read_and_a_half_written_file_is_not_an_error() {
        let whole = parse("4242\n/srv/pg\n1763635267\n5433\n/run/pg\nlocalhost\n 1 2\nready   \n").unwrap();
        assert_eq!(whole, Postmaster { pid: 4242, port: Some(5433), socket_dir: Some("/run/pg".into()) });
        let no_socket = parse("-7\n/srv/pg\n1\n5432\n\n*\n").unwrap();
        assert_eq!(no_socket, Postmaster { pid: 7, port: Some(5432), socket_dir: None });
        assert_eq!(parse("12\n").unwrap().port, None);
        assert_eq!(parse(""), None);
        assert_eq!(parse("x"), None);
    }
}
