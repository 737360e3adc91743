//! Every store keeps the same promises: the shared suite, then what is particular to each.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use highwater_archive::clock::{Clock, SystemClock};
use highwater_archive::probe::{Breach, ConditionalCreate, probe_conditional_create};
use highwater_archive::store::local::LocalStore;
use highwater_archive::store::memory::MemoryStore;
use highwater_archive::store::{self, Created, Store, StoreError, StoreSpec};
use highwater_tests::conformance::conforms;
use highwater_tests::s3::S3Server;

/// Makes a test of each function for each provider's service.
macro_rules! for_each_provider {
    ($($name:ident),* $(,)?) => {
        for_each_provider!(@ amazon $($name)*);
        for_each_provider!(@ google $($name)*);
        for_each_provider!(@ azure $($name)*);
    };
    (@ $provider:ident $($name:ident)*) => {
        mod $provider {
            use highwater_tests::cloud::CloudServer;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
                async fn $name() {
                    super::$name(CloudServer::$provider()).await;
                }
            )*
        }
    };
}

mod access;
mod cloud;
mod credentials;
mod faults;
mod network;
mod real;

/// I3, I4: a local directory.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_local_directory_conforms() {
    let scratch = tempfile::tempdir().expect("a directory");
    let root = scratch.path().join("made/on/the/way");
    let store = open(&format!("file://{}", root.display()));
    // The root must exist before anything can be said about what is in it.
    assert!(matches!(store.head("a").await, Err(StoreError::NoRoot { .. })));
    assert_eq!(create(&*store, "first", "x").await, Created::New);
    assert_young(&*store, "first").await;
    conforms(store).await;
    assert_modes(&root);
    assert_modes(&scratch.path().join("made"));
    assert_no_leftovers(&root);
}

/// The store of many other tests: what they prove they would not prove of a store that behaves otherwise.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_store_in_memory_conforms() {
    conforms(Arc::new(MemoryStore::new())).await;
}

fn open(url: &str) -> Arc<dyn Store> {
    store::open(&StoreSpec { url: url.into(), ..StoreSpec::default() }).expect(url)
}

async fn create(store: &dyn Store, path: &str, content: &str) -> Created {
    store.create(path, vec![Bytes::copy_from_slice(content.as_bytes())]).await.expect(path)
}

/// The time of an object is when it was written, both alone and in a list.
async fn assert_young(store: &dyn Store, path: &str) {
    let info = store.head(path).await.expect("head").expect("present");
    let age = SystemClock.now().as_second() - info.modified.as_second();
    assert!((-60..600).contains(&age), "{path} was modified {age} seconds ago");
    let listed = store.list(path).await.expect("list");
    assert!((listed[0].modified.as_second() - info.modified.as_second()).abs() <= 1);
}

fn walk(directory: &Path, visit: &mut dyn FnMut(&Path)) {
    visit(directory);
    for entry in std::fs::read_dir(directory).expect("readable") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { walk(&path, visit) } else { visit(&path) }
    }
}

/// I3: directories are 0700 and files 0600, and no file keeps a second name.
fn assert_modes(root: &Path) {
    walk(root, &mut |path| {
        let metadata = path.metadata().expect("metadata");
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.permissions().mode() & 0o7777, expected, "{}", path.display());
        assert!(metadata.is_dir() || metadata.nlink() == 1, "{}", path.display());
    });
}

fn assert_no_leftovers(root: &Path) {
    walk(root, &mut |path| {
        assert!(!path.to_string_lossy().contains(".highwater-tmp."), "{}", path.display())
    });
}

/// I3: what crashed writers left is never listed, and swept when the writer is gone: its process is dead, or an hour passed.
#[tokio::test]
async fn leftovers_are_invisible_and_swept() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = LocalStore::new(scratch.path());
    assert_eq!(create(&store, "d/a", "a").await, Created::New);
    let old = scratch.path().join("d/.highwater-tmp.00000000.1.aa");
    let young = scratch.path().join("d/.highwater-tmp.00000000.1.bb");
    for path in [&old, &young] {
        std::fs::File::options().create_new(true).write(true).open(path).expect("a leftover");
    }
    let two_hours_ago = std::time::SystemTime::from(
        jiff::Timestamp::from_second(young.metadata().expect("metadata").mtime() - 7200).expect("a time"),
    );
    std::fs::File::options().write(true).open(&old).expect("open").set_modified(two_hours_ago).expect("set");

    let listed: Vec<String> =
        store.list("").await.expect("list").into_iter().map(|entry| entry.path).collect();
    assert_eq!(listed, ["d/a"]);
    assert_eq!(store.list_dir("d").await.expect("list").objects.len(), 1);
    assert_eq!(store.sweep("").await.expect("sweep"), 1);
    assert!(
        !old.exists() && young.exists(),
        "only the old one goes: the other's writer may live on another host"
    );
    // Another process that begins to write there sweeps too.
    std::fs::File::options()
        .write(true)
        .open(&young)
        .expect("open")
        .set_modified(two_hours_ago)
        .expect("set");
    assert_eq!(create(&LocalStore::new(scratch.path()), "d/b", "b").await, Created::New);
    assert!(!young.exists());
}

