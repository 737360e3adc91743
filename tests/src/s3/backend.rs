//! The objects of the service: a map in memory. Every operation takes its lock once, so all of them are atomic; a
//! conditional put looks and writes under that one lock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::{Bytes, BytesMut};
use crc_fast::{CrcAlgorithm, checksum};
use futures::{TryStreamExt, stream};
use highwater_archive::clock::{Clock, SystemClock};
use s3s::dto::*;
use s3s::{S3, S3Error, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};
use sha2::{Digest as _, Sha256};

use super::BUCKET;
use super::faults::Faults;

/// The most keys in one page of a list: small, so that tests turn pages.
const PAGE_KEYS: usize = 100;

/// One stored object.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its content.
    pub bytes: Bytes,
    /// When it was written.
    pub modified: jiff::Timestamp,
    tag: u64,
}

impl Object {
    /// What tells this writing of the name from every other.
    pub(crate) fn tag(&self) -> String {
        format!("{:032x}", self.tag)
    }

    fn etag(&self) -> ETag {
        ETag::Strong(self.tag())
    }

    fn modified(&self) -> Timestamp {
        Timestamp::from(SystemTime::from(self.modified))
    }
}

/// What is stored, by full key.
#[derive(Debug, Default)]
pub struct Objects {
    objects: Mutex<BTreeMap<String, Object>>,
    next_tag: AtomicU64,
}

impl Objects {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Object>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All keys, sorted.
    pub fn keys(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// One object.
    pub fn get(&self, key: &str) -> Option<Object> {
        self.lock().get(key).cloned()
    }

    /// Writes an object past the protocol, as damage or as somebody else's work.
    pub fn put(&self, key: &str, bytes: Bytes) {
        let object = self.object(bytes);
        self.lock().insert(key.to_owned(), object);
    }

    /// Removes an object past the protocol; answers whether it was there.
    pub fn remove(&self, key: &str) -> bool {
        self.lock().remove(key).is_some()
    }

    fn object(&self, bytes: Bytes) -> Object {
        Object { bytes, modified: SystemClock.now(), tag: self.next_tag.fetch_add(1, Ordering::SeqCst) }
    }

    /// Looks and writes under one lock; nothing where the object is there and must not be.
    pub(crate) fn put_if(&self, key: &str, bytes: Bytes, only_if_absent: bool) -> Option<Object> {
        let object = self.object(bytes);
        let mut objects = self.lock();
        if only_if_absent && objects.contains_key(key) {
            return None;
        }
        objects.insert(key.to_owned(), object.clone());
        Some(object)
    }

    /// A page of a list: at most 100 names after `after`, in order; those that share what lies before the delimiter count
    /// once, as a directory.
    pub(crate) fn page(&self, prefix: &str, delimiter: Option<&str>, after: &str, limit: usize) -> Page {
        page(&self.lock(), prefix, delimiter, after, limit.min(PAGE_KEYS))
    }
}

/// The service's half that knows S3.
#[derive(Debug)]
pub(super) struct Backend {
    objects: Arc<Objects>,
    faults: Arc<Faults>,
}

impl Backend {
    pub(super) fn new(objects: Arc<Objects>, faults: Arc<Faults>) -> Self {
        Self { objects, faults }
    }

