//! What the checks found, as lines for people and as JSON.

use std::fmt;

use serde_json::{Value, json};

use crate::report;

/// How one check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    /// As it should be.
    Ok,
    /// Must be put right.
    Failed,
    /// Could not be looked at, because of something that failed.
    Skipped,
    /// Good to know.
    Note,
}

impl Status {
    const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Note => "note",
        }
    }
}

/// One line.
#[derive(Debug)]
struct Finding {
    what: String,
    status: Status,
    message: String,
    hint: Option<String>,
}

/// All lines, in the order they were found.
#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Something is as it should be.
    pub fn ok(&mut self, what: impl Into<String>, message: impl Into<String>) {
        self.push(what.into(), Status::Ok, message.into(), None);
    }

    /// Something must be put right, and how.
    pub fn failed(&mut self, what: impl Into<String>, message: impl Into<String>, hint: impl Into<String>) {
        self.push(what.into(), Status::Failed, message.into(), Some(hint.into()));
    }

    /// Something failed with an error.
    pub fn error(&mut self, what: impl Into<String>, error: anyhow::Error) {
        self.push(what.into(), Status::Failed, report::message(&error), report::hint(&error));
    }

    /// Something could not be looked at.
    pub fn skipped(&mut self, what: impl Into<String>, message: impl Into<String>) {
        self.push(what.into(), Status::Skipped, message.into(), None);
    }

    /// Something good to know.
    pub fn note(&mut self, what: impl Into<String>, message: impl Into<String>) {
        self.push(what.into(), Status::Note, message.into(), None);
    }

    /// Whether nothing failed.
    pub fn all_well(&self) -> bool {
        self.0.iter().all(|finding| finding.status != Status::Failed)
    }

    /// The result for scripts, version 1.
    pub fn json(&self) -> Value {
        let checks: Vec<Value> = self
            .0
            .iter()
            .map(|finding| {
                json!({
                    "check": finding.what,
                    "status": finding.status.name(),
                    "message": finding.message,
                    "hint": finding.hint,
                })
            })
            .collect();
        json!({ "version": 1, "ok": self.all_well(), "checks": checks })
    }

    fn push(&mut self, what: String, status: Status, message: String, hint: Option<String>) {
        self.0.push(Finding { what, status, message, hint });
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|finding| finding.what.len()).max().unwrap_or(0);
        for finding in &self.0 {
            writeln!(f, "{:<8} {:<width$}  {}", finding.status.name(), finding.what, finding.message)?;
            if let Some(hint) = &finding.hint {
                writeln!(f, "{:<8} {:<width$}  → {}", "", "", hint.replace('\n', "\n            "))?;
            }
        }
        let failed = self.0.iter().filter(|finding| finding.status == Status::Failed).count();
        match failed {
            0 => write!(f, "\nAll is well."),
            1 => write!(f, "\n1 check failed."),
            more => write!(f, "\n{more} checks failed."),
        }
    }
}
