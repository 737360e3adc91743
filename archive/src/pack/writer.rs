//! Filling one pack.

use std::sync::Arc;

use super::{PACK_BYTES, PACK_FRAMES, PackError};
use crate::keyring::Keyring;
use crate::manifest::{BackupId, Extent, ExtentDigest};
use crate::names;
use crate::seal::{Codec, Digest, FrameAt, FrameWriter, LineageId, ObjectKind, ObjectName};

/// A pack being filled.
pub struct PackWriter {
    number: u32,
    path: String,
    keys: Arc<Keyring>,
    header: Vec<u8>,
    frames: FrameWriter,
    blocks: Blocks,
    /// Where a frame is made that may not fit what is left of its block.
    aside: Vec<u8>,
}

/// The memory of a pack but for the block that is being filled.
struct Blocks {
    full: Vec<Vec<u8>>,
    next: Box<dyn FnMut() -> Option<Vec<u8>> + Send>,
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
    /// Begins pack `number` of `backup`. Its memory is what `blocks` gives, each filled to its capacity before the next is asked for;
    /// what they hold is dropped. A pack asks for at most [`PACK_BLOCKS`](super::PACK_BLOCKS) of
    /// [`block_bytes`](super::block_bytes).
    ///
    /// # Errors
    /// [`PackError::NoBlock`] where `blocks` gives none, here and wherever more is written.
    pub fn begin(
        keys: Arc<Keyring>,
        lineage: LineageId,
        backup: &BackupId,
        number: u32,
        codec: Codec,
        blocks: impl FnMut() -> Option<Vec<u8>> + Send + 'static,
    ) -> Result<PackWriter, PackError> {
        let path = names::pack(backup, number);
        let name = ObjectName { kind: ObjectKind::Pack, lineage, path: &path };
        let mut blocks = Blocks { full: Vec::new(), next: Box::new(blocks) };
        let frames = FrameWriter::begin(&keys, &name, codec, blocks.another()?)?;
        let header = frames.header().to_vec();
        Ok(PackWriter { number, path, keys, header, frames, blocks, aside: Vec::new() })
    }

    /// Compresses and seals `raw` as the next frame; where it lies, and what it is.
    pub fn append(&mut self, raw: &[u8]) -> Result<Extent, PackError> {
        let digest = self.keys.digest(raw);
        self.append_digested(raw, &digest)
    }

    /// The same for one whose keyed digest the caller took while it read it piece by piece.
    pub fn append_digested(&mut self, raw: &[u8], digest: &Digest) -> Result<Extent, PackError> {
        let digest = ExtentDigest::of(digest);
        let at = match self.frames.is_tight_for(raw.len()) {
            false => self.frames.append(raw)?,
            true => self.append_aside(raw)?,
        };
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
    pub fn finish(mut self) -> Result<FinishedPack, PackError> {
        let block = self.frames.go_on_in(self.aside);
        let end = self.frames.finish()?.bytes;
        let (mut last, used) = self.blocks.lay(block, &end)?;
        last.truncate(used);
        let mut pieces = self.blocks.full;
        pieces.push(last);
        Ok(FinishedPack { number: self.number, path: self.path, pieces })
    }

    /// Makes a frame aside and lays it over the seam between two blocks, so that no block has to keep room for one that does not compress.
    fn append_aside(&mut self, raw: &[u8]) -> Result<FrameAt, PackError> {
        let block = self.frames.go_on_in(std::mem::take(&mut self.aside));
        let at = self.frames.append(raw)?;
        let (last, used) = self.blocks.lay(block, self.frames.written())?;
        self.aside = self.frames.go_on_behind(last, used);
        Ok(at)
    }
}

impl Blocks {
    /// Lays `bytes` behind all that `block` holds, and into further ones; the last of them, and how much of it is used.
    fn lay(&mut self, mut block: Vec<u8>, mut bytes: &[u8]) -> Result<(Vec<u8>, usize), PackError> {
        let mut used = block.len();
        while !bytes.is_empty() {
            if used == block.capacity() {
                let next = self.another()?;
                self.full.push(std::mem::replace(&mut block, next));
                used = 0;
            }
            let (now, later) = bytes.split_at((block.capacity() - used).min(bytes.len()));
            let end = used + now.len();
            if block.len() < end {
                block.resize(end, 0);
            }
            block.get_mut(used..end).ok_or(PackError::NoBlock)?.copy_from_slice(now);
            (used, bytes) = (end, later);
        }
        Ok((block, used))
    }

    /// The next block, whose content is dropped and whose length, as far as it goes, need not be zeroed again.
    fn another(&mut self) -> Result<Vec<u8>, PackError> {
        (self.next)().filter(|block| block.capacity() > 0).ok_or(PackError::NoBlock)
    }
}
