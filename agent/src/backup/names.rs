//! What a name in a data directory means: what is copied, what never is, and which files hold relations.
//!
//! The lists are those of `backup/basebackup.c` (`excludeDirContents`, `excludeFiles`, `sendDir`), the same in PostgreSQL 14
//! to 18; names of relation files are read as `parse_filename_for_nontemp_relation` does (`storage/file/reinit.c`).

/// Directories at the top whose contents are made anew by a starting server, or are not part of a backup. They are kept empty.
const EMPTIED_DIRECTORIES: [&[u8]; 8] = [
    b"pg_wal",
    b"pg_replslot",
    b"pg_dynshmem",
    b"pg_notify",
    b"pg_serial",
    b"pg_snapshots",
    b"pg_stat_tmp",
    b"pg_subtrans",
];

/// Directories of `pg_wal` that a server expects.
pub const WAL_DIRECTORIES: [&[u8]; 2] = [b"archive_status", b"summaries"];

/// Our own state in the data directory: which lineage it writes. A copy must not have it.
const OWN_DIRECTORY: &[u8] = b"highwater";

/// Files that are left out wherever they lie, by their whole name.
const LEFT_OUT: [&[u8]; 7] = [
    b"postgresql.auto.conf.tmp",
    b"current_logfiles.tmp",
    b"backup_label",
    b"tablespace_map",
    b"backup_manifest",
    b"postmaster.pid",
    b"postmaster.opts",
];

/// Names that are left out wherever they lie, by how they begin: caches, and temporary files and directories.
const LEFT_OUT_BEGINNINGS: [&[u8]; 2] = [b"pg_internal.init", b"pgsql_tmp"];

/// What kind of directory names are looked up in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirectoryKind {
    /// The data directory itself.
    Top,
    /// `base`: a directory for each database.
    Base,
    /// `pg_tblspc`: a link for each tablespace.
    Tablespaces,
    /// What such a link leads to: version directories.
    Tablespace,
    /// A version directory of a tablespace: a directory for each database.
    TablespaceVersion,
    /// `global`.
    Global,
    /// A database's directory.
    Database,
    /// Anything else.
    Other,
}

impl DirectoryKind {
    /// The kind of the directory `name` in a directory of this kind.
    pub fn of_child(self, name: &[u8]) -> DirectoryKind {
        let numbered = !name.is_empty() && name.iter().all(u8::is_ascii_digit);
        match (self, name) {
            (DirectoryKind::Top, b"base") => DirectoryKind::Base,
            (DirectoryKind::Top, b"global") => DirectoryKind::Global,
            (DirectoryKind::Top, b"pg_tblspc") => DirectoryKind::Tablespaces,
            (DirectoryKind::Tablespaces, _) if numbered => DirectoryKind::Tablespace,
            (DirectoryKind::Tablespace, _) => DirectoryKind::TablespaceVersion,
            (DirectoryKind::Base | DirectoryKind::TablespaceVersion, _) if numbered => {
                DirectoryKind::Database
            }
            (_, _) => DirectoryKind::Other,
        }
    }

    /// Whether relation files lie in it.
    pub fn holds_relations(self) -> bool {
        matches!(self, DirectoryKind::Global | DirectoryKind::Database)
    }
}

/// Whether the directory `name` at the top of the data directory is kept without its contents.
pub fn is_emptied(name: &[u8]) -> bool {
    EMPTIED_DIRECTORIES.contains(&name)
}

/// Whether `name`, found in a directory of `kind`, is no part of a backup.
pub fn is_left_out(kind: DirectoryKind, name: &[u8]) -> bool {
    LEFT_OUT.contains(&name)
        || LEFT_OUT_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning))
        || (kind == DirectoryKind::Top && name == OWN_DIRECTORY)
        || (kind == DirectoryKind::Global && name == b"pg_control")
        || (kind.holds_relations() && is_temporary_relation(name))
}

/// The forks of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fork {
    /// The relation's own data.
    Main,
    /// Free space map.
    FreeSpace,
    /// Visibility map.
    Visibility,
    /// What an unlogged relation begins with after a crash.
    Init,
}

/// What the name of a relation file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationFile {
    /// The relation's file number.
    pub number: u32,
    /// Which fork.
    pub fork: Fork,
    /// Which file of the fork, each of `relation_segment_blocks` pages.
    pub segment: u32,
}

