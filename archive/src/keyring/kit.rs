//! The recovery kit: a page to print, or to keep in a vault, from which a cluster comes back when the host, and even
//! the keyring in the repository, are gone.

use std::fmt::Write as _;
use std::io::Write as _;

use age::armor::{ArmoredWriter, Format};
use jiff::Timestamp;

use super::{Keyring, KeyringError, Recipients};

/// What the kit says besides the keyring.
#[derive(Debug)]
pub struct KitFacts<'a> {
    /// The cluster's name in the repositories.
    pub cluster: &'a str,
    /// The repositories, as URLs without secrets.
    pub repositories: &'a [String],
    /// Where the key that opens the keyring is kept on the host.
    pub key_file: &'a str,
    /// Now.
    pub created_at: Timestamp,
}

/// The text of the kit. It holds the keyring wrapped, so it is as safe as the key; it does not hold the key itself.
///
/// # Errors
/// [`KeyringError::Wrap`].
pub fn recovery_kit(
    keyring: &Keyring,
    recipients: &Recipients,
    facts: &KitFacts<'_>,
) -> Result<String, KeyringError> {
    let failed = |error: std::io::Error| KeyringError::Wrap { reason: error.to_string() };
    let wrapped = keyring.wrap(recipients)?;
    let mut armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor).map_err(failed)?;
    armor.write_all(&wrapped).map_err(failed)?;
    let armored = armor.finish().map_err(failed)?;
    let armored = String::from_utf8_lossy(&armored);

    let mut text = String::new();
    let mut line = |parts: std::fmt::Arguments<'_>| writeln!(text, "{parts}");
    let written = (|| {
        line(format_args!("HIGHWATER RECOVERY KIT"))?;
        line(format_args!(""))?;
        line(format_args!("cluster      {} ({})", facts.cluster, keyring.cluster_id()))?;
        for repository in facts.repositories {
            line(format_args!("repository   {repository}"))?;
        }
        line(format_args!("keyring      generation {}", keyring.generation()))?;
        line(format_args!("fingerprint  {}", keyring.fingerprint()))?;
        line(format_args!("made         {}", facts.created_at))?;
        for key in recipients.public_keys() {
            line(format_args!("opens with   the identity of {key}"))?;
        }
        if recipients.public_keys().is_empty() {
            line(format_args!("opens with   the passphrase"))?;
        }
        line(format_args!(
            "
Keep this page and the key together where neither the host nor the repository can take them along.
The key is NOT on this page: it is the content of {} on the database host. Without the key nothing
can be restored, by anyone.

To restore on a blank host: put the key into a file (chmod 600), name it as `key_file` and the repository as `url`
in a configuration, then run `highwater list` and `highwater restore --target-dir DIR`. The fingerprint in the heading
of the list must be the one above.

If the keyring in the repository is lost too: save the block below as a file and put what `age --decrypt` reads, the
file itself, at clusters/{}/keys/{:08}.age in the repository. Without Highwater, docs/format.md says how the keys in
it (age --decrypt --identity KEYFILE FILE) open everything else.
",
            facts.key_file,
            facts.cluster,
            keyring.generation(),
        ))?;
        line(format_args!("{}", armored.trim_end()))
    })();
    written.map_err(|error| KeyringError::Wrap { reason: error.to_string() })?;
    Ok(text)
}
