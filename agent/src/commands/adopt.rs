//! `highwater adopt`: a restored copy becomes the cluster.
//!
//! A copy is kept from archiving until this has decided where its WAL may go (I1): on with the lineage it came from, or into a
//! new one beside it. Then the host state is written, the timeline claimed and its history archived (PostgreSQL wrote it while
//! archiving was off), and the settings that kept the copy apart are taken out.

use std::path::Path;

use anyhow::Context as _;
use highwater_archive::lineage::{Lineage, LineageRecord};
use highwater_archive::names::{self, LineageId, WriterId};
use highwater_archive::seal::Codec;
use highwater_archive::wal::{
    PreparedSegment, claim_timeline, get, list_segments, list_timelines, put_small, read_claim,
};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::WalFile;
use highwater_pitr::timeline::TimelineId;
use serde_json::json;

use crate::config::Config;
use crate::context::Context;
use crate::exit::Exit;
use crate::host_state::HostState;
use crate::pg::data_dir;
use crate::report;
use crate::repositories::OpenRepository;
use crate::setup::adoption::{Evidence, Obstacle, Position, Wish, decide};
use crate::setup::copy::{self, Promoted};
use crate::setup::lineage::{self, Identity};
use crate::setup::postgresql::settings_lines;

/// What the copy is to become.
#[derive(clap::Args)]
pub struct Args {
    /// Open a new lineage, whoever else writes the old one, which stays restorable
    #[arg(long, conflicts_with = "continue_lineage")]
    pub new_lineage: bool,
    /// Go on with the old lineage, because the server that wrote it is gone for good (needs --yes)
    #[arg(long)]
    pub continue_lineage: bool,
    /// The lineage the copy came from, where that cannot be told
    #[arg(long, value_name = "ID")]
    pub lineage: Option<LineageId>,
    /// Do not ask back
    #[arg(long)]
    pub yes: bool,
}

/// Why a lineage was begun, as its record says.
const REASON: &str = "adopt";

/// What was decided, and done.
struct Adopted<'a> {
    data_dir: &'a Path,
    state: HostState,
    is_new: bool,
    was_isolated: bool,
    /// Anything was written: false where the directory wrote this lineage already, and was no copy.
    changed: bool,
}

/// Decides, writes the host state, and says how to switch archiving on.
pub async fn run(context: &Context, args: Args) -> anyhow::Result<Exit> {
    let config = context.config()?;
    let data_dir = config.data_dir()?;
    if args.continue_lineage && !args.yes {
        return Err(report::refused(
            "to go on with the lineage is safe only if no other server will ever write it again",
            "if the server that wrote it is gone for good, run again with --yes; else use --new-lineage",
        ));
    }
    let control = data_dir::read_control(data_dir)?;
    let major = data_dir::major(data_dir, &control)?;
    let promoted = copy::promoted(data_dir, &control)?;
    let identity = Identity { control, major };
    let state = HostState::read(data_dir)?;

    // They are only opened: a repository that is not there is one that is not mounted.
    let mut repositories = Vec::new();
    for one in &config.repositories {
        repositories.push(OpenRepository::open_for(one, &config.cluster, state.as_ref(), Vec::new()).await?);
    }
    // Where this is a copy with its original's state, its own is another.
    let found = state;
    let state = found.as_ref().map(|state| state.here(data_dir)).transpose()?;
    let origin = origin(&repositories, &identity, state.as_ref(), config, &args).await?;
    let begun = begun(&repositories, &origin, state.as_ref()).await?;
    let (record, writer, is_new) = match origin {
        Some(origin) if args.new_lineage && begun.is_some() => {
            (origin, begun.map_or_else(WriterId::random, Ok)?, true)
        }
        Some(origin) if !args.new_lineage => {
            let writer =
                continued(&repositories, &origin, &promoted, state.as_ref(), (&args, data_dir)).await?;
            (origin, writer, false)
        }
        parent => (successor(&identity, parent, &promoted, context)?, WriterId::random()?, true),
    };
    lineage::write(&repositories, &record).await?;
    let mut decided = lineage::host_state(&repositories, &record, writer);
    if let Some(same) = state.filter(|state| (state.lineage, state.writer) == (record.lineage, writer)) {
        // What was written under them is this directory's past all the same.
        (decided.earlier_writers, decided.home) = (same.earlier_writers, same.home);
    }
    let mut changed = is_new || found.as_ref() != Some(&decided);
    // Before the claim: cut off in between, the next adopt must find itself in it, and not another writer.
    if changed {
        decided.write(data_dir)?;
    }
    changed |= claim(&repositories, &decided, &promoted).await?;
    let was_isolated = copy::end_isolation(data_dir)?;
    changed |= copy::end_recovery(data_dir)? || was_isolated;
    say(context, config, &Adopted { data_dir, state: decided, is_new, was_isolated, changed })?;
    Ok(Exit::Done)
}

