//! Makes `pitr/fixtures/wal/<major>`: a little WAL of each major with what `pg_waldump` says of it, so that it can be
//! read where that major is not installed. Run by hand, when something is added to them:
//! `cargo test -p highwater-tests --test wal_decoding make_the_fixtures -- --ignored`.

use std::fs;
use std::path::Path;

use highwater_pitr::segment::SegmentName;
use highwater_tests::{Cluster, Scratch, for_each_major, waldump};

use super::oracle::{Segments, compare};
use super::workload::Workload;

#[test]
#[ignore = "writes into the source tree"]
fn make_the_fixtures() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let archive = scratch.dir("archive");
        let cluster = Cluster::builder(postgres, &scratch, "c")
            .wal_segment_mb(1)
            .setting("wal_level", "logical")
            .setting("max_prepared_transactions", "5")
            .setting("full_page_writes", "off")
            .setting("fsync", "off")
            .archive_command(&format!("cp %p {}/%f", archive.display()))
            .start();
        let work = Workload::new(&cluster);
        let begin = work.switch_and_wait();
        work.a_little_of_everything();
        work.a_tablespace(&scratch.dir("one"));
        work.switch_and_wait();
        work.promote();
        work.a_little_of_everything();
        work.a_tablespace(&scratch.dir("another"));
        work.switch_and_wait();

        let directory = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../pitr/fixtures/wal")
            .join(postgres.major.to_string());
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir_all(&directory).unwrap();
        for timeline in [1, 2] {
            let segments = Segments::read(&archive, timeline);
            compare(postgres, &segments, timeline);
            let size = segments.list[0].1.header.segment_size;
            let kept = segments.list.iter().filter(|(name, ..)| name.number(size) > begin.number(size));
            let kept: Vec<&(SegmentName, _, Vec<u8>)> = kept.collect();
            for (name, _, bytes) in &kept {
                fs::write(directory.join(format!("{name}.runs")), runs(bytes)).unwrap();
            }
            let start = kept[0].0.start(size).to_string();
            let text = waldump(postgres, &archive, timeline, &start, &[]);
            let lines: String = text.lines().filter_map(expected).collect();
            fs::write(directory.join(format!("timeline-{timeline}.txt")), lines).unwrap();
        }
        cluster.stop();
    });
}

/// What our reading must give: position, prev-link, resource manager, length and xid, and of the records that tell of a moment
/// what they say.
fn expected(line: &str) -> Option<String> {
    let after = |key: &str| line.split_once(key).map(|(_, rest)| rest.trim_start());
    let word = |text: &str| text.split([',', ' ']).next().unwrap_or_default().to_owned();
    let lsn = |key: &str| after(key).map(word)?.parse::<highwater_pitr::lsn::Lsn>().ok();
    let (position, prev) = (lsn("lsn: ")?, lsn("prev ")?);
    let len = word(after("len (rec/tot):")?.split_once('/')?.1.trim_start());
    let (xid, rmgr, desc) = (word(after("tx: ")?), word(after("rmgr: ")?), after("desc: ")?);
    let says = match word(desc).as_str() {
        kind @ ("COMMIT" | "ABORT") if rmgr == "Transaction" => {
            format!(" {kind} {xid} {}", desc.split_once(' ')?.1.split(';').next()?)
        }
        kind @ ("COMMIT_PREPARED" | "ABORT_PREPARED") => {
            let (xid, time) = desc.split_once(' ')?.1.split_once(": ")?;
            // With a name, which only some of the records carry, "gid …: " stands between.
            format!(" {kind} {xid} {}", time.split(';').next()?.rsplit(": ").next()?)
        }
        "RESTORE_POINT" => format!(" {desc}"),
        "CREATE" | "DROP" if rmgr == "Tablespace" => format!(" {}", desc.trim_end()),
        kind @ ("CHECKPOINT_ONLINE" | "CHECKPOINT_SHUTDOWN") => {
            format!(
                " {kind} {}",
                lsn("redo ").or_else(|| word(after("redo ")?).trim_end_matches(';').parse().ok())?
            )
        }
        _ => String::new(),
    };
    Some(format!("{position} {prev} {rmgr} {len} {xid}{says}\n"))
}

/// Stretches of bytes and runs of one byte, in turn: length u32, the bytes; length u32, the byte. Segments are mostly runs.
fn runs(bytes: &[u8]) -> Vec<u8> {
    const SHORTEST: usize = 24;
    let mut out = Vec::new();
    let mut stretch = 0;
    let mut at = 0;
    while at < bytes.len() {
        let run = bytes[at..].iter().take_while(|byte| **byte == bytes[at]).count();
        if run < SHORTEST && at + run < bytes.len() {
            at += run;
            continue;
        }
        out.extend_from_slice(&((at - stretch) as u32).to_le_bytes());
        out.extend_from_slice(&bytes[stretch..at]);
        out.extend_from_slice(&(run as u32).to_le_bytes());
        out.push(bytes[at]);
        at += run;
        stretch = at;
    }
    out
}
