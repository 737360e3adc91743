//! Where each configuration file from outside goes: decided from the backup's list, before anything is written.
//!
//! The directory of `config_file` becomes the directory that was asked for, with all that lies below it. What lay elsewhere comes
//! beside it: `hba_file` and `ident_file` under their own names, any other file in a directory that is called as its own was, since
//! an `include_dir` takes whatever is in it. A name that is taken already gets a number behind it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::{FileLine, FileListReader, Manifest, ManifestError};

use super::{NAMES, outside_path};
use crate::error::RestoreError;
use crate::includes::plain;
use crate::places::resolved;
use crate::tablespaces::TablespaceError;

/// Where everything from outside goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Relocation {
    /// The directory that was asked for; none where the files stay in the data directory, beside.
    pub(super) directory: Option<PathBuf>,
    /// Each file's original path and its new one.
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    /// Directories of the original host, and what they are now.
    pub(super) directories: BTreeMap<PathBuf, PathBuf>,
    /// What an earlier attempt of this restore has made there.
    ours: BTreeSet<PathBuf>,
}

impl Relocation {
    /// Everything stays in the data directory.
    pub fn beside() -> Relocation {
        Relocation::default()
    }

    /// Everything goes below `directory`. The backup's file list says what there is.
    ///
    /// # Errors
    /// [`ManifestError`].
    pub async fn below(
        directory: &Path,
        lineage: &Lineage,
        manifest: &Manifest,
    ) -> Result<Relocation, ManifestError> {
        let mut list = FileListReader::new(lineage.clone(), manifest);
        let mut files = BTreeSet::new();
        while let Some(line) = list.next().await? {
            if let FileLine::Outside { path, .. } = line {
                files.insert(PathBuf::from(path));
            }
        }
        Ok(Relocation::of(directory, manifest, &files))
    }

    /// The same for a list of files.
    pub(super) fn of(directory: &Path, manifest: &Manifest, files: &BTreeSet<PathBuf>) -> Relocation {
        let mut to = Relocation { directory: Some(directory.to_owned()), ..Relocation::default() };
        let mut taken = BTreeSet::new();
        let config = outside_path(manifest, "config_file").filter(|path| files.contains(*path));
        if let Some(home) = config.and_then(Path::parent) {
            to.directories.insert(home.to_owned(), directory.to_owned());
            for file in files {
                let Ok(below) = file.strip_prefix(home) else { continue };
                taken.extend(below.components().next().map(|first| first.as_os_str().to_owned()));
                to.files.insert(file.clone(), directory.join(below));
            }
        }
        for (setting, _) in NAMES {
            let Some(file) = outside_path(manifest, setting).filter(|path| files.contains(*path)) else {
                continue;
            };
            if !to.files.contains_key(file)
                && let Some(name) = file.file_name()
            {
                to.files.insert(file.to_owned(), directory.join(free_name(name.to_owned(), &mut taken)));
            }
        }
        // In the order of their paths a directory comes before what lies below it.
        let further: BTreeSet<&Path> = files
            .iter()
            .filter(|file| !to.files.contains_key(*file))
            .filter_map(|file| file.parent())
            .collect();
        for original in further {
            if to.directory_now(original).is_none() {
                let name = original.file_name().unwrap_or(original.as_os_str()).to_owned();
                let now = directory.join(free_name(name, &mut taken));
                to.directories.insert(original.to_owned(), now);
            }
        }
        for file in files {
            if !to.files.contains_key(file)
                && let (Some(home), Some(name)) =
                    (file.parent().and_then(|home| to.directory_now(home)), file.file_name())
            {
                to.files.insert(file.clone(), home.join(name));
            }
        }
        to
    }

    /// The directory that was asked for.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// Lets what an earlier attempt of this restore has made be made again.
    pub fn go_on(&mut self, made: &[PathBuf]) {
        self.ours = made.iter().cloned().collect();
    }

    /// Whether a file may be there, and be replaced.
    pub(super) fn replaces(&self, path: &Path) -> bool {
        self.ours.iter().any(|entry| path.starts_with(entry))
    }

    /// What a directory of the original host is now.
    pub(super) fn directory_now(&self, original: &Path) -> Option<PathBuf> {
        original.ancestors().find_map(|ancestor| {
            let now = self.directories.get(ancestor)?;
            let below = original.strip_prefix(ancestor).ok()?;
            // Joining nothing would leave a slash at the end.
            Some(if below.as_os_str().is_empty() { now.clone() } else { now.join(below) })
        })
    }

