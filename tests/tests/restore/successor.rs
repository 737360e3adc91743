//! `--replace-production`: what is restored takes the place of what was lost, with everything on that production had on.

use highwater_tests::{Cluster, Scratch, newest};

use crate::ground::{Ground, rows};

/// Archiving, slots and replication stay as they were. What I1 asks for stays too: nothing is archived until `adopt` has said that
/// this is the cluster now, and from then on everything is, without another setting.
#[test]
fn a_successor_keeps_archiving_and_slots_on() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main")
        .wal_segment_mb(1)
        .setting("wal_level", "logical")
        .setting("synchronous_commit", "local")
        .setting("synchronous_standby_names", "replica");
    let mut ground = Ground::with_backup(&scratch, builder);
    ground.insert(2);
    ground.archive();
    ground.cluster.kill();

    let target = scratch.join("successor");
    let arguments = Ground::arguments(target.to_str().unwrap(), &["--replace-production"]);
    let done = ground.highwater.json(&arguments);
    assert!(done["end_isolation"].is_null(), "{done}");
    let settings = std::fs::read_to_string(target.join("postgresql.auto.conf")).unwrap();
    assert!(!settings.contains("isolation"), "{settings}");
    let successor = Cluster::open(newest(), &scratch, "successor", &target);
    successor.option("fsync", "on");
    successor.start();
    successor.wait_until_writable();
    for (setting, value) in [
        ("archive_mode", "on"),
        ("synchronous_standby_names", "replica"),
        ("max_logical_replication_workers", "4"),
    ] {
        assert_eq!(successor.value(&format!("show {setting}")), value, "{setting}");
    }
    successor.execute(
        "select pg_create_physical_replication_slot('replica', true); \
         select pg_create_logical_replication_slot('changes', 'pgoutput'); \
         insert into t values (3)",
    );

    // The archive is asked and says no; PostgreSQL keeps the segment and asks again.
    let before = ground.objects("/wal/");
    let kept = successor.switch_wal();
    successor.wait("a refusal by the archive", || {
        successor.value("select failed_count > 0 from pg_stat_archiver") == "t"
    });
    assert_eq!(ground.objects("/wal/"), before);
    let new = highwater_tests::Highwater::new(&scratch, "successor", &successor).local_repository("repo");
    new.ok(&["adopt", "--continue-lineage", "--yes"]);
    // Its archive_command names the configuration that production had.
    std::fs::copy(new.config(), ground.highwater.config()).unwrap();
    successor.wait_until_archived(&kept);
    new.ok(&["backup", "--fast-checkpoint"]);
    assert_eq!(rows(&successor), "1,2,3");
    ground.cluster = successor;
    let last = ground.archive();
    assert!(ground.object(&last).exists());
    ground.cluster.stop_proven();
}
