//! The head of a manifest: what a backup is, in one JSON document.
//!
//! Unknown fields are ignored when it is read, so that later versions can add some. Byte counts, LSNs as PostgreSQL
//! prints them, times in RFC 3339 UTC. The exact list stands in `docs/format.md`, section 7.

use std::collections::BTreeMap;

use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::time::PgTime;
use highwater_pitr::timeline::TimelineId;
use serde::{Deserialize, Serialize};

use super::{BackupId, FilePath, text};
use crate::seal::{Digest, LineageId};

/// The head of a backup's manifest.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// The backup's name.
    #[serde(with = "text")]
    pub backup: BackupId,
    /// The label given to PostgreSQL, shown in lists.
    pub label: String,
    /// The lineage it belongs to.
    #[serde(with = "text")]
    pub lineage: LineageId,
    /// The program that wrote it, as in `highwater 0.1.0`.
    pub tool: String,
    /// Where the files were read.
    pub source: Source,
    /// When the backup began, by the host's clock.
    pub started_at: jiff::Timestamp,
    /// When `pg_backup_stop` had returned, by the host's clock.
    pub stopped_at: jiff::Timestamp,
    /// The WAL that makes the copy consistent.
    pub wal: WalRange,
    /// What server was copied, and what of its settings a restore must know.
    pub postgresql: PostgresInfo,
    /// `global/pg_control`, which is in no pack.
    pub control: ControlCopy,
    /// What `pg_backup_stop` gave for `backup_label`, byte for byte.
    pub backup_label: String,
    /// What `pg_backup_stop` gave for `tablespace_map`, byte for byte; empty without tablespaces.
    pub tablespace_map: String,
    /// Tablespaces outside `base` and `global`, by oid.
    pub tablespaces: Vec<Tablespace>,
    /// Databases, by oid.
    pub databases: Vec<Database>,
    /// The data directory's path on the host.
    pub data_directory: String,
    /// Mode bits of the data directory itself.
    pub data_directory_mode: u32,
    /// Who owns the data directory.
    pub owner: Owner,
    /// Where `pg_wal` led, when it was a symbolic link.
    pub pg_wal_target: Option<String>,
    /// `config_file`, `hba_file` and `ident_file` as the server names them.
    pub config_files: BTreeMap<String, String>,
    /// What belongs to the cluster and was left out on purpose, private keys above all.
    pub left_out: Vec<LeftOut>,
    /// Pages that failed verification, at most [`Manifest::MAX_PAGE_FAILURES`] of them listed.
    pub page_failures: Vec<DataPageFailure>,
    /// How many pages failed in all.
    pub page_failure_count: u64,
    /// Totals.
    pub counts: Counts,
    /// Length of every extent but a file's last, in bytes.
    pub extent_bytes: u32,
    /// How many packs the backup wrote: `packs/<backup>/000000` and on.
    pub packs: u32,
    /// The file list, in order.
    pub file_list: Vec<Part>,
    /// The relation map, in order.
    pub relation_map: Vec<Part>,
    /// The backup before this one in the lineage, and its manifest (I9); none for the first.
    pub previous: Option<PreviousBackup>,
    /// End of the contiguous WAL in the archive when this manifest was written, from this backup's start (I9).
    #[serde(with = "text")]
    pub wal_end: Lsn,
    /// The keyring generation that sealed it.
    pub keyring: KeyringRef,
}

impl Manifest {
    /// The most page failures that are listed one by one.
    pub const MAX_PAGE_FAILURES: usize = 1000;
}

/// Where the files of a backup were read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Beside the data directory of the primary.
    Local,
}

