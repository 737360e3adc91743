//! What a configuration file includes, read as PostgreSQL reads it.
//!
//! `postgresql.conf`: `include`, `include_if_exists`, `include_dir` (`ParseConfigFp` in `utils/misc/guc-file.l`). `pg_hba.conf` and
//! `pg_ident.conf`: a field `@file` in every version, the three directives from 16 on (`tokenize_auth_file` in `libpq/hba.c`).
//! The server's own views name only files that hold a setting; an empty one that is included must exist all the same.

/// Something that is included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Include {
    /// A file, relative to the one that includes it.
    File(String),
    /// All `*.conf` files of a directory.
    Directory(String),
}

/// The includes of a `postgresql.conf`.
pub fn of_settings(text: &str) -> Vec<Include> {
    text.lines().filter_map(setting_include).collect()
}

fn setting_include(line: &str) -> Option<Include> {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(line.len());
    let (key, rest) = line.split_at(end);
    let key = key.to_ascii_lowercase();
    let rest = rest.trim_start();
    let rest = rest.strip_prefix('=').unwrap_or(rest).trim_start();
    let value = match rest.strip_prefix('\'') {
        Some(quoted) => quoted_value(quoted),
        None => rest.split(|c: char| c.is_whitespace() || c == '#').next().unwrap_or_default().to_owned(),
    };
    by_directive(&key, value)
}

fn by_directive(key: &str, value: String) -> Option<Include> {
    match key {
        _ if value.is_empty() => None,
        "include" | "include_if_exists" => Some(Include::File(value)),
        "include_dir" => Some(Include::Directory(value)),
        _ => None,
    }
}

/// A quoted string of postgresql.conf from after its opening quote (`DeescapeQuotedString`): doubled quotes and backslashes.
fn quoted_value(text: &str) -> String {
    let mut value = String::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\'' if chars.next_if_eq(&'\'').is_some() => value.push('\''),
            '\'' => break,
            '\\' => value.extend(chars.next()),
            other => value.push(other),
        }
    }
    value
}

/// The includes of a `pg_hba.conf`, a `pg_ident.conf` or a file one of those includes; `directives` where the server knows them (16+).
pub fn of_access_file(text: &str, directives: bool) -> Vec<Include> {
    // A backslash at a line's end goes on in the next one.
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let mut includes = Vec::new();
    for line in text.lines() {
        let tokens = tokens(line);
        if directives
            && let [Token { text: key, quoted: false, .. }, Token { text: value, .. }, ..] = tokens.as_slice()
            && let Some(include) = by_directive(key, value.clone())
        {
            includes.push(include);
            continue;
        }
        for token in tokens {
            if let (Some(file), false) = (token.text.strip_prefix('@'), token.quoted)
                && !file.is_empty()
            {
                includes.push(Include::File(file.to_owned()));
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
}

/// The words of a line: separated by white space and commas, with quotes anywhere (`next_token`).
fn tokens(line: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut current: Option<Token> = None;
    let mut in_quote = false;
    for c in line.chars() {
        match c {
            '#' if !in_quote => break,
            '"' => {
                in_quote = !in_quote;
                current.get_or_insert(Token { text: String::new(), quoted: true });
            }
            c if !in_quote && (c.is_whitespace() || c == ',') => tokens.extend(current.take()),
            c => current.get_or_insert(Token { text: String::new(), quoted: false }).text.push(c),
        }
    }
    tokens.extend(current);
    tokens
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> Include {
        Include::File(name.to_owned())
    }

    #[test]
    fn settings_include_in_every_spelling() {
        let text = "# include 'no'\ninclude 'a.conf'\n  INCLUDE_IF_EXISTS = b.conf # why\ninclude_dir 'conf.d'\n\
                    include_dirs = 'no'\nshared_buffers = 'include'\ninclude 'it''s\\'.conf'\ninclude ''\n";
        let directory = Include::Directory("conf.d".to_owned());
        assert_eq!(of_settings(text), [file("a.conf"), file("b.conf"), directory, file("it's'.conf")]);
    }

    #[test]
    fn access_files_include_by_at_and_by_directive() {
        let text = "local all,@dbs.txt \"@quoted\" peer # @comment\nhost app @\"my users\" all md5\ninclude extra.conf\n\
                    \"include\" x\ninclude_dir \"d d\"\nlocal @a \\\n @b trust\n";
        let everywhere = [file("dbs.txt"), file("my users")];
        let newer = [file("extra.conf"), Include::Directory("d d".to_owned())];
        let last = [file("a"), file("b")];
        assert_eq!(of_access_file(text, true), [&everywhere[..], &newer, &last].concat());
        assert_eq!(of_access_file(text, false), [&everywhere[..], &last].concat());
    }
}
