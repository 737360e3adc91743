//! `highwater init` that is killed, at whatever moment: the same command finishes it.

use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use highwater_tests::{Cluster, Highwater, Scratch, Seed, is_root, newest, scale, tell_campaign};

use crate::ground::{archive_one, host_state, objects};
use crate::push::kill;

/// A configuration with repositories and keys of its own, in a directory of this name.
fn fresh(scratch: &Scratch, cluster: &Cluster, name: &str) -> Highwater {
    let highwater = Highwater::new(scratch, name, cluster);
    highwater.local_repository(&format!("{name}-a")).local_repository(&format!("{name}-b"))
}

/// Starts `init` and kills it after a while; whether it had not ended before.
fn killed(highwater: &Highwater, after: Duration) -> bool {
    let mut init = highwater.command(&["init"]);
    let mut init = init.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(after);
    kill(&mut init)
}

fn key(path: &Path) -> Option<Vec<u8>> {
    std::fs::read(path).ok()
}

/// I1, I8: killed at any moment, again and again, by whoever calls it, `init` is finished by the same command. A key that was written once stays
/// and opens what was made with it, there is one lineage, and PostgreSQL archives into it.
#[test]
fn killed_at_any_moment_an_init_is_finished_by_the_next() {
    let mut seed = Seed::from_environment();
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let state = cluster.data().join("highwater");
    let whole = ["first", "second"].map(|name| {
        let highwater = fresh(&scratch, &cluster, name);
        let _ = std::fs::remove_dir_all(&state);
        let begun = Instant::now();
        highwater.ok(&["init"]);
        begun.elapsed()
    });
    // How long one takes here: the moments to kill it lie within.
    let whole = u64::try_from(whole.into_iter().min().unwrap().as_micros()).unwrap();
    let (mut kills, mut attempt, wanted) = (0, 0, scale().pick(8, 400));
    let last = loop {
        attempt += 1;
        assert!(attempt <= 10 * wanted, "only {kills} could be killed");
        let _ = std::fs::remove_dir_all(&state);
        let name = format!("n{attempt}");
        let highwater = fresh(&scratch, &cluster, &name);
        let highwater = if seed.one_in(2) { highwater.as_root() } else { highwater };
        let keys = ["a", "b"].map(|one| scratch.join(format!("{name}-{one}.key")));
        let mut seen = [None, None];
        for _ in 0..1 + seed.within(0..3) {
            kills += u64::from(killed(&highwater, Duration::from_micros(seed.within(0..whole))));
            for (seen, path) in seen.iter_mut().zip(&keys) {
                let now = key(path);
                assert!(seen.is_none() || *seen == now, "the key in {} was replaced", path.display());
                *seen = now;
            }
        }
        let said = highwater.json(&["init"]);
        for (seen, path) in seen.iter().zip(&keys) {
            assert!(seen.is_none() || *seen == key(path), "the key in {} was replaced", path.display());
        }
        let before = (host_state(cluster.data()), objects(&scratch, &format!("{name}-a")));
        let again = highwater.json(&["init"]);
        assert_eq!(said["lineage"], again["lineage"]);
        for number in 0..2 {
            let fingerprint = |said: &serde_json::Value| said["repositories"][number]["fingerprint"].clone();
            assert_eq!(fingerprint(&said), fingerprint(&again));
        }
        assert_eq!(before, (host_state(cluster.data()), objects(&scratch, &format!("{name}-a"))));
        let listed = highwater.json(&["list"]);
        for repository in listed["repositories"].as_array().unwrap() {
            assert_eq!(repository["lineages"].as_array().unwrap().len(), 1, "{listed}");
        }
        if kills >= wanted {
            break highwater;
        }
    };
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &last.archive_command())]);
    cluster.start();
    archive_one(&cluster);
    last.run(&["check"]).says(0, &["All is well."]);
    cluster.stop();
    tell_campaign(&format!(
        "{kills} times init was killed, in {attempt} places; the same command finished each"
    ));
}

/// What root made and was cut off before giving away is the server's after the next run.
#[test]
fn a_directory_that_root_left_behind_is_given_to_the_server() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary").as_root();
    let directory = scratch.join("primary");
    std::fs::DirBuilder::new().mode(0o700).create(&directory).unwrap();
    highwater.ok(&["init"]);
    let owner = std::fs::metadata(cluster.data()).unwrap().uid();
    assert_eq!(std::fs::metadata(&directory).unwrap().uid(), owner);
}
