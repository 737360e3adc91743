//! The running server: which cluster it is, what it is set to, what we may do there.

use std::path::Path;

use crate::config::{Config, DIRECTORY};
use crate::host_state::HostState;
use crate::pg::settings::Settings;
use crate::pg::{PgError, Session};
use crate::setup::postgresql::{CommandFault, Finds, judge_archive_command, program_on_path, settings_lines};

use super::Findings;

/// A server that answers.
pub struct Server {
    /// The connection.
    pub session: Session,
    /// Its settings.
    pub settings: Settings,
    /// Whether it is set to archive with us.
    pub archives: bool,
}

/// Checks the server; none where it cannot be asked.
pub async fn check(config: &Config, state: Option<&HostState>, findings: &mut Findings) -> Option<Server> {
    let (session, settings) = match connect(config).await {
        Ok(answered) => answered,
        Err(error) => {
            findings.error("connection", error.into());
            findings.skipped("settings", "the server cannot be asked");
            return None;
        }
    };
    findings.ok("connection", format!("PostgreSQL {}", settings.text("server_version")));
    check_identity(config, state, &settings, findings);
    check_privileges(&session, findings).await;
    check_durability(&settings, findings);
    let archives = check_archiving(config, &settings, findings);
    Some(Server { session, settings, archives })
}

async fn connect(config: &Config) -> Result<(Session, Settings), PgError> {
    let session = Session::connect(config).await?;
    let settings = session.settings().await?;
    Ok((session, settings))
}

/// The server that answers must be the one whose files we read.
fn check_identity(config: &Config, state: Option<&HostState>, settings: &Settings, findings: &mut Findings) {
    let what = "server's cluster";
    let hint = "cluster.connection and cluster.data_dir must be of the same server";
    if let Some(state) = state
        && state.system_identifier != settings.system_identifier
    {
        let (theirs, ours) = (settings.system_identifier, state.system_identifier);
        findings.failed(
            what,
            format!("the server has system identifier {theirs}, the data directory {ours}"),
            hint,
        );
        return;
    }
    let configured = config.data_dir().ok().and_then(|path| path.canonicalize().ok());
    let theirs = settings.data_directory.as_ref().and_then(|path| path.canonicalize().ok());
    match (configured, theirs) {
        (Some(configured), Some(theirs)) if configured != theirs => {
            findings.failed(what, format!("the server's data directory is {}", theirs.display()), hint);
        }
        _ => findings
            .ok(what, format!("system identifier {}, as in the data directory", settings.system_identifier)),
    }
}

/// What a backup calls. 15 renamed the functions.
async fn check_privileges(session: &Session, findings: &mut Findings) {
    let what = "privileges";
    let functions: &[&str] = if session.major().number() < 15 {
        &["pg_start_backup(text,boolean,boolean)", "pg_stop_backup(boolean,boolean)"]
    } else {
        &["pg_backup_start(text,boolean)", "pg_backup_stop(boolean)"]
    };
    let wanted: Vec<&str> =
        functions.iter().copied().chain(["pg_switch_wal()", "pg_create_restore_point(text)"]).collect();
    let asked = session
        .client()
        .query(
            "SELECT f FROM unnest($1::text[]) f WHERE NOT has_function_privilege(f, 'EXECUTE') \
             UNION ALL SELECT 'pg_read_all_settings' WHERE NOT pg_has_role('pg_read_all_settings', 'USAGE')",
            &[&wanted],
        )
        .await
        .map_err(|error| PgError::query("tell our privileges", &error));
    let user = session.text("SELECT quote_ident(current_user)", "tell our user").await;
    let (lacking, user) = match (asked, user) {
        (Ok(rows), Ok(user)) => (rows, user),
        (Err(error), _) | (_, Err(error)) => return findings.error(what, error.into()),
    };
    let grants: Vec<String> = lacking
        .iter()
        .filter_map(|row| row.try_get::<_, String>(0).ok())
        .map(|lacking| match lacking.as_str() {
            // Where the configuration files lie, which are part of a backup.
            "pg_read_all_settings" => format!("GRANT {lacking} TO {user};"),
            function => format!("GRANT EXECUTE ON FUNCTION pg_catalog.{function} TO {user};"),
        })
        .collect();
    if grants.is_empty() {
        findings.ok(what, format!("{user} may take backups"));
    } else {
        let hint = format!("as a superuser, in the database of cluster.connection:\n{}", grants.join("\n"));
        findings.failed(what, format!("{user} may not call what a backup calls"), hint);
    }
}

