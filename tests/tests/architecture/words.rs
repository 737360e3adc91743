//! Words that have no place in the repository. This file spells them in pieces, so that it may be searched too.

use super::sources::{files, mentions, read};

/// Signs of work that is not finished.
const UNFINISHED: [(&str, &str); 9] = [
    ("TO", "DO"),
    ("FIX", "ME"),
    ("X", "XX"),
    ("todo", "!("),
    ("unimplemented", "!("),
    ("for ", "now"),
    ("place", "holder"),
    ("not yet ", "implemented"),
    ("simpl", "ified"),
];

/// Places of one machine or one workplace.
const PLACES: [(&str, &str); 5] = [
    ("/work", "/"),
    ("deb.", "debian.org"),
    ("pypi", ".org"),
    ("registry.npm", "js"),
    ("static.", "crates.io"),
];

/// What is not written by hand, or is read as bytes.
fn is_text(path: &str) -> bool {
    let ends = [".rs", ".toml", ".md", ".py", ".txt", ".yml", ".yaml", ".json", ".sh"];
    let names = [
        "dev",
        ".ci/run",
        "Dockerfile",
        "tests/postgresql/install",
        "tests/postgresql/pins",
        "tests/python-env",
        "tests/seaweedfs",
        "tests/azurite/install",
    ];
    ends.iter().any(|end| path.ends_with(end)) || names.contains(&path)
}

#[test]
fn nothing_says_that_it_is_unfinished_or_where_it_was_made() {
    let mut wrong = Vec::new();
    for path in files().into_iter().filter(|path| is_text(path)) {
        for (number, line) in read(&path).lines().enumerate() {
            for (first, second) in UNFINISHED.iter().chain(&PLACES) {
                let word = format!("{first}{second}");
                // Capitals inside a longer word, such as a template of mktemp, say nothing.
                let found = if word.chars().all(char::is_uppercase) {
                    mentions(line, &word)
                } else {
                    line.contains(&word)
                };
                if found {
                    wrong.push(format!("{path}:{}: {word}", number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
