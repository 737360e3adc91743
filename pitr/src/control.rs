//! `global/pg_control` of PostgreSQL 14 to 18: reading it exactly, and making a stored copy unusable by itself.
//!
//! The file is the C structure `ControlFileData` (`catalog/pg_control.h`) as a little-endian 64-bit machine lays it out,
//! its CRC-32C, and zeros up to 8,192 bytes. Three layouts are known: control version 1300 (14 to 16), 1700 (17) and 1800
//! (18, with `default_char_signedness`). Any other is refused: a guess here would be a guess about everything.

use crate::lsn::Lsn;
use crate::segment::WalSegmentSize;
use crate::time::PgTime;
use crate::timeline::TimelineId;
use crate::wal::PgMajor;

/// How long the file is (`PG_CONTROL_FILE_SIZE`).
pub const CONTROL_FILE_BYTES: usize = 8192;

/// Where each stored field stands. The layouts differ only behind `data_checksum_version`.
mod at {
    pub const SYSTEM_IDENTIFIER: usize = 0;
    pub const CONTROL_VERSION: usize = 8;
    pub const CATALOG_VERSION: usize = 12;
    pub const STATE: usize = 16;
    pub const TIME: usize = 24;
    pub const CHECKPOINT: usize = 32;
    pub const REDO: usize = 40;
    pub const TIMELINE: usize = 48;
    pub const PREVIOUS_TIMELINE: usize = 52;
    pub const FULL_PAGE_WRITES: usize = 56;
    pub const NEXT_FULL_XID: usize = 64;
    pub const NEXT_OID: usize = 72;
    pub const CHECKPOINT_TIME: usize = 104;
    pub const MIN_RECOVERY_POINT: usize = 136;
    pub const MIN_RECOVERY_TIMELINE: usize = 144;
    pub const BACKUP_START: usize = 152;
    pub const BACKUP_END: usize = 160;
    pub const BACKUP_END_REQUIRED: usize = 168;
    pub const WAL_LEVEL: usize = 172;
    pub const WAL_LOG_HINTS: usize = 176;
    pub const MAX_CONNECTIONS: usize = 180;
    pub const MAX_WORKER_PROCESSES: usize = 184;
    pub const MAX_WAL_SENDERS: usize = 188;
    pub const MAX_PREPARED_XACTS: usize = 192;
    pub const MAX_LOCKS_PER_XACT: usize = 196;
    pub const TRACK_COMMIT_TIMESTAMP: usize = 200;
    pub const MAX_ALIGN: usize = 204;
    pub const FLOAT_FORMAT: usize = 208;
    pub const BLOCK_SIZE: usize = 216;
    pub const RELATION_SEGMENT_BLOCKS: usize = 220;
    pub const WAL_BLOCK_SIZE: usize = 224;
    pub const WAL_SEGMENT_SIZE: usize = 228;
    pub const DATA_CHECKSUMS: usize = 252;
}

/// Where the CRC of `layout` stands: behind the mock authentication nonce of 32 bytes.
const fn crc_at(layout: ControlLayout) -> usize {
    match layout {
        ControlLayout::V1300 | ControlLayout::V1700 => 288,
        ControlLayout::V1800 => 292,
    }
}

/// A known layout, named by its `PG_CONTROL_VERSION`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ControlLayout {
    V1300,
    V1700,
    V1800,
}

/// `FLOATFORMAT_VALUE`: what a float must look like for the file to be of this kind of machine.
const FLOAT_FORMAT_VALUE: u64 = 1_234_567.0_f64.to_bits();

/// A checkpoint position that PostgreSQL takes for well-formed (`XRecOffIsValid`) and will find in no WAL.
const NO_CHECKPOINT: u64 = 0xFFFF_FFFF_0000_0028;

/// What a cluster was doing when the file was last written (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClusterState {
    /// Being initialised.
    StartingUp,
    /// Cleanly shut down.
    ShutDown,
    /// A standby, cleanly shut down.
    ShutDownInRecovery,
    /// Shutting down.
    ShuttingDown,
    /// In crash recovery.
    InCrashRecovery,
    /// In archive recovery, or a standby.
    InArchiveRecovery,
    /// Running, or crashed while it was.
    InProduction,
}

/// `wal_level` as the server last had it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WalLevel {
    /// `minimal`: no archive can be built on it.
    Minimal,
    /// `replica`.
    Replica,
    /// `logical`.
    Logical,
}

