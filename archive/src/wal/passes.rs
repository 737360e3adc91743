//! The passes over a segment, on all cores.
//!
//! Reading its records, taking its digest and compressing its frames need nothing of each other, and `archive-push` is a process
//! that has one segment and one wish: to be done. So each pass and each frame is a task, and a few threads take one after
//! another, the longest that cannot be divided first.

use std::sync::atomic::{AtomicUsize, Ordering};

use highwater_pitr::scan::{SegmentScan, scan_segment};
use highwater_pitr::segment::SegmentName;
use highwater_pitr::wal::WalError;

use crate::keyring::Keyring;
use crate::seal::{Codec, Digest, FRAME_BYTES, LaidFrames, SealError};

/// More threads than this would wait for memory.
const MAX_THREADS: usize = 4;

/// What is wanted of the bytes of a segment besides their digest.
pub(super) struct Wanted<'a> {
    /// The scan of its records, under this name.
    pub(super) scan: Option<SegmentName>,
    /// Its frames, compressed.
    pub(super) frames: Option<Codec>,
    /// Under this name, in messages.
    pub(super) object: &'a str,
}

/// What the passes, or one thread of them, have found.
#[derive(Default)]
pub(super) struct Found {
    pub(super) scan: Option<Result<SegmentScan, WalError>>,
    pub(super) digest: Option<Digest>,
    /// Those of each thread.
    pub(super) frames: Vec<LaidFrames>,
}

/// Makes the passes that are wanted over `bytes`.
///
/// # Errors
/// [`SealError`]: a frame does not fit the format, or a thread has ended without an answer.
pub(super) fn run(keys: &Keyring, bytes: &[u8], wanted: &Wanted<'_>) -> Result<Found, SealError> {
    let frames: Vec<&[u8]> =
        if wanted.frames.is_some() { bytes.chunks(FRAME_BYTES).collect() } else { Vec::new() };
    let next = AtomicUsize::new(0);
    let take = || -> Result<Found, SealError> {
        let mut share = Found::default();
        let mut laid = wanted.frames.map(|codec| LaidFrames::with_room(codec, bytes.len(), FRAME_BYTES));
        loop {
            match next.fetch_add(1, Ordering::Relaxed) {
                0 => share.scan = wanted.scan.map(|name| scan_segment(bytes, name)),
                1 => share.digest = Some(keys.digest(bytes)),
                task => {
                    let number = task - 2;
                    let (Some(raw), Some(laid)) = (frames.get(number), &mut laid) else { break };
                    laid.lay(number, raw, wanted.object)?;
                }
            }
        }
        share.frames.extend(laid);
        Ok(share)
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(MAX_THREADS);
    let shares = std::thread::scope(|scope| {
        // A thread that cannot be started is one that does not help: this one does what is left.
        let helpers: Vec<_> =
            (1..threads).map_while(|_| std::thread::Builder::new().spawn_scoped(scope, take).ok()).collect();
        let mut shares = vec![take()];
        shares.extend(helpers.into_iter().map(|helper| {
            let ended = || SealError::Cannot {
                object: wanted.object.to_owned(),
                reason: "a thread ended unexpectedly".to_owned(),
            };
            helper.join().unwrap_or_else(|_| Err(ended()))
        }));
        shares
    });
    let mut found = Found::default();
    for share in shares {
        let share = share?;
        found.scan = found.scan.or(share.scan);
        found.digest = found.digest.or(share.digest);
        found.frames.extend(share.frames);
    }
    Ok(found)
}
