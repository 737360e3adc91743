//! How long a request may take, and what is seen of a put on its way.
//!
//! A client's own time-outs know nothing of what is sent: a put would have as long as the answer to a question, and over a slow line no
//! pack would ever arrive. So they are off, and what holds is here. Nothing may be silent for longer than [`SILENCE`]: an answer that does not
//! begin or does not go on, or a put of which the system takes no more. All of a put may take as long as it would at the slowest rate
//! ([`Persistence::slowest`]).
//!
//! The client takes no body but its own, which tells nobody how far it is. But what it is just sending it holds, so a put is handed to it in
//! small pieces with a byte of its own behind each, a [`Mark`]: one that somebody else holds is on its way, and so is what lies behind it.
//! The first such mark moves on as long as the line does, however slowly. What only the system and the network hold is not seen; so
//! where no mark is held, there is time for that at the slowest rate, too.

use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use http_body_util::BodyExt as _;
use object_store::PutPayload;
use object_store::client::{
    HttpClient, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpResponseBody,
};
use tokio::time::{Instant, timeout};

use super::Persistence;

/// How long nothing may come or go.
const SILENCE: Duration = Duration::from_secs(120);
/// What the system and the network may hold of a put that the client has let go of, in bytes.
const HELD_BYTES: u64 = 1 << 20;
/// What the client gets at a time, in bytes.
const PIECE_BYTES: usize = 64 << 10;
/// How often a put is looked after while it may be silent once.
const LOOKS: u32 = 64;
/// What moves at the first looks only fills what the system holds.
const FILLING: u32 = 4;

/// How long a request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    silence: Duration,
    attempt: Duration,
    /// In bytes a second.
    slowest: u64,
}

/// What the last attempt of a put came to, where it goes with the request.
#[derive(Debug, Default)]
pub(super) struct Sending {
    moved: Mutex<Duration>,
}

/// One byte of a put that is seen.
struct Mark {
    /// Which chunk of the content it is.
    chunk: usize,
    /// How many bytes go before it.
    before: u64,
}

/// Why a request is not waited for any longer.
#[derive(Debug, thiserror::Error)]
enum OutOfTime {
    #[error("no answer came within {:.1} s", .0.as_secs_f64())]
    NoAnswer(Duration),
    #[error("no more came within {:.1} s", .0.as_secs_f64())]
    NoMore(Duration),
    #[error("of {size} bytes {taken} were sent, and no more within {:.1} s", .silence.as_secs_f64())]
    Stalled { size: u64, taken: u64, silence: Duration },
    #[error("{size} bytes were sent, and no answer came within {:.1} s", .silence.as_secs_f64())]
    NoAnswerToPut { size: u64, silence: Duration },
    #[error("{size} bytes were not sent within {:.1} s", .all.as_secs_f64())]
    TooSlow { size: u64, all: Duration },
}

impl From<OutOfTime> for HttpError {
    fn from(why: OutOfTime) -> Self {
        Self::new(HttpErrorKind::Timeout, why)
    }
}

