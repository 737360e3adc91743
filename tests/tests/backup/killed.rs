//! A backup that is killed, at whatever moment: there is one more or there is none, and nothing is to be cleaned up by hand.

use std::time::{Duration, Instant};

use highwater_tests::{Cluster, Scale, Scratch, Seed, newest, scale, tell_campaign};
use serde_json::Value;

use crate::ground::{Ground, Running};

/// What `list` shows of the only lineage. Every backup in it can be restored, and all that is there can be read.
fn listed(ground: &Ground) -> Value {
    let said = ground.highwater.json(&["list"]);
    let lineage = said["repositories"][0]["lineages"][0].clone();
    assert_eq!(lineage["broken"], serde_json::json!([]), "{said}");
    for backup in lineage["backups"].as_array().unwrap() {
        assert_eq!(backup["missing_wal"], serde_json::json!([]), "{said}");
    }
    lineage
}

fn count(lineage: &Value, what: &str) -> usize {
    lineage[what].as_array().unwrap().len()
}

/// Restores the newest backup, starts it, and counts what was in it.
fn restored(ground: &Ground, scratch: &Scratch, name: &str, rows: &str) {
    let target = ground.restore(scratch, name, &["--to-consistent"]);
    let copy = Cluster::open(newest(), scratch, name, &target);
    copy.start();
    copy.wait_until_paused();
    assert_eq!(copy.value("select count(*) from written"), rows);
    copy.stop_proven();
    std::fs::remove_dir_all(target).unwrap();
}

/// I20, I22: killed at any moment a backup is none, or it is whole; the next one works and comes back, and WAL is archived all the while.
#[test]
fn killed_at_any_moment_a_backup_is_whole_or_none() {
    let mut seed = Seed::from_environment();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1));
    let cluster = &ground.cluster;
    cluster.tolerate("aborting backup due to backend exiting");
    cluster.execute(
        "create table written (n int); create table big as select g, md5(g::text) from generate_series(1, 50000) g",
    );
    let whole = (0..2).map(|_| {
        let begun = Instant::now();
        ground.backup(&[]);
        begun.elapsed()
    });
    // How long one takes here: the moments to kill it lie within.
    let whole = u64::try_from(whole.min().unwrap().as_micros()).unwrap();
    let wanted = scale().pick(3, 100);
    let (mut kills, mut cut, mut complete, mut attempts) = (0, 0, 2, 0);
    while kills < wanted {
        attempts += 1;
        assert!(attempts <= 20 * wanted, "only {kills} backups could be killed");
        let running = Running::start(&ground.highwater, &["backup", "--fast-checkpoint"]);
        std::thread::sleep(Duration::from_micros(seed.within(0..whole)));
        let was_killed = running.kill();
        let now = listed(&ground);
        let (backups, unfinished) = (count(&now, "backups"), count(&now, "unfinished_backups"));
        assert_eq!(backups, ground.objects("/manifest").len());
        // The moment after the manifest is one, too.
        assert!(backups == complete + 1 || was_killed && backups == complete, "{complete} before: {now}");
        cut = cut.max(unfinished);
        complete = backups;
        if !was_killed {
            continue;
        }
        kills += 1;
        cluster.execute(&format!("insert into written values ({kills})"));
        let segment = cluster.switch_wal();
        cluster.wait_until_archived(&segment);
        ground.backup(&[]);
        complete += 1;
        assert_eq!(count(&listed(&ground), "backups"), complete);
        if scale() == Scale::Soak && kills % 10 == 0 {
            restored(&ground, &scratch, &format!("restored{kills}"), &kills.to_string());
        }
    }
    restored(&ground, &scratch, "restored", &kills.to_string());
    ground.highwater.run(&["check"]).says(0, &["All is well."]);
    tell_campaign(&format!(
        "{kills} backups killed, {cut} of them after their first write; the next one was whole each time"
    ));
}
