//! The keyring of a cluster: its data keys in three classes (I7), in numbered generations (I8), wrapped with `age`.
//!
//! Generation 1 holds an identity key (digests and header MACs), a metadata key and a content key. A rotation adds keys
//! and makes the next generation, which keeps all earlier ones; the identity key is never replaced, so that "the
//! same segment" and "the same extent" stay the same for ever. Each generation is a JSON document that is authenticated
//! under the identity key of the generation before it and names that generation's fingerprint, so whoever has one
//! generation and pinned its fingerprint can tell that a later one was made by a holder of the keys.
//!
//! Secrets are wiped from memory when dropped, and no `Debug` prints them.

mod document;
mod error;
mod kit;
mod unlock;
mod wrap;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::keyed::{Digest, Digester, MacKey};
use crate::names::ClusterId;

pub use document::Fingerprint;
pub use error::KeyringError;
pub use kit::{KitFacts, recovery_kit};
pub use unlock::{MAX_KEY_FILE_BYTES, Unlock};
pub use wrap::{MAX_WRAPPED_BYTES, Recipients};

/// What a key is for (I7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyClass {
    /// Digests and header MACs; never changed by a rotation.
    Identity,
    /// Catalog, manifests, indexes, evidence.
    Metadata,
    /// Packs, WAL, tails.
    Content,
}

impl KeyClass {
    /// The class as the keyring writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Metadata => "metadata",
            Self::Content => "content",
        }
    }
}

impl fmt::Display for KeyClass {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One data key.
pub struct DataKey {
    id: u32,
    class: KeyClass,
    secret: Zeroizing<[u8; 32]>,
    created_at: String,
}

impl DataKey {
    /// Its id, unique over all classes and never used again.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// What it is for.
    pub fn class(&self) -> KeyClass {
        self.class
    }

    pub(crate) fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

impl fmt::Debug for DataKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} key {}", self.class, self.id)
    }
}

/// The keys of one cluster, as of one generation.
pub struct Keyring {
    cluster_id: ClusterId,
    generation: u32,
    keys: Vec<Arc<DataKey>>,
    identity: Arc<DataKey>,
    metadata: Arc<DataKey>,
    content: Arc<DataKey>,
    digest_key: MacKey,
    header_mac_key: MacKey,
    /// The document of this generation as it was or will be wrapped.
    document: Zeroizing<Vec<u8>>,
    /// Of the generations that were opened, oldest first, this one last.
    fingerprints: Vec<(u32, Fingerprint)>,
}

impl Keyring {
    /// A first generation with three new keys.
    ///
    /// # Errors
    /// [`KeyringError::Random`] when the system gives no random bytes.
    pub fn generate(
        cluster_id: ClusterId,
        recipients: &Recipients,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        let keys = [KeyClass::Identity, KeyClass::Metadata, KeyClass::Content]
            .into_iter()
            .zip(1..)
            .map(|(class, id)| new_key(id, class, now))
            .collect::<Result<Vec<_>, _>>()?;
        document::first(cluster_id, keys, recipients)
    }

    /// The generation after this one: all its keys, and a new one of each class in `new`. Wrap it, and store it under the
    /// next number.
    ///
    /// # Errors
    /// [`KeyringError::IdentityReplaced`] when `new` asks for an identity key (I7); [`KeyringError::Random`].
    pub fn next_generation(
        &self,
        new: &[KeyClass],
        recipients: &Recipients,
        now: Timestamp,
    ) -> Result<Self, KeyringError> {
        if new.contains(&KeyClass::Identity) {
            return Err(KeyringError::IdentityReplaced { generation: self.generation.saturating_add(1) });
        }
        let first_id = self.keys.iter().map(|key| key.id).max().unwrap_or(0).checked_add(1);
        let mut keys = self.keys.clone();
        for (class, id) in new.iter().zip(first_id.ok_or(KeyringError::Exhausted)?..) {
            keys.push(new_key(id, *class, now)?);
        }
        document::next(self, keys, recipients)
    }

    /// This generation as an age file that each of `recipients` can open.
    ///
    /// # Errors
    /// [`KeyringError::Wrap`].
    pub fn wrap(&self, recipients: &Recipients) -> Result<Vec<u8>, KeyringError> {
        wrap::encrypt(&self.document, recipients)
    }

