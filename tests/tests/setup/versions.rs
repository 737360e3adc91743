//! A repository that a later program has begun to write, seen by this one: it says which version is needed, and goes on reading as
//! long as it may.

use std::path::Path;

use highwater_tests::{Cluster, Finished, Highwater, Scratch, newest};

use crate::ground::{archive_one, archiving, holds, objects, refused};

/// Writes a number into `highwater.json` as a later program would, and gives what stood there before.
fn rewrite(repository: &Path, key: &str, version: u32) -> Vec<u8> {
    let path = repository.join("highwater.json");
    let before = std::fs::read(&path).unwrap();
    let mut info: serde_json::Value = serde_json::from_slice(&before).unwrap();
    info[key] = version.into();
    std::fs::write(&path, info.to_string()).unwrap();
    before
}

/// `archive-get` of a segment into the scratch directory.
fn get(highwater: &Highwater, scratch: &Scratch, segment: &str, seconds: &str) -> Finished {
    highwater.run(&["archive-get", "--deadline", seconds, segment, scratch.join("got").to_str().unwrap()])
}

/// `min_writer`: what is there is listed, fetched and restored; nothing is added, and what PostgreSQL could not archive is archived
/// when the repository may be written again. `min_reader`: nothing at all.
#[test]
fn a_repository_of_a_later_program_is_read_or_refused_by_version() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    highwater.ok(&["backup", "--fast-checkpoint"]);
    cluster.execute("create table t as select generate_series(1, 100) as x");
    let archived = archive_one(&cluster);
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.tolerate("needs writer version 7");
    let repository = scratch.join("primary");
    let as_it_was = rewrite(&repository, "min_writer", 7);
    let before = objects(&scratch, "primary");

    let listed = highwater.json(&["list"]);
    assert_eq!(listed["repositories"][0]["lineages"][0]["backups"].as_array().unwrap().len(), 1, "{listed}");
    get(&highwater, &scratch, &archived, "60").success();
    let target = scratch.join("copy");
    highwater.ok(&["restore", "--target-dir", target.to_str().unwrap()]);
    let copy = Cluster::open(newest(), &scratch, "copy", &target);
    copy.start();
    copy.wait_until_writable();
    assert_eq!(copy.value("select count(*) from t"), "100");
    copy.stop_proven();

    let segment = cluster.switch_wal();
    let needed = "needs writer version 7";
    refused(&highwater, cluster.data(), &segment, &[needed]);
    highwater.fails(&["backup", "--fast-checkpoint"], 3, &[needed, "hint:", "newer version"]);
    let checked = highwater.run(&["check", "--timeout", "2"]);
    assert!(checked.code == Some(4) && checked.stdout.contains(needed), "{checked}");
    assert_eq!(objects(&scratch, "primary"), before, "nothing was written");

    let needed = "needs reader version 3";
    std::fs::write(repository.join("highwater.json"), &as_it_was).unwrap();
    rewrite(&repository, "min_reader", 3);
    highwater.fails(&["list"], 3, &[needed, "hint:", "newer version"]);
    let target = scratch.join("refused");
    highwater.fails(&["restore", "--target-dir", target.to_str().unwrap()], 3, &[needed, "newer version"]);
    assert!(!target.exists());
    let got = get(&highwater, &scratch, &archived, "2");
    assert!(got.code > Some(125) && got.stderr.contains(needed), "{got}");
    refused(&highwater, cluster.data(), &segment, &[needed]);
    highwater.fails(&["backup", "--fast-checkpoint"], 3, &[needed]);

    std::fs::write(repository.join("highwater.json"), &as_it_was).unwrap();
    cluster.tolerate(needed);
    // A server that stops has its archiver try once more, at once.
    cluster.stop();
    assert!(holds(&scratch, "primary", &segment));
}
