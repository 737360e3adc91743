//! `highwater check`: prove the set-up.

use std::time::Duration;

use crate::check;
use crate::context::Context;
use crate::exit::Exit;

/// How patient to be.
#[derive(clap::Args)]
pub struct Args {
    /// How many seconds PostgreSQL's archiver may take for one segment
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
}

/// Checks everything, and prints every line even where one failed.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let findings = check::run(context, Duration::from_secs(args.timeout)).await?;
    context.print(&findings, &findings.json());
    Ok(if findings.all_well() { Exit::Done } else { Exit::Unsound })
}
