//! `highwater config-reference`: docs/configuration.md from the table of options.

use crate::config;
use crate::context::Context;
use crate::exit::Exit;

/// It takes nothing.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the reference.
pub fn run(_context: &Context, _args: Args) -> anyhow::Result<Exit> {
    print!("{}", config::reference());
    Ok(Exit::Done)
}
