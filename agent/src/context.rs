//! What every command works with: the configuration, the clock, and how output is wanted.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::OnceLock;

use anyhow::Context as _;
use highwater_archive::clock::{Clock, SystemClock};

use crate::config::{self, Config, Selection};
use crate::progress::Progress;
use crate::report;

/// Flags that every command takes.
#[derive(clap::Args, Clone, Debug)]
pub struct GlobalArgs {
    /// The configuration file, instead of /etc/highwater/NAME.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The cluster, where several are configured
    #[arg(long, global = true, value_name = "NAME")]
    pub cluster: Option<String>,
    /// Set an option over file and environment, such as wal.push_deadline=30s (repeatable)
    #[arg(short = 'c', long, global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Print the result, or the error, as one JSON object on standard output
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more on standard error (-vv: even more)
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// Everything a command shares with the others.
pub struct Context {
    selection: Selection,
    config: OnceLock<Config>,
    /// Print JSON on standard output.
    pub json: bool,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

impl Context {
    /// A context for these flags. The configuration is read when it is first asked for, since not every command needs one.
    pub fn new(global: GlobalArgs) -> Self {
        let GlobalArgs { config, cluster, set, json, verbose: _ } = global;
        let selection = Selection { file: config, cluster, set };
        Self { selection, config: OnceLock::new(), json, clock: Arc::new(SystemClock) }
    }

    /// The cluster that `--cluster` names, which a command without a configuration needs too.
    pub fn asked_cluster(&self) -> Option<&str> {
        self.selection.cluster.as_deref()
    }

    /// The configuration.
    ///
    /// # Errors
    ///
    /// [`config::ConfigError`], which exits as a usage error.
    pub fn config(&self) -> anyhow::Result<&Config> {
        if self.config.get().is_none() {
            let loaded = config::load(&self.selection)?;
            // Two threads that read it at once have read the same.
            self.config.get_or_init(|| loaded);
        }
        self.config.get().context("the configuration was not kept")
    }

    /// Shows the progress of a transfer of `total` bytes (0 where not known yet) on standard error.
    pub fn progress(&self, what: impl Into<String>, total: u64) -> Progress {
        Progress::start(what, total, self.json)
    }

    /// Prints a command's result: `human` as it is, or `json` with `--json`.
    pub fn print(&self, human: impl std::fmt::Display, json: &serde_json::Value) {
        if self.json { report::result(&json.to_string()) } else { report::result(&human.to_string()) }
    }
}
