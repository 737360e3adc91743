//! `highwater archive-push`: what must never be stored, and never be answered with 0.

use highwater_tests::{Cluster, Highwater, Scratch, newest};

use crate::ground::{archive_one, archiving, copy, holds, host_state, objects, push, put_wal, refused};

/// WAL of another cluster is refused, whatever its name.
#[test]
fn another_clusters_wal_is_refused() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    let other = Cluster::builder(newest(), &scratch, "other").start();
    other.execute("create table t as select 1 as x");
    let segment = other.switch_wal();
    let bytes = std::fs::read(other.data().join("pg_wal").join(&segment)).unwrap();
    other.stop();
    // Under a name that the archive does not hold yet, and under one that it does.
    let free = "0000000100000000000000F0";
    put_wal(cluster.data(), free, &bytes);
    refused(&highwater, cluster.data(), free, &["system identifier"]);
    assert!(!holds(&scratch, "primary", free));
    put_wal(cluster.data(), &segment, &bytes);
    refused(&highwater, cluster.data(), &segment, &["system identifier"]);
}

/// I2: the same name with other content is a conflict, named, and what is stored stays.
#[test]
fn other_content_under_the_same_name_is_a_conflict() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    // A snapshot of the whole data directory goes on with the same timeline, and the same host state.
    let data = scratch.join("twin");
    copy(cluster.data(), &data);
    cluster.start();
    let segment = archive_one(&cluster);
    cluster.stop();
    let before = objects(&scratch, "primary");

    let twin = Cluster::open(newest(), &scratch, "twin", &data);
    let twins = Highwater::new(&scratch, "twin", &twin).local_repository("primary");
    twin.option("archive_command", "false");
    twin.tolerate("archive command failed");
    twin.tolerate("failed too many times");
    twin.start();
    twin.execute("create table otherwise as select generate_series(1, 1000) as x");
    assert_eq!(twin.switch_wal(), segment);
    refused(&twins, &data, &segment, &["archived already with other content", &segment]);
    assert_eq!(objects(&scratch, "primary"), before);
    twin.stop();

    let history = "00000002.history";
    put_wal(cluster.data(), history, b"1\t0/5000000\tno recovery target specified\n");
    assert_eq!(push(&highwater, cluster.data(), history).code, Some(0));
    put_wal(cluster.data(), history, b"1\t0/5000000\tanother reason\n");
    refused(&highwater, cluster.data(), history, &["other content", history]);
    put_wal(cluster.data(), history, b"1\t0/6000000\tno recovery target specified\n");
    refused(&highwater, cluster.data(), history, &[history]);
}

/// I1: a restored copy has no host state, and its archive_command fails until adopt has decided.
#[test]
fn a_copy_without_host_state_archives_nothing() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let segment = archive_one(&cluster);
    let before = objects(&scratch, "primary");
    let state = cluster.data().join("highwater");
    std::fs::rename(&state, scratch.join("state")).unwrap();
    refused(&highwater, cluster.data(), &segment, &["belongs to no lineage", "highwater adopt"]);
    std::fs::rename(scratch.join("state"), &state).unwrap();
    assert_eq!(objects(&scratch, "primary"), before);
    cluster.stop();
}

/// I1: a copy that kept production's archive_command runs it in its own data directory, and is told apart by that.
#[test]
fn a_copy_with_productions_archive_command_is_told_apart() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    let data = scratch.join("copied");
    copy(cluster.data(), &data);
    let copied = Cluster::open(newest(), &scratch, "copied", &data);
    copied.tolerate("archive command failed");
    copied.tolerate("failed too many times");
    copied.tolerate("not in the pg_wal of cluster main");
    let before = objects(&scratch, "primary");
    copied.start();
    copied.execute("create table wild as select 1 as x");
    copied.switch_wal();
    copied.wait("a failed archive command", || {
        copied.value("select failed_count > 0 from pg_stat_archiver") == "t"
    });
    assert_eq!(objects(&scratch, "primary"), before);
    let segment = copied.value("select last_failed_wal from pg_stat_archiver");
    refused(&highwater, &data, &segment, &["not in the pg_wal of cluster main"]);
    copied.kill();
}

