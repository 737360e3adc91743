//! What belongs to the cluster and lies outside its data directory (I25).
//!
//! From `config_file`, `hba_file` and `ident_file` on, includes are followed as the server follows them. What turns out to lie below
//! the data directory comes with it, also where it is a symbolic link to elsewhere; the rest goes into the file list by absolute path. TLS
//! private keys that lie elsewhere are never taken: that they are missing is noted.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use highwater_archive::manifest::{FilePath, OutsideRole};
use highwater_restore::includes::{Form, MAX_DEPTH, What, files_of_directory, plain};

use super::error::BackupError;
use super::work::{FileRef, Place};

/// The longest configuration file that is looked through, in bytes.
const MAX_BYTES: u64 = 16 << 20;

/// The settings that say where things lie.
#[derive(Clone, Debug, Default)]
pub struct Whereabouts {
    /// `config_file`.
    pub config_file: String,
    /// `hba_file`.
    pub hba_file: String,
    /// `ident_file`.
    pub ident_file: String,
    /// Further files that the server says it read settings or rules from.
    pub also_read: Vec<String>,
    /// Settings that name private keys, with their values.
    pub keys: Vec<(String, String)>,
    /// Settings that name certificates and other public files, with their values.
    pub public: Vec<(String, String)>,
    /// Whether `pg_hba.conf` knows `include` (16 and on).
    pub access_directives: bool,
}

/// What is outside, and what inside may be a link to it.
#[derive(Clone, Debug, Default)]
pub struct Outside {
    /// Files to store, by absolute path.
    pub files: Vec<FileRef>,
    /// Paths below the data directory that are configuration.
    pub inside: BTreeSet<FilePath>,
    /// Private keys below the data directory that may be links to elsewhere.
    pub keys_inside: BTreeMap<FilePath, String>,
    /// What is left out.
    pub left_out: Vec<(PathBuf, String)>,
}

/// Finds it all.
pub fn find(data_dir: &Path, whereabouts: &Whereabouts) -> Result<Outside, BackupError> {
    let real_data_dir = data_dir.canonicalize().map_err(|error| BackupError::unreadable(data_dir, error))?;
    let mut search = Search { data_dir, real_data_dir, outside: Outside::default(), found: BTreeMap::new() };
    let access = Form::Access { directives: whereabouts.access_directives };
    for (path, role, form) in [
        (&whereabouts.config_file, OutsideRole::Config, Form::Settings),
        (&whereabouts.hba_file, OutsideRole::Hba, access),
        (&whereabouts.ident_file, OutsideRole::Ident, access),
    ] {
        if !path.is_empty() {
            search.follow(Path::new(path), role, form, Absence::Reported, 0)?;
        }
    }
    search.add(&data_dir.join("postgresql.auto.conf"), OutsideRole::Include, Absence::Expected);
    for path in &whereabouts.also_read {
        search.add(Path::new(path), OutsideRole::Include, Absence::Reported);
    }
    for (setting, value) in &whereabouts.keys {
        let reason = format!("private key ({setting}); keys are not part of a backup");
        search.other(value, &reason, true);
    }
    for (setting, value) in &whereabouts.public {
        search.other(value, &format!("{setting}; it can be brought from where it came"), false);
    }
    let Search { mut outside, found, .. } = search;
    for (path, role) in found {
        outside.files.push(FileRef { place: Place::Outside(path, role), relation: None, follow: true });
    }
    Ok(outside)
}

/// What it means that a file is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Absence {
    /// Nothing.
    Expected,
    /// A restored server will miss it.
    Reported,
}

struct Search<'a> {
    data_dir: &'a Path,
    real_data_dir: PathBuf,
    outside: Outside,
    found: BTreeMap<String, OutsideRole>,
}

