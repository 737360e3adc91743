//! One file a subcommand: `Args`, what the command takes, and `run`, what it does.
//!
//! A new one is a file here and a line in each of [`Command`], [`Command::writes_as_owner`] and [`run`].

mod adopt;
mod archive_get;
mod archive_push;
mod backup;
mod check;
mod config_reference;
mod demo;
mod init;
mod list;
mod restore;

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;

use crate::context::Context;
use crate::exit::Exit;
use crate::owner;

/// The subcommands, in the order of `--help`.
#[derive(clap::Subcommand)]
pub enum Command {
    /// Create the repository and its keyring, and print what to put in a vault
    Init(init::Args),
    /// Prove the set-up: repository, keyring, connection, settings, a WAL round trip
    Check(check::Args),
    /// Archive one file of WAL; PostgreSQL's archive_command
    ArchivePush(archive_push::Args),
    /// Fetch one file of WAL; PostgreSQL's restore_command
    ArchiveGet(archive_get::Args),
    /// Take one base backup now
    Backup(backup::Args),
    /// Show backups, WAL, gaps, timelines and the recoverable windows
    List(list::Args),
    /// Bring the cluster, as it was at any moment, into an empty directory
    Restore(Box<restore::Args>),
    /// Make a restored copy the cluster: continue its lineage, or open a new one
    Adopt(adopt::Args),
    /// The whole story on a throwaway cluster, in a minute
    Demo(demo::Args),
    /// Print the reference of all options, docs/configuration.md
    #[command(hide = true)]
    ConfigReference(config_reference::Args),
}

impl Command {
    /// Whether it writes what the server must be able to add to, and so is run by the owner of the data directory.
    fn writes_as_owner(&self) -> bool {
        match self {
            Self::Init(_) | Self::Check(_) | Self::ArchivePush(_) | Self::Backup(_) | Self::Adopt(_) => true,
            Self::ArchiveGet(_)
            | Self::List(_)
            | Self::Restore(_)
            | Self::Demo(_)
            | Self::ConfigReference(_) => false,
        }
    }
}

/// Runs one subcommand to its end.
pub fn run(context: &Context, command: Command) -> anyhow::Result<Exit> {
    if command.writes_as_owner()
        && let Some(owner) = owner::other_owner(context.config()?)?
    {
        if let Some(file) = &context.config()?.file {
            owner.must_read(file)?;
        }
        if let Command::Init(args) = &command {
            on_this_thread(async {
                init::prepare_as_root(context, args, &owner).await?;
                Ok(Exit::Done)
            })?;
        }
        return Err(owner.run_again());
    }
    match command {
        Command::Init(args) => on_all_threads(init::run(context, args)),
        Command::Check(args) => on_all_threads(check::run(context, args)),
        Command::ArchivePush(args) => on_this_thread(archive_push::run(context, args)),
        Command::ArchiveGet(args) => on_this_thread(archive_get::run(context, args)),
        Command::Backup(args) => on_all_threads(backup::run(context, args)),
        Command::List(args) => on_all_threads(list::run(context, args)),
        Command::Restore(args) => on_all_threads(restore::run(context, *args)),
        Command::Adopt(args) => on_all_threads(adopt::run(context, args)),
        Command::Demo(args) => on_all_threads(demo::run(context, args)),
        Command::ConfigReference(args) => config_reference::run(context, args),
    }
}

/// How long a call of the operating system, on a mount that hangs for one, may keep a command that has ended.
const LEFT_TO_CALLS: Duration = Duration::from_secs(2);

/// For commands that move much data.
fn on_all_threads(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start threads")?;
    let ended = runtime.block_on(command);
    runtime.shutdown_timeout(LEFT_TO_CALLS);
    ended
}

/// For commands that PostgreSQL starts once a segment, whose start must cost nothing.
fn on_this_thread(command: impl Future<Output = anyhow::Result<Exit>>) -> anyhow::Result<Exit> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let ended = runtime.block_on(command);
    // A call of the operating system that does not come back, on a mount that hangs, must not keep an answer from PostgreSQL.
    runtime.shutdown_background();
    ended
}
