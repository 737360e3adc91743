//! What a damaged or incomplete repository leaves: an error that names the object and the file, and nothing that would start.

use std::path::Path;

use highwater_restore::rebuild::INCOMPLETE_MARKER;
use highwater_tests::{Cluster, Scratch, newest};

use crate::ground::{Ground, rows};

/// A restore that must fail with these words and leave nothing that starts.
fn fails(ground: &Ground, scratch: &Scratch, name: &str, words: &[&str]) {
    let target = scratch.join(name);
    let arguments = Ground::arguments(target.to_str().unwrap(), &[]);
    ground.highwater.fails(&arguments, 1, words);
    assert!(target.join(INCOMPLETE_MARKER).exists());
    for name in ["global/pg_control", "backup_label", "recovery.signal"] {
        assert!(!target.join(name).exists(), "{name}");
    }
    let copy = Cluster::open(ground.postgres(), scratch, &format!("{name}.srv"), &target);
    assert!(copy.try_start().is_err());
}

fn with_byte_changed(path: &Path, at: usize) -> Vec<u8> {
    let mut bytes = std::fs::read(path).unwrap();
    bytes[at] ^= 0x40;
    bytes
}

/// I6: what is damaged is named, and the hint is true: what there is of it becomes another backup by `--delta --backup`, and by no command without.
#[test]
fn a_damaged_pack_is_named_and_nothing_starts() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    ground.backup();
    let backups = ground.highwater.json(&["list"])["repositories"][0]["lineages"][0]["backups"].clone();
    let (older, newer) =
        (backups[0]["backup"].as_str().unwrap().to_owned(), backups[1]["backup"].as_str().unwrap());
    let packs = ground.objects(&format!("/packs/{newer}/")).into_iter();
    let pack = packs.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let name = pack.to_str().unwrap().rsplit_once("packs/").unwrap().1.to_owned();
    let whole = std::fs::read(&pack).unwrap();

    std::fs::write(&pack, with_byte_changed(&pack, whole.len() / 2)).unwrap();
    let words = ["is damaged", "base/", "add --delta --backup ID to the same command", "rm -rf"];
    fails(&ground, &scratch, "changed", &[&[name.as_str()][..], &words[..]].concat());
    fails(&ground, &scratch, "other", &[&name]);
    std::fs::write(&pack, &whole[..whole.len() / 2]).unwrap();
    fails(&ground, &scratch, "cut", &[&name, "is cut short", "needed for"]);
    // What is known of the pack without reading it is told before anything more is changed.
    fails(&ground, &scratch, "changed", &[&name, "is cut short", "nothing was changed"]);
    std::fs::remove_file(&pack).unwrap();
    fails(&ground, &scratch, "gone", &[&name, "needed for"]);
    fails(
        &ground,
        &scratch,
        "gone",
        &[&name, "it is gone", "nothing was changed", "add --delta --backup ID"],
    );

    let target = scratch.join("other");
    let asked = Ground::arguments(target.to_str().unwrap(), &["--backup", &older]);
    ground.highwater.fails(&asked, 3, &["it is another one", &older, "--delta"]);
    let restored = ground.restore(&scratch, "other", &["--backup", &older, "--delta"]);
    restored.start();
    restored.wait_until_writable();
    assert_eq!(rows(&restored), "1");
    restored.stop_proven();

    scratch.file("whole", &whole);
    std::fs::rename(scratch.join("whole"), &pack).unwrap();
    let restored = ground.restore(&scratch, "changed", &[]);
    restored.start();
    restored.wait_until_writable();
    restored.stop_proven();
}
