//! What a person or a script sees when something fails: `error: …`, then `hint: …` with the next step.
//!
//! Library errors carry their own hints; the chain of causes is searched for the outermost one. With `--json` the same two
//! strings are one object on standard output.

use std::process::ExitCode;

use clap::error::ErrorKind;
use highwater_archive::catalog::CatalogError;
use highwater_archive::durable::DurableError;
use highwater_archive::keyring::KeyringError;
use highwater_archive::lineage::LineageError;
use highwater_archive::repository::RepositoryError;
use highwater_archive::store::StoreError;
use highwater_archive::wal::{ClaimError, WalGetError, WalPutError};
use highwater_pitr::control::ControlError;
use highwater_pitr::segment::NameError;
use highwater_pitr::timeline::HistoryError;
use highwater_restore::RestoreError;
use highwater_restore::plan_file::PlanFileError;
use highwater_restore::server::ServerError;

use crate::backup::{BackupError, Incomplete};
use crate::config::ConfigError;
pub use crate::console::{line, result};
use crate::exit::{Caller, Exit};
use crate::pg::{DataDirError, PgError};

/// An error of the command line itself: what failed, what to do, and how the process exits.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Problem {
    message: String,
    hint: Option<String>,
    exit: Exit,
}

/// Something failed, and this is what to do about it.
pub fn failed(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Problem { message: message.into(), hint: Some(hint.into()), exit: Exit::Failed }.into()
}

/// The request is refused; nothing was changed.
pub fn refused(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Problem { message: message.into(), hint: Some(hint.into()), exit: Exit::Refused }.into()
}

/// The arguments or the configuration are wrong; nothing was tried.
pub fn usage_error(message: impl Into<String>, hint: impl Into<String>) -> anyhow::Error {
    Problem { message: message.into(), hint: Some(hint.into()), exit: Exit::Usage }.into()
}

/// The causes of an error on one line, each said once.
pub fn message(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let part = cause.to_string().replace('\n', " ");
        // Many libraries repeat their source in their own message.
        if text.contains(&part) {
            continue;
        }
        if part.strip_prefix(text.as_str()).is_some_and(|rest| rest.starts_with(": ")) {
            text = part;
            continue;
        }
        if !text.is_empty() {
            text.push_str(": ");
        }
        text.push_str(&part);
    }
    text
}

/// The outermost hint in the chain.
pub fn hint(error: &anyhow::Error) -> Option<String> {
    error.chain().find_map(hint_of)
}

/// Every library error that knows what to do next has its line here.
fn hint_of(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    macro_rules! ask {
        ($($kind:ty),+ $(,)?) => { $( if let Some(error) = cause.downcast_ref::<$kind>() { return error.hint(); } )+ };
    }
    if let Some(problem) = cause.downcast_ref::<Problem>() {
        return problem.hint.clone();
    }
    ask!(
        ConfigError,
        PgError,
        DataDirError,
        StoreError,
        DurableError,
        KeyringError,
        RepositoryError,
        LineageError,
        CatalogError,
        WalPutError,
        WalGetError,
        ClaimError,
        ControlError,
        NameError,
        HistoryError,
        Incomplete,
        BackupError,
        PlanFileError,
        ServerError,
        RestoreError,
    );
    None
}

