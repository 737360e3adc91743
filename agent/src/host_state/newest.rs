//! The newest backup that this host has made in a repository, remembered beside what it writes (I9).
//!
//! A repository that was turned back to an earlier state, by a copy put in its place or a snapshot of its disk, is whole in itself:
//! nothing in it names what came later. Only who was there knows. So each backup leaves a note,
//! `<PGDATA>/highwater/newest/<repository id>`, and a repository that does not hold that backup any more has gone back. The note is
//! of one lineage; it goes by the backup's id and not by its time, which a clock that was set back makes the lesser one.

use std::path::{Path, PathBuf};

use highwater_archive::durable;
use highwater_archive::lineage::{Lineage, LineageError};
use highwater_archive::manifest::{BackupId, list_backups};

/// What is remembered of one repository.
#[derive(Debug)]
pub struct Newest {
    path: PathBuf,
    lineage: String,
}

impl Newest {
    /// What the host of this data directory remembers of a lineage in the repository that it was opened in.
    pub fn of(data_dir: &Path, lineage: &Lineage) -> Self {
        let repository = lineage.repository().info().repository_id;
        let path = data_dir.join(super::DIRECTORY).join("newest").join(repository.to_string());
        Self { path, lineage: lineage.id().to_string() }
    }

    /// The backup; none where this host has made none there, or none since its lineage began.
    pub fn backup(&self) -> Option<BackupId> {
        let text = std::fs::read_to_string(&self.path).ok()?;
        let (lineage, backup) = text.trim_end().split_once(' ')?;
        (lineage == self.lineage).then(|| backup.parse().ok()).flatten()
    }

    /// The backup, where the repository does not hold it any more: nothing is ever deleted, so the repository went back.
    ///
    /// # Errors
    ///
    /// The store could not be asked.
    pub async fn gone(&self, lineage: &Lineage) -> Result<Option<BackupId>, LineageError> {
        let Some(backup) = self.backup() else { return Ok(None) };
        let held = list_backups(lineage).await?.complete;
        Ok((!held.contains(&backup)).then_some(backup))
    }

    /// Remembers a backup that was just completed.
    ///
    /// # Errors
    ///
    /// The directory or file cannot be written.
    pub fn remember(&self, backup: &BackupId) -> anyhow::Result<()> {
        if let Some(directory) = self.path.parent() {
            durable::create_dir_all_durable(directory)?;
        }
        Ok(durable::replace(&self.path, &[format!("{} {backup}\n", self.lineage)])?)
    }
}

/// What to say of a repository that went back.
pub fn went_back(backup: &BackupId) -> (String, &'static str) {
    (
        format!(
            "the repository went back: it does not hold backup {backup} any more, which this host has made in it"
        ),
        "what was archived since is gone with it: is it an older copy, or a snapshot, that was put in its place? bring back the newer one; \
         if it is lost, highwater backup begins anew from what is there",
    )
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use highwater_archive::lineage::LineageRecord;
    use highwater_archive::names::{LineageId, RepositoryId};
    use highwater_archive::repository::RepositoryInfo;
    use highwater_archive::store::local::LocalStore;
    use highwater_archive::testing;

    use super::*;

    fn lineage(id: u8) -> Lineage {
        let info = RepositoryInfo { repository_id: RepositoryId::from_bytes([0x22; 16]), ..testing::info() };
        let record =
            LineageRecord { lineage: LineageId::from_bytes([id; 16]), ..testing::record(testing::CLUSTER) };
        testing::remembered(Arc::new(LocalStore::new("/nowhere")), info, record)
    }

    /// I9: what `tests/fixtures/format-1/host` holds was written once; it is found by its name, and today's code writes the same bytes.
    /// It says nothing about another lineage.
    #[test]
    fn a_memory_of_version_1_is_found_and_written_the_same() {
        let host = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/format-1/host/copy");
        let backup: BackupId = "20261120T061000Z-0a1b2c3d".parse().unwrap();
        assert_eq!(Newest::of(&host, &lineage(0x11)).backup(), Some(backup.clone()));
        assert_eq!(Newest::of(&host, &lineage(0x12)).backup(), None);
        let data = tempfile::tempdir().unwrap();
        let newest = Newest::of(data.path(), &lineage(0x11));
        assert_eq!(newest.backup(), None);
        newest.remember(&backup).unwrap();
        let committed = host.join(newest.path.strip_prefix(data.path()).unwrap());
        assert_eq!(std::fs::read(&newest.path).unwrap(), std::fs::read(committed).unwrap());
        let earlier: BackupId = "20261119T061000Z-ffffffff".parse().unwrap();
        newest.remember(&earlier).unwrap();
        assert_eq!(newest.backup(), Some(earlier), "the last one, whatever the clock said");
    }
}
