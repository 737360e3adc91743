//! What the server says about itself, for the checks and for the manifest.

use std::collections::BTreeMap;
use std::path::Path;

use highwater_archive::manifest::{LoginPreload, Tablespace};
use highwater_pitr::label::parse_tablespace_map;
use highwater_pitr::wal::PgMajor;
use tokio_postgres::Row;

use super::error::BackupError;
use super::listing::Totals;
use super::outside::Whereabouts;
use crate::pg::{PgError, Session};

/// Settings that go into the manifest.
const KEPT: [&str; 25] = [
    "archive_library",
    "archive_mode",
    "dynamic_library_path",
    "extension_control_path",
    "full_page_writes",
    "lc_messages",
    "lc_monetary",
    "lc_numeric",
    "lc_time",
    "listen_addresses",
    "local_preload_libraries",
    "log_timezone",
    "max_connections",
    "max_locks_per_transaction",
    "max_prepared_transactions",
    "max_wal_senders",
    "max_wal_size",
    "max_worker_processes",
    "port",
    "session_preload_libraries",
    "shared_preload_libraries",
    "TimeZone",
    "unix_socket_directories",
    "wal_level",
    "wal_log_hints",
];

/// Settings that name private keys.
const KEYS: [&str; 2] = ["ssl_key_file", "krb_server_keyfile"];

/// Settings that name certificates and the like.
const PUBLIC: [&str; 4] = ["ssl_cert_file", "ssl_ca_file", "ssl_crl_file", "ssl_dh_params_file"];

/// Settings that only those who may see them are shown.
const PLACES: [&str; 3] = ["config_file", "hba_file", "ident_file"];

/// What was asked once.
#[derive(Clone, Debug)]
pub struct Facts {
    /// `version()`.
    pub version: String,
    /// Settings for the manifest, as `pg_settings` has them.
    pub settings: BTreeMap<String, String>,
    /// Version of the C library, where the server has a collation of it to tell it by.
    pub libc: Option<String>,
    /// Libraries that roles or databases load at a login; `None` where the server did not say.
    pub login_preloads: Option<Vec<LoginPreload>>,
    /// Where configuration lies.
    pub whereabouts: Whereabouts,
}

impl Facts {
    /// Asks the server.
    pub async fn read(session: &Session) -> Result<Facts, BackupError> {
        let what = "show its settings";
        let wanted: Vec<&str> = KEPT.iter().chain(&KEYS).chain(&PUBLIC).chain(&PLACES).copied().collect();
        let rows = session
            .client()
            .query("SELECT name, setting FROM pg_settings WHERE name = ANY($1)", &[&wanted])
            .await
            .map_err(|error| PgError::query(what, &error))?;
        let mut settings = BTreeMap::new();
        for row in &rows {
            if let Some(value) = optional(row, 1, what)? {
                settings.insert(required(row, 0, what)?, value);
            }
        }
        let mut take = |name: &str| settings.remove(name).unwrap_or_default();
        let whereabouts = Whereabouts {
            config_file: take("config_file"),
            hba_file: take("hba_file"),
            ident_file: take("ident_file"),
            keys: KEYS.iter().map(|name| (name.to_string(), take(name))).collect(),
            public: PUBLIC.iter().map(|name| (name.to_string(), take(name))).collect(),
            also_read: also_read(session).await,
            access_directives: session.major() >= PgMajor::V16,
        };
        if whereabouts.config_file.is_empty() || whereabouts.hba_file.is_empty() {
            return Err(BackupError::Refused {
                problem: "the user of cluster.connection may not see where the configuration files lie"
                    .to_owned(),
                hint: "run: GRANT pg_read_all_settings TO the user of cluster.connection".to_owned(),
            });
        }
        let version = session.text("SELECT version()", "tell its version").await?;
        // These help who restores on another host; a backup does not fail for them.
        let libc = known("its C library's version", libc(session).await).flatten();
        let login_preloads = known("which libraries are loaded at a login", login_preloads(session).await);
        Ok(Facts { version, settings, libc, login_preloads, whereabouts })
    }
}

/// A server of 14 records no version for a database's own collation, so any collation of the C library tells it.
async fn libc(session: &Session) -> Result<Option<String>, PgError> {
    let failed = |error| PgError::query("tell its C library's version", &error);
    let sql = "SELECT v FROM pg_collation, pg_collation_actual_version(oid) v \
               WHERE collprovider = 'c' AND v IS NOT NULL LIMIT 1";
    let row = session.client().query_opt(sql, &[]).await.map_err(failed)?;
    row.map_or(Ok(None), |row| row.try_get(0).map_err(failed))
}

/// What the server answered, or nothing and a warning.
fn known<T>(what: &str, answer: Result<T, PgError>) -> Option<T> {
    answer.map_err(|error| tracing::warn!("not known, and not in the manifest, {what}: {error}")).ok()
}

