//! What a configuration file includes, read as PostgreSQL reads it.
//!
//! `postgresql.conf`: `include`, `include_if_exists`, `include_dir` (`ParseConfigFp` in `utils/misc/guc-file.l`). `pg_hba.conf` and
//! `pg_ident.conf`: a field `@file` in every version, the three directives from 16 on (`tokenize_auth_file` in `libpq/hba.c`).
//! The server's own views name only files that hold a setting; an empty one that is included must exist all the same.
//! Where in the text each name stands is given too, so that it can be led elsewhere.

use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use crate::conf_file::{self, parse_line_at};

/// How deep includes nest (`CONF_FILE_MAX_DEPTH` in `utils/conffiles.h`).
pub const MAX_DEPTH: usize = 10;

/// Which syntax a file has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `postgresql.conf`.
    Settings,
    /// `pg_hba.conf` and `pg_ident.conf`; `directives` where the server knows them (16 and on).
    Access {
        /// Whether `include` is a keyword.
        directives: bool,
    },
}

/// Something that is included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// A file, which must be there.
    File,
    /// A file that may be absent.
    FileIfExists,
    /// All `*.conf` files of a directory.
    Directory,
}

/// An include, as a file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Include {
    /// What it is.
    pub what: What,
    /// Its name, relative to the directory of the file that includes it.
    pub name: String,
    /// Where in the text the name stands, with its quotes.
    pub at: Range<usize>,
    /// The name is a list in a field of its own, `@name`.
    pub listed: bool,
}

impl Form {
    /// The includes of a file of this form, in order.
    pub fn includes(self, text: &str) -> Vec<Include> {
        match self {
            Self::Settings => of_settings(text),
            Self::Access { directives } => of_access_file(text, directives),
        }
    }

    /// The text with other names in the place of some of its includes: what `instead` gives for one, as an absolute path.
    pub fn led(self, text: &str, mut instead: impl FnMut(&Include) -> Option<String>) -> String {
        let mut led = String::with_capacity(text.len());
        let mut done = 0;
        for include in self.includes(text) {
            let Some(path) = instead(&include) else { continue };
            let name = match (self, include.listed) {
                (Self::Settings, _) => conf_file::quote(&path),
                (Self::Access { .. }, true) => format!("@{}", quoted(&path)),
                (Self::Access { .. }, false) => quoted(&path),
            };
            led.push_str(text.get(done..include.at.start).unwrap_or_default());
            led.push_str(&name);
            done = include.at.end;
        }
        led.push_str(text.get(done..).unwrap_or_default());
        led
    }
}

/// The files that `include_dir` takes from a directory: names that end in `.conf` and do not begin with a dot, in the order of
/// their names (`GetConfFilesInDir`).
///
/// # Errors
/// The system's, also where the directory is absent.
pub fn files_of_directory(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().map(|name| name.as_bytes()).unwrap_or_default();
        if name.ends_with(b".conf") && !name.starts_with(b".") && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// The path without `.` and `..`, by its text alone.
pub fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

fn of_settings(text: &str) -> Vec<Include> {
    let mut includes = Vec::new();
    let mut begin = 0;
    for line in text.split_inclusive('\n') {
        if let Some((setting, at)) = parse_line_at(line) {
            includes.extend(directive(&setting.name, setting.value, begin + at.start..begin + at.end));
        }
        begin += line.len();
    }
    includes
}

fn directive(key: &str, name: String, at: Range<usize>) -> Option<Include> {
    let what = match key {
        _ if name.is_empty() => return None,
        "include" => What::File,
        "include_if_exists" => What::FileIfExists,
        "include_dir" => What::Directory,
        _ => return None,
    };
    Some(Include { what, name, at, listed: false })
}

fn of_access_file(text: &str, directives: bool) -> Vec<Include> {
    // A backslash at a line's end goes on in the next one. Everything keeps its place.
    let text = text.replace("\\\r\n", "   ").replace("\\\n", "  ");
    let mut includes = Vec::new();
    let mut begin = 0;
    for line in text.split_inclusive('\n') {
        let tokens = tokens(line, begin);
        begin += line.len();
        if directives
            && let [Token { text: key, quoted: false, .. }, Token { text: name, at, .. }, ..] =
                tokens.as_slice()
            && let Some(include) = directive(key, name.clone(), at.clone())
        {
            includes.push(include);
            continue;
        }
        for Token { text, quoted, at } in tokens {
            if let (Some(name), false) = (text.strip_prefix('@'), quoted)
                && !name.is_empty()
            {
                includes.push(Include { what: What::File, name: name.to_owned(), at, listed: true });
            }
        }
    }
    includes
}

/// A word of such a line.
struct Token {
    text: String,
    /// Whether it began with a quote, which takes the meaning from `@` and from keywords.
    quoted: bool,
    at: Range<usize>,
}

/// The words of a line that begins at `begin`: separated by white space and commas, with quotes anywhere, a doubled one for itself
/// (`next_token`).
fn tokens(line: &str, begin: usize) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut current: Option<Token> = None;
    let (mut in_quote, mut was_quote) = (false, false);
    for (at, c) in line.char_indices() {
        let place = begin + at;
        match c {
            '#' if !in_quote => break,
            c if !in_quote && (c.is_whitespace() || c == ',') => tokens.extend(current.take()),
            c => {
                let token = current.get_or_insert_with(|| Token {
                    text: String::new(),
                    quoted: c == '"',
                    at: place..place,
                });
                if c != '"' || was_quote {
                    token.text.push(c);
                }
                token.at.end = place + c.len_utf8();
                was_quote = in_quote && c == '"' && !was_quote;
                in_quote ^= c == '"';
            }
        }
    }
    tokens.extend(current);
    tokens
}

