//! Includes led to where the included files are now.
//!
//! A restored configuration names files by where they were on the original host. From `config_file`, `hba_file` and `ident_file` on,
//! as they now lie, every include is resolved as the original server resolved it, and where that place has another one today the
//! include is changed to say so; nothing else in the file is touched. Only files that the restore has put are read and changed: whatever
//! else a host has under such a name is neither taken into the configuration nor written to. A path into the original's data directory leads into the
//! copy's, so that no copy reads production's files. A directory that had no file in it is made, since PostgreSQL insists on it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use highwater_archive::durable;
use highwater_archive::manifest::Manifest;

use super::{NAMES, Relocation, give, kept_at, make_missing, mode_of, outside_path, read};
use crate::error::RestoreError;
use crate::includes::{Form, Include, MAX_DEPTH, What, files_of_directory, plain};
use crate::ownership::Account;
use crate::rebuild::OUTSIDE_DIRECTORY;

/// Leads all includes of the three files; gives what a person should know.
///
/// # Errors
/// [`RestoreError::Durable`], [`RestoreError::Io`].
pub(super) fn all(
    manifest: &Manifest,
    data_dir: &Path,
    relocation: &Relocation,
    owner: Option<&Account>,
) -> Result<Vec<String>, RestoreError> {
    let mut leader = Leader {
        original_dir: Path::new(&manifest.data_directory),
        data_dir,
        kept: data_dir.join(OUTSIDE_DIRECTORY),
        relocation: relocation.clone(),
        owner,
        seen: BTreeSet::new(),
        notes: Vec::new(),
    };
    for (setting, name) in NAMES {
        let original = manifest.config_files.get(setting).map(Path::new);
        let Some(original) = original.filter(|path| path.is_absolute()) else { continue };
        let lay_outside = outside_path(manifest, setting).is_some();
        let now = match relocation.files.get(original) {
            Some(now) => now.clone(),
            // A minimal one includes nothing.
            None if lay_outside => continue,
            None => leader.inside(original).unwrap_or_else(|| data_dir.join(name)),
        };
        let form = match setting {
            "config_file" => Form::Settings,
            _ => Form::Access { directives: manifest.postgresql.major >= 16 },
        };
        leader.file(original, &now, form, 0)?;
    }
    Ok(leader.notes)
}

struct Leader<'a> {
    original_dir: &'a Path,
    data_dir: &'a Path,
    kept: PathBuf,
    relocation: Relocation,
    owner: Option<&'a Account>,
    seen: BTreeSet<PathBuf>,
    notes: Vec<String>,
}

