//! Reading what a lineage holds: names by prefix, the heads of backups, the history files.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use futures::StreamExt;
use highwater_pitr::plan::{BackupPoint, Gap, Held, Reach, SegmentSet, TimelineWay};
use highwater_pitr::segment::{SegmentName, WalFile, WalSegmentSize};
use highwater_pitr::timeline::{TimelineHistory, TimelineId};

use super::CatalogError;
use super::error::OfContent;
use super::ground::{Ground, IndexSource, Indexed};
use crate::manifest::{BackupId, Manifest, list_backups, read_manifest_and_digest};
use crate::names;
use crate::repository::lineage::Lineage;
use crate::seal::Digest;
use crate::wal;

/// How many small objects are asked for at once.
const IN_FLIGHT: usize = 16;

/// A complete backup.
#[derive(Debug, Clone)]
pub struct BackupEntry {
    /// Its id.
    pub id: BackupId,
    /// The head of its manifest.
    pub manifest: Manifest,
    /// What planning needs of it.
    pub point: BackupPoint,
    /// WAL between its start and its stop that the archive does not hold on its own timeline: with some missing, the
    /// backup cannot be restored.
    pub missing_wal: Vec<Gap>,
}

/// A timeline that the archive knows of.
#[derive(Debug, Clone)]
pub struct TimelineEntry {
    /// The timeline.
    pub timeline: TimelineId,
    /// Its history file; `None` for timeline 1, and for a timeline that began before the archive did.
    pub history: Option<TimelineHistory>,
    /// The whole segments that are there, by number.
    pub segments: SegmentSet,
    /// Segments of which only the beginning is there (`.partial`).
    pub partials: Vec<SegmentName>,
    /// Segments beside which another valid end is kept (a promotion).
    pub variants: Vec<SegmentName>,
    /// Segments that are missing between those that are there.
    pub gaps: Vec<Gap>,
    /// Bytes stored.
    pub stored_len: u64,
}

/// Something that is there and cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokenObject {
    /// Its path below the lineage.
    pub path: String,
    /// What is wrong with it.
    pub reason: String,
}

impl BrokenObject {
    /// `reason` may begin with the path, as the errors of objects do: it is said once.
    fn new(path: String, reason: &str) -> Self {
        let reason = without_path(reason, &path).to_owned();
        Self { path, reason }
    }
}

/// An error of an object without the name of the object in front.
fn without_path<'a>(error: &'a str, path: &str) -> &'a str {
    error.strip_prefix(path).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(error)
}

/// What a lineage holds.
#[derive(Debug, Clone)]
pub struct Catalog {
    /// Complete backups, oldest first: in the order of the WAL, whatever clock named them.
    pub backups: Vec<BackupEntry>,
    /// Backups that have no manifest: under way, or failed.
    pub unfinished: Vec<BackupId>,
    /// Timelines, lowest first.
    pub timelines: Vec<TimelineEntry>,
    /// What is there and cannot be read, is not authentic, or contradicts itself.
    pub broken: Vec<BrokenObject>,
    ground: Ground,
}

impl Catalog {
    /// Reads the catalog of `lineage`.
    ///
    /// # Errors
    ///
    /// The store could not be asked. Objects that are there and broken are listed in [`Catalog::broken`].
    pub async fn load(lineage: &Lineage) -> Result<Self, CatalogError> {
        let size = lineage.record().wal_segment_bytes;
        let mut broken = Vec::new();
        let timelines = load_timelines(lineage, size, &mut broken).await?;
        let held: Held = timelines.iter().map(|entry| (entry.timeline, entry.segments.clone())).collect();
        let ways: Vec<TimelineWay> = timelines.iter().map(way).collect();
        let (mut backups, unfinished) = load_backups(lineage, &mut broken).await?;
        for backup in &mut backups {
            backup.missing_wal = missing_wal(&backup.point, &timelines, &held, size);
        }
        // Names sort by the clock of the host that took them, and a clock may have been set back.
        backups.sort_by(|a, b| (a.point.stop, &a.id).cmp(&(b.point.stop, &b.id)));
        let points = backups.iter().map(|backup| backup.point.clone()).collect();
        let notes =
            broken.iter().map(|object| format!("{} is broken: {}", object.path, object.reason)).collect();
        let ground = Ground { points, ways, held, size, notes };
        Ok(Self { backups, unfinished, timelines, broken, ground })
    }

    /// The backup with this id, if it is complete.
    pub fn backup(&self, id: &str) -> Option<&BackupEntry> {
        self.backups.iter().find(|backup| backup.id.as_str() == id)
    }

    /// `wal_segment_size` of the lineage.
    pub fn segment_size(&self) -> WalSegmentSize {
        self.ground.size
    }

    /// The whole segments that are there, by timeline.
    pub fn held(&self) -> &Held {
        &self.ground.held
    }

