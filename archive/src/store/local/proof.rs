//! I3, held against a model of the disk: see [`crate::durable::at::trace`].

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::Path;

use bytes::Bytes;

use super::{LocalStore, Tree};
use crate::durable::at::trace::model::Disk;
use crate::durable::at::trace::record;
use crate::store::{Created, StoreError};

const PATH: &str = "clusters/main/wal/00000001/x";

fn body() -> Vec<Bytes> {
    vec![Bytes::from_static(b"one "), Bytes::new(), Bytes::from_static(b"two")]
}

fn create(tree: &Tree, path: &str, expected: Created) -> Disk {
    let (answer, events) = record(|| tree.create(path, &body()));
    assert_eq!(answer.unwrap(), expected);
    Disk::replay(&events)
}

fn fresh() -> (tempfile::TempDir, LocalStore) {
    let scratch = tempfile::tempdir().unwrap();
    // The kernel names open files by their real path.
    let root = scratch.path().canonicalize().unwrap().join("not/there/yet");
    (scratch, LocalStore::new(root))
}

/// I3: bytes before the name, the name before the answer, and every directory made on the way, from the first that was missing.
#[test]
fn everything_made_on_the_way_is_durable() {
    let (scratch, store) = fresh();
    let disk = create(&store.tree, PATH, Created::New);
    disk.assert_durable(&scratch.path().canonicalize().unwrap(), &store.root().join(PATH));
    let next = "clusters/main/wal/00000001/y";
    create(&store.tree, next, Created::New)
        .assert_durable(&store.root().join("clusters/main/wal/00000001"), &store.root().join(next));
}

/// I3: a directory that another writer made a moment ago is fsynced by whoever relies on it.
#[test]
fn directories_of_another_writer_are_made_durable_too() {
    let (_scratch, store) = fresh();
    std::fs::create_dir_all(store.root().join("clusters/main/wal/00000001")).unwrap();
    let disk = create(&store.tree, PATH, Created::New);
    disk.assert_durable(store.root().parent().unwrap(), &store.root().join(PATH));
}

/// I3: an object that stands in a directory proves the directories above it; no fsync is spent on them again.
#[test]
fn a_published_object_proves_the_way_to_it() {
    let (_scratch, store) = fresh();
    create(&store.tree, PATH, Created::New);
    let later = LocalStore::new(store.root());
    let disk = create(&later.tree, "clusters/main/wal/00000001/y", Created::New);
    let directory = store.root().join("clusters/main/wal/00000001");
    disk.assert_durable(&directory, &directory.join("y"));
    for above in ["", "clusters", "clusters/main", "clusters/main/wal"] {
        assert!(!disk.was_fsynced(&store.root().join(above)), "{above}");
    }
}

/// I3: an existing object may be another's, in memory only: it and its directory are fsynced before the answer.
#[test]
fn an_existing_object_is_made_durable_before_the_answer() {
    let (_scratch, store) = fresh();
    create(&store.tree, PATH, Created::New);
    let disk = create(&LocalStore::new(store.root()).tree, PATH, Created::Exists);
    let object = store.root().join(PATH);
    assert!(disk.was_fsynced(&object) && disk.was_fsynced(object.parent().unwrap()));
    assert_eq!(std::fs::read(&object).unwrap(), b"one two");
}

/// I3: so is one that was found by reading it, before anyone answers that it is there.
#[test]
fn an_object_that_was_only_found_is_made_durable_too() {
    let (_scratch, store) = fresh();
    create(&store.tree, PATH, Created::New);
    let later = LocalStore::new(store.root());
    let (answer, events) = record(|| later.tree.confirm(PATH));
    answer.unwrap();
    let (disk, object) = (Disk::replay(&events), store.root().join(PATH));
    assert!(disk.was_fsynced(&object) && disk.was_fsynced(object.parent().unwrap()));
    for absent in ["clusters/main/wal/00000001/y", "clusters/none/x"] {
        assert!(later.tree.confirm(absent).unwrap_err().is_not_found());
    }
}

/// I3: a removal is durable, also one that another began.
#[test]
fn a_removal_is_durable() {
    let (_scratch, store) = fresh();
    create(&store.tree, PATH, Created::New);
    for _ in 0..2 {
        let (answer, events) = record(|| store.tree.delete(PATH));
        answer.unwrap();
        assert!(Disk::replay(&events).was_fsynced(store.root().join(PATH).parent().unwrap()));
    }
}

/// I3: when the volume of the repository goes away in the middle, nothing is written to what lies below its mount point, and nothing is
/// said to be there or to be absent.
#[test]
fn another_directory_at_the_root_is_no_repository() {
    use std::os::unix::fs::symlink;
    let scratch = tempfile::tempdir().unwrap();
    let at = |name: &str| scratch.path().join(name);
    for made in ["volume", "below"] {
        std::fs::create_dir(at(made)).unwrap();
    }
    // A link that leads elsewhere does what an unmounting does.
    let root = at("mounted");
    symlink("volume", &root).unwrap();
    let store = LocalStore::new(&root);
    create(&store.tree, PATH, Created::New);
    let refused = |words: &str| {
        for answer in [
            store.tree.create("clusters/main/y", &body()).map(drop),
            store.tree.confirm(PATH),
            store.tree.get(PATH).map(drop),
            store.tree.list("", None).map(drop),
            store.tree.delete(PATH),
        ] {
            let error = answer.unwrap_err();
            let told = matches!(&error, StoreError::NoRoot { reason, .. } if reason.contains(words));
            assert!(told && !error.is_not_found(), "{error}");
        }
    };
    std::fs::remove_file(&root).unwrap();
    refused("no such directory");
    assert!(!root.exists());
    symlink("below", &root).unwrap();
    refused("another directory lies there");
    assert_eq!(std::fs::read_dir(at("below")).unwrap().count(), 0);
    std::fs::remove_file(&root).unwrap();
    symlink("volume", &root).unwrap();
    create(&store.tree, PATH, Created::Exists);
}

/// The model itself: it must see what is wrong, or it proves nothing.
#[test]
#[should_panic(expected = "is not certain")]
fn the_model_sees_a_missing_fsync() {
    let (scratch, store) = fresh();
    let (answer, mut events) = record(|| store.tree.create(PATH, &body()));
    assert_eq!(answer.unwrap(), Created::New);
    let directory = Path::new(PATH).parent().unwrap();
    let directory = store.root().join(directory);
    events.retain(|event| {
        *event
            != crate::durable::at::trace::model::Event::Step(
                crate::durable::at::trace::Step::Fsync,
                directory.clone(),
            )
    });
    Disk::replay(&events).assert_durable(&scratch.path().canonicalize().unwrap(), &store.root().join(PATH));
}
