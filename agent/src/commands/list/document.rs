//! The list as JSON, version 1; docs/json.md describes it.

use highwater_archive::catalog::{BackupEntry, Catalog, ReachableWindow, TimelineEntry};
use highwater_archive::lineage::{ClosedRecord, LineageRecord};
use highwater_pitr::segment::SegmentName;
use serde_json::{Value, json};

use crate::repositories::OpenRepository;

/// What a lineage is, and what it holds.
pub struct LineageContent {
    /// What it is bound to.
    pub record: LineageRecord,
    /// How it ended, if it has.
    pub closed: Option<ClosedRecord>,
    /// This host's data directory writes it.
    pub is_ours: bool,
    /// What it holds.
    pub catalog: Catalog,
    /// To which moments it can be brought back.
    pub windows: Vec<ReachableWindow>,
}

/// One repository.
pub fn repository(open: &OpenRepository, lineages: &[LineageContent]) -> Value {
    let repository = open.cluster.repository();
    json!({
        "name": open.name,
        "url": repository.store().describe(),
        "repository_id": repository.info().repository_id.to_string(),
        "cluster_id": open.cluster.id().to_string(),
        "fingerprint": open.cluster.keys().fingerprint().to_string(),
        "lineages": lineages.iter().map(lineage).collect::<Vec<_>>(),
    })
}

fn lineage(content: &LineageContent) -> Value {
    let LineageContent { record, closed, is_ours, catalog, windows } = content;
    json!({
        "lineage": record.lineage.to_string(),
        "system_identifier": record.system_identifier.to_string(),
        "postgresql": record.pg_major,
        "wal_segment_bytes": record.wal_segment_bytes.bytes(),
        "created_at": record.created_at.to_string(),
        "reason": record.reason,
        "parent": record.parent.map(|parent| parent.to_string()),
        "parent_timeline": record.parent_timeline.map(|timeline| timeline.get()),
        "fork_lsn": record.fork_lsn.map(|lsn| lsn.to_string()),
        "closed": closed.as_ref().map(|closed| json!({
            "at": closed.closed_at.to_string(),
            "reason": closed.reason,
            "successor": closed.successor.map(|successor| successor.to_string()),
        })),
        "written_by_this_host": is_ours,
        "windows": windows.iter().map(window).collect::<Vec<_>>(),
        "backups": catalog.backups.iter().map(backup).collect::<Vec<_>>(),
        "unfinished_backups": catalog.unfinished.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "timelines": catalog.timelines.iter().map(|entry| timeline(entry, catalog)).collect::<Vec<_>>(),
        "broken": catalog.broken.iter().map(|object| json!({
            "path": object.path,
            "reason": object.reason,
        })).collect::<Vec<_>>(),
    })
}

fn window(reachable: &ReachableWindow) -> Value {
    let window = &reachable.window;
    json!({
        "timeline": window.timeline.get(),
        "from": window.from.to_string(),
        "to": window.to.to_string(),
        "from_lsn": window.from_lsn.to_string(),
        "to_lsn": window.to_lsn.to_string(),
        "first_backup": window.backup,
        "backups": reachable.backups,
        "ended_by_gap": reachable.gap,
        "unreadable": reachable.unreadable,
    })
}

fn backup(entry: &BackupEntry) -> Value {
    let manifest = &entry.manifest;
    json!({
        "backup": entry.id.to_string(),
        "label": manifest.label,
        "started_at": manifest.started_at.to_string(),
        "stopped_at": manifest.stopped_at.to_string(),
        "postgresql_version": manifest.postgresql.version,
        "timeline": manifest.wal.timeline.get(),
        "start_lsn": manifest.wal.start_lsn.to_string(),
        "stop_lsn": manifest.wal.stop_lsn.to_string(),
        "first_segment": manifest.wal.first_segment.to_string(),
        "last_segment": manifest.wal.last_segment.to_string(),
        "files": manifest.counts.files,
        "bytes": manifest.counts.bytes,
        "stored_bytes": manifest.counts.stored_bytes,
        "page_failure_count": manifest.page_failure_count,
        "missing_wal": entry.missing_wal,
    })
}

fn timeline(entry: &TimelineEntry, catalog: &Catalog) -> Value {
    let parent = entry.history.as_ref().and_then(|history| history.parent());
    let name = |number| SegmentName::from_number(entry.timeline, number, catalog.segment_size()).to_string();
    json!({
        "timeline": entry.timeline.get(),
        "parent": parent.map(|parent| parent.timeline.get()),
        "fork_lsn": parent.map(|parent| parent.switch.to_string()),
        "segments": entry.segments.len(),
        "first_segment": first(entry).map(name),
        "last_segment": last(entry).map(name),
        "partial_segments": entry.partials.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "stored_bytes": entry.stored_len,
        "gaps": entry.gaps,
    })
}

/// The number of the first segment that is there.
pub fn first(entry: &TimelineEntry) -> Option<u64> {
    entry.segments.runs().first().map(|run| run.start)
}

/// The number of the last one.
pub fn last(entry: &TimelineEntry) -> Option<u64> {
    entry.segments.runs().last().and_then(|run| run.end.checked_sub(1))
}