/// Whether the repository is one that this version must not read or write; nothing was tried then.
fn needs_newer_program(cause: &(dyn std::error::Error + 'static)) -> bool {
    cause.downcast_ref().is_some_and(RepositoryError::is_too_new)
        || cause.downcast_ref().is_some_and(LineageError::is_too_new)
        || cause.downcast_ref().is_some_and(WalPutError::is_too_new)
        || cause.downcast_ref().is_some_and(ClaimError::is_too_new)
}

/// How the process exits for this error.
fn exit_of(error: &anyhow::Error) -> Exit {
    error
        .chain()
        .find_map(|cause| {
            let is_of_store = cause.downcast_ref().is_some_and(StoreError::is_of_configuration);
            if cause.is::<ConfigError>() || is_of_store {
                return Some(Exit::Usage);
            }
            if cause.is::<Incomplete>() {
                return Some(Exit::Failed);
            }
            if cause.downcast_ref::<BackupError>().is_some_and(BackupError::is_refusal) {
                return Some(Exit::Refused);
            }
            if needs_newer_program(cause) {
                return Some(Exit::Refused);
            }
            cause.downcast_ref::<Problem>().map(|problem| problem.exit)
        })
        .unwrap_or(Exit::Failed)
}

/// Prints an error and chooses the exit code; the last thing `main` does.
pub fn finish(outcome: anyhow::Result<Exit>, json: bool, caller: Caller) -> ExitCode {
    let error = match outcome {
        Ok(exit) => return exit.into(),
        Err(error) => error,
    };
    say(&message(&error), hint(&error).as_deref(), json, caller);
    caller.translate(exit_of(&error)).into()
}

/// Prints an error in the form that is wanted.
pub fn say(message: &str, hint: Option<&str>, json: bool, caller: Caller) {
    if json {
        return result(&serde_json::json!({ "error": message, "hint": hint }).to_string());
    }
    match (hint, caller) {
        (None, _) => line(&format!("error: {message}")),
        (Some(hint), Caller::Person) => {
            line(&format!("error: {message}"));
            line(&format!("hint: {hint}"));
        }
        // PostgreSQL logs what its commands print, and one line is one log entry.
        (Some(hint), Caller::ArchiveCommand | Caller::RestoreCommand) => {
            line(&format!("error: {message} (hint: {})", hint.replace('\n', " ")));
        }
    }
}

/// Prints what clap has to say: help and version succeed, everything else is a usage error. A person gets clap's own lines.
pub fn usage(problem: &clap::Error, json: bool, caller: Caller) -> ExitCode {
    let asked_for = !problem.use_stderr();
    if asked_for || (!json && caller == Caller::Person) {
        // Nobody reads a message that standard output or standard error does not take.
        let printed = problem.print().is_ok();
        let exit = if printed && asked_for { Exit::Done } else { Exit::Usage };
        return caller.translate(exit).into();
    }
    let (message, hint) = match problem.kind() {
        ErrorKind::MissingSubcommand | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            ("no command is given".to_owned(), "highwater --help lists them".to_owned())
        }
        _ => in_two(&problem.render().to_string()),
    };
    finish(Err(usage_error(message, hint)), json, caller)
}

/// clap's text as a message and a hint: its first paragraph, and the others, each on one line.
fn in_two(text: &str) -> (String, String) {
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut paragraphs = text.split("\n\n").map(one_line).filter(|paragraph| !paragraph.is_empty());
    let first = paragraphs.next().unwrap_or_default();
    let message = first.strip_prefix("error: ").unwrap_or(&first).to_owned();
    (message, paragraphs.collect::<Vec<_>>().join("; "))
}

/// A panic in any thread ends the process at once: a transfer with a dead worker must not hang, and PostgreSQL must not read
/// Rust's own exit code 101 as "no such file".
pub fn exit_on_panic(json: bool, caller: Caller) {
    std::panic::set_hook(Box::new(move |panic| {
        let message = format!("internal error: {}", panic.to_string().replace('\n', " "));
        say(
            &message,
            Some("this is a defect in highwater; what was archived before is not affected"),
            json,
            caller,
        );
        std::process::exit(i32::from(caller.translate(Exit::Failed).code()));
    }));
}

/// Log lines on standard error: warnings, or more with `-v`. `archive-push` says nothing unless asked.
pub fn start_log(verbose: u8, caller: Caller) {
    use tracing_subscriber::filter::LevelFilter;
    let level = match (verbose, caller) {
        (0, Caller::ArchiveCommand) => return,
        (0, Caller::Person | Caller::RestoreCommand) => LevelFilter::WARN,
        (1, _) => LevelFilter::INFO,
        (2, _) => LevelFilter::DEBUG,
        (_, _) => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .finish();
    // A second subscriber can only exist if this is called twice, and then the first one serves.
    if tracing::subscriber::set_global_default(log).is_err() {
        line("error: the log was started twice");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An error that shows another one through skips it in the chain of causes, so each kind is asked by its own name.
    #[test]
    fn a_hint_is_found_below_errors_that_show_each_other_through() {
        let lost =
            || StoreError::NoRoot { store: "file:///srv/backup".into(), reason: "no such directory".into() };
        let listed = anyhow::Error::from(CatalogError::Lineage(LineageError::Store(lost())));
        let expected = lost().hint();
        assert!(expected.is_some());
        assert_eq!(hint(&listed.context("cannot list")), expected);
    }
}
