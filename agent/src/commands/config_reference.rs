//! `highwater config-reference`: docs/configuration.md from the table of options.

use crate::config;
use crate::context::Context;
use crate::exit::Exit;

/// It takes nothing.
#[derive(clap::Args)]
pub struct Args {}

/// Prints the reference.
pub fn run(context: &Context, _args: Args) -> anyhow::Result<Exit> {
    let options = serde_json::json!({ "version": 1, "options": config::described() });
    context.print(config::reference().trim_end(), &options);
    Ok(Exit::Done)
}
