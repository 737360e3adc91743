//! A segment of WAL sent all the way: written, ended, archived by PostgreSQL, read back from each repository and compared.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use highwater_archive::lineage::Lineage;
use highwater_archive::wal;
use highwater_pitr::scan::{canonicalise, scan_segment};
use highwater_pitr::segment::{SegmentName, WalFile};

use super::server::Server;
use crate::config::Config;
use crate::pg::{PgError, Session};
use crate::report;

/// How often the repositories are asked.
const EVERY: Duration = Duration::from_millis(250);

/// Runs the round trip; the text says how long it took.
///
/// # Errors
///
/// Why the segment did not come back as it is.
pub async fn run(
    server: &Server,
    lineages: &[(String, Lineage)],
    config: &Config,
    timeout: Duration,
) -> anyhow::Result<String> {
    let before = Archiver::of(&server.session).await?;
    let segment = end_segment(&server.session).await?;
    let begun = Instant::now();
    for (repository, lineage) in lineages {
        let archived = wait(server, lineage, segment, Wait { begun, timeout, before })
            .await
            .with_context(|| format!("repository {repository}"))?;
        compare(&archived, segment, config.data_dir()?)
            .with_context(|| format!("repository {repository}"))?;
    }
    let took = begun.elapsed().as_secs_f64();
    Ok(format!("{segment} was archived and came back the same, {took:.1} s"))
}

/// Writes a little WAL and ends the segment that holds it.
async fn end_segment(session: &Session) -> anyhow::Result<SegmentName> {
    session
        .row("SELECT pg_logical_emit_message(false, 'highwater', 'check')::text", &[], "write a little WAL")
        .await?;
    let name =
        session.text("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", "name its WAL segment").await?;
    session.row("SELECT pg_switch_wal()::text", &[], "end its WAL segment").await?;
    name.parse().with_context(|| format!("PostgreSQL named a segment {name:?}"))
}

/// How long to wait, and what the archiver had done before.
#[derive(Clone, Copy)]
struct Wait {
    begun: Instant,
    timeout: Duration,
    before: Archiver,
}

/// Waits until the segment is in a repository. The time is for one segment: it begins anew with each that the archiver is done with
/// before this one. A store that cannot be asked for a while is asked again until then.
async fn wait(
    server: &Server,
    lineage: &Lineage,
    segment: SegmentName,
    wait: Wait,
) -> anyhow::Result<Vec<u8>> {
    let Wait { mut begun, timeout, before } = wait;
    let mut known = before.archived;
    loop {
        let unread = match wal::get(lineage, &WalFile::Segment(segment)).await {
            Ok(Some(bytes)) => return Ok(bytes),
            Ok(None) => None,
            Err(error) if error.is_permanent() => return Err(error.into()),
            Err(error) => Some(error),
        };
        let now = Archiver::of(&server.session).await?;
        if now.archived > known && now.is_before(segment) {
            (begun, known) = (Instant::now(), now.archived);
        }
        if begun.elapsed() >= timeout {
            if let Some(error) = unread {
                return Err(error.into());
            }
            let message = format!("{segment} did not arrive within {} s", timeout.as_secs());
            let hint = if now.failed > before.failed {
                "the archive_command failed meanwhile: the server's log has its error"
            } else {
                "the archiver may be behind: see pg_stat_archiver and the .ready files in pg_wal/archive_status; or the \
                 server cannot run the command at all (not on its PATH?): see the server's log"
            };
            return Err(report::failed(message, hint));
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What PostgreSQL's archiver has done so far.
#[derive(Clone, Copy)]
struct Archiver {
    archived: i64,
    failed: i64,
    last: Option<SegmentName>,
}

impl Archiver {
    async fn of(session: &Session) -> Result<Self, PgError> {
        let what = "tell how its archiver fares";
        let sql = "SELECT archived_count, failed_count, last_archived_wal FROM pg_stat_archiver";
        let row = session.row(sql, &[], what).await?;
        let wrong = |error| PgError::query(what, &error);
        let last: Option<String> = row.try_get(2).map_err(wrong)?;
        Ok(Self {
            archived: row.try_get(0).map_err(wrong)?,
            failed: row.try_get(1).map_err(wrong)?,
            // A history file or the like is no segment.
            last: last.and_then(|name| name.parse().ok()),
        })
    }

    /// Whether it has not come to this segment yet.
    fn is_before(&self, segment: SegmentName) -> bool {
        self.last.is_none_or(|last| last < segment)
    }
}

/// Compares what came back with PostgreSQL's own file, if that is still there.
fn compare(archived: &[u8], segment: SegmentName, data_dir: &Path) -> anyhow::Result<()> {
    let path = data_dir.join("pg_wal").join(segment.to_string());
    let mut ours = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        // A checkpoint has recycled it, which it may once it is archived.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let scan =
        scan_segment(&ours, segment).with_context(|| format!("{} is not valid WAL", path.display()))?;
    canonicalise(&mut ours, &scan);
    if ours == archived {
        return Ok(());
    }
    Err(report::failed(
        format!("{segment} came back different from {}", path.display()),
        "do not trust this repository: keep the segment, and compare both with pg_waldump",
    ))
}
