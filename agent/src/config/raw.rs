//! The sources merged: each option's text and where it came from, with every key and every form checked.
//!
//! A TOML scalar becomes its text, so that file, environment and flag go through one parser. In the environment a double
//! underscore separates the parts of a key (`HIGHWATER__REPOSITORY__PRIMARY__URL`); names without one are none of ours, since
//! Kubernetes injects such variables for a Service.

use std::collections::BTreeMap;
use std::path::Path;

use super::ConfigError;
use super::options::{self, Carrier, Described, Opt};

/// The prefix of our environment variables.
pub(super) const PREFIX: &str = "HIGHWATER__";

/// What stands in a message for a value that may be secret.
const HIDDEN: &str = "…";

/// The merged text of all options that are set.
#[derive(Debug, Default)]
pub struct Raw {
    values: BTreeMap<String, Value>,
}

/// A value as text, and where it stands.
#[derive(Debug)]
struct Value {
    text: String,
    place: String,
}

impl Raw {
    /// The value of an option, `name` standing for the `*` of its key; its default text where it is not set.
    pub fn get<T>(&self, option: &Opt<T>, name: &str) -> Result<Option<T>, ConfigError> {
        let key = option.spec.key.replace('*', name);
        let (text, place) = match (self.values.get(&key), option.spec.default) {
            (Some(value), _) => (value.text.as_str(), value.place.as_str()),
            (None, options::Default::Text(text)) => (text, "by default"),
            (None, options::Default::Required | options::Default::Computed(_)) => return Ok(None),
        };
        match (option.parse)(text) {
            Ok(value) => Ok(Some(value)),
            Err(reason) => {
                Err(ConfigError::Value { key, value: text.to_owned(), place: place.to_owned(), reason })
            }
        }
    }

    /// The names that stand for the `*` of `repository.*.…`, sorted.
    pub fn repositories(&self) -> Vec<String> {
        let mut names: Vec<String> = self
            .values
            .keys()
            .filter_map(|key| {
                key.strip_prefix("repository.")?.split_once('.').map(|(name, _)| name.to_owned())
            })
            .collect();
        names.dedup();
        names
    }

    fn put(
        &mut self,
        key: String,
        text: String,
        place: String,
        from_environment: bool,
    ) -> Result<(), ConfigError> {
        let Some(option) = find(&key) else {
            let nearest = nearest(&key);
            return Err(ConfigError::UnknownKey { key, place, nearest });
        };
        if option.spec().carrier == Carrier::Environment && !from_environment {
            let others = ["_file", "_command"].map(|other| format!("{key}{other}"));
            let others: Vec<String> = others.into_iter().filter(|other| find(other).is_some()).collect();
            let instead = format!("set {} instead", environment_name(&key));
            let instead = [vec![instead], others].concat().join(", or ");
            return Err(ConfigError::SecretInTheOpen { key, place, instead });
        }
        if let Err(reason) = option.check(&text) {
            // A URL may carry a password.
            let hidden =
                option.spec().carrier == Carrier::Environment || text.contains('@') && text.contains("://");
            let value = if hidden { HIDDEN.to_owned() } else { text };
            return Err(ConfigError::Value { key, value, place, reason });
        }
        self.values.insert(key, Value { text, place });
        Ok(())
    }
}

/// Merges file, environment and `--set`, the later winning.
///
/// # Errors
///
/// An unreadable file, an unknown key, a secret in the open, a value not of its option's form.
pub fn merge(
    file: Option<&Path>,
    environment: Vec<(String, String)>,
    set: &[String],
) -> Result<Raw, ConfigError> {
    let mut raw = Raw::default();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_path_buf(), source })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_path_buf(),
            reason: syntax(&text, &error),
        })?;
        let place = format!("in {}", path.display());
        let mut flat = Vec::new();
        flatten("", table, &place, &mut flat)?;
        for (key, text) in flat {
            raw.put(key, text, place.clone(), false)?;
        }
    }
    for (variable, text) in environment {
        if let Some(key) = variable.strip_prefix(PREFIX) {
            let key = key.to_lowercase().replace("__", ".");
            raw.put(key, text, format!("in the environment as {variable}"), true)?;
        }
    }
    for setting in set {
        let place = "on the command line".to_owned();
        let Some((key, text)) = setting.split_once('=') else {
            let reason = "must be KEY=VALUE".to_owned();
            // Nothing says which option it was meant for: it may be a secret alone.
            let value = HIDDEN.to_owned();
            return Err(ConfigError::Value { key: "--set".to_owned(), value, place, reason });
        };
        raw.put(key.trim().to_owned(), text.trim().to_owned(), place, false)?;
    }
    Ok(raw)
}

