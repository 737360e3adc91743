//! The first write of a backup.

use serde::{Deserialize, Serialize};

use super::{BackupId, text};

/// `backups/<id>/intent`: says that a backup is under way, so that its packs are not taken for garbage (I22).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    /// The backup that was begun.
    #[serde(with = "text")]
    pub backup: BackupId,
    /// The backup it builds on; none for one that reads and stores everything.
    pub base: Option<String>,
    /// When it began.
    pub started_at: jiff::Timestamp,
    /// The host it runs on.
    pub host: String,
    /// The writer's id, 32 hexadecimal digits, as the host's `lineage.json` has it.
    pub writer: String,
}
