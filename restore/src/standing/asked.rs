//! What a restore is asked to fill, beside what an unfinished one says of itself.

use std::path::Path;

use highwater_archive::manifest::Manifest;

use crate::filled::Places;
use crate::outside::Relocation;
use crate::unfinished::Record;

/// What a restore is asked to fill, for comparison.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    /// The directories.
    pub places: Places<'a>,
    /// Where configuration goes.
    pub configuration: &'a Relocation,
    /// Its lineage.
    pub lineage: &'a str,
}

impl Asked<'_> {
    /// What of an unfinished restore is not as it is asked for, in words.
    pub(super) fn difference(&self, record: &Record, manifest: &Manifest, delta: bool) -> Option<String> {
        let Asked { places, configuration, lineage } = self;
        let begun = &record.restore;
        let at = |path: Option<&Path>| {
            path.map_or_else(|| "inside".to_owned(), |path| format!("in {}", path.display()))
        };
        if !delta && begun.lineage != *lineage {
            return Some(format!("it is of lineage {}, and this one of {lineage}", begun.lineage));
        }
        if !delta && begun.backup != manifest.backup.as_str() {
            return Some(format!("it is of backup {}, and this one of {}", begun.backup, manifest.backup));
        }
        if begun.wal_dir.as_deref() != places.wal_dir {
            let (was, now) = (at(begun.wal_dir.as_deref()), at(places.wal_dir));
            return Some(format!("it puts pg_wal {was}, and this one {now}"));
        }
        for placed in places.tablespaces {
            let was = begun.tablespaces.iter().find(|tablespace| tablespace.oid == placed.oid);
            if let Some(was) = was.filter(|was| was.directory != placed.directory) {
                let (oid, was, now) = (placed.oid, was.directory.display(), placed.directory.display());
                return Some(format!("it puts tablespace {oid} in {was}, and this one in {now}"));
            }
        }
        let config_to = configuration.directory();
        if begun.config_to.as_deref() != config_to {
            let (was, now) = (at(begun.config_to.as_deref()), at(config_to));
            return Some(format!("it puts configuration {was}, and this one {now}"));
        }
        None
    }
}