/// Our variables in the environment of this process.
///
/// # Errors
///
/// One of them is not UTF-8.
pub fn process_environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut ours = Vec::new();
    for (name, value) in std::env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else { continue };
        let value = value.into_string().map_err(|_| ConfigError::Value {
            key: name.to_owned(),
            value: HIDDEN.to_owned(),
            place: "in the environment".to_owned(),
            reason: "must be UTF-8".to_owned(),
        })?;
        ours.push((name.to_owned(), value));
    }
    Ok(ours)
}

/// Whether the environment configures anything.
pub fn environment_is_used() -> bool {
    std::env::vars_os().any(|(name, _)| name.to_str().is_some_and(|name| name.starts_with(PREFIX)))
}

/// The environment variable of a key.
pub fn environment_name(key: &str) -> String {
    format!("{PREFIX}{}", key.to_uppercase().replace('.', "__"))
}

/// What is wrong with a file that is no TOML, and where: line, column and, if the line begins with one of ours, the key. The line
/// itself may hold a secret, most of all one that was not quoted.
fn syntax(text: &str, error: &toml::de::Error) -> String {
    let message = error.message();
    let Some(before) = error.span().and_then(|span| text.get(..span.start)) else {
        return message.to_owned();
    };
    let line = before.matches('\n').count();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    let key = text.lines().nth(line).and_then(|found| found.split_once('=')).map(|(key, _)| key.trim());
    let known = |key: &&str| {
        options::ALL.iter().any(|option| option.spec().key.rsplit('.').next() == key.rsplit('.').next())
    };
    let key = key.filter(known).map(|key| format!(" ({key})")).unwrap_or_default();
    format!("line {}, column {column}{key}: {message}", line + 1)
}

/// A TOML table as dotted keys and texts.
fn flatten(
    prefix: &str,
    table: toml::Table,
    place: &str,
    out: &mut Vec<(String, String)>,
) -> Result<(), ConfigError> {
    for (name, value) in table {
        let key = if prefix.is_empty() { name } else { format!("{prefix}.{name}") };
        match value {
            toml::Value::Table(inner) => flatten(&key, inner, place, out)?,
            toml::Value::String(text) => out.push((key, text)),
            toml::Value::Integer(number) => out.push((key, number.to_string())),
            toml::Value::Boolean(truth) => out.push((key, truth.to_string())),
            toml::Value::Float(_) | toml::Value::Datetime(_) | toml::Value::Array(_) => {
                if find(&key).is_none() {
                    let nearest = nearest(&key);
                    return Err(ConfigError::UnknownKey { key, place: place.to_owned(), nearest });
                }
                let found = value.type_str();
                return Err(ConfigError::Value {
                    key,
                    value: HIDDEN.to_owned(),
                    place: place.to_owned(),
                    reason: format!(
                        "must be a text, a whole number or true or false; this is of TOML's type {found}"
                    ),
                });
            }
        }
    }
    Ok(())
}

/// The option that a key names. The name of a repository is one part of lower-case letters, digits, `-` and `_`.
fn find(key: &str) -> Option<&'static dyn Described> {
    let pattern = match key.strip_prefix("repository.").and_then(|rest| rest.split_once('.')) {
        Some((name, option)) if repository_name(name) => format!("repository.*.{option}"),
        Some(_) => return None,
        None => key.to_owned(),
    };
    options::ALL.iter().copied().find(|option| option.spec().key == pattern)
}

pub(super) fn repository_name(name: &str) -> bool {
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(good)
        && !name.contains("__")
        && name.chars().all(|c| good(c) || matches!(c, '-' | '_'))
}

/// The known key spelled most like `key`, if it is close enough to be meant.
fn nearest(key: &str) -> Option<String> {
    let name = key
        .strip_prefix("repository.")
        .and_then(|rest| rest.split_once('.'))
        .map_or("NAME", |(name, _)| name);
    options::ALL
        .iter()
        .map(|option| option.spec().key.replace('*', name))
        .map(|known| (distance(key, &known), known))
        .min()
        .filter(|(distance, known)| *distance <= known.len() / 3)
        .map(|(_, known)| known)
}