    fn find(&self, key: &str) -> S3Result<Object> {
        self.objects.get(key).ok_or_else(|| s3_error!(NoSuchKey, "there is no such object"))
    }
}

fn check_bucket(bucket: &str) -> S3Result<()> {
    if bucket == BUCKET { Ok(()) } else { Err(s3_error!(NoSuchBucket, "there is no such bucket")) }
}

#[async_trait::async_trait]
impl S3 for Backend {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        // The body comes first: a client that is turned away half-way through sees a broken pipe and not the reason.
        let mut bytes = match input.body {
            Some(body) => {
                let received = body.try_fold(BytesMut::new(), |mut all, chunk| async move {
                    all.extend_from_slice(&chunk);
                    Ok(all)
                });
                received.await.map_err(|error| S3Error::with_source(S3ErrorCode::IncompleteBody, error))?
            }
            None => BytesMut::new(),
        };
        if self.faults.take_damage() {
            bytes.iter_mut().take(1).for_each(|byte| *byte ^= 1);
        }
        let bytes = bytes.freeze();
        let checksums = [
            (input.checksum_crc64nvme, checksum(CrcAlgorithm::Crc64Nvme, &bytes).to_be_bytes().to_vec()),
            (input.checksum_sha256, Sha256::digest(&bytes).to_vec()),
        ];
        for (told, found) in checksums {
            if told.is_some_and(|told| told != BASE64_STANDARD.encode(found)) {
                return Err(s3_error!(BadDigest, "the checksum is not the content's"));
            }
        }
        check_bucket(&input.bucket)?;
        let only_if_absent = match &input.if_none_match {
            Some(condition) if !condition.is_any() => return Err(s3_error!(NotImplemented, "only `*`")),
            condition => condition.is_some() && !self.faults.ignores_conditions(),
        };
        let written = self.objects.put_if(&input.key, bytes, only_if_absent);
        let object = written.ok_or_else(|| s3_error!(PreconditionFailed, "the object exists"))?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(object.etag()), ..PutObjectOutput::default() }))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        let object = self.find(&input.key)?;
        let length = object.bytes.len() as u64;
        let range = match input.range {
            None => 0..length,
            Some(range) => range.check(length)?,
        };
        let content_range =
            input.range.map(|_| format!("bytes {}-{}/{length}", range.start, range.end.saturating_sub(1)));
        let (start, end) = (as_usize(range.start)?, as_usize(range.end)?);
        let body = object.bytes.slice(start..end);
        Ok(S3Response::new(GetObjectOutput {
            content_length: Some(as_i64(end - start)?),
            content_range,
            e_tag: Some(object.etag()),
            last_modified: Some(object.modified()),
            body: Some(StreamingBlob::wrap(stream::iter([Ok::<_, std::io::Error>(body)]))),
            ..GetObjectOutput::default()
        }))
    }

    async fn head_object(
        &self,
        request: S3Request<HeadObjectInput>,
    ) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        let object = self.find(&input.key)?;
        Ok(S3Response::new(HeadObjectOutput {
            content_length: Some(as_i64(object.bytes.len())?),
            e_tag: Some(object.etag()),
            last_modified: Some(object.modified()),
            ..HeadObjectOutput::default()
        }))
    }

    async fn delete_object(
        &self,
        request: S3Request<DeleteObjectInput>,
    ) -> S3Result<S3Response<DeleteObjectOutput>> {
        let input = request.input;
        check_bucket(&input.bucket)?;
        self.objects.remove(&input.key);
        Ok(S3Response::with_status(DeleteObjectOutput::default(), hyper::StatusCode::NO_CONTENT))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        let prefix = input.prefix.clone().unwrap_or_default();
        check_bucket(&input.bucket)?;
        let after = input.continuation_token.as_deref().max(input.start_after.as_deref()).unwrap_or_default();
        let limit = input.max_keys.and_then(|keys| usize::try_from(keys).ok()).unwrap_or(PAGE_KEYS);
        let page = self.objects.page(&prefix, input.delimiter.as_deref(), after, limit);
        let contents = page.objects.into_iter().map(|(key, object)| s3s::dto::Object {
            size: i64::try_from(object.bytes.len()).ok(),
            e_tag: Some(object.etag()),
            last_modified: Some(object.modified()),
            key: Some(key),
            ..s3s::dto::Object::default()
        });
        let common_prefixes =
            page.directories.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) });
        Ok(S3Response::new(ListObjectsV2Output {
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            start_after: input.start_after,
            continuation_token: input.continuation_token,
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(contents.collect()),
            common_prefixes: Some(common_prefixes.collect()),
            ..ListObjectsV2Output::default()
        }))
    }
}

/// One page of a list.
pub(crate) struct Page {
    pub(crate) objects: Vec<(String, Object)>,
    pub(crate) directories: BTreeSet<String>,
    /// Where the next page begins, after this name.
    pub(crate) next: Option<String>,
}

fn page(
    objects: &BTreeMap<String, Object>,
    prefix: &str,
    delimiter: Option<&str>,
    after: &str,
    limit: usize,
) -> Page {
    let mut page = Page { objects: Vec::new(), directories: BTreeSet::new(), next: None };
    let mut last = String::new();
    for (key, object) in objects {
        let Some(rest) = key.strip_prefix(prefix) else { continue };
        let directory = delimiter
            .and_then(|delimiter| rest.find(delimiter).map(|at| at + delimiter.len()))
            .and_then(|end| rest.get(..end))
            .map(|directory| format!("{prefix}{directory}"));
        let name = directory.as_deref().unwrap_or(key);
        if name <= after || page.directories.contains(name) {
            continue;
        }
        if page.objects.len() + page.directories.len() == limit {
            page.next = Some(last);
            break;
        }
        last = name.to_owned();
        match directory {
            Some(directory) => drop(page.directories.insert(directory)),
            None => page.objects.push((key.clone(), object.clone())),
        }
    }
    page
}

fn as_usize(number: u64) -> S3Result<usize> {
    usize::try_from(number).map_err(S3Error::internal_error)
}

fn as_i64(number: usize) -> S3Result<i64> {
    i64::try_from(number).map_err(S3Error::internal_error)
}