/// The lineage that the copy came from: named, on the host, in the plan of its restore, or the only one of this cluster.
async fn origin(
    repositories: &[OpenRepository],
    identity: &Identity,
    state: Option<&HostState>,
    config: &Config,
    args: &Args,
) -> anyhow::Result<Option<LineageRecord>> {
    let lineages = lineage::all_lineages(repositories).await?;
    let ours = identity.control.system_identifier;
    let named = match args.lineage {
        Some(id) => Some(id),
        // The state is never restored, so it is younger than any plan.
        None => match state {
            Some(state) => Some(state.lineage),
            None => copy::origin(config.data_dir()?)?,
        },
    };
    if let Some(id) = named {
        let found =
            lineages.iter().find(|lineage| lineage.id() == id).map(|lineage| lineage.record().clone());
        return match found {
            Some(record) if record.system_identifier == ours => Ok(Some(record)),
            // After pg_upgrade the old lineage is the parent's, and of another system identifier.
            Some(_) | None if args.new_lineage => Ok(None),
            Some(record) => Err(report::refused(
                format!(
                    "lineage {id} is of system identifier {}, and this data directory is {ours}",
                    record.system_identifier
                ),
                "after pg_upgrade or a new initdb, run: highwater adopt --new-lineage",
            )),
            None => Err(report::refused(
                format!("the copy came from lineage {id}, which no configured repository holds"),
                "configure the repository it was restored from, or open a new lineage with --new-lineage",
            )),
        };
    }
    let mut same: Vec<LineageRecord> = Vec::new();
    for lineage in lineages.iter().filter(|lineage| lineage.record().system_identifier == ours) {
        if !same.iter().any(|known| known.lineage == lineage.id()) && !lineage.is_closed().await? {
            same.push(lineage.record().clone());
        }
    }
    match same.as_slice() {
        [] if args.new_lineage => Ok(None),
        [] => Err(report::refused(
            format!("no lineage of system identifier {ours} is open in any configured repository"),
            "open one with: highwater adopt --new-lineage",
        )),
        [only] => Ok(Some(only.clone())),
        several => {
            let ids: Vec<String> = several.iter().map(|record| record.lineage.to_string()).collect();
            Err(report::usage_error(
                format!("several lineages have this system identifier: {}", ids.join(", ")),
                "name the one this copy came from with --lineage ID",
            ))
        }
    }
}

/// Our writer id in a lineage that an earlier call has begun, without coming to its end: nothing has been archived in it.
async fn begun(
    repositories: &[OpenRepository],
    origin: &Option<LineageRecord>,
    state: Option<&HostState>,
) -> anyhow::Result<Option<WriterId>> {
    let (Some(origin), Some(state)) = (origin, state) else { return Ok(None) };
    if origin.lineage != state.lineage || origin.reason != REASON {
        return Ok(None);
    }
    for lineage in lineage::all_lineages(repositories).await?.iter().filter(|one| one.id() == state.lineage) {
        if lineage.is_closed().await? || !lineage.list(names::BACKUPS).await?.is_empty() {
            return Ok(None);
        }
        for timeline in list_timelines(lineage).await? {
            let other =
                read_claim(lineage, timeline).await?.is_some_and(|claim| claim.writer != state.writer);
            if other || !list_segments(lineage, timeline).await?.is_empty() {
                return Ok(None);
            }
        }
    }
    Ok(Some(state.writer))
}

