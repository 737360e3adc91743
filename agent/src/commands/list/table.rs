//! The list for people: what matters most, the recoverable windows, comes first.

use comfy_table::{Table, presets};
use highwater_archive::catalog::Catalog;
use highwater_pitr::segment::SegmentName;
use indicatif::HumanBytes;
use jiff::{Timestamp, Unit};

use super::document::{LineageContent, first, last};
use crate::repositories::OpenRepository;

/// One repository; `whole` says that no lineage of it is left out.
pub fn repository(open: &OpenRepository, lineages: &[LineageContent], whole: bool) -> String {
    let store = open.cluster.repository().store().describe();
    let mut text = format!("Repository {}: {store}, cluster {}\n", open.name, open.cluster.name());
    text.push_str(&format!("  fingerprint of the keyring: {}\n", open.cluster.keys().fingerprint()));
    for content in lineages {
        lineage(&mut text, content);
    }
    if lineages.is_empty() && whole {
        text.push_str("  nothing has been written for this cluster\n");
    }
    text.push('\n');
    text
}

fn lineage(text: &mut String, content: &LineageContent) {
    let LineageContent { record, closed, is_ours, catalog, windows } = content;
    let ours = if *is_ours { ", written by this host" } else { "" };
    text.push_str(&format!(
        "\nLineage {}: system identifier {}, PostgreSQL {}, since {}{ours}\n",
        record.lineage,
        record.system_identifier,
        record.pg_major,
        seconds(record.created_at)
    ));
    if let Some(closed) = closed {
        text.push_str(&format!("  closed {}: {}\n", seconds(closed.closed_at), closed.reason));
    }
    section(text, "Recoverable", windows_table(content), "nothing yet: there is no complete backup");
    for reachable in windows {
        if let Some(gap) = &reachable.gap {
            text.push_str(&format!(
                "  the window to {} ends there because of missing WAL: {gap}\n",
                reachable.window.to
            ));
        }
        if let Some(reason) = &reachable.unreadable {
            text.push_str(&format!("  the window to {} may reach further: {reason}\n", reachable.window.to));
        }
    }
    section(text, "Backups", backups_table(catalog), "none");
    for entry in &catalog.backups {
        for gap in &entry.missing_wal {
            text.push_str(&format!("  {} cannot be restored, its WAL is not whole: {gap}\n", entry.id));
        }
        if entry.manifest.page_failure_count > 0 {
            text.push_str(&format!(
                "  {} has {} damaged pages\n",
                entry.id, entry.manifest.page_failure_count
            ));
        }
    }
    for id in &catalog.unfinished {
        text.push_str(&format!("  {id} is under way, or was cut short\n"));
    }
    section(text, "WAL", wal_table(catalog), "none");
    for entry in &catalog.timelines {
        for gap in &entry.gaps {
            text.push_str(&format!("  timeline {} lacks {gap}\n", entry.timeline));
        }
    }
    if !catalog.broken.is_empty() {
        text.push_str("\n  Broken\n");
        for object in &catalog.broken {
            text.push_str(&format!("    {}: {}\n", object.path, object.reason));
        }
    }
}

fn section(text: &mut String, title: &str, table: Option<Table>, otherwise: &str) {
    text.push_str(&format!("\n  {title}\n"));
    match table {
        Some(table) => {
            for line in table.to_string().lines() {
                text.push_str(&format!("   {}\n", line.trim_end()));
            }
        }
        None => text.push_str(&format!("    {otherwise}\n")),
    }
}

fn windows_table(content: &LineageContent) -> Option<Table> {
    let mut table = table(&["from", "to", "timeline", "from LSN", "to LSN", "backups"]);
    for reachable in &content.windows {
        let window = &reachable.window;
        table.add_row(vec![
            window.from.to_string(),
            window.to.to_string(),
            window.timeline.to_string(),
            window.from_lsn.to_string(),
            window.to_lsn.to_string(),
            reachable.backups.to_string(),
        ]);
    }
    (!content.windows.is_empty()).then_some(table)
}

fn backups_table(catalog: &Catalog) -> Option<Table> {
    let mut table =
        table(&["id", "taken", "took", "size", "stored", "files", "timeline", "stop LSN", "label"]);
    for entry in &catalog.backups {
        let manifest = &entry.manifest;
        let took = manifest.stopped_at.duration_since(manifest.started_at);
        table.add_row(vec![
            entry.id.to_string(),
            seconds(manifest.started_at),
            format!("{} s", took.as_secs()),
            HumanBytes(manifest.counts.bytes).to_string(),
            HumanBytes(manifest.counts.stored_bytes).to_string(),
            manifest.counts.files.to_string(),
            manifest.wal.timeline.to_string(),
            manifest.wal.stop_lsn.to_string(),
            manifest.label.clone(),
        ]);
    }
    (!catalog.backups.is_empty()).then_some(table)
}

fn wal_table(catalog: &Catalog) -> Option<Table> {
    let mut table =
        table(&["timeline", "parent", "forked at", "segments", "first", "last", "stored", "gaps"]);
    for entry in &catalog.timelines {
        let parent = entry.history.as_ref().and_then(|history| history.parent());
        let name = |number: Option<u64>| {
            let name =
                number.map(|number| SegmentName::from_number(entry.timeline, number, catalog.segment_size()));
            name.map_or_else(|| "-".to_owned(), |name| name.to_string())
        };
        table.add_row(vec![
            entry.timeline.to_string(),
            parent.map_or_else(|| "-".to_owned(), |parent| parent.timeline.to_string()),
            parent.map_or_else(|| "-".to_owned(), |parent| parent.switch.to_string()),
            entry.segments.len().to_string(),
            name(first(entry)),
            name(last(entry)),
            HumanBytes(entry.stored_len).to_string(),
            entry.gaps.len().to_string(),
        ]);
    }
    (!catalog.timelines.is_empty()).then_some(table)
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(header.to_vec());
    table
}

/// A moment to the second, in UTC.
fn seconds(moment: Timestamp) -> String {
    moment.round(Unit::Second).unwrap_or(moment).to_string()
}
