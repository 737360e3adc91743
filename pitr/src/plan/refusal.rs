//! Why a target is not reachable, and what is.

use std::fmt;

use super::Gap;
use crate::lsn::Lsn;
use crate::time::PgTime;
use crate::timeline::TimelineId;

/// A stretch that can be recovered to at any moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The timeline it is reached on.
    pub timeline: TimelineId,
    /// The backup it begins with.
    pub backup: String,
    /// The first position: that backup's end.
    pub from_lsn: Lsn,
    /// The first moment.
    pub from: PgTime,
    /// The end of the WAL that is there without a gap.
    pub to_lsn: Lsn,
    /// The newest moment that this WAL is known to reach.
    pub to: PgTime,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { timeline, backup, from_lsn, from, to_lsn, to } = self;
        write!(f, "{from} to {to} (LSN {from_lsn} to {to_lsn}) on timeline {timeline}, from backup {backup}")
    }
}

/// Why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RefusalReason {
    /// No complete backup at all.
    NoBackup,
    /// The backup asked for does not exist, or is not complete.
    UnknownBackup {
        /// The id that was given.
        id: String,
    },
    /// The backup asked for lies on no way to the timeline.
    BackupNotOnTimeline {
        /// The backup.
        id: String,
        /// The timeline recovery was to follow.
        timeline: TimelineId,
    },
    /// The archive holds nothing of the timeline asked for.
    UnknownTimeline {
        /// The timeline.
        timeline: TimelineId,
    },
    /// No backup leads to the timeline asked for.
    NoBackupOnTimeline {
        /// The timeline.
        timeline: TimelineId,
    },
    /// The target lies before every backup that could serve, or before the end of the one asked for.
    BeforeFirstBackup {
        /// The first moment that a backup makes possible.
        first: PgTime,
        /// That backup's end.
        first_lsn: Lsn,
    },
    /// The target lies behind all that the archive is known to hold.
    PastEnd,
    /// WAL is missing on the way.
    MissingWal {
        /// What is missing.
        gap: Gap,
    },
    /// Two segments do not join, or one cannot be read.
    BrokenWal {
        /// Which, and why.
        what: String,
    },
    /// No such transaction ends between the backups and the end of the WAL.
    UnknownXid {
        /// The transaction.
        xid: u32,
    },
    /// No such restore point between the backups and the end of the WAL.
    UnknownRestorePoint {
        /// The name.
        name: String,
    },
    /// The newest of all was asked for, and a newer timeline exists that cannot be reached.
    NewerTimelineOutOfReach {
        /// The newest timeline of the archive.
        newer: TimelineId,
        /// The newest that can be reached.
        reachable: TimelineId,
        /// Why the newer one cannot.
        why: String,
    },
}

/// A target that cannot be reached, before a byte was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The target, as it was understood.
    pub target: String,
    /// Why it cannot be reached.
    pub why: RefusalReason,
    /// What can be reached instead; `None` when nothing can.
    pub window: Option<Window>,
    /// An older backup, from which an earlier restore point of the same name is reached.
    pub earlier: Option<String>,
    /// What else stood in the way, such as a backup whose manifest is broken: each a sentence.
    pub notes: Vec<String>,
}

impl fmt::Display for RefusalReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoBackup => f.write_str("there is no complete backup"),
            Self::UnknownBackup { id } => write!(f, "there is no complete backup {id}"),
            Self::BackupNotOnTimeline { id, timeline } => {
                write!(f, "backup {id} does not lie on the way to timeline {timeline}")
            }
            Self::UnknownTimeline { timeline } => {
                write!(f, "the archive holds nothing of timeline {timeline}")
            }
            Self::NoBackupOnTimeline { timeline } => {
                write!(f, "no backup lies on the way to timeline {timeline}")
            }
            Self::BeforeFirstBackup { first, first_lsn } => {
                write!(
                    f,
                    "it lies before the end of the first backup that could serve, {first} at LSN {first_lsn}"
                )
            }
            Self::PastEnd => f.write_str("it lies past all that the archive is known to hold"),
            Self::MissingWal { gap } => write!(f, "WAL is missing on the way: {gap}"),
            Self::BrokenWal { what } => write!(f, "the WAL on the way is broken: {what}"),
            Self::UnknownXid { xid } => {
                write!(f, "no commit or abort of transaction {xid} is in the archived WAL")
            }
            Self::UnknownRestorePoint { name } => {
                write!(f, "no restore point `{name}` is in the archived WAL")
            }
            Self::NewerTimelineOutOfReach { newer, reachable, why } => {
                write!(f, "timeline {newer} is newer than timeline {reachable} and cannot be reached: {why}")
            }
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} cannot be reached: {}", self.target, self.why)?;
        if let Some(window) = &self.window {
            write!(f, "; what can be reached is {window}")?;
        }
        self.notes.iter().try_for_each(|note| write!(f, "; {note}"))
    }
}