/// Neither a planted link nor a crafted tree leads out of the repository, nor hides an object from a list.
#[tokio::test]
async fn links_are_never_followed() {
    let scratch = tempfile::tempdir().expect("a directory");
    let outside = scratch.path().join("outside");
    std::fs::create_dir(&outside).expect("a directory");
    let secret = LocalStore::new(&outside);
    assert_eq!(create(&secret, "secret", "s").await, Created::New);
    let store = LocalStore::new(scratch.path().join("repository"));
    assert_eq!(create(&store, "d/a", "a").await, Created::New);
    std::os::unix::fs::symlink(&outside, scratch.path().join("repository/link")).expect("a link");
    std::os::unix::fs::symlink(outside.join("secret"), scratch.path().join("repository/d/file"))
        .expect("a link");

    let refused = |answer: Result<(), StoreError>| {
        assert!(matches!(&answer, Err(StoreError::NotAnObject { .. })), "{answer:?}");
    };
    refused(store.get("link/secret").await.map(|_| ()));
    refused(store.get("d/file").await.map(|_| ()));
    refused(store.create("link/new", vec![]).await.map(|_| ()));
    refused(store.create("d/file", vec![]).await.map(|_| ()));
    refused(store.delete("link/secret").await);
    refused(store.list("d/").await.map(|_| ()));
    refused(store.create("d/a/below-an-object", vec![]).await.map(|_| ()));
    refused(store.get("d").await.map(|_| ()));
    assert_eq!(secret.list("").await.expect("list").len(), 1);
}

/// A directory whose last object went is none any more, as in stores that have no directories.
#[tokio::test]
async fn an_empty_directory_is_none() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = LocalStore::new(scratch.path());
    for path in ["a/b/c", "d/e"] {
        assert_eq!(create(&store, path, "x").await, Created::New);
    }
    store.delete("a/b/c").await.expect("delete");
    assert_eq!(store.list_dir("").await.expect("list").directories, ["d"]);
}

/// Foreign files whose names no object can have do not disturb.
#[tokio::test]
async fn foreign_files_are_passed_over() {
    let scratch = tempfile::tempdir().expect("a directory");
    let store = LocalStore::new(scratch.path());
    assert_eq!(create(&store, "a", "a").await, Created::New);
    std::fs::create_dir(scratch.path().join("lost+found")).expect("a directory");
    std::fs::File::options().create_new(true).write(true).open(scratch.path().join("a b~")).expect("a file");
    assert_eq!(store.list("").await.expect("list").len(), 1);
    assert!(store.list_dir("").await.expect("list").directories.is_empty());
}

/// A full filesystem is an error that names the object, and leaves nothing behind.
#[tokio::test]
async fn a_full_filesystem_is_named() {
    let scratch = tempfile::tempdir().expect("a directory");
    let mounted = std::process::Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"])
        .arg(scratch.path())
        .output()
        .is_ok_and(|output| output.status.success());
    if !mounted {
        // Only root may mount; the error's path is held by the unit tests of the store either way.
        return highwater_tests::left_out("cannot mount a small filesystem");
    }
    let store = LocalStore::new(scratch.path().join("repository"));
    let answer = store.create("d/big", vec![Bytes::from(vec![1; 4 << 20])]).await;
    let listed = store.list("").await;
    assert_no_leftovers(scratch.path());
    let small = store.create("d/small", vec![Bytes::from_static(b"fits")]).await;
    // It holds its root open.
    drop(store);
    let unmounted = std::process::Command::new("umount").arg(scratch.path()).status().expect("umount");
    assert!(unmounted.success());
    let error = answer.expect_err("it cannot fit");
    assert!(matches!(error, StoreError::NoSpace { .. }) && error.to_string().contains("d/big"), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("space")) && !error.is_permanent());
    assert!(listed.expect("list").is_empty());
    assert_eq!(small.expect("the space is free again"), Created::New);
}

/// I4: a service that ignores `If-None-Match` is found out, and the probe takes its objects away there too.
#[tokio::test(flavor = "multi_thread")]
async fn the_probe_finds_a_store_that_ignores_conditions() {
    let server = S3Server::start();
    server.faults().ignore_conditions(true);
    let store = server.store("p").expect("open");
    let found = probe_conditional_create(&*store, "").await.expect("probe");
    assert_eq!(found, ConditionalCreate::Ignored(Breach::Replaced));
    assert_eq!(server.objects().keys(), Vec::<String>::new());
}

