//! A data directory rebuilt from a backup's manifest and packs.
//!
//! First the file list is read as a stream: directories, links and empty files are made at once, and every extent becomes a
//! task of 48 bytes under the pack that holds it ([`Work`]). Then lanes, plain threads, take one pack after another. A lane
//! streams its pack by one request in chunks of at most 1 MiB, cuts out each frame it needs, decrypts it in place, decompresses
//! it into a buffer, and has that written to its place in its file: small files by itself, the others by writers, past the
//! page cache ([`mod@write`]). Nothing waits for order: a file is complete when its last
//! extent, whichever that is, is written, and the thread that wrote it sets owner, mode and time. So memory is the task table
//! plus a few MiB a lane, whatever the size of the cluster, and disk and network see long sequential transfers.
//!
//! Where files are there already, of a restore that was cut off or for `--delta`, the list is walked along the directory first and
//! what is not of this backup removed ([`mod@sweep`]); then all extents that are in place are taken out of the tasks, by their
//! digests ([`mod@compare`]), and the lanes fetch what is left.
//!
//! At the end one `syncfs` for each filesystem makes everything durable. `pg_control`, `backup_label` and the recovery
//! settings are not written here but after that, by `finish`: until then nothing in the directory would start.

mod claimed;
mod compare;
mod error;
mod lane;
mod layout;
mod source;
mod sweep;
mod sync;
mod work;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{FileListReader, Manifest};

pub use claimed::Claimed;
pub use compare::Reading;
pub use error::{OTHER_BACKUP, RebuildError};
pub use layout::Layout;
use sweep::Sweep;
pub use work::Work;

use crate::kept_wal::KeptWal;
use crate::ownership::Account;
use crate::tablespaces::Placed;

/// Where to rebuild and as whom.
#[derive(Debug, Clone)]
pub struct RebuildOptions {
    /// The data directory.
    pub data_dir: PathBuf,
    /// A place of its own for `pg_wal`.
    pub wal_dir: Option<PathBuf>,
    /// Where each tablespace goes.
    pub tablespaces: Vec<Placed>,
    /// Who gets the files, when that is not this process's user.
    pub owner: Option<Account>,
    /// The directories that are marked as this restore's: none else is filled or emptied under one of their names.
    pub claimed: Vec<Claimed>,
    /// How many packs are transferred at once, each by its own thread.
    pub jobs: usize,
    /// What is in these places is compared and kept where it is the same.
    pub in_place: Option<InPlace>,
}

/// What a rebuild over existing files must know.
#[derive(Debug, Clone)]
pub struct InPlace {
    /// How the files are read.
    pub reading: Reading,
    /// Directories of tablespaces that the backup does not have: what they hold of the cluster is removed.
    pub emptied: Vec<PathBuf>,
    /// WAL that is in no archive: moved aside first.
    pub kept_wal: Vec<KeptWal>,
}

/// What a rebuild did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rebuilt {
    /// Files written, those outside the data directory included.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// Those of them that were in place.
    pub kept_bytes: u64,
    /// Those of them that went past the page cache.
    pub direct_bytes: u64,
    /// Bytes fetched from the repository's packs.
    pub fetched_bytes: u64,
    /// Requests made for packs.
    pub requests: u64,
}

pub use crate::places::OWN_DIRECTORY;

/// Its file that is there as long as a restore has not come to its end.
pub const INCOMPLETE_MARKER: &str = "highwater/restore.incomplete";

/// Its directory for configuration files from outside the data directory.
pub const OUTSIDE_DIRECTORY: &str = "highwater/config";

/// Rebuilds everything but `pg_control`, `backup_label`, `tablespace_map` and settings, and makes it durable. `progress` is
/// called, from several threads, with the count of bytes just written. Blocks; call it where blocking is allowed, with a runtime
/// whose threads drive the store.
///
/// # Errors
/// [`RebuildError`] naming the object and the file it belongs to; what was written stays, with the marker, and does not start.
pub fn rebuild(
    runtime: &tokio::runtime::Handle,
    lineage: &Arc<Lineage>,
    manifest: &Manifest,
    options: &RebuildOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Rebuilt, RebuildError> {
    let layout = Layout::create(options, manifest.data_directory_mode)?;
    let mut work = list_files(runtime, lineage, manifest, &layout, options.in_place.as_ref())?;
    let mut kept_bytes = 0;
    if let Some(InPlace { reading, .. }) = &options.in_place {
        kept_bytes = compare::take_out(&mut work, &layout, lineage.keys(), *reading, options.jobs, progress)?;
        tracing::debug!(kept_bytes, "what is in place is known");
    }
    let totals = lane::run(runtime, lineage, &work, &layout, options.jobs, progress)?;
    tracing::debug!(bytes = work.total_bytes(), totals.direct_bytes, "all files are written");
    layout.seal()?;
    sync::everything(&layout, &work, &version_directory(manifest))?;
    Ok(Rebuilt { files: work.file_count(), bytes: work.total_bytes(), kept_bytes, ..totals })
}

/// The folder of a cluster in the directory of a tablespace.
pub fn version_directory(manifest: &Manifest) -> String {
    format!("PG_{}_{}", manifest.postgresql.major, manifest.postgresql.catalog_version)
}

/// Reads the file list to its end; what needs no pack is made on the way, and what is in the way removed.
fn list_files(
    runtime: &tokio::runtime::Handle,
    lineage: &Arc<Lineage>,
    manifest: &Manifest,
    layout: &Layout,
    in_place: Option<&InPlace>,
) -> Result<Work, RebuildError> {
    let mut work = Work::new(manifest.extent_bytes);
    let mut sweep = match in_place {
        Some(InPlace { emptied, kept_wal, .. }) => {
            for kept in kept_wal {
                kept.store(layout.owner())?;
            }
            let own = version_directory(manifest);
            for directory in emptied {
                layout.empty_tablespace(directory, &own)?;
            }
            Some(Sweep::begin(layout, own)?)
        }
        None => None,
    };
    let mut list = FileListReader::new(lineage.as_ref().clone(), manifest);
    while let Some(line) = runtime.block_on(list.next())? {
        let is_there = match &mut sweep {
            Some(sweep) => sweep.meet(&line)?,
            None => false,
        };
        work.add(line, is_there, layout)?;
    }
    if let Some(sweep) = sweep {
        sweep.finish()?;
    }
    work.order_tasks();
    Ok(work)
}

#[cfg(test)]
mod tests;