impl std::error::Error for Refusal {}

impl Refusal {
    /// What to ask for instead.
    pub fn hint(&self) -> Option<String> {
        if let Some(id) = &self.earlier {
            return Some(format!(
                "a restore point of that name is reached from the older backup {id}, and a later one may lie in the WAL that could not be \
                 looked at; --backup {id} restores the earlier one on purpose"
            ));
        }
        match (&self.why, &self.window) {
            (RefusalReason::NoBackup, _) => Some("take one with `highwater backup`".to_owned()),
            (RefusalReason::NewerTimelineOutOfReach { reachable, .. }, _) => {
                Some(format!("to accept the older one, say --timeline {reachable}"))
            }
            (RefusalReason::UnknownBackup { .. } | RefusalReason::UnknownTimeline { .. }, _) => {
                Some("`highwater list` shows backups and timelines".to_owned())
            }
            (RefusalReason::PastEnd, window) => Some(past_end(window.as_ref())),
            (RefusalReason::UnknownXid { .. } | RefusalReason::UnknownRestorePoint { .. }, _) => Some(
                "it may not be archived yet: if the server still lives, SELECT pg_switch_wal() there, then \
                 run this again; else choose a target inside the window"
                    .to_owned(),
            ),
            (RefusalReason::BeforeFirstBackup { .. }, Some(_)) => {
                Some("choose a target inside that window".to_owned())
            }
            (_, Some(window)) => Some(format!(
                "choose a target inside that window, or --to-lsn {} for its very end",
                window.to_lsn
            )),
            (_, None) => Some("`highwater list` shows what can be reached".to_owned()),
        }
    }
}

/// The commonest emergency: what is asked for is a minute old, and lies in the segment that the server is still writing.
fn past_end(window: Option<&Window>) -> String {
    let end = window.map_or_else(String::new, |window| format!(" (LSN {})", window.to_lsn));
    format!(
        "if the server still lives, SELECT pg_switch_wal() there archives what only it has, then run this again; \
         else --to latest takes the end{end}"
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn hint(why: RefusalReason) -> String {
        let window = Window {
            timeline: TimelineId::new(1).unwrap(),
            backup: "b".into(),
            from_lsn: Lsn::new(0x100),
            from: PgTime::from_postgres_micros(0),
            to_lsn: Lsn::new(0x1000_0200),
            to: PgTime::from_postgres_micros(1),
        };
        Refusal { target: "it".into(), why, window: Some(window), earlier: None, notes: Vec::new() }
            .hint()
            .unwrap()
    }

    /// What the archive lacks may be on the server yet; what lies before every backup never comes.
    #[test]
    fn a_hint_leads_on() {
        let past = hint(RefusalReason::PastEnd);
        for words in ["SELECT pg_switch_wal()", "run this again", "--to latest", "LSN 0/10000200"] {
            assert!(past.contains(words), "{words}: {past}");
        }
        let name = "friday".to_owned();
        for unknown in [RefusalReason::UnknownXid { xid: 7 }, RefusalReason::UnknownRestorePoint { name }] {
            let hint = hint(unknown);
            assert!(hint.contains("pg_switch_wal()") && !hint.contains("0/10000200"), "{hint}");
        }
        let first = RefusalReason::BeforeFirstBackup {
            first: PgTime::from_postgres_micros(0),
            first_lsn: Lsn::new(0x100),
        };
        assert_eq!(hint(first), "choose a target inside that window");
    }
}
