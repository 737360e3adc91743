//! What can go wrong with a keyring.

use std::path::PathBuf;

use super::Fingerprint;

/// A failure to make, wrap, unwrap or believe a keyring. No message holds a secret.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file with the key cannot be read.
    #[error("cannot read the key file {path}: {source}")]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// Others than its owner may read the key file.
    #[error("the key file {path} can be read by others (mode {mode:04o})")]
    KeyFileOpen {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// What the key file holds is neither an age identity nor a passphrase.
    #[error("the key file {path}: {reason}")]
    KeyFileContent {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A key from the environment or a command is none.
    #[error("the key is not one: {reason}")]
    KeyText {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The text is not a public key of age.
    #[error("`{text}` is not an age public key (age1…)")]
    Recipient {
        /// The text, shortened.
        text: String,
    },
    /// The identity is not one of age's X25519 identities.
    #[error("the key is not a valid age identity (AGE-SECRET-KEY-1…)")]
    Identity,
    /// This key does not open this keyring.
    #[error("{key} does not open the keyring")]
    WrongKey {
        /// Which key was tried, without what is secret of it.
        key: String,
    },
    /// The bytes are not an age file, or a damaged one.
    #[error("the wrapped keyring is damaged: {reason}")]
    NotAge {
        /// What age says.
        reason: String,
    },
    /// The system could not encrypt.
    #[error("cannot wrap the keyring: {reason}")]
    Wrap {
        /// What age says.
        reason: String,
    },
    /// What was unwrapped is not a keyring.
    #[error("the keyring is malformed: {reason}")]
    Malformed {
        /// Which rule it breaks.
        reason: String,
    },
    /// The keyring's MAC does not match: it was changed, or made by someone without the keys.
    #[error("the authentication of keyring generation {generation} failed")]
    Mac {
        /// The generation's number.
        generation: u32,
    },
    /// A generation does not follow from the one before.
    #[error("keyring generation {generation} does not follow from the one before: {reason}")]
    Chain {
        /// The generation's number.
        generation: u32,
        /// What differs.
        reason: &'static str,
    },
    /// One generation of a cluster's keyring cannot be read.
    #[error("generation {generation} of the keyring (keys/{generation:08}.age): {source}")]
    Generation {
        /// The generation's number.
        generation: u32,
        /// What is wrong with it.
        source: Box<KeyringError>,
    },
    /// The key opens earlier generations, and not this one.
    #[error(
        "{key} opens generations of the keyring before {generation}, and not that one (keys/{generation:08}.age): it was changed, \
         or is for another key"
    )]
    OtherKey {
        /// Which key was tried, without what is secret of it.
        key: String,
        /// The generation's number.
        generation: u32,
    },
    /// The first generation is gone, though the repository holds others.
    #[error("generation 1 of the keyring (keys/00000001.age) is missing, and later ones are there")]
    FirstMissing,
    /// An identity key may not be replaced (I7).
    #[error("keyring generation {generation} would replace the identity key")]
    IdentityReplaced {
        /// The generation's number.
        generation: u32,
    },
    /// Not the keyring that this host has pinned.
    #[error("the keyring's fingerprint is {found}, but this host has pinned {pinned}")]
    Pin {
        /// What the host remembers.
        pinned: Fingerprint,
        /// What the repository holds.
        found: Fingerprint,
    },
    /// The repository holds no generation at all.
    #[error("the cluster has no keyring")]
    Empty,
    /// All key ids are used up.
    #[error("no key ids are left")]
    Exhausted,
    /// The system gives no random bytes.
    #[error("no random bytes for a key: {reason}")]
    Random {
        /// The system's answer.
        reason: String,
    },
    /// A key could not be derived.
    #[error("cannot derive a key: {reason}")]
    Derive {
        /// What the library says.
        reason: String,
    },
}

impl KeyringError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::KeyFile { .. } => Some("`key_file` names the file with the age identity or the passphrase".into()),
            Self::KeyFileOpen { path, .. } => Some(format!("chmod 600 {}", path.display())),
            Self::KeyText { .. } => {
                Some("it is an age identity, a line AGE-SECRET-KEY-1…, or a passphrase and nothing else".into())
            }
            Self::KeyFileContent { .. } | Self::Identity => {
                Some("the file holds a line AGE-SECRET-KEY-1…, or a passphrase and nothing else".into())
            }
            Self::WrongKey { .. } => Some("is this the key of this cluster? the recovery kit says which one opens its keyring".into()),
            Self::NotAge { .. }
            | Self::Malformed { .. }
            | Self::Mac { .. }
            | Self::Chain { .. }
            | Self::Generation { .. }
            | Self::FirstMissing
            | Self::Empty => Some(
                "put a copy in its place: the recovery kit holds one, and so does every backup, as `keyring` beside its manifest"
                    .into(),
            ),
            Self::OtherKey { .. } => Some(
                "if the keys were rotated, use the newer one; if not, put a copy in its place: every backup holds one, as `keyring` \
                 beside its manifest"
                    .into(),
            ),
            Self::Pin { .. } => Some(
                "compare with the recovery kit; if the kit has the pinned one, somebody has replaced the keyring in the storage"
                    .into(),
            ),
            Self::Recipient { .. } => Some("age-keygen -y KEYFILE prints the public key".into()),
            Self::Wrap { .. }
            | Self::IdentityReplaced { .. }
            | Self::Exhausted
            | Self::Random { .. }
            | Self::Derive { .. } => None,
        }
    }
}
