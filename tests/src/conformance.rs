//! What every store must do, as one suite: a new store is one more line in `tests/tests/store_conformance`.
//!
//! Each check works below a directory of its own and leaves nothing behind that another would see.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use futures::future::join_all;
use highwater_archive::probe::{ConditionalCreate, probe_conditional_create};
use highwater_archive::store::{Created, STREAM_CHUNK_BYTES, Store, StoreError};

/// Runs the whole suite on an empty store.
///
/// # Panics
/// At the first rule that the store breaks.
pub async fn conforms(store: Arc<dyn Store>) {
    let store = store.as_ref();
    created_once_and_never_changed(store).await;
    absence_is_told_apart(store).await;
    ranges_end_where_the_object_ends(store).await;
    empty_objects_are_objects(store).await;
    bodies_of_many_chunks_arrive_in_order(store).await;
    names_are_legal_or_refused(store).await;
    lists_are_complete_sorted_and_cut_by_string(store).await;
    one_level_at_a_time(store).await;
    deleting_is_idempotent(store).await;
    one_of_many_racers_wins(store).await;
    the_probe_passes_and_cleans_up(store).await;
}

async fn put(store: &dyn Store, path: &str, content: &str) -> Created {
    store.create(path, vec![Bytes::copy_from_slice(content.as_bytes())]).await.expect(path)
}

async fn read(store: &dyn Store, path: &str) -> String {
    String::from_utf8(store.get(path).await.expect(path).to_vec()).expect("text")
}

fn is_absent<T: std::fmt::Debug>(answer: Result<T, StoreError>) {
    match answer {
        Err(error) => {
            assert!(error.is_not_found() && error.is_permanent(), "{error}");
        }
        Ok(found) => panic!("absence expected, found {found:?}"),
    }
}

/// I3, I4: the first create wins, a later one changes nothing and is told so.
async fn created_once_and_never_changed(store: &dyn Store) {
    assert_eq!(put(store, "once/a", "first").await, Created::New);
    assert_eq!(put(store, "once/a", "second, and longer").await, Created::Exists);
    assert_eq!(read(store, "once/a").await, "first");
    let info = store.head("once/a").await.expect("head").expect("present");
    assert_eq!(info.size, 5);
}

async fn absence_is_told_apart(store: &dyn Store) {
    is_absent(store.get("absent/a").await);
    is_absent(store.get_range("absent/a", 0..10).await);
    is_absent(store.get_range("absent/a", 5..5).await);
    is_absent(store.stream("absent/a").await.map(|_| "a stream"));
    assert_eq!(store.head("absent/a").await.expect("head"), None);
    assert!(store.list("absent/").await.expect("list").is_empty());
    let listing = store.list_dir("absent").await.expect("list");
    assert!(listing.objects.is_empty() && listing.directories.is_empty());
}

async fn ranges_end_where_the_object_ends(store: &dyn Store) {
    assert_eq!(put(store, "range/a", "0123456789").await, Created::New);
    for (range, expected) in [
        (0..10, "0123456789"),
        (0..1, "0"),
        (3..7, "3456"),
        (9..10, "9"),
        (5..100, "56789"),
        (0..u64::MAX, "0123456789"),
        (10..11, ""),
        (10..20, ""),
        (1000..2000, ""),
        (4..4, ""),
        (0..0, ""),
    ] {
        let found = store
            .get_range("range/a", range.clone())
            .await
            .unwrap_or_else(|error| panic!("{range:?}: {error}"));
        assert_eq!(found, expected, "{range:?}");
    }
}