    /// Opens one generation on its own: the copy in a recovery kit (armored or not) or beside a manifest.
    ///
    /// # Errors
    /// [`KeyringError::WrongKey`], [`KeyringError::NotAge`], [`KeyringError::Malformed`], [`KeyringError::Mac`].
    pub fn unwrap(wrapped: &[u8], unlock: &Unlock) -> Result<Self, KeyringError> {
        document::parse(wrap::decrypt(wrapped, unlock)?)
    }

    /// Opens the generations of a cluster, oldest first, and checks that each follows from the one before. Generations at
    /// the beginning that `unlock` does not open (they were wrapped to others) are passed over.
    ///
    /// # Errors
    /// [`KeyringError::Empty`] without any; [`KeyringError::WrongKey`] when none can be opened, [`KeyringError::OtherKey`] when a
    /// later one cannot; [`KeyringError::Generation`] for one that is damaged; [`KeyringError::Chain`] when one does not follow from
    /// the one before.
    pub fn unwrap_chain(generations: &[impl AsRef<[u8]>], unlock: &Unlock) -> Result<Self, KeyringError> {
        let mut current: Option<Self> = None;
        let mut refused = None;
        for (wrapped, generation) in generations.iter().zip(1..) {
            match (Self::unwrap(wrapped.as_ref(), unlock), &current) {
                (Ok(next), None) => current = Some(next),
                (Ok(next), Some(previous)) => current = Some(document::follow(previous, next)?),
                (Err(error @ KeyringError::WrongKey { .. }), None) => refused = Some(error),
                (Err(KeyringError::WrongKey { key }), Some(_)) => {
                    return Err(KeyringError::OtherKey { key, generation });
                }
                (Err(source), _) => {
                    return Err(KeyringError::Generation { generation, source: Box::new(source) });
                }
            }
        }
        current.ok_or(refused.unwrap_or(KeyringError::Empty))
    }

    /// The cluster whose keys these are.
    pub fn cluster_id(&self) -> ClusterId {
        self.cluster_id
    }

    /// The number of this generation, from 1.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The fingerprint of the oldest generation that was opened, generation 1 as a rule: what a host pins.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprints.first().map_or_else(|| document::fingerprint(&self.document), |entry| entry.1)
    }

    /// Holds the fingerprint that a host pinned against the generations that were opened.
    ///
    /// # Errors
    /// [`KeyringError::Pin`] when none of them has it: the storage may have put a keyring of its own there (I8).
    pub fn check_pin(&self, pinned: Fingerprint) -> Result<(), KeyringError> {
        if self.fingerprints.iter().any(|entry| entry.1 == pinned) {
            return Ok(());
        }
        Err(KeyringError::Pin { pinned, found: self.fingerprint() })
    }

    /// The key that new objects of this class are sealed with.
    pub fn current(&self, class: KeyClass) -> &DataKey {
        match class {
            KeyClass::Identity => &self.identity,
            KeyClass::Metadata => &self.metadata,
            KeyClass::Content => &self.content,
        }
    }

    /// The key with this id, if it is of this class.
    pub fn find(&self, class: KeyClass, id: u32) -> Option<&DataKey> {
        self.keys.iter().find(|key| key.id == id && key.class == class).map(AsRef::as_ref)
    }

    /// All keys, oldest first.
    pub fn keys(&self) -> impl Iterator<Item = &DataKey> {
        self.keys.iter().map(AsRef::as_ref)
    }

    /// The keyed digest of `bytes`: the same for ever, whatever rotates.
    pub fn digest(&self, bytes: &[u8]) -> Digest {
        self.digest_key.digest(bytes)
    }

    /// The same, fed piece by piece.
    pub fn digester(&self) -> Digester {
        self.digest_key.digester()
    }

    pub(crate) fn identity_id(&self) -> u32 {
        self.identity.id
    }

    pub(crate) fn header_mac(&self, header: &[u8]) -> blake3::Hash {
        self.header_mac_key.mac(header)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("cluster_id", &self.cluster_id)
            .field("generation", &self.generation)
            .field("keys", &self.keys)
            .finish_non_exhaustive()
    }
}

fn new_key(id: u32, class: KeyClass, now: Timestamp) -> Result<Arc<DataKey>, KeyringError> {
    let mut secret = Zeroizing::new([0; 32]);
    getrandom::fill(secret.as_mut_slice())
        .map_err(|error| KeyringError::Random { reason: error.to_string() })?;
    Ok(Arc::new(DataKey { id, class, secret, created_at: now.to_string() }))
}
