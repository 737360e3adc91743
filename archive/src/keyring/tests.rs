#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use super::*;

fn now() -> Timestamp {
    "2026-11-20T07:00:00Z".parse().unwrap()
}

fn unlock() -> (Unlock, Recipients) {
    let (unlock, _) = Unlock::generate(now());
    let recipients = unlock.recipients().unwrap();
    (unlock, recipients)
}

fn generate(recipients: &Recipients) -> Keyring {
    Keyring::generate(ClusterId::from_bytes([9; 16]), recipients, now()).unwrap()
}

#[test]
fn a_keyring_comes_back_from_its_wrapping() {
    let (unlock, recipients) = unlock();
    let keyring = generate(&recipients);
    let wrapped = keyring.wrap(&recipients).unwrap();
    let again = Keyring::unwrap(&wrapped, &unlock).unwrap();
    assert_eq!(again.cluster_id(), keyring.cluster_id());
    assert_eq!(again.fingerprint(), keyring.fingerprint());
    assert_eq!(again.digest(b"x"), keyring.digest(b"x"));
    let mut digester = again.digester();
    digester.update(b"x");
    assert_eq!(digester.finalize(), keyring.digest(b"x"));
    let ids: Vec<_> = again.keys().map(|key| (key.id(), key.class())).collect();
    assert_eq!(ids, [(1, KeyClass::Identity), (2, KeyClass::Metadata), (3, KeyClass::Content)]);
}

#[test]
fn a_passphrase_opens_a_keyring_too() {
    let unlock = Unlock::from_text("correct horse battery staple\n").unwrap();
    let recipients = unlock.recipients().unwrap();
    assert!(recipients.public_keys().is_empty());
    let wrapped = generate(&recipients).wrap(&recipients).unwrap();
    Keyring::unwrap(&wrapped, &unlock).unwrap();
    let wrong = Unlock::from_text("incorrect horse").unwrap();
    assert!(matches!(Keyring::unwrap(&wrapped, &wrong), Err(KeyringError::WrongKey { .. })));
}

#[test]
fn another_key_opens_nothing() {
    let (_, recipients) = unlock();
    let (stranger, strangers) = unlock();
    let wrapped = generate(&recipients).wrap(&recipients).unwrap();
    let error = Keyring::unwrap(&wrapped, &stranger).unwrap_err();
    assert!(matches!(error, KeyringError::WrongKey { .. }));
    let [public] = strangers.public_keys().try_into().unwrap();
    assert_eq!(error.to_string(), format!("the identity of {public} does not open the keyring"));
    assert!(error.hint().is_some());
    let passphrase = Unlock::from_text("x").unwrap();
    let error = Keyring::unwrap(&wrapped, &passphrase).unwrap_err();
    assert_eq!(error.to_string(), "the passphrase does not open the keyring");
    assert!(matches!(Keyring::unwrap(b"not an age file", &stranger), Err(KeyringError::NotAge { .. })));
}

/// The document is what docs/format.md says, down to the byte: MAC and fingerprint made here by hand.
#[test]
fn the_document_is_as_the_format_says() {
    let (_, recipients) = unlock();
    let keyring = generate(&recipients);
    let text = std::str::from_utf8(&keyring.document).unwrap();
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    assert_eq!(value["generation"], 1);
    assert_eq!(value["cluster_id"], "09".repeat(16));
    assert!(value["previous"].is_null());
    assert_eq!(value["keys"][2]["class"], "content");
    assert_eq!(value["recipients"][0], recipients.public_keys()[0]);

    let identity = hex::decode(value["keys"][0]["secret"].as_str().unwrap()).unwrap();
    let mut key = [0; 32];
    hkdf::Hkdf::<Sha256>::new(None, &identity).expand(b"highwater keyring v1", &mut key).unwrap();
    let (body, _) = text.split_once(",\"mac\":").unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).unwrap();
    mac.update(format!("{body}}}").as_bytes());
    assert_eq!(value["mac"], hex::encode(mac.finalize().into_bytes()));

    let mut hasher = Sha256::new();
    hasher.update(b"highwater keyring fingerprint v1");
    hasher.update(text);
    assert_eq!(keyring.fingerprint().to_string(), hex::encode(&hasher.finalize()[..16]));

    let mut digest_key = [0; 32];
    hkdf::Hkdf::<Sha256>::new(None, &identity).expand(b"highwater digest v1", &mut digest_key).unwrap();
    assert_eq!(keyring.digest(b"content").as_bytes(), blake3::keyed_hash(&digest_key, b"content").as_bytes());
}

