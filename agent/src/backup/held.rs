//! The session that holds a backup open.
//!
//! `pg_backup_start` and `pg_backup_stop` belong to one session; when that ends, the server ends the backup. So this one does nothing
//! else, and while the files are copied it is asked again and again whether it is still there.

use std::time::Duration;

use highwater_pitr::lsn::Lsn;
use highwater_pitr::time::PgTime;
use highwater_pitr::wal::PgMajor;

use super::error::BackupError;
use crate::pg::{PgError, Session};

/// How often the session is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// After how many looks the server is asked to answer.
const ASK_AFTER: u32 = 15;

/// A session for one backup.
pub struct HeldSession {
    session: Session,
}

/// What the end of a backup gave.
#[derive(Clone, Debug)]
pub struct Stopped {
    /// Where the copy is consistent.
    pub lsn: Lsn,
    /// `backup_label`.
    pub label: String,
    /// `tablespace_map`.
    pub tablespace_map: String,
    /// The server's clock right before.
    pub time: PgTime,
}

impl HeldSession {
    /// Takes a session over.
    pub fn new(session: Session) -> HeldSession {
        HeldSession { session }
    }

    /// Begins a backup: where recovery will start. `fast` asks for an immediate checkpoint instead of a spread one.
    pub async fn start(&self, label: &str, fast: bool) -> Result<Lsn, BackupError> {
        let sql = match self.session.major() {
            PgMajor::V14 => "SELECT pg_start_backup($1, $2, false)::text",
            PgMajor::V15 | PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => {
                "SELECT pg_backup_start($1, $2)::text"
            }
        };
        let what = "start a backup";
        let row = self.session.row(sql, &[&label, &fast], what).await?;
        lsn(&row, 0, what)
    }

    /// Ends the backup. The server does not wait for its archiving: we look into the repository ourselves.
    pub async fn stop(&self) -> Result<Stopped, BackupError> {
        let what = "tell its time";
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
        let clock = self.session.row(sql, &[], what).await?;
        let micros: i64 = clock.try_get(0).map_err(|error| PgError::query(what, &error))?;
        let time = jiff::Timestamp::from_microsecond(micros).map(PgTime::from_timestamp);
        let time = time.map_err(|error| BackupError::Answer { what: "clock", problem: error.to_string() })?;
        let sql = match self.session.major() {
            PgMajor::V14 => "SELECT lsn::text, labelfile, spcmapfile FROM pg_stop_backup(false, false)",
            PgMajor::V15 | PgMajor::V16 | PgMajor::V17 | PgMajor::V18 => {
                "SELECT lsn::text, labelfile, spcmapfile FROM pg_backup_stop(false)"
            }
        };
        let what = "stop the backup";
        let row = self.session.row(sql, &[], what).await?;
        let text = |column| -> Result<String, PgError> {
            let value: Option<String> = row.try_get(column).map_err(|error| PgError::query(what, &error))?;
            Ok(value.unwrap_or_default())
        };
        Ok(Stopped { lsn: lsn(&row, 0, what)?, label: text(1)?, tablespace_map: text(2)?, time })
    }

    /// Ends the session, after the backup.
    pub async fn close(self) {
        self.session.close().await;
    }

    /// Comes back when the session is lost, with why.
    pub async fn lost(&self) -> BackupError {
        loop {
            for _ in 0..ASK_AFTER {
                tokio::time::sleep(LOOK_EVERY).await;
                if self.session.client().is_closed() {
                    return BackupError::SessionLost("the server closed it".to_owned());
                }
            }
            if let Err(error) = self.session.execute("", "answer").await {
                return BackupError::SessionLost(error.to_string());
            }
        }
    }
}

fn lsn(row: &tokio_postgres::Row, column: usize, what: &str) -> Result<Lsn, BackupError> {
    let text: String = row.try_get(column).map_err(|error| PgError::query(what, &error))?;
    text.parse().map_err(|_| BackupError::Answer { what: "WAL position", problem: format!("it is `{text}`") })
}
