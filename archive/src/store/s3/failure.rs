//! What a failure of `object_store` means.
//!
//! Its error type keeps the HTTP status and the service's answer to itself, except in the message; so the message is read,
//! in this one place, and tests hold it against a real service.

use std::error::Error as _;
use std::fmt::Write as _;

use crate::store::StoreError;

/// The longest text of a service that is passed on, in bytes.
const MAX_REASON_BYTES: usize = 600;

/// A failed request, taken apart.
pub(super) struct Failure {
    /// The HTTP status, if there was an answer at all.
    pub(super) status: Option<u16>,
    /// S3's own code for the failure, such as `NoSuchBucket`.
    code: Option<String>,
    reason: String,
}

impl Failure {
    pub(super) fn of(error: &object_store::Error) -> Self {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(inner) = source {
            let inner_text = inner.to_string();
            if !text.contains(&inner_text) && write!(text, ": {inner_text}").is_err() {
                break;
            }
            source = inner.source();
        }
        let status = between(&text, "status code: ", " ").and_then(|status| status.parse().ok());
        let code = between(&text, "<Code>", "</Code>").map(str::to_owned);
        let status = status.or(match error {
            object_store::Error::NotFound { .. } => Some(404),
            object_store::Error::PermissionDenied { .. } => Some(403),
            object_store::Error::Unauthenticated { .. } => Some(401),
            object_store::Error::Precondition { .. } => Some(412),
            _ => None,
        });
        Self { reason: reason(&text, status, code.as_deref()), status, code }
    }

    pub(super) fn into_store_error(self, operation: &'static str, path: &str, store: &str) -> StoreError {
        let (path, store, reason) = (path.to_owned(), store.to_owned(), self.reason);
        match (self.status, self.code.as_deref()) {
            (_, Some("NoSuchBucket")) => {
                StoreError::NoRoot { store, reason: "there is no such bucket".into() }
            }
            (Some(404), _) => StoreError::NotFound { path, store },
            (
                _,
                Some(
                    "RequestTimeout" | "SlowDown" | "InternalError" | "ServiceUnavailable"
                    | "OperationAborted",
                ),
            ) => StoreError::Unavailable { operation, path, store, reason },
            (Some(401 | 403), _) | (_, Some("ExpiredToken" | "InvalidToken" | "InvalidAccessKeyId")) => {
                StoreError::PermissionDenied { operation, path, store, reason }
            }
            (Some(408 | 409 | 425 | 429), _) | (None, _) => {
                StoreError::Unavailable { operation, path, store, reason }
            }
            (Some(300..=499), _) => StoreError::Refused { operation, path, store, reason },
            (Some(_), _) => StoreError::Unavailable { operation, path, store, reason },
        }
    }
}

/// Whether a refused read is the service's way to say that the object ends before the range.
pub(super) fn is_range_past_end(reason: &str) -> bool {
    reason.starts_with("status 416")
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