impl Leader<'_> {
    /// Leads the includes of a file that lay at `original` and lies at `now`, and of those that it includes.
    fn file(&mut self, original: &Path, now: &Path, form: Form, depth: usize) -> Result<(), RestoreError> {
        if depth > MAX_DEPTH || !self.is_ours(now) || !now.is_file() || !self.seen.insert(now.to_owned()) {
            return Ok(());
        }
        let Ok(text) = String::from_utf8(read(now)?) else {
            self.notes.push(format!("{} is not UTF-8: what it includes is not looked at", now.display()));
            return Ok(());
        };
        let (was_home, home) = (home_of(original), home_of(now));
        let mut further = Vec::new();
        let mut failure = None;
        let led = form.led(&text, |include| {
            let was = plain(&was_home.join(&include.name));
            let is = plain(&home.join(&include.name));
            match self.place_of(&was, &is, include, now) {
                Ok(Some(wanted)) => {
                    further.push((was, wanted.clone(), include.what.clone()));
                    (wanted != is).then(|| wanted.display().to_string())
                }
                Ok(None) => None,
                Err(error) => {
                    failure.get_or_insert(error);
                    None
                }
            }
        });
        if let Some(error) = failure {
            return Err(error);
        }
        if led != text {
            let mode = mode_of(now)?;
            durable::replace(now, &[led])?;
            give(now, self.owner, mode)?;
        }
        for (was, is, what) in further {
            match what {
                What::File | What::FileIfExists => self.file(&was, &is, form, depth + 1)?,
                What::Directory => {
                    let files = match files_of_directory(&is) {
                        Ok(files) => files,
                        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
                        Err(source) => return Err(RestoreError::Io { what: "list", path: is, source }),
                    };
                    for file in files {
                        let name = file.file_name().unwrap_or_default();
                        self.file(&was.join(name), &file, form, depth + 1)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Where that which an include of `by` named on the original host is now; none where the name may stay as it is.
    fn place_of(
        &mut self,
        was: &Path,
        is: &Path,
        include: &Include,
        by: &Path,
    ) -> Result<Option<PathBuf>, RestoreError> {
        if let Some(inside) = self.inside(was) {
            return Ok(Some(inside));
        }
        if include.what == What::Directory {
            return self.directory_of(was);
        }
        if let Some(now) = self.relocation.files.get(was) {
            return Ok(Some(now.clone()));
        }
        let kept = kept_at(&self.kept, was);
        // A file that is at the name's new meaning by chance is not the one that is meant.
        let unchanged = if is.exists() && !self.is_ours(is) { Some(was.to_owned()) } else { None };
        if was.exists() {
            return Ok(Some(was.to_owned()));
        }
        if include.what == What::FileIfExists && !kept.exists() {
            return Ok(unchanged);
        }
        if kept.exists() {
            self.notes.push(format!(
                "{} is not on this host: {} now includes what is kept of it as {}",
                was.display(),
                by.display(),
                kept.display()
            ));
            return Ok(Some(kept));
        }
        self.notes.push(format!(
            "{} is included by {}, and is neither in the backup nor on this host: the server does not start without it",
            was.display(),
            by.display()
        ));
        Ok(unchanged)
    }

    /// The same for a directory, which is made where the backup has no file of it: under another name where the host has one with
    /// files of its own.
    fn directory_of(&mut self, was: &Path) -> Result<Option<PathBuf>, RestoreError> {
        let now = match self.relocation.directory_now(was) {
            Some(now) => match self.stranger_in(&now)? {
                None => now,
                Some(path) if self.relocation.files.values().any(|file| file.starts_with(&now)) => {
                    return Err(RestoreError::ConfigExists { path });
                }
                Some(_) => self.relocation.invent(was).unwrap_or(now),
            },
            None if self.relocation.directory.is_none() && was.is_dir() => return Ok(None),
            None => self.relocation.invent(was).unwrap_or_else(|| kept_at(&self.kept, was)),
        };
        if !now.is_dir() {
            make_missing(&now, self.owner)?;
        }
        Ok(Some(now))
    }

    /// A file in a directory that the server would take for configuration, and that the restore has not put there.
    fn stranger_in(&self, directory: &Path) -> Result<Option<PathBuf>, RestoreError> {
        match files_of_directory(directory) {
            Ok(files) => Ok(files.into_iter().find(|file| !self.is_ours(file))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(RestoreError::Io { what: "list", path: directory.to_owned(), source }),
        }
    }

    /// Whether the restore has put a file where it is. A link in the data directory is the original's doing: what it leads to is ours
    /// only when that lies in the data directory itself.
    fn is_ours(&self, path: &Path) -> bool {
        if self.relocation.puts(path) {
            return true;
        }
        let lies_within =
            |data_dir: PathBuf| path.canonicalize().is_ok_and(|real| real.starts_with(data_dir));
        plain(path).starts_with(plain(self.data_dir)) && self.data_dir.canonicalize().is_ok_and(lies_within)
    }

    /// A path into the original's data directory, in the new one.
    fn inside(&self, was: &Path) -> Option<PathBuf> {
        let below = was.strip_prefix(self.original_dir).ok()?;
        Some(self.data_dir.join(below))
    }
}

fn home_of(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new("/"))
}

#[cfg(test)]
mod tests {
    use super::super::{Placed, place};
    use super::*;

    /// A data directory with the kept files, and what stands in the files afterwards.
    struct Ground {
        scratch: tempfile::TempDir,
    }

    impl Ground {
        fn new(files: &[(&str, &str)]) -> Ground {
            let ground = Ground { scratch: tempfile::tempdir().unwrap() };
            for (name, text) in files {
                let path = ground.at(name);
                durable::create_dir_all_durable(path.parent().unwrap()).unwrap();
                durable::replace(&path, &[text]).unwrap();
            }
            ground
        }

        fn at(&self, name: &str) -> PathBuf {
            self.scratch.path().join(name)
        }

        fn text(&self, name: &str) -> String {
            let text = std::fs::read_to_string(self.at(name)).unwrap();
            text.replace(self.scratch.path().to_str().unwrap(), "NEW")
        }

        fn place(&self, config: &[(&str, &str)], files: Option<&[&str]>) -> Placed {
            self.try_place(config, files).unwrap()
        }

        fn try_place(&self, config: &[(&str, &str)], files: Option<&[&str]>) -> Result<Placed, RestoreError> {
            let mut manifest = super::super::fixture::manifest("/no/such/main");
            for (setting, path) in config {
                manifest.config_files.insert((*setting).to_owned(), (*path).to_owned());
            }
            let to = match files {
                Some(files) => {
                    let files = files.iter().map(PathBuf::from).collect();
                    Relocation::of(&self.at("etc"), &manifest, &files)
                }
                None => Relocation::beside(),
            };
            place(&manifest, &self.at("data"), &to, None)
        }
    }

    /// I25: whatever the files were called by, they are found where they are now; an empty directory is there too.
    #[test]
    fn every_include_leads_to_the_new_place() {
        let ground = Ground::new(&[
            (
                "data/highwater/config/o/main/pg.conf",
                "include 'own.conf'\ninclude '/o/common/c.conf' # all\ninclude_dir '/o/empty'\ninclude_dir 'conf.d'\n\
                 include '/no/such/main/in.conf'\ninclude_if_exists 'never.conf'\ninclude 'lost.conf'\n",
            ),
            ("data/highwater/config/o/main/own.conf", "include '../common/d.conf'\n"),
            ("data/highwater/config/o/common/c.conf", "include 'd.conf'\n"),
            ("data/highwater/config/o/common/d.conf", ""),
            (
                "data/highwater/config/o/hba/pg_hba.conf",
                "local all @users peer\nlocal all @/o/hba/users trust\n",
            ),
            ("data/highwater/config/o/hba/users", "postgres\n"),
            ("data/in.conf", "include '/o/common/c.conf'\n"),
        ]);
        let files = [
            "/o/common/c.conf",
            "/o/common/d.conf",
            "/o/hba/pg_hba.conf",
            "/o/hba/users",
            "/o/main/own.conf",
            "/o/main/pg.conf",
        ];
        let config = [("config_file", "/o/main/pg.conf"), ("hba_file", "/o/hba/pg_hba.conf")];
        let placed = ground.place(&config, Some(&files));
        assert_eq!(placed.config_file, Some(ground.at("etc/pg.conf")));
        assert_eq!(
            ground.text("etc/pg.conf"),
            "include 'own.conf'\ninclude 'NEW/etc/common/c.conf' # all\ninclude_dir 'NEW/etc/empty'\n\
             include_dir 'conf.d'\ninclude 'NEW/data/in.conf'\ninclude_if_exists 'never.conf'\ninclude 'lost.conf'\n"
        );
        assert!(ground.at("etc/empty").is_dir() && ground.at("etc/conf.d").is_dir());
        assert_eq!(ground.text("etc/own.conf"), "include 'NEW/etc/common/d.conf'\n");
        assert_eq!(ground.text("etc/common/c.conf"), "include 'd.conf'\n");
        assert_eq!(
            ground.text("etc/pg_hba.conf"),
            "local all @\"NEW/etc/hba/users\" peer\nlocal all @\"NEW/etc/hba/users\" trust\n"
        );
        assert_eq!(ground.text("data/in.conf"), "include 'NEW/etc/common/c.conf'\n");
        assert_eq!(placed.notes.len(), 1, "{:?}", placed.notes);
        assert!(placed.notes.iter().all(|note| note.contains("/o/main/lost.conf")));
        let missing = placed.missing("", &ground.at("data"));
        assert_eq!(missing, [("hba_file".to_owned(), ground.at("etc/pg_hba.conf").display().to_string())]);
    }

    /// What the host has by chance where an include of the original would now lead is not the original's: it is not taken into the
    /// configuration, and not written to.
    #[test]
    fn what_was_on_the_host_is_neither_taken_nor_changed() {
        let theirs = "include '/o/main/conf.d/x.conf'\n";
        let ground = Ground::new(&[
            (
                "data/highwater/config/o/main/pg.conf",
                "include_dir 'conf.d'\ninclude_if_exists 'local.conf'\ninclude_dir 'conf.d'\n",
            ),
            ("etc/conf.d/theirs.conf", theirs),
            ("etc/local.conf", theirs),
        ]);
        let config = [("config_file", "/o/main/pg.conf")];
        ground.place(&config, Some(&["/o/main/pg.conf"]));
        assert_eq!(
            ground.text("etc/pg.conf"),
            "include_dir 'NEW/etc/conf.d-2'\ninclude_if_exists '/o/main/local.conf'\ninclude_dir 'NEW/etc/conf.d-2'\n"
        );
        assert_eq!(std::fs::read_dir(ground.at("etc/conf.d-2")).unwrap().count(), 0);
        for path in ["etc/conf.d/theirs.conf", "etc/local.conf"] {
            assert_eq!(std::fs::read_to_string(ground.at(path)).unwrap(), theirs);
        }
    }

    /// What a link in the data directory leads to is the host's, and neither read nor written.
    #[test]
    fn a_link_out_of_the_data_directory_is_not_followed() {
        let theirs = "include '/no/such/main/y.conf'\n";
        let ground = Ground::new(&[
            ("data/postgresql.conf", "include 'x/foo.conf'\n"),
            ("host/foo.conf", theirs),
            ("data/y.conf", ""),
        ]);
        std::os::unix::fs::symlink("../host", ground.at("data/x")).unwrap();
        let before = std::fs::metadata(ground.at("host/foo.conf")).unwrap();
        ground.place(&[("config_file", "/no/such/main/postgresql.conf")], None);
        let after = std::fs::metadata(ground.at("host/foo.conf")).unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino;
        assert_eq!((ground.text("host/foo.conf"), inode(&after)), (theirs.to_owned(), inode(&before)));
    }

    /// A directory that must be this one, since files of the backup lie in it, is refused with what else is in it.
    #[test]
    fn a_strangers_file_beside_the_configuration_is_refused_where_it_would_be_read() {
        let ground = Ground::new(&[
            ("data/highwater/config/o/main/pg.conf", "include_dir '.'\n"),
            ("etc/theirs.conf", "port = 1\n"),
        ]);
        let refused = ground.try_place(&[("config_file", "/o/main/pg.conf")], Some(&["/o/main/pg.conf"]));
        let refused = refused.unwrap_err();
        let named =
            matches!(&refused, RestoreError::ConfigExists { path } if path.ends_with("etc/theirs.conf"));
        assert!(named, "{refused}");
    }

    /// A configuration that lies in the data directory and includes a file of a host that is gone starts with what is kept of it.
    #[test]
    fn what_is_kept_stands_in_for_what_is_gone() {
        let ground = Ground::new(&[
            ("data/postgresql.conf", "include '/no/such/x.conf'\ninclude_dir '/no/such/d'\n"),
            ("data/highwater/config/no/such/x.conf", "port = 1\n"),
        ]);
        let config =
            [("config_file", "/no/such/main/postgresql.conf"), ("hba_file", "/no/such/main/pg_hba.conf")];
        let placed = ground.place(&config, None);
        assert_eq!(
            ground.text("data/postgresql.conf"),
            "include 'NEW/data/highwater/config/no/such/x.conf'\n\
             include_dir 'NEW/data/highwater/config/no/such/d'\n"
        );
        assert!(placed.config_file.is_none() && placed.leads.is_empty());
        assert_eq!(placed.notes.len(), 1, "{:?}", placed.notes);
    }

    /// Each of the three goes its own way: what lay in the data directory stays there.
    #[test]
    fn one_file_outside_is_put_and_the_setting_leads_to_it() {
        let ground = Ground::new(&[
            ("data/postgresql.conf", "hba_file = '/o/pg_hba.conf'\n"),
            ("data/highwater/config/o/pg_hba.conf", "local all all peer\n"),
        ]);
        let config = [("config_file", "/no/such/main/postgresql.conf"), ("hba_file", "/o/pg_hba.conf")];
        let placed = ground.place(&config, Some(&["/o/pg_hba.conf"]));
        assert_eq!(ground.text("etc/pg_hba.conf"), "local all all peer\n");
        let text = ground.text("data/postgresql.conf");
        let wanted = ground.at("etc/pg_hba.conf").display().to_string();
        assert_eq!(placed.missing(&text, &ground.at("data")), [("hba_file".to_owned(), wanted)]);
        assert!(placed.notes.is_empty());
    }
}