/// I7: a rotation adds keys, keeps all others, and never changes the identity key, so digests stay the same.
#[test]
fn rotation_keeps_identity_and_digests() {
    let (unlock, recipients) = unlock();
    let first = generate(&recipients);
    let second = first.next_generation(&[KeyClass::Content], &recipients, now()).unwrap();
    let third = second.next_generation(&[KeyClass::Metadata, KeyClass::Content], &recipients, now()).unwrap();
    assert_eq!(third.digest(b"x"), first.digest(b"x"));
    assert_eq!(third.current(KeyClass::Content).id(), 6);
    assert_eq!(third.current(KeyClass::Metadata).id(), 5);
    assert_eq!(third.current(KeyClass::Identity).id(), 1);
    assert!(third.find(KeyClass::Content, 3).is_some());
    assert!(third.find(KeyClass::Metadata, 3).is_none());
    assert!(matches!(
        first.next_generation(&[KeyClass::Identity], &recipients, now()),
        Err(KeyringError::IdentityReplaced { .. })
    ));
    let wrapped: Vec<_> = [&first, &second, &third].iter().map(|k| k.wrap(&recipients).unwrap()).collect();
    let chain = Keyring::unwrap_chain(&wrapped, &unlock).unwrap();
    assert_eq!(chain.generation(), 3);
    assert_eq!(chain.fingerprint(), first.fingerprint());
    chain.check_pin(first.fingerprint()).unwrap();
    chain.check_pin(third.fingerprints[2].1).unwrap();
}

/// I8: the storage cannot slip in a generation that does not follow, nor a keyring of its own.
#[test]
fn the_chain_refuses_what_does_not_follow() {
    let (unlock, recipients) = unlock();
    let wrap = |keyring: &Keyring| keyring.wrap(&recipients).unwrap();
    let first = generate(&recipients);
    let second = first.next_generation(&[KeyClass::Content], &recipients, now()).unwrap();
    let third = second.next_generation(&[KeyClass::Content], &recipients, now()).unwrap();
    let foreign = generate(&recipients).next_generation(&[], &recipients, now()).unwrap();
    let twin = first.next_generation(&[KeyClass::Content], &recipients, now()).unwrap();
    let after_twin = twin.next_generation(&[], &recipients, now()).unwrap();
    let broken = |generations: &[Vec<u8>]| match Keyring::unwrap_chain(generations, &unlock).unwrap_err() {
        KeyringError::Chain { .. } | KeyringError::Mac { .. } => {}
        other => panic!("{other}"),
    };
    broken(&[wrap(&first), wrap(&third)]);
    broken(&[wrap(&first), wrap(&foreign)]);
    broken(&[wrap(&first), wrap(&second), wrap(&after_twin)]);
    broken(&[wrap(&second), wrap(&first)]);
    assert!(matches!(Keyring::unwrap_chain(&[] as &[Vec<u8>], &unlock), Err(KeyringError::Empty)));

    // A keyring of the storage's own, wrapped to our public key: it opens, and the pin tells.
    let planted = generate(&recipients);
    let opened = Keyring::unwrap_chain(&[wrap(&planted)], &unlock).unwrap();
    assert!(matches!(opened.check_pin(first.fingerprint()), Err(KeyringError::Pin { .. })));
}

