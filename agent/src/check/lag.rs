//! What one repository lacks of the WAL that another holds.
//!
//! `archive-push` is done when `wal.required_repositories` hold a file, and nobody brings it to the others later: PostgreSQL keeps it
//! no more. So what a repository missed while it was away is a gap in it for good, told here by name. It does harm from where the repository's
//! newest backup begins, or without one from its first segment: what is older, or of a timeline that was left behind, is made good by that backup, and only noted.
//!
//! WAL arrives meanwhile. The newest segment of a timeline may be on its way everywhere, and is left out; where anything seems to be missing, the
//! repository is listed once more, after all others were.

use std::collections::BTreeSet;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{list_backups, read_manifest};
use highwater_archive::wal::{list_segments, list_timelines};
use highwater_pitr::segment::SegmentName;

use super::Findings;
use crate::repositories::attended;

/// How many runs of missing segments are named.
const RUNS_NAMED: usize = 3;

type Segments = BTreeSet<SegmentName>;

/// Compares the repositories that can be used with each other.
pub async fn check(lineages: &[(String, Lineage)], findings: &mut Findings) {
    if lineages.len() < 2 {
        return;
    }
    let mut held = Vec::new();
    let listing = lineages.iter().map(|(_, lineage)| attended(lineage.repository(), list(lineage)));
    let listed = futures::future::join_all(listing).await;
    for ((name, lineage), listed) in lineages.iter().zip(listed) {
        match listed {
            Ok(segments) => held.push((name, lineage, segments)),
            Err(error) => findings.error(what(name), error),
        }
    }
    let settled = settled(held.iter().flat_map(|(_, _, segments)| segments));
    for (name, lineage, segments) in &held {
        let missing = missing(lineage, segments, &settled);
        match attended(lineage.repository(), missing).await {
            Ok(Missing { harmful, .. }) if harmful.is_empty() && segments.is_empty() => findings.note(
                what(name),
                format!("it holds none yet; its first backup makes it useful: highwater backup --repository {name}"),
            ),
            Ok(Missing { harmful, older }) if harmful.is_empty() => {
                findings.ok(what(name), "holds what the other repositories hold");
                if !older.is_empty() {
                    let older = runs(lineage, &older);
                    findings.note(what(name), format!("from before its newest backup it lacks {older}"));
                }
            }
            Ok(Missing { harmful, .. }) => findings.failed(
                what(name),
                format!("it lacks {}, which another repository holds", runs(lineage, &harmful)),
                format!(
                    "archive-push went on without it, as wal.required_repositories allows. A restore reads all repositories and has \
                     them; for this one to be enough by itself again: highwater backup --repository {name}"
                ),
            ),
            Err(error) => findings.error(what(name), error),
        }
    }
}

fn what(repository: &str) -> String {
    format!("WAL of {repository}")
}

async fn list(lineage: &Lineage) -> anyhow::Result<Segments> {
    let mut segments = Segments::new();
    for timeline in list_timelines(lineage).await? {
        segments.extend(list_segments(lineage, timeline).await?);
    }
    Ok(segments)
}

/// All but the newest of each timeline.
fn settled<'a>(all: impl Iterator<Item = &'a SegmentName>) -> Segments {
    let all: Segments = all.copied().collect();
    let followed = all.iter().zip(all.iter().skip(1)).filter(|(one, next)| one.timeline == next.timeline);
    followed.map(|(one, _)| *one).collect()
}

/// What a repository lacks.
struct Missing {
    /// Of what follows its newest backup.
    harmful: Segments,
    /// Of what came before.
    older: Segments,
}

async fn missing(lineage: &Lineage, seen: &Segments, settled: &Segments) -> anyhow::Result<Missing> {
    let mut missing: Segments = settled.difference(seen).copied().collect();
    if !missing.is_empty() {
        let now = list(lineage).await?;
        missing.retain(|segment| !now.contains(segment));
    }
    let (mut harmful, mut older) = (missing, Segments::new());
    if harmful.is_empty() {
        return Ok(Missing { harmful, older });
    }
    let size = lineage.record().wal_segment_bytes;
    match begin(lineage, seen).await? {
        None => older.append(&mut harmful),
        Some(begin) => {
            let is_older = |segment: &SegmentName| {
                segment.timeline < begin.timeline || segment.number(size) < begin.number(size)
            };
            (older, harmful) = harmful.into_iter().partition(is_older);
        }
    }
    Ok(Missing { harmful, older })
}

/// From where its WAL is needed; none where it is new, and nothing is yet.
async fn begin(lineage: &Lineage, seen: &Segments) -> anyhow::Result<Option<SegmentName>> {
    match list_backups(lineage).await?.complete.last() {
        Some(newest) => Ok(Some(read_manifest(lineage, newest).await?.wal.first_segment)),
        None => Ok(seen.first().copied()),
    }
}

/// Segments in words: how many, and the first of the runs that they make.
fn runs(lineage: &Lineage, segments: &Segments) -> String {
    let size = lineage.record().wal_segment_bytes;
    let mut runs: Vec<(SegmentName, SegmentName)> = Vec::new();
    for segment in segments {
        match runs.last_mut() {
            Some((_, last))
                if last.timeline == segment.timeline && last.number(size) + 1 == segment.number(size) =>
            {
                *last = *segment;
            }
            _ => runs.push((*segment, *segment)),
        }
    }
    let named = runs.iter().take(RUNS_NAMED).map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first} to {last}"),
    });
    let named: Vec<String> = named.collect();
    let more = if runs.len() > RUNS_NAMED { ", and more" } else { "" };
    let count = match segments.len() {
        1 => "1 segment".to_owned(),
        several => format!("{several} segments"),
    };
    format!("{count} ({}{more})", named.join(", "))
}
