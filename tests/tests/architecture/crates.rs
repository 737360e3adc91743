//! Which crate may use which, and who alone may import what.

use super::sources::{Source, mentions, read, rust};

/// Each of our crates with those of ours that it may use.
const USES: [(&str, &[&str]); 4] = [
    ("pitr", &[]),
    ("archive", &["highwater-pitr"]),
    ("restore", &["highwater-pitr", "highwater-archive"]),
    ("agent", &["highwater-pitr", "highwater-archive", "highwater-restore"]),
];

/// A name, and the only paths whose code may mention it.
const ONLY_IN: [(&[&str], &[&str]); 8] = [
    // Both directions of sealing live in one module, and so do all codecs and ciphers.
    (&["aes_gcm", "aws_lc_rs", "lz4_flex", "zstd"], &["archive/src/seal/"]),
    (&["hkdf"], &["archive/src/keyed.rs", "archive/src/seal/"]),
    (&["age"], &["archive/src/keyring/"]),
    (&["object_store"], &["archive/src/store/"]),
    // Connections to PostgreSQL and the command line belong to the agent.
    (&["tokio_postgres"], &["agent/src/pg/", "agent/src/backup/"]),
    (&["clap"], &["agent/src/"]),
    (&["anyhow"], &["agent/src/"]),
    (&["indicatif", "comfy_table"], &["agent/src/"]),
];

/// What `pitr` never does: I/O, waiting, reading clocks. It is bytes and values in, values out.
const IMPURE: [&str; 10] = [
    "std::fs",
    "std::net",
    "std::process",
    "std::env",
    "std::thread",
    "SystemTime",
    "Instant",
    "tokio",
    "async",
    "await",
];

fn product(folder: &str) -> Vec<Source> {
    rust().into_iter().filter(|source| source.folder() == folder && !source.is_test()).collect()
}

/// The names in one section of a Cargo.toml.
pub fn section(manifest: &str, heading: &str) -> Vec<String> {
    let mut lines = manifest.lines().skip_while(|line| line.trim() != heading).skip(1);
    let within = lines.by_ref().take_while(|line| !line.starts_with('['));
    let names = within.filter_map(|line| line.split(['=', '.', ' ']).next());
    names.filter(|name| !name.is_empty() && !name.starts_with('#')).map(str::to_owned).collect()
}

#[test]
fn crates_use_only_what_lies_below_them() {
    for (folder, allowed) in USES {
        let manifest = read(&format!("{folder}/Cargo.toml"));
        for heading in ["[dependencies]", "[dev-dependencies]", "[build-dependencies]"] {
            for name in section(&manifest, heading).iter().filter(|name| name.starts_with("highwater")) {
                assert!(allowed.contains(&name.as_str()), "{folder} must not use {name}");
            }
        }
    }
}

#[test]
fn what_belongs_to_one_place_is_imported_there_alone() {
    let mut wrong = Vec::new();
    for folder in ["pitr", "archive", "restore", "agent"] {
        for source in product(folder) {
            let code = source.code();
            for (names, places) in ONLY_IN {
                let at_home = places.iter().any(|place| source.path.starts_with(place));
                let found = names.iter().filter(|name| !at_home && imports(&code, name));
                wrong.extend(found.map(|name| format!("{} imports {name}", source.path)));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn pitr_is_pure() {
    let mut wrong = Vec::new();
    for source in product("pitr") {
        let code = source.code();
        let found = IMPURE.iter().filter(|name| mentions(&code, name));
        wrong.extend(found.map(|name| format!("{}: {name}", source.path)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Durable writes and the clock have one door each, which alone may open what clippy.toml closes.
#[test]
fn the_doors_of_clippy_are_opened_by_their_keepers_alone() {
    let keepers = ["archive/src/durable", "archive/src/clock.rs"];
    for source in ["pitr", "archive", "restore", "agent"].iter().flat_map(|folder| product(folder)) {
        let opens = source.code().contains("clippy::disallowed_methods");
        let keeper = keepers.iter().any(|keeper| source.path.starts_with(keeper));
        assert!(!opens || keeper, "{} opens a door of clippy.toml", source.path);
    }
}

/// A path that begins with the crate's name, as in `use name::…`, `name::f()` or `extern crate name`.
pub fn imports(code: &str, name: &str) -> bool {
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].chars().next_back().unwrap_or(' ');
        let behind = &code[at + name.len()..];
        !(before.is_alphanumeric() || before == '_' || before == ':') && behind.starts_with("::")
    })
}

#[test]
fn imports_are_paths_of_the_crate_itself() {
    assert!(imports("use age::x25519;", "age") && imports("    age::decrypt(x)", "age"));
    assert!(!imports("use crate::age::x;", "age") && !imports("let page = storage::open();", "age"));
}

#[test]
fn a_section_of_a_manifest_is_its_names() {
    let manifest =
        "[dependencies]\nserde.workspace = true\n# why\nurl = \"2\"\n\n[dev-dependencies]\nx = \"1\"\n";
    assert_eq!(section(manifest, "[dependencies]"), ["serde", "url"]);
    assert_eq!(section(manifest, "[build-dependencies]"), Vec::<String>::new());
}