/// I8: a change of one byte of the document is seen.
#[test]
fn a_changed_document_is_refused() {
    let (unlock, recipients) = unlock();
    let keyring = generate(&recipients);
    for at in 0..keyring.document.len() {
        let mut changed = keyring.document.to_vec();
        changed[at] ^= 1;
        let wrapped = wrap::encrypt(&changed, &recipients).unwrap();
        let error = Keyring::unwrap(&wrapped, &unlock).unwrap_err();
        assert!(
            matches!(error, KeyringError::Mac { .. } | KeyringError::Malformed { .. }),
            "byte {at}: {error}"
        );
    }
}

/// I8: a generation that was wrapped to others is passed over only at the beginning of the chain.
#[test]
fn a_new_recipient_opens_what_was_wrapped_to_it() {
    let (old, old_recipients) = unlock();
    let (new, new_recipients) = unlock();
    let first = generate(&old_recipients);
    let second = first.next_generation(&[KeyClass::Content], &new_recipients, now()).unwrap();
    let wrapped = [first.wrap(&old_recipients).unwrap(), second.wrap(&new_recipients).unwrap()];
    let opened = Keyring::unwrap_chain(&wrapped, &new).unwrap();
    assert_eq!(opened.generation(), 2);
    opened.check_pin(second.fingerprints[1].1).unwrap();
    assert!(opened.check_pin(first.fingerprint()).is_err());
    assert!(matches!(Keyring::unwrap_chain(&wrapped, &old), Err(KeyringError::OtherKey { .. })));
}

#[test]
fn no_debug_prints_a_secret() {
    let (unlock, recipients) = unlock();
    let keyring = generate(&recipients);
    let shown = format!("{keyring:?} {unlock:?} {recipients:?} {:?}", keyring.digester());
    let secret = hex::encode(keyring.current(KeyClass::Content).secret());
    assert!(!shown.contains(&secret) && !shown.contains("AGE-SECRET-KEY"), "{shown}");
    assert!(!shown.contains("secret"), "{shown}");
}

/// No message of a failed parse quotes the document.
#[test]
fn no_error_prints_a_secret() {
    let (unlock, recipients) = unlock();
    let document = br#"{"generation":1,"cluster_id":"00000000000000000000000000000000","previous":null,"keys":[{"id":1,"class":"identity","secret":"deadbeef","created_at":"x"}],"recipients":[]}"#;
    let wrapped = wrap::encrypt(document, &recipients).unwrap();
    let error = Keyring::unwrap(&wrapped, &unlock).unwrap_err().to_string();
    assert!(!error.contains("deadbeef"), "{error}");
}

#[test]
fn key_files() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("main.key");
    let write = |text: &[u8], mode: u32| {
        if path.exists() {
            std::fs::remove_file(&path).unwrap();
        }
        std::fs::File::create_new(&path).unwrap().write_all(text).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        Unlock::from_file(&path)
    };
    let (_, text) = Unlock::generate(now());
    let text: &SecretString = &text;
    assert!(matches!(write(text.expose_secret().as_bytes(), 0o600).unwrap(), Unlock::Identity(_)));
    assert!(matches!(write(text.expose_secret().as_bytes(), 0o400).unwrap(), Unlock::Identity(_)));
    match write(b" a phrase \r\n", 0o600).unwrap() {
        Unlock::Passphrase(phrase) => assert_eq!(phrase.expose_secret(), " a phrase "),
        Unlock::Identity(_) => panic!("not an identity"),
    }
    for mode in [0o640, 0o604, 0o660, 0o601] {
        let error = write(text.expose_secret().as_bytes(), mode).unwrap_err();
        assert!(matches!(error, KeyringError::KeyFileOpen { .. }), "{mode:o}");
        assert_eq!(error.hint().unwrap(), format!("chmod 600 {}", path.display()));
    }
    for bad in [&b""[..], b"\n", b"AGE-SECRET-KEY-1NOTONE", b"\xff\xfe", &[b'x'; 70_000]] {
        assert!(matches!(write(bad, 0o600), Err(KeyringError::KeyFileContent { .. })));
    }
    assert!(matches!(Unlock::from_file(&directory.path().join("none")), Err(KeyringError::KeyFile { .. })));
}

