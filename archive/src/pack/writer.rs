//! Filling one pack.

use std::sync::Arc;

use super::{PACK_BYTES, PACK_FRAMES, PackError};
use crate::keyring::Keyring;
use crate::manifest::{BackupId, Extent, ExtentDigest};
use crate::names;
use crate::seal::{Codec, Digest, FrameWriter, LineageId, ObjectKind, ObjectName};

/// A pack being filled.
pub struct PackWriter {
    number: u32,
    path: String,
    keys: Arc<Keyring>,
    header: Vec<u8>,
    frames: FrameWriter,
    laid: Blocks,
}

/// Where the bytes of a pack lie.
struct Blocks {
    full: Vec<Vec<u8>>,
    last: Vec<u8>,
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
        let frames = FrameWriter::begin(&keys, &name, codec, Vec::new())?;
        let laid = Blocks { full: Vec::new(), last: Vec::new(), next: Box::new(blocks) };
        let mut pack = PackWriter { number, path, keys, header: frames.header().to_vec(), frames, laid };
        pack.lay()?;
        Ok(pack)
    }

    /// Compresses and seals `raw` as the next frame; where it lies, and what it is.
    pub fn append(&mut self, raw: &[u8]) -> Result<Extent, PackError> {
        let digest = self.keys.digest(raw);
        self.append_digested(raw, &digest)
    }

    /// The same for one whose keyed digest the caller took while it read it piece by piece.
    pub fn append_digested(&mut self, raw: &[u8], digest: &Digest) -> Result<Extent, PackError> {
        let digest = ExtentDigest::of(digest);
        let at = self.frames.append(raw)?;
        self.lay()?;
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
        let mut laid = self.laid;
        laid.take(&self.frames.finish()?.bytes)?;
        Ok(FinishedPack { number: self.number, path: self.path, pieces: laid.into_pieces() })
    }

    /// Moves the frame that was just made to where it stays. It was made in a buffer that every frame passes through: that one never
    /// leaves the processor's cache, and no block has to keep room for a frame that might not compress.
    fn lay(&mut self) -> Result<(), PackError> {
        self.laid.take(self.frames.written())?;
        self.frames.hand_over();
        Ok(())
    }
}

impl Blocks {
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), PackError> {
        while !bytes.is_empty() {
            let room = self.last.capacity() - self.last.len();
            if room == 0 {
                let mut block =
                    (self.next)().filter(|block| block.capacity() > 0).ok_or(PackError::NoBlock)?;
                block.clear();
                let full = std::mem::replace(&mut self.last, block);
                self.full.extend(Some(full).filter(|full| !full.is_empty()));
                continue;
            }
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.last.extend_from_slice(now);
            bytes = later;
        }
        Ok(())
    }

    fn into_pieces(self) -> Vec<Vec<u8>> {
        let mut pieces = self.full;
        pieces.push(self.last);
        pieces
    }
}
