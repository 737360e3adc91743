//! Filling one pack.

use std::sync::Arc;

use super::{PACK_BYTES, PACK_FRAMES, PackError};
use crate::keyring::Keyring;
use crate::manifest::{BackupId, Extent, ExtentDigest};
use crate::names;
use crate::seal::{Codec, FrameWriter, LineageId, ObjectKind, ObjectName};

/// A pack being filled.
pub struct PackWriter {
    number: u32,
    path: String,
    keys: Arc<Keyring>,
    header: Vec<u8>,
    frames: FrameWriter,
    filled: Vec<Vec<u8>>,
}

/// A pack that is ready to be stored.
#[derive(Debug)]
pub struct FinishedPack {
    /// Its number in the backup.
    pub number: u32,
    /// Its path below the lineage.
    pub path: String,
    /// The whole object, in the blocks in which it was made.
    pub pieces: Vec<Vec<u8>>,
}

impl PackWriter {
    /// Begins pack `number` of `backup` in `block`, whose allocation is kept and whose content is dropped;
    /// [`block_bytes`](super::block_bytes) says how much it should hold.
    pub fn begin(
        keys: Arc<Keyring>,
        lineage: LineageId,
        backup: &BackupId,
        number: u32,
        codec: Codec,
        block: Vec<u8>,
    ) -> Result<PackWriter, PackError> {
        let path = names::pack(backup, number);
        let name = ObjectName { kind: ObjectKind::Pack, lineage, path: &path };
        let frames = FrameWriter::begin(&keys, &name, codec, block)?;
        Ok(PackWriter { number, path, keys, header: frames.header().to_vec(), frames, filled: Vec::new() })
    }

    /// Whether the block may be too small for another extent of `raw_len` bytes: then give it the next with
    /// [`go_on_in`](Self::go_on_in), or it will be moved to a larger one.
    pub fn wants_block(&self, raw_len: usize) -> bool {
        self.frames.is_tight_for(raw_len)
    }

    /// Continues in another block.
    pub fn go_on_in(&mut self, block: Vec<u8>) {
        self.filled.push(self.frames.go_on_in(block));
    }

    /// Compresses and seals `raw` as the next frame; where it lies, and what it is.
    pub fn append(&mut self, raw: &[u8]) -> Result<Extent, PackError> {
        let digest = ExtentDigest::of(&self.keys.digest(raw));
        let at = self.frames.append(raw)?;
        Ok(Extent {
            pack: self.number,
            frame: at.frame,
            offset: at.offset,
            stored_len: at.stored_len,
            digest,
        })
    }

    /// Whether it should be finished before the next extent.
    pub fn is_full(&self) -> bool {
        self.frames.len() >= PACK_BYTES || self.frames.frames() >= PACK_FRAMES
    }

    /// The number that extents name it by.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its path below the lineage.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Its header, which the file list carries.
    pub fn header(&self) -> &[u8] {
        &self.header
    }

    /// Seals the frame index behind the extents.
    pub fn finish(self) -> Result<FinishedPack, PackError> {
        let mut pieces = self.filled;
        pieces.push(self.frames.finish()?.bytes);
        Ok(FinishedPack { number: self.number, path: self.path, pieces })
    }
}
