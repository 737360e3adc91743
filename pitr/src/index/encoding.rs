//! Encoding.
use super::{IndexError, SegmentIndex};

pub(super) fn encode(_index: &SegmentIndex) -> Vec<u8> {
    todo!()
}

pub(super) fn decode(_bytes: &[u8]) -> Result<SegmentIndex, IndexError> {
    todo!()
}
