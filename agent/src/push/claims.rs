//! Whose timeline a file of WAL lies on (I1).
//!
//! The first object of a timeline is the claim of the data directory that writes it. A file of a timeline that another writer
//! has claimed is accepted only where it lies before the point at which our own history left that timeline: that is what a
//! promoted standby still has of its parent, and it is the parent's WAL, which the comparison of contents holds it to. A claim
//! once made is noted on the host, so that the next segment does not ask again.
//!
//! Two data directories may have one writer id: copies by means that keep even a directory's identity, as snapshots of disks do. They
//! are told apart by what they write. A claim of ours holds our timeline only where it forked as ours did; a timeline that we left
//! by a claim of ours is not written beyond that fork, and one that we wrote is not left before the end of what we wrote.

use std::path::Path;

use anyhow::Context as _;
use highwater_archive::durable;
use highwater_archive::lineage::Lineage;
use highwater_archive::names::{self, ClusterName, LineageId, WriterId};
use highwater_archive::wal::{Claim, ClaimError, claim_timeline, list_segments, read_claim};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::WalFile;
use highwater_pitr::timeline::{TimelineHistory, TimelineId};

use crate::host_state::{self, HostState};
use crate::pg::history;
use crate::report;

/// What the files beside it say about the timeline of a file.
pub struct Origin {
    timeline: TimelineId,
    /// Where it forked from its parent; none for a first timeline.
    fork: Option<(TimelineId, Lsn)>,
    /// The newest history in the same directory.
    newest: Option<TimelineHistory>,
}

impl Origin {
    /// Looks at the file and at the histories beside it.
    ///
    /// # Errors
    ///
    /// A history that cannot be read or parsed.
    pub fn read(path: &Path, file: WalFile, bytes: &[u8]) -> anyhow::Result<Self> {
        let timeline = file.timeline();
        let directory = path.parent().unwrap_or(Path::new("."));
        let own = match file {
            WalFile::History(_) => {
                Some(TimelineHistory::parse(timeline, bytes).context("it is no timeline history")?)
            }
            WalFile::Segment(_) | WalFile::Partial(_) | WalFile::Backup { .. } => {
                history::read(directory, timeline)?.map(|(history, _)| history)
            }
        };
        let fork = own.as_ref().and_then(|own| own.ancestors.last()).map(|last| (last.timeline, last.switch));
        let newest = match history::newest(directory)? {
            Some(newest) if newest > timeline => {
                history::read(directory, newest)?.map(|(history, _)| history)
            }
            _ => None,
        };
        Ok(Self { timeline, fork, newest })
    }

    /// Whether a claim is of a timeline that forked as this one did; also where nothing here says how it forked.
    fn forked_as(&self, claim: &Claim) -> bool {
        match self.fork {
            Some((parent, fork)) => claim.parent == Some(parent) && claim.fork_lsn == fork,
            None => true,
        }
    }

    /// Whether the file is WAL that our own timeline has in its past.
    fn is_our_past(&self, file: WalFile, lineage: &Lineage) -> bool {
        let Some(newest) = &self.newest else { return false };
        let size = lineage.record().wal_segment_bytes;
        let start = match file {
            WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup { segment, .. } => {
                segment.start(size)
            }
            WalFile::History(_) => return true,
        };
        newest.ancestors.iter().any(|ancestor| ancestor.timeline == self.timeline && start < ancestor.switch)
    }
}

/// The object that [`claim`] always reads: who has the timeline after `timeline`.
pub fn object_to_read(cluster: &ClusterName, lineage: LineageId, timeline: TimelineId) -> Option<String> {
    Some(format!("{}/{}", names::lineage_dir(cluster, lineage), names::wal_claim(next(timeline)?)))
}

fn next(timeline: TimelineId) -> Option<TimelineId> {
    timeline.get().checked_add(1).and_then(TimelineId::new)
}

