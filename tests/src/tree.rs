//! What lies below a directory, while others may be writing there.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use highwater_archive::durable::TEMP_PREFIX;

/// All files below a directory, by their path below it; links to directories are followed. Without those under a
/// temporary name, which are not there yet, and without what goes away while we look; nothing where there is no directory.
pub fn files(directory: &Path) -> BTreeMap<String, PathBuf> {
    let mut found = BTreeMap::new();
    let mut open = vec![directory.to_owned()];
    while let Some(at) = open.pop() {
        let entries = match std::fs::read_dir(&at) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => panic!("{}: {error}", at.display()),
        };
        for entry in entries {
            let entry = entry.unwrap_or_else(|error| panic!("{}: {error}", at.display()));
            let path = entry.path();
            if path.is_dir() {
                open.push(path);
            } else if !entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                let below = path.strip_prefix(directory).expect("below it");
                found.insert(below.to_str().expect("a path in UTF-8").to_owned(), path);
            }
        }
    }
    found
}
