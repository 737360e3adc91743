//! What a restored copy knows about itself: where it forked, where it came from, and what keeps it apart from production.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use highwater_archive::durable;
use highwater_archive::names::LineageId;
use highwater_pitr::control::ControlFile;
use highwater_pitr::segment::WalFile;
use highwater_restore::conf_file::parse_line;
use highwater_restore::plan_file::{PLAN_FILE, PlanFile};
use highwater_restore::settings::{SIGNAL_FILES, without_isolation};

use super::adoption::Position;
use crate::pg::history;
use crate::report;

/// The timeline of a promoted copy, with its history as PostgreSQL wrote it.
pub struct Promoted {
    /// Where it stands.
    pub position: Position,
    /// Its history file; none on a first timeline.
    pub history: Option<(WalFile, Vec<u8>)>,
}

/// Where a data directory stands after its recovery.
///
/// # Errors
///
/// It has not been promoted yet, or its history cannot be read.
pub fn promoted(data_dir: &Path, control: &ControlFile) -> anyhow::Result<Promoted> {
    for name in SIGNAL_FILES {
        if data_dir.join(name).exists() {
            return Err(report::refused(
                format!("{} is still in recovery: {name} is there", data_dir.display()),
                "start it, let it reach its target, and promote it: SELECT pg_wal_replay_resume() or pg_promote()",
            ));
        }
    }
    // The checkpoint that brings the new timeline into pg_control may come minutes after the promotion.
    let pg_wal = data_dir.join("pg_wal");
    let newest = history::newest(&pg_wal)?.filter(|newest| *newest >= control.timeline);
    let timeline = newest.unwrap_or(control.timeline);
    let Some((history, bytes)) = history::read(&pg_wal, timeline)? else {
        return Ok(Promoted { position: Position { timeline, fork: None }, history: None });
    };
    let fork = history.parent().map(|parent| (parent.timeline, parent.switch));
    Ok(Promoted { position: Position { timeline, fork }, history: Some((WalFile::History(timeline), bytes)) })
}

/// The lineage that `restore` brought the copy from, as its plan says; none where it did not come that way.
///
/// # Errors
///
/// A plan that is there and cannot be read.
pub fn origin(data_dir: &Path) -> anyhow::Result<Option<LineageId>> {
    let path = data_dir.join(PLAN_FILE);
    if !path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
        return Ok(None);
    }
    let repositories = PlanFile::read(&path)?.repositories(&path)?;
    Ok(repositories.first().map(|repository| repository.lineage.id()))
}

/// Takes the block out of `postgresql.auto.conf` that keeps a copy from archiving and reaching out. True where it was there.
///
/// # Errors
///
/// The file cannot be read or written.
pub fn end_isolation(data_dir: &Path) -> anyhow::Result<bool> {
    let path: PathBuf = data_dir.join("postgresql.auto.conf");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let kept = without_isolation(&text);
    if kept == text {
        return Ok(false);
    }
    durable::replace(&path, &[kept])?;
    Ok(true)
}

/// Takes away what only the recovery needed: the plan with its secrets, which hold the stores' credentials and open a copy of the
/// keyring, and the `restore_command` that reads them. True where any of it was there.
///
/// # Errors
///
/// A file cannot be read, written or removed.
pub fn end_recovery(data_dir: &Path) -> anyhow::Result<bool> {
    let mut was_there = false;
    let path = data_dir.join("postgresql.auto.conf");
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let kept = without_plan(&text);
            if kept != text {
                durable::replace(&path, &[kept])?;
                was_there = true;
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
    for file in highwater_restore::plan_file::files() {
        let path = data_dir.join(file);
        if path.try_exists().with_context(|| format!("cannot look at {}", path.display()))? {
            durable::remove(&path)?;
            was_there = true;
        }
    }
    Ok(was_there)
}

/// A blank in place of our `restore_command`; one of anybody else stays.
fn without_plan(text: &str) -> String {
    let ours = |line: &str| {
        parse_line(line).is_some_and(|setting| {
            setting.name == "restore_command" && setting.value.contains(" archive-get --plan ")
        })
    };
    let blank = "restore_command = ''\n";
    text.split_inclusive('\n').map(|line| if ours(line) { blank } else { line }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_restore_command_goes() {
        let ours = highwater_restore::settings::restore_command("/usr/bin/highwater", "/data/a plan.json");
        let ours = highwater_restore::conf_file::format("restore_command", &ours);
        let after = without_plan(&format!("port = 1\n{ours}\nwork_mem = '8MB'\n"));
        assert_eq!(after, "port = 1\nrestore_command = ''\nwork_mem = '8MB'\n");
        let theirs = "restore_command = 'cp /archive/%f %p'\n";
        assert_eq!(without_plan(theirs), theirs);
    }
}
