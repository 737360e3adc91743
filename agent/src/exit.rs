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
    (
        Exit::Refused,
        "refused before anything was changed: a target that cannot be reached, a repository for a newer version",
    ),
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
    /// Finds the subcommand, so that the answer is right even where the arguments do not parse: the first word that is the name of
    /// one, values of the global options left aside. `grammar` is the command line with its global options and its subcommands.
    /// Behind an option that is not known any later word may be the subcommand, and the two of PostgreSQL's count.
    pub fn from_arguments(grammar: &clap::Command, arguments: impl Iterator<Item = OsString>) -> Self {
        let mut arguments = arguments.skip(1);
        let mut known = true;
        while let Some(argument) = arguments.next() {
            let word = argument.to_string_lossy();
            match word.as_ref() {
                "archive-get" => return Self::RestoreCommand,
                "archive-push" => return Self::ArchiveCommand,
                option if option.starts_with('-') => match is_followed_by_value(grammar, option) {
                    Some(true) => drop(arguments.next()),
                    Some(false) => {}
                    None => known = false,
                },
                name if known && grammar.get_subcommands().any(|one| one.get_name() == name) => break,
                _ => {}
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

/// Whether the next word is this global option's value; none for an option that is not known.
fn is_followed_by_value(grammar: &clap::Command, option: &str) -> Option<bool> {
    let (name, has_value) = match option.split_once('=') {
        Some((name, _)) => (name, true),
        None => (option, false),
    };
    let find = |is: &dyn Fn(&clap::Arg) -> bool| grammar.get_arguments().find(|argument| is(argument));
    let argument = match name.strip_prefix("--") {
        Some("help" | "version") => return Some(false),
        Some(long) => find(&|argument| argument.get_long() == Some(long))?,
        None => {
            let mut letters = name.strip_prefix('-')?.chars();
            let short = letters.next()?;
            let argument = find(&|argument| argument.get_short() == Some(short))?;
            // `-cKEY=VALUE` and `-vv` are whole.
            if has_value || letters.next().is_some() {
                return Some(false);
            }
            argument
        }
    };
    Some(argument.get_action().takes_values() && !has_value)
}

/// Whether errors are wanted as JSON, also where the arguments do not parse.
pub fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.skip(1).take_while(|argument| argument != "--").any(|argument| argument == "--json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(line: &str) -> Caller {
        let option = |name| clap::Arg::new(name).long(name);
        let grammar = clap::Command::new("highwater")
            .arg(option("config"))
            .arg(option("cluster"))
            .arg(option("set").short('c'))
            .arg(option("json").action(clap::ArgAction::SetTrue))
            .arg(option("verbose").short('v').action(clap::ArgAction::Count))
            .subcommands(["archive-push", "archive-get", "list", "restore"].map(clap::Command::new));
        Caller::from_arguments(&grammar, line.split(' ').map(OsString::from))
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
        for globals in ["-v", "-vv", "--json", "--config=list", "-c a=list", "-ca=b", "--set list"] {
            assert_eq!(
                caller(&format!("highwater {globals} archive-get a b")),
                Caller::RestoreCommand,
                "{globals}"
            );
        }
    }

    /// The name of a cluster or a file is no command, wherever it stands.
    #[test]
    fn the_value_of_an_option_is_no_command() {
        for line in [
            "--cluster archive-get list",
            "--config archive-push list",
            "-c archive-get list",
            "--set=archive-get list",
            "list --repository archive-push",
            "restore --target-dir archive-get",
        ] {
            assert_eq!(caller(&format!("highwater {line}")), Caller::Person, "{line}");
        }
    }

    /// I14: where a flag is not known, what follows it may be its value or the command; PostgreSQL's commands are then assumed.
    #[test]
    fn an_unknown_flag_does_not_hide_a_command_of_postgresqls() {
        for line in [
            "--nonsense archive-get a b",
            "--nonsense list archive-get a b",
            "frob archive-get a b",
            "-x list archive-get",
        ] {
            assert_eq!(caller(&format!("highwater {line}")), Caller::RestoreCommand, "{line}");
        }
    }

    #[test]
    fn json_is_wanted_where_it_is_a_flag() {
        let wants = |line: &str| wants_json(line.split(' ').map(OsString::from));
        assert!(wants("highwater --json list") && wants("highwater archive-get --nonsense --json"));
        assert!(!wants("highwater list") && !wants("highwater archive-push -- --json") && !wants("--json"));
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
