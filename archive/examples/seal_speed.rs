//! How fast is sealing, beside the codec that it contains? One thread, 1 MiB frames, 24 MiB objects in a reused buffer.
//!
//!     cargo run --release -p highwater-archive --example seal_speed
//!
//! Prints MB/s of plain data (best of several rounds, alternated): the codec alone into and out of a reused buffer, then
//! `FrameWriter` and `FrameReader`. The bars: writing at least 0.75 of the codec on lz4, reading at least 2 GB/s.

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use highwater_archive::keyring::{Keyring, Unlock};
use highwater_archive::names::{ClusterId, LineageId};
use highwater_archive::seal::{
    Codec, FRAME_BYTES, FrameReader, FrameWriter, HEADER_LEN, ObjectKind, ObjectName,
};
use jiff::Timestamp;

const FRAMES: usize = 24;
const ROUNDS: usize = 15;

fn main() -> Result<(), Box<dyn Error>> {
    let (unlock, _) = Unlock::generate(Timestamp::UNIX_EPOCH);
    let keys = Keyring::generate(ClusterId::random()?, &unlock.recipients()?, Timestamp::UNIX_EPOCH)?;
    let name = ObjectName {
        kind: ObjectKind::Pack,
        lineage: LineageId::random()?,
        path: "packs/20261120T000000Z-00000000/000000",
    };
    let data = table_like(FRAMES * FRAME_BYTES);
    println!(
        "{:>6} {:>9} {:>9} {:>7} {:>11} {:>9} {:>7}",
        "codec", "compress", "write", "ratio", "decompress", "read", "size"
    );
    for codec in [Codec::None, Codec::Lz4, Codec::Zstd] {
        measure(&keys, &name, codec, &data)?;
    }
    Ok(())
}

fn measure(keys: &Keyring, name: &ObjectName<'_>, codec: Codec, data: &[u8]) -> Result<(), Box<dyn Error>> {
    let mut plain_codec = PlainCodec::new(codec)?;
    let mut buffer = Vec::with_capacity(data.len() + (1 << 20));
    let (mut best_codec, mut best_write, mut best_decode, mut best_read) =
        (f64::MAX, f64::MAX, f64::MAX, f64::MAX);
    let mut out = vec![0; FRAME_BYTES];
    let mut stored_len = 0;
    let mut scratch = Vec::new();
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        for piece in data.chunks(FRAME_BYTES) {
            black_box(plain_codec.compress(piece)?);
        }
        best_codec = best_codec.min(begin.elapsed().as_secs_f64());

        let begin = Instant::now();
        let mut writer = FrameWriter::begin(keys, name, codec, buffer)?;
        let mut places = Vec::with_capacity(FRAMES);
        for piece in data.chunks(FRAME_BYTES) {
            places.push(writer.append(piece)?);
        }
        let sealed = writer.finish()?;
        best_write = best_write.min(begin.elapsed().as_secs_f64());
        buffer = sealed.bytes;
        stored_len = buffer.len();

        let compressed: Vec<Vec<u8>> = data
            .chunks(FRAME_BYTES)
            .map(|piece| plain_codec.compress(piece).map(<[u8]>::to_vec))
            .collect::<Result<_, _>>()?;
        let begin = Instant::now();
        for piece in &compressed {
            plain_codec.decompress(piece, &mut out)?;
            black_box(&out);
        }
        best_decode = best_decode.min(begin.elapsed().as_secs_f64());

        // Decrypting destroys what it reads, so each round works on a copy, made outside the clock.
        scratch.clear();
        scratch.extend_from_slice(&buffer);
        let begin = Instant::now();
        let reader = FrameReader::new(keys, name, scratch.get(..HEADER_LEN).ok_or("short")?)?;
        for place in &places {
            let at = place.offset as usize;
            let stored = scratch.get_mut(at..at + place.stored_len as usize).ok_or("short")?;
            reader.open_frame(place.frame, stored, &mut out)?;
            black_box(&out);
        }
        best_read = best_read.min(begin.elapsed().as_secs_f64());
    }
    let speed = |seconds: f64| data.len() as f64 / 1e6 / seconds;
    println!(
        "{:>6} {:>9.0} {:>9.0} {:>7.2} {:>11.0} {:>9.0} {:>7.2}",
        codec.to_string(),
        speed(best_codec),
        speed(best_write),
        best_codec / best_write,
        speed(best_decode),
        speed(best_read),
        data.len() as f64 / stored_len as f64,
    );
    Ok(())
}

