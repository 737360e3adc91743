//! Cloud storage: S3 and what speaks it, Google Cloud Storage, Azure Blob.
//!
//! One store over `object_store`'s clients; what differs between the providers is in the file of each: how it is opened, what
//! lets us in, and what it calls its failures ([`Dialect`]). A create is one single put that the service refuses where the
//! object exists (`If-None-Match: *`, or Google's generation 0); multipart has no conditional form and is never used (I21).
//! Signatures and connection pooling are `object_store`'s. Ours is when a request is made at all: how often ([`service`]), how many
//! at once ([`throttle`]), how long it may take ([`mod@line`]), with which of several credentials ([`renewed`], [`anew`]), and whether its answer is one ([`wire`]). Absence is believed
//! only when the service names the *object* as missing, not the bucket (an archive that says "no such segment" because someone
//! mistyped the bucket ends a recovery early). Lists take a string prefix, as the protocols do. A create that was made more than once
//! and finds the object there may have been the one that made it, with its reply lost: then what is there is compared, byte
//! for byte. Whether a service honours conditional creates at all is asked by [`crate::probe`].

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::SignedDuration;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Attribute, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::{
    Created, ListEntry, Listing, MAX_WHOLE_OBJECT_BYTES, ObjectInfo, ObjectStream, STREAM_CHUNK_BYTES, Store,
    StoreError, StoreSpec, path,
};

mod anew;
pub(super) mod az;
mod beside;
mod class;
mod client;
mod failure;
mod federation;
pub(super) mod gs;
mod line;
mod reading;
mod renewed;
pub(super) mod s3;
mod service;
#[cfg(test)]
mod sources_tests;
mod throttle;
mod wire;

use class::Classes;
use client::Place;
use failure::Failure;
use line::Sending;
use reading::{Reading, Unread};
pub use service::Persistence;
use service::{Failed, Service};

/// How often a create is begun anew when the service reports a conflict and then has no such object.
const CONFLICT_ATTEMPTS: u32 = 5;

/// The largest end of a range that services understand.
const MAX_RANGE_END: u64 = i64::MAX as u64;

/// The wait after the first such conflict; it doubles.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

/// What a provider calls things.
#[derive(Debug)]
struct Dialect {
    /// What holds objects, in words.
    root: &'static str,
    /// The codes of a failure that say that it is not there.
    root_missing: &'static [&'static str],
    /// The codes that say that the object is not there.
    object_missing: &'static [&'static str],
    /// The codes of a refused create that say that the object is there.
    exists: &'static [&'static str],
    /// The codes that say that it may work later, whatever the status.
    busy: &'static [&'static str],
    /// The codes that say that it does not take our credentials, whatever the status.
    unknown_credentials: &'static [&'static str],
    /// The classes that objects may be stored in: those from which they can be read at once.
    classes: &'static [&'static str],
    /// Whether the client leaves an object out of a list whose prefix is the whole of its name.
    lists_omit_the_prefix_itself: bool,
}

/// What we need of a client.
trait Client: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Client for T {}

/// A prefix of one bucket or container.
#[derive(Debug)]
pub(super) struct CloudStore {
    client: Arc<dyn Client>,
    service: Arc<Service>,
    /// What our paths are appended to: empty, or ending in `/`.
    prefix: String,
    credentials: String,
    classes: Classes,
}

/// The answer to HEAD, which has no body to name what is missing or refused.
enum Head {
    Found(ObjectInfo),
    Unnamed(StoreError),
}

impl CloudStore {
    /// A store over a client; `credentials` says in words where those come from.
    fn new(
        client: impl Client,
        service: Arc<Service>,
        place: Place,
        spec: &StoreSpec,
        credentials: String,
    ) -> Result<Self, StoreError> {
        let classes = Classes::of(spec, service.dialect.classes, &place)?;
        let client = Arc::new(client);
        Ok(Self { client, service, prefix: place.prefix, credentials, classes })
    }