/// I8: the kit alone, with the key, gives the keyring back, and shows the fingerprint that hosts pin.
#[test]
fn the_recovery_kit_holds_the_keyring() {
    let (unlock, recipients) = unlock();
    let keyring = generate(&recipients);
    let facts = KitFacts {
        cluster: "main",
        repositories: &["s3://backups/pg".to_owned(), "file:///srv/highwater".to_owned()],
        key_file: "/etc/highwater/main.key",
        created_at: now(),
    };
    let kit = recovery_kit(&keyring, &recipients, &facts).unwrap();
    assert!(kit.contains(&keyring.fingerprint().to_string()));
    assert!(kit.contains("s3://backups/pg") && kit.contains("file:///srv/highwater"));
    assert!(kit.contains("clusters/main/keys/00000001.age"));
    assert!(!kit.contains("AGE-SECRET-KEY"));
    let begin = kit.find("-----BEGIN AGE").unwrap();
    let again = Keyring::unwrap(&kit.as_bytes()[begin..], &unlock).unwrap();
    assert_eq!(again.fingerprint(), keyring.fingerprint());
}

/// The way through `archive-push` opens the keyring each time.
#[test]
fn an_identity_opens_fast() {
    let (unlock, recipients) = unlock();
    let wrapped = generate(&recipients).wrap(&recipients).unwrap();
    let best = (0..20)
        .map(|_| {
            let begin = Instant::now();
            Keyring::unwrap_chain(&[&wrapped], &unlock).unwrap();
            begin.elapsed()
        })
        .min()
        .unwrap();
    assert!(best < Duration::from_millis(5), "{best:?}");
}

#[test]
fn public_keys_are_checked() {
    let (_, recipients) = unlock();
    let keys = recipients.public_keys();
    let again = Recipients::from_public_keys(keys.iter().map(String::as_str)).unwrap();
    assert_eq!(again.public_keys(), keys);
    assert!(matches!(Recipients::from_public_keys(["age1nonsense"]), Err(KeyringError::Recipient { .. })));
}

/// A keyring locked with a public key, or with an identity that was mistyped, would be open to others or lost.
#[test]
fn what_was_meant_as_an_identity_is_no_passphrase() {
    let (unlock, text) = Unlock::generate(now());
    let secret = text.expose_secret().lines().last().unwrap().to_owned();
    let public = unlock.recipients().unwrap().public_keys().remove(0);
    for wrong in [
        public.clone(),
        format!("# public key\n{public}\n"),
        secret.to_lowercase(),
        format!("\"{secret}\""),
        format!("key = {secret}"),
        secret[..60].to_owned(),
        "-----BEGIN AGE ENCRYPTED FILE-----\nYWdl\n".to_owned(),
        "age-encryption.org/v1\n-> X25519".to_owned(),
        "\u{feff}".to_owned(),
        "\r\n".to_owned(),
    ] {
        assert!(matches!(Unlock::from_text(&wrong), Err(KeyringError::KeyText { .. })), "{wrong:?}");
    }
    for right in [format!("\u{feff}{secret}"), format!("{secret}\r\n"), format!("  {secret}\n# end")] {
        assert!(matches!(Unlock::from_text(&right), Ok(Unlock::Identity(_))), "{right:?}");
    }
    assert!(matches!(Unlock::from_text("age1 is no key"), Ok(Unlock::Passphrase(_))));
    // A warning before it, or a second one: nobody would type that again.
    for several in ["careful\ncorrect horse", "correct\r\nhorse\r\n", "correct\n\nhorse"] {
        let error = Unlock::from_text(several).unwrap_err();
        assert!(error.to_string().contains("several lines"), "{several:?}: {error}");
    }
    assert!(matches!(Unlock::from_text("correct horse\r\n\n"), Ok(Unlock::Passphrase(_))));
    assert!(Unlock::from_text(" \n").unwrap_err().to_string().contains("empty"));
}