/// The codec on its own, in buffers that are there already.
struct PlainCodec {
    codec: Codec,
    out: Vec<u8>,
    table: lz4_flex::block::CompressTable,
    zstd: (zstd::zstd_safe::CCtx<'static>, zstd::zstd_safe::DCtx<'static>),
}

impl PlainCodec {
    fn new(codec: Codec) -> Result<Self, Box<dyn Error>> {
        let contexts = zstd::zstd_safe::CCtx::try_create().zip(zstd::zstd_safe::DCtx::try_create());
        Ok(Self {
            codec,
            out: vec![0; FRAME_BYTES * 2],
            table: lz4_flex::block::CompressTable::large(),
            zstd: contexts.ok_or("no memory")?,
        })
    }

    fn compress(&mut self, raw: &[u8]) -> Result<&[u8], Box<dyn Error>> {
        let len = match self.codec {
            Codec::None => {
                self.out.get_mut(..raw.len()).ok_or("short")?.copy_from_slice(raw);
                raw.len()
            }
            Codec::Lz4 => lz4_flex::block::compress_into_with_table(raw, &mut self.out, &mut self.table)?,
            Codec::Zstd => self
                .zstd
                .0
                .compress(self.out.as_mut_slice(), raw, 1)
                .map_err(zstd::zstd_safe::get_error_name)?,
        };
        Ok(self.out.get(..len).ok_or("short")?)
    }

    fn decompress(&mut self, stored: &[u8], out: &mut [u8]) -> Result<(), Box<dyn Error>> {
        match self.codec {
            Codec::None => out.get_mut(..stored.len()).ok_or("short")?.copy_from_slice(stored),
            Codec::Lz4 => drop(lz4_flex::block::decompress_into(stored, out)?),
            Codec::Zstd => {
                self.zstd.1.decompress(out, stored).map_err(zstd::zstd_safe::get_error_name)?;
            }
        }
        Ok(())
    }
}

/// 8 KiB pages like a table's and its index's: line pointers, row headers, a sequence, a UUID, some text of few words, a
/// number, now and then JSON.
fn table_like(len: usize) -> Vec<u8> {
    const WORDS: [&str; 24] = [
        "order",
        "shipped",
        "pending",
        "customer",
        "invoice",
        "paid",
        "the",
        "of",
        "express",
        "return",
        "berlin",
        "lyon",
        "warehouse",
        "blue",
        "small",
        "large",
        "cotton",
        "discount",
        "gift",
        "card",
        "note",
        "please",
        "ring",
        "bell",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut data = Vec::with_capacity(len + 8192);
    let (mut row, mut xid) = (1u64, 700u32);
    while data.len() < len {
        let mut page = Vec::with_capacity(8192);
        page.extend_from_slice(&(data.len() as u64 * 3).to_le_bytes());
        page.extend_from_slice(&[0, 0, 4, 0, 0xB0, 0x01, 0xC0, 0x01, 0, 0x20, 4, 0x20, 0, 0, 0, 0]);
        let index = data.len() / 8192 % 4 == 3;
        for line in 0..60u32 {
            page.extend_from_slice(&(0x9F00_8000u32.wrapping_sub(line * 272)).to_le_bytes());
        }
        while page.len() < 8192 - 200 {
            row += 1;
            if index {
                page.extend_from_slice(&[0, 0, (row >> 6) as u8, 0, (row % 60) as u8, 0, 16, 0]);
                page.extend_from_slice(&random().to_le_bytes());
                continue;
            }
            xid += u32::from(random() % 5 == 0);
            page.extend_from_slice(&xid.to_le_bytes());
            page.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (row % 60) as u8, 0, 6, 0, 2, 9, 24, 0]);
            page.extend_from_slice(&row.to_le_bytes());
            page.extend_from_slice(&random().to_le_bytes());
            page.extend_from_slice(&random().to_le_bytes());
            for _ in 0..3 + random() % 8 {
                let word = WORDS.get((random() % 24) as usize).copied().unwrap_or_default();
                page.extend_from_slice(word.as_bytes());
                page.push(b' ');
            }
            if random() % 4 == 0 {
                page.extend_from_slice(
                    format!("{{\"status\":\"{}\",\"qty\":{}}}", row % 7, random() % 1000).as_bytes(),
                );
            }
            page.extend_from_slice(&(random() % 100_000).to_le_bytes());
        }
        page.resize(8192, 0);
        data.extend_from_slice(&page);
    }
    data.truncate(len);
    data
}