impl Sending {
    /// For how long the last attempt was seen to move; forgotten by asking. Zero where nothing left this host for all that is known.
    pub(super) fn take_moved(&self) -> Duration {
        std::mem::take(&mut self.moved.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn moved(&self, time: Duration) {
        *self.moved.lock().unwrap_or_else(PoisonError::into_inner) = time;
    }
}

impl Limits {
    pub(super) fn of(persistence: Persistence) -> Self {
        let Persistence { attempt, slowest, .. } = persistence;
        Self { silence: SILENCE.min(attempt), attempt, slowest: slowest.max(1) }
    }

    fn at_slowest(self, bytes: u64) -> Duration {
        Duration::from_secs(bytes / self.slowest)
    }

    /// The answer to a request that sends nothing to speak of.
    pub(super) async fn answer(
        self,
        client: &HttpClient,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let limit = self.silence;
        timeout(limit, client.execute(request)).await.map_err(|_| OutOfTime::NoAnswer(limit))?
    }

    /// The answer to a put, and how long it was seen to move.
    pub(super) async fn put(
        self,
        client: &HttpClient,
        request: HttpRequest,
    ) -> Result<HttpResponse, HttpError> {
        let sending = request.extensions().get::<Arc<Sending>>().map(Arc::clone).unwrap_or_default();
        let size = request.body().content_length() as u64;
        if size == 0 {
            // Its own body says that it is empty; one in pieces would not.
            return self.answer(client, request).await;
        }
        let (request, content, marks) = in_pieces(request).await?;
        let mut response = pin!(client.execute(request));
        let begun = Instant::now();
        let look = (self.silence / LOOKS).max(Duration::from_millis(1));
        let all = self.attempt + self.at_slowest(size);
        let (mut last, mut seen) = (begun, None);
        loop {
            // What is let go of because the request has failed was never sent, and is not looked at any more.
            if let Ok(came) = timeout(look, &mut response).await {
                return came;
            }
            let (now, on_its_way) = (Instant::now(), first_on_its_way(&content, &marks));
            if on_its_way != seen {
                (last, seen) = (now, on_its_way);
                let moved = last.duration_since(begun);
                sending.moved(if moved > look * FILLING { moved } else { Duration::ZERO });
            }
            let held = if on_its_way.is_some() { 0 } else { size.min(HELD_BYTES) };
            let silence = self.silence + self.at_slowest(held);
            if now >= last + silence {
                return Err(match on_its_way {
                    Some(taken) => OutOfTime::Stalled { size, taken, silence }.into(),
                    None => OutOfTime::NoAnswerToPut { size, silence }.into(),
                });
            }
            if now >= begun + all {
                return Err(OutOfTime::TooSlow { size, all }.into());
            }
        }
    }

    /// What comes next of an answer.
    pub(super) async fn next<T, E>(
        self,
        chunks: &mut BoxStream<'static, Result<T, E>>,
    ) -> Result<Option<Result<T, E>>, HttpError> {
        let limit = self.silence;
        Ok(timeout(limit, chunks.next()).await.map_err(|_| OutOfTime::NoMore(limit))?)
    }

    /// An answer's body, or so much of it.
    pub(super) async fn body(self, body: HttpResponseBody, most: usize) -> Result<Bytes, HttpError> {
        let mut chunks = body.bytes_stream();
        let mut known = BytesMut::new();
        while known.len() < most
            && let Some(chunk) = self.next(&mut chunks).await?
        {
            known.extend_from_slice(&chunk?);
        }
        Ok(known.freeze())
    }
}

/// The same request with its content in pieces and marks, both of which stay here, too.
async fn in_pieces(request: HttpRequest) -> Result<(HttpRequest, PutPayload, Vec<Mark>), HttpError> {
    let (parts, body) = request.into_parts();
    let chunks: Vec<Bytes> = body.into_data_stream().try_collect().await?;
    let (mut content, mut marks, mut before) = (Vec::new(), Vec::new(), 0);
    for mut chunk in chunks {
        while !chunk.is_empty() {
            let mut piece = chunk.split_to(chunk.len().min(PIECE_BYTES));
            before += piece.len() as u64 - 1;
            let last = piece.split_off(piece.len() - 1);
            if !piece.is_empty() {
                content.push(piece);
            }
            marks.push(Mark { chunk: content.len(), before });
            // Memory of its own is what tells whether somebody else holds it.
            content.push(last.to_vec().into());
            before += 1;
        }
    }
    let content: PutPayload = content.into_iter().collect();
    Ok((HttpRequest::from_parts(parts, content.clone().into()), content, marks))
}

/// How many bytes go before the first mark that the client is just sending, if it is sending any.
fn first_on_its_way(content: &PutPayload, marks: &[Mark]) -> Option<u64> {
    let chunks: &[Bytes] = content.as_ref();
    let held = |mark: &&Mark| chunks.get(mark.chunk).is_some_and(|mark| !mark.is_unique());
    marks.iter().find(held).map(|mark| mark.before)
}
