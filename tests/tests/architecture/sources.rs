//! The files of the tree, and Rust sources without what is no code.

use std::path::{Path, PathBuf};

/// A Rust source file.
pub struct Source {
    /// Its path from the root of the repository, with `/`.
    pub path: String,
    /// All of it.
    pub text: String,
}

impl Source {
    /// The code that goes into the product: without comments, and without the test modules at the file's end.
    pub fn code(&self) -> String {
        code(&self.text)
    }

    /// The crate's folder: the first component of the path.
    pub fn folder(&self) -> &str {
        self.path.split('/').next().unwrap()
    }

    /// The module under the crate's root that it belongs to: `store` for `archive/src/store/local.rs`.
    pub fn module(&self) -> &str {
        let below = self.path.split_once("/src/").map_or("", |(_, below)| below);
        below.split('/').next().unwrap().trim_end_matches(".rs")
    }

    /// Whether it is compiled for tests only.
    pub fn is_test(&self) -> bool {
        self.folder() == "tests"
            || ["/tests/", "/examples/"].iter().any(|folder| self.path.contains(folder))
            || self.path.ends_with("_tests.rs")
            || self.path.ends_with("/tests.rs")
    }
}

fn code(text: &str) -> String {
    let mut code = String::new();
    for line in text.lines() {
        if line.trim() == "#[cfg(test)]" && !line.starts_with(' ') {
            break;
        }
        // A line comment ends the line, except in a URL inside a string, which no import holds.
        code += line.split_once("//").map_or(line, |(before, _)| before);
        code.push('\n');
    }
    code
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// Every file of the tree but for what is built, as paths from the root, sorted.
pub fn files() -> Vec<String> {
    let (mut found, mut pending) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(root().join(&directory)).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            if [".git", "target", "__pycache__"].contains(&name.as_str()) || name.ends_with(".swp") {
                continue;
            }
            let path = directory.join(name);
            if entry.file_type().unwrap().is_dir() {
                pending.push(path);
            } else {
                found.push(path.into_os_string().into_string().unwrap());
            }
        }
    }
    found.sort();
    found
}

/// Every Rust file.
pub fn rust() -> Vec<Source> {
    let paths = files().into_iter().filter(|path| path.ends_with(".rs"));
    paths.map(|path| Source { text: read(&path), path }).collect()
}

/// A text file of the tree.
pub fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The identifiers that follow `prefix` in a text: `words("a crate::b::c", "crate::")` gives `b`.
pub fn after<'a>(text: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    text.match_indices(prefix).filter_map(move |(at, _)| {
        let whole = text[..at].chars().next_back().is_none_or(|before| !is_word(before));
        let rest = &text[at + prefix.len()..];
        let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
        (whole && end > 0).then(|| &rest[..end])
    })
}

/// Whether `word` stands in the text as a whole word.
pub fn mentions(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let behind = text[at + word.len()..].chars().next();
        !before.is_some_and(is_word) && !behind.is_some_and(is_word)
    })
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

#[test]
fn comments_and_tests_are_no_code() {
    let text = "use a; // use b\n/// use c\nfn d() {}\n\n#[cfg(test)]\nmod tests {\n    use e;\n}\n";
    let code = code(text);
    assert!(mentions(&code, "a") && mentions(&code, "d"));
    assert!(!mentions(&code, "b") && !mentions(&code, "c") && !mentions(&code, "e"));
}

#[test]
fn words_are_whole() {
    assert_eq!(after("use crate::store::x; my_crate::y", "crate::").collect::<Vec<_>>(), ["store"]);
    assert!(mentions("a::pack_b", "pack_b") && !mentions("a::pack_b", "pack"));
}