/// A repository that was replaced, or whose keyring was, is not written to (I8).
#[test]
fn a_repository_other_than_the_pinned_one_is_refused() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let segment = archive_one(&cluster);
    // Another repository, made with the same key for a cluster of the same name.
    let state = cluster.data().join("highwater");
    std::fs::rename(&state, scratch.join("state")).unwrap();
    std::fs::rename(scratch.join("primary"), scratch.join("right")).unwrap();
    highwater.ok(&["init"]);
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::rename(scratch.join("state"), &state).unwrap();
    refused(&highwater, cluster.data(), &segment, &["another one than before"]);
    assert!(!holds(&scratch, "primary", &segment));
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.stop();
}

/// A copy of the data directory that was promoted, with a configuration of its own, archiving.
fn promoted_twin(scratch: &Scratch, data: &std::path::Path) -> (Cluster, Highwater) {
    let twin = Cluster::open(newest(), scratch, "twin", data);
    let twins = Highwater::new(scratch, "twin", &twin).local_repository("primary");
    twin.option("archive_command", &twins.archive_command());
    std::fs::write(data.join("standby.signal"), "").unwrap();
    twin.configure(&[("restore_command", "false")]);
    twin.start();
    twin.promote();
    (twin, twins)
}

/// I1: a promoted copy archives without more ado, as a standby must, and claims its timeline with a writer id of its own. So its
/// original, should it be promoted too, is told that the timeline is another's.
#[test]
fn a_promoted_copy_claims_with_a_writer_id_of_its_own() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    let data = scratch.join("twin");
    copy(cluster.data(), &data);
    let original = host_state(cluster.data());
    assert_eq!(host_state(&data)["writer"], original["writer"]);

    let (twin, _) = promoted_twin(&scratch, &data);
    let segment = archive_one(&twin);
    assert!(segment.starts_with("00000002"), "{segment}");
    let twins = host_state(&data);
    assert_ne!(twins["writer"], original["writer"]);
    assert_eq!(twins["earlier_writers"][0], original["writer"]);
    assert_eq!(twins["lineage"], original["lineage"]);
    twin.stop();

    // The original goes on where it was, and another fork at the same number is refused.
    cluster.start();
    archive_one(&cluster);
    cluster.stop();
    assert_eq!(host_state(cluster.data()), original);
    let history = "00000002.history";
    put_wal(cluster.data(), history, b"1\t0/9000000\tno recovery target specified\n");
    refused(&highwater, cluster.data(), history, &["belongs to writer", "highwater adopt"]);
}

/// I1: two directories of one writer id that cannot be told apart, as two snapshots of one disk, are told by what they write:
/// the one writes nothing of a timeline that the other has left, and a claim holds one fork only.
#[test]
fn a_writer_does_not_go_on_with_a_timeline_that_it_has_left() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    let data = scratch.join("twin");
    copy(cluster.data(), &data);
    // The directory that tells them apart goes along, as a snapshot of the disk would take it.
    std::fs::remove_dir_all(data.join("highwater")).unwrap();
    std::fs::rename(cluster.data().join("highwater"), data.join("highwater")).unwrap();
    let (twin, _) = promoted_twin(&scratch, &data);
    archive_one(&twin);
    twin.stop();
    std::fs::rename(data.join("highwater"), cluster.data().join("highwater")).unwrap();

    cluster.option("archive_command", "false");
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.start();
    cluster.execute("create table otherwise as select 1 as x");
    cluster.switch_wal();
    cluster.execute("create table further as select 1 as x");
    let beyond = cluster.switch_wal();
    cluster.kill();
    let before = objects(&scratch, "primary");
    refused(&highwater, cluster.data(), &beyond, &["timeline 1 was left for timeline 2", "--new-lineage"]);
    assert_eq!(objects(&scratch, "primary"), before);
}