    /// How an object is created: by a single put, where none is.
    fn creation(&self, path: &str, sending: &Arc<Sending>) -> PutOptions {
        let mut options = PutOptions::from(PutMode::Create);
        options.extensions.insert(Arc::clone(sending));
        if let Some(class) = self.classes.of_object(path) {
            options.attributes.insert(Attribute::StorageClass, class.to_owned().into());
        }
        options
    }

    /// The key of an object, without any escaping: our own names need none, and the URL's prefix was checked.
    fn key(&self, path: &str) -> Result<Path, StoreError> {
        path::check(path)?;
        Path::parse(format!("{}{path}", self.prefix)).map_err(|_| StoreError::InvalidPath {
            path: path.to_owned(),
            reason: "the store cannot hold such a key",
        })
    }

    fn no_root(&self) -> StoreError {
        StoreError::NoRoot {
            store: self.service.name.clone(),
            reason: format!("there is no such {}", self.service.dialect.root),
        }
    }

    /// What a request fails with that has no object that could be missing: a 404 is about the bucket.
    fn fail_without_object(&self, operation: &'static str, path: &str, failed: &Failed) -> StoreError {
        match self.service.fail(operation, path, failed) {
            StoreError::NotFound { .. } => self.no_root(),
            other => other,
        }
    }

    fn absent(&self, path: &str) -> StoreError {
        StoreError::NotFound { path: path.to_owned(), store: self.service.name.clone() }
    }

    /// One page after the other of a list, until the service has no more.
    async fn pages(&self, prefix: &str, delimiter: bool) -> Result<(Vec<ObjectMeta>, Vec<Path>), StoreError> {
        let full_prefix = format!("{}{prefix}", self.prefix);
        let (mut objects, mut directories) = (Vec::new(), Vec::new());
        let mut token: Option<String> = None;
        loop {
            let full_prefix = Some(full_prefix.as_str()).filter(|prefix| !prefix.is_empty());
            let asked = self.service.run(|| {
                let options = PaginatedListOptions {
                    delimiter: delimiter.then_some("/".into()),
                    page_token: token.clone(),
                    ..PaginatedListOptions::default()
                };
                self.client.list_paginated(full_prefix, options)
            });
            let (page, _) =
                asked.await.map_err(|failed| self.fail_without_object("list", prefix, &failed))?;
            objects.extend(page.result.objects);
            directories.extend(page.result.common_prefixes);
            match page.page_token {
                None => return Ok((objects, directories)),
                Some(next) if token.as_ref() == Some(&next) => {
                    return Err(StoreError::Refused {
                        operation: "list",
                        path: prefix.to_owned(),
                        store: self.service.name.clone(),
                        reason: "its list does not move on: two pages name the same next page".into(),
                    });
                }
                Some(next) => token = Some(next),
            }
        }
    }

    fn entry(&self, meta: ObjectMeta) -> Option<ListEntry> {
        let path = meta.location.as_ref().strip_prefix(&self.prefix)?.to_owned();
        Some(ListEntry { path, size: meta.size, modified: timestamp(meta.last_modified.timestamp_millis()) })
    }

    async fn ask_head(&self, path: &str) -> Result<Head, StoreError> {
        let key = self.key(path)?;
        match self.service.run(|| self.client.head(&key)).await {
            Ok((meta, _)) => Ok(Head::Found(ObjectInfo {
                size: meta.size,
                modified: timestamp(meta.last_modified.timestamp_millis()),
            })),
            Err(failed) => {
                let error = self.service.fail("look up", path, &failed);
                match Failure::of(&failed.error).is_unnamed() {
                    true => Ok(Head::Unnamed(error)),
                    false => Err(error),
                }
            }
        }
    }