    /// The way to each timeline, lowest first.
    pub fn ways(&self) -> &[TimelineWay] {
        &self.ground.ways
    }

    pub(super) fn ground(&self) -> &Ground {
        &self.ground
    }
}

fn way(entry: &TimelineEntry) -> TimelineWay {
    let root;
    let history = match &entry.history {
        Some(history) => history,
        None => {
            root = TimelineHistory::root(entry.timeline);
            &root
        }
    };
    TimelineWay {
        timeline: entry.timeline,
        ancestry: history.ancestry(),
        has_history: entry.history.is_some(),
    }
}

/// A backup's own WAL lies on its own timeline, whatever happened to that timeline later.
fn missing_wal(
    point: &BackupPoint,
    timelines: &[TimelineEntry],
    held: &Held,
    size: WalSegmentSize,
) -> Vec<Gap> {
    let last = point.last_segment(size);
    let Some(way) = timelines.iter().find(|entry| entry.timeline == point.timeline).map(way) else {
        let way = TimelineHistory::root(point.timeline).ancestry();
        return Gap::between(&way, size, point.first_segment(size), last).into_iter().collect();
    };
    let mut gaps = Vec::new();
    let mut first = point.first_segment(size);
    while first <= last {
        let reach = Reach::along(&way.ancestry, held, size, first);
        if reach.segments.end > last {
            break;
        }
        let until = reach.gap.map_or(last, |gap| gap.last.number(size).min(last));
        gaps.extend(Gap::between(&way.ancestry, size, reach.segments.end, until));
        first = until.saturating_add(1);
    }
    gaps
}

async fn load_timelines(
    lineage: &Lineage,
    size: WalSegmentSize,
    broken: &mut Vec<BrokenObject>,
) -> Result<Vec<TimelineEntry>, CatalogError> {
    let with_history: BTreeSet<TimelineId> = wal::list_histories(lineage).await?.into_iter().collect();
    let with_wal = wal::list_timelines(lineage).await?;

    let mut histories = BTreeMap::new();
    let reads = with_history
        .iter()
        .map(|timeline| async move { (*timeline, read_history(lineage, *timeline).await) });
    let mut reads = futures::stream::iter(reads).buffered(IN_FLIGHT);
    while let Some((timeline, read)) = reads.next().await {
        match read? {
            Ok(history) => drop(histories.insert(timeline, history)),
            Err(reason) => {
                broken.push(BrokenObject::new(names::wal_object(&WalFile::History(timeline)), &reason));
            }
        }
    }

    drop(reads);
    let all: BTreeSet<TimelineId> = with_history.into_iter().chain(with_wal).collect();
    let mut entries = Vec::new();
    for timeline in all {
        let listing = wal::list_timeline(lineage, timeline).await?;
        let conflict = "two writers stored different contents under this name";
        broken.extend(
            listing.conflicts.into_iter().map(|path| BrokenObject { path, reason: conflict.to_owned() }),
        );
        broken.extend(listing.cut.into_iter().map(|(path, bytes)| BrokenObject {
            path,
            reason: match bytes {
                0 => "it is empty".to_owned(),
                bytes => format!("it is cut short: {bytes} bytes are left"),
            },
        }));
        let (possible, impossible): (Vec<_>, Vec<_>) =
            listing.segments.into_iter().partition(|segment| segment.is_possible(size));
        broken.extend(impossible.into_iter().map(|segment| BrokenObject {
            path: names::wal_object(&WalFile::Segment(segment)),
            reason: format!("no segment of {} bytes has this name", size.bytes()),
        }));
        let numbers = possible.into_iter().map(|segment| segment.number(size));
        let segments = SegmentSet::from_numbers(numbers);
        let gaps = gaps_within(timeline, &segments, size);
        entries.push(TimelineEntry {
            timeline,
            history: histories.remove(&timeline),
            segments,
            partials: listing.partials,
            variants: listing.variants,
            gaps,
            stored_len: listing.stored_len,
        });
    }
    Ok(entries)
}

/// What is missing between the segments of one timeline.
pub fn gaps_within(timeline: TimelineId, segments: &SegmentSet, size: WalSegmentSize) -> Vec<Gap> {
    let own = TimelineHistory::root(timeline).ancestry();
    let neighbours = segments.runs().iter().zip(segments.runs().iter().skip(1));
    neighbours
        .filter_map(|(left, right)| Gap::between(&own, size, left.end, right.start.saturating_sub(1)))
        .collect()
}

/// The inner error is what is wrong with the file.
async fn read_history(
    lineage: &Lineage,
    timeline: TimelineId,
) -> Result<Result<TimelineHistory, String>, CatalogError> {
    match wal::get(lineage, &WalFile::History(timeline)).await {
        Ok(Some(bytes)) => Ok(TimelineHistory::parse(timeline, &bytes).map_err(|error| error.to_string())),
        Ok(None) => Ok(Err("it was listed and is not there".to_owned())),
        Err(error) if error.is_of_content() => Ok(Err(error.to_string())),
        Err(error) => Err(error.into()),
    }
}

