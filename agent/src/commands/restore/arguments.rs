//! What `highwater restore` takes.

use std::path::PathBuf;

use highwater_archive::lineage::LineageRecord;
use highwater_archive::manifest::BackupId;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::target::{RecoveryTarget, TargetAction};
use highwater_pitr::time::parse_time;
use highwater_pitr::timeline::TimelineId;
use highwater_restore::preflight::{Preflight, Request, Start};
use highwater_restore::tablespaces::Mapping;

use super::source::Sources;
use crate::report;

/// The arguments.
#[derive(clap::Args)]
#[command(group(clap::ArgGroup::new("target").multiple(false)))]
pub struct Args {
    /// The new data directory: absent, empty, or what this command left there when it was cut off
    #[arg(long, value_name = "DIRECTORY")]
    pub target_dir: PathBuf,
    /// Let it be a data directory of this cluster: only what differs is fetched, and what is not in the backup is removed;
    /// WAL there that is in no archive is moved aside
    #[arg(long)]
    pub delta: bool,
    /// Recover to a moment, such as 2026-11-20T04:17:00+01:00, or `latest` (the default)
    #[arg(long, group = "target", value_name = "TIME|latest")]
    pub to: Option<String>,
    /// Recover to a WAL position
    #[arg(long, group = "target", value_name = "LSN")]
    pub to_lsn: Option<Lsn>,
    /// Recover to the end of a transaction
    #[arg(long, group = "target", value_name = "XID")]
    pub to_xid: Option<u32>,
    /// Recover to a restore point (pg_create_restore_point)
    #[arg(long, group = "target", value_name = "NAME")]
    pub to_restore_point: Option<String>,
    /// Recover to the end of the base backup and no further
    #[arg(long, group = "target")]
    pub to_consistent: bool,
    /// Stop just before the target and not with it (--to, --to-lsn, --to-xid)
    #[arg(long)]
    pub before: bool,
    /// What to do at the target: pause is the default, promote for the latest
    #[arg(long, value_enum, value_name = "ACTION")]
    pub action: Option<Action>,
    /// Follow this timeline, instead of the newest that can be reached
    #[arg(long, value_name = "NUMBER", value_parser = timeline)]
    pub timeline: Option<TimelineId>,
    /// Begin with this backup, instead of the newest that can serve
    #[arg(long, value_name = "ID")]
    pub backup: Option<BackupId>,
    /// Read this lineage, where the cluster has several
    #[arg(long, value_name = "ID")]
    pub lineage: Option<highwater_archive::seal::LineageId>,
    /// Put a tablespace elsewhere: its old path, oid or name, and its new path (repeatable)
    #[arg(long, value_name = "A=B")]
    pub tablespace_map: Vec<Mapping>,
    /// Put pg_wal elsewhere; the directory must be absent or empty
    #[arg(long, value_name = "DIRECTORY")]
    pub wal_dir: Option<PathBuf>,
    /// Put configuration files that lay outside the data directory into this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub config_to: Option<PathBuf>,
    /// As root: who gets the files, instead of the original owner's name
    #[arg(long, value_name = "USER[:GROUP]")]
    pub owner: Option<String>,
    /// Make a standby, which goes on replaying
    #[arg(long, conflicts_with_all = ["target", "action"])]
    pub standby: bool,
    /// It takes production's place: leave archiving, replication and subscriptions on
    #[arg(long)]
    pub replace_production: bool,
    /// How many packs are transferred at once
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=256))]
    pub jobs: Option<u16>,
    /// Say what would be done, and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Start the server and wait until it has reached the target
    #[arg(long, conflicts_with = "dry_run")]
    pub start: bool,
    /// The directory of the PostgreSQL programs that will run it, where they are not found by themselves
    #[arg(long, value_name = "DIRECTORY")]
    pub pg_bin: Option<PathBuf>,
    /// Another host will run it: hold nothing against the PostgreSQL of this one
    #[arg(long, conflicts_with_all = ["start", "pg_bin"])]
    pub elsewhere: bool,
    /// With --start: the port, when the original's is taken
    #[arg(long, requires = "start", value_name = "PORT")]
    pub port: Option<u16>,
    /// With --start: the directory of the server's socket
    #[arg(long, requires = "start", value_name = "DIRECTORY")]
    pub socket_dir: Option<PathBuf>,
    /// With --start: how many seconds to wait for the target
    #[arg(long, requires = "start", value_name = "SECONDS", default_value_t = 86_400)]
    pub start_timeout: u64,
    /// The repository: a name of the configuration, or a URL with which none is needed
    #[arg(long, value_name = "NAME|URL")]
    pub repository: Option<String>,
    /// With a URL: the age identity or passphrase that opens the keyring
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// With a URL: the address of a service that is not the provider's own
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// With a URL: the S3 region
    #[arg(long, value_name = "REGION")]
    pub region: Option<String>,
}

