//! What is refused, before a byte is written.

use highwater_tests::{Cluster, Finished, Scratch, newest};

use crate::ground::{Ground, rows};

/// Nothing that is there is ever replaced or deleted.
#[test]
fn a_directory_in_use_is_refused() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    let live = ground.cluster.data().to_str().unwrap();
    ground.highwater.fails(&Ground::arguments(live, &[]), 3, &["a server is running"]);
    let full = scratch.dir("full");
    scratch.file("full/.precious", "keep me");
    let arguments = Ground::arguments(full.to_str().unwrap(), &[]);
    ground.highwater.fails(&arguments, 3, &["is not empty", ".precious"]);
    assert_eq!(std::fs::read(full.join(".precious")).unwrap(), b"keep me");
    let (file, dangling) = (scratch.file("file", "keep me"), scratch.join("dangling"));
    std::os::unix::fs::symlink(scratch.join("nothing"), &dangling).unwrap();
    for (target, words) in [
        (&file, ["Not a directory", "hint: a file stands there"]),
        (&file.join("below"), ["Not a directory", "hint: a file stands there"]),
        (&dangling, ["No such file", "leads to nothing"]),
    ] {
        for more in [&[][..], &["--delta"]] {
            let arguments = Ground::arguments(target.to_str().unwrap(), more);
            ground.highwater.fails(&arguments, 3, &words);
        }
    }
    assert!(std::fs::read(&file).unwrap() == b"keep me" && !scratch.join("nothing").exists());
    let wal = full.to_str().unwrap();
    ground.refused(&scratch, &["--wal-dir", wal], &["pg_wal", "is not empty"]);
    assert_eq!(rows(&ground.cluster), "1");
}

/// A target outside of what can be reached shows what can be; the window's own end then works.
#[test]
fn an_unreachable_target_shows_the_window() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    ground.insert(2);
    ground.archive();
    ground.refused(
        &scratch,
        &["--to", "2099-01-01T00:00:00Z"],
        &["cannot be reached", "what can be reached is", "SELECT pg_switch_wal()", "--to latest"],
    );
    ground.refused(&scratch, &["--to", "2001-01-01T00:00:00Z"], &["cannot be reached", "before"]);
    ground.refused(&scratch, &["--to-lsn", "FF/0"], &["cannot be reached", "what can be reached is"]);
    ground.refused(&scratch, &["--to-xid", "999999"], &["transaction 999999", "pg_switch_wal()"]);
    ground.refused(&scratch, &["--to-restore-point", "never made"], &["never made"]);
    ground.refused(&scratch, &["--timeline", "7"], &["timeline 7"]);
    ground.refused(&scratch, &["--backup", "20200101T000000Z-00000000"], &["no complete backup"]);
    // What `list` shows is taken as it stands.
    let window = ground.highwater.json(&["list"])["repositories"][0]["lineages"][0]["windows"][0].clone();
    for end in ["from", "to"] {
        let moment = window[end].as_str().unwrap();
        let target = scratch.join("planned");
        let asked = Ground::arguments(target.to_str().unwrap(), &["--to", moment, "--dry-run"]);
        assert!(ground.highwater.ok(&asked).contains(moment), "{moment}");
    }
    a_time_is_one_moment(&ground, &scratch);
}

/// A time is one moment or it is refused, with those that it may be in the zone of whoever asks; the hint can be typed as it stands.
fn a_time_is_one_moment(ground: &Ground, scratch: &Scratch) {
    let target = scratch.join("refused");
    let refused = |time: &str, code: i32, words: &[&str]| {
        let arguments = Ground::arguments(target.to_str().unwrap(), &["--to", time, "--dry-run"]);
        let mut command = ground.highwater.command(&arguments);
        Finished::of(command.env("TZ", "CET-1CEST,M3.5.0,M10.5.0/3")).failure(code, words);
        assert!(!target.exists());
    };
    for (time, words) in [
        ("2026-01-01T00:00:00", &["has no time zone", "'2026-01-01 00:00:00+01:00'"][..]),
        ("2026-10-25 02:30:00", &["'2026-10-25 02:30:00+02:00'", "'2026-10-25 02:30:00+01:00'"]),
        ("2026-03-29 02:30", &["'2026-03-29 01:30:00+01:00'", "'2026-03-29 03:30:00+02:00'", "set forward"]),
        ("2026-01-01", &["the time of day is missing", "hint: write it as"]),
        ("2026-01-01 00:00:00 CET", &["`CET` is not a zone", "hint: write it as"]),
        ("2026-01-01 00:00:00[Nowhere/Atlantis]", &["`Nowhere/Atlantis`", "is not known on this host"]),
        ("tomorrow", &["`tomorrow` is not a time", "hint: write it as"]),
    ] {
        refused(time, 2, words);
    }
    // Every form of an offset; only that it lies outside of the window is held against these.
    for zone in ["Z", " UTC", "+01", "+0100", "+01:00", "-05:30", "[UTC]", "+00:00[UTC]"] {
        refused(&format!("2001-01-01 00:00:00{zone}"), 3, &["cannot be reached", "before"]);
    }
}

/// WAL that is missing on the way is named, and a target before it can still be reached.
#[test]
fn a_gap_on_the_way_is_named() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let ground = Ground::with_backup(&scratch, builder);
    let before = ground.insert(2);
    ground.archive();
    ground.insert(3);
    let missing = ground.archive();
    let after = ground.insert(4);
    ground.archive();
    std::fs::remove_file(ground.object(&missing)).unwrap();
    ground.refused(&scratch, &["--to-xid", &after], &["cannot be reached", &missing]);
    let restored = ground.restore(&scratch, "copy", &["--to-xid", &before]);
    restored.start();
    restored.wait_until_paused();
    assert_eq!(rows(&restored), "1,2");
    restored.stop_proven();
}

/// The dry run says what a run would do, and leaves nothing behind.
#[test]
fn a_dry_run_tells_and_writes_nothing() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    ground.insert(2);
    let last = ground.archive();
    let target = scratch.join("dry");
    let arguments = Ground::arguments(target.to_str().unwrap(), &["--dry-run"]);
    let plan = ground.highwater.json(&arguments);
    assert!(!target.exists());
    assert_eq!(plan["wal"]["last"], last);
    assert!(plan["wal"]["segments"].as_u64().unwrap() >= 1);
    assert!(plan["fetch"]["bytes"].as_u64().unwrap() > 1 << 20);
    assert!(plan["fetch"]["requests"].as_u64().unwrap() >= 3);
    let space = &plan["space"][0];
    assert!(space["needed_bytes"].as_u64().unwrap() > 20 << 20);
    assert!(space["free_bytes"].as_u64() > space["needed_bytes"].as_u64());
    let said = ground.highwater.ok(&arguments);
    for word in ["backup", "WAL", "to fetch", "space", "needed", "free"] {
        assert!(said.contains(word), "{word}: {said}");
    }
}
