#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;

use highwater_pitr::scan::ChainEnd;
use highwater_pitr::segment::{SegmentName, WalFile, WalSegmentSize};
use highwater_pitr::timeline::TimelineId;
use jiff::Timestamp;

mod indexed;
mod small;

use super::fixture::WalWriter;
use super::*;
use crate::keyring::{KeyClass, Recipients, Unlock};
use crate::names::{self, LineageId};
use crate::racing::{NameMode, RaceError};
use crate::repository::lineage::{Lineage, LineageError, LineageRecord};
use crate::repository::{Cluster, CreateParams, DEFAULT_EXTENT_BYTES, Repository};
use crate::seal::{Codec, ObjectKind, SealError, read_header, scrub};
use crate::store::memory::{Fault, MemoryStore, Operation};
use crate::testing;

const SYSTEM: u64 = 7_600_000_000_000_000_001;

struct Ground {
    store: MemoryStore,
    unlock: Unlock,
    recipients: Recipients,
    cluster: Cluster,
    lineage: Lineage,
    size: WalSegmentSize,
}

async fn ground_with(mode: NameMode, mib: u32) -> Ground {
    let now = Timestamp::UNIX_EPOCH;
    let store = MemoryStore::new();
    store.ignore_conditions(mode == NameMode::Content);
    let params = CreateParams { names: mode, extent_bytes: DEFAULT_EXTENT_BYTES, now };
    let (repository, _) = Repository::create(Arc::new(store.clone()), params).await.unwrap();
    let (unlock, _) = Unlock::generate(now);
    let recipients = unlock.recipients().unwrap();
    let (cluster, _) =
        repository.create_cluster(&"main".parse().unwrap(), &unlock, &recipients, now).await.unwrap();
    let size = WalSegmentSize::try_from(mib << 20).unwrap();
    let lineage = new_lineage(&cluster, size).await;
    Ground { store, unlock, recipients, cluster, lineage, size }
}

async fn ground() -> Ground {
    ground_with(NameMode::Plain, 1).await
}

async fn new_lineage(cluster: &Cluster, size: WalSegmentSize) -> Lineage {
    let record = LineageRecord {
        lineage: LineageId::random().unwrap(),
        system_identifier: SYSTEM,
        wal_segment_bytes: size,
        ..testing::record(cluster.id())
    };
    cluster.create_lineage(record).await.unwrap()
}

impl Ground {
    fn wal(&self) -> WalWriter {
        WalWriter::new(SYSTEM, self.size, 3)
    }

    /// Segment 3, full of records that go on in segment 4.
    fn full(&self) -> (SegmentName, Vec<u8>) {
        self.wal().commit(800, 1_000_000).fill(7).segment(3)
    }

    async fn put(&self, (name, bytes): &(SegmentName, Vec<u8>)) -> Result<Stored, WalPutError> {
        put_segment(&self.lineage, *name, bytes.clone(), Codec::Lz4).await
    }

    /// Puts a segment that is there: the answer waits until it is durable, and is none where that fails.
    async fn is_confirmed_before_the_answer(&self, full: &(SegmentName, Vec<u8>)) {
        let confirmed = self.store.count(Operation::Confirm);
        self.store.inject(Operation::Confirm, &full.0.to_string(), Fault::FailBefore, false);
        assert!(matches!(self.put(full).await, Err(WalPutError::Lineage(LineageError::Store(_)))));
        assert_eq!(self.put(full).await.unwrap(), Stored::Same);
        assert_eq!(self.store.count(Operation::Confirm), confirmed + 2);
    }

    /// The variants that are kept beside the segment.
    async fn variants(&self, name: SegmentName) -> Vec<Vec<u8>> {
        let prefix = format!("{}.variant.", names::wal_object(&WalFile::Segment(name)));
        let mut variants = Vec::new();
        for entry in self.lineage.list(&prefix).await.unwrap() {
            let read = super::get::read_whole_at(&self.lineage, name, &entry.path).await;
            variants.push(read.unwrap().unwrap());
        }
        variants
    }

