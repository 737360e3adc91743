#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::at::trace::model::Disk;
use super::at::trace::record;
use super::*;

fn scratch() -> (tempfile::TempDir, PathBuf) {
    let scratch = tempfile::tempdir().unwrap();
    let path = scratch.path().canonicalize().unwrap();
    (scratch, path)
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// I3: a new file is whole and durable; a second one does not replace it and answers only when the first is durable.
#[test]
fn write_new_never_replaces() {
    let (_scratch, root) = scratch();
    let path = root.join("a");
    let (answer, events) = record(|| write_new(&path, &[b"one ".as_slice(), b"two"]));
    assert_eq!(answer.unwrap(), Published::New);
    Disk::replay(&events).assert_durable(&root, &path);
    let (answer, events) = record(|| write_new(&path, &[b"three"]));
    assert_eq!(answer.unwrap(), Published::Exists);
    let disk = Disk::replay(&events);
    assert!(disk.was_fsynced(&path) && disk.was_fsynced(&root));
    assert_eq!(fs::read(&path).unwrap(), b"one two");
    assert_eq!(path.metadata().unwrap().permissions().mode() & 0o7777, 0o600);
    assert_eq!(names(&root), ["a"]);
}

/// I3: where the filesystem lacks RENAME_NOREPLACE a link publishes, as strictly, and the file keeps one name.
#[test]
fn a_link_publishes_as_strictly() {
    let (_scratch, root) = scratch();
    let directory = at::open_directory_path(&root).unwrap();
    let (answer, events) = record(|| {
        let mut temp = at::Temp::create(&directory).unwrap();
        temp.write(&[b"first"]).unwrap();
        let answer = temp.publish_by_link("a".as_ref()).unwrap();
        at::fsync(&directory).unwrap();
        answer
    });
    assert_eq!(answer, at::Publication::Done(Published::New));
    Disk::replay(&events).assert_durable(&root, &root.join("a"));
    let mut temp = at::Temp::create(&directory).unwrap();
    temp.write(&[b"second"]).unwrap();
    assert_eq!(temp.publish_by_link("a".as_ref()).unwrap(), at::Publication::Done(Published::Exists));
    assert_eq!(fs::read(root.join("a")).unwrap(), b"first");
    assert_eq!(names(&root), ["a"]);
    assert_eq!(root.join("a").metadata().unwrap().nlink(), 1);
}

#[test]
fn replace_is_whole_and_durable() {
    let (_scratch, root) = scratch();
    let path = root.join("state.json");
    for content in [b"old".as_slice(), b"new, and longer", b""] {
        let (answer, events) = record(|| replace(&path, &[content]));
        answer.unwrap();
        Disk::replay(&events).assert_durable(&root, &path);
        assert_eq!(fs::read(&path).unwrap(), content);
    }
    assert_eq!(names(&root), ["state.json"]);
}

/// I3: every directory made on the way, and the entry of the deepest that stood, which another may just have made.
#[test]
fn directories_are_durable_from_the_first_that_stood() {
    let (_scratch, root) = scratch();
    fs::create_dir(root.join("stands")).unwrap();
    let deep = root.join("stands/a/b/c");
    let (answer, events) = record(|| create_dir_all_durable(&deep));
    answer.unwrap();
    let disk = Disk::replay(&events);
    assert!(disk.was_fsynced(&root));
    for made in ["stands", "stands/a", "stands/a/b"] {
        assert!(disk.was_fsynced(&root.join(made)), "{made}");
    }
    assert_eq!(deep.metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    create_dir_all_durable(&deep).unwrap();
    assert_eq!(write_new(&root.join("file"), &[b""]).unwrap(), Published::New);
    assert!(create_dir_all_durable(&root.join("file/below")).is_err());
}

#[test]
fn removing_is_idempotent_and_durable() {
    let (_scratch, root) = scratch();
    let path = root.join("a");
    assert_eq!(write_new(&path, &[b"x"]).unwrap(), Published::New);
    let (answer, events) = record(|| remove(&path));
    answer.unwrap();
    assert!(Disk::replay(&events).was_fsynced(&root));
    remove(&path).unwrap();
    assert!(names(&root).is_empty());
}

/// Leftovers of dead processes of this boot go at once, those of others after an hour, those of the living never before.
#[test]
fn sweeping_spares_the_living() {
    let (_scratch, root) = scratch();
    let directory = at::open_directory_path(&root).unwrap();
    let living = at::Temp::create(&directory).unwrap();
    let living_name = names(&root).remove(0);
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let dead_pid = child.id();
    child.wait().unwrap();
    let mut parts: Vec<String> = living_name.split('.').map(str::to_owned).collect();
    parts[3] = dead_pid.to_string();
    let dead = parts.join(".");
    for name in [dead.as_str(), ".highwater-tmp.ffffffff.1.00", "data"] {
        assert_eq!(write_new(&root.join(name), &[b""]).unwrap(), Published::New);
    }
    assert_eq!(at::sweep(&directory).unwrap(), 1);
    let mut spared = [".highwater-tmp.ffffffff.1.00", living_name.as_str(), "data"];
    spared.sort_unstable();
    assert_eq!(names(&root), spared);
    drop(living);
    assert_eq!(names(&root), [".highwater-tmp.ffffffff.1.00", "data"]);
}

#[test]
fn errors_name_the_file_and_say_what_to_do() {
    let (_scratch, root) = scratch();
    let error = write_new(&root.join("absent/a"), &[b"x"]).unwrap_err();
    assert!(error.to_string().contains("absent/a"), "{error}");
    assert!(matches!(write_new(Path::new("/"), &[b"x"]), Err(DurableError::NoFileName { .. })));
    assert!(replace(&root.join("a/.."), &[b"x"]).is_err());
    let full =
        DurableError::Io { operation: "write", path: root, source: std::io::ErrorKind::StorageFull.into() };
    assert!(full.hint().unwrap().contains("space"));
}

/// I7: what is moved replaces nothing, and is never in neither place.
#[test]
fn a_file_is_moved_to_a_free_name_only() {
    let (_scratch, directory) = scratch();
    let (from, to) = (directory.join("from"), directory.join("below/to"));
    std::fs::create_dir(directory.join("below")).unwrap();
    replace(&from, &["one"]).unwrap();
    assert_eq!(move_new(&from, &to).unwrap(), Published::New);
    assert!(!from.exists() && std::fs::read(&to).unwrap() == b"one");
    replace(&from, &["two"]).unwrap();
    assert_eq!(move_new(&from, &to).unwrap(), Published::Exists);
    assert!(std::fs::read(&from).unwrap() == b"two" && std::fs::read(&to).unwrap() == b"one");
    assert!(move_new(&directory.join("absent"), &directory.join("free")).is_err());
}

/// I3: a file below a directory is as durable, and no link is followed on the way to it.
#[test]
fn below_a_directory_no_link_is_followed() {
    let (_scratch, root) = scratch();
    fs::create_dir(root.join("real")).unwrap();
    std::os::unix::fs::symlink("real", root.join("link")).unwrap();
    let (answer, events) = record(|| replace_below(&root, Path::new("real/a"), &[b"one"]));
    assert_eq!(answer.unwrap().metadata().unwrap().len(), 3);
    Disk::replay(&events).assert_durable(&root.join("real"), &root.join("real/a"));
    for refused in ["link/b", "real/../b", "none/b"] {
        assert!(replace_below(&root, Path::new(refused), &[b"two"]).is_err(), "{refused}");
    }
    assert_eq!(
        (names(&root), names(&root.join("real"))),
        (vec!["link".into(), "real".into()], vec!["a".into()])
    );
}
