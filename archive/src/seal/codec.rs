//! Codecs: a codec is a row of [`CODECS`], and nothing else in the crate knows how one works.
//!
//! The working memory of the codecs (hash tables, zstd's contexts) belongs to the thread and is used again for every
//! frame, so that compressing a frame allocates nothing.

use std::cell::RefCell;
use std::fmt;
use std::str::FromStr;

use lz4_flex::block::{CompressTable, compress_into_with_table, decompress_into, get_maximum_output_size};
use serde::{Deserialize, Serialize};
use zstd::zstd_safe;

/// How the frames of an object are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Codec {
    /// Not at all.
    None,
    /// LZ4 blocks: as fast as the disk.
    #[default]
    Lz4,
    /// Zstandard frames at level 1: a third smaller, a third slower.
    Zstd,
}

/// Level 1: on table and WAL pages level 3 is 1 % smaller and takes half as long again (measured).
const ZSTD_LEVEL: i32 = 1;

/// A codec: what is stored for it, and what it does.
struct CodecRow {
    codec: Codec,
    id: u8,
    name: &'static str,
    /// Room that compressing so many bytes may need.
    bound: fn(usize) -> usize,
    /// Compresses into the room given; `None` when that failed.
    compress: fn(&mut Scratch, &[u8], &mut [u8]) -> Option<usize>,
    /// Decompresses into room of exactly the raw length; answers how much was filled.
    decompress: fn(&mut Scratch, &[u8], &mut [u8]) -> Option<usize>,
}

/// The table of codecs. To add one: a variant, a row, a golden fixture and a line in `docs/format.md`.
static CODECS: [CodecRow; 3] = [
    CodecRow {
        codec: Codec::None,
        id: 0,
        name: "none",
        bound: |_| 0,
        compress: |_, _, _| None,
        decompress: |_, _, _| None,
    },
    CodecRow {
        codec: Codec::Lz4,
        id: 1,
        name: "lz4",
        bound: get_maximum_output_size,
        compress: |scratch, raw, out| {
            // The table of 16-bit entries is enough below 64 KiB and quicker to clear.
            let table = if raw.len() < usize::from(u16::MAX) {
                &mut scratch.lz4_small
            } else {
                &mut scratch.lz4_large
            };
            compress_into_with_table(raw, out, table).ok()
        },
        decompress: |_, stored, out| decompress_into(stored, out).ok(),
    },
    CodecRow {
        codec: Codec::Zstd,
        id: 2,
        name: "zstd",
        bound: zstd_safe::compress_bound,
        compress: |scratch, raw, out| {
            let context = match &mut scratch.zstd_compress {
                Some(context) => context,
                empty => empty.insert(zstd_safe::CCtx::try_create()?),
            };
            context.compress(out, raw, ZSTD_LEVEL).ok()
        },
        decompress: |scratch, stored, out| {
            let context = match &mut scratch.zstd_decompress {
                Some(context) => context,
                empty => empty.insert(zstd_safe::DCtx::try_create()?),
            };
            context.decompress(out, stored).ok()
        },
    },
];

/// The working memory of one thread.
struct Scratch {
    lz4_small: CompressTable,
    lz4_large: CompressTable,
    zstd_compress: Option<zstd_safe::CCtx<'static>>,
    zstd_decompress: Option<zstd_safe::DCtx<'static>>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::new(Scratch {
        lz4_small: CompressTable::small(),
        lz4_large: CompressTable::large(),
        zstd_compress: None,
        zstd_decompress: None,
    });
}

impl Codec {
    /// The number that is stored.
    pub fn id(self) -> u8 {
        self.row().map_or(0, |row| row.id)
    }

    /// The codec with this stored number.
    pub fn from_id(id: u8) -> Option<Self> {
        CODECS.iter().find(|row| row.id == id).map(|row| row.codec)
    }

    /// All codecs, as the configuration names them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        CODECS.iter().map(|row| row.name)
    }

    /// Room that [`Codec::compress`] may need for so many raw bytes.
    pub(super) fn bound(self, raw_len: usize) -> usize {
        self.row().map_or(0, |row| (row.bound)(raw_len))
    }

    /// Compresses `raw` into `out`; `None` when the codec does not compress or could not.
    pub(super) fn compress(self, raw: &[u8], out: &mut [u8]) -> Option<usize> {
        let row = self.row()?;
        SCRATCH.with(|scratch| (row.compress)(&mut *scratch.try_borrow_mut().ok()?, raw, out))
    }

    /// Decompresses `stored` into `out`; true when that filled it exactly.
    pub(super) fn decompress(self, stored: &[u8], out: &mut [u8]) -> bool {
        let Some(row) = self.row() else { return false };
        let filled =
            SCRATCH.with(|scratch| (row.decompress)(&mut *scratch.try_borrow_mut().ok()?, stored, out));
        filled == Some(out.len())
    }

    fn row(self) -> Option<&'static CodecRow> {
        CODECS.iter().find(|row| row.codec == self)
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().map_or("none", |row| row.name))
    }
}

/// The text names no codec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a compression; known are none, lz4 and zstd")]
pub struct UnknownCodec(String);

impl FromStr for Codec {
    type Err = UnknownCodec;

    fn from_str(text: &str) -> Result<Self, UnknownCodec> {
        CODECS
            .iter()
            .find(|row| row.name == text)
            .map(|row| row.codec)
            .ok_or_else(|| UnknownCodec(text.to_owned()))
    }
}
