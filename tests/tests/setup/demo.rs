//! `highwater demo`.

use highwater_tests::{Cluster, Finished, Highwater, Scratch, for_each_major, is_root, newest};

fn demo(highwater: &Highwater, scratch: &Scratch, bin: &std::path::Path) -> serde_json::Value {
    let (directory, bin) = (scratch.path().to_str().unwrap(), bin.to_str().unwrap());
    let mut command = highwater.bare(&["demo", "--json", "--directory", directory, "--postgres-bin", bin]);
    let said = Finished::of(&mut command).success();
    serde_json::from_str(&said).unwrap()
}

/// The whole story, on every major: every row back and none too many, and nothing left behind.
#[test]
fn the_story_ends_well_on_every_major() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(newest(), &scratch, "unused").create();
        let highwater = Highwater::new(&scratch, "unused", &cluster);
        let told = demo(&highwater, &scratch, &postgres.bin);
        assert_eq!(told["postgresql"], postgres.major);
        assert!(told["rows_back"].as_u64().unwrap() > 100, "{told:#}");
        // How many depends on how busy the machine is.
        assert!(told["rows_later"].as_u64().unwrap() > 0, "{told:#}");
        let left = std::fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name());
        let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("demo")).collect();
        assert!(left.is_empty(), "{left:?}");
    });
}

/// As root the server runs as another user; the story is the same.
#[test]
fn the_story_ends_well_for_root() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "unused").create();
    let highwater = Highwater::new(&scratch, "unused", &cluster).as_root();
    let told = demo(&highwater, &scratch, &newest().bin);
    assert!(told["rows_back"].as_u64().unwrap() > 100, "{told:#}");
}