    async fn get(&self, name: SegmentName) -> Option<Vec<u8>> {
        get(&self.lineage, &WalFile::Segment(name)).await.unwrap()
    }

    fn path(&self, name: SegmentName) -> String {
        self.lineage.full_path(&names::wal_object(&WalFile::Segment(name)))
    }
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

#[tokio::test]
async fn a_segment_goes_up_and_comes_down() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let full = ground.full();
        assert_eq!(ground.put(&full).await.unwrap(), Stored::New);
        assert_eq!(ground.put(&full).await.unwrap(), Stored::Same);
        assert!(ground.get(full.0).await.unwrap() == full.1);
        assert_eq!(ground.get(full.0.next(ground.size)).await, None);
        let listed = list_segments(&ground.lineage, timeline(1)).await.unwrap();
        assert_eq!(listed, [full.0]);
        assert_eq!(list_timelines(&ground.lineage).await.unwrap(), [timeline(1)]);
    }
}

/// I2: what follows a switch does not count; a recycled tail is no difference (the archive's pain with promotions).
#[tokio::test]
async fn a_recycled_tail_is_the_same_segment() {
    let ground = ground().await;
    let (name, clean) = ground.wal().commit(800, 1).noop(5000, 1).switch().segment(3);
    let mut recycled = clean.clone();
    let written = clean.iter().rposition(|byte| *byte != 0).unwrap();
    // What a recycled file holds: records of long ago, valid for where they once were.
    let old = WalWriter::new(SYSTEM, ground.size, 1).fill(3).segment(1).1;
    recycled[written + 9..].copy_from_slice(&old[written + 9..]);
    assert_eq!(ground.put(&(name, recycled)).await.unwrap(), Stored::New);
    assert_eq!(ground.put(&(name, clean.clone())).await.unwrap(), Stored::Same);
    assert!(ground.get(name).await.unwrap() == clean);
}

/// I2: another content under the name is a hard error that names both, and what is there stays.
#[tokio::test]
async fn other_content_is_a_conflict() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let first = ground.full();
        let second = ground.wal().commit(900, 2_000_000).fill(9).segment(3);
        ground.put(&first).await.unwrap();
        let error = ground.put(&second).await.unwrap_err();
        let digest = |bytes: &[u8]| ground.lineage.keys().digest(bytes);
        match &error {
            WalPutError::Conflict { file, ours, theirs } => {
                assert_eq!(*file, WalFile::Segment(first.0));
                assert_eq!((ours.digest, theirs.digest), (digest(&second.1), digest(&first.1)));
                assert_eq!((ours.valid_len, theirs.valid_len), (1 << 20, 1 << 20));
            }
            other => panic!("{other}"),
        }
        for part in [digest(&first.1).to_string(), digest(&second.1).to_string(), first.0.to_string()] {
            assert!(error.to_string().contains(&part), "{error}");
        }
        assert!(error.hint().is_some() && error.is_permanent());
        assert!(ground.get(first.0).await.unwrap() == first.1);
        assert_eq!(ground.put(&first).await.unwrap(), Stored::Same);
    }
}

/// I2: a segment whose WAL stops before its end without a switch never gets the segment's name, with zeros behind it or with
/// what a recycled file held.
#[tokio::test]
async fn a_broken_chain_is_refused() {
    let ground = ground().await;
    let mut wal = ground.wal();
    let (name, zeros) = wal.commit(800, 1).noop(9000, 1).segment(3);
    let valid_len = wal.lsn() % ground.size.bytes();
    let mut recycled = zeros.clone();
    let old = WalWriter::new(SYSTEM, ground.size, 1).fill(3).segment(1).1;
    recycled[valid_len as usize..].copy_from_slice(&old[valid_len as usize..]);
    for bytes in [zeros, recycled] {
        match ground.put(&(name, bytes)).await.unwrap_err() {
            WalPutError::BrokenChain { segment, at, valid_len: found, reason } => {
                assert_eq!((segment, found), (name, valid_len));
                assert!(at.as_u64() >= wal.lsn() && at.as_u64() < wal.lsn() + 8192);
                assert!(!reason.is_empty());
            }
            other => panic!("{other}"),
        }
    }
    assert!(!ground.store.paths().iter().any(|path| path.contains("/wal/")), "{:?}", ground.store.paths());
}

