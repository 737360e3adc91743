//! What is to be written: files and, under each pack, the extents that it holds.
//!
//! This is the one thing that grows with the cluster: 48 bytes an extent of 1 MiB and about 100 a file, so a cluster of a
//! terabyte in a million files takes 150 MB. Names lie one after another in a single allocation.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};

use highwater_archive::manifest::{Extent, FileEntry, FileLine, FilePath};

use super::RebuildError;
use super::layout::{Layout, RootIndex};

/// A name below a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place<'a> {
    pub(super) root: RootIndex,
    pub(super) path: &'a [u8],
}

/// A file with bytes.
#[derive(Debug)]
struct FileTask {
    root: RootIndex,
    mode: u16,
    /// It was there before.
    in_place: bool,
    name_at: u64,
    name_len: u32,
    /// Extents not written yet.
    missing: AtomicU32,
    size: u64,
    mtime: i64,
}

/// One extent to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Task {
    /// Where its bytes lie.
    pub(super) extent: Extent,
    /// Whose they are.
    pub(super) file: u32,
    /// Which extent of the file.
    pub(super) index: u32,
}

/// A pack that something is needed from.
#[derive(Debug)]
pub(super) struct PackWork {
    /// Its path below the lineage.
    pub(super) path: String,
    /// Its header, which its key comes from.
    pub(super) header: Vec<u8>,
    /// What is needed, in the order it lies there once [`Work::order_tasks`] was called.
    pub(super) tasks: Vec<Task>,
}

/// All that is to be written.
#[derive(Debug)]
pub struct Work {
    extent_bytes: u64,
    names: Vec<u8>,
    files: Vec<FileTask>,
    packs: Vec<PackWork>,
    /// Where each pack of the list stands in `packs`, by its number. Numbers come in any order: which of a backup's
    /// writers begins a pack first, and which one's file comes first in the list, are two things.
    pack_at: HashMap<u32, usize>,
    total_bytes: u64,
    file_count: u64,
    /// Some of it was in place.
    is_partial: bool,
}

impl Work {
    /// Nothing yet, of extents of this length.
    pub(super) fn new(extent_bytes: u32) -> Work {
        Work {
            extent_bytes: u64::from(extent_bytes.max(1)),
            names: Vec::new(),
            files: Vec::new(),
            packs: Vec::new(),
            pack_at: HashMap::new(),
            total_bytes: 0,
            file_count: 0,
            is_partial: false,
        }
    }

    /// Takes a line of the file list: what needs no pack is made, the rest is noted; `in_place` says of a file that one is there.
    pub(super) fn add(
        &mut self,
        line: FileLine,
        in_place: bool,
        layout: &Layout,
    ) -> Result<(), RebuildError> {
        match line {
            FileLine::Pack { pack, path, header } => {
                if self.pack_at.insert(pack, self.packs.len()).is_some() {
                    return Err(RebuildError::Hostile(format!("pack number {pack} is named twice")));
                }
                self.packs.push(PackWork { path, header, tasks: Vec::new() });
                Ok(())
            }
            FileLine::Dir { path, mode } => layout.make_dir(&path, mode),
            FileLine::Tablespace { path, mode, .. } => layout.make_tablespace_link(&path, mode),
            FileLine::Symlink { path, target } => layout.make_inner_link(&path, &target),
            FileLine::File { path, file } => {
                if is_left_out(&path) {
                    return Ok(());
                }
                let (root, below) = layout.place(&path);
                self.add_file(Place { root, path: below }, file, in_place, layout)
            }
            FileLine::Outside { path, file, .. } => {
                let (root, below) = layout.outside_place(&path)?;
                self.add_file(Place { root, path: below.as_bytes() }, file, false, layout)
            }
        }
    }

    fn add_file(
        &mut self,
        place: Place<'_>,
        file: FileEntry,
        in_place: bool,
        layout: &Layout,
    ) -> Result<(), RebuildError> {
        self.file_count += 1;
        self.total_bytes = self.total_bytes.saturating_add(file.size);
        if file.extents.is_empty() {
            return layout.make_empty(place, file.mode, file.mtime);
        }
        let hostile = || RebuildError::Hostile(format!("{} is more than can be listed", layout.name(place)));
        let number = u32::try_from(self.files.len()).map_err(|_| hostile())?;
        let count = u32::try_from(file.extents.len()).map_err(|_| hostile())?;
        for (index, extent) in (0u32..).zip(file.extents) {
            let at = self.pack_at.get(&extent.pack).copied();
            let pack = at.and_then(|at| self.packs.get_mut(at)).ok_or_else(|| {
                let name = layout.name(place);
                RebuildError::Hostile(format!(
                    "{name} lies in pack {}, which is not named before",
                    extent.pack
                ))
            })?;
            pack.tasks.push(Task { extent, file: number, index });
        }
        self.files.push(FileTask {
            root: place.root,
            mode: (file.mode & 0o777) as u16,
            in_place,
            name_at: self.names.len() as u64,
            name_len: u32::try_from(place.path.len()).map_err(|_| hostile())?,
            missing: AtomicU32::new(count),
            size: file.size,
            mtime: file.mtime,
        });
        self.names.extend_from_slice(place.path);
        Ok(())
    }

    /// Brings each pack's tasks into the order in which they lie in it, and forgets packs that nothing is needed from.
    pub(super) fn order_tasks(&mut self) {
        self.packs.retain(|pack| !pack.tasks.is_empty());
        self.pack_at = HashMap::new();
        for pack in &mut self.packs {
            pack.tasks.shrink_to_fit();
            pack.tasks.sort_unstable_by_key(|task| task.extent.offset);
        }
    }