/// What makes WAL, and the pages in it, worth archiving (I20).
fn check_durability(settings: &Settings, findings: &mut Findings) {
    let required = [
        ("fsync", "off: a crash can corrupt the cluster, and every backup with it"),
        ("full_page_writes", "off: a page torn by a crash cannot be repaired from WAL"),
    ];
    for (name, wrong) in required {
        if settings.is_on(name) {
            findings.ok(name, "on");
        } else {
            findings.failed(name, wrong, format!("set {name} = on"));
        }
    }
    match settings.text("wal_level") {
        "minimal" => findings.failed(
            "wal_level",
            "minimal: WAL lacks what recovery needs",
            "set wal_level = replica and restart",
        ),
        level => findings.ok("wal_level", level),
    }
    if settings.text("data_checksums") != "on" {
        findings.note(
            "data_checksums",
            "off: damage to data files cannot be seen; pg_checksums --enable switches them on",
        );
    }
}

/// Whether the server archives with us.
fn check_archiving(config: &Config, settings: &Settings, findings: &mut Findings) -> bool {
    let lines = std::env::current_exe().map(|program| settings_lines(config, &program)).unwrap_or_default();
    let set = |name: &str| lines.iter().find(|line| line.starts_with(name)).cloned().unwrap_or_default();
    let mode = settings.text("archive_mode");
    let mode_is_on = matches!(mode, "on" | "always");
    if mode_is_on {
        findings.ok("archive_mode", mode);
    } else {
        findings.failed(
            "archive_mode",
            mode,
            format!("set: {} (and restart the server)", set("archive_mode")),
        );
    }
    if settings.text("archive_timeout") == "0" {
        let message = "0: a segment that is not full yet is only on this host, for as long as it takes to fill; \
             archive_timeout = 60s bounds that";
        findings.note("archive_timeout", message);
    }
    let library = settings.text("archive_library");
    if !library.is_empty() {
        // 15 prefers the library without a word; 16 and newer refuse both.
        findings.failed(
            "archive_library",
            format!("{library}: archive_command is not used"),
            "set archive_library = ''",
        );
        return false;
    }
    let command = settings.text("archive_command");
    let line = set("archive_command");
    let fault = match judge_archive_command(command, config, Path::new(DIRECTORY)) {
        Ok(finds) => {
            match finds {
                Finds::ByName => findings.ok("archive_command", command),
                Finds::AsTheOnlyOne => findings.note(
                    "archive_command",
                    format!("it names no cluster: a second configuration on this host would break it; better: {line}"),
                ),
            }
            note_path(command, findings);
            return mode_is_on;
        }
        Err(fault) => fault,
    };
    let message = match fault {
        CommandFault::Empty => "empty: nothing is archived".to_owned(),
        CommandFault::NotOurs => format!("{command:?} does not call highwater archive-push %p"),
        CommandFault::OtherCluster(other) => {
            format!("it archives as cluster {other}, not {}", config.cluster)
        }
        CommandFault::OtherConfig(other) => format!("it reads another configuration: {}", other.display()),
        CommandFault::NoCluster => {
            "it names no cluster, and this configuration is not the only one in /etc/highwater".to_owned()
        }
    };
    findings.failed("archive_command", message, format!("set: {line} (and reload)"));
    note_path(command, findings);
    false
}

/// The server's PATH is seldom that of the person who asks.
fn note_path(command: &str, findings: &mut Findings) {
    if let Some(program) = program_on_path(command) {
        findings.note(
            "archive_command's program",
            format!("{program} is looked for along the server's PATH; name it by its absolute path"),
        );
    }
}