/// I2: after a promotion the shorter copy of a segment is kept beside the whole one, and reported; a copy that is no beginning
/// of it is a conflict. Nothing is answered with success that is not stored.
#[tokio::test]
async fn a_shorter_copy_is_kept_beside() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let mut wal = ground.wal();
        let short = wal.commit(800, 1).noop(9000, 1).segment(3);
        let valid_len = wal.lsn() % ground.size.bytes();
        let whole = wal.commit(801, 2).fill(5).segment(3);
        let mut other = ground.wal();
        let stranger = other.commit(900, 1).noop(9000, 1).segment(3);

        ground.put(&whole).await.unwrap();
        match ground.put(&short).await.unwrap() {
            Stored::Variant { beside, variant } => {
                assert_eq!(variant.valid_len, valid_len);
                assert_eq!(beside.digest, ground.lineage.keys().digest(&whole.1));
                assert_eq!(variant.digest, ground.lineage.keys().digest(&short.1));
            }
            other => panic!("{other:?}"),
        }
        assert!(matches!(ground.put(&short).await.unwrap(), Stored::Variant { .. }));
        assert!(matches!(ground.put(&stranger).await, Err(WalPutError::Conflict { .. })));
        let listing = list_timeline(&ground.lineage, timeline(1)).await.unwrap();
        assert_eq!(listing.variants, [short.0]);
        assert!(listing.conflicts.is_empty());
        assert!(ground.get(whole.0).await.unwrap() == whole.1);
        // It is really there.
        assert!(ground.variants(short.0).await == [short.1]);
    }
}

/// Several promotions leave several `.partial`s of one segment: all are kept, and the name gives the first.
#[tokio::test]
async fn every_partial_is_kept() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let mut wal = ground.wal();
        let mut at = Vec::new();
        for xid in 0..3 {
            at.push(wal.commit(xid, 1).noop(9000, 1).segment(3));
        }
        let name = at[0].0;
        let put =
            async |number: usize| put_partial(&ground.lineage, name, at[number].1.clone(), Codec::Lz4).await;
        assert_eq!(put(1).await.unwrap(), Stored::New);
        assert_eq!(put(1).await.unwrap(), Stored::Same);
        assert!(matches!(put(0).await.unwrap(), Stored::Variant { .. }));
        assert!(matches!(put(2).await.unwrap(), Stored::Variant { .. }));
        let kept = ground.variants(name).await;
        assert!(kept.len() == 2 && kept.contains(&at[0].1) && kept.contains(&at[2].1));
        assert!(get(&ground.lineage, &WalFile::Partial(name)).await.unwrap().unwrap() == at[1].1);
        let stranger = ground.wal().commit(99, 5).noop(700, 1).segment(3).1;
        assert!(matches!(
            put_partial(&ground.lineage, name, stranger, Codec::Lz4).await,
            Err(WalPutError::Conflict { .. })
        ));
        // A `.partial` is no segment.
        assert_eq!(ground.get(name).await, None);
        assert!(list_segments(&ground.lineage, timeline(1)).await.unwrap().is_empty());
    }
}

