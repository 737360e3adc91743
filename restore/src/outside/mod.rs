//! Configuration files that lay outside the data directory, as Debian's do (I25).
//!
//! The rebuild keeps each of them, unchanged, under its old path in `highwater/config/` of the new data directory. From there
//! either they are put below one directory (`--config-to`, see [`Relocation`]), and every include and setting that named an old
//! place is led to the new one ([`lead`]); or they stay kept, and the data directory gets a minimal `postgresql.conf`,
//! `pg_hba.conf` and `pg_ident.conf` in place of those that lay outside, with which the server starts for its own user, and root,
//! and nobody else.

#[cfg(test)]
mod fixture;
mod lead;
mod relocation;

use std::path::{Path, PathBuf};

use highwater_archive::durable;
use highwater_archive::manifest::Manifest;

pub use relocation::Relocation;

use crate::below;
use crate::conf_file::{self, last_value};
use crate::error::RestoreError;
use crate::ownership::Account;
use crate::rebuild::OUTSIDE_DIRECTORY;
use crate::settings::{RECOVERY_BEGIN, RECOVERY_END};

/// The three files a server reads, by the setting that names each.
const NAMES: [(&str, &str); 3] =
    [("config_file", "postgresql.conf"), ("hba_file", "pg_hba.conf"), ("ident_file", "pg_ident.conf")];

/// Settings that a minimal configuration takes over, because recovery or the extensions in use need them.
const TAKEN_OVER: [&str; 3] =
    ["shared_preload_libraries", "session_preload_libraries", "local_preload_libraries"];

/// Where a server finds its configuration after the restore.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Placed {
    /// `postgresql.conf`, when it lies outside the new data directory.
    pub config_file: Option<PathBuf>,
    /// Where `hba_file` and `ident_file` must lead, each with its path.
    pub leads: Vec<(&'static str, PathBuf)>,
    /// What a person should know: each a sentence.
    pub notes: Vec<String>,
}

impl Placed {
    /// Settings that `configuration`, all that the server reads, does not have as they must be.
    pub fn missing(&self, configuration: &str, data_dir: &Path) -> Vec<(String, String)> {
        let standard = |setting: &str| {
            let name = NAMES.iter().find(|(name, _)| *name == setting).map_or("", |(_, file)| *file);
            data_dir.join(name)
        };
        let leads = self.leads.iter().filter(|(setting, path)| {
            let now = last_value(configuration, setting).map_or_else(|| standard(setting), PathBuf::from);
            now != *path
        });
        leads.map(|(setting, path)| ((*setting).to_owned(), path.display().to_string())).collect()
    }
}

/// The original path of one of the three files, when it lay outside the data directory.
pub(crate) fn outside_path<'m>(manifest: &'m Manifest, setting: &str) -> Option<&'m Path> {
    let path = Path::new(manifest.config_files.get(setting)?);
    let inside = path.starts_with(&manifest.data_directory) || !path.is_absolute();
    (!inside).then_some(path)
}

/// Puts the configuration in place.
///
/// # Errors
/// [`RestoreError::Durable`], [`RestoreError::Io`], [`RestoreError::ConfigExists`].
pub fn place(
    manifest: &Manifest,
    data_dir: &Path,
    relocation: &Relocation,
    owner: Option<&Account>,
) -> Result<Placed, RestoreError> {
    let kept = data_dir.join(OUTSIDE_DIRECTORY);
    if let Some(directory) = &relocation.directory {
        make_missing(directory, owner)?;
    }
    for (original, now) in relocation.files() {
        let kept = below::read(data_dir, &kept_at(Path::new(OUTSIDE_DIRECTORY), original))?;
        put(kept, now, relocation.replaces(now), owner)?;
    }
    let mut placed = Placed::default();
    if let Some(directory) = &relocation.directory
        && relocation.files.is_empty()
    {
        placed.notes.push(format!(
            "the configuration lay in the data directory and is there again; nothing was put into {}",
            directory.display()
        ));
    }
    for (setting, name) in NAMES {
        let Some(original) = outside_path(manifest, setting) else { continue };
        let path = match relocation.files.get(original) {
            Some(now) => now.clone(),
            None => {
                let path = data_dir.join(name);
                let content = minimal(manifest, setting, &kept_at(&kept, original), owner);
                // What the data directory of such a host holds under this name was never read by the server.
                below::put(data_dir, Path::new(name), &[content.as_bytes()], owner, 0o600)?;
                placed.notes.push(format!(
                    "{} lay outside the data directory: it is kept as {}, and a minimal {name} is in its place",
                    original.display(),
                    kept_at(&kept, original).display()
                ));
                path
            }
        };
        match setting {
            "config_file" => placed.config_file = Some(path).filter(|path| path.parent() != Some(data_dir)),
            _ => placed.leads.push((setting, path)),
        }
    }
    placed.notes.extend(lead::all(manifest, data_dir, relocation, owner)?);
    Ok(placed)
}

/// Where a file from outside is kept.
fn kept_at(kept: &Path, original: &Path) -> PathBuf {
    kept.join(original.strip_prefix("/").unwrap_or(original))
}

/// Puts what a kept file held into its new place, with its mode; in place of what an earlier attempt has made there, and of nothing else.
fn put(
    (content, mode): (Vec<u8>, u32),
    now: &Path,
    replaces: bool,
    owner: Option<&Account>,
) -> Result<(), RestoreError> {
    if let Some(parent) = now.parent() {
        make_missing(parent, owner)?;
    }
    if replaces {
        durable::replace(now, &[content])?;
    } else if durable::write_new(now, &[content])? == durable::Published::Exists {
        return Err(RestoreError::ConfigExists { path: now.to_owned() });
    }
    give(now, owner, mode)
}

