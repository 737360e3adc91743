//! What can go wrong when an object is sealed or opened: which check failed, on which object.

use std::fmt;

use super::ObjectKind;

/// Which frame of an object is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameRef {
    /// A data frame, by its number.
    Data(u32),
    /// The last frame, which holds the frame index.
    Last,
    /// The attachment that follows the header.
    Attachment,
}

impl fmt::Display for FrameRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Data(number) => write!(f, "frame {number}"),
            Self::Last => f.write_str("the last frame"),
            Self::Attachment => f.write_str("the attachment"),
        }
    }
}

/// The check that a frame did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FrameCheck {
    /// Its bytes end before its length says, or go on after it.
    Length,
    /// The CRC over the ciphertext: the storage changed it.
    Crc,
    /// The authentication tag: not these bytes, under this name, at this place.
    Tag,
    /// What was decrypted is not a frame's plaintext.
    Form,
    /// It does not decompress to the length that it claims.
    Codec,
}

impl fmt::Display for FrameCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Length => "its length does not fit",
            Self::Crc => "its bytes were changed: the checksum does not match",
            Self::Tag => "it was not written under this name: it comes from another place, or is forged",
            Self::Form => "its content is malformed",
            Self::Codec => "it does not decompress to its length",
        })
    }
}

/// A failure to seal or to open. Every message names the object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// Fewer bytes than the part that was to be read.
    #[error("{object}: {}", ends_early(*have, part, *needed))]
    TooShort {
        /// The object's path.
        object: String,
        /// What was being read.
        part: &'static str,
        /// How many bytes that takes.
        needed: u64,
        /// How many there are.
        have: u64,
    },
    /// The bytes do not begin with the magic of a sealed object.
    #[error("{object}: it does not begin as an object of Highwater does")]
    NotSealed {
        /// The object's path.
        object: String,
    },
    /// A version, codec, cipher, kind or key wrap that this program does not know.
    #[error("{object}: unknown {field} {value} in its header")]
    Unsupported {
        /// The object's path.
        object: String,
        /// The header field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// A header that its MAC confirms, but whose fields contradict each other.
    #[error("{object}: its header is malformed: {reason}")]
    Malformed {
        /// The object's path.
        object: String,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// The header's MAC does not match: damaged, forged, or of another cluster.
    #[error("{object}: its header is not authentic: it was changed, or it is of another cluster")]
    HeaderMac {
        /// The object's path.
        object: String,
    },
    /// The keyring does not hold the key that the header names.
    #[error(
        "{object}: sealed with {class} key {id}, which the keyring does not hold: its newest generation is missing"
    )]
    UnknownKey {
        /// The object's path.
        object: String,
        /// Class of the key.
        class: &'static str,
        /// Its id.
        id: u32,
    },
    /// The object is of another kind than the one that was asked for.
    #[error("{object}: is a {found}, not a {expected}")]
    WrongKind {
        /// The object's path.
        object: String,
        /// What was asked for.
        expected: ObjectKind,
        /// What the header says.
        found: ObjectKind,
    },
    /// A frame failed a check.
    #[error("{object}: {frame}: {check}")]
    Frame {
        /// The object's path.
        object: String,
        /// Which frame.
        frame: FrameRef,
        /// Which check.
        check: FrameCheck,
    },
    /// The footer is damaged, or contradicts the object.
    #[error("{object}: {reason}")]
    Footer {
        /// The object's path.
        object: String,
        /// What is wrong.
        reason: &'static str,
    },
    /// The plaintext is not what the sealed digest or length says.
    #[error("{object}: the content does not match its {what}")]
    Content {
        /// The object's path.
        object: String,
        /// `digest` or `length`.
        what: &'static str,
    },
    /// The object has no attachment.
    #[error("{object}: has no attachment")]
    NoAttachment {
        /// The object's path.
        object: String,
    },
    /// More than the format can hold was to be sealed.
    #[error("{object}: {what} of {bytes} bytes is more than the {limit} that the format holds")]
    TooLarge {
        /// The object's path.
        object: String,
        /// What is too large.
        what: &'static str,
        /// Its size.
        bytes: u64,
        /// The most there may be.
        limit: u64,
    },
    /// The system gave no random bytes for the salt, or a codec failed to write.
    #[error("{object}: cannot seal: {reason}")]
    Cannot {
        /// The object's path.
        object: String,
        /// What failed.
        reason: String,
    },
}

/// How an object that is too short ends.
fn ends_early(have: u64, part: &str, needed: u64) -> String {
    match have {
        0 => "it is empty".to_owned(),
        have => format!("it is cut short: {have} bytes are left, and its {part} alone takes {needed}"),
    }
}

impl SealError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::HeaderMac { .. } => Some(
                "it was damaged or replaced in the storage; take it from another repository, or from a version that the storage kept"
                    .into(),
            ),
            Self::UnknownKey { .. } => Some(
                "the newest generation of the keyring is missing: put it back from the `keyring` beside the manifest of a backup made since, \
                 or from another copy of the repository"
                    .into(),
            ),
            Self::Unsupported { .. } => Some("a newer version of Highwater may have written it; use that version".into()),
            Self::NotSealed { .. }
            | Self::TooShort { .. }
            | Self::Malformed { .. }
            | Self::Frame { .. }
            | Self::Footer { .. }
            | Self::Content { .. }
            | Self::WrongKind { .. } => Some(
                "it was damaged or replaced in the storage; take it from another repository, or from a version that the storage kept"
                    .into(),
            ),
            Self::NoAttachment { .. } | Self::TooLarge { .. } | Self::Cannot { .. } => None,
        }
    }
}