/// Two clusters under one name: WAL of another system identifier is refused, loudly.
#[tokio::test]
async fn another_cluster_is_refused() {
    let ground = ground().await;
    let (name, bytes) = WalWriter::new(SYSTEM + 1, ground.size, 3).fill(7).segment(3);
    let error = ground.put(&(name, bytes)).await.unwrap_err();
    assert!(
        matches!(error, WalPutError::WrongCluster { expected: SYSTEM, found, .. } if found == SYSTEM + 1)
    );
    let text = error.to_string();
    assert!(text.contains(&SYSTEM.to_string()) && text.contains(&(SYSTEM + 1).to_string()), "{text}");
    assert!(error.hint().unwrap().contains("adopt"));
}

/// What is no segment of this lineage under this name is refused.
#[tokio::test]
async fn what_is_not_the_segment_is_refused() {
    let ground = ground().await;
    let (name, bytes) = ground.full();
    let other_size = WalSegmentSize::try_from(2 << 20).unwrap();
    let larger = WalWriter::new(SYSTEM, other_size, 3).fill(7).segment(3).1;
    let cases = [
        (name.next(ground.size), bytes.clone()),
        (name, bytes[..bytes.len() / 2].to_vec()),
        (name, vec![0; bytes.len()]),
        (name, Vec::new()),
        (name, b"not WAL".to_vec()),
        (name, larger),
    ];
    for (number, case) in cases.into_iter().enumerate() {
        let error = ground.put(&case).await.unwrap_err();
        let expected = if number == 5 {
            matches!(error, WalPutError::WrongSize { .. })
        } else {
            matches!(error, WalPutError::NotWal { .. })
        };
        assert!(expected, "{number}: {error}");
    }
    assert!(!ground.store.paths().iter().any(|path| path.contains("/wal/")));
}

/// I7: after a rotation the same segment is still the same: 0, and nothing stored again.
#[tokio::test]
async fn a_rotation_does_not_make_a_segment_another() {
    let ground = ground().await;
    let full = ground.full();
    ground.put(&full).await.unwrap();
    let next = ground
        .cluster
        .keys()
        .next_generation(&[KeyClass::Content, KeyClass::Metadata], &ground.recipients, Timestamp::UNIX_EPOCH)
        .unwrap();
    ground.cluster.append_generation(next, &ground.recipients).await.unwrap();
    let repository = ground.cluster.repository();
    let locked = repository.cluster(&"main".parse().unwrap()).await.unwrap();
    let lineage = locked.unlock(&ground.unlock).await.unwrap().lineage(ground.lineage.id()).await.unwrap();
    let before = ground.store.paths();
    assert_eq!(put_segment(&lineage, full.0, full.1.clone(), Codec::Zstd).await.unwrap(), Stored::Same);
    assert_eq!(ground.store.paths(), before);
    assert!(get(&lineage, &WalFile::Segment(full.0)).await.unwrap().unwrap() == full.1);
    assert_eq!(read_index(&lineage, full.0).await.unwrap().unwrap().transactions.len(), 1);
}

/// I4: on a store that ignores conditional puts, two writers of one segment never both succeed with different contents, and
/// none overwrites the other.
#[tokio::test]
async fn without_conditional_creates_nothing_is_overwritten() {
    let ground = ground_with(NameMode::Content, 1).await;
    let first = ground.full();
    let second = ground.wal().commit(900, 2_000_000).fill(9).segment(3);
    let (a, b) = tokio::join!(ground.put(&first), ground.put(&second));
    assert!(a.is_err() || b.is_err());
    for (answer, put) in [(a, &first), (b, &second)] {
        if answer.is_ok() {
            assert!(ground.get(put.0).await.unwrap() == put.1);
        }
    }
    // Both put before they listed: both contents are there, nobody was told that all is well, and everybody is told now.
    let listing = list_timeline(&ground.lineage, timeline(1)).await.unwrap();
    assert_eq!(listing.conflicts, [names::wal_object(&WalFile::Segment(first.0))]);
    assert!(get(&ground.lineage, &WalFile::Segment(first.0)).await.is_err());
    let error = list_segments(&ground.lineage, timeline(1)).await.unwrap_err().to_string();
    for content in [&first.1, &second.1] {
        assert!(error.contains(&ground.lineage.keys().digest(content).short().to_string()), "{error}");
    }
    let error = ground.put(&first).await.unwrap_err();
    assert!(
        matches!(error, WalPutError::Lineage(LineageError::Race(RaceError::TwoContents { .. }))),
        "{error}"
    );
}

