//! Configuration files that lay outside the data directory, as Debian's do (I25).
//!
//! The rebuild keeps each of them, unchanged, under its old path in `highwater/config/` of the new data directory. From there
//! either they are put back into one directory (`--config-to`), with a marked block in `postgresql.conf` that names the new
//! places where those differ; or they stay kept, and the data directory gets a minimal `postgresql.conf`, `pg_hba.conf`
//! and `pg_ident.conf` with which the server starts for its own user, and root, and nobody else.

use std::path::{Path, PathBuf};

use highwater_archive::durable;
use highwater_archive::manifest::Manifest;

use crate::conf_file;
use crate::error::RestoreError;
use crate::ownership::Account;
use crate::rebuild::OUTSIDE_DIRECTORY;

/// Begins the block in a `postgresql.conf` that was put back.
const BLOCK_BEGIN: &str = "# BEGIN highwater restore";
/// Ends it.
const BLOCK_END: &str = "# END highwater restore";

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
    /// `postgresql.conf` is a minimal one.
    pub minimal: bool,
    /// Settings for the recovery block, such as `hba_file`.
    pub corrections: Vec<(String, String)>,
    /// What a person should know: each a sentence.
    pub notes: Vec<String>,
}

/// The original path of one of the three files, when it lay outside the data directory.
fn outside_path<'m>(manifest: &'m Manifest, setting: &str) -> Option<&'m Path> {
    let path = Path::new(manifest.config_files.get(setting)?);
    let inside = path.starts_with(&manifest.data_directory) || !path.is_absolute();
    (!inside).then_some(path)
}

/// Refuses a `--config-to` whose files would replace something.
///
/// # Errors
/// [`RestoreError::ConfigExists`].
pub fn check_destination(manifest: &Manifest, directory: &Path) -> Result<(), RestoreError> {
    for (setting, _) in NAMES {
        let Some(name) = outside_path(manifest, setting).and_then(Path::file_name) else { continue };
        let path = directory.join(name);
        if path.symlink_metadata().is_ok() {
            return Err(RestoreError::ConfigExists { path });
        }
    }
    Ok(())
}

/// Puts the configuration in place.
///
/// # Errors
/// [`RestoreError::Durable`], [`RestoreError::Io`], [`RestoreError::ConfigExists`].
pub fn place(
    manifest: &Manifest,
    data_dir: &Path,
    config_to: Option<&Path>,
    owner: Option<&Account>,
) -> Result<Placed, RestoreError> {
    let kept = data_dir.join(OUTSIDE_DIRECTORY);
    match config_to {
        Some(directory) => put_back(manifest, data_dir, &kept, directory, owner),
        None => minimal(manifest, data_dir, &kept, owner),
    }
}

/// Where a file from outside is kept.
fn kept_at(kept: &Path, original: &Path) -> PathBuf {
    kept.join(original.strip_prefix("/").unwrap_or(original))
}

/// The original files into `directory`.
fn put_back(
    manifest: &Manifest,
    data_dir: &Path,
    kept: &Path,
    directory: &Path,
    owner: Option<&Account>,
) -> Result<Placed, RestoreError> {
    let mut placed = Placed::default();
    let Some(home) = outside_path(manifest, "config_file").and_then(Path::parent) else {
        placed.notes.push(
            "the configuration lay in the data directory and is there again; nothing to put elsewhere".into(),
        );
        return Ok(placed);
    };
    durable::create_dir_all_durable(directory)?;
    give(directory, owner, 0o755)?;
    for original in files_below(&kept_at(kept, home))? {
        let relative = original.strip_prefix(kept_at(kept, home)).unwrap_or(&original).to_owned();
        let path = directory.join(&relative);
        if let Some(parent) = path.parent().filter(|parent| *parent != directory) {
            durable::create_dir_all_durable(parent)?;
            give(parent, owner, 0o755)?;
        }
        let mode = mode_of(&original)?;
        let content = read(&original)?;
        if durable::write_new(&path, &[content])? == durable::Published::Exists {
            return Err(RestoreError::ConfigExists { path });
        }
        give(&path, owner, mode)?;
    }
    let config = directory.join(file_name(manifest, "config_file"));
    let mut lines = Vec::new();
    if Path::new(&manifest.data_directory) != data_dir {
        lines.push(conf_file::format("data_directory", &data_dir.display().to_string()));
    }
    for (setting, _) in NAMES.into_iter().skip(1) {
        let Some(original) = outside_path(manifest, setting) else { continue };
        let now = directory.join(original.strip_prefix(home).unwrap_or(original));
        if now != original && now.exists() {
            lines.push(conf_file::format(setting, &now.display().to_string()));
        }
    }
    if !lines.is_empty() {
        append_block(&config, &lines, owner)?;
    }
    for other in files_below(kept)?.iter().filter(|file| !file.starts_with(kept_at(kept, home))) {
        let original = Path::new("/").join(other.strip_prefix(kept).unwrap_or(other));
        if !original.exists() {
            placed.notes.push(format!(
                "{} was read by the original server and is not on this host; it is kept as {}",
                original.display(),
                other.display()
            ));
        }
    }
    placed.config_file = Some(config);
    Ok(placed)
}