/// Makes sure that a file's timeline may be written by this data directory, claiming it if it is nobody's.
///
/// # Errors
///
/// It is another writer's.
pub async fn claim(
    lineage: &Lineage,
    state: &HostState,
    data_dir: &Path,
    file: WalFile,
    origin: &Origin,
) -> anyhow::Result<()> {
    not_left_behind(lineage, state, file, origin).await?;
    // Any of our writers may have noted it; the newest of them is the last in line.
    let here = state.here(data_dir)?;
    let writers = || here.earlier_writers.iter().chain([&here.writer]).copied();
    if writers().any(|writer| Note::of(lineage, state, writer, data_dir, origin.timeline).is_there()) {
        return Ok(());
    }
    let theirs = read_claim(lineage, origin.timeline).await?;
    let noted = match theirs {
        Some(theirs) if writers().any(|writer| writer == theirs.writer) => {
            if !origin.forked_as(&theirs) && !origin.is_our_past(file, lineage) {
                let (parent, fork) = origin.fork.unzip();
                let ours =
                    Claim { writer: here.writer, parent, fork_lsn: fork.unwrap_or(Lsn::INVALID), ..theirs };
                return Err(ClaimError::Other { ours: Box::new(ours), theirs: Box::new(theirs) }.into());
            }
            theirs.writer
        }
        Some(_) if origin.is_our_past(file, lineage) => return Ok(()),
        Some(_) | None => {
            let (parent, fork) = origin.fork.unzip();
            // Without a fork it is no promotion, and the timeline is that of whoever has been writing here.
            let writer = if parent.is_some() { here.writer } else { state.writer };
            if theirs.is_none() && parent.is_some() {
                if here == *state {
                    not_forked_behind(lineage, state, origin).await?;
                } else {
                    here.write(data_dir)?;
                }
            }
            let claimed =
                claim_timeline(lineage, writer, origin.timeline, parent, fork.unwrap_or(Lsn::INVALID)).await;
            match claimed {
                Ok(_) => {}
                // Someone else was faster, and it may be that what we have of it is our past.
                Err(ClaimError::Other { .. }) if origin.is_our_past(file, lineage) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
            writer
        }
    };
    Note::of(lineage, state, noted, data_dir, origin.timeline).write()
}

/// A writer that has gone on to the next timeline writes nothing more of this one beyond the fork: whoever does has its id from a copy.
async fn not_left_behind(
    lineage: &Lineage,
    state: &HostState,
    file: WalFile,
    origin: &Origin,
) -> anyhow::Result<()> {
    let timeline = origin.timeline;
    let (WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup { segment, .. }) = file
    else {
        return Ok(());
    };
    let Some(next) = next(timeline) else { return Ok(()) };
    let start = segment.start(lineage.record().wal_segment_bytes);
    match read_claim(lineage, next).await? {
        Some(claim)
            if claim.writer == state.writer && claim.parent == Some(timeline) && start >= claim.fork_lsn =>
        {
            Err(two_of_one_id(format!(
                "timeline {timeline} was left for timeline {next} at {} by a server with the writer id of this one ({})",
                claim.fork_lsn, state.writer
            )))
        }
        Some(_) | None => Ok(()),
    }
}

/// A writer's new timeline does not begin before the end of what it has archived of the one it left.
async fn not_forked_behind(lineage: &Lineage, state: &HostState, origin: &Origin) -> anyhow::Result<()> {
    let Some((parent, fork)) = origin.fork else { return Ok(()) };
    if read_claim(lineage, parent).await?.is_none_or(|claim| claim.writer != state.writer) {
        return Ok(());
    }
    let size = lineage.record().wal_segment_bytes;
    match list_segments(lineage, parent).await?.last() {
        Some(last) if last.start(size) >= fork => Err(two_of_one_id(format!(
            "timeline {} forks at {fork}, and a server with the writer id of this one ({}) has archived {} beyond that",
            origin.timeline, state.writer, last
        ))),
        Some(_) | None => Ok(()),
    }
}

fn two_of_one_id(message: String) -> anyhow::Error {
    report::refused(
        format!("{message}: one of the two is a copy of the other, or was set back to an earlier moment"),
        "on the one that is not the cluster any more, stop archiving; on a copy, run: highwater adopt --new-lineage",
    )
}

/// `<PGDATA>/highwater/claims/<timeline>.<repository>`: this writer has claimed the timeline there.
struct Note {
    path: std::path::PathBuf,
    text: String,
}

impl Note {
    fn of(
        lineage: &Lineage,
        state: &HostState,
        writer: WriterId,
        data_dir: &Path,
        timeline: TimelineId,
    ) -> Self {
        let repository = lineage.repository().info().repository_id;
        let directory = data_dir.join(host_state::DIRECTORY).join("claims");
        Self {
            path: directory.join(format!("{}.{repository}", timeline.hex())),
            text: format!("{} {writer}\n", state.lineage),
        }
    }

    fn is_there(&self) -> bool {
        std::fs::read_to_string(&self.path).is_ok_and(|text| text == self.text)
    }

    fn write(&self) -> anyhow::Result<()> {
        if let Some(directory) = self.path.parent() {
            durable::create_dir_all_durable(directory)?;
        }
        Ok(durable::replace(&self.path, &[&self.text])?)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use highwater_archive::lineage::LineageRecord;
    use highwater_archive::names::RepositoryId;
    use highwater_archive::repository::RepositoryInfo;
    use highwater_archive::store::local::LocalStore;
    use highwater_archive::testing;

    use super::*;

    /// What `tests/fixtures/format-1/host` holds was written once; it is found by its name, and today's code writes the same bytes.
    #[test]
    fn a_note_of_version_1_is_found_and_written_the_same() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/format-1/host/copy");
        let state = HostState::require(&host).unwrap();
        let info = RepositoryInfo { repository_id: RepositoryId::from_bytes([0x22; 16]), ..testing::info() };
        let record = LineageRecord { lineage: state.lineage, ..testing::record(testing::CLUSTER) };
        let lineage = testing::remembered(Arc::new(LocalStore::new("/nowhere")), info, record);
        let note =
            |writer, data: &Path| Note::of(&lineage, &state, writer, data, TimelineId::new(2).unwrap());
        assert!(note(state.writer, &host).is_there());
        assert!(!note(WriterId::from_bytes([9; 16]), &host).is_there(), "another writer's claim is not ours");
        let data = tempfile::tempdir().unwrap();
        let written = note(state.writer, data.path());
        written.write().unwrap();
        let committed = host.join(written.path.strip_prefix(data.path()).unwrap());
        assert_eq!(std::fs::read(&written.path).unwrap(), std::fs::read(committed).unwrap());
    }
}
