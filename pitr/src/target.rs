//! Where a person wants recovery to stop, and what the server shall do there.
//!
//! The meaning of each target is PostgreSQL's own (`recoveryStopsBefore` and `recoveryStopsAfter` in
//! `access/transam/xlogrecovery.c`); the plan in [`crate::plan`] finds the place in the WAL before anything is restored.

use std::fmt;

use crate::lsn::Lsn;
use crate::time::PgTime;

/// The place where recovery shall stop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecoveryTarget {
    /// The end of the WAL that the archive holds without a gap.
    Latest,
    /// As soon as the base backup is consistent: its own end.
    Consistent,
    /// I24: every commit that precedes, in WAL order, the first commit or abort later than `time`; with `before`, not
    /// earlier than `time`.
    Time {
        /// The moment.
        time: PgTime,
        /// Leave out what happened at that very microsecond.
        before: bool,
    },
    /// Up to and with the first record that starts at or after `lsn`; with `before`, without it.
    Lsn {
        /// The position.
        lsn: Lsn,
        /// Leave out the record found there.
        before: bool,
    },
    /// Up to and with the commit or abort of this transaction, in WAL order; with `before`, without it.
    Xid {
        /// The top-level transaction's 32-bit id, as in `pg_waldump`.
        xid: u32,
        /// Leave out that transaction.
        before: bool,
    },
    /// The first restore point of this name after the backup (`pg_create_restore_point`).
    RestorePoint {
        /// The point's name.
        name: String,
    },
}

impl fmt::Display for RecoveryTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let just_before = |before: &bool| if *before { "just before " } else { "" };
        match self {
            Self::Latest => f.write_str("the end of the archived WAL"),
            Self::Consistent => f.write_str("the end of the base backup"),
            Self::Time { time, before } => write!(f, "{}{time}", just_before(before)),
            Self::Lsn { lsn, before } => write!(f, "{}LSN {lsn}", just_before(before)),
            Self::Xid { xid, before } => write!(f, "{}transaction {xid}", just_before(before)),
            Self::RestorePoint { name } => write!(f, "restore point `{name}`"),
        }
    }
}

/// What the server does when it has reached the target: PostgreSQL's `recovery_target_action`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetAction {
    /// Stay read-only, so that a person can look and then promote or choose another target.
    Pause,
    /// Open for writing on a new timeline.
    Promote,
    /// Shut down.
    Shutdown,
}

impl TargetAction {
    /// The default: `promote` for the latest, else `pause`.
    pub fn default_for(target: &RecoveryTarget) -> Self {
        match target {
            RecoveryTarget::Latest => Self::Promote,
            RecoveryTarget::Consistent
            | RecoveryTarget::Time { .. }
            | RecoveryTarget::Lsn { .. }
            | RecoveryTarget::Xid { .. }
            | RecoveryTarget::RestorePoint { .. } => Self::Pause,
        }
    }

    /// The value of `recovery_target_action`.
    pub const fn setting(self) -> &'static str {
        match self {
            Self::Pause => "pause",
            Self::Promote => "promote",
            Self::Shutdown => "shutdown",
        }
    }
}

impl fmt::Display for TargetAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.setting())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn only_the_latest_promotes_unasked() {
        let lsn = RecoveryTarget::Lsn { lsn: Lsn::new(0x0100_0000), before: true };
        assert_eq!(TargetAction::default_for(&RecoveryTarget::Latest), TargetAction::Promote);
        assert_eq!(TargetAction::default_for(&RecoveryTarget::Consistent), TargetAction::Pause);
        assert_eq!(TargetAction::default_for(&lsn), TargetAction::Pause);
        assert_eq!(lsn.to_string(), "just before LSN 0/1000000");
    }
}