/// `--action`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum Action {
    /// Stay read-only, to be looked at
    Pause,
    /// Open for writing on a new timeline
    Promote,
    /// Shut down
    Shutdown,
}

impl From<Action> for TargetAction {
    fn from(action: Action) -> Self {
        match action {
            Action::Pause => Self::Pause,
            Action::Promote => Self::Promote,
            Action::Shutdown => Self::Shutdown,
        }
    }
}

impl Args {
    /// The request that these arguments make, on what was opened for them.
    ///
    /// # Errors
    ///
    /// A time without a zone, a path that cannot be made absolute.
    pub fn request(&self, sources: &Sources) -> anyhow::Result<Request> {
        let absolute = |path: &PathBuf| std::path::absolute(path);
        Ok(Request {
            target_dir: absolute(&self.target_dir)?,
            delta: self.delta,
            target: self.target()?,
            timeline: self.timeline,
            backup: self.backup.clone(),
            from_repository: sources.asked_for().map(str::to_owned),
            mappings: self.tablespace_map.clone(),
            wal_dir: self.wal_dir.as_ref().map(absolute).transpose()?,
            config_to: self.config_to.as_ref().map(absolute).transpose()?,
            owner: self.owner.clone(),
            action: self.action.map(TargetAction::from),
            standby: self.standby,
            replace_production: self.replace_production,
            pg_bin: self.pg_bin.as_ref().map(absolute).transpose()?,
            elsewhere: self.elsewhere,
            start: self.start.then(|| Start { port: self.port, socket_dir: self.socket_dir.clone() }),
            program: std::env::current_exe()?,
            local_repositories: sources.local_directories(),
        })
    }

    /// How many packs are transferred at once: a core each, and more where the network is waited for.
    pub fn jobs(&self, sources: &Sources, preflight: &Preflight) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        match self.jobs {
            Some(jobs) => usize::from(jobs),
            None if sources.is_local(&preflight.repository) => cores,
            None => (2 * cores).max(4),
        }
    }

    fn target(&self) -> anyhow::Result<RecoveryTarget> {
        let before = self.before;
        let target = match self {
            Self { to: Some(text), .. } if text != "latest" => {
                let zone = jiff::tz::TimeZone::system();
                let time = parse_time(text, &zone).map_err(|error| {
                    report::usage_error(error.to_string(), error.hint().unwrap_or_default())
                })?;
                RecoveryTarget::Time { time, before }
            }
            Self { to_lsn: Some(lsn), .. } => RecoveryTarget::Lsn { lsn: *lsn, before },
            Self { to_xid: Some(xid), .. } => RecoveryTarget::Xid { xid: *xid, before },
            Self { to_restore_point: Some(name), .. } => RecoveryTarget::RestorePoint { name: name.clone() },
            Self { to_consistent: true, .. } => RecoveryTarget::Consistent,
            _ => RecoveryTarget::Latest,
        };
        match target {
            RecoveryTarget::Time { .. } | RecoveryTarget::Lsn { .. } | RecoveryTarget::Xid { .. } => {
                Ok(target)
            }
            other if !before => Ok(other),
            _ => Err(report::usage_error(
                "--before goes with --to TIME, --to-lsn or --to-xid",
                "leave it out, or name such a target",
            )),
        }
    }
}

fn timeline(text: &str) -> Result<TimelineId, String> {
    text.parse().ok().and_then(TimelineId::new).ok_or_else(|| "a timeline is a number from 1".to_owned())
}

/// A lineage in words.
pub fn describe(record: &LineageRecord) -> String {
    format!(
        "{} (system identifier {}, PostgreSQL {}, begun {} by {})",
        record.lineage, record.system_identifier, record.pg_major, record.created_at, record.reason
    )
}