async fn empty_objects_are_objects(store: &dyn Store) {
    for (path, body) in [("empty/a", vec![]), ("empty/b", vec![Bytes::new(), Bytes::new()])] {
        assert_eq!(store.create(path, body).await.expect("create"), Created::New);
        assert_eq!(store.get(path).await.expect("get").len(), 0);
        assert_eq!(store.get_range(path, 0..10).await.expect("range").len(), 0);
        assert_eq!(store.head(path).await.expect("head").expect("present").size, 0);
        let chunks: Vec<Bytes> =
            store.stream(path).await.expect("stream").try_collect().await.expect("chunks");
        assert!(chunks.iter().all(Bytes::is_empty));
        assert_eq!(put(store, path, "x").await, Created::Exists);
    }
    assert_eq!(store.list("empty/").await.expect("list").len(), 2);
}

async fn bodies_of_many_chunks_arrive_in_order(store: &dyn Store) {
    // More chunks than one `writev` takes, of uneven lengths, some empty; more bytes than one chunk of a stream.
    let body: Vec<Bytes> = (0..3000_usize)
        .map(|n| Bytes::from(vec![u8::try_from(n % 251).expect("small"); (n * 7) % 3001]))
        .collect();
    let whole: Vec<u8> = body.iter().flatten().copied().collect();
    assert!(whole.len() > 3 * STREAM_CHUNK_BYTES);
    assert_eq!(store.create("big/a", body).await.expect("create"), Created::New);
    assert_eq!(store.get("big/a").await.expect("get"), whole);
    let chunks: Vec<Bytes> =
        store.stream("big/a").await.expect("stream").try_collect().await.expect("chunks");
    assert!(chunks.iter().all(|chunk| chunk.len() <= STREAM_CHUNK_BYTES));
    assert_eq!(chunks.concat(), whole);
    let middle = store.get_range("big/a", 1_000_000..2_500_000).await.expect("range");
    assert_eq!(middle, whole[1_000_000..2_500_000]);
}

async fn names_are_legal_or_refused(store: &dyn Store) {
    let longest = format!("names/{}", "n".repeat(240));
    for path in [
        "names/.hidden",
        "names/a..b",
        "names/...",
        "names/-dash",
        "names/UPPER.lower_9",
        "names/x.tmp",
        &longest,
    ] {
        assert_eq!(put(store, path, path).await, Created::New);
        assert_eq!(read(store, path).await, path);
    }
    assert_eq!(store.list("names/").await.expect("list").len(), 7);
    for path in
        ["", "/absolute", "a/../b", "..", "a//b", "a/", "a b", "a\0b", "a%2e%2e/b", "ä", ".highwater-tmp.x"]
    {
        let refused = |answer: Result<(), StoreError>| {
            assert!(matches!(answer, Err(StoreError::InvalidPath { .. })), "{path:?}: {answer:?}");
        };
        refused(store.create(path, vec![]).await.map(|_| ()));
        refused(store.get(path).await.map(|_| ()));
        refused(store.get_range(path, 0..1).await.map(|_| ()));
        refused(store.stream(path).await.map(|_| ()));
        refused(store.head(path).await.map(|_| ()));
        refused(store.delete(path).await);
    }
    assert!(store.list("../").await.is_err());
    assert!(store.list_dir("a/../..").await.is_err());
}

async fn lists_are_complete_sorted_and_cut_by_string(store: &dyn Store) {
    // More than one page of the test service; names whose order differs when directories are sorted before their contents.
    let mut paths: BTreeSet<String> = (0..230).map(|n| format!("list/many/{n:04}")).collect();
    for path in ["list/a", "list/a.b", "list/a-b", "list/b/c", "list/b.c", "list/b/d/e", "list/bb"] {
        paths.insert(path.to_owned());
    }
    for answer in join_all(paths.iter().map(|path| put(store, path, path))).await {
        assert_eq!(answer, Created::New);
    }
    let listed = async |prefix: &str, after: Option<&str>| -> Vec<String> {
        let entries = store.list_from(prefix, after).await.expect("list");
        entries
            .into_iter()
            .map(|entry| {
                assert_eq!(entry.size, entry.path.len() as u64);
                entry.path
            })
            .collect()
    };
    let expected = |prefix: &str, after: &str| -> Vec<String> {
        paths.iter().filter(|path| path.starts_with(prefix) && path.as_str() > after).cloned().collect()
    };
    for prefix in ["list/", "list/a", "list/a.", "list/b", "list/b/", "list/many/01", "list/none", "lis"] {
        assert_eq!(listed(prefix, None).await, expected(prefix, ""), "{prefix}");
    }
    for (prefix, after) in [
        ("list/", "list/b/c"),
        ("list/", "list/b"),
        ("list/", "list/bz"),
        ("list/", "a"),
        ("list/", "z"),
        ("list/b/", "list/b/d/e"),
        ("list/many/", "list/many/0120"),
        ("list/many/", "list/many/"),
        ("list/many/", "list/many/01205"),
    ] {
        assert_eq!(listed(prefix, Some(after)).await, expected(prefix, after), "{prefix} after {after}");
    }
    let everything = listed("list/", None).await;
    assert!(everything.is_sorted());
    assert!(store.list("").await.expect("list").len() >= everything.len());
}

