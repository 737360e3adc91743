//! Where recovery stops, and the settings that make PostgreSQL stop there.

use crate::index::{TablespaceChange, TablespaceRecord, TransactionEnd};
use crate::lsn::Lsn;
use crate::time::PgTime;

/// The condition PostgreSQL itself will stop on. It may differ from the target asked for: a time past the newest
/// commit is FATAL to PostgreSQL ("recovery ended before configured recovery target was reached"), so it becomes the
/// last complete record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// `recovery_target = 'immediate'`.
    Immediate,
    /// `recovery_target_time`.
    Time {
        /// Its value.
        time: PgTime,
        /// `recovery_target_inclusive`.
        inclusive: bool,
    },
    /// `recovery_target_lsn`.
    Lsn {
        /// Its value.
        lsn: Lsn,
        /// `recovery_target_inclusive`.
        inclusive: bool,
    },
    /// `recovery_target_xid`.
    Xid {
        /// Its value.
        xid: u32,
        /// `recovery_target_inclusive`.
        inclusive: bool,
    },
    /// `recovery_target_name`.
    Name {
        /// Its value.
        name: String,
    },
}

impl Stop {
    /// The PostgreSQL settings that make recovery stop there: names and values, the values not yet quoted. Without
    /// `recovery_target_timeline` and `recovery_target_action`.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let inclusive =
            |value: &bool| ("recovery_target_inclusive", if *value { "on" } else { "off" }.to_owned());
        match self {
            Self::Immediate => vec![("recovery_target", "immediate".to_owned())],
            Self::Time { time, inclusive: flag } => {
                let literal = time.to_postgres_literal().unwrap_or_else(|| time.to_string());
                vec![("recovery_target_time", literal), inclusive(flag)]
            }
            Self::Lsn { lsn, inclusive: flag } => {
                vec![("recovery_target_lsn", lsn.to_string()), inclusive(flag)]
            }
            Self::Xid { xid, inclusive: flag } => {
                vec![("recovery_target_xid", xid.to_string()), inclusive(flag)]
            }
            Self::Name { name } => vec![("recovery_target_name", name.clone())],
        }
    }
}

/// The place where recovery stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPoint {
    /// What PostgreSQL is told.
    pub stop: Stop,
    /// Everything before this position is replayed, and nothing that starts at or after it. For an inclusive LSN target
    /// inside of the WAL this is the target itself, and the one record found there is replayed too.
    pub boundary: Lsn,
    /// The end of the last record that recovery reads; it may read one that it does not apply, to see that it must stop.
    /// For an LSN inside of the WAL at least the target.
    pub end: Lsn,
    /// The number of the last segment that recovery reads.
    pub last_segment: u64,
    /// The newest commit that the restored cluster will hold from this WAL; `None` when there is none after the backup's start.
    pub newest_commit: Option<TransactionEnd>,
    /// The tablespaces that recovery makes on its way there, in WAL order.
    pub tablespaces: Vec<ReplayedTablespace>,
}

/// A tablespace that recovery makes by replaying its CREATE TABLESPACE: at the path that stands in the WAL, whatever else lies
/// there on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayedTablespace {
    /// Its oid.
    pub oid: u32,
    /// Its directory, in the bytes of the WAL; empty for one that lies in `pg_tblspc` itself.
    pub path: Vec<u8>,
    /// Start of the record that makes it.
    pub lsn: Lsn,
    /// Start of the record that drops it again, when recovery comes to that.
    pub dropped: Option<Lsn>,
}

impl ReplayedTablespace {
    /// Those that `replayed`, records in WAL order, make.
    pub(super) fn of<'a>(replayed: impl Iterator<Item = &'a TablespaceRecord>) -> Vec<Self> {
        let mut made: Vec<Self> = Vec::new();
        for record in replayed {
            match &record.change {
                TablespaceChange::Created { path } => {
                    made.push(Self { oid: record.oid, path: path.clone(), lsn: record.lsn, dropped: None })
                }
                TablespaceChange::Dropped => {
                    if let Some(made) = made.iter_mut().rfind(|made| made.oid == record.oid) {
                        made.dropped = made.dropped.or(Some(record.lsn));
                    }
                }
            }
        }
        made
    }
}
