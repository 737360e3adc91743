//! Where objects lie: one small trait, and the stores that keep it.
//!
//! A path is relative to the URL's prefix: components of `[A-Za-z0-9._-]` joined by `/` (see [`path::check`]). An object is
//! written once and never changed; there is no update, no rename and no compare-and-swap, because nothing above may
//! need one (I5). Every implementation passes the suite in `tests/tests/store_conformance`.

use std::fmt::Debug;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::{SignedDuration, Timestamp};
pub use secrecy::{ExposeSecret, SecretString};

mod ahead;
mod cloud;
mod error;
pub mod local;
pub mod memory;
pub mod path;
mod spec;

pub use cloud::Persistence;
pub use error::StoreError;
use spec::Environment;
pub use spec::{Credentials, Encryption, StoreSpec, UploadChecksum};

/// The most that [`Store::get`] reads into memory, in bytes: twice the largest object of the format.
pub const MAX_WHOLE_OBJECT_BYTES: u64 = 64 << 20;

/// The largest chunk of [`Store::stream`], in bytes.
pub const STREAM_CHUNK_BYTES: usize = 1 << 20;

/// What we need from storage.
#[async_trait]
pub trait Store: Send + Sync + Debug + 'static {
    /// Writes the chunks of `body`, in order, as the object `path`, unless it exists. Durable when it returns, for both
    /// answers (I3). After [`Created::Exists`] the caller must compare: it may be what an
    /// earlier process of its own wrote. What an attempt of this very call wrote is [`Created::New`], also when its reply was lost.
    async fn create(&self, path: &str, body: Vec<Bytes>) -> Result<Created, StoreError>;

    /// Makes the object durable that someone else published: asked before success is reported for one that was only found, and
    /// not answered for by [`Store::create`] (I3). Where whatever can be read is durable there is nothing to do.
    async fn confirm(&self, path: &str) -> Result<(), StoreError> {
        path::check(path)
    }

    /// The whole object, at most [`MAX_WHOLE_OBJECT_BYTES`]. [`StoreError::NotFound`] is proven absence, never an outage.
    async fn get(&self, path: &str) -> Result<Bytes, StoreError>;

    /// The bytes `range` of the object: fewer where the object ends within it, none where it ends before it.
    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// The whole object by one request, in chunks of at most [`STREAM_CHUNK_BYTES`].
    async fn stream(&self, path: &str) -> Result<ObjectStream, StoreError>;

    /// The object as an open file, where it is one and can be read without asking anybody: a thread that does nothing else reads
    /// it in place of [`Store::stream`], into memory of its own. `None` where objects are no files.
    async fn file(&self, path: &str) -> Result<Option<File>, StoreError> {
        path::check(path)?;
        Ok(None)
    }

    /// Size and time of the object, or `None` when it is proven absent.
    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError>;

    /// All objects whose path begins with the *string* `prefix` and sorts bytewise after `after`, in that order. For a
    /// directory end the prefix with `/`; the empty prefix is everything.
    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError>;

    /// All objects whose path begins with the *string* `prefix`, sorted bytewise.
    async fn list(&self, prefix: &str) -> Result<Vec<ListEntry>, StoreError> {
        self.list_from(prefix, None).await
    }

    /// One level of the directory `directory` (with or without a closing `/`; empty is the root).
    async fn list_dir(&self, directory: &str) -> Result<Listing, StoreError>;

    /// Removes the object, durably. An absent one is success.
    async fn delete(&self, path: &str) -> Result<(), StoreError>;

    /// Removes what crashed writers left in `directory` and below, and no list shows; answers how many. What a living writer
    /// may still be at stays. A store in which nothing can be left has nothing to do.
    async fn sweep(&self, directory: &str) -> Result<usize, StoreError> {
        path::check_prefix(directory)?;
        Ok(0)
    }

    /// The URL, without secrets, for messages.
    fn describe(&self) -> String;

    /// Where the credentials come from, in words and without secrets; `None` for a store that needs none.
    fn credentials(&self) -> Option<String> {
        None
    }

    /// How far the store's clock is ahead of this host's, by its last answer; `None` where it has no clock of its own, or has not
    /// answered yet.
    fn clock_skew(&self) -> Option<SignedDuration> {
        None
    }
}