/// Decides whether the copy may go on, and as which writer.
async fn continued(
    repositories: &[OpenRepository],
    origin: &LineageRecord,
    promoted: &Promoted,
    state: Option<&HostState>,
    (args, data_dir): (&Args, &Path),
) -> anyhow::Result<WriterId> {
    let mut evidence = Vec::new();
    for repository in repositories {
        match repository.cluster.lineage(origin.lineage).await {
            Ok(lineage) => evidence.push(look(&lineage, promoted, data_dir).await?),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error).with_context(|| format!("repository {}", repository.name)),
        }
    }
    let own = state.filter(|state| state.lineage == origin.lineage).map(|state| state.writer);
    let wish = if args.continue_lineage { Wish::Continue } else { Wish::Decide };
    let writer = decide(promoted.position, &evidence, wish, own).map_err(|obstacle| {
        let hint = match obstacle {
            Obstacle::OtherContent { .. } | Obstacle::Closed => {
                "open a new lineage with --new-lineage (the old one stays restorable)"
            }
            Obstacle::TimelineTaken { .. }
            | Obstacle::LaterTimeline { .. }
            | Obstacle::WrittenBeyondFork { .. } => {
                "open a new lineage with --new-lineage (the old one stays restorable); or, if the server that wrote it is gone \
                 for good, take it over with --continue-lineage --yes"
            }
        };
        report::refused(
            format!("{} may not go on with lineage {}: {obstacle}", data_dir.display(), origin.lineage),
            hint,
        )
    })?;
    Ok(match writer {
        Some(writer) => writer,
        None => WriterId::random()?,
    })
}

/// What a repository holds that tells whether anyone else has gone on.
async fn look(lineage: &Lineage, promoted: &Promoted, data_dir: &Path) -> anyhow::Result<Evidence> {
    let position = promoted.position;
    let mut evidence = Evidence { closed: lineage.is_closed().await?, ..Evidence::default() };
    let claim = read_claim(lineage, position.timeline).await?;
    evidence.claimed_by = claim.as_ref().map(|claim| claim.writer);
    if let (Some(claim), Some((parent, fork))) = (claim, position.fork)
        && (claim.parent, claim.fork_lsn) != (Some(parent), fork)
    {
        evidence.other_content = Some(WalFile::History(position.timeline));
    }
    if evidence.other_content.is_none() {
        evidence.other_content = other_content(lineage, position.timeline, data_dir).await?;
    }
    for timeline in list_timelines(lineage).await? {
        if timeline > position.timeline {
            evidence.later_timelines.push(timeline);
        }
    }
    if let Some((parent, fork)) = position.fork {
        let size = lineage.record().wal_segment_bytes;
        let last = list_segments(lineage, parent).await?.pop();
        evidence.beyond_fork = last.filter(|segment| segment.end(size) > fork);
    }
    Ok(evidence)
}

