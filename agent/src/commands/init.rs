//! `highwater init`: create the repository and its keyring, bind the data directory to a lineage, and say what to keep in a vault
//! and what to tell PostgreSQL. Works without a running server, and is safe to run again.

use std::fmt::Write as _;

use highwater_archive::keyring::{KitFacts, recovery_kit};
use serde_json::json;

use crate::config::{Config, KeySource};
use crate::context::Context;
use crate::exit::Exit;
use crate::host_state::{HostState, PinnedRepository};
use crate::owner::Owner;
use crate::pg::data_dir;
use crate::report;
use crate::repositories;
use crate::setup::lineage::{self, Identity};
use crate::setup::postgresql::settings_lines;
use crate::setup::repository::{self, Ready};

/// What has changed on purpose.
#[derive(clap::Args)]
pub struct Args {
    /// A new repository is in the place of this one, or is to be made there: the old one was lost, or left for good
    #[arg(long, value_name = "NAME")]
    pub replace_repository: Vec<String>,
}

impl Args {
    /// What a repository of this name must be, where this host has been set up with it before.
    fn pinned<'a>(&self, state: Option<&'a HostState>, name: &str) -> Option<&'a PinnedRepository> {
        let replaced = self.replace_repository.iter().any(|replaced| replaced == name);
        state.filter(|_| !replaced).and_then(|state| state.repositories.get(name))
    }
}

/// The only block size that PostgreSQL's packages are built with, and that is tested.
const BLOCK_BYTES: u32 = 8192;

/// What root does before the owner of the data directory goes on.
pub async fn prepare_as_root(context: &Context, args: &Args, owner: &Owner) -> anyhow::Result<()> {
    let config = context.config()?;
    let state = HostState::read(config.data_dir()?)?;
    for one in &config.repositories {
        let pinned = args.pinned(state.as_ref(), &one.name);
        repository::prepare_as_root(one, &config.cluster, pinned, owner, &*context.clock).await?;
    }
    Ok(())
}

/// Makes everything ready, or finds it so.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let data_dir = config.data_dir()?;
    let control = data_dir::read_control(data_dir)?;
    let major = data_dir::major(data_dir, &control)?;
    if control.block_size != BLOCK_BYTES || control.wal_block_size != BLOCK_BYTES {
        return Err(report::refused(
            format!(
                "the cluster has blocks of {} bytes and WAL blocks of {}",
                control.block_size, control.wal_block_size
            ),
            "only PostgreSQL's default of 8192 bytes is supported",
        ));
    }
    let identity = Identity { control, major };
    let state = HostState::read(data_dir)?;
    let already = state.is_some();
    for name in &args.replace_repository {
        repositories::choose(config, Some(name))?;
    }
    if let Some(state) = &state {
        lineage::check_state(state, &config.cluster, &identity)?;
    }
    let mut ready = Vec::new();
    for one in &config.repositories {
        let pinned = args.pinned(state.as_ref(), &one.name);
        ready.push(repository::prepare(one, &config.cluster, pinned, &*context.clock).await?);
    }
    let open: Vec<_> = ready.iter().map(|one| one.repository.clone()).collect();
    let state = lineage::claim(&open, &identity, state, context.clock.now()).await?;
    state.write(data_dir)?;
    let program = std::env::current_exe()?;
    let lines = settings_lines(config, &program);
    let kits = kits(context, config, &ready)?;
    let said = human(config, &state, &ready, &kits, &lines, already);
    let repositories: Vec<_> = ready
        .iter()
        .zip(&kits)
        .map(|(one, kit)| {
            json!({
                "name": one.repository.name,
                "url": one.repository.cluster.repository().store().describe(),
                "created": one.is_new,
                "keyring_created": one.keyring_is_new,
                "fingerprint": one.repository.cluster.keys().fingerprint().to_string(),
                "recovery_kit": kit,
            })
        })
        .collect();
    let result = json!({
        "version": 1,
        "cluster": state.cluster,
        "lineage": state.lineage.to_string(),
        "system_identifier": state.system_identifier.to_string(),
        "postgresql": identity.major.number(),
        "repositories": repositories,
        "postgresql_conf": lines,
    });
    context.print(said, &result);
    Ok(Exit::Done)
}

/// The recovery kit of each repository: its keyring is its own.
fn kits(context: &Context, config: &Config, ready: &[Ready]) -> anyhow::Result<Vec<String>> {
    let mut kits = Vec::new();
    for (one, repository) in ready.iter().zip(&config.repositories) {
        let key_file = match &repository.key {
            KeySource::File(path) => path.display().to_string(),
            KeySource::Environment(_) => "the environment's key".to_owned(),
            KeySource::Command(command) => format!("the output of {command}"),
        };
        let facts = KitFacts {
            cluster: config.cluster.as_str(),
            repositories: &[one.repository.cluster.repository().store().describe()],
            key_file: &key_file,
            created_at: context.clock.now(),
        };
        kits.push(recovery_kit(one.repository.cluster.keys(), &one.unlock.recipients()?, &facts)?);
    }
    Ok(kits)
}

fn human(
    config: &Config,
    state: &HostState,
    ready: &[Ready],
    kits: &[String],
    lines: &[String],
    already: bool,
) -> String {
    let mut text = String::new();
    let how = if already { "is set up, as it was before" } else { "is set up" };
    // Writing to a String cannot fail.
    let mut say =
        |line: std::fmt::Arguments<'_>| text.write_fmt(line).and_then(|()| text.write_char('\n')).is_ok();
    say(format_args!("Cluster {} {how}.", state.cluster));
    say(format_args!("  system identifier  {}", state.system_identifier));
    say(format_args!("  lineage            {}", state.lineage));
    for (one, repository) in ready.iter().zip(&config.repositories) {
        let made = if one.is_new { "created now" } else { "was there" };
        let store = one.repository.cluster.repository().store().describe();
        say(format_args!("Repository {}: {store} ({made})", one.repository.name));
        if let KeySource::File(path) = &repository.key {
            say(format_args!("  key file           {}", path.display()));
        }
        say(format_args!("  fingerprint        {}", one.repository.cluster.keys().fingerprint()));
    }
    say(format_args!(
        "\nPut the key and this recovery kit in a vault, away from this host and from the repository:\n"
    ));
    for kit in kits {
        say(format_args!("{kit}"));
    }
    say(format_args!("In postgresql.conf (archive_mode needs a restart of the server):\n"));
    for line in lines {
        say(format_args!("    {line}"));
    }
    say(format_args!("\nThen run: highwater {} check", config.arguments()));
    text
}
