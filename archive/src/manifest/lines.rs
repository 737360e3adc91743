//! The lines of a file list.
//!
//! An entry is what the program works with ([`FileLine`]); a line is its JSON. They differ in one thing: a file of more
//! than [`EXTENTS_PER_LINE`] extents goes on in `{"more":…}` lines, so that no line is long.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::FilePath;
use crate::seal::Digest;

/// The most extents one line holds; a file with more of them goes on in `more` lines.
pub const EXTENTS_PER_LINE: usize = 1024;

/// An entry of the file list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileLine {
    /// From here on, this number means this pack.
    Pack {
        /// The number that extents use.
        pack: u32,
        /// Path of the pack below the lineage.
        path: String,
        /// The pack's header, from which its key is derived.
        header: Vec<u8>,
    },
    /// A directory.
    Dir {
        /// Where, below the data directory.
        path: FilePath,
        /// Mode bits.
        mode: u32,
    },
    /// A tablespace's symbolic link, `pg_tblspc/<oid>`; entries below it lie in the directory it leads to.
    Tablespace {
        /// `pg_tblspc/<oid>`.
        path: FilePath,
        /// Where the link led.
        target: String,
        /// Mode bits of the directory it led to.
        mode: u32,
    },
    /// A symbolic link that stays inside the data directory.
    Symlink {
        /// Where, below the data directory.
        path: FilePath,
        /// What it holds, relative.
        target: String,
    },
    /// A file of the data directory.
    File {
        /// Where, below the data directory.
        path: FilePath,
        /// Its bytes.
        file: FileEntry,
    },
    /// A configuration file that lies elsewhere.
    Outside {
        /// Its absolute path on the host.
        path: String,
        /// What the server uses it for.
        role: OutsideRole,
        /// Its bytes.
        file: FileEntry,
    },
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileEntry {
    /// Length in bytes.
    pub size: u64,
    /// Mode bits.
    pub mode: u32,
    /// When it was modified, in seconds since 1970.
    pub mtime: i64,
    /// Its bytes, in order; each extent but the last is `extent_bytes` long.
    pub extents: Vec<Extent>,
}

/// Why a file outside the data directory is part of the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutsideRole {
    /// `config_file`.
    Config,
    /// `hba_file`.
    Hba,
    /// `ident_file`.
    Ident,
    /// Included by one of those.
    Include,
}

/// Where an extent lies: all that one ranged read needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "ExtentFields", into = "ExtentFields")]
pub struct Extent {
    /// The pack's number in this file list.
    pub pack: u32,
    /// The frame's number in the pack.
    pub frame: u32,
    /// Where the frame begins in the object.
    pub offset: u64,
    /// The frame's length, its 8-byte header included.
    pub stored_len: u32,
    /// Of the raw bytes.
    pub digest: ExtentDigest,
}

type ExtentFields = (u32, u32, u64, u32, ExtentDigest);

impl From<ExtentFields> for Extent {
    fn from((pack, frame, offset, stored_len, digest): ExtentFields) -> Extent {
        Extent { pack, frame, offset, stored_len, digest }
    }
}

impl From<Extent> for ExtentFields {
    fn from(extent: Extent) -> ExtentFields {
        (extent.pack, extent.frame, extent.offset, extent.stored_len, extent.digest)
    }
}

/// The first 16 bytes of the keyed digest of an extent's raw bytes; 32 hexadecimal digits as text.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtentDigest(pub [u8; 16]);

impl ExtentDigest {
    /// The part of `digest` that the file list keeps.
    pub fn of(digest: &Digest) -> ExtentDigest {
        let mut short = [0; 16];
        short.iter_mut().zip(digest.as_bytes()).for_each(|(to, from)| *to = *from);
        ExtentDigest(short)
    }
}

impl fmt::Display for ExtentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0; 32];
        hex::encode_to_slice(self.0, &mut text).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for ExtentDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl FromStr for ExtentDigest {
    type Err = hex::FromHexError;

    fn from_str(text: &str) -> Result<ExtentDigest, hex::FromHexError> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes)?;
        Ok(ExtentDigest(bytes))
    }
}

impl Serialize for ExtentDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ExtentDigest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<ExtentDigest, D::Error> {
        super::text::deserialize(deserializer)
    }
}

/// Every key a line may have. Which of the first ones is there says what the line is.
#[derive(Serialize, Deserialize, Default)]
struct Line<'a> {
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    file: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    dir: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    more: Option<Cow<'a, [Extent]>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pack: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    link: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    symlink: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    outside: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    role: Option<OutsideRole>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    path: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    header: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none", borrow)]
    target: Option<Cow<'a, str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtime: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    extents: Option<Cow<'a, [Extent]>>,
}

