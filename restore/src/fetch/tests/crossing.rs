//! Segments for a standby that begin with the end of a CREATE TABLESPACE, and where its beginning may be found.

#![allow(clippy::disallowed_methods, reason = "tests lay out a data directory as a server does")]

use highwater_archive::seal::Codec;
use highwater_pitr::control::{ControlFile, invalidate_checkpoint};
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::timeline::TimelineHistory;

use super::*;
use crate::plan_file::{self, PlanBounds};

/// The WAL of the archive's own tests.
#[path = "../../../../archive/src/wal/fixture.rs"]
#[allow(dead_code, reason = "this suite writes fewer kinds of records than the archive's")]
mod fixture;

use fixture::WalWriter;

type Segment = (SegmentName, Vec<u8>);

/// A standby's host, and the WAL of segments 3 and 4, with a record between them that makes a tablespace in `path`.
struct Host {
    directory: tempfile::TempDir,
    path: PathBuf,
    first: Segment,
    second: Segment,
}

impl Host {
    fn new() -> Host {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ts");
        for below in ["data/pg_wal", "data/pg_tblspc", "data/global", "data/highwater"] {
            std::fs::create_dir_all(directory.path().join(below)).unwrap();
        }
        let mut wal = WalWriter::new(testing::SYSTEM_IDENTIFIER, WalSegmentSize::DEFAULT, 3);
        wal.commit(800, 1).leave(40).tablespace(16400, path.to_str().unwrap()).commit(801, 2).fill(7);
        let (first, second) = (wal.segment(3), wal.segment(4));
        Host { directory, path, first, second }
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// Something of another server lies where the tablespace would be made.
    fn take_path(&self) {
        std::fs::create_dir_all(self.path.join("PG_17_202406281")).unwrap();
    }

    /// Asks for `segment` as a standby does whose recovery began with segment `first`.
    async fn ask(
        &self,
        segment: &Segment,
        first: &str,
        sources: &mut [Source],
    ) -> Result<Outcome, FetchError> {
        let data = self.data();
        let bounds = PlanBounds {
            cluster: "main".parse().unwrap(),
            wal_segment_bytes: WalSegmentSize::DEFAULT,
            backup: "20261120T060959Z-0a0b0c0d".into(),
            target: "standby".into(),
            ancestry: TimelineHistory::root(segment.0.timeline).ancestry(),
            first_segment: first.parse().unwrap(),
            end: None,
        };
        let plan = plan_file::write(&data, &bounds, &[], None, Timestamp::UNIX_EPOCH).unwrap();
        let destination = data.join("pg_wal/RECOVERYXLOG");
        let clock = Hurried(Mutex::new(Timestamp::UNIX_EPOCH));
        let request = Request {
            file: WalFile::Segment(segment.0),
            destination: &destination,
            plan: Some(&plan),
            data_dir: &data,
            standby: true,
            deadline: Duration::from_secs(120),
        };
        let outcome = fetch(&request, sources, &clock).await;
        // What PostgreSQL would take is there exactly when it was handed out.
        assert_eq!(delivered(&outcome), destination.exists());
        if delivered(&outcome) {
            std::fs::remove_file(&destination).unwrap();
        }
        outcome
    }
}

fn delivered(outcome: &Result<Outcome, FetchError>) -> bool {
    matches!(outcome, Ok(Outcome::Delivered))
}

async fn holding(store: &MemoryStore, segments: &[&Segment]) -> Arc<Lineage> {
    let lineage = lineage(store).await;
    for (name, bytes) in segments {
        wal::put_segment(&lineage, *name, bytes.clone(), Codec::Lz4).await.unwrap();
    }
    lineage
}

const BEFORE: &str = "000000010000000000000003";
const BEGIN: &str = "000000010000000000000002";

/// One repository has the segment and another the one before: together they know what it makes.
#[tokio::test]
async fn what_one_repository_lacks_another_knows() {
    let host = Host::new();
    let (here, there) = (MemoryStore::new(), MemoryStore::new());
    let (second, first) = (holding(&here, &[&host.second]).await, holding(&there, &[&host.first]).await);
    let mut sources = [source("a", &second), source("b", &first)];
    assert!(delivered(&host.ask(&host.second, BEGIN, &mut sources).await));
    host.take_path();
    let refused = host.ask(&host.second, BEGIN, &mut sources).await.unwrap_err();
    assert!(matches!(&refused, FetchError::Tablespace { .. }) && refused.hint().is_some(), "{refused}");
    // One that may know and cannot say now: the standby asks again.
    there.inject(Operation::GetRange, "/wal/", Fault::FailBefore, true);
    let later = host.ask(&host.second, BEGIN, &mut sources).await.unwrap();
    assert!(matches!(&later, Outcome::Absent(why) if why.contains("repository b")), "{later:?}");
    // One that has gone has not said that it has none.
    there.heal();
    for path in there.paths() {
        there.lose(&path);
    }
    let gone = host.ask(&host.second, BEGIN, &mut sources).await.unwrap();
    assert!(matches!(gone, Outcome::Absent(_)), "{gone:?}");
}

/// What no repository has whole is looked for where replay has just read it; nowhere at all is an error and no waiting.
#[tokio::test]
async fn the_segment_before_may_be_damaged_or_gone() {
    let host = Host::new();
    let store = MemoryStore::new();
    let lineage = holding(&store, &[&host.first, &host.second]).await;
    let path = store.paths().into_iter().find(|path| path.contains(BEFORE)).unwrap();
    let mut bytes = store.peek(&path).unwrap().to_vec();
    bytes[200] ^= 1;
    store.tamper(&path, bytes);
    let mut sources = [source("a", &lineage)];
    for lost in [false, true] {
        if lost {
            store.lose(&path);
        }
        let nowhere = host.ask(&host.second, BEGIN, &mut sources).await.unwrap_err();
        assert!(
            matches!(&nowhere, FetchError::CutTablespace { before, .. } if before == BEFORE),
            "{nowhere}"
        );
        assert!(nowhere.hint().is_some());
    }
    let local = host.data().join("pg_wal").join(BEFORE);
    // One that the server has not written to its end says nothing.
    std::fs::write(&local, &host.first.1[..1 << 20]).unwrap();
    assert!(host.ask(&host.second, BEGIN, &mut sources).await.is_err());
    std::fs::write(&local, &host.first.1).unwrap();
    assert!(delivered(&host.ask(&host.second, BEGIN, &mut sources).await));
    host.take_path();
    let refused = host.ask(&host.second, BEGIN, &mut sources).await.unwrap_err();
    assert!(matches!(refused, FetchError::Tablespace { .. }), "{refused}");
}

/// What is carried into the segment in which recovery begins is never replayed: by the plan, or by the control file once the
/// backup's label is gone.
#[tokio::test]
async fn where_recovery_begins_nothing_is_carried_in() {
    let host = Host::new();
    host.take_path();
    let store = MemoryStore::new();
    let lineage = holding(&store, &[&host.second]).await;
    let mut sources = [source("a", &lineage)];
    let own = host.second.0.to_string();
    assert!(delivered(&host.ask(&host.second, &own, &mut sources).await));
    assert!(host.ask(&host.second, BEFORE, &mut sources).await.is_err());
    let control = control_with_redo(host.second.0.start(WalSegmentSize::DEFAULT).as_u64() + 40);
    std::fs::write(host.data().join("global/pg_control"), control).unwrap();
    std::fs::write(host.data().join("backup_label"), "").unwrap();
    assert!(host.ask(&host.second, BEFORE, &mut sources).await.is_err());
    std::fs::remove_file(host.data().join("backup_label")).unwrap();
    assert!(delivered(&host.ask(&host.second, BEFORE, &mut sources).await));
    // As a backup brings it, it speaks of the primary.
    let mut brought = control_with_redo(host.second.0.start(WalSegmentSize::DEFAULT).as_u64() + 40);
    invalidate_checkpoint(&mut brought).unwrap();
    std::fs::write(host.data().join("global/pg_control"), brought).unwrap();
    assert!(host.ask(&host.second, BEFORE, &mut sources).await.is_err());
}

/// A control file whose last checkpoint begins recovery at `redo`.
fn control_with_redo(redo: u64) -> Vec<u8> {
    const REDO: usize = 40;
    const CRC: usize = 288;
    let mut bytes = include_bytes!("../../../../pitr/fixtures/control/17.bin").to_vec();
    bytes.resize(8192, 0);
    bytes[REDO..REDO + 8].copy_from_slice(&redo.to_le_bytes());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[..CRC]) as u32;
    bytes[CRC..CRC + 4].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(ControlFile::parse(&bytes).unwrap().redo.as_u64(), redo);
    bytes
}

/// A record of the tablespace manager that cannot be taken apart is not handed out unseen; one of another manager is.
#[tokio::test]
async fn a_strange_tablespace_is_not_handed_out() {
    let host = Host::new();
    for (manager, handed_out) in [(1, true), (5, false)] {
        let mut wal = WalWriter::new(testing::SYSTEM_IDENTIFIER, WalSegmentSize::DEFAULT, 3);
        wal.strange(1).strange(manager).fill(7);
        let segment = wal.segment(3);
        let lineage = holding(&MemoryStore::new(), &[&segment]).await;
        let answer = host.ask(&segment, BEGIN, &mut [source("a", &lineage)]).await;
        if handed_out {
            assert!(delivered(&answer), "{answer:?}");
        } else {
            let error = answer.unwrap_err();
            assert!(
                matches!(error, FetchError::StrangeTablespace { .. }) && error.hint().is_some(),
                "{error}"
            );
            assert!(error.to_string().contains("LSN 0/30000"), "{error}");
        }
    }
}