    /// Begins to read. S3 says of an object that is not there only that it is forbidden, where our list permission has a condition, as
    /// one limited to a prefix does: then a list of that very name tells, which the permission covers.
    async fn open(&self, path: &str, range: Option<Range<u64>>) -> Result<Reading, Unread> {
        let key = self.key(path).map_err(Unread::Failed)?;
        let opened = Reading::open(&self.client, &self.service, key.clone(), path, range).await;
        match opened {
            Err(Unread::Forbidden(denied)) => {
                let absent = match self.pages(path, false).await {
                    Ok((objects, _)) => objects.iter().all(|object| object.location != key),
                    Err(_) => false,
                };
                Err(Unread::Failed(if absent { self.absent(path) } else { denied }))
            }
            opened => opened,
        }
    }

    async fn get_with(&self, path: &str, range: Option<Range<u64>>) -> Result<Bytes, StoreError> {
        // Services read the end as a signed number.
        let range = range.map(|range| range.start..range.end.min(MAX_RANGE_END));
        let reading = match self.open(path, range).await {
            Ok(reading) => reading,
            Err(Unread::PastTheEnd) => return Ok(Bytes::new()),
            Err(Unread::Forbidden(error) | Unread::Failed(error)) => return Err(error),
        };
        if reading.left() > MAX_WHOLE_OBJECT_BYTES {
            return Err(StoreError::TooLarge {
                path: path.to_owned(),
                store: self.service.name.clone(),
                size: reading.meta.size,
                limit: MAX_WHOLE_OBJECT_BYTES,
            });
        }
        reading.collect().await
    }

    /// Whether the object is what this call was to write.
    async fn is_ours(&self, path: &str, body: &PutPayload) -> Result<bool, StoreError> {
        let mut theirs = self.stream(path).await?;
        let mut ours = body.iter().flat_map(|chunk| chunk.iter());
        while let Some(chunk) = theirs.try_next().await? {
            if !chunk.iter().all(|byte| ours.next() == Some(byte)) {
                return Ok(false);
            }
        }
        Ok(ours.next().is_none())
    }
}