async fn one_level_at_a_time(store: &dyn Store) {
    for path in ["level/x", "level/d/y", "level/d/e/z", "level/d.json", "level/f/g/h"] {
        assert_eq!(put(store, path, path).await, Created::New);
    }
    for directory in ["level", "level/"] {
        let listing = store.list_dir(directory).await.expect("list");
        let objects: Vec<&str> = listing.objects.iter().map(|entry| entry.path.as_str()).collect();
        assert_eq!(objects, ["level/d.json", "level/x"]);
        assert_eq!(listing.directories, ["level/d", "level/f"]);
    }
    assert_eq!(store.list_dir("level/f").await.expect("list").directories, ["level/f/g"]);
    assert!(store.list_dir("").await.expect("list").directories.contains(&"level".to_owned()));
    // More directories than fit one page.
    for answer in
        join_all((0..150).map(|n| async move { put(store, &format!("levels/{n:03}/x"), "x").await })).await
    {
        assert_eq!(answer, Created::New);
    }
    assert_eq!(store.list_dir("levels").await.expect("list").directories.len(), 150);
}

async fn deleting_is_idempotent(store: &dyn Store) {
    assert_eq!(put(store, "delete/a", "a").await, Created::New);
    store.delete("delete/a").await.expect("delete");
    is_absent(store.get("delete/a").await);
    assert!(store.list("delete/").await.expect("list").is_empty());
    store.delete("delete/a").await.expect("delete again");
    store.delete("delete/never/was").await.expect("delete what never was");
    assert_eq!(put(store, "delete/a", "anew").await, Created::New);
    assert_eq!(read(store, "delete/a").await, "anew");
}

/// I3, I4: of many writers of one name at once exactly one wins, and its bytes are what is there.
async fn one_of_many_racers_wins(store: &dyn Store) {
    join_all((0..8).map(async |round| {
        // The directory is new as well, so that its making is raced for.
        let path = format!("race/{round}/deep/er/a");
        let answers = join_all((0..16).map(|racer| {
            let path = &path;
            async move { (racer, put(store, path, &format!("racer {racer}")).await) }
        }))
        .await;
        let winners: Vec<i32> = answers
            .into_iter()
            .filter(|(_, created)| *created == Created::New)
            .map(|(racer, _)| racer)
            .collect();
        assert_eq!(winners.len(), 1, "round {round}: {winners:?}");
        assert_eq!(read(store, &path).await, format!("racer {}", winners[0]));
    }))
    .await;
    assert_eq!(store.list("race/").await.expect("list").len(), 8);
}

/// I4: the probe tells the truth about a store that keeps its word, and takes its objects away.
async fn the_probe_passes_and_cleans_up(store: &dyn Store) {
    for prefix in ["", "clusters/main"] {
        let found = probe_conditional_create(store, prefix).await.expect("probe");
        assert_eq!(found, ConditionalCreate::Honoured);
    }
    assert!(store.list("probe/").await.expect("list").is_empty());
    assert!(store.list("clusters/").await.expect("list").is_empty());
}
