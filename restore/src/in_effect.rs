//! The configuration that a server reads, with its includes, and what in it would lead a copy back to the original.
//!
//! `data_directory` is the worst: a server started with `-D COPY` reads `COPY/postgresql.conf`, and when that names another
//! directory the server goes there, past our `postgresql.auto.conf` (`SelectConfigFiles` in `guc.c`: only this one setting is
//! taken before the data directory is known). So it is set again at the end of `postgresql.conf` itself; every other one is
//! corrected in `postgresql.auto.conf`, which is read last.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::conf_file::{self, last_value, parse_line};
use crate::includes::{MAX_DEPTH, files_of_directory};

/// How much text is read in all, in bytes: an include that includes its neighbours could otherwise be without end.
const MAX_TEXT_BYTES: usize = 16 << 20;

/// A server's configuration as one text, later lines winning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InEffect {
    /// The lines of the file and, in their places, of what it includes.
    pub text: String,
    /// Files that are included and could not be read: what they set is not known.
    pub unread: BTreeSet<PathBuf>,
}

/// Reads `file` and what it includes. One that is absent is empty.
pub fn read(file: &Path) -> InEffect {
    let mut found = InEffect::default();
    add(file, 0, &mut found);
    found
}

fn add(file: &Path, depth: usize, found: &mut InEffect) {
    let content = match std::fs::read(file) {
        Ok(content) if depth <= MAX_DEPTH && found.text.len() + content.len() <= MAX_TEXT_BYTES => content,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return,
        Ok(_) | Err(_) => {
            found.unread.insert(file.to_owned());
            return;
        }
    };
    let home = file.parent().unwrap_or(Path::new("/"));
    for line in String::from_utf8_lossy(&content).lines() {
        match parse_line(line).map(|setting| (setting.name, home.join(setting.value))) {
            Some((name, path)) if name == "include" || name == "include_if_exists" => {
                add(&path, depth + 1, found);
            }
            Some((name, path)) if name == "include_dir" => add_directory(&path, depth + 1, found),
            _ => {
                found.text.push_str(line);
                found.text.push('\n');
            }
        }
    }
}

fn add_directory(directory: &Path, depth: usize, found: &mut InEffect) {
    match files_of_directory(directory) {
        Ok(files) => files.iter().for_each(|file| add(file, depth, found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(_) => {
            found.unread.insert(directory.to_owned());
        }
    }
}

/// What `postgresql.conf` must say at its end so that a server on `data_dir` stays there; nothing where it does already.
pub fn own_directory(in_effect: &InEffect, data_dir: &Path) -> Option<String> {
    let line = || conf_file::format("data_directory", &data_dir.display().to_string());
    match last_value(&in_effect.text, "data_directory") {
        Some(set) if Path::new(&set) == data_dir => None,
        Some(_) => Some(line()),
        None if in_effect.unread.is_empty() => None,
        None => Some(line()),
    }
}

/// Settings whose absolute path leads into the original's data directory, led into the new one.
pub fn led_home(text: &str, original: &Path, data_dir: &Path) -> Vec<(String, String)> {
    let names = ["hba_file", "ident_file", "external_pid_file", "log_directory", "stats_temp_directory"];
    let moved = |name: &str| {
        let set = last_value(text, name)?;
        let below = Path::new(&set).strip_prefix(original).ok()?;
        let now = data_dir.join(below);
        (now != Path::new(&set)).then(|| (name.to_owned(), now.display().to_string()))
    };
    names.into_iter().filter_map(moved).collect()
}

/// Places outside the original's data directory that a server writes to, and that a copy must not share with it.
pub fn not_shared(text: &str, original: &Path) -> Vec<(String, String)> {
    let own = [("external_pid_file", ""), ("log_directory", "log"), ("stats_temp_directory", "pg_stat_tmp")];
    let shared = |(name, own): (&str, &str)| {
        let set = last_value(text, name)?;
        let path = Path::new(&set);
        (path.is_absolute() && !path.starts_with(original)).then(|| (name.to_owned(), own.to_owned()))
    };
    own.into_iter().filter_map(shared).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use highwater_archive::durable;

    /// Whatever file sets it, a copy is not led to the data directory of the original.
    #[test]
    fn a_data_directory_is_found_in_every_include() {
        let home = tempfile::tempdir().unwrap();
        let copy = Path::new("/srv/copy");
        let put = |name: &str, text: &str| durable::replace(&home.path().join(name), &[text]).unwrap();
        std::fs::create_dir(home.path().join("conf.d")).unwrap();
        let line = Some("data_directory = '/srv/copy'".to_owned());
        let main = "port = 1\ninclude 'a.conf'\ninclude_if_exists = 'absent.conf'\ninclude_dir 'conf.d'\n";
        put("postgresql.conf", main);
        let now = || own_directory(&read(&home.path().join("postgresql.conf")), copy);
        assert_eq!(now(), None);
        put("a.conf", "Data_Directory = '/srv/production' # here\n");
        assert_eq!(now(), line);
        put("conf.d/.hidden.conf", "data_directory = '/srv/copy'\n");
        put("conf.d/README", "data_directory = '/srv/copy'\n");
        assert_eq!(now(), line);
        put("conf.d/9.conf", "data_directory = '/srv/copy'\n");
        assert_eq!(now(), None);
        // What cannot be read may set it: a directory, and a file that includes itself.
        put("conf.d/9.conf", "include '/'\n");
        put("a.conf", "");
        assert_eq!(now(), line);
        put("conf.d/9.conf", "include '9.conf'\ninclude '9.conf'\n");
        assert_eq!(now(), line);
        let unread = read(&home.path().join("postgresql.conf")).unread;
        assert_eq!(unread.len(), 1, "each is named once: {unread:?}");
    }

    #[test]
    fn paths_into_the_original_lead_into_the_copy_and_others_are_not_shared() {
        let text = "hba_file = '/srv/main/pg_hba.conf'\nident_file = '/etc/pg_ident.conf'\n\
                    external_pid_file = '/run/main.pid'\nlog_directory = '/srv/main/log'\n";
        let (original, copy) = (Path::new("/srv/main"), Path::new("/srv/copy"));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            led_home(text, original, copy),
            [pair("hba_file", "/srv/copy/pg_hba.conf"), pair("log_directory", "/srv/copy/log")]
        );
        assert_eq!(led_home(text, original, original), []);
        assert_eq!(not_shared(text, original), [pair("external_pid_file", "")]);
        assert_eq!(not_shared("log_directory = 'log'\n", original), []);
    }
}
