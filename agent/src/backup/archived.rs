//! Waiting for WAL in the repository.
//!
//! What counts is what lies in the repository, opens under its keys to its last byte and joins: not what PostgreSQL believes to be
//! archived. A segment that is there is read once, as a restore would read it; while one is missing it is asked for with a growing pause, so that waiting costs a request
//! every few seconds. The deadline begins anew with each segment that comes: a long queue that moves is no failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use highwater_archive::lineage::Lineage;
use highwater_archive::wal;
use highwater_pitr::index::{Chain, SegmentIndex};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::timeline::TimelineId;

use super::error::BackupError;
use crate::pg::{PgError, Session};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// How many segments are read side by side, at most.
const SIDE_BY_SIDE: u64 = 8;

/// How many bytes of WAL are held at a time, unless a single segment is longer.
const HELD_BYTES: u64 = 32 << 20;

/// WAL of one lineage, as this server archives it.
pub struct Archived<'a> {
    /// Where it must come to lie.
    pub lineage: &'a Lineage,
    /// Asked for the cause when it does not come.
    pub session: &'a Session,
    /// How long a segment may take.
    pub deadline: Duration,
}

impl Archived<'_> {
    /// Proves that archiving works now: makes the server finish a segment, and waits for it.
    pub async fn prove(&self) -> Result<SegmentName, BackupError> {
        let what = "switch to a new WAL segment";
        // On an idle server there is nothing to switch from: a record of our own makes it so.
        let sql = "SELECT pg_switch_wal()::text, substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) \
             FROM (SELECT pg_logical_emit_message(false, 'highwater', 'backup')) AS written";
        let row = self.session.row(sql, &[], what).await?;
        let failed = |error| PgError::query(what, &error);
        let lsn: String = row.try_get(0).map_err(failed)?;
        let timeline: String = row.try_get(1).map_err(failed)?;
        let answer =
            |problem: &str| BackupError::Answer { what: "pg_switch_wal", problem: problem.to_owned() };
        let lsn: Lsn = lsn.parse().map_err(|_| answer("it is no WAL position"))?;
        let timeline = u32::from_str_radix(&timeline, 16).ok().and_then(TimelineId::new);
        let timeline = timeline.ok_or_else(|| answer("it names no timeline"))?;
        let segment = holding(timeline, lsn, self.size());
        self.wait(segment, segment, "which was to prove that archiving works").await?;
        Ok(segment)
    }

    /// Waits until every segment from `first` to `last` is in the repository, and joins the one before; where that WAL ends.
    pub async fn wait(&self, first: SegmentName, last: SegmentName, why: &str) -> Result<Lsn, BackupError> {
        let mut chain = Chain::new();
        let (mut number, end) = (first.number(self.size()), last.number(self.size()));
        let mut since = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut ahead = 1;
        while number <= end {
            let here: Vec<SegmentIndex> = self.look(first.timeline, number, end, ahead).await?;
            for index in &here {
                if index.stops_early {
                    return Err(BackupError::WalBroken(format!("segment {} stops early", index.segment)));
                }
                chain.push(index).map_err(|hole| BackupError::WalBroken(hole.to_string()))?;
            }
            if !here.is_empty() {
                number += here.len() as u64;
                (since, pause, ahead) = (Instant::now(), FIRST_PAUSE, self.side_by_side());
                continue;
            }
            if since.elapsed() >= self.deadline {
                let missing = SegmentName::from_number(first.timeline, number, self.size());
                return Err(BackupError::WalMissing {
                    what: format!("WAL segment {missing}, {why},"),
                    waited_s: self.deadline.as_secs(),
                    cause: self.cause(missing).await,
                });
            }
            tokio::time::sleep(pause).await;
            (pause, ahead) = ((pause * 2).min(LONGEST_PAUSE), 1);
        }
        Ok(chain.end().unwrap_or_else(|| last.end(self.size())))
    }

    /// The indexes of up to `ahead` segments from `number` on, up to the first that is not there.
    async fn look(
        &self,
        timeline: TimelineId,
        number: u64,
        end: u64,
        ahead: usize,
    ) -> Result<Vec<SegmentIndex>, BackupError> {
        let names =
            (number..=end).take(ahead).map(|number| SegmentName::from_number(timeline, number, self.size()));
        let lineage = Arc::new(self.lineage.clone());
        let mut answers = stream::iter(names.map(|name| {
            let lineage = Arc::clone(&lineage);
            async move { wal::get_indexed(&lineage, name).await }
        }))
        .buffered(self.side_by_side());
        let mut here = Vec::new();
        while let Some(answer) = answers.next().await {
            match answer? {
                // The whole body was read and is authentic; the index alone says nothing of the rest.
                Some((_, index)) => here.push(index),
                None => break,
            }
        }
        Ok(here)
    }

    fn side_by_side(&self) -> usize {
        usize::try_from((HELD_BYTES / self.size().bytes()).clamp(1, SIDE_BY_SIDE)).unwrap_or(1)
    }

    fn size(&self) -> WalSegmentSize {
        self.lineage.record().wal_segment_bytes
    }

    /// What PostgreSQL says about its archiving, in a sentence.
    async fn cause(&self, missing: SegmentName) -> String {
        match self.ask(missing).await {
            Ok(cause) => cause,
            Err(error) => format!("the server could not be asked why ({error})"),
        }
    }

    async fn ask(&self, missing: SegmentName) -> Result<String, PgError> {
        let what = "tell how its archiving goes";
        let sql = "SELECT failed_count, last_failed_wal, last_failed_time::text, last_archived_wal, \
             coalesce(last_failed_time > last_archived_time, last_failed_time IS NOT NULL), \
             last_archived_wal >= $1, current_setting('archive_command') = '' FROM pg_stat_archiver";
        let row = self.session.row(sql, &[&missing.to_string()], what).await?;
        let failed = |error| PgError::query(what, &error);
        let failures: i64 = row.try_get(0).map_err(failed)?;
        let text = |column| -> Result<String, PgError> {
            Ok(row.try_get::<_, Option<String>>(column).map_err(failed)?.unwrap_or_default())
        };
        let failing: bool = row.try_get(4).map_err(failed)?;
        let passed: Option<bool> = row.try_get(5).map_err(failed)?;
        let no_command: bool = row.try_get(6).map_err(failed)?;
        Ok(if no_command {
            "archive_command is empty".to_owned()
        } else if failing {
            format!(
                "archive_command fails ({failures} times so far, last for {} at {} UTC)",
                text(1)?,
                text(2)?
            )
        } else if passed == Some(true) {
            "PostgreSQL says that it is archived; archive_command does not bring it into this repository"
                .to_owned()
        } else {
            format!("archive_command did not fail, and is behind or hangs (last archived: {})", text(3)?)
        })
    }
}

/// The segment that holds the byte before `lsn`.
pub fn holding(timeline: TimelineId, lsn: Lsn, size: WalSegmentSize) -> SegmentName {
    SegmentName::containing(timeline, Lsn::new(lsn.as_u64().saturating_sub(1)), size)
}
