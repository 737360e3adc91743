//! Why a restore was refused, or could not be finished.

use std::io;
use std::path::PathBuf;

use highwater_archive::catalog::{CatalogError, ResolveError};
use highwater_archive::durable::{self, DurableError};
use highwater_archive::lineage::LineageError;
use highwater_archive::manifest::ManifestError;
use highwater_archive::repository::Silent;
use highwater_pitr::control::ControlError;

use crate::host::HostError;
use crate::ownership::OwnerError;
use crate::places::PlaceError;
use crate::plan_file::PlanFileError;
use crate::rebuild::{INCOMPLETE_MARKER, OTHER_BACKUP, RebuildError};
use crate::replayed::ReplayedError;
use crate::server::ServerError;
use crate::tablespaces::TablespaceError;

/// A restore was refused before anything was written, or failed on the way.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A path that must be absolute.
    #[error("{} is not an absolute path", path.display())]
    NotAbsolute {
        /// The path.
        path: PathBuf,
    },
    /// A server runs there.
    #[error("a server is running in {}", path.display())]
    Running {
        /// The directory.
        path: PathBuf,
    },
    /// A pid file names a process that is not on this host, or not to be seen.
    #[error("{} holds the postmaster.pid of a server that is not to be seen here (process {pid})", path.display())]
    Unseen {
        /// The directory.
        path: PathBuf,
        /// The process that it names.
        pid: i32,
    },
    /// The server to start could not listen.
    #[error("port {port}, on which the restored server would listen, is in use on this host: {by}")]
    PortTaken {
        /// The port.
        port: u16,
        /// What has it.
        by: String,
    },
    /// An earlier restore has not finished there, and does not say which.
    #[error("{} holds a restore that did not finish, and its record cannot be read: {reason}", path.display())]
    Incomplete {
        /// The directory.
        path: PathBuf,
        /// What is wrong with the record.
        reason: String,
    },
    /// Another process restores there.
    #[error("another restore is at work in {}", path.display())]
    AtWork {
        /// The directory.
        path: PathBuf,
    },
    /// An earlier restore has not finished there, and it is not the one that is asked for.
    #[error("{} holds a restore that did not finish, and it is another one: {what}", path.display())]
    OtherRestore {
        /// The directory.
        path: PathBuf,
        /// What differs.
        what: String,
    },
    /// A restore came to its end but for its record, and a server has run there since.
    #[error("{} holds a restore that did not finish, and a server has run there since (system identifier {system_identifier})", path.display())]
    Started {
        /// The directory.
        path: PathBuf,
        /// Of the cluster there.
        system_identifier: u64,
    },
    /// What is there is another cluster.
    #[error("{} is of system identifier {found}, and the backup of {backup}: another cluster", path.display())]
    OtherCluster {
        /// The directory.
        path: PathBuf,
        /// Its system identifier.
        found: u64,
        /// That of the backup.
        backup: u64,
    },
    /// The data directory may be a copy that was made with its links.
    #[error("{} is not {}, where the cluster of the backup was: its {what} may be that cluster's", path.display(), data_directory.display())]
    Elsewhere {
        /// The directory.
        path: PathBuf,
        /// The data directory that the backup was made of.
        data_directory: PathBuf,
        /// What lies outside.
        what: String,
    },
    /// Another server uses a place of this cluster.
    #[error("{} is used by the server of {} too", path.display(), data_dir.display())]
    InUse {
        /// The place.
        path: PathBuf,
        /// The other data directory.
        data_dir: PathBuf,
    },
    /// What must be in a place is not.
    #[error("{} lacks {lacks}: is that mounted?", path.display())]
    NotMounted {
        /// The place.
        path: PathBuf,
        /// What must be there.
        lacks: String,
    },
    /// A place is marked by a restore that nobody is at, and that is not this one.
    #[error("{} is marked by another restore, which has not come to its end", path.display())]
    Marked {
        /// The place.
        path: PathBuf,
        /// The mark.
        mark: PathBuf,
    },
    /// A server has run since preflight.
    #[error("{} has changed since it was looked at: a server has run there", path.display())]
    Changed {
        /// The directory.
        path: PathBuf,
    },
    /// What is there is no data directory that could be compared.
    #[error("{} is not empty, and no data directory that can be compared: {reason}", path.display())]
    NoCluster {
        /// The directory.
        path: PathBuf,
        /// What it lacks.
        reason: String,
    },
    /// WAL there waits to be archived.
    #[error("{} holds WAL that was never archived, {count} files from {first} on, and all of pg_wal would be removed", path.display())]
    Unarchived {
        /// The directory.
        path: PathBuf,
        /// How many.
        count: usize,
        /// The first of them.
        first: String,
    },
    /// A pack that the backup needs is not whole.
    #[error("{pack} is needed for this backup, and {problem}; nothing was changed")]
    PackGone {
        /// The object's path below the lineage.
        pack: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The directory belongs to someone else, and PostgreSQL will not start in it.
    #[error("{} belongs to user {owner}, and the restored server would run as {server}", path.display())]
    WrongOwner {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Who the server would run as.
        server: String,
    },
    /// Not enough space.
    #[error("{} has {free} bytes free and {needed} are needed", path.display())]
    NoSpace {
        /// A directory on the filesystem.
        path: PathBuf,
        /// Free bytes.
        free: u64,
        /// Needed bytes.
        needed: u64,
    },
    /// A filesystem that cannot hold so many files, whatever space it has.
    #[error("on the filesystem of {} {free} more files can be made and {needed} are needed", path.display())]
    NoInodes {
        /// A directory on the filesystem.
        path: PathBuf,
        /// Inodes free.
        free: u64,
        /// Files and directories that will be made.
        needed: u64,
    },
    /// The owner of the files could not run `restore_command`.
    #[error("user {user} cannot run {}: {reason}", program.display())]
    Unrunnable {
        /// The user.
        user: String,
        /// This program.
        program: PathBuf,
        /// What happened.
        reason: String,
    },
    /// The owner of the files could not read the repository during recovery.
    #[error("user {user} cannot read the repository in {}", path.display())]
    Unreadable {
        /// The user.
        user: String,
        /// The repository's directory.
        path: PathBuf,
    },
    /// A text that cannot stand in a configuration file or a command line.
    #[error("the path {text:?} cannot be written into a configuration file")]
    Unwritable {
        /// The text.
        text: String,
    },
    /// A file of the configuration is there already.
    #[error("{} exists and would be replaced", path.display())]
    ConfigExists {
        /// The file.
        path: PathBuf,
    },
    /// Configuration would come into the data directory of a cluster.
    #[error("{} is the data directory of a cluster, and configuration would be put into it", path.display())]
    InCluster {
        /// The data directory.
        path: PathBuf,
    },
    /// It broke off after the first byte was written.
    #[error("the restore into {} is not complete, and no server starts there: {cause}", path.display())]
    Unfinished {
        /// The data directory.
        path: PathBuf,
        /// All that was written.
        written: Vec<PathBuf>,
        /// What broke it off.
        cause: Box<RestoreError>,
    },
    /// A place that cannot be written or reached.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// The target cannot be reached, or the archive could not be asked.
    #[error(transparent)]
    Resolve(#[from] ResolveError),
    /// What the archive holds could not be listed.
    #[error(transparent)]
    Catalog(#[from] CatalogError),
    /// A repository stopped answering.
    #[error(transparent)]
    Silent(#[from] Silent),
    /// The manifest.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// The manifest's copy of `pg_control` is not one.
    #[error("the backup's pg_control: {0}")]
    Control(#[from] ControlError),
    /// This host does not suit the cluster.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The lineage could not be asked.
    #[error(transparent)]
    Lineage(#[from] LineageError),
    /// The owner.
    #[error(transparent)]
    Owner(#[from] OwnerError),
    /// A tablespace.
    #[error(transparent)]
    Tablespace(#[from] TablespaceError),
    /// A tablespace that replay makes.
    #[error(transparent)]
    Replayed(#[from] ReplayedError),
    /// The rebuilding.
    #[error(transparent)]
    Rebuild(#[from] RebuildError),
    /// The plan for `restore_command`.
    #[error(transparent)]
    PlanFile(#[from] PlanFileError),
    /// The server.
    #[error(transparent)]
    Server(#[from] ServerError),
    /// The local disk, through the durable door.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The local disk.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

impl RestoreError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unfinished { written, cause, .. } => {
                let first = cause.hint().map_or_else(String::new, |hint| format!("{hint}; then "));
                let again = match cause.as_ref() {
                    // The hint says which command it is now.
                    Self::Rebuild(error) if error.is_of_the_backup() => "what is the same is kept",
                    _ => "type the same command again, and what was written is kept",
                };
                let words: Vec<String> = written
                    .iter()
                    .map(|path| crate::conf_file::shell_word(&path.display().to_string()))
                    .collect();
                // What was a cluster before is nothing to remove.
                let give_up = if words.is_empty() {
                    String::new()
                } else {
                    format!(". To give it up: rm -rf {}", words.join(" "))
                };
                Some(format!("{first}{again}{give_up}"))
            }
            Self::NotAbsolute { .. } => Some("write the whole path, from /".into()),
            Self::Running { path } => Some(format!(
                "restore beside it, or stop it first, and move its directory away or use --delta; where none runs, its old \
                 process id is another program's now: rm {}",
                crate::conf_file::shell_word(&path.join("postmaster.pid").display().to_string())
            )),
            Self::Unseen { path, .. } => Some(format!(
                "look for it in other containers and on other hosts that have this directory, and stop it; where it crashed, rm {}",
                crate::conf_file::shell_word(&path.join("postmaster.pid").display().to_string())
            )),
            Self::PortTaken { .. } => Some("choose one with --port".into()),
            Self::Incomplete { .. } => Some("remove what it left, or name another directory".into()),
            Self::AtWork { .. } => Some("wait until it has come to its end".into()),
            Self::OtherRestore { .. } => Some(
                "type the command that began it, to go on; or remove what it left, or name another directory. \
                 With --delta what is there may become another backup of the same cluster"
                    .into(),
            ),
            Self::Started { path, .. } => Some(format!(
                "to keep that cluster, remove the record: rm {}; to bring it to the state of the backup, use --delta",
                crate::conf_file::shell_word(&path.join(INCOMPLETE_MARKER).display().to_string())
            )),
            Self::OtherCluster { .. } => {
                Some("name the data directory of this cluster, or an empty or absent one".into())
            }
            Self::Elsewhere { .. } => Some(
                "where it is this directory's own, name its place with --tablespace-map or --wal-dir; or name empty directories".into(),
            ),
            Self::InUse { .. } => Some(
                "one of the two is a copy that was made with its links: restore into an empty directory, with \
                 --tablespace-map and --wal-dir"
                    .into(),
            ),
            Self::NotMounted { .. } => Some(
                "mount what belongs there, and type the same command again; if it is lost, restore into empty directories"
                    .into(),
            ),
            Self::Marked { mark, .. } => Some(format!(
                "go on with that restore by its own command; where it was given up, or its cluster runs: rm {}",
                crate::conf_file::shell_word(&mark.display().to_string())
            )),
            Self::Changed { .. } => {
                Some("see that nothing starts it, and type the same command again".into())
            }
            Self::NoCluster { .. } => Some(
                "--delta works in the data directory of the same cluster; name it, or an empty or absent directory".into(),
            ),
            Self::Unarchived { path, .. } => Some(format!(
                "archive it first: start the server, or run archive-push on each; where it is not wanted, remove {}",
                crate::conf_file::shell_word(&path.join("pg_wal/archive_status").display().to_string()) + "/*.ready"
            )),
            Self::PackGone { .. } => Some(OTHER_BACKUP.into()),
            Self::WrongOwner { .. } => Some("name the owner with --owner, or give the directory to that user".into()),
            Self::NoSpace { .. } => {
                Some("free space there, or put a part elsewhere with --tablespace-map or --wal-dir".into())
            }
            Self::NoInodes { .. } => Some(
                "remove files there, or make it with more inodes; or put a part elsewhere with --tablespace-map or --wal-dir"
                    .into(),
            ),
            Self::Unrunnable { .. } => {
                Some("restore_command runs as that user: install highwater where it can be run, such as /usr/local/bin".into())
            }
            Self::Unreadable { user, path } => Some(format!(
                "recovery reads WAL as that user: chown -R {user} {}",
                crate::conf_file::shell_word(&path.display().to_string())
            )),
            Self::Unwritable { .. } => Some("choose a path of printable UTF-8".into()),
            Self::ConfigExists { .. } => {
                Some("leave --config-to out and take the files from highwater/config in the data directory".into())
            }
            Self::InCluster { .. } => {
                Some("name a directory outside of every data directory with --config-to".into())
            }
            Self::Place(error) => error.hint(),
            Self::Resolve(error) => error.hint(),
            Self::Catalog(error) => error.hint(),
            Self::Silent(silent) => Some(silent.hint()),
            Self::Manifest(error) => error.hint(),
            Self::Control(error) => error.hint(),
            Self::Host(error) => error.hint(),
            Self::Lineage(error) => error.hint(),
            Self::Owner(error) => error.hint(),
            Self::Tablespace(error) => error.hint(),
            Self::Replayed(error) => error.hint(),
            Self::Rebuild(error) => error.hint(),
            Self::PlanFile(error) => error.hint(),
            Self::Server(error) => error.hint(),
            Self::Durable(error) => error.hint(),
            Self::Io { path, source, .. } if durable::is_full(source) => Some(durable::make_room(path)),
            Self::Io { .. } => None,
        }
    }

    /// Whether the target itself was refused, which has an exit code of its own.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Host(error) => error.is_refusal(),
            Self::Resolve(ResolveError::Refused(_))
            | Self::NotAbsolute { .. }
            | Self::Place(_)
            | Self::Running { .. }
            | Self::Unseen { .. }
            | Self::PortTaken { .. }
            | Self::Incomplete { .. }
            | Self::AtWork { .. }
            | Self::OtherRestore { .. }
            | Self::Started { .. }
            | Self::OtherCluster { .. }
            | Self::Elsewhere { .. }
            | Self::InUse { .. }
            | Self::NoCluster { .. }
            | Self::NotMounted { .. }
            | Self::Marked { .. }
            | Self::Changed { .. }
            | Self::Unarchived { .. }
            | Self::WrongOwner { .. }
            | Self::NoSpace { .. }
            | Self::NoInodes { .. }
            | Self::Unrunnable { .. }
            | Self::Unreadable { .. }
            | Self::Unwritable { .. }
            | Self::ConfigExists { .. }
            | Self::InCluster { .. }
            | Self::Owner(_)
            | Self::Tablespace(_)
            | Self::Replayed(_)
            | Self::Server(ServerError::NotInstalled { .. } | ServerError::WrongInstallation { .. }) => true,
            Self::Unfinished { .. }
            | Self::PackGone { .. }
            | Self::Resolve(_)
            | Self::Catalog(_)
            | Self::Silent(_)
            | Self::Manifest(_)
            | Self::Lineage(_)
            | Self::Control(_)
            | Self::Rebuild(_)
            | Self::PlanFile(_)
            | Self::Server(_)
            | Self::Durable(_)
            | Self::Io { .. } => false,
        }
    }
}
