//! Whether a backup is all there, asked before anything is given up for it.
//!
//! Into an empty directory a restore may find on its way that the backup lacks something; over a cluster that would be too late. So
//! the file list is read and authenticated to its end, and each pack that it names must be in the store and as long as what is needed
//! of it. One request lists a thousand packs. What only reading all bytes could show, a flipped bit, stays to be found: the
//! frame that holds it does not open, and nothing of it is written.

use std::collections::{BTreeMap, HashMap};

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{FileLine, FileListReader, Manifest};
use highwater_archive::names;

use crate::error::RestoreError;

/// A pack of the list: its path, and where the last byte that is needed of it lies.
struct Needed {
    path: String,
    end: u64,
}

/// Reads the whole file list, and looks at each pack of it.
///
/// # Errors
/// [`RestoreError::Manifest`], [`RestoreError::PackGone`], [`RestoreError::Lineage`].
pub async fn check(lineage: &Lineage, manifest: &Manifest) -> Result<(), RestoreError> {
    let mut list = FileListReader::new(lineage.clone(), manifest);
    let mut packs: HashMap<u32, Needed> = HashMap::new();
    while let Some(line) = list.next().await? {
        match line {
            FileLine::Pack { pack, path, .. } => {
                packs.insert(pack, Needed { path, end: 0 });
            }
            FileLine::File { file, .. } | FileLine::Outside { file, .. } => {
                for extent in file.extents {
                    if let Some(needed) = packs.get_mut(&extent.pack) {
                        needed.end =
                            needed.end.max(extent.offset.saturating_add(u64::from(extent.stored_len)));
                    }
                }
            }
            FileLine::Dir { .. } | FileLine::Tablespace { .. } | FileLine::Symlink { .. } => {}
        }
    }
    look_at(lineage, packs.into_values().filter(|needed| needed.end > 0)).await
}

async fn look_at(lineage: &Lineage, packs: impl Iterator<Item = Needed>) -> Result<(), RestoreError> {
    let mut by_directory: BTreeMap<String, Vec<Needed>> = BTreeMap::new();
    for needed in packs {
        let directory = needed.path.rsplit_once('/').map_or(names::PACKS, |(directory, _)| directory);
        by_directory.entry(format!("{}/", directory.trim_end_matches('/'))).or_default().push(needed);
    }
    for (directory, mut packs) in by_directory {
        let listed = lineage.list(&directory).await?;
        let sizes: HashMap<&str, u64> =
            listed.iter().map(|entry| (entry.path.as_str(), entry.size)).collect();
        packs.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        for Needed { path, end } in packs {
            let problem = match sizes.get(path.as_str()) {
                None => "it is gone".to_owned(),
                Some(size) if *size < end => format!("it is cut short: {size} bytes of at least {end}"),
                Some(_) => continue,
            };
            return Err(RestoreError::PackGone { pack: path, problem });
        }
    }
    Ok(())
}