/// An object that is larger than what is read in one piece is refused before it is fetched, not after.
#[tokio::test(flavor = "multi_thread")]
async fn memory_is_bounded_against_a_hostile_store() {
    let server = S3Server::start();
    let huge = Bytes::from(vec![0; (store::MAX_WHOLE_OBJECT_BYTES + 1) as usize]);
    server.objects().put("p/huge", huge);
    let store = server.store("p").expect("open");
    assert!(matches!(store.get("huge").await, Err(StoreError::TooLarge { .. })));
    assert_eq!(store.get_range("huge", 5..10).await.expect("range").len(), 5);

    let scratch = tempfile::tempdir().expect("a directory");
    let file = std::fs::File::options()
        .create_new(true)
        .write(true)
        .open(scratch.path().join("huge"))
        .expect("a file");
    file.set_len(store::MAX_WHOLE_OBJECT_BYTES + 1).expect("a sparse file");
    let local = LocalStore::new(scratch.path());
    assert!(matches!(local.get("huge").await, Err(StoreError::TooLarge { .. })));
    assert_eq!(local.get_range("huge", 5..10).await.expect("range").len(), 5);
}

/// What cannot be opened says so at once, with a hint, and without a secret in any message.
#[test]
fn bad_urls_and_options_are_refused() {
    let spec = |url: &str| StoreSpec {
        url: url.into(),
        access_key_id: Some("AKIDAKID".to_owned().into()),
        secret_access_key: Some("SECRETSECRET".to_owned().into()),
        ..StoreSpec::default()
    };
    let refused = |spec: StoreSpec| {
        let error = store::open(&spec).map(|store| store.describe()).expect_err(&spec.url);
        assert!(error.hint().is_some() && error.is_permanent(), "{error}");
        let text = format!("{error} {error:?} {:?}", spec.secret_access_key);
        assert!(!text.contains("SECRETSECRET") && !text.contains("hunter2"), "{text}");
        error
    };
    assert!(matches!(refused(spec("ftp://host/x")), StoreError::UnsupportedScheme { .. }));
    for url in [
        "",
        "relative/path",
        "file:///",
        "file:///a?b",
        "file://host/a",
        "s3:///prefix",
        "s3://b/p?x=1",
        "s3://b:80/p",
        "gs:///prefix",
        "gs://b/p?x=1",
        "az://UPPER/p",
        "az://two--dashes/p",
    ] {
        assert!(matches!(refused(spec(url)), StoreError::InvalidUrl { .. }), "{url}");
    }
    let named = StoreSpec { url: "s3://user:pw@bucket/x".into(), ..spec("") };
    assert!(!refused(named).to_string().contains("pw@"));
    for endpoint in [
        "http://storage.example.com",
        "ftp://127.0.0.1",
        "https://user:hunter2@host",
        "nonsense",
        "https://h/?q=1",
        "user:hunter2@host",
        "storage.example.com:9000",
    ] {
        let error = refused(StoreSpec { endpoint: Some(endpoint.into()), ..spec("s3://bucket/x") });
        assert!(error.to_string().contains("endpoint") && error.is_of_configuration(), "{error}");
    }
    for endpoint in
        ["http://127.0.0.1:1", "http://[::1]:1", "http://localhost:1", "https://storage.example.com"]
    {
        for path_style in [None, Some(false), Some(true)] {
            let spec = StoreSpec { endpoint: Some(endpoint.into()), path_style, ..spec("s3://bucket/x/y/") };
            if endpoint.contains("[::1]") || endpoint.contains("127.0.0.1") {
                // An address cannot carry the bucket in front of it.
                assert_eq!(
                    store::open(&spec).is_ok(),
                    path_style != Some(false),
                    "{endpoint} {path_style:?}"
                );
            } else {
                assert_eq!(store::open(&spec).expect(endpoint).describe(), "s3://bucket/x/y");
            }
        }
    }
    let told = StoreSpec {
        endpoint: Some("http://storage.example.com".into()),
        allow_http: true,
        ..spec("s3://bucket/x")
    };
    assert!(store::open(&told).is_ok());
    let half = StoreSpec { secret_access_key: None, ..spec("s3://bucket/x") };
    assert!(matches!(refused(half), StoreError::MissingCredentials { .. }));
    // What would not be done is not promised.
    let unknown = |option: &str, spec: StoreSpec| {
        let error = refused(spec).to_string();
        assert!(error.contains(&format!("{option}: this kind of store knows no such thing")), "{error}");
    };
    for url in ["az://container/x", "file:///tmp/x"] {
        unknown("kms_key_id", StoreSpec { kms_key_id: Some("alias/ours".into()), ..spec(url) });
    }
    for url in ["s3://bucket/x", "az://container/x", "file:///tmp/x"] {
        unknown("user_project", StoreSpec { user_project: Some("p".into()), ..spec(url) });
    }
    for url in ["s3://bucket/x", "gs://bucket/x", "file:///tmp/x"] {
        unknown("encryption_scope", StoreSpec { encryption_scope: Some("ours".into()), ..spec(url) });
    }
    let class = || Some("STANDARD_IA".to_owned());
    for (option, tiered) in [
        ("pack_storage_class", StoreSpec { pack_storage_class: class(), ..spec("file:///tmp/x") }),
        ("wal_storage_class", StoreSpec { wal_storage_class: class(), ..spec("file:///tmp/x") }),
        ("metadata_storage_class", StoreSpec { metadata_storage_class: class(), ..spec("file:///tmp/x") }),
    ] {
        assert!(refused(tiered).to_string().contains(option));
    }
}
