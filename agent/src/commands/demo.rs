//! `highwater demo`: the whole story on a throwaway cluster, in a minute.

use std::path::PathBuf;

use crate::context::Context;
use crate::demo;
use crate::exit::Exit;
use crate::report;

/// Where it happens.
#[derive(clap::Args)]
pub struct Args {
    /// The bin directory of the PostgreSQL to use (default: the newest supported one on this machine)
    #[arg(long, value_name = "DIR")]
    pub postgres_bin: Option<PathBuf>,
    /// Where the demo's own directory is made
    #[arg(long, value_name = "DIR", default_value = "/tmp")]
    pub directory: PathBuf,
    /// Leave everything behind, to look at
    #[arg(long)]
    pub keep: bool,
}

/// Tells the story; an error at any step, or a row too many or too few at its end, is the command's.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let options = demo::Options {
        postgres_bin: args.postgres_bin,
        parent: args.directory,
        keep: args.keep,
        quiet: context.json,
    };
    let measured = demo::tell(&options).await?;
    if context.json {
        report::result(&measured.to_string());
    }
    Ok(Exit::Done)
}