    /// The packs that something is needed from.
    pub(super) fn packs(&self) -> &[PackWork] {
        &self.packs
    }

    /// Gives the packs away, to be brought back with what is still needed from them.
    pub(super) fn take_packs(&mut self) -> Vec<PackWork> {
        std::mem::take(&mut self.packs)
    }

    /// Takes back the packs that something is still needed from.
    pub(super) fn put_packs(&mut self, packs: Vec<PackWork>) {
        (self.packs, self.is_partial) = (packs, true);
    }

    /// Whether packs may hold much that is not needed.
    pub(super) fn is_partial(&self) -> bool {
        self.is_partial
    }

    /// Whether a file was there before.
    pub(super) fn is_in_place(&self, file: u32) -> bool {
        self.files.get(file as usize).is_some_and(|file| file.in_place)
    }

    /// A file's name.
    pub(super) fn place(&self, file: u32) -> Place<'_> {
        let Some(task) = self.files.get(file as usize) else { return Place { root: 0, path: b"" } };
        let from = task.name_at as usize;
        let path = self.names.get(from..from + task.name_len as usize).unwrap_or_default();
        Place { root: task.root, path }
    }

    /// A file's length in bytes.
    pub(super) fn size(&self, file: u32) -> u64 {
        self.files.get(file as usize).map_or(0, |file| file.size)
    }

    /// The length of a whole extent, in bytes.
    pub(super) fn extent_len(&self) -> usize {
        self.extent_bytes as usize
    }

    /// Where an extent begins in its file, and how long it must be, in bytes.
    pub(super) fn stretch(&self, task: &Task) -> (u64, u64) {
        let size = self.size(task.file);
        let begin = u64::from(task.index) * self.extent_bytes;
        (begin, size.saturating_sub(begin).min(self.extent_bytes))
    }

    /// Notes that one more extent is written; gives mode and time of modification when it was the file's last.
    pub(super) fn written(&self, file: u32) -> Option<(u32, i64)> {
        let task = self.files.get(file as usize)?;
        let was = task.missing.fetch_sub(1, Ordering::AcqRel);
        (was == 1).then_some((u32::from(task.mode), task.mtime))
    }

    /// What a pack is needed for, in words.
    pub(super) fn needed_for(&self, pack: &PackWork, layout: &Layout) -> String {
        let Some(first) = pack.tasks.first() else { return "nothing".to_owned() };
        let mut others: Vec<u32> =
            pack.tasks.iter().map(|task| task.file).filter(|file| *file != first.file).collect();
        others.sort_unstable();
        others.dedup();
        let name = layout.name(self.place(first.file));
        match others.len() {
            0 => name,
            1 => format!("{name} and another file"),
            count => format!("{name} and {count} other files"),
        }
    }

    /// How many files there are, empty ones and those outside the data directory included.
    pub fn file_count(&self) -> u64 {
        self.file_count
    }

    /// Their bytes.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Every file with bytes, for the fsync of each.
    pub(super) fn places(&self) -> impl Iterator<Item = Place<'_>> {
        (0..u32::try_from(self.files.len()).unwrap_or(u32::MAX)).map(|file| self.place(file))
    }
}

/// What a backup holds of an earlier recovery, which must not steer this one.
pub(super) fn is_left_out(path: &FilePath) -> bool {
    path.as_str().is_some_and(|name| crate::settings::SIGNAL_FILES.contains(&name))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use highwater_archive::manifest::ExtentDigest;

    use super::*;
    use crate::rebuild::RebuildOptions;

    fn pack(pack: u32) -> FileLine {
        FileLine::Pack { pack, path: format!("packs/x/{pack:06}"), header: vec![1] }
    }

    fn file(path: &str, pack: u32) -> FileLine {
        let extent = Extent { pack, frame: 0, offset: 122, stored_len: 40, digest: ExtentDigest([0; 16]) };
        let file = FileEntry { size: 9, mode: 0o600, mtime: 0, extents: vec![extent] };
        FileLine::File { path: path.parse().unwrap(), file }
    }

    /// Two writers of a backup begin packs 0 and 1 at once; the files of the second may come first in the list.
    #[test]
    fn packs_come_in_any_order_and_each_once() {
        let scratch = tempfile::tempdir().unwrap();
        let options = RebuildOptions {
            data_dir: scratch.path().join("data"),
            wal_dir: None,
            tablespaces: Vec::new(),
            owner: None,
            claimed: Vec::new(),
            jobs: 1,
            in_place: None,
        };
        let layout = Layout::create(&options, 0o700).unwrap();
        let mut work = Work::new(1 << 20);
        for line in [pack(1), file("a", 1), pack(0), pack(7), file("b", 0), file("c", 1)] {
            work.add(line, false, &layout).unwrap();
        }
        let refused = work.add(file("d", 2), false, &layout).unwrap_err().to_string();
        assert!(refused.contains("pack 2, which is not named before"), "{refused}");
        let refused = work.add(pack(1), false, &layout).unwrap_err().to_string();
        assert!(refused.contains("named twice"), "{refused}");
        work.order_tasks();
        let packs: Vec<_> = work.packs().iter().map(|pack| (pack.path.as_str(), pack.tasks.len())).collect();
        assert_eq!(packs, [("packs/x/000001", 2), ("packs/x/000000", 1)]);
    }
}