/// Makes a directory and those it lies in; those that are there already are left as they are.
pub(crate) fn make_missing(path: &Path, owner: Option<&Account>) -> Result<(), RestoreError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| path.symlink_metadata().is_err()).collect();
    durable::create_dir_all_durable(path)?;
    missing.into_iter().try_for_each(|made| give(made, owner, 0o755))
}

/// What stands in the data directory for a file that lay outside and is put nowhere.
fn minimal(manifest: &Manifest, setting: &str, kept: &Path, owner: Option<&Account>) -> String {
    match setting {
        "config_file" => minimal_settings(manifest, kept),
        "hba_file" => minimal_hba(outside_path(manifest, "ident_file").is_some()),
        _ => minimal_ident(&owner.map_or_else(|| Account::current().name, |owner| owner.name.clone())),
    }
}

/// A `pg_hba.conf` that trusts the operating system's word, through the socket alone.
fn minimal_hba(mapped: bool) -> String {
    let map = if mapped { " map=highwater" } else { "" };
    format!(
        "# Written by highwater restore: only the server's own user may connect, through its socket.\n\
         local all all peer{map}\n"
    )
}

/// A `pg_ident.conf` by which the server's own user, whatever its name, is the superuser of nearly every cluster too; and root,
/// who could become that user anyway.
fn minimal_ident(user: &str) -> String {
    let mut text = "# Written by highwater restore: who may be whom.\n".to_owned();
    for (system, database) in [(user, user), (user, "postgres"), ("root", user), ("root", "postgres")] {
        let line = format!("highwater \"{system}\" \"{database}\"\n");
        if !text.contains(&line) {
            text.push_str(&line);
        }
    }
    text
}

/// A `postgresql.conf` with what recovery depends on.
fn minimal_settings(manifest: &Manifest, kept: &Path) -> String {
    let mut lines = vec![
        "# Written by highwater restore. The original configuration lay outside the data directory and is kept as".to_owned(),
        format!("# {}", kept.display()),
    ];
    for (name, value) in &manifest.postgresql.settings {
        if TAKEN_OVER.contains(&name.as_str()) && !value.is_empty() {
            lines.push(conf_file::format(name, value));
        }
    }
    lines.join("\n") + "\n"
}

/// Appends the marked block; one that an earlier restore left stays, and what comes last counts.
pub(crate) fn append_block(
    config: &Path,
    lines: &[String],
    owner: Option<&Account>,
) -> Result<(), RestoreError> {
    let unnamed = || RestoreError::Unwritable { text: config.display().to_string() };
    let (home, name) = config.parent().zip(config.file_name()).ok_or_else(unnamed)?;
    let (mut text, mode) = below::read(home, Path::new(name))?;
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let block = format!("{RECOVERY_BEGIN}\n{}\n{RECOVERY_END}\n", lines.join("\n"));
    Ok(below::put(home, Path::new(name), &[&text, block.as_bytes()], owner, mode)?)
}

fn read(path: &Path) -> Result<Vec<u8>, RestoreError> {
    std::fs::read(path).map_err(|source| RestoreError::Io { what: "read", path: path.to_owned(), source })
}

fn mode_of(path: &Path) -> Result<u32, RestoreError> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(path);
    let metadata =
        metadata.map_err(|source| RestoreError::Io { what: "look at", path: path.to_owned(), source })?;
    Ok(metadata.mode() & 0o777)
}

/// Sets owner and mode of a file or directory that we made, never through a link.
pub(crate) fn give(path: &Path, owner: Option<&Account>, mode: u32) -> Result<(), RestoreError> {
    use rustix::fs::{Mode, OFlags};
    let failed = |what: &'static str| {
        move |source: std::io::Error| RestoreError::Io { what, path: path.to_owned(), source }
    };
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty()).map_err(|errno| failed("open")(errno.into()))?;
    crate::ownership::give(&file, owner).map_err(failed("give away"))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))
        .map_err(|errno| failed("set the mode of")(errno.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The directory is the server's user's, who must not get at what root may read: a link that leads out of it is not followed, and
    /// one within is.
    #[test]
    fn nothing_from_elsewhere_gets_into_a_configuration() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, theirs) = (scratch.path().join("data"), scratch.path().join("shadow"));
        std::fs::create_dir(&data).unwrap();
        durable::replace(&theirs, &[b"hunter2"]).unwrap();
        let config = data.join("postgresql.conf");
        std::os::unix::fs::symlink("../shadow", &config).unwrap();
        let refused = append_block(&config, &["port = 1".to_owned()], None).unwrap_err();
        assert!(refused.to_string().contains("leads out of the directory"), "{refused}");
        assert!(config.is_symlink());
        assert_eq!(std::fs::read(&theirs).unwrap(), b"hunter2");

        std::fs::remove_file(&config).unwrap();
        durable::replace(&data.join("base.conf"), &[b"port = 2"]).unwrap();
        std::os::unix::fs::symlink("base.conf", &config).unwrap();
        append_block(&config, &["port = 1".to_owned()], None).unwrap();
        assert!(!config.is_symlink());
        let text = std::fs::read_to_string(&config).unwrap();
        assert!(text.starts_with(&format!("port = 2\n{RECOVERY_BEGIN}\nport = 1\n")), "{text}");
        assert_eq!(std::fs::read(data.join("base.conf")).unwrap(), b"port = 2");
    }
}