/// Appends the lines of `entry` to `out`, each with its line end, and gives how many there are.
pub(super) fn encode(entry: &FileLine, out: &mut Vec<u8>) -> Result<u64, serde_json::Error> {
    let line = match entry {
        FileLine::Pack { pack, path, header } => Line {
            pack: Some(*pack),
            path: Some(Cow::Borrowed(path)),
            header: Some(Cow::Owned(STANDARD.encode(header))),
            ..Line::default()
        },
        FileLine::Dir { path, mode } => {
            Line { dir: Some(Cow::Owned(path.to_string())), mode: Some(*mode), ..Line::default() }
        }
        FileLine::Tablespace { path, target, mode } => Line {
            link: Some(Cow::Owned(path.to_string())),
            target: Some(Cow::Borrowed(target)),
            mode: Some(*mode),
            ..Line::default()
        },
        FileLine::Symlink { path, target } => Line {
            symlink: Some(Cow::Owned(path.to_string())),
            target: Some(Cow::Borrowed(target)),
            ..Line::default()
        },
        FileLine::File { path, file } => {
            return encode_file(
                Line { file: Some(Cow::Owned(path.to_string())), ..Line::default() },
                file,
                out,
            );
        }
        FileLine::Outside { path, role, file } => {
            let line = Line { outside: Some(Cow::Borrowed(path)), role: Some(*role), ..Line::default() };
            return encode_file(line, file, out);
        }
    };
    write_line(&line, out)?;
    Ok(1)
}

fn encode_file(line: Line<'_>, file: &FileEntry, out: &mut Vec<u8>) -> Result<u64, serde_json::Error> {
    let mut pieces = file.extents.chunks(EXTENTS_PER_LINE);
    let first = Line {
        size: Some(file.size),
        mode: Some(file.mode),
        mtime: Some(file.mtime),
        extents: Some(Cow::Borrowed(pieces.next().unwrap_or_default())),
        ..line
    };
    write_line(&first, out)?;
    let mut lines = 1;
    for piece in pieces {
        write_line(&Line { more: Some(Cow::Borrowed(piece)), ..Line::default() }, out)?;
        lines += 1;
    }
    Ok(lines)
}

fn write_line(line: &Line<'_>, out: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    serde_json::to_writer(&mut *out, line)?;
    out.push(b'\n');
    Ok(())
}

/// What one line says.
pub(super) enum Decoded {
    /// An entry; a file may lack the extents that `more` lines bring.
    Entry(FileLine),
    /// Further extents of the file before.
    More(Vec<Extent>),
}

/// Reads one line, without its line end. The error says what is wrong with it.
pub(super) fn decode(bytes: &[u8]) -> Result<Decoded, String> {
    let line: Line<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    let path = |text: &str| text.parse::<FilePath>().map_err(|error| error.to_string());
    let mode = || line.mode.filter(|mode| *mode <= 0o7777).ok_or("no valid `mode`".to_owned());
    let target = || line.target.as_deref().map(str::to_owned).ok_or("no `target`".to_owned());
    let entry = if let Some(extents) = line.more {
        return Ok(Decoded::More(extents.into_owned()));
    } else if let Some(text) = &line.file {
        FileLine::File { path: path(text)?, file: decode_file(&line)? }
    } else if let Some(text) = &line.dir {
        FileLine::Dir { path: path(text)?, mode: mode()? }
    } else if let Some(number) = line.pack {
        let header = line.header.as_deref().ok_or("no `header`")?;
        FileLine::Pack {
            pack: number,
            path: line.path.as_deref().ok_or("no `path`")?.to_owned(),
            header: STANDARD.decode(header).map_err(|error| error.to_string())?,
        }
    } else if let Some(text) = &line.link {
        FileLine::Tablespace { path: path(text)?, target: target()?, mode: mode()? }
    } else if let Some(text) = &line.symlink {
        FileLine::Symlink { path: path(text)?, target: target()? }
    } else if let Some(text) = &line.outside {
        let role = line.role.ok_or("no `role`")?;
        FileLine::Outside { path: text.clone().into_owned(), role, file: decode_file(&line)? }
    } else {
        return Err("no key that says what the line is".to_owned());
    };
    Ok(Decoded::Entry(entry))
}

fn decode_file(line: &Line<'_>) -> Result<FileEntry, String> {
    Ok(FileEntry {
        size: line.size.ok_or("no `size`")?,
        mode: line.mode.filter(|mode| *mode <= 0o7777).ok_or("no valid `mode`")?,
        mtime: line.mtime.ok_or("no `mtime`")?,
        extents: line.extents.as_deref().ok_or("no `extents`")?.to_vec(),
    })
}
