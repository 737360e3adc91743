//! Asking a local server through `psql`, as the user that runs it.
//!
//! The programs beside the server are used, and not a client library, because the one login that nearly every `pg_hba.conf`
//! grants is `peer` for the owner of the data directory, and only another process can be that user.

use std::path::PathBuf;
use std::process::Stdio;

use super::{Postmaster, ServerError, ServerOptions, State, without_our_environment};

/// What is asked to see how far recovery is.
const RECOVERY: &str = "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_get_wal_replay_pause_state() \
                        ELSE '' END, coalesce(pg_last_wal_replay_lsn()::text, '')";

/// Where the server listens: a socket directory, or a TCP address when it has no socket.
struct Address {
    port: u16,
    host: PathBuf,
}

/// `None` before the server has written it down.
fn address(options: &ServerOptions) -> Option<Address> {
    let Postmaster { port, socket_dir, address, .. } = Postmaster::read(&options.data_dir).ok()??;
    Some(Address { port: port?, host: socket_dir.or(address.map(PathBuf::from))? })
}

/// Runs one command as the first role that may log in. The outer error is one of running psql; the inner one is what psql
/// printed, of the first role where none may.
fn run(
    options: &ServerOptions,
    address: &Address,
    database: &str,
    sql: &str,
) -> Result<Result<String, String>, ServerError> {
    let answer = run_as(options, address, database, None, sql)?;
    if !answer.as_ref().is_err_and(|message| is_login_refusal(message)) {
        return Ok(answer);
    }
    for role in &options.roles {
        let other = run_as(options, address, database, Some(role), sql)?;
        if !other.as_ref().is_err_and(|message| is_login_refusal(message)) {
            return Ok(other);
        }
    }
    Ok(answer)
}

/// Runs one command as this role; the default is libpq's, the operating system's user.
fn run_as(
    options: &ServerOptions,
    address: &Address,
    database: &str,
    role: Option<&str>,
    sql: &str,
) -> Result<Result<String, String>, ServerError> {
    let mut command = options.installation.command("psql", options.run_as.as_ref());
    command.args(["-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", "-c", sql]);
    command.arg("-h").arg(&address.host).arg("-p").arg(address.port.to_string());
    if let Some(role) = role {
        command.arg("-U").arg(role);
    }
    // A service file or a password of ours has no business with this server.
    without_our_environment(&mut command);
    // As an argument a name with `=` in it would be taken for a connection string.
    command.env("PGDATABASE", database);
    command.env("PGCONNECT_TIMEOUT", "10").env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    let output = command.output().map_err(|source| ServerError::Io { what: "run psql".into(), source })?;
    if output.status.success() {
        return Ok(Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned()));
    }
    Ok(Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}

/// How far recovery is.
pub(super) fn ask_recovery(options: &ServerOptions) -> Result<State, ServerError> {
    let Some(address) = address(options) else {
        return Ok(State::Starting { answer: "no address yet".into() });
    };
    match run(options, &address, "postgres", RECOVERY)? {
        Ok(row) => Ok(state_of(&row)),
        Err(message) if is_login_refusal(&message) => Err(ServerError::Refused { message }),
        Err(answer) => Ok(State::Starting { answer }),
    }
}

/// Asks a server that takes connections: what psql prints, a row a line.
///
/// # Errors
/// [`ServerError::Query`] with what the server said instead.
pub fn query(options: &ServerOptions, database: &str, sql: &str) -> Result<String, ServerError> {
    let failed = |message: String| ServerError::Query { database: database.to_owned(), message };
    let address = address(options).ok_or_else(|| failed("it has no address".into()))?;
    run(options, &address, database, sql)?.map_err(failed)
}

/// Reads the one row of [`RECOVERY`].
fn state_of(row: &str) -> State {
    let mut columns = row.split('|');
    match (columns.next(), columns.next(), columns.next()) {
        (Some("f"), ..) => State::Writable,
        (Some("t"), Some(pause), Some(replayed)) => {
            State::Recovering { paused: pause == "paused", replayed: replayed.to_owned() }
        }
        _ => State::Starting { answer: row.to_owned() },
    }
}

/// Whether the server is up and it is the login that failed; waiting would not help.
fn is_login_refusal(message: &str) -> bool {
    [
        "no pg_hba.conf entry",
        "authentication failed",
        "no password supplied",
        "does not exist",
        "permission denied",
    ]
    .iter()
    .any(|part| message.contains(part))
        && !message.starts_with("ERROR: ")
        && !message.contains("the database system is")
        && !message.contains("No such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_become_states() {
        assert_eq!(state_of("f||0/3000000"), State::Writable);
        let paused = State::Recovering { paused: true, replayed: "0/3000060".into() };
        assert_eq!(state_of("t|paused|0/3000060"), paused);
        let running = State::Recovering { paused: false, replayed: String::new() };
        assert_eq!(state_of("t|not paused|"), running);
        assert!(matches!(state_of(""), State::Starting { .. }));
    }

    #[test]
    fn a_server_that_starts_is_not_one_that_refuses() {
        assert!(!is_login_refusal("psql: error: FATAL:  the database system is starting up"));
        assert!(!is_login_refusal("connection to server on socket failed: No such file or directory"));
        assert!(is_login_refusal("FATAL:  role \"root\" does not exist"));
        assert!(!is_login_refusal("ERROR:  relation \"orders\" does not exist"));
        assert!(is_login_refusal("FATAL:  Peer authentication failed for user \"postgres\""));
    }
}
