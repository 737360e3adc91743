//! The relation map: which relation a file of the data directory belongs to.
//!
//! A stream of its own, so that a file list can be read without it: databases by oid, and after each database its relations
//! by file name. It was read from the catalogs while the backup ran, so it is a help for people and for choosing what to
//! restore, never the base of a decision about bytes.

use serde::{Deserialize, Serialize};

use super::parts::{PartsReader, PartsWriter, Stream};
use super::{BackupId, FilePath, Manifest, ManifestError, Part, text};
use crate::repository::lineage::Lineage;

/// One line of the relation map.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RelationLine {
    /// What follows belongs to this database; the empty name stands for the catalogs that all share.
    Database {
        /// Its name.
        database: String,
        /// Its oid; 0 for the shared catalogs.
        oid: u32,
    },
    /// A relation with storage.
    Relation {
        /// Path of its main fork's first segment below the data directory (`pg_relation_filepath`).
        #[serde(with = "text")]
        relation: FilePath,
        /// Its schema.
        schema: String,
        /// Its name.
        name: String,
        /// `relkind`: `r` table, `i` index, `S` sequence, `t` TOAST table, `m` materialised view.
        kind: String,
        /// Its oid.
        oid: u32,
        /// The table that an index or a TOAST table belongs to, as `schema.name`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        of: Option<String>,
        /// For an index: the collations that it depends on and whose order may change with a library, as `schema.name`; the
        /// database's own is `pg_catalog.default`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        collations: Vec<String>,
    },
}

/// Writes a relation map.
pub struct RelationMapWriter(PartsWriter);

impl RelationMapWriter {
    /// A relation map of `backup`.
    pub fn new(lineage: Lineage, backup: BackupId) -> RelationMapWriter {
        RelationMapWriter(PartsWriter::new(lineage, backup, Stream::Relations))
    }

    /// Appends a line; a full part is sealed and stored.
    pub async fn push(&mut self, line: &RelationLine) -> Result<(), ManifestError> {
        self.0
            .append(|out| {
                serde_json::to_writer(&mut *out, line)?;
                out.push(b'\n');
                Ok(1)
            })
            .await
    }

    /// Stores what is left; the parts for [`Manifest::relation_map`].
    pub async fn finish(self) -> Result<Vec<Part>, ManifestError> {
        self.0.finish().await
    }
}

/// Reads a relation map.
pub struct RelationMapReader(PartsReader);

impl RelationMapReader {
    /// The relation map of the backup that `manifest` describes.
    pub fn new(lineage: Lineage, manifest: &Manifest) -> RelationMapReader {
        RelationMapReader(PartsReader::new(lineage, manifest.relation_map.clone()))
    }

    /// The next line; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<RelationLine>, ManifestError> {
        if !self.0.advance().await? {
            return Ok(None);
        }
        serde_json::from_slice(self.0.line()).map(Some).map_err(|error| self.0.malformed(&error.to_string()))
    }
}
