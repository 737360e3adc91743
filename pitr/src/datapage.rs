//! The checksum of a data page, exactly as PostgreSQL computes it (`storage/checksum_impl.h`).
//!
//! Thirty-two FNV-1a sums run side by side over the page's 32-bit words, each shifted and multiplied once per row, folded
//! with xor and mixed with the block number. The rows are plain arrays of 32 words, so that the compiler turns the inner
//! loop into vector instructions. PostgreSQL takes a page with `pd_upper = 0` for new and does not look at it; here a new
//! page must be zero in every byte, so that a page whose header alone was wiped is found.

/// Sums that run side by side (`N_SUMS`).
const LANES: usize = 32;
/// One row: a word for each lane.
const ROW_BYTES: usize = LANES * 4;
/// `FNV_PRIME`.
const PRIME: u32 = 16_777_619;
/// Where `pd_checksum` stands in a page (`PageHeaderData` in `storage/bufpage.h`).
const CHECKSUM_AT: usize = 8;
/// The word of the first row whose lower half is `pd_checksum`.
const CHECKSUM_WORD: usize = CHECKSUM_AT / 4;

/// `checksumBaseOffsets`: what each lane begins with.
const BASE_OFFSETS: [u32; LANES] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What a page's own checksum says about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageState {
    /// The stored checksum is the computed one.
    Valid,
    /// Never initialised: every byte is zero.
    New,
    /// The page does not hold what was written, or holds another block.
    Bad {
        /// What the page's content and block number give.
        expected: u16,
        /// What the page's header says.
        found: u16,
    },
}

/// The checksum of `page` as block `block` of its relation fork (segment file number × `RELSEG_SIZE` + block in the file).
///
/// The page's stored checksum does not enter. A length that is no multiple of 128 bytes is never a page; its rest is ignored.
pub fn page_checksum(page: &[u8], block: u32) -> u16 {
    let (rows, _) = page.as_chunks::<ROW_BYTES>();
    let mut sums = BASE_OFFSETS;
    if let Some((first, rest)) = rows.split_first() {
        let mut words = row_words(first);
        if let Some(word) = words.get_mut(CHECKSUM_WORD) {
            *word &= 0xFFFF_0000;
        }
        mix(&mut sums, &words);
        for row in rest {
            mix(&mut sums, &row_words(row));
        }
    }
    mix(&mut sums, &[0; LANES]);
    mix(&mut sums, &[0; LANES]);
    let folded = sums.iter().fold(0, |folded, sum| folded ^ sum) ^ block;
    // Below 65536 by the remainder; 0 stays free to mean "no checksum".
    (folded % 65535 + 1) as u16
}

/// Judges `page`, read as block `block` of its relation fork. A length no page can have is `Bad`.
pub fn verify_page(page: &[u8], block: u32) -> PageState {
    let Some((stored, upper)) = header_fields(page) else {
        return PageState::Bad { expected: 0, found: 0 };
    };
    if upper == 0 && page.iter().all(|byte| *byte == 0) {
        return PageState::New;
    }
    match page_checksum(page, block) {
        expected if expected == stored => PageState::Valid,
        expected => PageState::Bad { expected, found: stored },
    }
}

/// `pd_checksum` and `pd_upper`, or `None` when `page` has no length that a page can have.
fn header_fields(page: &[u8]) -> Option<(u16, u16)> {
    if page.is_empty() || !page.len().is_multiple_of(ROW_BYTES) {
        return None;
    }
    let field = |at: usize| page.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes);
    Some((field(CHECKSUM_AT)?, field(CHECKSUM_AT + 6)?))
}

#[inline(always)]
fn row_words(row: &[u8; ROW_BYTES]) -> [u32; LANES] {
    let (bytes, _) = row.as_chunks::<4>();
    let mut words = [0; LANES];
    for (word, bytes) in words.iter_mut().zip(bytes) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// `CHECKSUM_COMP` in all lanes.
#[inline(always)]
fn mix(sums: &mut [u32; LANES], words: &[u32; LANES]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::disallowed_methods
    )]

    use super::*;

    /// The C code of `storage/checksum_impl.h`, line by line and one word at a time.
    fn oracle(page: &[u8], block: u32) -> u16 {
        let mut page = page.to_vec();
        page[8] = 0;
        page[9] = 0;
        let mut sums = BASE_OFFSETS;
        let comp = |sum: u32, value: u32| {
            let tmp = sum ^ value;
            tmp.wrapping_mul(16777619) ^ (tmp >> 17)
        };
        for (at, word) in page.chunks(4).enumerate() {
            sums[at % 32] = comp(sums[at % 32], u32::from_le_bytes(word.try_into().unwrap()));
        }
        for _ in 0..2 {
            for sum in &mut sums {
                *sum = comp(*sum, 0);
            }
        }
        let folded = sums.into_iter().reduce(|a, b| a ^ b).unwrap() ^ block;
        u16::try_from(folded % 65535 + 1).unwrap()
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        (0..length)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state.to_le_bytes()[3]
            })
            .collect()
    }

    #[test]
    fn equals_the_slow_form_for_every_block_size() {
        for length in [1024, 4096, 8192, 32768] {
            for seed in 0..20 {
                let page = noise(seed, length);
                let block = u32::from_le_bytes(page[..4].try_into().unwrap());
                assert_eq!(page_checksum(&page, block), oracle(&page, block), "length {length}, seed {seed}");
            }
        }
    }

    #[test]
    fn new_valid_bad_and_another_block() {
        let mut page = noise(7, 8192);
        assert_eq!(verify_page(&[0; 8192], 5), PageState::New);
        let sum = page_checksum(&page, 131_072);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(verify_page(&page, 131_072), PageState::Valid);
        // The relation's block number counts, not the one within its segment file.
        assert!(matches!(verify_page(&page, 0), PageState::Bad { found, .. } if found == sum));
        page[4000] ^= 1;
        assert!(matches!(verify_page(&page, 131_072), PageState::Bad { .. }));
    }

    #[test]
    fn pages_of_real_servers_are_valid_at_their_block_only() {
        for page in [
            include_bytes!("../fixtures/page/14-block-3.bin"),
            include_bytes!("../fixtures/page/18-block-3.bin"),
        ] {
            assert_eq!(verify_page(page, 3), PageState::Valid);
            for block in [0, 2, 4, 131_075] {
                assert!(matches!(verify_page(page, block), PageState::Bad { .. }), "block {block}");
            }
        }
    }

    #[test]
    fn a_wiped_header_is_not_a_new_page() {
        let mut page = noise(9, 8192);
        page[..24].fill(0);
        assert!(matches!(verify_page(&page, 0), PageState::Bad { found: 0, .. }));
        assert!(matches!(verify_page(&page[..100], 0), PageState::Bad { .. }));
        assert!(matches!(verify_page(&[], 0), PageState::Bad { .. }));
    }

    /// Prints the speed of one core; run with `--release --ignored --nocapture`.
    #[test]
    #[ignore = "a measurement"]
    fn speed() {
        let pages = noise(3, 1 << 20);
        let begin = std::time::Instant::now();
        let mut folded = 0u64;
        let rounds = 4096u64;
        for _ in 0..rounds {
            for (block, page) in (0u32..).zip(pages.chunks(8192)) {
                folded += u64::from(page_checksum(std::hint::black_box(page), block));
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        println!("{:.1} GB/s ({folded})", rounds as f64 * pages.len() as f64 / seconds / 1e9);
        assert!(folded > 0);
    }
}