/// The fields of `pg_control` that a backup or a restore depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlFile {
    /// The cluster's identity.
    pub system_identifier: u64,
    /// `PG_CONTROL_VERSION`: 1300, 1700 or 1800.
    pub control_version: u32,
    /// `CATALOG_VERSION_NO`.
    pub catalog_version: u32,
    /// What the cluster was doing.
    pub state: ClusterState,
    /// When the file was last written, to the second.
    pub time: PgTime,
    /// The last checkpoint record.
    pub checkpoint: Lsn,
    /// Where recovery from it begins.
    pub redo: Lsn,
    /// The timeline of that checkpoint.
    pub timeline: TimelineId,
    /// The timeline before it, the same one unless it ended a recovery.
    pub previous_timeline: TimelineId,
    /// `full_page_writes` at that checkpoint.
    pub full_page_writes: bool,
    /// The next transaction's 64-bit id at that checkpoint.
    pub next_full_xid: u64,
    /// The next free oid at that checkpoint.
    pub next_oid: u32,
    /// When that checkpoint began, to the second.
    pub checkpoint_time: PgTime,
    /// In recovery: up to where WAL must be replayed for consistency; else 0/0.
    pub min_recovery_point: Lsn,
    /// That position's timeline; `None` for 0.
    pub min_recovery_timeline: Option<TimelineId>,
    /// While a restored backup is not consistent yet: where it began.
    pub backup_start: Lsn,
    /// While a restored standby's backup is not consistent yet: where it ends.
    pub backup_end: Lsn,
    /// Recovery must still see the record that ends the backup.
    pub backup_end_required: bool,
    /// `wal_level`.
    pub wal_level: WalLevel,
    /// `wal_log_hints`.
    pub wal_log_hints: bool,
    /// `max_connections`.
    pub max_connections: u32,
    /// `max_worker_processes`.
    pub max_worker_processes: u32,
    /// `max_wal_senders`.
    pub max_wal_senders: u32,
    /// `max_prepared_transactions`.
    pub max_prepared_xacts: u32,
    /// `max_locks_per_transaction`.
    pub max_locks_per_xact: u32,
    /// `track_commit_timestamp`.
    pub track_commit_timestamp: bool,
    /// Size of a data page, bytes.
    pub block_size: u32,
    /// Blocks in a file of a relation (`RELSEG_SIZE`); 131072 makes 1 GiB.
    pub relation_segment_blocks: u32,
    /// Size of a page of WAL, bytes.
    pub wal_block_size: u32,
    /// `wal_segment_size`.
    pub segment_size: WalSegmentSize,
    /// The version of data page checksums; 0: they are off.
    pub data_checksums: u32,
}

/// Why bytes are not a `pg_control` this program knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// Shorter than the file always is.
    #[error("pg_control has {0} bytes, not {CONTROL_FILE_BYTES}")]
    Length(usize),
    /// A layout that is not known here.
    #[error(
        "pg_control is of control version {0}; known are 1300 (PostgreSQL 14 to 16), 1700 (17) and 1800 (18)"
    )]
    UnknownVersion(u32),
    /// Written by a machine of the other byte order.
    #[error("pg_control was written on a machine of another byte order")]
    ByteOrder,
    /// A torn read, or damage.
    #[error("the CRC of pg_control is {found:08X}, its content gives {expected:08X}")]
    Crc {
        /// What the content gives.
        expected: u32,
        /// What is stored.
        found: u32,
    },
    /// A value that PostgreSQL never writes.
    #[error("pg_control: {field} is {value}, which PostgreSQL does not write")]
    Value {
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
}

impl ControlError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::UnknownVersion(_) => "a newer version of highwater may know it".to_owned(),
            Self::ByteOrder => {
                "a cluster can only be restored on a machine of the kind it comes from".to_owned()
            }
            Self::Crc { .. } => {
                "PostgreSQL may be writing it at this moment: read it again; if it stays, the file is damaged"
                    .to_owned()
            }
            Self::Length(_) | Self::Value { .. } => "the file is damaged".to_owned(),
        })
    }
}

