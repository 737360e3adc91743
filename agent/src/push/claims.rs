//! Whose timeline a file of WAL lies on (I1).
//!
//! The first object of a timeline is the claim of the data directory that writes it. A file of a timeline that another writer
//! has claimed is accepted only where it lies before the point at which our own history left that timeline: that is what a
//! promoted standby still has of its parent, and it is the parent's WAL, which the comparison of contents holds it to. A claim
//! once made is noted on the host, so that the next segment does not ask again.

use std::path::Path;

use anyhow::Context as _;
use highwater_archive::durable;
use highwater_archive::lineage::Lineage;
use highwater_archive::wal::{ClaimError, claim_timeline, read_claim};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::WalFile;
use highwater_pitr::timeline::{TimelineHistory, TimelineId};

use crate::host_state::{self, HostState};

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
        let timeline = match file {
            WalFile::Segment(segment) | WalFile::Partial(segment) | WalFile::Backup { segment, .. } => {
                segment.timeline
            }
            WalFile::History(timeline) => timeline,
        };
        let directory = path.parent().unwrap_or(Path::new("."));
        let own = match file {
            WalFile::History(_) => {
                Some(TimelineHistory::parse(timeline, bytes).context("it is no timeline history")?)
            }
            WalFile::Segment(_) | WalFile::Partial(_) | WalFile::Backup { .. } => {
                history(directory, timeline)?
            }
        };
        let fork = own.as_ref().and_then(|own| own.ancestors.last()).map(|last| (last.timeline, last.switch));
        let newest = newest_history(directory, timeline)?;
        Ok(Self { timeline, fork, newest })
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
    let note = Note::of(lineage, state, data_dir, origin.timeline);
    if note.is_there() {
        return Ok(());
    }
    let theirs = read_claim(lineage, origin.timeline).await?;
    match theirs {
        Some(theirs) if theirs.writer == state.writer => {}
        Some(_) if origin.is_our_past(file, lineage) => return Ok(()),
        Some(_) | None => {
            let (parent, fork) = origin.fork.unzip();
            let claimed =
                claim_timeline(lineage, state.writer, origin.timeline, parent, fork.unwrap_or(Lsn::INVALID))
                    .await;
            match claimed {
                Ok(_) => {}
                // Someone else was faster, and it may be that what we have of it is our past.
                Err(ClaimError::Other { .. }) if origin.is_our_past(file, lineage) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
    note.write()
}

/// `<PGDATA>/highwater/claims/<timeline>.<repository>`: this writer has claimed the timeline there.
struct Note {
    path: std::path::PathBuf,
    text: String,
}

impl Note {
    fn of(lineage: &Lineage, state: &HostState, data_dir: &Path, timeline: TimelineId) -> Self {
        let repository = lineage.repository().info().repository_id;
        let directory = data_dir.join(host_state::DIRECTORY).join("claims");
        Self {
            path: directory.join(format!("{}.{repository}", timeline.hex())),
            text: format!("{} {}\n", state.lineage, state.writer),
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

/// The history of a timeline, if it lies in the directory. The first timeline has none.
fn history(directory: &Path, timeline: TimelineId) -> anyhow::Result<Option<TimelineHistory>> {
    let path = directory.join(WalFile::History(timeline).to_string());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let history =
        TimelineHistory::parse(timeline, &bytes).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some(history))
}

/// The history in the directory of the newest timeline after `timeline`.
fn newest_history(directory: &Path, timeline: TimelineId) -> anyhow::Result<Option<TimelineHistory>> {
    let cannot_list = || format!("cannot list {}", directory.display());
    let mut newest = None;
    for entry in std::fs::read_dir(directory).with_context(cannot_list)? {
        let name = entry.with_context(cannot_list)?.file_name();
        if let Some(Ok(WalFile::History(found))) = name.to_str().map(str::parse)
            && found > timeline
        {
            newest = newest.max(Some(found));
        }
    }
    match newest {
        Some(newest) => history(directory, newest),
        None => Ok(None),
    }
}
