//! `highwater archive-push %p`.

use std::path::PathBuf;

use crate::context::Context;
use crate::exit::Exit;
use crate::report;

/// The arguments.
#[derive(clap::Args)]
pub struct Args {
    /// The file to archive: PostgreSQL's %p
    #[arg(value_name = "%p")]
    pub path: PathBuf,
}

/// Runs it.
pub async fn run(_context: &Context, _args: Args) -> anyhow::Result<Exit> {
    Err(report::failed("not available", "this build lacks it"))
}
