//! From extents to stored packs.
//!
//! Every worker fills a pack of its own, block by block from a pool. A full pack goes to the uploads, which run beside the workers;
//! when the store is done with it, its blocks return to the pool. A worker that finds the pool empty waits: the pool is the memory
//! limit of a backup. It holds as many blocks as all workers' packs take when they are full, so whoever waits is waiting for an
//! upload: the packs that are being filled, its own among them and not full, hold fewer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender};
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{BackupId, Extent};
use highwater_archive::pack::{FinishedPack, PACK_BLOCKS, PackError, PackWriter, block_bytes};
use highwater_archive::seal::{Codec, Digest, Digester};
use highwater_archive::store::Created;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::error::BackupError;
use super::work::PackLine;

/// Where packs of one backup get their numbers and buffers, and where they go.
#[derive(Clone)]
pub struct PackSource {
    lineage: Lineage,
    backup: BackupId,
    codec: Codec,
    next: Arc<AtomicU32>,
    pool: Receiver<Vec<u8>>,
    full: mpsc::Sender<FinishedPack>,
}

/// The other end: stores what the packers finish.
pub struct Uploads {
    lineage: Lineage,
    full: mpsc::Receiver<FinishedPack>,
    pool: Sender<Vec<u8>>,
}

/// What was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Packs.
    pub packs: u32,
    /// Their bytes.
    pub bytes: u64,
}

/// The two ends for a backup with `workers` workers.
pub fn source(
    lineage: Lineage,
    backup: BackupId,
    codec: Codec,
    extent_bytes: u32,
    workers: usize,
) -> (PackSource, Uploads) {
    let (give, pool) = crossbeam_channel::unbounded();
    // And one more, so that a pack is stored while others are filled to their end.
    for _ in 0..=workers * PACK_BLOCKS {
        // The receiver is alive: it is the next line's.
        give.send(Vec::with_capacity(block_bytes(extent_bytes))).ok();
    }
    let (full, uploads) = mpsc::channel(workers + 1);
    let next = Arc::new(AtomicU32::new(0));
    let source = PackSource { lineage: lineage.clone(), backup, codec, next, pool, full };
    (source, Uploads { lineage, full: uploads, pool: give })
}

/// One worker's pack in the making.
pub struct Packer {
    source: PackSource,
    current: Option<PackWriter>,
    begun: Vec<PackLine>,
}

impl Packer {
    /// A packer that takes from `source`.
    pub fn new(source: PackSource) -> Packer {
        Packer { source, current: None, begun: Vec::new() }
    }

    /// Takes the digest that an extent is appended with.
    pub fn digester(&self) -> Digester {
        self.source.lineage.keys().digester()
    }

    /// Puts an extent into a pack; `digest` is that of all of it.
    pub fn append(&mut self, raw: &[u8], digest: &Digest) -> Result<Extent, BackupError> {
        let pack = match &mut self.current {
            Some(pack) => pack,
            None => {
                let pack = self.begin()?;
                self.current.insert(pack)
            }
        };
        let extent = pack.append_digested(raw, digest).map_err(without_uploads)?;
        if pack.is_full() {
            self.finish()?;
        }
        Ok(extent)
    }

    /// The packs that were begun since this was last asked.
    pub fn take_begun(&mut self) -> Vec<PackLine> {
        std::mem::take(&mut self.begun)
    }

    /// Hands over the pack in the making, if there is one.
    pub fn finish(&mut self) -> Result<(), BackupError> {
        let Some(pack) = self.current.take() else { return Ok(()) };
        let finished = pack.finish().map_err(without_uploads)?;
        self.source.full.blocking_send(finished).map_err(|_| uploads_ended())
    }

    fn begin(&mut self) -> Result<PackWriter, BackupError> {
        let number = self.source.next.fetch_add(1, Ordering::Relaxed);
        let (lineage, pool) = (&self.source.lineage, self.source.pool.clone());
        let pack = PackWriter::begin(
            lineage.keys().clone(),
            lineage.id(),
            &self.source.backup,
            number,
            self.source.codec,
            // A block from the pool, once there is one.
            move || pool.recv().ok(),
        )
        .map_err(without_uploads)?;
        self.begun.push(PackLine { number, path: pack.path().to_owned(), header: pack.header().to_vec() });
        Ok(pack)
    }
}

/// The pool ends with the uploads.
fn without_uploads(error: PackError) -> BackupError {
    match error {
        PackError::NoBlock => uploads_ended(),
        error => error.into(),
    }
}

/// Only ever seen when the uploads failed, and then their error is the one that is reported.
fn uploads_ended() -> BackupError {
    BackupError::Thread("the uploads of packs ended".to_owned())
}

impl Uploads {
    /// Stores packs as they come, several at once, until every packer is gone.
    pub async fn run(mut self) -> Result<Stored, BackupError> {
        let mut stored = Stored::default();
        let mut running = JoinSet::new();
        let mut more = true;
        while more || !running.is_empty() {
            tokio::select! {
                Some(ended) = running.join_next(), if !running.is_empty() => {
                    let bytes: u64 = ended.map_err(|error| BackupError::Thread(error.to_string()))??;
                    stored.packs += 1;
                    stored.bytes += bytes;
                }
                pack = self.full.recv(), if more => match pack {
                    Some(pack) => {
                        running.spawn(upload(self.lineage.clone(), pack, self.pool.clone()));
                    }
                    None => more = false,
                },
            }
        }
        Ok(stored)
    }
}

async fn upload(lineage: Lineage, pack: FinishedPack, pool: Sender<Vec<u8>>) -> Result<u64, BackupError> {
    let length = pack.pieces.iter().map(|piece| piece.len() as u64).sum();
    let lend = |block| Bytes::from_owner(Lent { block, pool: pool.clone() });
    let body = pack.pieces.into_iter().map(lend).collect();
    match lineage.create_sealed(&pack.path, body).await? {
        Created::New => Ok(length),
        // A retried put may meet its own first attempt; the manifest is written only after all packs were looked at.
        Created::Exists => Ok(length),
    }
}

/// A block on loan to the store: back in the pool when the last user drops it.
struct Lent {
    block: Vec<u8>,
    pool: Sender<Vec<u8>>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.block
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // No one takes blocks any more once the packers are gone.
        self.pool.send(std::mem::take(&mut self.block)).ok();
    }
}