/// The chunks of one object, each at most [`STREAM_CHUNK_BYTES`].
pub type ObjectStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// The answer of [`Store::create`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an existing object must be compared with what was to be written"]
pub enum Created {
    /// This call wrote the object.
    New,
    /// The object was already there, and is durable.
    Exists,
}

/// What a store knows of an object without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectInfo {
    /// Length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// One object of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListEntry {
    /// Path relative to the store's prefix.
    pub path: String,
    /// Length in bytes.
    pub size: u64,
    /// When it was written, by the store's clock.
    pub modified: Timestamp,
}

/// One level of a store.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Objects directly in the directory, sorted bytewise.
    pub objects: Vec<ListEntry>,
    /// Full paths, without a closing `/`, of the directories that hold objects, sorted bytewise. Some stores name one a little
    /// longer than its last object lived.
    pub directories: Vec<String>,
}

/// Opens the store that `spec` names. Nothing is asked of it and nothing written: a wrong bucket shows at the first use.
///
/// # Errors
/// [`StoreError::InvalidUrl`], [`StoreError::UnsupportedScheme`], [`StoreError::MissingCredentials`].
pub fn open(spec: &StoreSpec) -> Result<Arc<dyn Store>, StoreError> {
    open_with(spec, Persistence::USUAL)
}

/// As [`open`]; a service is asked for as long as `persistence` says.
///
/// # Errors
/// As [`open`].
pub fn open_with(spec: &StoreSpec, persistence: Persistence) -> Result<Arc<dyn Store>, StoreError> {
    let invalid = |reason: String| StoreError::InvalidUrl { url: spec::shown(&spec.url), reason };
    let url = url::Url::parse(&spec.url).map_err(|error| {
        let is_path = spec.url.starts_with('/');
        invalid(if is_path { "it is a path: write file:// before it".to_owned() } else { error.to_string() })
    })?;
    if let Some(option) = spec.promises_beyond(url.scheme()) {
        return Err(StoreError::InvalidOption {
            store: spec::shown(&spec.url),
            option,
            reason: "this kind of store knows no such thing, and it would not be done".to_owned(),
            hint: "remove it, and see what docs/storage.md says of this kind of store".to_owned(),
        });
    }
    let environment = Environment::new(&spec::variable, &spec::firmware);
    match url.scheme() {
        "file" => Ok(Arc::new(local::LocalStore::from_url(&url)?)),
        "s3" => Ok(Arc::new(cloud::s3::open(&url, spec, &environment, persistence)?)),
        "gs" => Ok(Arc::new(cloud::gs::open(&url, spec, &environment, persistence)?)),
        "az" => Ok(Arc::new(cloud::az::open(&url, spec, &environment, persistence)?)),
        scheme => {
            Err(StoreError::UnsupportedScheme { url: spec::shown(&spec.url), scheme: scheme.to_owned() })
        }
    }
}

/// Opens the store as [`open`] does, and asks at once for the small objects `paths`, each of which serves the first read of it.
/// A local directory is not asked: there is no way to it that several questions could share. Needs a runtime.
///
/// # Errors
/// As [`open`].
pub fn open_ahead(
    spec: &StoreSpec,
    paths: impl IntoIterator<Item = String>,
) -> Result<Arc<dyn Store>, StoreError> {
    let store = open(spec)?;
    let is_local = spec.url.starts_with("file:");
    Ok(if is_local { store } else { Arc::new(ahead::Ahead::ask(store, paths)) })
}

/// The same spec with everything in it that the environment would decide, so that it opens the same store in another one.
///
/// # Errors
/// As [`open`].
pub fn settled(spec: &StoreSpec) -> Result<StoreSpec, StoreError> {
    let environment = Environment::new(&spec::variable, &spec::firmware);
    let (mut settled, store) = (spec.clone(), spec::shown(&spec.url));
    match spec.url.split_once("://").map(|(scheme, _)| scheme) {
        Some("s3") => drop(cloud::s3::settle(&mut settled, &environment, &store)?),
        Some("gs") => drop(cloud::gs::settle(&mut settled, &environment, &store)?),
        Some("az") => drop(cloud::az::settle(&mut settled, &environment, &store)?),
        _ => {}
    }
    Ok(settled)
}