/// The WAL without which the copy is not consistent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WalRange {
    /// The timeline the backup was taken on, from start to stop.
    pub timeline: TimelineId,
    /// START WAL LOCATION: the redo pointer of the backup's checkpoint.
    #[serde(with = "text")]
    pub start_lsn: Lsn,
    /// STOP WAL LOCATION: recovery is consistent once it has replayed up to here.
    #[serde(with = "text")]
    pub stop_lsn: Lsn,
    /// The segment that holds `start_lsn`.
    #[serde(with = "text")]
    pub first_segment: SegmentName,
    /// The segment that holds the last byte before `stop_lsn`.
    #[serde(with = "text")]
    pub last_segment: SegmentName,
    /// The server's `clock_timestamp()`, read on the backup's session right before `pg_backup_stop` was called: everything
    /// committed until then lies before `stop_lsn`, so the WAL up to there is known to reach this moment.
    pub stop_time: PgTime,
}

/// The server that was copied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PostgresInfo {
    /// Major version, 14 and on.
    pub major: u16,
    /// `SELECT version()`.
    pub version: String,
    /// From pg_control.
    #[serde(with = "text")]
    pub system_identifier: u64,
    /// Catalog version number, from pg_control.
    pub catalog_version: u32,
    /// Version of pg_control's layout.
    pub control_version: u32,
    /// Size of a data page in bytes.
    pub block_bytes: u32,
    /// Pages in one segment file of a relation.
    pub relation_segment_blocks: u32,
    /// Size of a WAL segment.
    pub wal_segment_bytes: WalSegmentSize,
    /// Whether data pages carry checksums.
    pub data_checksums: bool,
    /// Settings that a restored server must not be below, or that decide how it starts, as `SHOW` prints them.
    pub settings: BTreeMap<String, String>,
    /// Version of the C library that the server sorts text with, as it tells it; `None` where it tells none, or was not asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libc: Option<String>,
    /// Major version of the ICU library that the server's program is linked to; `None` where there is none, or it was not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub icu: Option<u16>,
    /// Libraries that roles or databases load at a login; `None` in a manifest of before they were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub login_preloads: Option<Vec<LoginPreload>>,
}

/// A preload setting of a role, a database, or a role in a database (`pg_db_role_setting`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginPreload {
    /// The database; `None` for all.
    pub database: Option<String>,
    /// The role; `None` for all.
    pub role: Option<String>,
    /// `session_preload_libraries` or `local_preload_libraries`.
    pub setting: String,
    /// Its value: libraries, separated by commas.
    pub value: String,
}

/// `global/pg_control` as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ControlCopy {
    /// The file, 8,192 bytes, with the checkpoint made invalid and the CRC computed again, so that a copy without its
    /// backup_label refuses to start. It differs from the file that was read in `checkPoint` and the CRC alone.
    #[serde(with = "text::base64")]
    pub bytes: Vec<u8>,
    /// Mode bits.
    pub mode: u32,
    /// `checkPoint` as it was read.
    #[serde(with = "text")]
    pub checkpoint_lsn: Lsn,
    /// `checkPointCopy.redo` as it was read.
    #[serde(with = "text")]
    pub redo_lsn: Lsn,
    /// `checkPointCopy.ThisTimeLineID` as it was read.
    pub timeline: TimelineId,
}

/// A tablespace with a place of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tablespace {
    /// Its oid, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Its name, when the catalog still had it.
    pub name: Option<String>,
    /// Where the link led; `None` for one in place (`allow_in_place_tablespaces`).
    pub path: Option<String>,
    /// Bytes of its files.
    pub bytes: u64,
}

