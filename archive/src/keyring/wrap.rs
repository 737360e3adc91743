//! Wrapping with age, so that the standard tool opens a keyring too.

use std::fmt;
use std::io::{Read, Write};
use std::str::FromStr;

use age::armor::ArmoredReader;
use age::{DecryptError, Decryptor, EncryptError, Encryptor, scrypt, x25519};
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::{KeyringError, Unlock};

/// The largest wrapped keyring that is read, in bytes.
pub const MAX_WRAPPED_BYTES: usize = 1 << 20;

/// age's own default: 2^18 rounds, about a second. Fixed, because measuring the machine first would cost as much again.
const SCRYPT_WORK_FACTOR: u8 = 18;

/// A file may ask for at most this much (16 seconds): the storage must not be able to keep a host busy.
const SCRYPT_MAX_WORK_FACTOR: u8 = 22;

/// Who can open a keyring. age does not mix a passphrase with anything else.
#[derive(Clone)]
pub enum Recipients {
    /// Any of these X25519 public keys.
    Keys(Vec<x25519::Recipient>),
    /// Whoever knows the passphrase.
    Passphrase(SecretString),
}

impl Recipients {
    /// Parses public keys (`age1…`).
    ///
    /// # Errors
    /// [`KeyringError::Recipient`] for the first that is none.
    pub fn from_public_keys<'a>(keys: impl IntoIterator<Item = &'a str>) -> Result<Self, KeyringError> {
        let parse = |text: &str| {
            x25519::Recipient::from_str(text)
                .map_err(|_| KeyringError::Recipient { text: text.chars().take(80).collect() })
        };
        Ok(Self::Keys(keys.into_iter().map(parse).collect::<Result<_, _>>()?))
    }

    /// The public keys as text; none for a passphrase.
    pub fn public_keys(&self) -> Vec<String> {
        match self {
            Self::Keys(keys) => keys.iter().map(ToString::to_string).collect(),
            Self::Passphrase(_) => Vec::new(),
        }
    }
}

impl fmt::Debug for Recipients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Keys(_) => f.debug_list().entries(self.public_keys()).finish(),
            Self::Passphrase(_) => f.write_str("passphrase"),
        }
    }
}

pub(super) fn encrypt(plain: &[u8], recipients: &Recipients) -> Result<Vec<u8>, KeyringError> {
    let failed = |reason: String| KeyringError::Wrap { reason };
    let encryptor = match recipients {
        Recipients::Keys(keys) => {
            Encryptor::with_recipients(keys.iter().map(|key| key as &dyn age::Recipient))
        }
        Recipients::Passphrase(passphrase) => {
            let mut recipient = scrypt::Recipient::new(passphrase.clone());
            recipient.set_work_factor(SCRYPT_WORK_FACTOR);
            Encryptor::with_recipients(std::iter::once(&recipient as &dyn age::Recipient))
        }
    }
    .map_err(|error| failed(unwritable(&error)))?;
    let mut wrapped = Vec::with_capacity(plain.len() + 1024);
    let mut writer = encryptor.wrap_output(&mut wrapped).map_err(|error| failed(error.to_string()))?;
    writer
        .write_all(plain)
        .and_then(|()| writer.finish().map(drop))
        .map_err(|error| failed(error.to_string()))?;
    Ok(wrapped)
}

/// Opens an age file, armored or not.
pub(super) fn decrypt(wrapped: &[u8], unlock: &Unlock) -> Result<Zeroizing<Vec<u8>>, KeyringError> {
    if wrapped.len() > MAX_WRAPPED_BYTES {
        return Err(KeyringError::NotAge { reason: format!("it is {} bytes long", wrapped.len()) });
    }
    if wrapped.is_empty() {
        return Err(KeyringError::NotAge { reason: "it is empty".to_owned() });
    }
    let decryptor = Decryptor::new_buffered(ArmoredReader::new(wrapped)).map_err(damaged)?;
    let opened = match unlock {
        Unlock::Identity(_) => decryptor.decrypt(std::iter::once(&unlock.x25519()? as &dyn age::Identity)),
        Unlock::Passphrase(passphrase) => {
            let mut identity = scrypt::Identity::new(passphrase.clone());
            identity.set_max_work_factor(SCRYPT_MAX_WORK_FACTOR);
            decryptor.decrypt(std::iter::once(&identity as &dyn age::Identity))
        }
    };
    let reader = opened.map_err(|error| match error {
        DecryptError::NoMatchingKeys | DecryptError::KeyDecryptionFailed | DecryptError::DecryptionFailed => {
            KeyringError::WrongKey { key: unlock.described() }
        }
        other => damaged(other),
    })?;
    let mut plain = Zeroizing::new(Vec::with_capacity(wrapped.len()));
    reader
        .take(MAX_WRAPPED_BYTES as u64)
        .read_to_end(&mut plain)
        .map_err(|_| KeyringError::NotAge { reason: "it was changed or cut short".to_owned() })?;
    Ok(plain)
}

// age's own texts are translations that a debug build reads from its source tree, where another user may find none; so what
// went wrong is told by its kind.

fn damaged(error: DecryptError) -> KeyringError {
    let reason = match error {
        DecryptError::InvalidHeader => "its header is not one of age".to_owned(),
        DecryptError::InvalidMac => "its header was changed".to_owned(),
        DecryptError::UnknownFormat => "it is no age file, or one of a newer version".to_owned(),
        DecryptError::ExcessiveWork { required, .. } => {
            format!(
                "its passphrase asks for 2^{required} rounds of work, and at most 2^{SCRYPT_MAX_WORK_FACTOR} are done"
            )
        }
        DecryptError::Io(error) => format!("it cannot be read ({})", error.kind()),
        _ => "it cannot be decrypted".to_owned(),
    };
    KeyringError::NotAge { reason }
}

fn unwritable(error: &EncryptError) -> String {
    match error {
        EncryptError::Io(error) => error.to_string(),
        EncryptError::MissingRecipients => "there is no key to wrap it for".to_owned(),
        _ => "its keys cannot be used together".to_owned(),
    }
}
