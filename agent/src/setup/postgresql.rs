//! What PostgreSQL must be told, and whether what it was told is that.

use std::path::{Path, PathBuf};

use highwater_restore::conf_file::shell_word;

use crate::config::{self, Config};

/// The `archive_command` for this configuration, as PostgreSQL is to run it.
pub fn archive_command(config: &Config, program: &Path) -> String {
    let program = shell_word(&program.to_string_lossy()).replace('%', "%%");
    format!("{program} {} archive-push %p", config.arguments().replace('%', "%%"))
}

/// The lines for postgresql.conf.
pub fn settings_lines(config: &Config, program: &Path) -> Vec<String> {
    let command = archive_command(config, program).replace('\'', "''");
    vec![
        "wal_level = replica".to_owned(),
        "archive_mode = on".to_owned(),
        format!("archive_command = '{command}'"),
    ]
}

/// What is wrong with an `archive_command`.
#[derive(Debug, PartialEq, Eq)]
pub enum CommandFault {
    /// There is none.
    Empty,
    /// It does not call `highwater … archive-push %p`.
    NotOurs,
    /// It is of another cluster.
    OtherCluster(String),
    /// It reads another configuration file.
    OtherConfig(PathBuf),
    /// It names no cluster, and this configuration is not the one that is read then.
    NoCluster,
}

/// How an `archive_command` that serves finds this configuration.
#[derive(Debug, PartialEq, Eq)]
pub enum Finds {
    /// It names the cluster or the file.
    ByName,
    /// It names neither, and there is no other configuration.
    AsTheOnlyOne,
}

/// Looks at the `archive_command` that a server has; `directory` is where configurations lie.
pub fn judge_archive_command(
    command: &str,
    config: &Config,
    directory: &Path,
) -> Result<Finds, CommandFault> {
    let command = command.trim();
    if command.is_empty() || command == "(disabled)" {
        return Err(CommandFault::Empty);
    }
    let words = shell_words(command);
    let pushes = words.iter().any(|word| word == "archive-push") && words.iter().any(|word| word == "%p");
    if program_of(&words).is_none() || !pushes {
        return Err(CommandFault::NotOurs);
    }
    let cluster = value_of(&words, "--cluster");
    let file = value_of(&words, "--config").map(PathBuf::from);
    if let Some(cluster) = &cluster
        && cluster != config.cluster.as_str()
    {
        return Err(CommandFault::OtherCluster(cluster.clone()));
    }
    match (&file, &config.file) {
        (Some(theirs), Some(ours)) if theirs != ours => {
            return Err(CommandFault::OtherConfig(theirs.clone()));
        }
        _ => {}
    }
    match (cluster, file) {
        (None, None) if config::is_the_only_one(config, directory) => Ok(Finds::AsTheOnlyOne),
        (None, None) => Err(CommandFault::NoCluster),
        _ => Ok(Finds::ByName),
    }
}

/// The program of ours in a command, where it is found only along the server's PATH.
pub fn program_on_path(command: &str) -> Option<String> {
    let words = shell_words(command.trim());
    program_of(&words).filter(|program| !Path::new(program).is_absolute()).cloned()
}

/// The word of a command that is this program.
fn program_of(words: &[String]) -> Option<&String> {
    let called = std::env::current_exe().ok();
    words.iter().find(|word| {
        let name = Path::new(word).file_name();
        name.is_some_and(|name| {
            name == "highwater" || called.as_deref().and_then(Path::file_name) == Some(name)
        })
    })
}

/// The value of a flag, given as the next word or after an equals sign.
fn value_of(words: &[String], flag: &str) -> Option<String> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == flag {
            return words.next().cloned();
        }
        if let Some(value) = word.strip_prefix(flag).and_then(|rest| rest.strip_prefix('=')) {
            return Some(value.to_owned());
        }
    }
    None
}

/// A command split as a shell splits it, as far as quotes go; `%%` is PostgreSQL's way to write `%`.
fn shell_words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quote = None;
    let mut chars = command.chars().peekable();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, ' ' | '\t') => words.push(String::new()),
            (None, '\'' | '"') => quote = Some(c),
            (None, '\\') => chars.next().into_iter().for_each(|escaped| push(&mut words, escaped)),
            (Some(open), close) if open == close => quote = None,
            (_, '%') if chars.next_if_eq(&'%').is_some() => push(&mut words, '%'),
            (_, other) => push(&mut words, other),
        }
    }
    words.retain(|word| !word.is_empty());
    words
}

fn push(words: &mut [String], c: char) {
    if let Some(word) = words.last_mut() {
        word.push(c);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;
    use crate::config::Selection;

    fn config(name: &str) -> (tempfile::TempDir, Config) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it's 100%.toml");
        let text = format!("[cluster]\nname = \"{name}\"\n[repository.a]\nurl = \"file:///x\"\n");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&Selection { file: Some(file), ..Selection::default() }).unwrap();
        (directory, config)
    }

    /// What we print is what we accept, whatever the file is called.
    #[test]
    fn the_command_we_print_passes() {
        let (_directory, config) = config("main");
        let command = archive_command(&config, Path::new("/opt/high water/highwater"));
        assert!(command.contains("--cluster main archive-push %p") && command.contains("100%%"), "{command}");
        assert_eq!(judge_archive_command(&command, &config, Path::new("/none")), Ok(Finds::ByName));
    }

    /// I1: the command of another cluster would mix two clusters' WAL.
    #[test]
    fn each_fault_of_a_command_is_named() {
        let (directory, config) = config("main");
        let judged = |command: &str| judge_archive_command(command, &config, Path::new("/none")).unwrap_err();
        assert_eq!(judged(""), CommandFault::Empty);
        assert_eq!(judged("(disabled)"), CommandFault::Empty);
        assert_eq!(judged("pgbackrest --stanza=main archive-push %p"), CommandFault::NotOurs);
        assert_eq!(judged("highwater --cluster main archive-push"), CommandFault::NotOurs);
        let other = CommandFault::OtherCluster("test".to_owned());
        assert_eq!(judged("/usr/bin/highwater archive-push --cluster=test \"%p\""), other);
        assert_eq!(judged("highwater archive-push %p"), CommandFault::NoCluster);
        let elsewhere = CommandFault::OtherConfig("/etc/x.toml".into());
        assert_eq!(judged("highwater --config /etc/x.toml archive-push %p"), elsewhere);
        assert_eq!(program_on_path("highwater archive-push %p").as_deref(), Some("highwater"));
        // The only configuration is found without its name, until there is a second one.
        let judged = || judge_archive_command("highwater archive-push %p", &config, directory.path());
        assert_eq!(judged(), Ok(Finds::AsTheOnlyOne));
        std::fs::write(directory.path().join("second.toml"), "").unwrap();
        assert_eq!(judged(), Err(CommandFault::NoCluster));
        assert_eq!(program_on_path("nice /usr/bin/highwater archive-push %p"), None);
    }
}
