//! Which names an object may have: the same on every store, so that a copy between two of them always works.

use super::StoreError;
use crate::durable::TEMP_PREFIX;

/// The longest path in bytes: what S3 allows for a key, less room for the prefix of a URL.
const MAX_PATH_BYTES: usize = 768;

/// The longest component in bytes: what filesystems allow, less room for a temporary name's suffix.
const MAX_COMPONENT_BYTES: usize = 240;

/// Accepts the path of an object: components of `[A-Za-z0-9._-]`, none `.` or `..`, joined by single `/`.
///
/// # Errors
/// [`StoreError::InvalidPath`] with the rule that is broken.
pub fn check(path: &str) -> Result<(), StoreError> {
    let invalid = |reason| Err(StoreError::InvalidPath { path: path.to_owned(), reason });
    if path.is_empty() {
        return invalid("it is empty");
    }
    if path.len() > MAX_PATH_BYTES {
        return invalid("it is longer than 768 bytes");
    }
    for component in path.split('/') {
        if component.is_empty() {
            return invalid("it has an empty component");
        }
        if component == "." || component == ".." {
            return invalid("it has a component that is `.` or `..`");
        }
        if component.len() > MAX_COMPONENT_BYTES {
            return invalid("it has a component longer than 240 bytes");
        }
        if component.starts_with(TEMP_PREFIX) {
            return invalid("the name is reserved for files that are not yet published");
        }
        if !component.bytes().all(is_legal) {
            return invalid("only letters, digits, `.`, `_` and `-` are allowed in a component");
        }
    }
    Ok(())
}

/// Accepts the string prefix of a list: empty, or what a legal path can begin with.
///
/// # Errors
/// [`StoreError::InvalidPath`] with the rule that is broken.
pub fn check_prefix(prefix: &str) -> Result<(), StoreError> {
    let stem = prefix.strip_suffix('/').unwrap_or(prefix);
    if prefix.is_empty() { Ok(()) } else { check(stem) }
}

/// Whether `component` can be part of an object's path; a foreign file in a directory has another name.
pub fn is_component(component: &str) -> bool {
    !component.contains('/') && check(component).is_ok()
}

fn is_legal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn legal_paths_pass_and_escapes_do_not() {
        for path in ["a", "highwater.json", "a/b..c/-d", ".hidden/x", "a/...", &"x".repeat(240)] {
            check(path).unwrap();
        }
        let long = "x".repeat(241);
        let deep = "abcdefg/".repeat(100) + "x";
        for path in [
            "", "/a", "a/", "a//b", ".", "a/../b", "..", "a/./b", "a b", "a\0b", "é", "a\\b", "a%2e", &long,
            &deep,
        ] {
            assert!(check(path).is_err(), "{path:?}");
        }
        assert!(check("a/.highwater-tmp.1").is_err());
    }

    #[test]
    fn prefixes_may_end_anywhere() {
        for prefix in ["", "a", "a/", "a/b.", "a/."] {
            if prefix == "a/." {
                assert!(check_prefix(prefix).is_err(), "a lone dot could only begin a hidden name");
            } else {
                check_prefix(prefix).unwrap();
            }
        }
        assert!(check_prefix("/").is_err());
        assert!(check_prefix("../").is_err());
    }
}