async fn load_backups(
    lineage: &Lineage,
    broken: &mut Vec<BrokenObject>,
) -> Result<(Vec<BackupEntry>, Vec<BackupId>), CatalogError> {
    let listed = list_backups(lineage).await?;
    broken.extend(listed.foreign.into_iter().map(|path| BrokenObject {
        path,
        reason: "it lies where backups lie, and no backup has this name".to_owned(),
    }));
    let mut backups = Vec::new();
    let mut digests = BTreeMap::new();
    let reads =
        listed.complete.iter().map(|id| async move { (id, read_manifest_and_digest(lineage, id).await) });
    let mut reads = futures::stream::iter(reads).buffered(IN_FLIGHT);
    while let Some((id, read)) = reads.next().await {
        let manifest = match read {
            Ok((manifest, digest)) => {
                digests.insert(id.clone(), digest);
                manifest
            }
            Err(error) if error.is_of_content() => {
                broken.push(BrokenObject::new(names::backup_manifest(id), &error.to_string()));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match point_of(lineage, &manifest) {
            Ok(point) => {
                backups.push(BackupEntry { id: id.clone(), manifest, point, missing_wal: Vec::new() });
            }
            Err(reason) => broken.push(BrokenObject { path: names::backup_manifest(id), reason }),
        }
    }
    let complete: BTreeSet<&BackupId> = listed.complete.iter().collect();
    broken.extend(backups.iter().filter_map(|backup| broken_link(backup, &complete, &digests)));
    Ok((backups, listed.unfinished))
}

/// What is wrong with the backup that `backup` names as the one before it (I9). Backups are added and never taken away: one that is
/// named and absent, or has another content, means that the repository was turned back or meddled with. One that cannot be read is
/// reported as that alone.
fn broken_link(
    backup: &BackupEntry,
    complete: &BTreeSet<&BackupId>,
    digests: &BTreeMap<BackupId, Digest>,
) -> Option<BrokenObject> {
    let previous = backup.manifest.previous.as_ref()?;
    let by = &backup.id;
    let reason = match digests.get(&previous.backup) {
        Some(digest) if *digest == previous.digest => return None,
        Some(_) => format!("it is not the manifest that backup {by} names as the one before it"),
        None if complete.contains(&previous.backup) => return None,
        None => format!("backup {by} names it as the one before it, and it is not there"),
    };
    Some(BrokenObject { path: names::backup_manifest(&previous.backup), reason })
}

/// What planning needs, if the manifest fits its lineage and itself.
fn point_of(lineage: &Lineage, manifest: &Manifest) -> Result<BackupPoint, String> {
    let record = lineage.record();
    let size = record.wal_segment_bytes;
    let (wal, postgresql) = (&manifest.wal, &manifest.postgresql);
    if postgresql.system_identifier != record.system_identifier {
        return Err(format!(
            "it is of the cluster with system identifier {}, the lineage of {}",
            postgresql.system_identifier, record.system_identifier
        ));
    }
    if postgresql.wal_segment_bytes != size {
        return Err(format!("it has WAL segments of {} bytes", postgresql.wal_segment_bytes.bytes()));
    }
    if wal.start_lsn >= wal.stop_lsn {
        return Err(format!("it starts at LSN {} and stops at {}", wal.start_lsn, wal.stop_lsn));
    }
    let point = BackupPoint {
        id: manifest.backup.to_string(),
        timeline: wal.timeline,
        start: wal.start_lsn,
        stop: wal.stop_lsn,
        stop_time: wal.stop_time,
    };
    let named = |number| SegmentName::from_number(wal.timeline, number, size);
    if wal.first_segment != named(point.first_segment(size))
        || wal.last_segment != named(point.last_segment(size))
    {
        return Err(format!(
            "its segments {} to {} do not hold its WAL",
            wal.first_segment, wal.last_segment
        ));
    }
    Ok(point)
}

/// The indexes of a lineage's segments.
pub(super) struct LineageIndexes<'a> {
    lineage: &'a Lineage,
}

impl<'a> LineageIndexes<'a> {
    pub(super) fn new(lineage: &'a Lineage) -> Self {
        Self { lineage }
    }
}

#[async_trait]
impl IndexSource for LineageIndexes<'_> {
    async fn index(&self, segment: SegmentName) -> Result<Indexed, CatalogError> {
        match wal::read_index(self.lineage, segment).await {
            Ok(Some(index)) => Ok(Indexed::Index(Box::new(index))),
            Ok(None) => Ok(Indexed::Hole("it was listed and is not there".to_owned())),
            Err(error) if error.is_of_content() => {
                let path = names::wal_object(&WalFile::Segment(segment));
                Ok(Indexed::Hole(without_path(&error.to_string(), &path).to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }
}
