//! Which configuration file: the one named, the one of the cluster named, or the only one there is.

use std::path::{Path, PathBuf};

use super::{ConfigError, Selection};

/// Chooses the file, or none where the environment alone may do.
///
/// # Errors
///
/// Several files and no choice; a directory that cannot be read; no file, or none for the cluster, while neither the environment
/// nor `--set` has settings either.
pub fn choose(selection: &Selection, directory: &Path) -> Result<Option<PathBuf>, ConfigError> {
    if let Some(file) = &selection.file {
        return std::path::absolute(file)
            .map(Some)
            .map_err(|source| ConfigError::Unreadable { path: file.clone(), source });
    }
    let names = cluster_names(directory)?;
    if let Some(name) = &selection.cluster {
        let path = directory.join(format!("{name}.toml"));
        return match names.contains(name) {
            true => Ok(Some(path)),
            false if super::raw::environment_is_used() || !selection.set.is_empty() => Ok(None),
            false => Err(ConfigError::NoSuchCluster { name: name.clone(), path, known: names }),
        };
    }
    match names.as_slice() {
        [] if super::raw::environment_is_used() || !selection.set.is_empty() => Ok(None),
        [] => Err(ConfigError::NoConfiguration { directory: directory.to_path_buf() }),
        [only] => Ok(Some(directory.join(format!("{only}.toml")))),
        [_, ..] => Err(ConfigError::SeveralClusters { names }),
    }
}

/// The names of the `NAME.toml` files, sorted. A directory that does not exist holds none.
fn cluster_names(directory: &Path) -> Result<Vec<String>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: directory.to_path_buf(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(unreadable(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let file = entry.map_err(unreadable)?.file_name();
        if let Some(name) = file.to_str().and_then(|file| file.strip_suffix(".toml")) {
            names.push(name.to_owned());
        }
    }
    names.sort();
    Ok(names)
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

    fn directory(names: &[&str]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        for name in names {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        directory
    }

    #[test]
    fn the_only_file_is_the_default_and_several_are_listed() {
        let none = Selection::default();
        let one = directory(&["main.toml", "main.key"]);
        assert_eq!(choose(&none, one.path()).unwrap(), Some(one.path().join("main.toml")));
        let two = directory(&["b.toml", "a.toml"]);
        let error = choose(&none, two.path()).unwrap_err();
        assert_eq!(error.to_string(), "several clusters are configured: a, b");
        assert_eq!(error.hint().unwrap(), "choose one with --cluster NAME");
        let b = Selection { cluster: Some("b".to_owned()), ..Selection::default() };
        assert_eq!(choose(&b, two.path()).unwrap(), Some(two.path().join("b.toml")));
        let absent = one.path().join("absent");
        let hint = choose(&none, &absent).unwrap_err().hint().unwrap();
        assert!(hint.contains(&format!("write {}/NAME.toml", absent.display())), "{hint}");
        let set = Selection { set: vec!["cluster.name=main".to_owned()], ..Selection::default() };
        assert_eq!(choose(&set, &absent).unwrap(), None);
    }

    #[test]
    fn a_cluster_without_a_file_is_an_error_that_lists_those_there_are() {
        let one = directory(&["main.toml"]);
        let wrong = Selection { cluster: Some("mian".to_owned()), ..Selection::default() };
        let error = choose(&wrong, one.path()).unwrap_err();
        assert_eq!(error.hint().unwrap(), "configured here: main");
    }
}