/// The number of single-character edits between two keys (Levenshtein).
fn distance(from: &str, to: &str) -> usize {
    let mut row: Vec<usize> = (0..=to.chars().count()).collect();
    for (above, a) in from.chars().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        for (cell, b) in row.iter_mut().skip(1).zip(to.chars()) {
            let best = (diagonal + usize::from(a != b)).min(*cell + 1).min(left + 1);
            diagonal = std::mem::replace(cell, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = above + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::disallowed_methods
)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("main.toml");
        std::fs::write(&path, text).unwrap();
        (directory, path)
    }

    fn merge_text(text: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Raw, ConfigError> {
        let (_directory, path) = file(text);
        let environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
        merge(Some(&path), environment, &set)
    }

    #[test]
    fn the_later_source_wins() {
        let text = "[repository.primary]\nurl = \"file:///a\"\nregion = \"x\"\nendpoint = \"http://f\"";
        let environment = [
            ("HIGHWATER__REPOSITORY__PRIMARY__URL", "file:///b"),
            ("HIGHWATER__REPOSITORY__PRIMARY__REGION", "y"),
            ("HIGHWATER_SERVICE_HOST", "10.0.0.1"),
            ("HIGHWATER_PORT", "tcp://10.0.0.1:80"),
        ];
        let raw = merge_text(text, &environment, &["repository.primary.url=file:///c"]).unwrap();
        assert_eq!(raw.get(&options::REPOSITORY_URL, "primary").unwrap().unwrap(), "file:///c");
        assert_eq!(raw.get(&options::REPOSITORY_REGION, "primary").unwrap().unwrap(), "y");
        assert_eq!(raw.get(&options::REPOSITORY_ENDPOINT, "primary").unwrap().unwrap(), "http://f");
        assert_eq!(raw.repositories(), ["primary"]);
    }

    #[test]
    fn an_unknown_key_names_the_nearest_known_one() {
        for (text, key, nearest) in [
            ("[cluster]\ndata_dri = \"/x\"", "cluster.data_dri", Some("cluster.data_dir")),
            ("[repository.a]\nkeyfile = \"/x\"", "repository.a.keyfile", Some("repository.a.key_file")),
            ("[wal]\nrequired_repository = 1", "wal.required_repository", Some("wal.required_repositories")),
            ("[[drill.check]]\nname = 1", "drill.check", None),
            ("frobnicate = 1", "frobnicate", None),
        ] {
            match merge_text(text, &[], &[]) {
                Err(ConfigError::UnknownKey { key: found, nearest: near, .. }) => {
                    assert_eq!((found.as_str(), near.as_deref()), (key, nearest));
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        let error = merge_text("", &[("HIGHWATER__CLUSTER__NAMES", "x")], &[]).unwrap_err();
        assert_eq!(error.hint().unwrap(), "did you mean cluster.name?");
    }

    #[test]
    fn secrets_come_from_the_environment_and_neither_file_nor_flag() {
        let key = "repository.p.secret_access_key";
        assert!(matches!(
            merge_text("[repository.p]\nsecret_access_key = \"s\"", &[], &[]),
            Err(ConfigError::SecretInTheOpen { .. })
        ));
        let error = merge_text("", &[], &[&format!("{key}=s")]).unwrap_err();
        assert_eq!(error.to_string(), "repository.p.secret_access_key must not be given on the command line");
        assert!(error.hint().unwrap().contains("HIGHWATER__REPOSITORY__P__SECRET_ACCESS_KEY"));
        assert!(merge_text("", &[("HIGHWATER__REPOSITORY__P__SECRET_ACCESS_KEY", "s")], &[]).is_ok());
    }

    #[test]
    fn a_value_of_the_wrong_form_says_where_it_stands() {
        let error = merge_text("[wal]\npush_deadline = 60", &[], &[]).unwrap_err().to_string();
        assert!(error.starts_with("wal.push_deadline = \"60\" (in /") && error.contains("unit"), "{error}");
        let error = merge_text("[wal]\npush_deadline = [1]", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("must be a text"), "{error}");
        assert!(matches!(merge_text("[wal", &[], &[]), Err(ConfigError::Syntax { .. })));
    }

    /// A line that is no TOML, or a value of the wrong kind, is often a secret without its quotes.
    #[test]
    fn no_message_quotes_what_may_be_a_secret() {
        for (text, words) in [
            ("[repository.p]\nsecret_access_key = hunter2+x/y\n", "line 2, column 21 (secret_access_key): "),
            ("[repository.p]\n  url = \"file:///r\nhunter2 = 1", "line 2, column "),
            ("[repository.p]\nhunter2\n", "line 2, column "),
            ("[cluster]\nconnection = password=hunter2\n", "(connection): "),
            ("[cluster]\nconnection = [\"password=hunter2\"]\n", "cluster.connection = \"…\" "),
            ("[repository.p]\nsecret_access_key = [\"hunter2\"]\n", "secret_access_key = \"…\" "),
            ("hunter2=\n", "line 1, column "),
        ] {
            let error = merge_text(text, &[], &[]).unwrap_err().to_string();
            assert!(error.contains(words) && !error.contains("hunter2"), "{text}: {error}");
        }
        let error = merge_text("", &[], &["hunter2"]).unwrap_err().to_string();
        assert_eq!(error, "--set = \"…\" (on the command line): must be KEY=VALUE");
    }

    #[test]
    fn edit_distance_counts_edits() {
        for (a, b, edits) in
            [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3), ("ab", "ba", 2)]
        {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
