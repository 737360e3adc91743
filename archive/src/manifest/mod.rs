//! What a backup is made of, as it is stored.
//!
//! A backup has one **head** ([`Manifest`], the object `backups/<id>/manifest`): small, one JSON document, written
//! last, and so the backup's commit point. All that grows with the cluster lies in streams of JSON lines beside it, cut
//! into parts that the head names with their digests: the **file list** ([`FileLine`]), every file with the extents
//! that hold its bytes, and the **relation map** ([`RelationLine`]), which relation a file belongs to.
//!
//! Writing: [`FileListWriter::push`] takes the entries in walk order, checks that order, cuts a part when enough
//! lines have gathered, seals and stores it, and forgets it; [`FileListWriter::finish`] gives the parts for the head. Reading:
//! [`FileListReader::next`] fetches one part at a time, holds its digest against the head's, and gives entries that are
//! already checked: paths that stay inside the data directory, in order, with as many extents as the size asks for.
//! Neither side ever holds more than one part, whatever the size of the cluster.

mod error;
mod file_list;
mod head;
mod id;
mod intent;
mod lines;
mod order;
mod parts;
mod path;
mod relations;
mod store;
#[cfg(test)]
mod tests;
mod text;

pub use error::ManifestError;
pub use file_list::{FileListReader, FileListWriter};
pub use head::{
    CollationLibrary, ControlCopy, Counts, DataPageFailure, Database, Extension, KeyringRef, LeftOut,
    Library, LoginPreload, Manifest, Owner, Part, PostgresInfo, PreviousBackup, Sorted, Source, Tablespace,
    WalRange,
};
pub use id::BackupId;
pub use intent::Intent;
pub use lines::{Extent, ExtentDigest, FileEntry, FileLine, OutsideRole};
pub use path::FilePath;
pub use relations::{RelationLine, RelationMapReader, RelationMapWriter};
pub use store::{
    ListedBackups, list_backups, read_intent, read_manifest, read_manifest_and_digest, write_intent,
    write_manifest,
};
