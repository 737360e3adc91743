//! The fixtures through `docs/decrypt.py`: a second implementation, written from `docs/format.md`, must read the same.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use highwater_archive::manifest::FilePath;
use highwater_tests::golden::content;
use highwater_tests::python::decrypt_py;
use serde_json::Value;

use crate::{expected, fixture};

fn arguments(command: &str, name: &str, cluster: &str) -> Vec<String> {
    let key = fixture(&format!("keys/{cluster}.key"));
    let repository = fixture(name);
    [command, &repository.to_string_lossy(), "--cluster", cluster, "--key", &key.to_string_lossy()]
        .map(str::to_owned)
        .to_vec()
}

/// Each lineage of the expectation, with its fixture and cluster.
fn lineages() -> Vec<(&'static str, String, Value)> {
    let mut lineages = Vec::new();
    for name in ["plain", "content"] {
        let expected = expected(name);
        for (cluster, described) in expected["clusters"].as_object().expect("clusters") {
            for lineage in described["lineages"].as_array().expect("lineages") {
                lineages.push((name, cluster.clone(), lineage.clone()));
            }
        }
    }
    lineages
}

/// Promise 4: every WAL file opens without us, byte for byte.
#[test]
fn decrypt_py_opens_every_wal_file() {
    let scratch = tempfile::tempdir().expect("a directory");
    let output = scratch.path().join("out");
    let mut opened = 0;
    for (name, cluster, lineage) in lineages() {
        let histories = lineage["histories"].as_object().expect("histories").clone();
        let timelines = lineage["timelines"].as_object().expect("timelines").values();
        let files = timelines.flat_map(|timeline| timeline["files"].as_object().expect("files").clone());
        let files = files.map(|(file, described)| (file, described["content"].clone())).chain(histories);
        for (file, expected) in files.filter(|(file, _)| !file.ends_with(".variant")) {
            let mut arguments = arguments("segment", name, &cluster);
            let id = lineage["lineage"]["lineage"].as_str().expect("an id");
            arguments.extend(["--lineage", id, &file, "-o", &output.to_string_lossy()].map(str::to_owned));
            decrypt_py(&arguments).success();
            assert_eq!(content(&fs::read(&output).expect("the output")), expected, "{file}");
            opened += 1;
        }
    }
    assert!(opened >= 17, "{opened} files are too few to prove anything");
    // As a restore_command it must tell absence apart.
    let mut arguments = arguments("segment", "plain", "main");
    arguments.extend(["00000001000000000000FFFF", "-o", &output.to_string_lossy()].map(str::to_owned));
    decrypt_py(&arguments).failure(1, &["not in the archive"]);
}

/// Promise 4: the files of a backup are rebuilt without us, with every kind of line.
#[test]
fn decrypt_py_rebuilds_a_backup() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("data");
    let lineages = lineages();
    let backups = lineages.iter().flat_map(|(_, _, lineage)| lineage["backups"].as_array().expect("backups"));
    let complete = backups.filter(|backup| !backup["complete"].is_null()).collect::<Vec<_>>();
    let [backup] = complete.as_slice() else { panic!("one complete backup is expected") };
    let mut arguments = arguments("files", "plain", "main");
    let id = backup["backup"].as_str().expect("an id");
    arguments.extend([id, "-o", &root.to_string_lossy()].map(str::to_owned));
    let said = decrypt_py(&arguments).success();
    assert!(said.contains("restore_command = "), "{said}");

    let at = |path: &Value| {
        let path: FilePath = path.as_str().expect("a path").parse().expect("a path");
        root.join(OsStr::from_bytes(path.as_bytes()))
    };
    let mut compared = 0;
    for line in backup["complete"]["files"].as_array().expect("lines") {
        if let Some(path) = line.get("dir") {
            assert_eq!(u64::from(mode(&at(path))), line["mode"], "{path}");
        } else if let Some(path) = line.get("symlink") {
            assert_eq!(
                fs::read_link(at(path)).expect("a link").to_string_lossy(),
                line["target"].as_str().expect("a target")
            );
        } else if let Some(path) = line.get("link") {
            let target = fs::read_link(at(path)).expect("a link");
            assert!(target.starts_with(scratch.path()), "never where the original was: {}", target.display());
            assert_eq!(u64::from(mode(&target)), line["mode"]);
        } else if let Some(path) = line.get("file") {
            assert_file(&at(path), &line["entry"]);
            compared += 1;
        } else if let Some(path) = line.get("outside") {
            let path = path.as_str().expect("a path").trim_start_matches('/');
            assert_file(&scratch.path().join("data-outside").join(path), &line["entry"]);
            compared += 1;
        }
    }
    assert_eq!(compared, 7);
    let manifest = &backup["complete"]["manifest"];
    assert_eq!(
        fs::read_to_string(root.join("backup_label")).expect("a label"),
        manifest["backup_label"].as_str().expect("a label")
    );
    assert_eq!(fs::read(root.join("global/pg_control")).expect("pg_control").len(), 8192);
    let map = fs::read_to_string(root.join("tablespace_map")).expect("a map");
    assert_eq!(map, format!("16384 {}\n", scratch.path().join("data-tablespaces/16384").display()));
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("metadata").permissions().mode() & 0o7777
}

fn assert_file(path: &Path, entry: &Value) {
    let found = content(&fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    assert_eq!(found["length"], entry["size"], "{}", path.display());
    assert_eq!(found["sha256"], entry["sha256"], "{}", path.display());
    assert_eq!(u64::from(mode(path)), entry["mode"], "{}", path.display());
}

/// A wrong key, a damaged object and a missing one are told apart and named; none is passed over.
#[test]
fn decrypt_py_refuses_what_is_damaged() {
    let copy = crate::copy_of("plain");
    let repository = copy.path().to_string_lossy().into_owned();
    let (main, second) = (fixture("keys/main.key"), fixture("keys/second.key"));
    let run = |key: &Path, rest: &[&str]| {
        let key = key.to_string_lossy().into_owned();
        let mut arguments = vec![rest[0], &repository, "--cluster", "main", "--key", &key];
        arguments.extend(&rest[1..]);
        decrypt_py(arguments)
    };
    run(&main, &["list"]).success();
    run(&second, &["list"]).failure(126, &["does not open"]);

    let mut paths = Vec::new();
    crate::list(copy.path(), &mut paths);
    let history = paths.iter().find(|path| path.ends_with("00000002.history")).expect("a history file");
    let mut bytes = fs::read(history).expect("a history file");
    let output = copy.path().join("out");
    let segment = ["segment", "00000002.history", "-o", &output.to_string_lossy()].map(str::to_owned);
    let segment: Vec<&str> = segment.iter().map(String::as_str).collect();
    run(&main, &segment).success();
    for (offset, words) in [(20, "MAC"), (170, "CRC"), (bytes.len() - 10, "footer")] {
        bytes[offset] ^= 1;
        highwater_archive::durable::replace(Path::new(history), &[&bytes]).expect("damage");
        run(&main, &segment).failure(126, &["00000002.history", words]);
        bytes[offset] ^= 1;
    }
    // Whole and authentic, but under another name.
    let claim = paths.iter().find(|path| path.ends_with("00000002/claim")).expect("a claim");
    let moved = claim.replace("00000002/claim", "00000003.history");
    highwater_archive::durable::replace(Path::new(&moved), &[&bytes]).expect("a moved object");
    run(&main, &["segment", "00000003.history", "-o", segment[3]]).failure(126, &["not authentic"]);
}
