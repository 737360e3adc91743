//! The order of modules within each crate, the length of files, and files that nothing reaches.

use std::collections::BTreeSet;

use super::sources::{Source, after, rust};

/// The modules of each crate, lowest first: one may use `crate::` what stands above it in this list, never what stands below.
/// `docs/architecture.md` says what each is for.
const ORDER: [(&str, &[&str]); 4] = [
    (
        "pitr",
        &[
            "datapage", "lsn", "time", "segment", "target", "timeline", "label", "wal", "control", "index",
            "plan", "scan",
        ],
    ),
    (
        "archive",
        &[
            "clock",
            "names",
            "durable",
            "pages",
            "keyed",
            "keyring",
            "store",
            "probe",
            "racing",
            "seal",
            "repository",
            "testing",
            "manifest",
            "wal",
            "catalog",
            "pack",
        ],
    ),
    (
        "restore",
        &[
            "conf_file",
            "includes",
            "in_effect",
            "listening",
            "ownership",
            "below",
            "places",
            "tablespaces",
            "filled",
            "kept_wal",
            "contents",
            "replayed",
            "plan_file",
            "server",
            "host",
            "settings",
            "fetch",
            "rebuild",
            "error",
            "unfinished",
            "whole",
            "space",
            "inodes",
            "outside",
            "standing",
            "mounted",
            "preflight",
            "begin",
            "finish",
        ],
    ),
    (
        "agent",
        &[
            "config",
            "console",
            "exit",
            "pg",
            "progress",
            "backup",
            "report",
            "context",
            "demo",
            "host_state",
            "silence",
            "owner",
            "repositories",
            "push",
            "setup",
            "check",
            "commands",
        ],
    ),
];

/// Files this long have more than one subject.
const MOST_LINES: usize = 600;

fn of(folder: &str) -> Vec<Source> {
    let sources =
        rust().into_iter().filter(|source| source.folder() == folder && source.path.contains("/src/"));
    sources.filter(|source| !["lib", "main"].contains(&source.module()) && !source.is_test()).collect()
}

#[test]
fn modules_use_only_what_stands_before_them() {
    let mut wrong = Vec::new();
    for (folder, order) in ORDER {
        for source in of(folder) {
            let Some(own) = order.iter().position(|module| *module == source.module()) else {
                wrong.push(format!("{} has no place in the order of {folder}", source.path));
                continue;
            };
            for used in imported(&source.code()) {
                // What is no module is an item that the crate's root exports: lib.rs is the place of none.
                match order.iter().position(|module| *module == used) {
                    Some(place) if place > own => wrong.push(format!("{} uses {used}", source.path)),
                    Some(_) => {}
                    None => wrong.push(format!("{} uses crate::{used}, not by its module", source.path)),
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_order_names_each_module_once_and_none_that_is_gone() {
    for (folder, order) in ORDER {
        let listed: BTreeSet<_> = order.iter().map(|module| (*module).to_owned()).collect();
        assert_eq!(listed.len(), order.len());
        let there: BTreeSet<_> = of(folder).iter().map(|source| source.module().to_owned()).collect();
        assert_eq!(listed, there, "{folder}");
    }
}

/// The modules of the crate that code uses: `crate::a::…`, and each of `crate::{a::…, b}`.
fn imported(code: &str) -> BTreeSet<&str> {
    let mut found: BTreeSet<_> = after(code, "crate::").collect();
    for (at, _) in code.match_indices("crate::{") {
        let group = &code[at + "crate::{".len()..];
        let (mut depth, mut first) = (1, true);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                break;
            }
            if depth == 1 && first && (c.is_alphabetic() || c == '_') {
                let end = group[at..].find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap();
                found.insert(&group[at..at + end]);
                first = false;
            }
            if depth == 1 && c == ',' {
                first = true;
            }
        }
    }
    found
}

#[test]
fn no_file_is_too_long() {
    let long = rust().into_iter().filter(|source| source.text.lines().count() > MOST_LINES);
    let long: Vec<_> =
        long.map(|source| format!("{}: {} lines", source.path, source.text.lines().count())).collect();
    assert!(long.is_empty(), "more than {MOST_LINES} lines: {long:#?}");
}

#[test]
fn every_file_is_reached() {
    let sources = rust();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    for source in &sources {
        let depth = source.path.matches('/').count();
        let is_root = ["/src/lib.rs", "/src/main.rs"].iter().any(|end| source.path.ends_with(end))
            || source.path.contains("/examples/")
            // An integration test: a file in a crate's folder `tests`, or `main.rs` in a folder there.
            || source.path.split('/').nth(1) == Some("tests") && (depth == 2 || source.path.ends_with("/main.rs"));
        if is_root {
            reached.insert(source.path.clone());
        }
        reached.extend(children(source));
    }
    let dead: Vec<_> =
        sources.iter().filter(|source| !reached.contains(&source.path)).map(|source| &source.path).collect();
    assert!(dead.is_empty(), "no `mod` names {dead:#?}");
}

/// The files that a source's `mod name;` lines may mean, `#[path]` included.
fn children(source: &Source) -> Vec<String> {
    let (directory, file) = source.path.rsplit_once('/').unwrap();
    let stem = file.trim_end_matches(".rs");
    let is_root = ["mod", "lib", "main"].contains(&stem) || directory.ends_with("/tests");
    let below = if is_root { directory.to_owned() } else { format!("{directory}/{stem}") };
    let mut found = Vec::new();
    let mut path = None;
    for line in source.text.lines().map(str::trim) {
        if let Some(value) = line.strip_prefix("#[path = \"") {
            path = value.split('"').next();
        }
        let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
        if let Some((_, name)) = declared.filter(|(before, _)| before.is_empty() || before.starts_with("pub"))
        {
            match path.take() {
                Some(path) => found.push(format!("{directory}/{path}")),
                None => found.extend([format!("{below}/{name}.rs"), format!("{below}/{name}/mod.rs")]),
            }
        }
    }
    found
}

#[test]
fn groups_of_imports_are_read() {
    let code = "use crate::{store::{Store, x::y}, names};\nuse crate::seal;";
    assert_eq!(imported(code).into_iter().collect::<Vec<_>>(), ["names", "seal", "store"]);
}