/// I1: two lineages with one system identifier and one timeline each keep their own segment of the same name.
#[tokio::test]
async fn two_lineages_keep_their_own_segments() {
    let ground = ground().await;
    let other = new_lineage(&ground.cluster, ground.size).await;
    let first = ground.full();
    let second = ground.wal().commit(900, 2_000_000).fill(9).segment(3);
    assert_eq!(ground.put(&first).await.unwrap(), Stored::New);
    assert_eq!(put_segment(&other, second.0, second.1.clone(), Codec::Lz4).await.unwrap(), Stored::New);
    assert!(ground.get(first.0).await.unwrap() == first.1);
    let file = WalFile::Segment(second.0);
    assert!(get(&other, &file).await.unwrap().unwrap() == second.1);
    // The object of one put in the place of the other's does not open, and is not taken for the same segment either.
    let path = other.full_path(&names::wal_object(&file));
    ground.store.tamper(&path, ground.store.peek(&ground.path(first.0)).unwrap());
    assert!(get(&other, &file).await.is_err());
    let error = put_segment(&other, first.0, first.1, Codec::Lz4).await.unwrap_err();
    assert!(matches!(error, WalPutError::Unreadable { .. }), "{error}");
}

/// I16: the index comes with the segment's object, by one ranged read.
#[tokio::test]
async fn the_index_is_one_ranged_read() {
    let ground = ground().await;
    let full = ground.full();
    ground.put(&full).await.unwrap();
    let before = (ground.store.count(Operation::GetRange), ground.store.count(Operation::Get));
    let index = read_index(&ground.lineage, full.0).await.unwrap().unwrap();
    let after = (ground.store.count(Operation::GetRange), ground.store.count(Operation::Get));
    assert_eq!((after.0 - before.0, after.1 - before.1), (1, 0));
    assert_eq!((index.segment, index.system_identifier), (full.0, SYSTEM));
    assert_eq!(index.transactions.iter().map(|end| end.xid).collect::<Vec<_>>(), [800]);
    assert!(index.unfinished.is_some());
    assert_eq!(read_index(&ground.lineage, full.0.next(ground.size)).await.unwrap(), None);
}

/// I16: an index that is longer than the first read is fetched whole.
#[tokio::test]
async fn a_long_index_is_fetched_whole() {
    let ground = ground().await;
    let mut wal = ground.wal();
    let mut state = 1u64;
    for xid in 0..15_000u32 {
        // Times without a pattern, so that they do not compress.
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        wal.commit(xid, (state >> 8) as i64);
    }
    let full = wal.fill(1).segment(3);
    ground.put(&full).await.unwrap();
    let header =
        read_header(ground.lineage.keys(), "x", &ground.store.peek(&ground.path(full.0)).unwrap()).unwrap();
    assert!(header.attachment_len > 64 << 10, "{}", header.attachment_len);
    assert_eq!(read_index(&ground.lineage, full.0).await.unwrap().unwrap().transactions.len(), 15_000);
    assert_eq!(ground.put(&full).await.unwrap(), Stored::Same);
}

/// I16: an index of an unknown decoder is made again from the segment.
#[tokio::test]
async fn an_unknown_index_is_made_again() {
    let ground = ground().await;
    let full = ground.full();
    let mut prepared =
        PreparedSegment::new(&ground.lineage, WalFile::Segment(full.0), full.1.clone(), Codec::Lz4).unwrap();
    prepared.index = Some(vec![0xFF; 50]);
    prepared.sealed = Some(prepared.seal_as(&ground.lineage, &prepared.name).unwrap());
    assert_eq!(put_prepared(&ground.lineage, &prepared).await.unwrap(), Stored::New);
    let index = read_index(&ground.lineage, full.0).await.unwrap().unwrap();
    assert_eq!(index, prepared.scan().index);
    assert_eq!(ground.put(&full).await.unwrap(), Stored::Same);
}

