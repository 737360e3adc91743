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

use super::error::BackupError;
use super::includes::{self, Include};
use super::work::{FileRef, Place};

/// How deep includes may nest (`CONF_FILE_MAX_DEPTH`).
const MAX_DEPTH: usize = 10;

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
    let mut search = Search {
        data_dir,
        real_data_dir,
        access_directives: whereabouts.access_directives,
        outside: Outside::default(),
        found: BTreeMap::new(),
    };
    search.follow(Path::new(&whereabouts.config_file), OutsideRole::Config, Form::Settings, 0)?;
    search.follow(Path::new(&whereabouts.hba_file), OutsideRole::Hba, Form::Access, 0)?;
    search.follow(Path::new(&whereabouts.ident_file), OutsideRole::Ident, Form::Access, 0)?;
    search.add(&data_dir.join("postgresql.auto.conf"), OutsideRole::Include);
    for path in &whereabouts.also_read {
        search.add(Path::new(path), OutsideRole::Include);
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

/// Which syntax a file has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Settings,
    Access,
}

struct Search<'a> {
    data_dir: &'a Path,
    real_data_dir: PathBuf,
    access_directives: bool,
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
        depth: usize,
    ) -> Result<(), BackupError> {
        if path.as_os_str().is_empty() || depth > MAX_DEPTH || !self.add(path, role) {
            return Ok(());
        }
        let Some(text) = read_text(path)? else { return Ok(()) };
        let included = match form {
            Form::Settings => includes::of_settings(&text),
            Form::Access => includes::of_access_file(&text, self.access_directives),
        };
        let directory = path.parent().unwrap_or(Path::new("/"));
        for include in included {
            match include {
                Include::File(name) => {
                    self.follow(&directory.join(name), OutsideRole::Include, form, depth + 1)?;
                }
                Include::Directory(name) => {
                    for file in conf_files(&directory.join(name))? {
                        self.follow(&file, OutsideRole::Include, form, depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Notes a file; false when it is not there, or was noted before.
    fn add(&mut self, path: &Path, role: OutsideRole) -> bool {
        if let Some(inside) = self.below_data_dir(path) {
            return self.outside.inside.insert(inside);
        }
        let Ok(real) = path.canonicalize() else { return false };
        // Reached by a path from outside, and copied with the data directory all the same.
        if real.starts_with(&self.real_data_dir) {
            return true;
        }
        let Some(text) = path.to_str() else { return false };
        match self.found.entry(text.to_owned()) {
            std::collections::btree_map::Entry::Vacant(entry) => {
                entry.insert(role);
                true
            }
            std::collections::btree_map::Entry::Occupied(_) => false,
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
        // `a/./b` is `a/b` as components.
        let below: PathBuf = below.components().collect();
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

/// What `include_dir` takes: names that end in `.conf` and do not begin with a dot, sorted (`GetConfFilesInDir`).
fn conf_files(directory: &Path) -> Result<Vec<PathBuf>, BackupError> {
    let unreadable = |error| BackupError::unreadable(directory, error);
    let mut files = Vec::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(files),
        Err(error) => return Err(unreadable(error)),
    };
    for entry in entries {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().map(|name| name.as_bytes().to_vec()).unwrap_or_default();
        if name.ends_with(b".conf") && !name.starts_with(b".") && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}
