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
    frames: FrameWriter,
}

/// A pack that is ready to be stored.
#[derive(Debug)]
pub struct FinishedPack {
    /// Its number in the backup.
    pub number: u32,
    /// Its path below the lineage.
    pub path: String,
    /// The whole object.
    pub bytes: Vec<u8>,
}

impl PackWriter {
    /// Begins pack `number` of `backup` in `buffer`, whose allocation is kept and whose content is dropped;
    /// [`buffer_bytes`](super::buffer_bytes) says how much it should hold.
    pub fn begin(
        keys: Arc<Keyring>,
        lineage: LineageId,
        backup: &BackupId,
        number: u32,
        codec: Codec,
        buffer: Vec<u8>,
    ) -> Result<PackWriter, PackError> {
        let path = names::pack(backup, number);
        let name = ObjectName { kind: ObjectKind::Pack, lineage, path: &path };
        let frames = FrameWriter::begin(&keys, &name, codec, buffer)?;
        Ok(PackWriter { number, path, keys, frames })
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
        self.frames.header()
    }

    /// Seals the frame index behind the extents.
    pub fn finish(self) -> Result<FinishedPack, PackError> {
        let sealed = self.frames.finish()?;
        Ok(FinishedPack { number: self.number, path: self.path, bytes: sealed.bytes })
    }
}
