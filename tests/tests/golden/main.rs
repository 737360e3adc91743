//! The format never changes unnoticed: repositories that were written once are read by today's code, and by
//! `docs/decrypt.py`, which knows nothing of ours. `tests/fixtures/format-1/README.md` says what they hold.

mod hostile;
mod independent;
mod versions;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use highwater_tests::golden::describe;
use serde_json::Value;

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/format-1").join(name)
}

fn keys() -> BTreeMap<String, String> {
    ["main", "second"]
        .map(|name| {
            (name.to_owned(), fs::read_to_string(fixture(&format!("keys/{name}.key"))).expect("a key"))
        })
        .into()
}

fn expected(name: &str) -> Value {
    serde_json::from_slice(&fs::read(fixture(&format!("{name}.json"))).expect("the expectation"))
        .expect("JSON")
}

/// Compares piece by piece, so that a difference is found in a document of a thousand lines.
fn assert_same(found: &Value, expected: &Value, place: &str) {
    match (found, expected) {
        (Value::Object(found), Value::Object(expected)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(found), names(expected), "at {place}");
            for (name, value) in expected {
                assert_same(&found[name], value, &format!("{place}.{name}"));
            }
        }
        (Value::Array(found), Value::Array(expected)) => {
            assert_eq!(found.len(), expected.len(), "at {place}");
            for (number, value) in expected.iter().enumerate() {
                assert_same(&found[number], value, &format!("{place}[{number}]"));
            }
        }
        (found, expected) => assert_eq!(found, expected, "at {place}"),
    }
}

/// A repository of format version 1 is read exactly as it was when it was written.
#[tokio::test]
async fn format_1_is_read_as_it_was_written() {
    for name in ["plain", "content"] {
        assert_same(&describe(&fixture(name), &keys()).await, &expected(name), name);
    }
}

/// The fixture holds what it is said to hold: every persisted form, so that the test above means something.
#[test]
fn every_persisted_form_is_in_the_fixture() {
    let plain = expected("plain").to_string();
    for form in [
        "00000002.history",
        ".partial\"",
        ".backup\"",
        ".variant\"",
        "\"unfinished\":{",
        "before the drop",
        "commit_prepared",
        "-tablespace\",\"end\"",
        "\"created\":null",
        "\"generation\":2",
        "\"class\":\"content\",\"id\":4",
        "\"symlink\"",
        "\"outside\"",
        "\"link\"",
        "per%25cent",
        "\"extents\":1030",
        "\"complete\":null",
        "\"database\"",
        "\"parent_timeline\":1",
        "\"length\":67108864",
    ] {
        assert!(plain.contains(form), "{form}");
    }
    let mut paths = Vec::new();
    list(&fixture(""), &mut paths);
    for form in [
        "keys/00000002.age",
        "/closed",
        "/claim",
        ".part.0003.",
        "/packs/",
        "/files.0000.",
        "/relations.0000.",
        "/keyring",
    ] {
        assert!(paths.iter().any(|path| path.contains(form)), "{form}");
    }
    for form in [
        "highwater.json.",
        "cluster.json.",
        "00000001.age.",
        "/lineage.",
        "/closed.",
        "/claim.",
        "00000002.history.",
    ] {
        assert!(paths.iter().any(|path| path.contains("format-1/content/") && path.contains(form)), "{form}");
    }
}

fn list(directory: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(directory).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { list(&path, paths) } else { paths.push(path.to_string_lossy().into_owned()) }
    }
}

/// A copy of a fixture that may be changed, in a directory that goes when it is dropped.
fn copy_of(name: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    let mut paths = Vec::new();
    list(&fixture(name), &mut paths);
    for path in paths {
        let below = Path::new(&path).strip_prefix(fixture(name)).expect("below the fixture").to_owned();
        let to = copy.path().join(below);
        fs::create_dir_all(to.parent().expect("a parent")).expect("a directory");
        let bytes = fs::read(&path).expect("a file");
        highwater_archive::durable::replace(&to, &[bytes]).expect("a copy");
    }
    copy
}
