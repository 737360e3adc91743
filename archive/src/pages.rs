//! Memory in large pages, where the system has them.
//!
//! `archive-push` is a process that touches all its memory for the first time. Page by page the kernel takes three times as long to
//! hand out 16 MiB as to copy a segment into them.

use std::ops::{Deref, DerefMut};

use memmap2::{Advice, MmapMut};

/// Below this there is no large page.
const LARGE_PAGE_BYTES: usize = 2 << 20;

/// Bytes of a fixed length. What is never touched takes no memory.
pub(crate) enum Pages {
    Heap(Vec<u8>),
    Mapped(MmapMut),
}

impl Pages {
    /// So many zeros.
    pub(crate) fn zeroed(length: usize) -> Self {
        if length < LARGE_PAGE_BYTES {
            return Self::Heap(vec![0; length]);
        }
        let Ok(mapped) = MmapMut::map_anon(length) else { return Self::Heap(vec![0; length]) };
        // A kernel without them refuses a wish and nothing else.
        let _refused = mapped.advise(Advice::HugePage);
        Self::Mapped(mapped)
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Self::Heap(bytes) => bytes,
            Self::Mapped(bytes) => bytes,
        }
    }
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Pages {
    fn clone(&self) -> Self {
        let mut clone = Self::zeroed(self.len());
        clone.copy_from_slice(self);
        clone
    }
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pages({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are zeros at first, and a clone has bytes of its own, however long they are.
    #[test]
    fn a_change_is_seen_by_no_clone() {
        for length in [0, 1, LARGE_PAGE_BYTES - 1, LARGE_PAGE_BYTES, LARGE_PAGE_BYTES + 4097] {
            let mut first = Pages::zeroed(length);
            assert!(first.len() == length && first.iter().all(|byte| *byte == 0));
            first.fill(1);
            let mut second = first.clone();
            second.fill(2);
            assert!(first.iter().all(|byte| *byte == 1) && second.iter().all(|byte| *byte == 2));
        }
    }
}
