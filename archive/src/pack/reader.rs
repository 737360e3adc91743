//! Taking extents out of a pack.

use std::sync::Arc;

use super::PackError;
use crate::keyring::Keyring;
use crate::manifest::{Extent, ExtentDigest};
use crate::seal::{FrameReader, LineageId, ObjectKind, ObjectName};

/// Opens extents of one pack. Shared by threads: it holds no state that opening changes.
pub struct PackReader {
    path: String,
    keys: Arc<Keyring>,
    frames: FrameReader,
}

impl PackReader {
    /// A reader of the pack at `path` with this header, both from the file list. Fails when the header's MAC, or its kind, is wrong.
    pub fn new(
        keys: Arc<Keyring>,
        lineage: LineageId,
        path: &str,
        header: &[u8],
    ) -> Result<PackReader, PackError> {
        let name = ObjectName { kind: ObjectKind::Pack, lineage, path };
        let frames = FrameReader::new(&keys, &name, header)?;
        Ok(PackReader { path: path.to_owned(), keys, frames })
    }

    /// The pack's path below the lineage.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Opens `stored`, the `extent.stored_len` bytes at `extent.offset`, which are decrypted in place; `out` is cleared and gets
    /// the raw bytes. Their keyed digest is held against the extent's.
    pub fn open(&self, extent: &Extent, stored: &mut [u8], out: &mut Vec<u8>) -> Result<(), PackError> {
        self.frames.open_frame(extent.frame, stored, out)?;
        self.compare(extent, out)
    }

    /// The same into memory of the caller's: `room` gives it for so many raw bytes, or `None` where they are more than can be.
    /// Answers the raw bytes.
    pub fn open_in<'o>(
        &self,
        extent: &Extent,
        stored: &mut [u8],
        room: impl FnOnce(usize) -> Option<&'o mut [u8]>,
    ) -> Result<&'o [u8], PackError> {
        let raw = self.frames.open_frame_in(extent.frame, stored, room)?;
        self.compare(extent, raw)?;
        Ok(raw)
    }

    fn compare(&self, extent: &Extent, raw: &[u8]) -> Result<(), PackError> {
        if ExtentDigest::of(&self.keys.digest(raw)) == extent.digest {
            return Ok(());
        }
        Err(PackError::OtherExtent { path: self.path.clone(), frame: extent.frame })
    }
}
