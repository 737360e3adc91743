//! The directories that a restore fills.

use std::path::Path;

use crate::places::Purpose;
use crate::tablespaces::Placed;

/// Where a cluster goes.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The data directory.
    pub target_dir: &'a Path,
    /// The place of `pg_wal`, when not in the data directory.
    pub wal_dir: Option<&'a Path>,
    /// The backup's tablespaces.
    pub tablespaces: &'a [Placed],
}

impl<'a> Places<'a> {
    /// Each of them, the data directory first.
    pub fn all(self) -> impl Iterator<Item = &'a Path> {
        std::iter::once(self.target_dir).chain(self.others().map(|(_, place)| place))
    }

    /// All but the data directory, and what each is for.
    pub fn others(self) -> impl Iterator<Item = (Purpose, &'a Path)> {
        let wal = self.wal_dir.map(|directory| (Purpose::Wal, directory));
        wal.into_iter().chain(self.tablespaces())
    }

    /// The directories of the tablespaces.
    pub fn tablespaces(self) -> impl Iterator<Item = (Purpose, &'a Path)> {
        self.tablespaces.iter().map(|placed| (Purpose::Tablespace(placed.oid), placed.directory.as_path()))
    }
}
