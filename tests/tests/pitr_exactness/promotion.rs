//! Both sides of a promotion: a standby is promoted while its old primary goes on, and each side's commits are restored.

use std::collections::BTreeSet;

use highwater_tests::{Cluster, Highwater, Scratch, Seed, for_each_major, give_to_server_user};

use super::oracle::ledger;
use super::{archived_server, stop_proven, workload};

/// Every transaction of a ledger, by its id and by what it wrote: the two sides give the same ids to different ones.
fn entries(cluster: &Cluster) -> BTreeSet<String> {
    ledger(cluster);
    let rows = cluster
        .rows("select xid || ' ' || md5(string_agg(body, ',' order by body)) from ledger group by xid");
    rows.into_iter().map(|mut row| row.remove(0).unwrap()).collect()
}

fn assert_same(found: &BTreeSet<String>, expected: &BTreeSet<String>, what: &str) {
    let lost: Vec<_> = expected.difference(found).collect();
    let foreign: Vec<_> = found.difference(expected).collect();
    assert!(found == expected, "{what}: lost {lost:?}, not meant to be there {foreign:?}");
}

fn restored_entries(
    scratch: &Scratch,
    of: &Cluster,
    highwater: &Highwater,
    arguments: &[&str],
) -> BTreeSet<String> {
    let data = scratch.join("restored");
    let mut words = vec!["restore", "--target-dir", data.to_str().unwrap(), "--action", "pause"];
    words.extend(arguments);
    highwater.ok(&words);
    let restored = Cluster::open(of.postgres(), scratch, "restored", &data);
    restored.start();
    restored.wait_until_paused();
    let found = entries(&restored);
    // Either side's end is proven; what lies between is a part of both.
    if arguments[1] == "latest" {
        stop_proven(&restored);
    }
    drop(restored);
    std::fs::remove_dir_all(&data).unwrap();
    found
}

/// A streaming standby of `primary`, which archives as its primary does once it is promoted.
fn standby(scratch: &Scratch, primary: &Cluster) -> (Cluster, Highwater) {
    let data = scratch.join("standby");
    let copied = primary
        .client("pg_basebackup")
        .arg("--pgdata")
        .arg(&data)
        .args(["--wal-method=stream", "--checkpoint=fast", "--no-sync"])
        .status()
        .unwrap();
    assert!(copied.success());
    let standby = Cluster::open(primary.postgres(), scratch, "standby", &data);
    standby.configure(&[("primary_conninfo", &primary.connection())]);
    scratch.file("standby/standby.signal", "");
    let highwater = Highwater::new(scratch, "standby-highwater", &standby);
    let repository = scratch.join("repository");
    let highwater = highwater.lines(&format!(
        "[repository.repository]\nurl = \"file://{}\"\nkey_file = \"{}\"",
        repository.display(),
        scratch.join("repository.key").display()
    ));
    give_to_server_user(highwater.config());
    standby.option("archive_command", &highwater.archive_command());
    // A copy of the harness runs without it, and a backup of such a server is refused.
    standby.option("fsync", "on");
    standby.start();
    (standby, highwater)
}

/// I24 on two timelines: a position before the promotion is reached on either, and what came after on its own side alone.
#[test]
fn both_sides_of_a_promotion_are_restored() {
    let mut seed = Seed::from_environment();
    eprintln!("seed {}", seed.number());
    let seed = std::cell::RefCell::new(&mut seed);
    for_each_major(|postgres| {
        let mut seed = seed.borrow_mut();
        let scratch = Scratch::new();
        let (primary, highwater) = archived_server(postgres, &scratch, 1);
        highwater.ok(&["backup"]);
        let (standby, standby_highwater) = standby(&scratch, &primary);

        let load = workload::start(&primary, &mut seed);
        load.wait_for(60);
        load.stop();
        let (fork, shared) = (primary.lsn(), entries(&primary));
        standby.wait("the standby to catch up", || {
            standby.value(&format!("select pg_last_wal_replay_lsn() >= '{fork}'")) == "t"
        });
        standby.promote();

        // Both go on, without knowing of each other.
        for server in [&primary, &standby] {
            let load = workload::start(server, &mut seed);
            load.wait_for(60);
            load.stop();
            server.execute("insert into noise values (100, 0)");
            let last = server.switch_wal();
            server.wait_until_archived(&last);
        }

        let (old_side, new_side) = (entries(&primary), entries(&standby));
        assert!(old_side.is_superset(&shared) && new_side.is_superset(&shared));
        assert!(old_side.len() > shared.len() && new_side.len() > shared.len());
        assert!(old_side.intersection(&new_side).eq(&shared));

        let restored = |arguments: &[&str]| restored_entries(&scratch, &primary, &highwater, arguments);
        assert_same(&restored(&["--to", "latest"]), &new_side, "latest, on the newest timeline");
        assert_same(&restored(&["--to", "latest", "--timeline", "1"]), &old_side, "latest of timeline 1");
        for timeline in ["1", "2"] {
            let found = restored(&["--to-lsn", &fork, "--before", "--timeline", timeline]);
            assert_same(&found, &shared, &format!("the fork, towards timeline {timeline}"));
        }

        // A backup of the new side, and the new side again from it.
        standby_highwater.ok(&["backup"]);
        let last = standby.switch_wal();
        standby.wait_until_archived(&last);
        assert_same(&restored(&["--to", "latest"]), &new_side, "latest, from the new side's backup");
        primary.stop();
    });
}
