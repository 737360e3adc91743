//! What opens a keyring: an age identity or a passphrase, from a file that nobody else may read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

use age::x25519;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{KeyringError, Recipients};

/// The longest key file that is read, in bytes.
pub const MAX_KEY_FILE_BYTES: u64 = 64 << 10;

const IDENTITY_PREFIX: &str = "AGE-SECRET-KEY-1";

/// The secret of a person or a host.
#[derive(Clone)]
pub enum Unlock {
    /// An X25519 identity of age, `AGE-SECRET-KEY-1…`.
    Identity(SecretString),
    /// A passphrase.
    Passphrase(SecretString),
}

impl Unlock {
    /// A new identity, and the text of the key file to write for it (as `age-keygen` would).
    pub fn generate(now: Timestamp) -> (Self, SecretString) {
        let identity = x25519::Identity::generate();
        let secret = identity.to_string();
        let text =
            format!("# created: {now}\n# public key: {}\n{}\n", identity.to_public(), secret.expose_secret());
        (Self::Identity(secret), SecretString::from(text))
    }

    /// Reads `path`: the first line that begins with `AGE-SECRET-KEY-1` is the identity; without one the only line is a passphrase.
    ///
    /// # Errors
    /// [`KeyringError::KeyFile`], [`KeyringError::KeyFileOpen`] when group or others have any permission on it,
    /// [`KeyringError::KeyFileContent`].
    pub fn from_file(path: &Path) -> Result<Self, KeyringError> {
        let failed = |source| KeyringError::KeyFile { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        // Asked of what was opened, so that it is the same file.
        let metadata = file.metadata().map_err(failed)?;
        let mode = metadata.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(KeyringError::KeyFileOpen { path: path.to_owned(), mode });
        }
        let wrong = |reason| KeyringError::KeyFileContent { path: path.to_owned(), reason };
        let room = usize::try_from(metadata.len().min(MAX_KEY_FILE_BYTES)).unwrap_or(0);
        let mut bytes = Zeroizing::new(Vec::with_capacity(room + 1));
        file.take(MAX_KEY_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > MAX_KEY_FILE_BYTES {
            return Err(wrong("it is longer than 64 KiB"));
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| wrong("it is not UTF-8"))?;
        Self::parse(text).map_err(wrong)
    }

    /// The same from text that is in memory.
    ///
    /// # Errors
    /// [`KeyringError::KeyText`].
    pub fn from_text(text: &str) -> Result<Self, KeyringError> {
        Self::parse(text).map_err(|reason| KeyringError::KeyText { reason })
    }

    /// What is meant to be an identity never becomes a passphrase: a keyring locked with it would be open to whoever has the public key.
    fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim_start_matches('\u{feff}');
        let lines = text.lines().map(str::trim);
        if let Some(line) = lines.clone().find(|line| line.starts_with(IDENTITY_PREFIX)) {
            let identity = Self::Identity(SecretString::from(line));
            return identity.x25519().map(|_| identity).map_err(|_| "its identity is not a valid one of age");
        }
        if lines.clone().any(|line| x25519::Recipient::from_str(line).is_ok()) {
            return Err("it holds a public key (age1…), which opens nothing");
        }
        if text.to_ascii_uppercase().contains("AGE-SECRET-KEY-") {
            return Err("its identity does not begin a line with AGE-SECRET-KEY-1");
        }
        if lines
            .clone()
            .any(|line| line.starts_with("-----BEGIN ") || line.starts_with("age-encryption.org/"))
        {
            return Err("it holds something encrypted, or a key of another program");
        }
        let passphrase = text.trim_end_matches(['\n', '\r']);
        match lines.filter(|line| !line.is_empty()).count() {
            0 => Err("it is empty"),
            // Such as a warning and the passphrase, which nobody would type again as they stand.
            _ if passphrase.contains('\n') => {
                Err("it has several lines: a passphrase is one, and nothing else")
            }
            _ => Ok(Self::Passphrase(SecretString::from(passphrase))),
        }
    }

    /// Those who open what this opens: the identity's public key, or the passphrase.
    ///
    /// # Errors
    /// [`KeyringError::Identity`] when it is not a valid identity.
    pub fn recipients(&self) -> Result<Recipients, KeyringError> {
        match self {
            Self::Identity(_) => Ok(Recipients::Keys(vec![self.x25519()?.to_public()])),
            Self::Passphrase(passphrase) => Ok(Recipients::Passphrase(passphrase.clone())),
        }
    }

    /// Which key it is, for a message: the public key, or that it is a passphrase.
    pub(super) fn described(&self) -> String {
        match self.x25519() {
            Ok(identity) => format!("the identity of {}", identity.to_public()),
            Err(_) => "the passphrase".to_owned(),
        }
    }

    pub(super) fn x25519(&self) -> Result<x25519::Identity, KeyringError> {
        match self {
            Self::Identity(text) => {
                x25519::Identity::from_str(text.expose_secret()).map_err(|_| KeyringError::Identity)
            }
            Self::Passphrase(_) => Err(KeyringError::Identity),
        }
    }
}

impl fmt::Debug for Unlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Identity(_) => "Unlock::Identity",
            Self::Passphrase(_) => "Unlock::Passphrase",
        })
    }
}
