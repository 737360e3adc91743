//! The exit codes: one table, which `--help` prints and a test compares with what the program does.
//!
//! Two commands are called by PostgreSQL, which gives meaning to ranges of codes: `archive-push` must never exit above 125
//! (`pgarch_archiveXlog` in `postmaster/pgarch.c` would kill the archiver and count no failure), and `archive-get` must never
//! exit 1..=125 unless the file is proven absent (`RestoreArchivedFile` in `access/transam/xlogarchive.c` takes that as the
//! end of WAL). So even a wrong flag or a panic is answered by who called.

use std::ffi::OsString;
use std::process::ExitCode;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// What was asked for is done.
    Done,
    /// It could not be done; the error says why. For `archive-get`: the file is proven absent.
    Failed,
    /// The arguments or the configuration are wrong; nothing was tried.
    Usage,
    /// Understood and refused before anything was changed, such as a target outside the recoverable window.
    Refused,
    /// The command ran and found something that must be put right.
    Unsound,
    /// `archive-get` only: whether the file exists is not known.
    Unproven,
}

/// Every exit code with its meaning, in the order `--help` prints.
pub const TABLE: &[(Exit, &str)] = &[
    (Exit::Done, "done"),
    (Exit::Failed, "failed; the error says why (archive-get: the file is proven absent)"),
    (Exit::Usage, "wrong arguments or configuration; nothing was tried"),
    (Exit::Refused, "refused before anything was changed, such as a target that cannot be reached"),
    (Exit::Unsound, "found something that must be put right (check), or damaged pages (backup)"),
    (
        Exit::Unproven,
        "archive-get only: could not find out whether the file exists; PostgreSQL must not go on",
    ),
];

impl Exit {
    /// The number the process exits with.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::Unsound => 4,
            Self::Unproven => 200,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The table as `--help` prints it.
pub fn help() -> String {
    let mut text = String::from("Exit codes:\n");
    for (exit, meaning) in TABLE {
        text.push_str(&format!("  {:>3}  {meaning}\n", exit.code()));
    }
    text.push_str("archive-push never exits above 125, whatever happens.");
    text
}

/// Who reads the exit code: a person or script, or PostgreSQL through one of its two commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Anyone else.
    Person,
    /// `archive_command`.
    ArchiveCommand,
    /// `restore_command`.
    RestoreCommand,
}

impl Caller {
    /// Finds the subcommand by its name alone, so that the answer is right even where the arguments do not parse.
    pub fn from_arguments(arguments: impl Iterator<Item = OsString>) -> Self {
        for argument in arguments.skip(1) {
            if argument == "archive-get" {
                return Self::RestoreCommand;
            }
            if argument == "archive-push" {
                return Self::ArchiveCommand;
            }
        }
        Self::Person
    }

    /// The exit to use for an error that no command turned into an answer of its own.
    pub const fn translate(self, exit: Exit) -> Exit {
        match (self, exit) {
            (_, Exit::Done) => Exit::Done,
            (Self::RestoreCommand, _) => Exit::Unproven,
            (Self::ArchiveCommand, Exit::Unproven) => Exit::Failed,
            (Self::ArchiveCommand | Self::Person, other) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(line: &str) -> Caller {
        Caller::from_arguments(line.split(' ').map(OsString::from))
    }

    /// The help prints each code of the table, and no two meanings share one.
    #[test]
    fn help_agrees_with_the_table() {
        let help = help();
        let mut seen = Vec::new();
        for (exit, meaning) in TABLE {
            assert!(help.contains(&format!("{:>3}  {meaning}", exit.code())), "{help}");
            assert!(!seen.contains(&exit.code()));
            seen.push(exit.code());
        }
        assert_eq!(seen, [0, 1, 2, 3, 4, 200]);
    }

    #[test]
    fn postgresql_commands_are_recognised_behind_global_flags() {
        assert_eq!(caller("highwater archive-push pg_wal/x"), Caller::ArchiveCommand);
        assert_eq!(caller("highwater --cluster main archive-get a b"), Caller::RestoreCommand);
        assert_eq!(caller("highwater --cluster main list"), Caller::Person);
    }

    /// I14: whatever goes wrong in `archive-get` outside its own answers is above 125; `archive-push` never is.
    #[test]
    fn unexpected_errors_stay_in_postgresqls_ranges() {
        for (exit, _) in TABLE {
            assert!(Caller::ArchiveCommand.translate(*exit).code() <= 125);
            if *exit != Exit::Done {
                assert!(Caller::RestoreCommand.translate(*exit).code() > 125);
            }
        }
    }
}