impl RelationFile {
    /// Reads `<number>[_fsm|_vm|_init][.<segment>]`; anything else is no relation file.
    pub fn parse(name: &[u8]) -> Option<RelationFile> {
        let name = std::str::from_utf8(name).ok()?;
        let (stem, segment) = match name.split_once('.') {
            Some((stem, digits)) => (stem, canonical_number(digits).filter(|number| *number > 0)?),
            None => (name, 0),
        };
        let (digits, fork) = match stem.split_once('_') {
            None => (stem, Fork::Main),
            Some((digits, "fsm")) => (digits, Fork::FreeSpace),
            Some((digits, "vm")) => (digits, Fork::Visibility),
            Some((digits, "init")) => (digits, Fork::Init),
            Some(_) => return None,
        };
        Some(RelationFile { number: canonical_number(digits).filter(|number| *number > 0)?, fork, segment })
    }
}

/// A decimal number as PostgreSQL prints it: no sign, no leading zero.
fn canonical_number(digits: &str) -> Option<u32> {
    let plain =
        digits.bytes().all(|byte| byte.is_ascii_digit()) && (!digits.starts_with('0') || digits == "0");
    if plain { digits.parse().ok() } else { None }
}

/// `t<digits>_<digits>` with a fork and segment at will: a relation of one session (`looks_like_temp_rel_name` in `storage/file/fd.c`).
fn is_temporary_relation(name: &[u8]) -> bool {
    let Some((b't', rest)) = name.split_first() else { return false };
    let Some(underscore) = rest.iter().position(|byte| *byte == b'_') else { return false };
    let (backend, rest) = rest.split_at(underscore);
    let backend_is_number = !backend.is_empty() && backend.iter().all(u8::is_ascii_digit);
    backend_is_number
        && rest.split_first().is_some_and(|(_, relation)| RelationFile::parse(relation).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(name: &str) -> Option<(u32, Fork, u32)> {
        RelationFile::parse(name.as_bytes()).map(|file| (file.number, file.fork, file.segment))
    }

    #[test]
    fn relation_files_are_told_from_others() {
        assert_eq!(parsed("16384"), Some((16384, Fork::Main, 0)));
        assert_eq!(parsed("16384.12"), Some((16384, Fork::Main, 12)));
        assert_eq!(parsed("16384_vm"), Some((16384, Fork::Visibility, 0)));
        assert_eq!(parsed("16384_fsm.1"), Some((16384, Fork::FreeSpace, 1)));
        assert_eq!(parsed("4294967295_init"), Some((u32::MAX, Fork::Init, 0)));
        for other in [
            "",
            "0",
            "016384",
            "16384.",
            "16384.0",
            "16384.01",
            "16384_x",
            "16384_vm_init",
            "PG_VERSION",
            "t3_16384",
        ] {
            assert_eq!(parsed(other), None, "{other}");
        }
    }

    #[test]
    fn the_exclusions_are_those_of_pg_basebackup() {
        use DirectoryKind::{Database, Global, Other, Top};
        for (kind, name) in [
            (Top, "postmaster.pid"),
            (Top, "highwater"),
            (Top, "backup_label"),
            (Global, "pg_internal.init.4711"),
            (Global, "pg_control"),
            (Database, "pg_internal.init"),
            (Database, "t4_16390"),
            (Database, "t4_16390_fsm.1"),
            (Other, "pgsql_tmp"),
            (Other, "pgsql_tmp4711.0"),
        ] {
            assert!(is_left_out(kind, name.as_bytes()), "{name}");
        }
        for (kind, name) in [
            (Top, "backup_label.old"),
            (Top, "current_logfiles"),
            (Top, "postgresql.auto.conf"),
            (Other, "highwater"),
            (Other, "pg_control"),
            (Other, "t4_16390"),
            (Database, "t_16390"),
            (Database, "t4_"),
        ] {
            assert!(!is_left_out(kind, name.as_bytes()), "{name}");
        }
        assert!(is_emptied(b"pg_wal") && !is_emptied(b"pg_xact"));
    }

    #[test]
    fn database_directories_are_found_in_both_places() {
        let kind = |path: &str| {
            path.split('/').fold(DirectoryKind::Top, |kind, name| kind.of_child(name.as_bytes()))
        };
        assert_eq!(kind("base/5"), DirectoryKind::Database);
        assert_eq!(kind("pg_tblspc/16384/PG_17_202406281/5"), DirectoryKind::Database);
        assert_eq!(kind("base/pgsql_tmp"), DirectoryKind::Other);
        assert_eq!(kind("base/5/6"), DirectoryKind::Other);
        assert_eq!(kind("global"), DirectoryKind::Global);
        assert_eq!(kind("pg_xact/5"), DirectoryKind::Other);
    }
}
