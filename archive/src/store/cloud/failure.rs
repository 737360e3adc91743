//! What a failure of `object_store` means.
//!
//! Its error type keeps the HTTP status and the service's answer to itself, except in the message; so the message is read,
//! in this one place, and tests hold it against real services. Absence is believed only when the service itself named the
//! *object* as missing: a 404 of a proxy, of a token service or of anything else without that name is a refusal.

use std::error::Error as _;
use std::fmt::Write as _;

use object_store::client::{HttpError, HttpErrorKind};

use super::Dialect;
use crate::store::StoreError;

/// What services call being asked too often, beside the statuses 429 and 503.
const SLOW_DOWN: [&str; 9] = [
    "SlowDown",
    "SlowDownRead",
    "SlowDownWrite",
    "ServerBusy",
    "TooManyRequests",
    "RequestLimitExceeded",
    "Throttling",
    "ThrottlingException",
    "rateLimitExceeded",
];

/// What services call an object that cannot be read before somebody brings it back from an archive tier.
const ARCHIVED: [&str; 3] = ["InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"];

/// The longest text of a service that is passed on, in bytes.
const MAX_REASON_BYTES: usize = 600;

/// A failed request, taken apart.
pub(super) struct Failure {
    /// The HTTP status, if there was an answer at all.
    pub(super) status: Option<u16>,
    /// The service's own code for the failure, such as `NoSuchBucket`.
    code: Option<String>,
    /// Whether it is about one object of a bulk delete, whose answer names no code.
    in_bulk: bool,
    /// Whether time was over, of whatever.
    pub(super) timed_out: bool,
    reason: String,
}

impl Failure {
    pub(super) fn of(error: &object_store::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        let mut timed_out = false;
        while let Some(inner) = source {
            let http = inner.downcast_ref::<HttpError>();
            timed_out |= http.is_some_and(|http| http.kind() == HttpErrorKind::Timeout);
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) && write!(text, ": {inner_text}").is_err() {
                break;
            }
            source = inner.source();
        }
        let number = |from, to| between(&text, from, to).and_then(|status| status.parse().ok());
        let of_one = number("(code: ", ")");
        let status = number("status code: ", " ").or(of_one);
        let code = between(&text, "<Code>", "</Code>").map(str::to_owned);
        let status = status.or(match error {
            object_store::Error::NotFound { .. } => Some(404),
            object_store::Error::PermissionDenied { .. } => Some(403),
            object_store::Error::Unauthenticated { .. } => Some(401),
            object_store::Error::Precondition { .. } => Some(412),
            _ => None,
        });
        let reason = reason(&text, status, code.as_deref());
        Self { reason, status, code, timed_out, in_bulk: of_one.is_some() }
    }

    /// Whether the service's code is one of these.
    pub(super) fn is_one_of(&self, codes: &[&str]) -> bool {
        self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }

    /// The service is too full, or we ask too often.
    pub(super) fn asks_to_slow_down(&self) -> bool {
        matches!(self.status, Some(429 | 503)) || self.is_one_of(&SLOW_DOWN)
    }

    /// The service does not let us.
    pub(super) fn is_refusal(&self, dialect: &Dialect) -> bool {
        matches!(self.status, Some(401 | 403))
            || self.is_one_of(dialect.unknown_credentials)
            || self.is_one_of(&["RequestTimeTooSkewed"])
    }

    /// Says more.
    pub(super) fn add(&mut self, text: &str) {
        self.reason = format!("{} ({text})", self.reason);
    }

    /// A refusal or an absence without a word about what it is, as HEAD must give.
    pub(super) fn is_unnamed(&self) -> bool {
        matches!(self.status, Some(400 | 401 | 403 | 404)) && self.code.is_none()
    }

    /// The service itself says that one object of a bulk delete is not there.
    pub(super) fn is_absence_in_bulk(&self) -> bool {
        self.in_bulk && self.status == Some(404) && self.code.is_none()
    }

    pub(super) fn into_store_error(
        self,
        dialect: &Dialect,
        operation: &'static str,
        path: &str,
        store: &str,
    ) -> StoreError {
        let named = |codes: &[&str]| self.is_one_of(codes);
        let (path, store) = (path.to_owned(), store.to_owned());
        if named(dialect.root_missing) {
            return StoreError::NoRoot { store, reason: format!("there is no such {}", dialect.root) };
        }
        if self.status == Some(404) && named(dialect.object_missing) {
            return StoreError::NotFound { path, store };
        }
        let busy = named(dialect.busy);
        let unknown_to_it = named(dialect.unknown_credentials);
        let slow = self.asks_to_slow_down();
        let clocks = named(&["RequestTimeTooSkewed"]);
        let archived = named(&ARCHIVED);
        let reason = self.reason;
        match self.status {
            _ if archived => StoreError::Archived { operation, path, store, reason },
            _ if busy || slow => StoreError::Unavailable { operation, path, store, reason },
            _ if unknown_to_it || clocks => StoreError::PermissionDenied { operation, path, store, reason },
            Some(401 | 403) => StoreError::PermissionDenied { operation, path, store, reason },
            Some(408 | 409 | 425 | 429) | None => StoreError::Unavailable { operation, path, store, reason },
            Some(300..=499) => StoreError::Refused { operation, path, store, reason },
            Some(_) => StoreError::Unavailable { operation, path, store, reason },
        }
    }
}

/// The status and the service's own words; everything that is known where there are none.
fn reason(text: &str, status: Option<u16>, code: Option<&str>) -> String {
    let message = between(text, "<Message>", "</Message>");
    let mut reason = match (status, code, message) {
        (Some(status), Some(code), Some(message)) => format!("status {status}, {code}: {message}"),
        (Some(status), Some(code), None) => format!("status {status}, {code}"),
        (Some(status), None, _) => format!("status {status}: {text}"),
        (None, _, _) => text.to_owned(),
    };
    if reason.len() > MAX_REASON_BYTES {
        let mut end = MAX_REASON_BYTES;
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        reason.push('…');
    }
    reason.replace(['\n', '\r'], " ")
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(from)?;
    rest.split_once(to).map(|(found, _)| found)
}