    /// A directory for what a directory of the original host holds, of which the backup has no file.
    pub(super) fn invent(&mut self, original: &Path) -> Option<PathBuf> {
        let directory = self.directory.clone()?;
        let mut taken = BTreeSet::new();
        let name = original.file_name().unwrap_or(original.as_os_str()).to_owned();
        let now = loop {
            let now = directory.join(free_name(name.clone(), &mut taken));
            if now.symlink_metadata().is_err() {
                break now;
            }
        };
        self.directories.insert(original.to_owned(), now.clone());
        Some(now)
    }

    /// Each file's original path and its new one.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &Path)> {
        self.files.iter().map(|(original, now)| (original.as_path(), now.as_path()))
    }

    /// What is made in the directory that was asked for: files, and directories with files.
    pub fn entries(&self) -> BTreeSet<PathBuf> {
        let Some(directory) = &self.directory else { return BTreeSet::new() };
        let first = |now: &PathBuf| {
            now.strip_prefix(directory).ok()?.components().next().map(|name| directory.join(name))
        };
        self.files.values().filter_map(first).collect()
    }

    /// Whether a file is one of those that are put into their places.
    pub(super) fn puts(&self, path: &Path) -> bool {
        let path = plain(path);
        self.files.values().any(|now| plain(now) == path)
    }

    /// Whether nothing stands in the way: nothing that is there may be replaced or added to, and the directory must not lie in one
    /// that the cluster itself fills, nor in the data directory of another.
    ///
    /// # Errors
    /// [`RestoreError::ConfigExists`], [`RestoreError::InCluster`], [`RestoreError::Tablespace`].
    pub fn check<'a>(&self, filled: impl Iterator<Item = &'a Path>) -> Result<(), RestoreError> {
        let Some(directory) = &self.directory else { return Ok(()) };
        for other in filled {
            if plain(directory).starts_with(plain(other)) || resolved(directory).starts_with(resolved(other))
            {
                let (first, second) = (directory.display().to_string(), other.display().to_string());
                return Err(TablespaceError::Overlap { first, second }.into());
            }
        }
        let real = resolved(directory);
        let cluster = real.ancestors().find(|above| above.join("PG_VERSION").symlink_metadata().is_ok());
        if let Some(path) = cluster {
            return Err(RestoreError::InCluster { path: path.to_owned() });
        }
        self.check_entries()
    }

    /// Whether nothing that is there would be replaced.
    ///
    /// # Errors
    /// [`RestoreError::ConfigExists`].
    pub fn check_entries(&self) -> Result<(), RestoreError> {
        let is_theirs = |path: &PathBuf| !self.ours.contains(path) && path.symlink_metadata().is_ok();
        match self.entries().into_iter().find(is_theirs) {
            Some(path) => Err(RestoreError::ConfigExists { path }),
            None => Ok(()),
        }
    }
}

/// `name`, or with the first number behind it that makes it one not taken; it is then.
fn free_name(name: OsString, taken: &mut BTreeSet<OsString>) -> OsString {
    let mut free = name.clone();
    let mut number = 2_u32;
    while !taken.insert(free.clone()) {
        free = name.clone();
        free.push(format!("-{number}"));
        number = number.saturating_add(1);
    }
    free
}

#[cfg(test)]
mod tests {
    use super::*;