/// I3: what was found under the name, and not created, is durable before it is answered that it is there.
#[tokio::test]
async fn what_is_only_found_is_confirmed_before_the_answer() {
    let ground = ground_with(NameMode::Content, 16).await;
    let full = ground.full();
    assert_eq!(ground.put(&full).await.unwrap(), Stored::New);
    ground.is_confirmed_before_the_answer(&full).await;

    let history = || put_small(&ground.lineage, WalFile::History(timeline(2)), b"1\t0/3000000\tx\n");
    assert_eq!(history().await.unwrap(), Stored::New);
    ground.store.inject(Operation::Confirm, "history", Fault::FailBefore, false);
    assert!(matches!(history().await, Err(WalPutError::Lineage(LineageError::Store(_)))));
    assert_eq!(history().await.unwrap(), Stored::Same);
}

/// I21: a segment above 32 MiB lies in parts, the commit object last; without it there is no segment.
#[tokio::test]
async fn a_large_segment_lies_in_parts() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 64).await;
        let full = ground.full();
        // Cut off before the commit object: nothing is there, and the next attempt completes it.
        ground.store.inject(Operation::Create, &format!("{}.part.0003", full.0), Fault::FailBefore, false);
        assert!(matches!(ground.put(&full).await, Err(WalPutError::Lineage(LineageError::Store(_)))));
        assert_eq!(ground.get(full.0).await, None);
        assert!(list_segments(&ground.lineage, timeline(1)).await.unwrap().is_empty());
        assert_eq!(ground.put(&full).await.unwrap(), Stored::New);
        let creates = ground.store.count(Operation::Create);
        assert_eq!(ground.put(&full).await.unwrap(), Stored::Same);
        assert_eq!(ground.store.count(Operation::Create), creates);
        ground.is_confirmed_before_the_answer(&full).await;

        assert!(ground.get(full.0).await.unwrap() == full.1);
        let index = read_index(&ground.lineage, full.0).await.unwrap().unwrap();
        assert_eq!(index.transactions.len(), 1);
        let listed = list_segments(&ground.lineage, timeline(1)).await.unwrap();
        assert_eq!(listed, [full.0]);
        let objects = ground.lineage.list("wal/").await.unwrap();
        assert_eq!(objects.len(), 5);
        assert!(objects.iter().all(|entry| entry.size <= 32 << 20));

        // Another content: a conflict, and the parts of the first are untouched.
        let other = ground.wal().commit(900, 1).fill(9).segment(3);
        assert!(matches!(ground.put(&other).await, Err(WalPutError::Conflict { .. })));
        assert!(ground.get(full.0).await.unwrap() == full.1);

        // A beginning of it is kept beside, in parts too.
        let mut wal = ground.wal();
        let short = wal.commit(800, 1_000_000).noop(50_000, 7).segment(3);
        assert!(matches!(ground.put(&short).await.unwrap(), Stored::Variant { .. }));
        assert!(ground.variants(short.0).await == [short.1]);

        // A part that is missing, or another's, is named.
        let part = objects.iter().find(|entry| entry.path.contains(".part.0001.")).unwrap();
        let path = ground.lineage.full_path(&part.path);
        let bytes = ground.store.peek(&path).unwrap();
        ground.store.lose(&path);
        let error = get(&ground.lineage, &WalFile::Segment(full.0)).await.unwrap_err();
        assert!(
            matches!(&error, WalGetError::MissingPart { part: missing, .. } if *missing == part.path),
            "{error}"
        );
        let second = objects.iter().find(|entry| entry.path.contains(".part.0002.")).unwrap();
        ground.store.tamper(&path, ground.store.peek(&ground.lineage.full_path(&second.path)).unwrap());
        assert!(get(&ground.lineage, &WalFile::Segment(full.0)).await.is_err());
        ground.store.tamper(&path, bytes);
        assert!(ground.get(full.0).await.unwrap() == full.1);
    }
}