/// The first archived segment of the copy's timeline that differs from the one in its own `pg_wal`, or that lies beyond all of those:
/// two restores to one target choose the same number and fork at the same place, and only their WAL tells them apart.
async fn other_content(
    lineage: &Lineage,
    timeline: TimelineId,
    data_dir: &Path,
) -> anyhow::Result<Option<WalFile>> {
    let pg_wal = data_dir.join("pg_wal");
    let archived = list_segments(lineage, timeline).await?;
    let mut newest_here = None;
    for entry in std::fs::read_dir(&pg_wal).with_context(|| format!("cannot list {}", pg_wal.display()))? {
        let name = entry.with_context(|| format!("cannot list {}", pg_wal.display()))?.file_name();
        if let Some(Ok(WalFile::Segment(found))) = name.to_str().map(str::parse)
            && found.timeline == timeline
        {
            newest_here = newest_here.max(Some(found));
        }
    }
    for segment in archived {
        let file = WalFile::Segment(segment);
        let path = pg_wal.join(file.to_string());
        if !path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
            // What was recycled here was ours; what never was here is not.
            if Some(segment) > newest_here {
                return Ok(Some(file));
            }
            continue;
        }
        let bytes = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let here = PreparedSegment::new(lineage, file, bytes, Codec::None).map(|here| here.content());
        let there = match get(lineage, &file).await? {
            Some(bytes) => PreparedSegment::new(lineage, file, bytes, Codec::None)?.content(),
            None => continue,
        };
        // One that cannot be read as this timeline's is recycled for later use, and not written yet.
        if here.is_ok_and(|here| here.digest != there.digest) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

/// The record of a new lineage.
fn successor(
    identity: &Identity,
    parent: Option<LineageRecord>,
    promoted: &Promoted,
    context: &Context,
) -> anyhow::Result<LineageRecord> {
    let record = lineage::begin(identity, LineageId::random()?, context.clock.now());
    Ok(match parent {
        None => LineageRecord { reason: REASON.to_owned(), ..record },
        Some(parent) => LineageRecord {
            parent: Some(parent.lineage),
            parent_timeline: promoted.position.fork.map(|(timeline, _)| timeline),
            fork_lsn: promoted.position.fork.map(|(_, lsn)| lsn),
            reason: REASON.to_owned(),
            ..record
        },
    })
}

/// Claims the timeline and archives its history, which PostgreSQL wrote while archiving was off. True where a claim was made.
async fn claim(
    repositories: &[OpenRepository],
    state: &HostState,
    promoted: &Promoted,
) -> anyhow::Result<bool> {
    let mut made = false;
    let Position { timeline, fork } = promoted.position;
    let (parent, fork) = fork.unzip();
    for repository in repositories {
        let claim = async {
            let lineage = repository.cluster.lineage(state.lineage).await?;
            // Whoever takes a timeline over finds its claim as it was made.
            let is_ours =
                read_claim(&lineage, timeline).await?.is_some_and(|claim| claim.writer == state.writer);
            if !is_ours {
                claim_timeline(&lineage, state.writer, timeline, parent, fork.unwrap_or(Lsn::INVALID))
                    .await?;
            }
            if let Some((file, bytes)) = &promoted.history {
                put_small(&lineage, *file, bytes).await?;
            }
            anyhow::Ok(!is_ours)
        };
        made |= claim.await.with_context(|| format!("repository {}", repository.name))?;
    }
    Ok(made)
}

fn say(context: &Context, config: &Config, adopted: &Adopted<'_>) -> anyhow::Result<()> {
    let Adopted { data_dir, state, is_new, was_isolated, changed } = adopted;
    let lines = settings_lines(config, &std::env::current_exe()?);
    let result = json!({
        "version": 1,
        "data_dir": data_dir,
        "cluster": state.cluster,
        "lineage": state.lineage.to_string(),
        "new_lineage": is_new,
        "isolation_ended": was_isolated,
        "changed": changed,
        "postgresql_conf": lines,
    });
    let (data_dir, cluster, lineage) = (data_dir.display(), &state.cluster, state.lineage);
    if !changed {
        let text = format!(
            "{data_dir} is already cluster {cluster} and writes lineage {lineage}; nothing was changed (to adopt a restored copy, \
             set cluster.data_dir to its directory)."
        );
        context.print(text, &result);
        return Ok(());
    }
    let how = if *is_new { "opens the new lineage" } else { "goes on with lineage" };
    let mut text = format!("{data_dir} is cluster {cluster} now and {how} {lineage}.\n");
    if *was_isolated {
        text.push_str("The settings that kept the copy apart were taken out of its postgresql.auto.conf.\n");
    }
    text.push_str("\nIn its postgresql.conf, in place of what is there:\n\n");
    for line in &lines {
        text.push_str(&format!("    {line}\n"));
    }
    let arguments = config.arguments();
    text.push_str(&format!(
        "\nThen restart that server, run: highwater {arguments} check\nand take a backup, since WAL was not archived until now: highwater {arguments} backup"
    ));
    context.print(text, &result);
    Ok(())
}
