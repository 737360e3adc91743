//! A generation of the keyring as a JSON document, and what makes it believable.
//!
//! The MAC and the fingerprint are taken over bytes, never over what they were parsed to: the document ends with
//! `,"mac":"<64 hex>"}`, the MAC covers what stands before that and a closing brace. So a later version can add a key to
//! the document and this one still checks it.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{DataKey, KeyClass, Keyring, KeyringError, Recipients};
use crate::keyed::{MacKey, derive};
use crate::names::{ClusterId, HexError, parse_hex};

const MAC_INFO: &str = "highwater keyring v1";
const FINGERPRINT_PREFIX: &[u8] = b"highwater keyring fingerprint v1";
const MAC_FIELD: &[u8] = b",\"mac\":\"";
const MAC_FIELD_LEN: usize = MAC_FIELD.len() + 64 + 2;

/// What a person compares and a host pins: the first 16 bytes of a SHA-256 over a generation's document.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 16]);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Fingerprint {
    type Err = HexError;

    fn from_str(text: &str) -> Result<Self, HexError> {
        parse_hex(text).map(Self)
    }
}

impl Serialize for Fingerprint {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Fingerprint {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The document without its MAC.
#[derive(Serialize, Deserialize)]
struct Document<'a> {
    generation: u32,
    cluster_id: ClusterId,
    previous: Option<Fingerprint>,
    #[serde(borrow)]
    keys: Vec<KeyEntry<'a>>,
    #[serde(borrow)]
    recipients: Vec<Cow<'a, str>>,
}

#[derive(Serialize, Deserialize)]
struct KeyEntry<'a> {
    id: u32,
    #[serde(borrow)]
    class: Cow<'a, str>,
    secret: SecretHex,
    #[serde(borrow)]
    created_at: Cow<'a, str>,
}

/// A secret as hexadecimal text, without a copy of it that is not wiped.
struct SecretHex(Zeroizing<[u8; 32]>);

impl Serialize for SecretHex {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = Zeroizing::new([0u8; 64]);
        hex::encode_to_slice(self.0.as_slice(), text.as_mut_slice()).map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(std::str::from_utf8(text.as_slice()).map_err(serde::ser::Error::custom)?)
    }
}

impl<'de> Deserialize<'de> for SecretHex {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <&str>::deserialize(deserializer)?;
        let mut secret = Zeroizing::new([0; 32]);
        hex::decode_to_slice(text, secret.as_mut_slice())
            .map_err(|_| serde::de::Error::custom("a secret is not 64 hexadecimal digits"))?;
        Ok(Self(secret))
    }
}

/// The first generation: authenticated under its own identity key.
pub(super) fn first(
    cluster_id: ClusterId,
    keys: Vec<Arc<DataKey>>,
    recipients: &Recipients,
) -> Result<Keyring, KeyringError> {
    build(1, cluster_id, None, keys, recipients, Vec::new())
}

/// The generation after `previous`.
pub(super) fn next(
    previous: &Keyring,
    keys: Vec<Arc<DataKey>>,
    recipients: &Recipients,
) -> Result<Keyring, KeyringError> {
    let generation = previous.generation.checked_add(1).ok_or(KeyringError::Exhausted)?;
    let before = fingerprint(&previous.document);
    build(generation, previous.cluster_id, Some(before), keys, recipients, previous.fingerprints.clone())
}

fn build(
    generation: u32,
    cluster_id: ClusterId,
    previous: Option<Fingerprint>,
    keys: Vec<Arc<DataKey>>,
    recipients: &Recipients,
    fingerprints: Vec<(u32, Fingerprint)>,
) -> Result<Keyring, KeyringError> {
    let entries = keys.iter().map(|key| KeyEntry {
        id: key.id,
        class: Cow::Borrowed(key.class.as_str()),
        secret: SecretHex(key.secret.clone()),
        created_at: Cow::Borrowed(&key.created_at),
    });
    let document = Document {
        generation,
        cluster_id,
        previous,
        keys: entries.collect(),
        recipients: recipients.public_keys().into_iter().map(Cow::Owned).collect(),
    };
    // Room for everything at once: a buffer that moves leaves its old bytes, secrets among them, unwiped.
    let room = 512 + 256 * keys.len() + 128 * document.recipients.len();
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    serde_json::to_writer(&mut *bytes, &document).map_err(|error| malformed(error.to_string()))?;
    drop(document);

    let identity = keys.iter().find(|key| key.class == KeyClass::Identity);
    let identity = identity.ok_or_else(|| malformed("it has no identity key"))?;
    let mac = document_mac(identity.secret(), &bytes)?;
    bytes.pop();
    bytes.extend_from_slice(MAC_FIELD);
    bytes.extend_from_slice(hex::encode(mac.finalize().into_bytes()).as_bytes());
    bytes.extend_from_slice(b"\"}");
    assemble(generation, cluster_id, keys, bytes, fingerprints)
}

