//! What can go wrong at a store: what failed, on what, and whether it is worth trying again.

use std::io;

/// A failure of a store. The message names the operation and the object; [`StoreError::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The object is proven absent: the store itself answered, and said so.
    #[error("{path}: not found in {store}")]
    NotFound {
        /// The object, relative to the store's prefix.
        path: String,
        /// The store, without secrets.
        store: String,
    },
    /// The root of the store (a directory, a bucket) is not there, so nothing can be said about any object in it.
    #[error("{store}: {reason}")]
    NoRoot {
        /// The store, without secrets.
        store: String,
        /// What was looked for and not found.
        reason: String,
    },
    /// A name that no store of ours may hold.
    #[error("{path:?} is not a legal object name: {reason}")]
    InvalidPath {
        /// The name as it was given.
        path: String,
        /// The rule it breaks.
        reason: &'static str,
    },
    /// A URL or one of the options beside it that cannot be used.
    #[error("repository URL {url:?}: {reason}")]
    InvalidUrl {
        /// The URL, without what may be secret in it.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A kind of store that this version does not speak.
    #[error("repository URL {url:?}: stores of the kind {scheme:?} are not supported by this version")]
    UnsupportedScheme {
        /// The URL, without what may be secret in it.
        url: String,
        /// The part before `://`.
        scheme: String,
    },
    /// Credentials are missing before any request is made.
    #[error("{store}: {reason}")]
    MissingCredentials {
        /// The store, without secrets.
        store: String,
        /// Which of them.
        reason: String,
        /// How to give them.
        hint: &'static str,
    },
    /// An option beside the URL that cannot be used.
    #[error("{store}: {option}: {reason}")]
    InvalidOption {
        /// The store, without secrets.
        store: String,
        /// The option's name.
        option: &'static str,
        /// What is wrong with it.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// The filesystem can neither `link` nor rename without replacing, so two writers could overwrite each other (I3).
    #[error("cannot publish {path} in {store}: the filesystem has neither hard links nor RENAME_NOREPLACE")]
    NoAtomicPublish {
        /// The object, relative to the store's root.
        path: String,
        /// The store, without secrets.
        store: String,
    },
    /// A symbolic link, or something that is neither file nor directory, stands where an object or directory should.
    #[error("{path} in {store}: {reason}")]
    NotAnObject {
        /// The object, relative to the store's root.
        path: String,
        /// The store, without secrets.
        store: String,
        /// What stands there.
        reason: String,
    },
    /// No room is left: the filesystem, or a quota on it, is full.
    #[error("cannot {operation} {path} in {store}: no space left ({source})")]
    NoSpace {
        /// What was being done.
        operation: &'static str,
        /// The object, relative to the store's root.
        path: String,
        /// The store, without secrets.
        store: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The store refused: permissions of files, or the policy of a bucket.
    #[error("cannot {operation} {path} in {store}: permission denied ({reason})")]
    PermissionDenied {
        /// What was being done.
        operation: &'static str,
        /// The object, relative to the store's prefix.
        path: String,
        /// The store, without secrets.
        store: String,
        /// What the store said.
        reason: String,
    },
    /// The object lies where it cannot be read from: somebody moved it to an archive tier.
    #[error("cannot {operation} {path} in {store}: it lies in an archive tier ({reason})")]
    Archived {
        /// What was being done.
        operation: &'static str,
        /// The object, relative to the store's prefix.
        path: String,
        /// The store, without secrets.
        store: String,
        /// What the store said.
        reason: String,
    },
    /// Any other failure of the operating system.
    #[error("cannot {operation} {path} in {store}: {source}")]
    Io {
        /// What was being done.
        operation: &'static str,
        /// The object, relative to the store's root.
        path: String,
        /// The store, without secrets.
        store: String,
        /// The system's answer.
        source: io::Error,
    },
    /// The object is larger than what may be read into memory in one piece.
    #[error("{path} in {store} is {size} bytes; at most {limit} are read in one piece")]
    TooLarge {
        /// The object, relative to the store's prefix.
        path: String,
        /// The store, without secrets.
        store: String,
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The store could not be reached, or did not answer in time, or said that it is overloaded.
    #[error("cannot {operation} {path} in {store}: {reason}")]
    Unavailable {
        /// What was being done.
        operation: &'static str,
        /// The object, relative to the store's prefix.
        path: String,
        /// The store, without secrets.
        store: String,
        /// What happened, over all attempts.
        reason: String,
    },
    /// The store answered, and its answer will not change by asking again.
    #[error("cannot {operation} {path} in {store}: the store refused: {reason}")]
    Refused {
        /// What was being done.
        operation: &'static str,
        /// The object, relative to the store's prefix.
        path: String,
        /// The store, without secrets.
        store: String,
        /// What the store said.
        reason: String,
    },
}

impl StoreError {
    /// Whether asking again cannot help until a person changes something. Absence counts as permanent.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::NotFound { .. }
            | Self::NoRoot { .. }
            | Self::InvalidPath { .. }
            | Self::InvalidUrl { .. }
            | Self::UnsupportedScheme { .. }
            | Self::MissingCredentials { .. }
            | Self::InvalidOption { .. }
            | Self::NoAtomicPublish { .. }
            | Self::NotAnObject { .. }
            | Self::PermissionDenied { .. }
            | Self::Archived { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. } => true,
            Self::NoSpace { .. } | Self::Io { .. } | Self::Unavailable { .. } => false,
        }
    }

    /// Whether what was configured cannot be used, so that nothing was asked of any store.
    pub fn is_of_configuration(&self) -> bool {
        matches!(
            self,
            Self::InvalidUrl { .. }
                | Self::UnsupportedScheme { .. }
                | Self::MissingCredentials { .. }
                | Self::InvalidOption { .. }
        )
    }

    /// Whether the store itself proved that the object is absent.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// What a person can do next, as one sentence; `None` where the message already says it all.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { .. } | Self::TooLarge { .. } | Self::InvalidPath { .. } => None,
            Self::NoRoot { .. } => {
                Some("is the disk mounted, and the URL right?".into())
            }
            Self::InvalidUrl { .. } => {
                Some("use file:///directory, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix, with other options as keys beside it".into())
            }
            Self::UnsupportedScheme { .. } => {
                Some("use file:///, gs://, az://, or s3:// through the store's S3-compatible endpoint".into())
            }
            Self::MissingCredentials { hint, .. } => Some((*hint).into()),
            Self::InvalidOption { hint, .. } => Some(hint.clone()),
            Self::NoAtomicPublish { .. } => Some(
                "put the repository on another filesystem (ext4, XFS, Btrfs, ZFS, NFS), or in object storage".into(),
            ),
            Self::NotAnObject { .. } => {
                Some("nothing but what Highwater wrote may stand inside a repository; move it away".into())
            }
            Self::NoSpace { .. } => Some("free space on the repository's filesystem, or raise the quota".into()),
            Self::PermissionDenied { reason, .. } => Some(permission_hint(reason).into()),
            Self::Archived { .. } => Some(
                "bring it back (S3: restore the object; Azure: rehydrate the blob) and run this again; keep lifecycle rules that archive off the repository's prefix".into(),
            ),
            Self::Io { .. } => Some("look at the kernel's log: the disk or the mount may be failing".into()),
            Self::Unavailable { reason, .. } => Some(unavailable_hint(reason).into()),
            Self::Refused { .. } => Some("check the region, the bucket and the endpoint of the repository".into()),
        }
    }
}

