//! Where the tablespaces of a restored cluster lie.
//!
//! Each goes back to the path it had unless it is mapped elsewhere; a path that is in use is refused by preflight, so a copy
//! restored beside the live cluster must map. PostgreSQL makes the links anew from `tablespace_map` when it reads
//! `backup_label` (`read_tablespace_map` in `xlogrecovery.c`), so the map is written with the new paths.

use std::path::{Path, PathBuf};

use highwater_pitr::label::{LabelError, parse_tablespace_map};

use crate::places;

/// `A=B` of `--tablespace-map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    /// The tablespace: its path on the original host, its oid or its name.
    pub from: String,
    /// Its directory here, absolute.
    pub to: PathBuf,
}

/// A tablespace and where it goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placed {
    /// Its oid, the name of its link in `pg_tblspc`.
    pub oid: u32,
    /// Where it lay.
    pub original: String,
    /// Where it goes.
    pub directory: PathBuf,
}

/// What a mapping can be about.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Its oid.
    pub oid: u32,
    /// Its name, where the backup knows it.
    pub name: Option<&'a str>,
    /// Its path on the original host.
    pub path: &'a str,
}

/// A mapping that cannot be followed.
#[derive(Debug, thiserror::Error)]
pub enum TablespaceError {
    /// Not of the form `A=B`.
    #[error("`{0}` is not a tablespace mapping")]
    Malformed(String),
    /// The new place must be absolute: the server resolves links from the data directory.
    #[error("the tablespace directory `{0}` is not an absolute path")]
    NotAbsolute(String),
    /// Nothing in the backup is called that.
    #[error("the backup has no tablespace `{from}`; it has {known}")]
    Unknown {
        /// What was named.
        from: String,
        /// What there is.
        known: String,
    },
    /// Two would lie in one directory, or one inside another or the data directory.
    #[error("{first} and {second} cannot both be used: one contains the other")]
    Overlap {
        /// A directory.
        first: String,
        /// Another.
        second: String,
    },
    /// The backup's `tablespace_map` cannot be read.
    #[error(transparent)]
    BadMap(#[from] LabelError),
    /// The backup's `tablespace_map` names a tablespace that its manifest does not.
    #[error("the backup's tablespace_map names tablespace {0}, which its manifest does not know")]
    NotInManifest(u32),
}

impl TablespaceError {
    /// What to do next.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Malformed(_) | Self::NotAbsolute(_) => {
                Some("write --tablespace-map /path/it/had=/path/it/gets (or OID=…, or NAME=…)".into())
            }
            Self::Unknown { .. } => Some("name one of these by path, oid or name".into()),
            Self::Overlap { .. } => Some("give each directory a place of its own".into()),
            Self::BadMap(error) => error.hint(),
            Self::NotInManifest(_) => {
                Some("this is not what highwater writes; restore another backup".into())
            }
        }
    }
}

impl std::str::FromStr for Mapping {
    type Err = TablespaceError;

    /// `A=B`; an equals sign in a path is written `\=`, as pg_basebackup takes it.
    fn from_str(text: &str) -> Result<Mapping, TablespaceError> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars().peekable();
        while let Some(c) = characters.next() {
            match (c, parts.last_mut()) {
                ('\\', Some(part)) if characters.peek() == Some(&'=') => {
                    characters.next();
                    part.push('=');
                }
                ('=', _) => parts.push(String::new()),
                (other, Some(part)) => part.push(other),
                (_, None) => {}
            }
        }
        let [from, to] =
            <[String; 2]>::try_from(parts).map_err(|_| TablespaceError::Malformed(text.to_owned()))?;
        if from.is_empty() || to.is_empty() {
            return Err(TablespaceError::Malformed(text.to_owned()));
        }
        if !to.starts_with('/') {
            return Err(TablespaceError::NotAbsolute(to));
        }
        Ok(Mapping { from: without_slash(&from).to_owned(), to: PathBuf::from(without_slash(&to)) })
    }
}

