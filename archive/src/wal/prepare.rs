//! From the bytes of a segment to what will be stored: all of it CPU work.
//!
//! The passes are made over the bytes as they are, in the belief that they are canonical, which all are but those that end with
//! a switch and hold remains of the file's earlier use behind it. Of these the digest and the frames are made again.

use bytes::Bytes;
use highwater_pitr::scan::{ChainEnd, SegmentScan, canonicalise};
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::wal::{SegmentHeader, read_segment_header};

use super::passes::{self, Found, Wanted};
use super::{Content, MAX_WHOLE_SEGMENT_BYTES, WalBytes, WalPutError};
use crate::names;
use crate::repository::lineage::{Lineage, LineageRecord};
use crate::seal::{self, Codec, HeaderExtra, LaidFrames, MAX_FRAME_BYTES, ObjectKind, SealError};

/// A segment that was checked, brought into its canonical form and, unless it is large, sealed.
#[derive(Debug)]
pub struct PreparedSegment {
    pub(super) file: WalFile,
    pub(super) segment: SegmentName,
    pub(super) scan: SegmentScan,
    pub(super) canonical: WalBytes,
    pub(super) content: Content,
    pub(super) codec: Codec,
    /// The encoded index; none when it is larger than an attachment may be, and then readers make it from the segment.
    pub(super) index: Option<Vec<u8>>,
    /// The path below the lineage that two writers could race for, the name that this content has, and the object.
    pub(super) path: String,
    pub(super) name: String,
    pub(super) sealed: Option<Vec<Bytes>>,
}

impl PreparedSegment {
    /// Checks `bytes` against the name and the lineage, and seals them. `file` is the segment or its `.partial`.
    ///
    /// A segment whose chain is broken is prepared too, because what is there already decides about it.
    ///
    /// # Errors
    /// [`WalPutError::WrongCluster`], [`WalPutError::WrongMajor`], [`WalPutError::WrongSize`], [`WalPutError::NotWal`],
    /// [`WalPutError::WrongKind`] for any other file.
    pub fn new(
        lineage: &Lineage,
        file: WalFile,
        bytes: impl Into<WalBytes>,
        codec: Codec,
    ) -> Result<Self, WalPutError> {
        let mut canonical = bytes.into();
        let (WalFile::Segment(segment) | WalFile::Partial(segment)) = file else {
            return Err(WalPutError::WrongKind { file });
        };
        let not_wal = |source| WalPutError::NotWal { file, source };
        let header = read_segment_header(&canonical).map_err(not_wal)?;
        check_identity(lineage.record(), file, &header)?;
        let path = names::wal_object(&file);
        let whole = canonical.len() <= MAX_WHOLE_SEGMENT_BYTES;
        let keys = lineage.keys();
        let wanted = Wanted { scan: Some(segment), frames: whole.then_some(codec), object: &path };
        let mut found = passes::run(keys, &canonical, &wanted)?;
        let scan = found.scan.take().ok_or_else(|| no_answer(&path))?.map_err(not_wal)?;
        if has_remains(&canonical, &scan) {
            canonicalise(canonical.make_mut(), &scan);
            found = passes::run(keys, &canonical, &Wanted { scan: None, ..wanted })?;
        }
        let Found { digest, frames, .. } = found;
        let digest = digest.ok_or_else(|| no_answer(&path))?;
        let content = Content { digest, valid_len: scan.valid_len };
        let index = Some(scan.index.encode()).filter(|index| index.len() <= MAX_FRAME_BYTES);
        let name = lineage.name_mode().name(&path, content.digest.short());
        let mut prepared =
            Self { file, segment, scan, canonical, content, codec, index, path, name, sealed: None };
        if whole && !prepared.is_refused() {
            prepared.sealed = Some(prepared.seal_laid(lineage, &prepared.name, frames)?);
        }
        Ok(prepared)
    }

    /// What identifies it.
    pub fn content(&self) -> Content {
        self.content
    }

    /// How its chain of records ends, and what they say.
    pub fn scan(&self) -> &SegmentScan {
        &self.scan
    }

    /// Whether it is stored in parts.
    pub(super) fn in_parts(&self) -> bool {
        self.canonical.len() > MAX_WHOLE_SEGMENT_BYTES
    }

    /// Whether it may never have the name of the whole segment (I2).
    pub(super) fn is_refused(&self) -> bool {
        matches!((&self.file, &self.scan.end), (WalFile::Segment(_), ChainEnd::Broken { .. }))
    }

    /// Seals the whole canonical form as one object with this name.
    pub(super) fn seal_as(&self, lineage: &Lineage, name: &str) -> Result<Vec<Bytes>, WalPutError> {
        let wanted = Wanted { scan: None, frames: Some(self.codec), object: name };
        self.seal_laid(lineage, name, passes::run(lineage.keys(), &self.canonical, &wanted)?.frames)
    }

    fn seal_laid(
        &self,
        lineage: &Lineage,
        name: &str,
        frames: Vec<LaidFrames>,
    ) -> Result<Vec<Bytes>, WalPutError> {
        let object = lineage.object_name(ObjectKind::Segment, name);
        let extra = HeaderExtra {
            valid_len: Some(self.content.valid_len),
            attachment: self.index.as_deref(),
            digest: None,
        };
        Ok(seal::seal_laid(lineage.keys(), &object, self.codec, frames, self.content.digest, extra)?)
    }
}

/// Whether something lies behind the switch that ends a segment.
fn has_remains(bytes: &[u8], scan: &SegmentScan) -> bool {
    let void = usize::try_from(scan.valid_len).ok().and_then(|valid_len| bytes.get(valid_len..));
    scan.end == ChainEnd::Switch && void.is_some_and(|void| void.iter().any(|byte| *byte != 0))
}

/// A pass that every run makes has not been made.
fn no_answer(object: &str) -> SealError {
    SealError::Cannot { object: object.to_owned(), reason: "a pass over it gave no answer".to_owned() }
}

/// Whether a segment's header is of the cluster that the lineage is bound to.
fn check_identity(record: &LineageRecord, file: WalFile, header: &SegmentHeader) -> Result<(), WalPutError> {
    let (expected, found) = (record.system_identifier, header.system_identifier);
    if expected != found {
        return Err(WalPutError::WrongCluster { file, expected, found });
    }
    let (expected, found) = (u32::from(record.pg_major), header.major.number());
    if expected != found {
        return Err(WalPutError::WrongMajor { file, expected, found });
    }
    let (expected, found) = (record.wal_segment_bytes.bytes(), header.segment_size.bytes());
    if expected != found {
        return Err(WalPutError::WrongSize { file, expected, found });
    }
    Ok(())
}