/// A database of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Database {
    /// Its oid.
    pub oid: u32,
    /// Its name.
    pub name: String,
    /// Server encoding, as in `UTF8`.
    pub encoding: String,
    /// `datcollate`.
    pub collate: String,
    /// `datctype`.
    pub ctype: String,
    /// `c` libc, `i` ICU, `b` builtin.
    pub locale_provider: String,
    /// `datcollversion` (15 and on): what the restoring host's library is compared with.
    pub collation_version: Option<String>,
    /// Whether it was asked to the end for the relation map and the extensions (templates without connections cannot be).
    pub examined: bool,
    /// Its extensions, by name.
    pub extensions: Vec<Extension>,
    /// Versions recorded for single collations that its objects may use, as `schema.name` → version.
    pub collations: BTreeMap<String, String>,
    /// The version that the library had for the default collation when it was asked (15 and on); it differs from
    /// `collation_version` where the library was changed and the indexes were not declared rebuilt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub library_collation_version: Option<String>,
    /// What is known of each of `collations`; `None` in a manifest of before it was recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_libraries: Option<BTreeMap<String, CollationLibrary>>,
    /// Libraries outside the server itself that its functions are in; `None` in a manifest of before they were recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub libraries: Option<Vec<Library>>,
    /// Tables whose rows are put into partitions by ranges of text, at most [`Database::MAX_RANGE_PARTITIONED`] of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub range_partitioned: Vec<Sorted>,
}

impl Database {
    /// The most tables partitioned by ranges of text that are listed.
    pub const MAX_RANGE_PARTITIONED: usize = 1000;
}

/// What a collation is of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CollationLibrary {
    /// `c` libc, `i` ICU, `b` builtin.
    pub provider: String,
    /// The version that the library had for it when it was asked.
    pub version: Option<String>,
}

/// A shared library that functions of a database are in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Library {
    /// As `pg_proc.probin` names it: `$libdir/hstore`.
    pub library: String,
    /// The extension that brought the functions; `None` for those that were made by themselves.
    pub extension: Option<String>,
    /// How many functions.
    pub functions: u64,
}

/// Something that depends on the order of text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sorted {
    /// Its schema.
    pub schema: String,
    /// Its name.
    pub name: String,
    /// The collations it depends on, as `schema.name`; the database's own is `pg_catalog.default`.
    pub collations: Vec<String>,
}

/// An extension of a database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Installed version.
    pub version: String,
}

/// Owner of the data directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// User's name, or its number where it has none.
    pub user: String,
    /// Group's name, or its number where it has none.
    pub group: String,
    /// User's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
}

/// Something that belongs to the cluster and is not in the backup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its absolute path on the host.
    pub path: String,
    /// What it is and why it is not here.
    pub reason: String,
}

/// A page that failed verification and is in the backup as it was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataPageFailure {
    /// The file.
    #[serde(with = "text")]
    pub file: FilePath,
    /// The block's number in the relation, counted over all its segment files.
    pub block: u32,
    /// `database.schema.relation`, where the relation map knows it.
    pub relation: Option<String>,
    /// What is wrong, with the checksums expected and found.
    pub problem: String,
}

/// What a backup amounts to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Files, those outside the data directory and `pg_control` included.
    pub files: u64,
    /// Directories and links.
    pub directories: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Extents, one frame each.
    pub extents: u64,
    /// Bytes of the packs this backup wrote.
    pub stored_bytes: u64,
    /// Pages whose checksum was verified.
    pub pages_verified: u64,
    /// Relation files cut short while they were read, and filled with zeros up to the size seen before.
    pub padded_files: u64,
    /// Files that were gone when their turn came.
    pub vanished_files: u64,
}

/// One part of a stream of lines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Path below the lineage.
    pub path: String,
    /// Bytes of its lines.
    pub length: u64,
    /// How many lines it has.
    pub lines: u64,
    /// Keyed digest of its lines.
    #[serde(with = "text")]
    pub digest: Digest,
}

/// The backup before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreviousBackup {
    /// Its name.
    #[serde(with = "text")]
    pub backup: BackupId,
    /// Keyed digest of its manifest's plaintext, as that object's header holds it.
    #[serde(with = "text")]
    pub digest: Digest,
}

/// Which keyring was in use.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyringRef {
    /// Generation; its copy is `backups/<id>/keyring`.
    pub generation: u32,
    /// Its fingerprint.
    pub fingerprint: String,
}