#[async_trait]
impl Store for CloudStore {
    async fn create(&self, path: &str, body: Vec<Bytes>) -> Result<Created, StoreError> {
        let key = self.key(path)?;
        let payload: PutPayload = body.into_iter().collect();
        let sending = Arc::new(Sending::default());
        let mut pause = CONFLICT_PAUSE;
        let mut attempts = 0;
        for conflict in 0..CONFLICT_ATTEMPTS {
            if conflict > 0 {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            let put = || self.client.put_opts(&key, payload.clone(), self.creation(path, &sending));
            let failed = match self.service.run_sending(&sending, put).await {
                Ok(_) => return Ok(Created::New),
                Err(failed) => failed,
            };
            attempts += failed.attempts;
            let object_store::Error::AlreadyExists { .. } = &failed.error else {
                return Err(self.fail_without_object("write", path, &failed));
            };
            // 412, and some codes, say that the object is there. Any other 409 says that another request was under way, which
            // may have failed since, or that the whole bucket is going.
            let failure = Failure::of(&failed.error);
            if failure.is_one_of(self.service.dialect.root_missing) {
                return Err(self.no_root());
            }
            let exists = failure.status == Some(412) || failure.is_one_of(self.service.dialect.exists);
            if exists || self.head(path).await?.is_some() {
                // An attempt before this one may have written it, and its reply was lost.
                let ours = attempts > 1 && self.is_ours(path, &payload).await?;
                return Ok(if ours { Created::New } else { Created::Exists });
            }
        }
        Err(StoreError::Unavailable {
            operation: "write",
            path: path.to_owned(),
            store: self.service.name.clone(),
            reason: format!("it reported a conflict {CONFLICT_ATTEMPTS} times, yet has no such object"),
        })
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        self.get_with(path, None).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        if range.start >= range.end.min(MAX_RANGE_END) {
            let found = self.head(path).await?;
            return found.map(|_| Bytes::new()).ok_or_else(|| self.absent(path));
        }
        self.get_with(path, Some(range)).await
    }

    async fn stream(&self, path: &str) -> Result<ObjectStream, StoreError> {
        match self.open(path, None).await {
            Ok(reading) => {
                let chunks = reading.chunks();
                Ok(chunks.map_ok(|chunk| stream::iter(pieces(chunk).map(Ok))).try_flatten().boxed())
            }
            Err(Unread::PastTheEnd) => Ok(stream::empty().boxed()),
            Err(Unread::Forbidden(error) | Unread::Failed(error)) => Err(error),
        }
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        match self.ask_head(path).await? {
            Head::Found(info) => Ok(Some(info)),
            Head::Unnamed(_) => match self.get_range(path, 0..1).await {
                Err(StoreError::NotFound { .. }) => Ok(None),
                Err(other) => Err(other),
                // It appeared between the two questions, and once more is enough.
                Ok(_) => match self.ask_head(path).await? {
                    Head::Found(info) => Ok(Some(info)),
                    Head::Unnamed(refused @ StoreError::PermissionDenied { .. }) => Err(refused),
                    Head::Unnamed(_) => Err(StoreError::Unavailable {
                        operation: "look up",
                        path: path.to_owned(),
                        store: self.service.name.clone(),
                        reason: "it says both that the object is there and that it is not".into(),
                    }),
                },
            },
        }
    }

    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError> {
        path::check_prefix(prefix)?;
        if after.is_some_and(|after| after > prefix && !after.starts_with(prefix)) {
            return Ok(Vec::new());
        }
        let (objects, _) = self.pages(prefix, false).await?;
        let mut entries: Vec<ListEntry> = objects.into_iter().filter_map(|meta| self.entry(meta)).collect();
        if self.service.dialect.lists_omit_the_prefix_itself
            && path::check(prefix).is_ok()
            && let Some(info) = self.head(prefix).await?
        {
            entries.push(ListEntry { path: prefix.to_owned(), size: info.size, modified: info.modified });
        }
        // `start-after` is not used: SeaweedFS walks its directories in another order than bytewise, and so leaves out objects
        // that sort after it; Garage lists nothing when it lies before the prefix. A list must never miss an object.
        entries.retain(|entry| {
            entry.path.starts_with(prefix) && after.is_none_or(|after| entry.path.as_str() > after)
        });
        entries.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(entries)
    }

    async fn list_dir(&self, directory: &str) -> Result<Listing, StoreError> {
        path::check_prefix(directory)?;
        let directory = directory.strip_suffix('/').unwrap_or(directory);
        let prefix = if directory.is_empty() { String::new() } else { format!("{directory}/") };
        let (objects, directories) = self.pages(&prefix, true).await?;
        let mut objects: Vec<ListEntry> = objects.into_iter().filter_map(|meta| self.entry(meta)).collect();
        objects.retain(|entry| entry.path.starts_with(&prefix));
        objects.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        let below = |path: &Path| path.as_ref().strip_prefix(&self.prefix).map(str::to_owned);
        let mut directories: Vec<String> = directories.iter().filter_map(below).collect();
        directories.sort_unstable();
        directories.dedup();
        Ok(Listing { objects, directories })
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        let key = self.key(path)?;
        match self.service.run(|| self.client.delete(&key)).await {
            Ok(_) => Ok(()),
            Err(failed) if Failure::of(&failed.error).is_absence_in_bulk() => Ok(()),
            Err(failed) => match self.service.fail("delete", path, &failed) {
                StoreError::NotFound { .. } => Ok(()),
                other => Err(other),
            },
        }
    }

    fn describe(&self) -> String {
        self.service.name.clone()
    }

    fn credentials(&self) -> Option<String> {
        Some(self.credentials.clone())
    }

    fn clock_skew(&self) -> Option<SignedDuration> {
        self.service.seen().skew()
    }
}

/// Cuts a chunk to what a stream may yield, without copying.
fn pieces(mut chunk: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = chunk.len().min(STREAM_CHUNK_BYTES);
        (length > 0).then(|| chunk.split_to(length))
    })
}

/// The store's time; what no calendar can show becomes the beginning of 1970.
fn timestamp(milliseconds: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}