/// A word of an access file in quotes.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACCESS: Form = Form::Access { directives: true };

    fn found(form: Form, text: &str) -> Vec<(What, String)> {
        form.includes(text).into_iter().map(|include| (include.what, include.name)).collect()
    }

    fn file(name: &str) -> (What, String) {
        (What::File, name.to_owned())
    }

    #[test]
    fn settings_include_in_every_spelling() {
        let text = "# include 'no'\ninclude 'a.conf'\n  INCLUDE_IF_EXISTS = b.conf # why\ninclude_dir 'conf.d'\n\
                    include_dirs = 'no'\nshared_buffers = 'include'\ninclude 'it''s\\'.conf'\ninclude ''\n";
        let optional = (What::FileIfExists, "b.conf".to_owned());
        let directory = (What::Directory, "conf.d".to_owned());
        assert_eq!(found(Form::Settings, text), [file("a.conf"), optional, directory, file("it's'.conf")]);
    }

    #[test]
    fn access_files_include_by_at_and_by_directive() {
        let text = "local all,@dbs.txt \"@quoted\" peer # @comment\nhost app @\"my users\" all md5\ninclude extra.conf\n\
                    \"include\" x\ninclude_dir \"d d\"\nlocal @a \\\n @b trust\nlocal @\"a \"\"b\"\"\" x\n";
        let everywhere = [file("dbs.txt"), file("my users")];
        let newer = [file("extra.conf"), (What::Directory, "d d".to_owned())];
        let last = [file("a"), file("b"), file("a \"b\"")];
        assert_eq!(found(ACCESS, text), [&everywhere[..], &newer, &last].concat());
        let older = Form::Access { directives: false };
        assert_eq!(found(older, text), [&everywhere[..], &last].concat());
    }

    /// What is led elsewhere is found there, and nothing else changes.
    #[test]
    fn names_are_led_elsewhere_in_their_place() {
        let settings = "a = 1\n include 'x.conf' # why\ninclude_dir= /old/d\ninclude y.conf";
        let led = Form::Settings.led(settings, |include| {
            (include.name != "x.conf").then(|| format!("/n'w/{}", include.name.len()))
        });
        assert_eq!(led, "a = 1\n include 'x.conf' # why\ninclude_dir= '/n''w/6'\ninclude '/n''w/6'");
        let access = "local é,@u \\\n all @\"v w\" peer\r\ninclude z # z\n";
        let led = ACCESS.led(access, |include| Some(format!("/a \"{}\"", include.name)));
        assert_eq!(
            led,
            "local é,@\"/a \"\"u\"\"\" \\\n all @\"/a \"\"v w\"\"\" peer\r\ninclude \"/a \"\"z\"\"\" # z\n"
        );
        let names: Vec<_> = ACCESS.includes(&led).into_iter().map(|include| include.name).collect();
        assert_eq!(names, ["/a \"u\"", "/a \"v w\"", "/a \"z\""]);
    }

    #[test]
    fn a_path_without_dots_is_the_same_place() {
        assert_eq!(plain(Path::new("/etc/pg/./main/../common//x.conf")), Path::new("/etc/pg/common/x.conf"));
        assert_eq!(plain(Path::new("/../x")), Path::new("/x"));
    }
}
