//! What the server is set to, read once and typed.

use std::collections::BTreeMap;
use std::path::PathBuf;

use highwater_pitr::segment::WalSegmentSize;

use super::{PgError, Session};

/// The settings of a running server, with the identity of its cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<String, String>,
    /// `pg_control_system()`: whose cluster it is.
    pub system_identifier: u64,
    /// `pg_is_in_recovery()`.
    pub in_recovery: bool,
    /// Bytes of a WAL segment.
    pub segment_size: WalSegmentSize,
    /// Where the server says its data lies; `None` where the user may not know.
    pub data_directory: Option<PathBuf>,
}

/// The settings that are read: visible to everyone but `data_directory`, which is NULL to those who may not see it.
const NAMES: &[&str] = &[
    "archive_command",
    "archive_library",
    "archive_mode",
    "archive_timeout",
    "data_checksums",
    "data_directory",
    "fsync",
    "full_page_writes",
    "server_version",
    "wal_level",
    "wal_segment_size",
];

impl Settings {
    /// Reads them all by one query.
    pub(super) async fn read(session: &Session) -> Result<Self, PgError> {
        let what = "show its settings";
        let rows = session
            .client()
            .query(
                "SELECT s.name, CASE s.name WHEN 'wal_segment_size' THEN \
                   (pg_size_bytes(current_setting('wal_segment_size')))::text \
                 ELSE current_setting(s.name, true) END \
                 FROM pg_settings s WHERE s.name = ANY($1)",
                &[&NAMES],
            )
            .await
            .map_err(|error| PgError::query(what, &error))?;
        let mut values = BTreeMap::new();
        for row in rows {
            let name: String = row.try_get(0).map_err(|error| PgError::query(what, &error))?;
            let value: Option<String> = row.try_get(1).map_err(|error| PgError::query(what, &error))?;
            if let Some(value) = value {
                values.insert(name, value);
            }
        }
        let identity = session
            .row(
                "SELECT system_identifier, pg_is_in_recovery() FROM pg_control_system()",
                &[],
                "tell its system identifier",
            )
            .await?;
        let identity_error = |error| PgError::query("tell its system identifier", &error);
        let system_identifier: i64 = identity.try_get(0).map_err(identity_error)?;
        let in_recovery: bool = identity.try_get(1).map_err(identity_error)?;
        let text = values.get("wal_segment_size").cloned().unwrap_or_default();
        let segment_size = text
            .parse::<u32>()
            .ok()
            .and_then(|bytes| WalSegmentSize::try_from(bytes).ok())
            .ok_or(PgError::Value { name: "wal_segment_size".to_owned(), value: text })?;
        let data_directory = values.get("data_directory").filter(|path| !path.is_empty()).map(PathBuf::from);
        // SQL has no unsigned 64-bit number; the system identifier wraps into the signed one.
        let system_identifier = system_identifier.cast_unsigned();
        Ok(Self { values, system_identifier, in_recovery, segment_size, data_directory })
    }

    /// The text of a setting as `SHOW` prints it; empty where the server does not have it.
    pub fn text(&self, name: &str) -> &str {
        self.values.get(name).map_or("", String::as_str)
    }

    /// Whether a boolean setting is on.
    pub fn is_on(&self, name: &str) -> bool {
        self.text(name) == "on"
    }
}