impl ControlFile {
    /// Parses the file's bytes, 8,192 of them.
    ///
    /// # Errors
    ///
    /// [`ControlError`]. A wrong CRC is what a torn read looks like; read again (`get_controlfile` in
    /// `common/controldata_utils.c` tries ten times, 10 ms apart).
    pub fn parse(bytes: &[u8]) -> Result<Self, ControlError> {
        check(bytes)?;
        let fields = Fields { bytes };
        let control_version = fields.u32(at::CONTROL_VERSION)?;
        let float = fields.u64(at::FLOAT_FORMAT)?;
        if float != FLOAT_FORMAT_VALUE {
            return Err(ControlError::Value { field: "floatFormat", value: float });
        }
        fields.exactly("maxAlign", at::MAX_ALIGN, 8)?;
        Ok(Self {
            system_identifier: fields.u64(at::SYSTEM_IDENTIFIER)?,
            control_version,
            catalog_version: fields.u32(at::CATALOG_VERSION)?,
            state: state(fields.u32(at::STATE)?)?,
            time: fields.seconds("time", at::TIME)?,
            checkpoint: fields.lsn(at::CHECKPOINT)?,
            redo: fields.lsn(at::REDO)?,
            timeline: fields.timeline("ThisTimeLineID", at::TIMELINE)?,
            previous_timeline: fields.timeline("PrevTimeLineID", at::PREVIOUS_TIMELINE)?,
            full_page_writes: fields.flag("fullPageWrites", at::FULL_PAGE_WRITES)?,
            next_full_xid: fields.u64(at::NEXT_FULL_XID)?,
            next_oid: fields.u32(at::NEXT_OID)?,
            checkpoint_time: fields.seconds("checkpoint time", at::CHECKPOINT_TIME)?,
            min_recovery_point: fields.lsn(at::MIN_RECOVERY_POINT)?,
            min_recovery_timeline: TimelineId::new(fields.u32(at::MIN_RECOVERY_TIMELINE)?),
            backup_start: fields.lsn(at::BACKUP_START)?,
            backup_end: fields.lsn(at::BACKUP_END)?,
            backup_end_required: fields.flag("backupEndRequired", at::BACKUP_END_REQUIRED)?,
            wal_level: wal_level(fields.u32(at::WAL_LEVEL)?)?,
            wal_log_hints: fields.flag("wal_log_hints", at::WAL_LOG_HINTS)?,
            max_connections: fields.u32(at::MAX_CONNECTIONS)?,
            max_worker_processes: fields.u32(at::MAX_WORKER_PROCESSES)?,
            max_wal_senders: fields.u32(at::MAX_WAL_SENDERS)?,
            max_prepared_xacts: fields.u32(at::MAX_PREPARED_XACTS)?,
            max_locks_per_xact: fields.u32(at::MAX_LOCKS_PER_XACT)?,
            track_commit_timestamp: fields.flag("track_commit_timestamp", at::TRACK_COMMIT_TIMESTAMP)?,
            block_size: fields.power_of_two("blcksz", at::BLOCK_SIZE, 1024, 32768)?,
            relation_segment_blocks: fields.positive("relseg_size", at::RELATION_SEGMENT_BLOCKS)?,
            wal_block_size: fields.power_of_two("xlog_blcksz", at::WAL_BLOCK_SIZE, 1024, 65536)?,
            segment_size: fields.segment_size()?,
            data_checksums: fields.u32(at::DATA_CHECKSUMS)?,
        })
    }

    /// The major version, by catalog version; `None` for one that was never released (a beta's).
    pub fn major(&self) -> Option<PgMajor> {
        // CATALOG_VERSION_NO never changes once a major is released.
        match self.catalog_version {
            202_107_181 => Some(PgMajor::V14),
            202_209_061 => Some(PgMajor::V15),
            202_307_071 => Some(PgMajor::V16),
            202_406_281 => Some(PgMajor::V17),
            202_506_291 => Some(PgMajor::V18),
            _ => None,
        }
    }
}

/// Makes a copy of `pg_control` unusable without the `backup_label` that belongs to it, and gives it the right CRC.
///
/// With the label PostgreSQL begins at the label's checkpoint and overwrites this field (`InitWalRecovery`). Without it the
/// server looks for the checkpoint named here, which exists in no WAL, and refuses to start, where it otherwise would start a
/// corrupt cluster from a checkpoint in the middle of the backup.
///
/// # Errors
///
/// As [`ControlFile::parse`].
pub fn invalidate_checkpoint(bytes: &mut [u8]) -> Result<(), ControlError> {
    ControlFile::parse(bytes)?;
    let layout = check(bytes)?;
    put(bytes, at::CHECKPOINT, &NO_CHECKPOINT.to_le_bytes())?;
    let crc = content_crc(bytes, layout)?;
    put(bytes, crc_at(layout), &crc.to_le_bytes())
}

/// Whether [`invalidate_checkpoint`] made this copy.
pub fn is_invalidated(control: &ControlFile) -> bool {
    control.checkpoint == Lsn::new(NO_CHECKPOINT)
}