impl Search<'_> {
    /// Adds a file and what it includes.
    fn follow(
        &mut self,
        path: &Path,
        role: OutsideRole,
        form: Form,
        absence: Absence,
        depth: usize,
    ) -> Result<(), BackupError> {
        if depth > MAX_DEPTH || !self.add(path, role, absence) {
            return Ok(());
        }
        let Some(text) = read_text(path)? else { return Ok(()) };
        let directory = path.parent().unwrap_or(Path::new("/"));
        for include in form.includes(&text) {
            let name = directory.join(&include.name);
            let (files, absence) = match include.what {
                What::File => (vec![name], Absence::Reported),
                What::FileIfExists => (vec![name], Absence::Expected),
                What::Directory => (self.files_of(&name), Absence::Reported),
            };
            for file in files {
                self.follow(&file, OutsideRole::Include, form, absence, depth + 1)?;
            }
        }
        Ok(())
    }

    /// What `include_dir` takes. A directory that cannot be listed is left out by name.
    fn files_of(&mut self, directory: &Path) -> Vec<PathBuf> {
        files_of_directory(directory).unwrap_or_else(|error| {
            self.leave_out(directory, format!("the directory is included and cannot be listed: {error}"));
            Vec::new()
        })
    }

    /// Notes a file, by a path without dots. False when it was noted before, and when it cannot be taken: then it is left out by name.
    fn add(&mut self, path: &Path, role: OutsideRole, absence: Absence) -> bool {
        let path = &undotted(path);
        if let Some(inside) = self.below_data_dir(path) {
            return self.outside.inside.insert(inside);
        }
        match path.canonicalize() {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound && absence == Absence::Expected => {
                return false;
            }
            Err(error) => {
                self.leave_out(path, format!("the configuration names it, and it cannot be read: {error}"));
                return false;
            }
        }
        let Some(text) = path.to_str() else {
            self.leave_out(path, "the configuration names it, and its name is not UTF-8".to_owned());
            return false;
        };
        match self.found.entry(text.to_owned()) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(role);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
        }
    }

    /// Notes what is not taken, once.
    fn leave_out(&mut self, path: &Path, reason: String) {
        if self.outside.left_out.iter().all(|(known, _)| known != path) {
            self.outside.left_out.push((path.to_owned(), reason));
        }
    }

    /// A key or a certificate; relative names are below the data directory.
    fn other(&mut self, value: &str, reason: &str, private: bool) {
        if value.is_empty() {
            return;
        }
        let path = self.data_dir.join(value);
        match self.below_data_dir(&path) {
            Some(inside) if private => {
                self.outside.keys_inside.insert(inside, reason.to_owned());
            }
            Some(inside) => {
                self.outside.inside.insert(inside);
            }
            None if path.exists() => self.outside.left_out.push((path, reason.to_owned())),
            None => {}
        }
    }

    /// The path below the data directory, by its text, as the configuration or as the file system names that directory.
    fn below_data_dir(&self, path: &Path) -> Option<FilePath> {
        let below =
            path.strip_prefix(self.data_dir).or_else(|_| path.strip_prefix(&self.real_data_dir)).ok()?;
        FilePath::from_bytes(below.as_os_str().as_bytes()).ok()
    }
}

fn read_text(path: &Path) -> Result<Option<String>, BackupError> {
    use std::io::Read as _;
    let unreadable = |error| BackupError::unreadable(path, error);
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(unreadable)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The path without `.` and `..`: a restore tells by its text where a file lay. Where a symbolic link on the way gives `..` another
/// meaning, the path without links.
fn undotted(path: &Path) -> PathBuf {
    let plain = plain(path);
    match path.canonicalize() {
        Ok(real) if plain.canonicalize().ok().as_ref() != Some(&real) => real,
        _ => plain,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::disallowed_methods)]
    use super::*;

    /// What the configuration names is taken, or left out by its name.
    #[test]
    fn every_file_is_taken_or_named() {
        let scratch = tempfile::tempdir().unwrap();
        let root = scratch.path().canonicalize().unwrap();
        let (data, etc) = (root.join("data"), root.join("etc"));
        for directory in [&data, &etc, &root.join("common"), &root.join("links"), &root.join("shared/deep")] {
            std::fs::create_dir_all(directory).unwrap();
        }
        std::os::unix::fs::symlink(root.join("shared/deep"), root.join("links/x")).unwrap();
        let put = |name: &str, text: &str| std::fs::write(root.join(name), text).unwrap();
        put(
            "etc/main.conf",
            "include '../common/a.conf'\ninclude './../links/x/../b.conf'\ninclude_if_exists 'gone.conf'\n\
             include 'lost.conf'\ninclude 'file/x.conf'\ninclude_dir 'no-such-dir'\ninclude '../data/in.conf'\n",
        );
        for name in ["common/a.conf", "shared/b.conf", "etc/file", "data/in.conf", "etc/hba"] {
            put(name, "");
        }
        std::os::unix::fs::symlink(data.join("in.conf"), etc.join("ident")).unwrap();
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let whereabouts = Whereabouts {
            config_file: text(etc.join("main.conf")),
            hba_file: text(etc.join("hba")),
            ident_file: text(etc.join("ident")),
            ..Whereabouts::default()
        };
        let outside = find(&data, &whereabouts).unwrap();
        let taken: Vec<PathBuf> = outside
            .files
            .iter()
            .map(|file| match &file.place {
                Place::Outside(path, _) => Path::new(path).strip_prefix(&root).unwrap().to_owned(),
                Place::Inside(path) => panic!("{path:?}"),
            })
            .collect();
        let wanted = ["common/a.conf", "etc/hba", "etc/ident", "etc/main.conf", "shared/b.conf"];
        assert_eq!(taken, wanted.map(PathBuf::from));
        assert!(outside.inside.contains(&"in.conf".parse().unwrap()));
        let named: Vec<&Path> =
            outside.left_out.iter().map(|(path, _)| path.strip_prefix(&etc).unwrap()).collect();
        assert_eq!(named, ["lost.conf", "file/x.conf", "no-such-dir"].map(Path::new));
    }
}