    fn relocated(config: [&str; 3], files: &[&str]) -> Vec<(String, String)> {
        let mut manifest = crate::outside::fixture::manifest("/srv/main");
        for ((setting, _), path) in NAMES.into_iter().zip(config) {
            manifest.config_files.insert(setting.to_owned(), path.to_owned());
        }
        let files = files.iter().map(PathBuf::from).collect();
        let to = Relocation::of(Path::new("/new"), &manifest, &files);
        let text = |path: &Path| path.display().to_string();
        to.files().map(|(original, now)| (text(original), text(now))).collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(original, now)| ((*original).to_owned(), (*now).to_owned())).collect()
    }

    #[test]
    fn one_directory_goes_as_it_is() {
        let files = ["/etc/pg/conf.d/a.conf", "/etc/pg/pg_hba.conf", "/etc/pg/postgresql.conf"];
        assert_eq!(
            relocated(["/etc/pg/postgresql.conf", "/etc/pg/pg_hba.conf", "/srv/main/pg_ident.conf"], &files),
            pairs(&[
                (files[0], "/new/conf.d/a.conf"),
                (files[1], "/new/pg_hba.conf"),
                (files[2], "/new/postgresql.conf")
            ])
        );
    }

    /// Whatever two directories call the same keeps apart, and what lay in one directory lies in one.
    #[test]
    fn names_that_collide_are_kept_apart() {
        let files = [
            "/a/conf.d/1.conf",
            "/a/pg.conf",
            "/b/conf.d/2.conf",
            "/b/conf.d/3.conf",
            "/b/conf.d/deep/4.conf",
            "/b/pg.conf",
            "/c/pg.conf",
            "/left/conf.d/5.conf",
        ];
        assert_eq!(
            relocated(["/a/pg.conf", "/b/pg.conf", "/c/pg.conf"], &files),
            pairs(&[
                (files[0], "/new/conf.d/1.conf"),
                (files[1], "/new/pg.conf"),
                (files[2], "/new/conf.d-2/2.conf"),
                (files[3], "/new/conf.d-2/3.conf"),
                (files[4], "/new/conf.d-2/deep/4.conf"),
                (files[5], "/new/pg.conf-2"),
                (files[6], "/new/pg.conf-3"),
                (files[7], "/new/conf.d-3/5.conf"),
            ])
        );
    }

    /// A file that the backup lacks goes nowhere, and the others do not need it.
    #[test]
    fn what_the_backup_lacks_goes_nowhere() {
        let files = ["/b/pg_hba.conf", "/b/users"];
        assert_eq!(
            relocated(["/a/pg.conf", "/b/pg_hba.conf", "/b/pg_ident.conf"], &files),
            pairs(&[("/b/pg_hba.conf", "/new/pg_hba.conf"), ("/b/users", "/new/b/users")])
        );
    }

    #[test]
    fn nothing_that_is_there_is_replaced_and_no_place_is_filled_twice() {
        let scratch = tempfile::tempdir().unwrap();
        let directory = scratch.path().join("etc");
        let manifest = {
            let mut manifest = crate::outside::fixture::manifest("/srv/main");
            manifest.config_files.insert("config_file".into(), "/a/pg.conf".into());
            manifest
        };
        let files = ["/a/pg.conf", "/b/c.conf"].iter().map(PathBuf::from).collect();
        let to = Relocation::of(&directory, &manifest, &files);
        let none = || std::iter::empty::<&Path>();
        assert!(to.check(none()).is_ok());
        assert!(to.check([Path::new("/srv")].into_iter()).is_ok());
        assert!(matches!(to.check([scratch.path()].into_iter()), Err(RestoreError::Tablespace(_))));
        std::fs::create_dir_all(directory.join("b")).unwrap();
        let refused = to.check(none()).unwrap_err();
        assert!(
            matches!(&refused, RestoreError::ConfigExists { path } if path.ends_with("etc/b")),
            "{refused}"
        );
        assert!(refused.is_refusal());
    }

    /// Debian's data directories hold no `postgresql.conf`, and are no place for one all the same, by whatever name they go.
    #[test]
    fn another_clusters_data_directory_is_no_place_for_configuration() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, link) = (scratch.path().join("data"), scratch.path().join("link"));
        std::fs::create_dir_all(data.join("base/1")).unwrap();
        std::os::unix::fs::symlink(data.join("base"), &link).unwrap();
        let check = |directory: &Path| {
            let manifest = crate::outside::fixture::manifest("/srv/main");
            Relocation::of(directory, &manifest, &BTreeSet::new()).check(std::iter::empty())
        };
        let places = [data.clone(), data.join("etc/not/there"), link.join("1"), data.join("base/../x")];
        assert!(places.iter().all(|place| check(place).is_ok()));
        highwater_archive::durable::replace(&data.join("PG_VERSION"), &["17\n"]).unwrap();
        for place in places {
            let refused = check(&place).unwrap_err();
            let found = matches!(&refused, RestoreError::InCluster { path } if path.ends_with("data"));
            assert!(found && refused.is_refusal(), "{}: {refused}", place.display());
        }
        assert!(check(&scratch.path().join("etc")).is_ok());
    }
}
