//! PostgreSQL's configuration file syntax, as much of it as a restore reads and writes.
//!
//! `guc-file.l`: a line is `name value` or `name = value`, a name is compared without case, `#` begins a comment, a value
//! stands in single quotes (with `''` and backslash escapes inside) or bare. A value never spans lines. `include`,
//! `include_if_exists` and `include_dir` look like settings and are given as such.

use std::ops::Range;

/// One `name = value` of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// The name in lower case.
    pub name: String,
    /// The value without quotes.
    pub value: String,
}

/// The setting on one line; `None` for blank lines, comments and what is not a setting.
pub fn parse_line(line: &str) -> Option<Setting> {
    parse_line_at(line).map(|(setting, _)| setting)
}

/// The setting on one line, and where in the line its value stands, quotes included.
pub fn parse_line_at(line: &str) -> Option<(Setting, Range<usize>)> {
    let text = line.trim_start();
    let name_end =
        text.find(|c: char| !(c.is_ascii_alphanumeric() || "_.$-".contains(c))).unwrap_or(text.len());
    let (name, rest) = text.split_at_checked(name_end)?;
    if !name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return None;
    }
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let (value, length) = match rest.strip_prefix('\'') {
        Some(quoted) => {
            let (value, after) = unquote(quoted)?;
            (value, rest.len() - after.len())
        }
        None => {
            let bare = rest.split(|c: char| c == '#' || c.is_ascii_whitespace()).next().unwrap_or_default();
            (bare.to_owned(), bare.len())
        }
    };
    let begin = line.len() - rest.len();
    Some((Setting { name: name.to_ascii_lowercase(), value }, begin..begin + length))
}

/// The text after an opening quote up to its closing one, and what follows that (`DeescapeQuotedString`).
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match c {
            '\'' if rest.as_str().starts_with('\'') => {
                rest.next();
                value.push('\'');
            }
            '\'' => return Some((value, rest.as_str())),
            '\\' => match rest.next()? {
                'b' => value.push('\u{8}'),
                'f' => value.push('\u{c}'),
                'n' => value.push('\n'),
                'r' => value.push('\r'),
                't' => value.push('\t'),
                first @ '0'..='7' => {
                    let mut code = first.to_digit(8)?;
                    for _ in 0..2 {
                        let Some(digit) = rest.as_str().chars().next().and_then(|c| c.to_digit(8)) else {
                            break;
                        };
                        rest.next();
                        code = code * 8 + digit;
                    }
                    value.push(char::from_u32(code & 0xff)?);
                }
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
    None
}

/// `name = 'value'`, so that it reads back as `value`.
pub fn format(name: &str, value: &str) -> String {
    format!("{name} = {}", quote(value))
}

/// A value in single quotes.
pub fn quote(value: &str) -> String {
    let mut quoted = String::with_capacity(value.len() + 2);
    quoted.push('\'');
    for c in value.chars() {
        match c {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// The last value of `name` in a file's text; what its includes say is not looked at.
pub fn last_value(text: &str, name: &str) -> Option<String> {
    text.lines()
        .filter_map(parse_line)
        .filter(|setting| setting.name == name)
        .map(|setting| setting.value)
        .next_back()
}

/// Whether a Boolean setting's value means on (`parse_bool`: unambiguous prefixes count).
pub fn is_on(value: &str) -> bool {
    let value = value.trim().to_ascii_lowercase();
    !value.is_empty()
        && ("true".starts_with(&value) || "yes".starts_with(&value) || value == "on" || value == "1")
}

/// A word for `/bin/sh`, quoted where it needs to be.
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:,@=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(line: &str) -> Option<(String, String)> {
        parse_line(line).map(|setting| (setting.name, setting.value))
    }

    #[test]
    fn lines_read_as_postgresql_reads_them() {
        let is = |name: &str, value: &str| Some((name.to_owned(), value.to_owned()));
        assert_eq!(value("port = 5432 # comment"), is("port", "5432"));
        assert_eq!(value("  Port 5432"), is("port", "5432"));
        assert_eq!(value("shared_buffers=128MB"), is("shared_buffers", "128MB"));
        assert_eq!(value("restore_command = 'cp ''a b'' %p' # x"), is("restore_command", "cp 'a b' %p"));
        assert_eq!(value(r"a.b = 'x\n\'y\101'"), is("a.b", "x\n'yA"));
        assert_eq!(value("include_if_exists 'extra.conf'"), is("include_if_exists", "extra.conf"));
        assert_eq!(value("# port = 1"), None);
        assert_eq!(value(""), None);
        assert_eq!(value("a = 'open"), None);
        assert_eq!(last_value("ssl = on\nSSL = off\n#ssl = on\n", "ssl").as_deref(), Some("off"));
    }

    #[test]
    fn booleans_read_as_postgresql_reads_them() {
        for on in ["on", "ON", "true", "t", "tr", "yes", "y", "1"] {
            assert!(is_on(on), "{on}");
        }
        for off in ["off", "o", "false", "no", "0", ""] {
            assert!(!is_on(off), "{off}");
        }
    }

    proptest! {
        #[test]
        fn any_value_comes_back(text in "[ -~\n\té漢]{0,40}") {
            let line = format("x", &text);
            prop_assert!(!line.contains('\n'));
            let (setting, at) = parse_line_at(&line).unwrap();
            prop_assert_eq!(&line[at], quote(&text));
            prop_assert_eq!(setting.value, text);
        }

        #[test]
        fn nothing_makes_the_parser_panic(text in "\\PC{0,60}") {
            let _parsed = parse_line(&text);
        }
    }
}
