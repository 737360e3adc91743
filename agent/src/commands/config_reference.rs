//! `highwater config-reference`: docs/configuration.md from the table of options.

use crate::config;
use crate::context::Context;
use crate::exit::Exit;
use crate::report;

/// It takes nothing.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the reference.
pub fn run(_context: &Context, _args: Args) -> anyhow::Result<Exit> {
    report::result(config::reference().trim_end());
    Ok(Exit::Done)
}