/// Files with which the server starts, where the originals lay elsewhere.
fn minimal(
    manifest: &Manifest,
    data_dir: &Path,
    kept: &Path,
    owner: Option<&Account>,
) -> Result<Placed, RestoreError> {
    let mut placed = Placed::default();
    let map_lies_outside = outside_path(manifest, "ident_file").is_some();
    for (setting, name) in NAMES {
        let Some(original) = outside_path(manifest, setting) else { continue };
        let path = data_dir.join(name);
        let content = match setting {
            "config_file" => {
                placed.minimal = true;
                minimal_settings(manifest, &kept_at(kept, original))
            }
            "hba_file" => minimal_hba(map_lies_outside),
            _ => minimal_ident(&owner.map_or_else(|| Account::current().name, |owner| owner.name.clone())),
        };
        // What the data directory of such a host holds under this name was never read by the server.
        durable::replace(&path, &[content])?;
        give(&path, owner, 0o600)?;
        if setting != "config_file" && outside_path(manifest, "config_file").is_none() {
            placed.corrections.push((setting.to_owned(), path.display().to_string()));
        }
        placed.notes.push(format!(
            "{} lay outside the data directory: it is kept as {}, and a minimal {name} is in its place",
            original.display(),
            kept_at(kept, original).display()
        ));
    }
    if outside_path(manifest, "config_file").is_none() {
        for other in files_below(kept)? {
            let original = Path::new("/").join(other.strip_prefix(kept).unwrap_or(&other));
            let one_of_three =
                NAMES.iter().any(|(setting, _)| outside_path(manifest, setting) == Some(&original));
            if !one_of_three && !original.exists() {
                placed.notes.push(format!(
                    "{} is included by the configuration and is not on this host; it is kept as {}",
                    original.display(),
                    other.display()
                ));
            }
        }
    }
    Ok(placed)
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

fn file_name(manifest: &Manifest, setting: &str) -> PathBuf {
    let name = outside_path(manifest, setting).and_then(Path::file_name);
    name.map_or_else(|| PathBuf::from("postgresql.conf"), PathBuf::from)
}

/// Appends the marked block; one that an earlier restore left stays, and what comes last counts.
pub(crate) fn append_block(
    config: &Path,
    lines: &[String],
    owner: Option<&Account>,
) -> Result<(), RestoreError> {
    let mode = mode_of(config)?;
    let mut text = read(config)?;
    if !text.ends_with(b"\n") {
        text.push(b'\n');
    }
    let block = format!("{BLOCK_BEGIN}\n{}\n{BLOCK_END}\n", lines.join("\n"));
    durable::replace(config, &[text.as_slice(), block.as_bytes()])?;
    give(config, owner, mode)
}

/// Every regular file below `directory`, sorted; none when it is absent.
fn files_below(directory: &Path) -> Result<Vec<PathBuf>, RestoreError> {
    let mut files = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(current) = directories.pop() {
        let failed = |source| RestoreError::Io { what: "list", path: current.clone(), source };
        let entries = match std::fs::read_dir(&current) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(error)),
        };
        for entry in entries {
            let entry = entry.map_err(failed)?;
            let kind = entry.file_type().map_err(failed)?;
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    files.sort();
    Ok(files)
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
