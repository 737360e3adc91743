//! The bytes of a segment in memory.

use std::ops::Deref;
use std::sync::Arc;

use crate::pages::Pages;

/// The content of a segment. Clones share it: it may go into several repositories.
#[derive(Clone, Debug)]
pub struct WalBytes(Arc<Pages>);

impl WalBytes {
    /// So many zeros, to be filled.
    pub fn zeroed(length: usize) -> Self {
        Self(Arc::new(Pages::zeroed(length)))
    }

    /// The bytes, to be changed; those that a clone shares are copied first.
    pub fn make_mut(&mut self) -> &mut [u8] {
        let pages: &mut Pages = Arc::make_mut(&mut self.0);
        pages
    }
}

impl Deref for WalBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for WalBytes {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Arc::new(Pages::Heap(bytes)))
    }
}
