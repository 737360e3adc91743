//! The `highwater` command, on one page: read the arguments, run one subcommand, report, exit.
//!
//! What a subcommand does lies in `commands/<name>.rs`. What they share: `config` (file, environment, flags), `context`
//! (configuration, clock and output), `repositories` (opened, and compared with what was pinned), `host_state` (which lineage
//! this data directory writes), `silence` (which repository has not answered), `pg` (SQL), `push` (one file of WAL into every repository), `progress`, `report` (errors with
//! hints) and `exit` (the table of exit codes).

mod backup;
mod check;
mod commands;
mod config;
mod console;
mod context;
mod demo;
mod exit;
mod host_state;
mod owner;
mod pg;
mod progress;
mod push;
mod report;
mod repositories;
mod setup;
mod silence;

use clap::{CommandFactory as _, Parser as _};

/// PostgreSQL backed up continuously, and brought back to any moment.
#[derive(clap::Parser)]
#[command(name = "highwater", version, about, after_help = exit::help(), max_term_width = 110)]
struct Cli {
    #[command(flatten)]
    global: context::GlobalArgs,
    #[command(subcommand)]
    command: commands::Command,
}

fn main() -> std::process::ExitCode {
    let caller = exit::Caller::from_arguments(&Cli::command(), std::env::args_os());
    let json = exit::wants_json(std::env::args_os());
    report::exit_on_panic(json, caller);
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(problem) => return report::usage(&problem, json, caller),
    };
    let json = cli.global.json;
    report::start_log(cli.global.verbose, caller);
    let outcome = commands::run(&context::Context::new(cli.global), cli.command);
    config::end_commands();
    report::finish(outcome, json, caller)
}