/// What to look at when a store refuses, by S3's own codes where it gave one.
fn permission_hint(reason: &str) -> &'static str {
    if reason.contains("RequestTimeTooSkewed") || reason.contains("this host's clock is") {
        "set this host's clock, and keep it right by NTP: a service takes requests of the last 15 minutes only"
    } else if reason.contains("InvalidAccessKeyId") || reason.contains("SignatureDoesNotMatch") {
        "the access key or its secret is wrong, or the region is"
    } else if reason.contains("ExpiredToken") {
        "the session token has expired; get new credentials"
    } else if reason.contains("Read-only file system") {
        "the filesystem is mounted read-only, as the kernel does after errors of a disk: look at its log, then mount it for writing"
    } else {
        "run as the user that owns the repository, or let the credentials read, write and list this prefix"
    }
}

/// What to look at when a store does not answer, by what the client met.
fn unavailable_hint(reason: &str) -> &'static str {
    if reason.contains("dns error") {
        "this host does not know the name of the service's host: is it spelt right in `endpoint`, or the bucket's in `url`, and does DNS answer?"
    } else if reason.contains("Connection refused") {
        "nothing listens at that host and port: are they right in `endpoint`, and is the service up?"
    } else {
        "check the endpoint, the network and the store's own health"
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_refusal_says_what_to_look_at() {
        let refused = |reason: &str| {
            let error = StoreError::PermissionDenied {
                operation: "read",
                path: "a".into(),
                store: "s3://b".into(),
                reason: reason.into(),
            };
            error.hint().unwrap()
        };
        assert!(refused("status 403, RequestTimeTooSkewed: too far").contains("clock"));
        assert!(refused("status 403, SignatureDoesNotMatch: no").contains("secret"));
        assert!(refused("status 400, ExpiredToken: old").contains("token"));
        assert!(refused("status 403, AccessDenied: no").contains("list this prefix"));
        assert!(unavailable_hint("client error (Connect): dns error: no such name").contains("spelt right"));
        assert!(unavailable_hint("Connection refused (os error 111)").contains("port"));
    }
}