/// Reads a document that was unwrapped, and checks it as far as it can be checked alone.
pub(super) fn parse(bytes: Zeroizing<Vec<u8>>) -> Result<Keyring, KeyringError> {
    // serde_json's messages may quote a value, and a value may be a secret.
    let document: Document<'_> = serde_json::from_slice(&bytes).map_err(|error| {
        malformed(format!("line {} column {} is not what it should be", error.line(), error.column()))
    })?;
    let (generation, cluster_id) = (document.generation, document.cluster_id);
    if generation == 0 || (generation == 1) != document.previous.is_none() {
        return Err(malformed("generation and previous generation contradict each other"));
    }
    let mut keys: Vec<Arc<DataKey>> = Vec::with_capacity(document.keys.len());
    for entry in document.keys {
        let class = [KeyClass::Identity, KeyClass::Metadata, KeyClass::Content]
            .into_iter()
            .find(|class| class.as_str() == entry.class)
            .ok_or_else(|| malformed("it has a key of an unknown class"))?;
        if entry.id == 0 || keys.iter().any(|key| key.id == entry.id) {
            return Err(malformed(format!("key id {} is used twice", entry.id)));
        }
        let created_at = entry.created_at.into_owned();
        keys.push(Arc::new(DataKey { id: entry.id, class, secret: entry.secret.0, created_at }));
    }
    let identities: Vec<_> = keys.iter().filter(|key| key.class == KeyClass::Identity).collect();
    let [identity] = identities.as_slice() else {
        return Err(malformed("it must have exactly one identity key"));
    };
    // The identity key is never replaced, so the key of the generation before is this one's own.
    check_mac(identity.secret(), generation, &bytes)?;
    assemble(generation, cluster_id, keys, bytes, Vec::new())
}

/// Checks that `next` is the generation after `previous`, made by a holder of its keys, and answers it.
pub(super) fn follow(previous: &Keyring, next: Keyring) -> Result<Keyring, KeyringError> {
    let generation = next.generation;
    let broken = |reason| Err(KeyringError::Chain { generation, reason });
    if Some(generation) != previous.generation.checked_add(1) {
        return broken("its number is not the next one");
    }
    if next.cluster_id != previous.cluster_id {
        return broken("it belongs to another cluster");
    }
    let document: Document<'_> =
        serde_json::from_slice(&next.document).map_err(|_| malformed("it cannot be read again"))?;
    if document.previous != Some(fingerprint(&previous.document)) {
        return broken("it names another generation as the one before");
    }
    drop(document);
    check_mac(previous.identity.secret(), generation, &next.document)?;
    let kept = |key: &Arc<DataKey>| {
        next.find(key.class, key.id)
            .is_some_and(|same| blake3::Hash::from(*same.secret()) == blake3::Hash::from(*key.secret()))
    };
    if !previous.keys.iter().all(kept) {
        return broken("a key is missing or changed");
    }
    let mut fingerprints = previous.fingerprints.clone();
    fingerprints.extend(next.fingerprints.iter().copied());
    Ok(Keyring { fingerprints, ..next })
}

/// The fingerprint of a whole document, MAC included.
pub(super) fn fingerprint(document: &[u8]) -> Fingerprint {
    let mut hasher = Sha256::new();
    hasher.update(FINGERPRINT_PREFIX);
    hasher.update(document);
    let hash: [u8; 32] = hasher.finalize().into();
    let mut short = [0; 16];
    short.copy_from_slice(hash.first_chunk::<16>().unwrap_or(&[0; 16]));
    Fingerprint(short)
}

fn assemble(
    generation: u32,
    cluster_id: ClusterId,
    keys: Vec<Arc<DataKey>>,
    document: Zeroizing<Vec<u8>>,
    mut fingerprints: Vec<(u32, Fingerprint)>,
) -> Result<Keyring, KeyringError> {
    let newest = |class: KeyClass| {
        let of_class = keys.iter().filter(|key| key.class == class);
        of_class.max_by_key(|key| key.id).cloned().ok_or_else(|| malformed(format!("it has no {class} key")))
    };
    let (identity, metadata, content) =
        (newest(KeyClass::Identity)?, newest(KeyClass::Metadata)?, newest(KeyClass::Content)?);
    let derived = |info| {
        MacKey::derive(identity.secret(), info)
            .map_err(|error| KeyringError::Derive { reason: error.to_string() })
    };
    let digest_key = derived("highwater digest v1")?;
    let header_mac_key = derived("highwater header mac v1")?;
    fingerprints.push((generation, fingerprint(&document)));
    Ok(Keyring {
        cluster_id,
        generation,
        keys,
        identity,
        metadata,
        content,
        digest_key,
        header_mac_key,
        document,
        fingerprints,
    })
}

/// The MAC over the document without its `mac` field.
fn document_mac(identity: &[u8; 32], unsigned: &[u8]) -> Result<Hmac<Sha256>, KeyringError> {
    let derived = |reason: String| KeyringError::Derive { reason };
    let key = derive(identity, &[], &[MAC_INFO.as_bytes()]).map_err(|error| derived(error.to_string()))?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.as_slice()).map_err(|error| derived(error.to_string()))?;
    mac.update(unsigned);
    Ok(mac)
}

/// Checks a whole document's MAC under this identity key, in constant time.
fn check_mac(identity: &[u8; 32], generation: u32, document: &[u8]) -> Result<(), KeyringError> {
    let wrong = || KeyringError::Mac { generation };
    let split = document.len().checked_sub(MAC_FIELD_LEN).ok_or_else(wrong)?;
    let (body, field) = document.split_at_checked(split).ok_or_else(wrong)?;
    let text = field.strip_prefix(MAC_FIELD).and_then(|rest| rest.strip_suffix(b"\"}")).ok_or_else(wrong)?;
    let expected = hex::decode(text).map_err(|_| wrong())?;
    let mut unsigned = Zeroizing::new(Vec::with_capacity(body.len() + 1));
    unsigned.extend_from_slice(body);
    unsigned.push(b'}');
    document_mac(identity, &unsigned)?.verify_slice(&expected).map_err(|_| wrong())
}

fn malformed(reason: impl Into<String>) -> KeyringError {
    KeyringError::Malformed { reason: reason.into() }
}
