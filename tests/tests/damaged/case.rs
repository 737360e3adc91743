//! The form of a file of cases, read and written.
//!
//! ```text
//! # What this object is for.
//! repository whole
//! commands
//!   list
//!   archive-get 00000001000000000000000E
//!
//! == the segment is missing
//! remove $LINEAGE/wal/…
//! list exits with 0
//!   - a line of the sound repository's output that is not there any more
//!   + a line that is there instead
//! archive-get 00000001000000000000000E exits with 200
//!   error: what it says on standard error
//! ```

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::path::Path;

/// A file of cases.
pub struct Cases {
    comment: Vec<String>,
    /// The fixture that is damaged.
    pub repository: String,
    /// What is asked in each case.
    pub commands: Vec<String>,
    pub cases: Vec<Case>,
}

/// One damaged repository.
pub struct Case {
    pub title: String,
    /// What was done to it, a line each.
    pub damages: Vec<String>,
    /// What each command answers.
    pub answers: BTreeMap<String, Answer>,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub code: i32,
    pub lines: Vec<String>,
}

const EXITS: &str = " exits with ";

impl Cases {
    pub fn read(path: &Path) -> Self {
        let text =
            std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut lines = text.lines().peekable();
        let mut cases =
            Self { comment: Vec::new(), repository: String::new(), commands: Vec::new(), cases: Vec::new() };
        while let Some(line) = lines.next_if(|line| !line.starts_with("== ")) {
            if line.starts_with('#') {
                cases.comment.push(line.to_owned());
            } else if let Some(name) = line.strip_prefix("repository ") {
                cases.repository = name.to_owned();
            } else if let Some(command) = line.strip_prefix("  ") {
                cases.commands.push(command.to_owned());
            } else {
                assert!(line.is_empty() || line == "commands", "{}: {line}", path.display());
            }
        }
        while let Some(title) = lines.next() {
            let title = title.strip_prefix("== ").unwrap_or_else(|| panic!("{}: {title}", path.display()));
            let mut case = Case { title: title.to_owned(), damages: Vec::new(), answers: BTreeMap::new() };
            let mut open: Option<(String, Answer)> = None;
            while let Some(line) = lines.next_if(|line| !line.starts_with("== ")) {
                if let Some(said) = line.strip_prefix("  ") {
                    open.as_mut().expect("a command").1.lines.push(said.to_owned());
                } else if let Some((command, code)) = line.split_once(EXITS) {
                    case.answers.extend(open.take());
                    let code = code.parse().expect("an exit code");
                    open = Some((command.to_owned(), Answer { code, lines: Vec::new() }));
                } else if !line.is_empty() {
                    case.damages.push(line.to_owned());
                }
            }
            case.answers.extend(open);
            cases.cases.push(case);
        }
        assert!(!cases.cases.is_empty() && !cases.commands.is_empty(), "{}", path.display());
        cases
    }
}

impl Display for Cases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.comment {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "repository {}\ncommands", self.repository)?;
        for command in &self.commands {
            writeln!(f, "  {command}")?;
        }
        for case in &self.cases {
            writeln!(f, "\n== {}", case.title)?;
            for damage in &case.damages {
                writeln!(f, "{damage}")?;
            }
            for command in &self.commands {
                if let Some(answer) = case.answers.get(command) {
                    write!(f, "{command}{answer}")?;
                }
            }
        }
        Ok(())
    }
}

impl Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{EXITS}{}", self.code)?;
        for line in &self.lines {
            writeln!(f, "  {line}")?;
        }
        Ok(())
    }
}
