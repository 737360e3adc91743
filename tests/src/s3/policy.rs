//! What an access key may do: a reader of AWS's policies, as far as those in `docs/storage.md` go.
//!
//! A request is denied unless a statement allows it, and whenever one denies it. And what AWS does with an object that is not there: who
//! may not list the bucket, as far as a request for one object says, is told that it is forbidden.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::BUCKET;
use super::faults::Operation;

/// A policy's statements.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    #[serde(rename = "Version")]
    _version: String,
    statement: Vec<Statement>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    #[serde(rename = "Sid")]
    _sid: String,
    effect: Effect,
    action: Texts,
    resource: Texts,
    #[serde(default)]
    condition: BTreeMap<String, BTreeMap<String, Texts>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Effect {
    Allow,
    Deny,
}

/// One text or several.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
enum Texts {
    One(String),
    Many(Vec<String>),
}

impl Texts {
    fn any_is_like(&self, text: &str) -> bool {
        match self {
            Self::One(pattern) => is_like(pattern, text),
            Self::Many(patterns) => patterns.iter().any(|pattern| is_like(pattern, text)),
        }
    }
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Panics
    /// On anything in it that is not understood: what is passed over could deny.
    pub fn parse(json: &str) -> Self {
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {json}"))
    }

    /// Whether a request may be made.
    pub(crate) fn allows(&self, operation: Operation, key: &str) -> bool {
        let object = format!("arn:aws:s3:::{BUCKET}/{key}");
        match operation {
            Operation::Put => self.decides("s3:PutObject", &object, None),
            Operation::Get | Operation::Head => self.decides("s3:GetObject", &object, None),
            Operation::Delete => self.decides("s3:DeleteObject", &object, None),
            Operation::List => self.decides("s3:ListBucket", &format!("arn:aws:s3:::{BUCKET}"), Some(key)),
        }
    }

    /// Whether the absence of an object may be known from a request for it.
    pub(crate) fn tells_absence(&self) -> bool {
        self.decides("s3:ListBucket", &format!("arn:aws:s3:::{BUCKET}"), None)
    }

    fn decides(&self, action: &str, resource: &str, prefix: Option<&str>) -> bool {
        let matching = self.statement.iter().filter(|statement| {
            statement.action.any_is_like(action)
                && statement.resource.any_is_like(resource)
                && statement.condition.iter().all(|(operator, of_keys)| holds(operator, of_keys, prefix))
        });
        let effects: Vec<Effect> = matching.map(|statement| statement.effect).collect();
        effects.contains(&Effect::Allow) && !effects.contains(&Effect::Deny)
    }
}

fn holds(operator: &str, of_keys: &BTreeMap<String, Texts>, prefix: Option<&str>) -> bool {
    assert_eq!(operator, "StringLike", "no other condition is understood");
    of_keys.iter().all(|(key, patterns)| {
        assert_eq!(key, "s3:prefix", "no other key of a condition is understood");
        prefix.is_some_and(|prefix| patterns.any_is_like(prefix))
    })
}

/// `*` stands for any text, `?` for any character.
fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern.len() == text.len() && begins_like(pattern, text),
        Some((head, rest)) => {
            begins_like(head, text)
                && (head.len()..=text.len())
                    .any(|from| text.get(from..).is_some_and(|tail| is_like(rest, tail)))
        }
    }
}

fn begins_like(head: &str, text: &str) -> bool {
    head.len() <= text.len() && head.bytes().zip(text.bytes()).all(|(one, other)| one == b'?' || one == other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_aws_says() {
        for (pattern, text, expected) in [
            ("a/*", "a/b/c", true),
            ("a/*", "a/", true),
            ("a/*", "a", false),
            ("a/*/w/*", "a/b/c/w/d", true),
            ("a/*/w/*", "a/w/d", false),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("*", "", true),
            ("s3:Get*", "s3:GetObject", true),
            ("s3:GetObject", "s3:GetObjectAcl", false),
        ] {
            assert_eq!(is_like(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn a_denial_wins_and_nothing_is_allowed_by_itself() {
        let policy = Policy::parse(
            r#"{"Version":"2012-10-17","Statement":[
                {"Sid":"a","Effect":"Allow","Action":["s3:GetObject","s3:PutObject"],"Resource":"arn:aws:s3:::backups/p/*"},
                {"Sid":"b","Effect":"Deny","Action":"s3:*","Resource":"arn:aws:s3:::backups/p/secret"},
                {"Sid":"c","Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::backups",
                 "Condition":{"StringLike":{"s3:prefix":["p/*"]}}}]}"#,
        );
        assert!(policy.allows(Operation::Get, "p/a") && policy.allows(Operation::List, "p/"));
        for (operation, key) in [
            (Operation::Get, "q/a"),
            (Operation::Get, "p/secret"),
            (Operation::Delete, "p/a"),
            (Operation::List, "q/"),
            (Operation::List, ""),
        ] {
            assert!(!policy.allows(operation, key), "{operation:?} {key}");
        }
        assert!(!policy.tells_absence());
    }
}