/// Length, version and CRC.
fn check(bytes: &[u8]) -> Result<ControlLayout, ControlError> {
    if bytes.len() != CONTROL_FILE_BYTES {
        return Err(ControlError::Length(bytes.len()));
    }
    let fields = Fields { bytes };
    let layout = match fields.u32(at::CONTROL_VERSION)? {
        1300 => ControlLayout::V1300,
        1700 => ControlLayout::V1700,
        1800 => ControlLayout::V1800,
        // `pg_control.h` keeps versions below 65536, so that the byte order can be told.
        version if version.is_multiple_of(65536) && version != 0 => return Err(ControlError::ByteOrder),
        version => return Err(ControlError::UnknownVersion(version)),
    };
    let expected = content_crc(bytes, layout)?;
    let found = fields.u32(crc_at(layout))?;
    if expected != found {
        return Err(ControlError::Crc { expected, found });
    }
    Ok(layout)
}

fn content_crc(bytes: &[u8], layout: ControlLayout) -> Result<u32, ControlError> {
    let content = bytes.get(..crc_at(layout)).ok_or(ControlError::Length(bytes.len()))?;
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, content);
    // A 32-bit algorithm's sum fits.
    Ok(crc as u32)
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) -> Result<(), ControlError> {
    let length = bytes.len();
    let field = bytes.get_mut(at..at + value.len()).ok_or(ControlError::Length(length))?;
    field.copy_from_slice(value);
    Ok(())
}

fn state(value: u32) -> Result<ClusterState, ControlError> {
    Ok(match value {
        0 => ClusterState::StartingUp,
        1 => ClusterState::ShutDown,
        2 => ClusterState::ShutDownInRecovery,
        3 => ClusterState::ShuttingDown,
        4 => ClusterState::InCrashRecovery,
        5 => ClusterState::InArchiveRecovery,
        6 => ClusterState::InProduction,
        _ => return Err(ControlError::Value { field: "state", value: u64::from(value) }),
    })
}

fn wal_level(value: u32) -> Result<WalLevel, ControlError> {
    Ok(match value {
        0 => WalLevel::Minimal,
        1 => WalLevel::Replica,
        2 => WalLevel::Logical,
        _ => return Err(ControlError::Value { field: "wal_level", value: u64::from(value) }),
    })
}

struct Fields<'a> {
    bytes: &'a [u8],
}

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> Result<[u8; N], ControlError> {
        let field = self.bytes.get(at..at + N).and_then(|field| field.try_into().ok());
        field.ok_or(ControlError::Length(self.bytes.len()))
    }

    fn u32(&self, at: usize) -> Result<u32, ControlError> {
        self.array(at).map(u32::from_le_bytes)
    }

    fn u64(&self, at: usize) -> Result<u64, ControlError> {
        self.array(at).map(u64::from_le_bytes)
    }

    fn lsn(&self, at: usize) -> Result<Lsn, ControlError> {
        self.u64(at).map(Lsn::new)
    }

    fn flag(&self, field: &'static str, at: usize) -> Result<bool, ControlError> {
        match self.array::<1>(at)? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(ControlError::Value { field, value: u64::from(other) }),
        }
    }

    fn seconds(&self, field: &'static str, at: usize) -> Result<PgTime, ControlError> {
        let value = self.u64(at)?;
        PgTime::from_unix_seconds(value.cast_signed()).ok_or(ControlError::Value { field, value })
    }

    fn timeline(&self, field: &'static str, at: usize) -> Result<TimelineId, ControlError> {
        TimelineId::new(self.u32(at)?).ok_or(ControlError::Value { field, value: 0 })
    }

    fn exactly(&self, field: &'static str, at: usize, wanted: u32) -> Result<(), ControlError> {
        match self.u32(at)? {
            value if value == wanted => Ok(()),
            value => Err(ControlError::Value { field, value: u64::from(value) }),
        }
    }

    fn positive(&self, field: &'static str, at: usize) -> Result<u32, ControlError> {
        match self.u32(at)? {
            0 => Err(ControlError::Value { field, value: 0 }),
            value => Ok(value),
        }
    }

    fn power_of_two(
        &self,
        field: &'static str,
        at: usize,
        least: u32,
        most: u32,
    ) -> Result<u32, ControlError> {
        match self.u32(at)? {
            value if value.is_power_of_two() && (least..=most).contains(&value) => Ok(value),
            value => Err(ControlError::Value { field, value: u64::from(value) }),
        }
    }

    fn segment_size(&self) -> Result<WalSegmentSize, ControlError> {
        let value = self.u32(at::WAL_SEGMENT_SIZE)?;
        WalSegmentSize::try_from(value)
            .map_err(|_| ControlError::Value { field: "xlog_seg_size", value: u64::from(value) })
    }
}

#[cfg(test)]
#[path = "control_tests.rs"]
mod tests;