async fn login_preloads(session: &Session) -> Result<Vec<LoginPreload>, PgError> {
    let failed = |error| PgError::query("show the settings of roles and databases", &error);
    let sql = "SELECT d.datname::text, r.rolname::text, split_part(s.entry, '=', 1), \
               substr(s.entry, strpos(s.entry, '=') + 1) \
               FROM (SELECT setdatabase, setrole, unnest(setconfig) AS entry FROM pg_db_role_setting) s \
               LEFT JOIN pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_roles r ON r.oid = s.setrole \
               WHERE split_part(s.entry, '=', 1) IN ('session_preload_libraries', 'local_preload_libraries') \
               ORDER BY 1 NULLS FIRST, 2 NULLS FIRST, 3";
    let rows = session.client().query(sql, &[]).await.map_err(failed)?;
    let preload = |row: &Row| {
        Ok(LoginPreload {
            database: row.try_get(0)?,
            role: row.try_get(1)?,
            setting: row.try_get(2)?,
            value: row.try_get(3)?,
        })
    };
    rows.iter().map(preload).collect::<Result<_, _>>().map_err(failed)
}

/// The files that the server itself says it reads. These views are for superusers: who may not read them relies on the includes.
async fn also_read(session: &Session) -> Vec<String> {
    let mut views = vec!["SELECT DISTINCT sourcefile FROM pg_file_settings WHERE sourcefile IS NOT NULL"];
    if session.major() >= PgMajor::V16 {
        views.push("SELECT DISTINCT file_name FROM pg_hba_file_rules WHERE file_name IS NOT NULL");
        views.push("SELECT DISTINCT file_name FROM pg_ident_file_mappings WHERE file_name IS NOT NULL");
    }
    let mut files = Vec::new();
    for view in views {
        match session.client().query(view, &[]).await {
            Ok(rows) => files.extend(rows.iter().filter_map(|row| row.try_get::<_, String>(0).ok())),
            Err(error) => tracing::debug!("not asked which files the server reads: {error}"),
        }
    }
    files
}

/// The tablespaces that were copied, with the names the catalog has for them, and those of `map`, the backup's `tablespace_map`.
pub async fn tablespaces(
    session: &Session,
    totals: &Totals,
    map: &str,
) -> Result<Vec<Tablespace>, BackupError> {
    let what = "list its tablespaces";
    let rows = session
        .client()
        .query(
            "SELECT oid, spcname::text, pg_tablespace_location(oid) FROM pg_tablespace \
             WHERE spcname NOT IN ('pg_default', 'pg_global')",
            &[],
        )
        .await
        .map_err(|error| PgError::query(what, &error))?;
    let mut known = BTreeMap::new();
    for row in &rows {
        let oid: u32 = row.try_get(0).map_err(|error| PgError::query(what, &error))?;
        known.insert(oid, (required(row, 1, what)?, required(row, 2, what)?));
    }
    let mut tablespaces = BTreeMap::new();
    for (link, copied) in &totals.tablespaces {
        let Some(oid) = link.as_path().file_name().and_then(|name| name.to_str()?.parse().ok()) else {
            continue;
        };
        let name = known.remove(&oid).map(|(name, _)| name);
        let path = Some(copied.target.clone());
        tablespaces.insert(oid, Tablespace { oid, name, path, bytes: copied.bytes });
    }
    for (oid, (name, location)) in known {
        // Made while the files were copied, unless it lies in place: WAL replay makes it again.
        if !Path::new(&location).is_absolute() {
            tablespaces.insert(oid, Tablespace { oid, name: Some(name), path: None, bytes: 0 });
        }
    }
    add_mapped(&mut tablespaces, map)?;
    Ok(tablespaces.into_values().collect())
}

/// `tablespace_map` is of the backup's beginning. One dropped since has no files, but recovery makes its link before it replays the
/// drop: a restore must know where that leads.
fn add_mapped(tablespaces: &mut BTreeMap<u32, Tablespace>, map: &str) -> Result<(), BackupError> {
    let links = parse_tablespace_map(map)
        .map_err(|error| BackupError::Answer { what: "tablespace_map", problem: error.to_string() })?;
    for link in links {
        let oid = link.oid;
        let mapped = tablespaces.entry(oid).or_insert(Tablespace { oid, name: None, path: None, bytes: 0 });
        mapped.path.get_or_insert(link.path);
    }
    Ok(())
}

fn required(row: &Row, column: usize, what: &str) -> Result<String, BackupError> {
    Ok(row.try_get(column).map_err(|error| PgError::query(what, &error))?)
}

fn optional(row: &Row, column: usize, what: &str) -> Result<Option<String>, BackupError> {
    Ok(row.try_get(column).map_err(|error| PgError::query(what, &error))?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// A tablespace that was dropped while files were copied is in the manifest still, or its backup could not be restored.
    #[test]
    fn every_tablespace_of_the_map_is_in_the_manifest() {
        let copied =
            Tablespace { oid: 7, name: Some("fast".into()), path: Some("/srv/fast".into()), bytes: 3 };
        let mut tablespaces = BTreeMap::from([(7, copied.clone())]);
        add_mapped(&mut tablespaces, "7 /srv/fast\n9 /srv/dropped\n").unwrap();
        let dropped = Tablespace { oid: 9, name: None, path: Some("/srv/dropped".into()), bytes: 0 };
        assert_eq!(tablespaces.into_values().collect::<Vec<_>>(), [copied, dropped]);
        let refused = add_mapped(&mut BTreeMap::new(), "rubbish\n").unwrap_err();
        assert!(matches!(refused, BackupError::Answer { what: "tablespace_map", .. }));
    }
}
