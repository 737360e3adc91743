//! Where the links of a data directory lead, and whether those of another one's server lead there too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::RestoreError;
use crate::{places, server};

/// Where the links of a data directory lead.
#[derive(Debug, Clone, Default)]
pub struct Links {
    /// `pg_wal`, when it is a link.
    pub wal: Option<PathBuf>,
    /// Each tablespace, by its oid.
    pub tablespaces: Vec<(u32, PathBuf)>,
}

impl Links {
    /// Those of this data directory, as far as they can be read.
    pub fn of(data_dir: &Path) -> Links {
        let target =
            |link: &Path| std::fs::read_link(link).ok().map(|to| link.parent().unwrap_or(link).join(to));
        let entries = std::fs::read_dir(data_dir.join("pg_tblspc")).into_iter().flatten().flatten();
        let tablespaces = entries
            .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, target(&entry.path())?)));
        Links { wal: target(&data_dir.join("pg_wal")), tablespaces: tablespaces.collect() }
    }

    /// Whether one of them leads to this place.
    pub fn lead_to(&self, place: &Path) -> bool {
        let place = places::resolved(place);
        let tablespaces = self.tablespaces.iter().map(|(_, directory)| directory);
        self.wal.iter().chain(tablespaces).any(|to| places::resolved(to) == place)
    }
}

/// Whether no server of another data directory uses the place too, as one does whose directory was copied with its links: a server's
/// processes work in its data directory (`ChangeToDataDir` in PostgreSQL's `miscinit.c`). Those of other users may not be seen.
///
/// # Errors
/// [`RestoreError::InUse`], with the data directory of the server that does.
pub fn check_unused(place: &Path, target: &Path) -> Result<(), RestoreError> {
    let target = server::identity(target);
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let directories: BTreeSet<PathBuf> = processes
        .map(|process| process.path().join("cwd"))
        .filter(|cwd| server::identity(cwd) != target)
        .filter_map(|cwd| std::fs::read_link(cwd).ok())
        .collect();
    let mut servers = directories.into_iter().filter(|directory| directory.join("PG_VERSION").exists());
    match servers.find(|directory| Links::of(directory).lead_to(place)) {
        Some(data_dir) => Err(RestoreError::InUse { path: place.to_owned(), data_dir }),
        None => Ok(()),
    }
}
