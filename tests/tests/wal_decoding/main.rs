//! Our reading of WAL against PostgreSQL's own: every record that `pg_waldump` prints of a cluster that did all that is hard to
//! read, on every major of this machine.

mod fixtures;
mod oracle;
mod workload;

use highwater_pitr::index::{Chain, SegmentIndex};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::scan::{ChainEnd, canonicalise, is_strict_prefix, scan_segment};
use highwater_pitr::segment::SegmentName;
use highwater_pitr::wal::WalError;
use highwater_tests::{Cluster, Scratch, for_each_major};

use oracle::{Segments, compare};
use workload::Workload;

/// I16: the index of real WAL holds what `pg_waldump` shows, record by record, across every seam: small and huge
/// records, headers cut by the end of a segment, prepared and nested transactions, a crash, a record given up in a crash, a
/// promotion.
#[test]
fn every_record_is_read_as_pg_waldump_reads_it() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive");
        let cluster = Cluster::builder(postgres, &scratch, "c")
            .wal_segment_mb(1)
            .setting("wal_level", "logical")
            .setting("max_prepared_transactions", "20")
            .setting("wal_compression", "on")
            .setting("max_wal_size", "64MB")
            .setting("fsync", "off")
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .start();
        let work = Workload::new(&cluster);
        work.concurrent_sessions();
        work.transactions_of_every_kind();
        work.records_at_the_end_of_a_segment();
        work.tablespaces(&scratch.dir("tablespaces"));
        work.records_larger_than_a_segment();
        work.crash();
        work.concurrent_sessions();
        work.record_given_up_in_a_crash();
        let archived = work.switch_and_wait();
        let seen = compare(postgres, &Segments::read(&archive, 1), 1);
        assert!(seen.transactions > 300 && seen.restore_points == 7 && seen.checkpoints >= 5, "{seen:?}");
        assert!(seen.crossing_transactions >= 3 && seen.crossing_restore_points >= 2, "{seen:?}");
        assert!(seen.given_up == 1 && seen.split_headers >= 2 && seen.switches >= 3, "{seen:?}");
        assert!(seen.whole_segments_of_one_record >= 2, "{seen:?}");
        assert!(seen.tablespaces == 5 && seen.crossing_tablespaces == 1, "{seen:?}");

        work.promote();
        work.concurrent_sessions();
        work.transactions_of_every_kind();
        work.switch_and_wait();
        let segments = Segments::read(&archive, 2);
        let (name, fork, _) = &segments.list[0];
        let size = fork.header.segment_size;
        assert!(name.number(size) <= archived.number(size) + 1, "timeline 2 begins where timeline 1 ended");
        assert_eq!(fork.header.timeline.get(), 1, "the first page was copied from timeline 1");
        let seen = compare(postgres, &segments, 2);
        assert!(seen.transactions > 100, "{seen:?}");
        cluster.stop();
    });
}

/// The same with segments of the size that most clusters have, under nothing but load.
#[test]
fn segments_of_sixteen_mebibytes() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive");
        let cluster = Cluster::builder(postgres, &scratch, "c")
            .setting("fsync", "off")
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .start();
        let work = Workload::new(&cluster);
        work.concurrent_sessions();
        work.switch_and_wait();
        work.concurrent_sessions();
        work.switch_and_wait();
        let seen = compare(postgres, &Segments::read(&archive, 1), 1);
        assert!(seen.transactions > 200, "{seen:?}");
        cluster.stop();
    });
}

/// I2: what a real segment becomes when a server hands back something else than it wrote.
#[test]
fn a_segment_that_stops_early_is_never_taken_for_a_whole_one() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive");
        let cluster = Cluster::builder(postgres, &scratch, "c")
            .wal_segment_mb(1)
            .setting("fsync", "off")
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .start();
        let work = Workload::new(&cluster);
        for _ in 0..4 {
            work.concurrent_sessions();
        }
        work.switch_and_wait();
        cluster.stop();
        let segments = Segments::read(&archive, 1);
        let full = segments.list.iter().rposition(|(_, scan, _)| scan.end == ChainEnd::Full).unwrap();
        let (name, scan, bytes) = &segments.list[full];
        let records = scan.index.transactions.len();
        let start = name.start(scan.header.segment_size);

        // A tail of zeros from the middle of a record, as a standby hands it back: the chain ends before that record.
        let middle = scan.index.transactions[records / 2];
        let cut = (middle.lsn.as_u64() - start.as_u64()) as usize + 12;
        let mut zeros = bytes.clone();
        zeros[cut..].fill(0);
        let short = scan_segment(&zeros, *name).unwrap();
        assert_eq!(short.valid_len, middle.lsn.as_u64() - start.as_u64());
        assert!(matches!(short.end, ChainEnd::Broken { at, .. } if at == middle.lsn), "{:?}", short.end);
        assert_eq!(short.index.transactions, scan.index.transactions[..records / 2]);
        assert!(is_strict_prefix(&zeros, &short, bytes, scan));
        assert!(
            !is_strict_prefix(bytes, scan, &zeros, &short) && !is_strict_prefix(bytes, scan, bytes, scan)
        );
        let mut same = zeros.clone();
        canonicalise(&mut same, &short);
        assert!(same == zeros, "a segment without a switch is canonical as it is");

        // The same tail, but from the file's earlier use.
        let (_, _, older) = &segments.list[full - 1];
        let page = cut.next_multiple_of(8192);
        let mut recycled = bytes.clone();
        recycled[page..].copy_from_slice(&older[page..]);
        let scanned = scan_segment(&recycled, *name).unwrap();
        let ChainEnd::Broken { at, reason } = scanned.end else {
            panic!("a recycled tail was taken for WAL")
        };
        assert!(reason.contains("an earlier use of the file"), "{reason}");
        assert_eq!(at, Lsn::new(start.as_u64() + page as u64));

        // A whole recycled file, which holds old records that are all valid.
        assert!(matches!(scan_segment(older, *name), Err(WalError::Misplaced { .. })));

        // One bit anywhere in a record.
        let mut flipped = bytes.clone();
        flipped[cut] ^= 4;
        assert!(
            matches!(scan_segment(&flipped, *name).unwrap().end, ChainEnd::Broken { at, .. } if at == middle.lsn)
        );

        // Behind a switch anything may lie; the canonical form is one.
        let (name, scan, bytes) =
            segments.list.iter().rfind(|(_, scan, _)| scan.end == ChainEnd::Switch).unwrap();
        let mut rubbish = bytes.clone();
        let len = scan.valid_len as usize;
        rubbish[len..].copy_from_slice(&older[len..]);
        let again = scan_segment(&rubbish, *name).unwrap();
        assert_eq!((&again.end, again.valid_len, &again.index), (&scan.end, scan.valid_len, &scan.index));
        canonicalise(&mut rubbish, &again);
        let mut canonical = bytes.clone();
        canonicalise(&mut canonical, scan);
        assert!(rubbish == canonical && rubbish[len..].iter().all(|byte| *byte == 0));

        // Nothing joins where a segment is left out, or exchanged.
        let indexes: Vec<&SegmentIndex> = segments.list.iter().map(|(_, scan, _)| &scan.index).collect();
        let mut chain = Chain::new();
        chain.push(indexes[full - 1]).unwrap();
        assert!(chain.push(indexes[full + 1]).is_err());
    });
}

/// A segment's name and where it lies, for messages.
fn describe(name: SegmentName, at: Lsn) -> String {
    format!("{name} at {at}")
}
