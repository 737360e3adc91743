//! Page checksums, verified as the pages go by.
//!
//! A page that fails may have been read while PostgreSQL was writing it. So the failing pages of an extent are read again, several times
//! with a pause between, and one that became valid is taken as it is now. One that keeps changing and carries an LSN at or past
//! the backup's start is being written over and over: WAL replay brings its full image. PostgreSQL's own base backup believes the LSN of a page it
//! read once (`sendFile` in `backup/basebackup.c`); here a page that stays the same and stays wrong is bad, whatever its header says.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use highwater_pitr::datapage::{PageState, verify_page};
use highwater_pitr::lsn::Lsn;

use super::work::BadPage;

/// How often the failing pages of an extent are read again.
const ROUNDS: u32 = 5;

/// Between two readings: longer than one write of a page takes.
const PAUSE: Duration = Duration::from_millis(20);

/// How pages are judged in this cluster.
#[derive(Clone, Copy, Debug)]
pub struct PageRules {
    /// Bytes of a page.
    pub page_bytes: usize,
    /// Pages in one segment file of a relation.
    pub segment_blocks: u32,
    /// Where the backup began.
    pub start_lsn: Lsn,
}

/// What the pages of an extent turned out to be.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Verified {
    /// How many were looked at.
    pub pages: u64,
    /// Those that are wrong.
    pub bad: Vec<BadPage>,
}

/// A failing page, between two readings.
struct Suspect {
    at: usize,
    block: u32,
    expected: u16,
    found: u16,
    changed: bool,
}

impl PageRules {
    /// Verifies the whole pages of `extent`, which was read at `offset` of segment file `segment`. Pages that were caught half
    /// written are replaced by what they became.
    pub fn verify(&self, file: &File, segment: u32, offset: u64, extent: &mut [u8]) -> Verified {
        let first = u64::from(segment) * u64::from(self.segment_blocks) + offset / self.page_bytes as u64;
        let mut suspects = Vec::new();
        let mut verified = Verified::default();
        for (number, page) in extent.chunks_exact(self.page_bytes).enumerate() {
            // Block numbers are 32 bits wide in PostgreSQL; a file past that is no relation's.
            let block = (first + number as u64) as u32;
            verified.pages += 1;
            if let PageState::Bad { expected, found } = verify_page(page, block) {
                suspects.push(Suspect {
                    at: number * self.page_bytes,
                    block,
                    expected,
                    found,
                    changed: false,
                });
            }
        }
        if !suspects.is_empty() {
            verified.bad = self.read_again(file, offset, extent, suspects);
        }
        verified
    }

    fn read_again(
        &self,
        file: &File,
        offset: u64,
        extent: &mut [u8],
        mut suspects: Vec<Suspect>,
    ) -> Vec<BadPage> {
        let mut again = vec![0; self.page_bytes];
        for round in 0..ROUNDS {
            if round > 0 {
                std::thread::sleep(PAUSE);
            }
            suspects.retain_mut(|suspect| {
                let Some(page) = extent.get_mut(suspect.at..suspect.at + self.page_bytes) else {
                    return false;
                };
                if file.read_exact_at(&mut again, offset + suspect.at as u64).is_err() {
                    // Cut off meanwhile, and so WAL replay will cut it off too; or the disk fails, and the page stays a suspect.
                    return !is_past_end(file, offset + suspect.at as u64);
                }
                suspect.changed |= again != page;
                page.copy_from_slice(&again);
                match verify_page(page, suspect.block) {
                    PageState::Valid | PageState::New => false,
                    PageState::Bad { expected, found } => {
                        (suspect.expected, suspect.found) = (expected, found);
                        true
                    }
                }
            });
            if suspects.is_empty() {
                return Vec::new();
            }
        }
        suspects
            .into_iter()
            .filter(|suspect| {
                let lsn = extent.get(suspect.at..).and_then(page_lsn);
                !(suspect.changed && lsn.is_some_and(|lsn| lsn >= self.start_lsn))
            })
            .map(|suspect| BadPage {
                block: suspect.block,
                problem: format!(
                    "checksum {:04X} where {:04X} was expected",
                    suspect.found, suspect.expected
                ),
            })
            .collect()
    }
}

fn is_past_end(file: &File, offset: u64) -> bool {
    file.metadata().is_ok_and(|meta| meta.len() <= offset)
}

/// `pd_lsn`: two 32-bit halves, the high one first (`PageXLogRecPtr` in `storage/bufpage.h`).
fn page_lsn(page: &[u8]) -> Option<Lsn> {
    let (high, rest) = page.split_first_chunk::<4>()?;
    let (low, _) = rest.split_first_chunk::<4>()?;
    Some(Lsn::new(u64::from(u32::from_le_bytes(*high)) << 32 | u64::from(u32::from_le_bytes(*low))))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::disallowed_methods)]
    use super::*;
    use highwater_pitr::datapage::page_checksum;
    use std::io::Write as _;

    const RULES: PageRules =
        PageRules { page_bytes: 8192, segment_blocks: 131_072, start_lsn: Lsn::new(100) };

    fn page(block: u32, fill: u8, lsn: u32) -> Vec<u8> {
        let mut page = vec![fill; 8192];
        page[..4].copy_from_slice(&[0; 4]);
        page[4..8].copy_from_slice(&lsn.to_le_bytes());
        let sum = page_checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    fn file_of(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file
    }

    #[test]
    fn block_numbers_count_over_segment_files() {
        let good = [page(131_072 + 128, 1, 5), page(131_072 + 129, 2, 5), vec![0; 8192]].concat();
        let file = file_of(&good);
        let mut extent = good.clone();
        let offset = 128 * 8192;
        assert_eq!(RULES.verify(&file, 1, offset, &mut extent), Verified { pages: 3, bad: vec![] });
        // As the first segment's blocks they are wrong, and they are not where the file is read again.
        assert_eq!(RULES.verify(&file, 0, 0, &mut extent).bad.len(), 2);
    }

    #[test]
    fn a_page_that_stays_wrong_is_bad_even_with_a_new_lsn() {
        let mut bytes = page(0, 1, 5000);
        bytes[4000] ^= 1;
        let file = file_of(&bytes);
        let verified = RULES.verify(&file, 0, 0, &mut bytes.clone());
        assert_eq!(verified.bad.len(), 1);
        assert_eq!(verified.bad[0].block, 0);
    }

    #[test]
    fn a_page_read_half_written_is_taken_as_it_became() {
        let whole = [page(0, 1, 5), page(1, 2, 5)].concat();
        let file = file_of(&whole);
        let mut torn = whole.clone();
        torn[8192 + 4096..].fill(9);
        assert_eq!(RULES.verify(&file, 0, 0, &mut torn), Verified { pages: 2, bad: vec![] });
        assert_eq!(torn, whole);
    }

    #[test]
    fn a_page_that_was_cut_off_meanwhile_is_no_damage() {
        let file = file_of(&page(0, 1, 5));
        let mut extent = [page(0, 1, 5), vec![7; 8192]].concat();
        assert_eq!(RULES.verify(&file, 0, 0, &mut extent).bad, vec![]);
    }
}
