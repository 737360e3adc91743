//! What must hold from one entry of a file list to the next.
//!
//! Both the writer and the reader run every entry through [`OrderCheck`]: a list that was written can be read, and one that
//! is read is not worse than what was written. Paths grow strictly in walk order, and lie in a directory that was named before;
//! files from outside come last; an extent's pack was named before; a file has as many extents as its size asks for.

use std::collections::HashSet;

use super::{FileEntry, FileLine, FilePath};

/// Bytes of the largest frame that a pack may hold: 1 MiB of raw bytes that did not compress, and what sealing adds, with room
/// for larger extents.
const MAX_STORED_FRAME: u32 = 17 << 20;

/// Checks entries in order.
pub(super) struct OrderCheck {
    extent_bytes: u32,
    last: Option<FilePath>,
    open_dirs: Vec<FilePath>,
    outside: Option<String>,
    packs: HashSet<u32>,
}

impl OrderCheck {
    pub fn new(extent_bytes: u32) -> OrderCheck {
        OrderCheck { extent_bytes, last: None, open_dirs: Vec::new(), outside: None, packs: HashSet::new() }
    }

    /// Says what is wrong with `entry` at this place, if anything is.
    pub fn check(&mut self, entry: &FileLine) -> Result<(), String> {
        match entry {
            FileLine::Pack { pack, header, path } => {
                if header.is_empty() || path.is_empty() {
                    return Err(format!("pack {pack} has no header or no path"));
                }
                if !self.packs.insert(*pack) {
                    return Err(format!("pack {pack} is named twice"));
                }
                Ok(())
            }
            FileLine::Dir { path, .. } | FileLine::Tablespace { path, .. } => {
                self.advance(path)?;
                self.open_dirs.push(path.clone());
                Ok(())
            }
            FileLine::Symlink { path, .. } => self.advance(path),
            FileLine::File { path, file } => {
                self.advance(path)?;
                self.check_file(path, file)
            }
            FileLine::Outside { path, file, .. } => {
                if !path.starts_with('/') {
                    return Err(format!("`{path}` is not an absolute path"));
                }
                if self.outside.as_ref().is_some_and(|last| last >= path) {
                    return Err(format!("`{path}` is out of order"));
                }
                self.outside = Some(path.clone());
                self.check_file(path, file)
            }
        }
    }

    fn advance(&mut self, path: &FilePath) -> Result<(), String> {
        if self.outside.is_some() || self.last.as_ref().is_some_and(|last| last >= path) {
            return Err(format!("`{path}` is out of order"));
        }
        if let Some(parent) = path.parent() {
            while self.open_dirs.last().is_some_and(|dir| dir.as_bytes() != parent) {
                self.open_dirs.pop();
            }
            if self.open_dirs.is_empty() {
                return Err(format!("`{path}` lies in no directory of the list"));
            }
        }
        self.last = Some(path.clone());
        Ok(())
    }

    fn check_file(&self, path: &dyn std::fmt::Display, file: &FileEntry) -> Result<(), String> {
        let wanted = file.size.div_ceil(u64::from(self.extent_bytes));
        if file.extents.len() as u64 != wanted {
            return Err(format!("`{path}` has {} extents, its size asks for {wanted}", file.extents.len()));
        }
        for extent in &file.extents {
            if !self.packs.contains(&extent.pack) {
                return Err(format!("`{path}` lies in pack {}, which is not named before", extent.pack));
            }
            if extent.stored_len > MAX_STORED_FRAME {
                return Err(format!("`{path}` has a frame of {} bytes", extent.stored_len));
            }
        }
        Ok(())
    }
}
