//! The last moment of which it is certain that nothing newer in the WAL belongs to it.
//!
//! A commit says little of the commits behind it: they may bear the same moment, and a clock may have been set back. So only what
//! lies behind the last commit or abort counts: a checkpoint or a restore point, up to just before its moment, and the end of a
//! backup with its moment, which was read before everything up to there was written. An earlier moment is left out even
//! where it is later: what followed it has shown that the clock did not hold it.

use crate::lsn::Lsn;
use crate::time::PgTime;

/// Collects them, in WAL order, from its front or from its end.
#[derive(Debug, Clone, Default)]
pub struct Over {
    /// Start of the last commit or abort.
    last_end: Option<Lsn>,
    /// Checkpoints and restore points that may lie behind it: where, and their moments.
    others: Vec<(Lsn, PgTime)>,
}

impl Over {
    /// Adds what one segment says: the commits and aborts in it, and everything else that bears a moment.
    pub fn note(
        &mut self,
        ends: impl IntoIterator<Item = Lsn>,
        others: impl IntoIterator<Item = (Lsn, PgTime)>,
    ) {
        self.last_end = ends.into_iter().chain(self.last_end).max();
        self.others.extend(others);
        let last_end = self.last_end;
        self.others.retain(|(at, _)| last_end.is_none_or(|last| *at > last));
    }

    /// Whether a commit or an abort was among them.
    pub fn knows_an_end(&self) -> bool {
        self.last_end.is_some()
    }

    /// The moment, where the WAL ends with `end`. `witnesses` are the ends of backups.
    pub fn at(&self, end: Lsn, witnesses: impl IntoIterator<Item = (Lsn, PgTime)>) -> Option<PgTime> {
        let behind = |stop: Lsn| stop <= end && self.last_end.is_none_or(|last| stop > last);
        let witnessed = witnesses.into_iter().filter(|(stop, _)| behind(*stop)).map(|(_, time)| time);
        self.others.iter().map(|(_, time)| just_before(*time)).chain(witnessed).max()
    }
}

/// The last moment that `time` is later than.
pub fn just_before(time: PgTime) -> PgTime {
    PgTime::from_postgres_micros(time.postgres_micros().saturating_sub(1))
}