/// A store that fails is never taken for one that does not have the segment, and a lost reply is no conflict.
#[tokio::test]
async fn failures_are_failures() {
    let ground = ground().await;
    let full = ground.full();
    ground.store.inject(Operation::Create, "/wal/", Fault::FailAfter, false);
    let error = ground.put(&full).await.unwrap_err();
    assert!(!error.is_permanent());
    assert_eq!(ground.put(&full).await.unwrap(), Stored::Same);
    ground.store.inject(Operation::Get, "/wal/", Fault::FailBefore, true);
    ground.store.inject(Operation::GetRange, "/wal/", Fault::FailBefore, true);
    let error = get(&ground.lineage, &WalFile::Segment(full.0)).await.unwrap_err();
    assert!(!error.is_permanent());
    assert!(read_index(&ground.lineage, full.0).await.is_err());
    // It exists, and cannot be compared: not 0.
    assert!(matches!(ground.put(&full).await, Err(WalPutError::Unreadable { .. })));
}

/// Whatever byte of a stored segment rots, what comes down is the segment or an error; and the same bytes that go up again are
/// "there" only if they would come down (I2): the header alone may be all that is left.
#[tokio::test]
async fn rot_is_never_served_nor_taken_for_the_segment() {
    let ground = ground().await;
    let full = ground.full();
    ground.put(&full).await.unwrap();
    let path = ground.path(full.0);
    let sealed = ground.store.peek(&path).unwrap().to_vec();
    scrub(&path, &sealed).unwrap();
    for at in (0..sealed.len()).step_by(sealed.len() / 97) {
        let mut rotten = sealed.clone();
        rotten[at] ^= 1;
        ground.store.tamper(&path, rotten);
        if let Ok(stored) = ground.put(&full).await {
            assert_eq!(stored, Stored::Same);
            assert!(ground.get(full.0).await.unwrap() == full.1, "byte {at}");
        }
        match get(&ground.lineage, &WalFile::Segment(full.0)).await {
            Ok(bytes) => assert!(bytes.unwrap() == full.1, "byte {at}"),
            Err(WalGetError::Lineage(LineageError::Seal(error))) => {
                assert!(!matches!(error, SealError::Cannot { .. }))
            }
            Err(other) => panic!("byte {at}: {other}"),
        }
    }
    for len in [0, 7, 100, 200, sealed.len() / 2, sealed.len() - 1] {
        ground.store.tamper(&path, sealed[..len].to_vec());
        assert!(get(&ground.lineage, &WalFile::Segment(full.0)).await.is_err(), "{len}");
        assert!(matches!(ground.put(&full).await, Err(WalPutError::Unreadable { .. })), "{len}");
    }
}

/// What is in the header of an object is what I2 asks for.
#[tokio::test]
async fn the_header_holds_digest_and_valid_length() {
    let ground = ground().await;
    let mut wal = ground.wal();
    let (name, bytes) = wal.commit(800, 1).noop(5000, 1).switch().segment(3);
    let prepared =
        PreparedSegment::new(&ground.lineage, WalFile::Segment(name), bytes.clone(), Codec::Lz4).unwrap();
    assert_eq!(prepared.scan().end, ChainEnd::Switch);
    put_prepared(&ground.lineage, &prepared).await.unwrap();
    let header =
        read_header(ground.lineage.keys(), "x", &ground.store.peek(&ground.path(name)).unwrap()).unwrap();
    assert_eq!(header.digest, Some(ground.lineage.keys().digest(&bytes)));
    assert_eq!(header.valid_len, Some(prepared.content().valid_len));
    assert_eq!(header.plain_len, Some(1 << 20));
    assert!(prepared.content().valid_len < 6000);
}
