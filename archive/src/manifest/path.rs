//! Paths of files below the data directory.

use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::str::FromStr;

/// A path below the data directory, as bytes: relative, with `/` between components, none of them empty, `.` or `..`, and
/// no NUL. It cannot name anything outside the directory it is joined to.
///
/// As text (in the file list, in messages) it is UTF-8, with `%25` for a percent sign and `%XX` for each byte that is not
/// UTF-8, so that any name that a file can have comes back as it was.
///
/// Its order is that of a depth-first walk that takes the names of each directory bytewise: component by component.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct FilePath(Vec<u8>);

/// The bytes or the text do not name a file below the data directory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a path below the data directory")]
pub struct FilePathError(String);

impl FilePath {
    /// The longest path taken, in bytes (Linux's PATH_MAX).
    pub const MAX_BYTES: usize = 4096;

    /// Takes the bytes of a relative path, or refuses those that are not one.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<FilePath, FilePathError> {
        let bytes = bytes.into();
        let well_formed = bytes.len() <= Self::MAX_BYTES
            && !bytes.contains(&0)
            && bytes.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b".."));
        if well_formed { Ok(FilePath(bytes)) } else { Err(FilePathError(escape(&bytes))) }
    }

    /// The raw bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As the operating system takes it; relative.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The path as UTF-8, when it is UTF-8.
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(&self.0).ok()
    }

    /// The path of `name` in the directory that this path names.
    pub fn join(&self, name: &[u8]) -> Result<FilePath, FilePathError> {
        let mut bytes = self.0.clone();
        bytes.push(b'/');
        bytes.extend_from_slice(name);
        FilePath::from_bytes(bytes)
    }

    /// The directory it lies in; `None` for a name at the top.
    pub fn parent(&self) -> Option<&[u8]> {
        self.0.iter().rposition(|byte| *byte == b'/').and_then(|at| self.0.get(..at))
    }

    /// The components, outermost first.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/')
    }
}

impl PartialOrd for FilePath {
    fn partial_cmp(&self, other: &FilePath) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for FilePath {
    fn cmp(&self, other: &FilePath) -> std::cmp::Ordering {
        self.components().cmp(other.components())
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FilePath({self})")
    }
}

impl FromStr for FilePath {
    type Err = FilePathError;

    fn from_str(text: &str) -> Result<FilePath, FilePathError> {
        unescape(text).map_or_else(|| Err(FilePathError(text.to_owned())), FilePath::from_bytes)
    }
}

/// The text form of any bytes that name a file; see [`FilePath`].
pub(super) fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '%' => text.push_str("%25"),
                other => text.push(other),
            }
        }
        for byte in chunk.invalid() {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// The bytes that `escape` wrote as `text`; `None` where a percent sign is not followed by two hexadecimal digits.
pub(super) fn unescape(text: &str) -> Option<Vec<u8>> {
    if !text.contains('%') {
        return Some(text.as_bytes().to_vec());
    }
    let mut pieces = text.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at_checked(2)?;
        let [byte] = hex::decode(digits).ok()?.try_into().ok()?;
        bytes.push(byte);
        bytes.extend_from_slice(rest.as_bytes());
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_that_leaves_the_directory_is_a_path() {
        for bad in
            ["", "/etc/passwd", "a/../b", "..", "a//b", "a/", "./a", "a\0b", "a%2", "a%zz", "%2F", "a%00"]
        {
            assert!(bad.parse::<FilePath>().is_err(), "{bad:?}");
        }
        assert!(FilePath::from_bytes(vec![b'a'; 4097]).is_err());
    }

    #[test]
    fn the_order_is_that_of_a_walk_and_not_of_strings() {
        let path = |text: &str| text.parse::<FilePath>().unwrap();
        assert!(path("base/1") < path("base-old"));
        assert!("base/1" > "base-old");
        assert!(path("base") < path("base/1"));
        assert!(path("base/1/z") < path("base/1.x"));
    }

    proptest! {
        #[test]
        fn any_name_comes_back_from_its_text(bytes in proptest::collection::vec(1u8.., 1..40)) {
            if let Ok(path) = FilePath::from_bytes(bytes) {
                prop_assert_eq!(path.to_string().parse::<FilePath>().unwrap(), path);
            }
        }
    }
}
