//! Reading an object, or a part of one, by as few requests as the connection allows.
//!
//! One request brings all of it. Where the connection breaks on the way, or no more comes, what is missing is asked for by another
//! request, signed anew, as long as the service says by its tag that it is the same object. Attempts that brought something do not
//! count: only those without progress do.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, GetResult, ObjectMeta};

use super::Client;
use super::failure::Failure;
use super::service::{Attempts, ENDED, Failed, Service};
use super::throttle::Permit;
use crate::store::StoreError;

/// An object, or a range of one, whose bytes are on their way.
pub(super) struct Reading {
    client: Arc<dyn Client>,
    service: Arc<Service>,
    key: Path,
    path: String,
    /// What has not come yet.
    left: Range<u64>,
    pub(super) meta: ObjectMeta,
    body: BoxStream<'static, object_store::Result<Bytes>>,
    permit: Option<Permit>,
    attempts: Attempts,
}

/// Why there is nothing to read.
pub(super) enum Unread {
    /// The object is there, and ends before the range.
    PastTheEnd,
    /// It is forbidden to this credential, which may be how its absence is told.
    Forbidden(StoreError),
    Failed(StoreError),
}

impl Reading {
    pub(super) async fn open(
        client: &Arc<dyn Client>,
        service: &Arc<Service>,
        key: Path,
        path: &str,
        range: Option<Range<u64>>,
    ) -> Result<Self, Unread> {
        let ranged = range.is_some();
        let (found, permit) = match ask(&**client, service, &key, range).await {
            Ok(found) => found,
            Err(failed) if ranged && Failure::of(&failed.error).status == Some(416) => {
                return Err(Unread::PastTheEnd);
            }
            Err(failed) => {
                let ended = Failure::of(&failed.error).is_one_of(&ENDED);
                return Err(match service.fail("read", path, &failed) {
                    error @ StoreError::PermissionDenied { .. } if !ended => Unread::Forbidden(error),
                    error => Unread::Failed(error),
                });
            }
        };
        Ok(Self {
            client: Arc::clone(client),
            service: Arc::clone(service),
            key,
            path: path.to_owned(),
            left: found.range.clone(),
            meta: found.meta.clone(),
            body: found.into_stream(),
            permit: Some(permit),
            attempts: service.attempts(),
        })
    }

    /// How many bytes are still to come.
    pub(super) fn left(&self) -> u64 {
        self.left.end.saturating_sub(self.left.start)
    }

    /// The chunks as they come; what comes after an error is nothing.
    pub(super) fn chunks(self) -> BoxStream<'static, Result<Bytes, StoreError>> {
        stream::try_unfold(self, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        })
        .boxed()
    }

    /// All of it in one piece.
    pub(super) async fn collect(self) -> Result<Bytes, StoreError> {
        let expected = usize::try_from(self.left()).unwrap_or_default();
        let mut chunks = self.chunks();
        let Some(first) = chunks.try_next().await? else { return Ok(Bytes::new()) };
        if first.len() >= expected {
            return Ok(first);
        }
        let mut all = Vec::with_capacity(expected);
        all.extend_from_slice(&first);
        while let Some(chunk) = chunks.try_next().await? {
            all.extend_from_slice(&chunk);
        }
        Ok(all.into())
    }

    async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let broken = match self.service.limits().next(&mut self.body).await {
                Ok(Some(Ok(chunk))) => {
                    let room = usize::try_from(self.left()).unwrap_or(usize::MAX);
                    if chunk.len() > room {
                        return Err(self.unavailable("more bytes came than were announced"));
                    }
                    self.left.start += chunk.len() as u64;
                    self.attempts = self.service.attempts();
                    return Ok(Some(chunk));
                }
                Ok(None) if self.left() == 0 => return Ok(None),
                Ok(None) => object_store::Error::Generic {
                    store: "",
                    source: format!("it ended {} bytes before its end", self.left()).into(),
                },
                Ok(Some(Err(error))) => error,
                Err(silent) => {
                    if let Some(permit) = &self.permit {
                        permit.slow_down();
                    }
                    object_store::Error::Generic { store: "", source: silent.into() }
                }
            };
            self.permit = None;
            let again = self.service.pause(&mut self.attempts, broken, false).await;
            again.map_err(|failed| self.service.fail("read", &self.path, &failed))?;
            let found = ask(&*self.client, &self.service, &self.key, Some(self.left.clone())).await;
            let (found, permit) = found.map_err(|failed| self.service.fail("read", &self.path, &failed))?;
            if found.meta.e_tag != self.meta.e_tag || found.range != self.left {
                return Err(self.unavailable("it is another object since the transfer broke"));
            }
            self.body = found.into_stream();
            self.permit = Some(permit);
        }
    }

    fn unavailable(&self, reason: &str) -> StoreError {
        StoreError::Unavailable {
            operation: "read",
            path: self.path.clone(),
            store: self.service.name.clone(),
            reason: reason.to_owned(),
        }
    }
}

async fn ask(
    client: &dyn Client,
    service: &Service,
    key: &Path,
    range: Option<Range<u64>>,
) -> Result<(GetResult, Permit), Failed> {
    let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
    service.run(|| client.get_opts(key, options.clone())).await
}