/// Finds each tablespace's place.
///
/// # Errors
/// [`TablespaceError::Unknown`] for a mapping of something that is not in the backup, [`TablespaceError::NotAbsolute`],
/// [`TablespaceError::Overlap`] when two directories, or one and `data_dir`, contain each other.
pub fn place(
    tablespaces: &[Known<'_>],
    mappings: &[Mapping],
    data_dir: &Path,
) -> Result<Vec<Placed>, TablespaceError> {
    let names = |known: &Known<'_>, from: &str| {
        known.path == from || known.name == Some(from) || known.oid.to_string() == from
    };
    for mapping in mappings {
        if !tablespaces.iter().any(|known| names(known, &mapping.from)) {
            let known: Vec<String> =
                tablespaces.iter().map(|known| format!("{} ({})", known.path, known.oid)).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(TablespaceError::Unknown { from: mapping.from.clone(), known });
        }
    }
    let mut placed: Vec<Placed> = Vec::with_capacity(tablespaces.len());
    for known in tablespaces {
        let mapped = mappings.iter().find(|mapping| names(known, &mapping.from));
        let directory = mapped.map_or_else(|| PathBuf::from(known.path), |mapping| mapping.to.clone());
        if !directory.is_absolute() {
            return Err(TablespaceError::NotAbsolute(directory.display().to_string()));
        }
        let others = placed.iter().map(|other| other.directory.as_path()).chain(std::iter::once(data_dir));
        for other in others {
            if places::overlap(other, &directory) {
                let (first, second) = (directory.display().to_string(), other.display().to_string());
                return Err(TablespaceError::Overlap { first, second });
            }
        }
        placed.push(Placed { oid: known.oid, original: known.path.to_owned(), directory });
    }
    Ok(placed)
}

/// `tablespace_map` with each path replaced by the new one. Lines are `oid path`; in a path, a backslash stands before each
/// newline, carriage return and backslash (`do_pg_backup_start` in `xlog.c`).
///
/// # Errors
/// [`TablespaceError::BadMap`], [`TablespaceError::NotInManifest`] for an oid that is not among `placed`.
pub fn rewrite_map(map: &str, placed: &[Placed]) -> Result<String, TablespaceError> {
    let mut rewritten = String::with_capacity(map.len());
    for link in parse_tablespace_map(map)? {
        let place = placed.iter().find(|place| place.oid == link.oid);
        let place = place.ok_or(TablespaceError::NotInManifest(link.oid))?;
        rewritten.push_str(&format!("{} {}\n", link.oid, escaped(&place.directory.display().to_string())));
    }
    Ok(rewritten)
}

fn escaped(path: &str) -> String {
    let mut text = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '\n' | '\r' | '\\') {
            text.push('\\');
        }
        text.push(c);
    }
    text
}

fn without_slash(path: &str) -> &str {
    let trimmed = path.trim_end_matches('/');
    if trimmed.is_empty() { path } else { trimmed }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Known<'_> = Known { oid: 16384, name: Some("fast"), path: "/srv/fast" };
    const SLOW: Known<'_> = Known { oid: 16385, name: Some("slow"), path: "/srv/slow" };

    fn map(text: &str) -> Mapping {
        text.parse().unwrap()
    }

    #[test]
    fn a_tablespace_is_mapped_by_path_oid_or_name() {
        for mapping in ["/srv/fast=/new", "16384=/new", "fast=/new/"] {
            let placed = place(&[FAST, SLOW], &[map(mapping)], Path::new("/data")).unwrap();
            let directories: Vec<&Path> = placed.iter().map(|place| place.directory.as_path()).collect();
            assert_eq!(directories, [Path::new("/new"), Path::new("/srv/slow")], "{mapping}");
        }
        assert_eq!(map(r"/a\=b=/c\=d"), Mapping { from: "/a=b".into(), to: "/c=d".into() });
    }

    #[test]
    fn mappings_that_cannot_be_followed_are_refused() {
        assert!(matches!("nothing".parse::<Mapping>(), Err(TablespaceError::Malformed(_))));
        assert!(matches!("a=b=c".parse::<Mapping>(), Err(TablespaceError::Malformed(_))));
        assert!(matches!("a=relative".parse::<Mapping>(), Err(TablespaceError::NotAbsolute(_))));
        let place = |mapping: &str| place(&[FAST, SLOW], &[map(mapping)], Path::new("/data"));
        assert!(matches!(place("/srv/other=/new"), Err(TablespaceError::Unknown { .. })));
        assert!(matches!(place("fast=/srv/slow"), Err(TablespaceError::Overlap { .. })));
        assert!(matches!(place("fast=/data/inside"), Err(TablespaceError::Overlap { .. })));
        assert!(matches!(place("fast=/"), Err(TablespaceError::Overlap { .. })));
    }

    #[test]
    fn the_map_gets_the_new_paths() {
        let placed = place(&[FAST, SLOW], &[map("fast=/odd\\path\nx")], Path::new("/data")).unwrap();
        let map = rewrite_map("16384 /srv/fast\n16385 /srv/slow\n", &placed).unwrap();
        assert_eq!(map, "16384 /odd\\\\path\\\nx\n16385 /srv/slow\n");
        let paths: Vec<String> =
            parse_tablespace_map(&map).unwrap().into_iter().map(|link| link.path).collect();
        assert_eq!(paths, ["/odd\\path\nx", "/srv/slow"]);
        assert!(matches!(rewrite_map("99 /x\n", &placed), Err(TablespaceError::NotInManifest(99))));
        assert!(matches!(rewrite_map("rubbish\n", &placed), Err(TablespaceError::BadMap(_))));
    }
}
