//! Where the links of a data directory lead, and whether those of another one's server lead there too.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::error::RestoreError;
use crate::server::Process;
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
        self.places().any(|to| places::resolved(to) == place)
    }

    fn places(&self) -> impl Iterator<Item = &Path> {
        let tablespaces = self.tablespaces.iter().map(|(_, directory)| directory);
        self.wal.iter().chain(tablespaces).map(PathBuf::as_path)
    }
}

/// Whether no server of another data directory uses the place too, as one does whose directory was copied with its links. It may see the
/// place by another name than we do, so directories are told apart by what they are. Servers of other users may not be seen.
///
/// # Errors
/// [`RestoreError::InUse`], with the data directory of the server that does.
pub fn check_unused(place: &Path, target: &Path) -> Result<(), RestoreError> {
    // A server has many processes.
    let mut met = BTreeSet::from_iter(server::identity(target));
    for process in Process::servers() {
        let directory = process.directory();
        let is_new = server::identity(&directory).is_some_and(|identity| met.insert(identity));
        if is_new && leads_to(process, &Links::of(&directory), place) {
            let data_dir = std::fs::read_link(&directory).unwrap_or(directory);
            return Err(RestoreError::InUse { path: place.to_owned(), data_dir });
        }
    }
    Ok(())
}

/// Whether one of the links in the directory that a process works in leads to the place, as the process sees it.
fn leads_to(process: Process, links: &Links, place: &Path) -> bool {
    let (root, directory) = (process.root(), process.directory());
    let is_our_root = server::identity(&root) == server::identity(Path::new("/"));
    links.places().any(|to| {
        // A link that is not absolute is already told from where it stands.
        let seen = match to.strip_prefix("/") {
            Ok(below) if !to.starts_with(&directory) => root.join(below),
            _ => to.to_owned(),
        };
        match server::identity(&seen) {
            Some(identity) => server::identity(place) == Some(identity),
            None => is_our_root && places::resolved(to) == places::resolved(place),
        }
    })
}
