//! WAL that is in no archive, of a cluster that is brought back in place: it is moved aside, and not removed with the rest.
//!
//! What waits to be archived is a refusal ([`crate::standing`]). But the segment that a server was writing when it stopped has nothing that says
//! so, nor has one that was finished in the moment of a crash, and on a primary that broke down they hold the newest
//! transactions. So every segment, `.partial` and history file is kept that has no `.done` and that the archive does not hold. A
//! segment that is there to be used again bears a name beyond the end of the WAL and the bytes of an older one: its first page tells
//! (`InstallXLogFileSegment` in PostgreSQL's `xlog.c`).
//!
//! They are moved within their filesystem, each by one rename that replaces nothing. Cut off anywhere, each file is in one place
//! or the other, and the same command finds the rest again.

use std::io::{self, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use highwater_archive::catalog::Catalog;
use highwater_archive::durable::{self, DurableError, Published};
use highwater_pitr::segment::{SegmentName, WalFile};
use highwater_pitr::wal::read_segment_header;

use crate::ownership::{self, Account};

/// Where it is kept: in our own directory of the data directory, or in a place of `pg_wal` of its own.
pub const BESIDE: &str = "wal-before-delta";
/// The same in a place of `pg_wal` of its own.
pub const IN_PLACE_OF_WAL: &str = "highwater-wal-before-delta";

/// So much of a segment tells whose it is.
const HEAD_BYTES: u64 = 512;

/// WAL of one directory that is to be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptWal {
    /// Where it is.
    pub from: PathBuf,
    /// Where it goes.
    pub to: PathBuf,
    /// Its files, in order.
    pub names: Vec<String>,
    /// What they take, in bytes.
    pub bytes: u64,
}

/// Finds the WAL of a data directory, in which `own_directory` is ours, that none of the archives holds. `wal_dir` is where `pg_wal` goes, when not into it.
///
/// # Errors
/// [`DurableError`]; only what is absent counts as nothing.
pub fn find(
    data_dir: &Path,
    own_directory: &Path,
    wal_dir: Option<&Path>,
    archives: &[&Catalog],
) -> Result<Vec<KeptWal>, DurableError> {
    let inside = data_dir.join("pg_wal");
    let is_inside = inside.symlink_metadata().is_ok_and(|found| found.is_dir());
    let inside = is_inside.then(|| (inside, own_directory.join(BESIDE)));
    let apart = wal_dir.map(|place| (place.to_owned(), place.join(IN_PLACE_OF_WAL)));
    let held = |file: WalFile| archives.iter().any(|catalog| holds(catalog, file));
    let mut kept = Vec::new();
    for (from, to) in inside.into_iter().chain(apart) {
        let (names, bytes) = unarchived(&from, held)?;
        if !names.is_empty() {
            kept.push(KeptWal { from, to, names, bytes });
        }
    }
    Ok(kept)
}

/// Whether the archive has the file. Of a `.partial` it may have another one of the same name.
fn holds(catalog: &Catalog, file: WalFile) -> bool {
    match file {
        WalFile::Segment(name) => {
            let held = catalog.held().get(&name.timeline);
            held.is_some_and(|segments| segments.contains(name.number(catalog.segment_size())))
        }
        WalFile::History(timeline) => {
            catalog.timelines.iter().any(|entry| entry.timeline == timeline && entry.history.is_some())
        }
        WalFile::Partial(_) | WalFile::Backup { .. } => false,
    }
}

fn unarchived(directory: &Path, held: impl Fn(WalFile) -> bool) -> Result<(Vec<String>, u64), DurableError> {
    let failed =
        |path: &Path, source| DurableError::Io { operation: "look into", path: path.to_owned(), source };
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), 0)),
        Err(error) => return Err(failed(directory, error)),
    };
    let (mut names, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let entry = entry.map_err(|error| failed(directory, error))?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Ok(file) = name.parse::<WalFile>() else { continue };
        let path = entry.path();
        let metadata = path.symlink_metadata().map_err(|error| failed(&path, error))?;
        let is_done = || directory.join("archive_status").join(format!("{name}.done")).try_exists();
        if !metadata.is_file()
            || matches!(file, WalFile::Backup { .. })
            || held(file)
            || is_done().map_err(|error| failed(&path, error))?
        {
            continue;
        }
        if let WalFile::Segment(segment) = file
            && is_spare(&path, segment).map_err(|error| failed(&path, error))?
        {
            continue;
        }
        bytes += metadata.len();
        names.push(name);
    }
    names.sort_unstable();
    Ok((names, bytes))
}

/// Whether nothing was written yet to the segment of this name. What cannot be read as a segment is not known to be nothing.
fn is_spare(path: &Path, name: SegmentName) -> io::Result<bool> {
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(HEAD_BYTES).read_to_end(&mut head)?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok(true);
    }
    // The first pages of a timeline are those of the one before it, at the same address.
    Ok(read_segment_header(&head).is_ok_and(|header| header.page_addr != name.start(header.segment_size)))
}

impl KeptWal {
    /// Moves it, durably. A name that is taken there, by what an earlier restore kept, gets a number behind it.
    ///
    /// # Errors
    /// [`DurableError`].
    pub fn store(&self, owner: Option<&Account>) -> Result<(), DurableError> {
        let failed =
            |path: &Path, source| DurableError::Io { operation: "move", path: path.to_owned(), source };
        let to = &self.to;
        match std::fs::DirBuilder::new().mode(0o700).create(to) {
            Ok(()) => {
                let made = std::fs::File::open(to).map_err(|error| failed(to, error))?;
                ownership::give(made, owner).map_err(|error| failed(to, error))?;
                durable::fsync_dir(to.parent().unwrap_or(to))?;
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(failed(to, error)),
        }
        // Never through a link, which the server's user may have made.
        if !to.symlink_metadata().map_err(|error| failed(to, error))?.is_dir() {
            return Err(failed(to, io::ErrorKind::NotADirectory.into()));
        }
        for name in &self.names {
            let from = self.from.join(name);
            let free =
                std::iter::once(to.join(name)).chain((1..u32::MAX).map(|n| to.join(format!("{name}.{n}"))));
            for place in free {
                if durable::move_new(&from, &place)? == Published::New {
                    break;
                }
            }
        }
        Ok(())
    }

    /// What a person should know of it.
    pub fn note(&self) -> String {
        let (first, last) = (self.names.first().cloned().unwrap_or_default(), self.names.last());
        let names = match last.filter(|last| **last != first) {
            Some(last) => format!("{} files, {first} to {last}", self.names.len()),
            None => first,
        };
        format!(
            "WAL in {} is in no archive ({names}): it is moved to {} and not removed; archive-push it from there to restore what only it holds, or remove it",
            self.from.display(),
            self.to.display()
        )
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods)]
mod tests {
    use highwater_pitr::segment::WalSegmentSize;

    use super::*;

    /// The head of a segment that begins at this segment's place, of PostgreSQL 17.
    fn head(of: &str) -> Vec<u8> {
        let (name, size) =
            (of.parse::<SegmentName>().unwrap(), WalSegmentSize::try_from(16u32 << 20).unwrap());
        let mut bytes = Vec::new();
        bytes.extend(0xD116u16.to_le_bytes());
        bytes.extend(2u16.to_le_bytes());
        bytes.extend(1u32.to_le_bytes());
        bytes.extend(name.start(size).as_u64().to_le_bytes());
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(7u64.to_le_bytes());
        bytes.extend((16u32 << 20).to_le_bytes());
        bytes.extend(8192u32.to_le_bytes());
        bytes.resize(1000, 1);
        bytes
    }

    /// I7: what a broken primary wrote last is in no archive and has no file that says so; it is not removed, however often the
    /// restore is begun again.
    #[test]
    fn what_no_archive_has_is_moved_and_what_is_to_be_used_again_is_not() {
        let scratch = tempfile::tempdir().unwrap();
        let data = scratch.path();
        let wal = data.join("pg_wal");
        std::fs::create_dir_all(wal.join("archive_status")).unwrap();
        std::fs::create_dir(data.join("highwater")).unwrap();
        assert_eq!(find(data, &data.join("highwater"), None, &[]).unwrap(), []);
        let segment = |n: u32| format!("0000000200000000000000{n:02X}");
        for (name, bytes) in [
            (segment(1), head(&segment(1))),
            // Archived, used again, and made to be used.
            (segment(2), head(&segment(2))),
            (segment(9), head(&segment(3))),
            (segment(10), vec![0; 1000]),
            // What cannot be read is not known to be nothing.
            (segment(4), b"rubbish".to_vec()),
            (format!("{}.partial", segment(1)), b"x".to_vec()),
            (format!("{}.00000028.backup", segment(1)), b"x".to_vec()),
            ("00000002.history".to_owned(), b"x".to_vec()),
            ("xlogtemp.1".to_owned(), b"x".to_vec()),
        ] {
            std::fs::write(wal.join(name), bytes).unwrap();
        }
        std::fs::write(wal.join(format!("archive_status/{}.done", segment(2))), "").unwrap();
        let (names, _) = unarchived(&wal, |file| matches!(file, WalFile::History(_))).unwrap();
        assert_eq!(names, [segment(1), format!("{}.partial", segment(1)), segment(4)]);
        let [kept] =
            <[KeptWal; 1]>::try_from(find(data, &data.join("highwater"), None, &[]).unwrap()).unwrap();
        assert_eq!(kept.names.len(), 4);
        assert!(kept.note().contains("4 files, 00000002.history to"), "{}", kept.note());
        // Cut off after one of them.
        let first = KeptWal { names: vec![segment(1)], ..kept };
        first.store(None).unwrap();
        let [rest] =
            <[KeptWal; 1]>::try_from(find(data, &data.join("highwater"), None, &[]).unwrap()).unwrap();
        assert_eq!(rest.names.len(), 3);
        rest.store(None).unwrap();
        assert_eq!(find(data, &data.join("highwater"), None, &[]).unwrap(), []);
        // Another one of the same name does not take its place.
        std::fs::write(wal.join(segment(1)), b"another").unwrap();
        find(data, &data.join("highwater"), None, &[]).unwrap().first().unwrap().store(None).unwrap();
        let there = data.join("highwater").join(BESIDE);
        assert_eq!(std::fs::read(there.join(segment(1))).unwrap(), head(&segment(1)));
        assert_eq!(std::fs::read(there.join(format!("{}.1", segment(1)))).unwrap(), b"another");
        assert_eq!(std::fs::read_dir(there).unwrap().count(), 5);
    }

    /// Only what is absent is nothing; and nothing is moved through a link.
    #[test]
    fn what_cannot_be_looked_into_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let at = |name: &str| scratch.path().join(name);
        std::fs::write(at("file"), "x").unwrap();
        assert!(matches!(
            find(&at("data"), &at("data/highwater"), Some(&at("file")), &[]),
            Err(DurableError::Io { .. })
        ));
        assert_eq!(find(&at("data"), &at("data/highwater"), Some(&at("absent")), &[]).unwrap(), []);
        std::fs::create_dir_all(at("wal")).unwrap();
        std::fs::create_dir_all(at("elsewhere")).unwrap();
        std::fs::write(at("wal/00000002.history"), "x").unwrap();
        std::os::unix::fs::symlink(at("elsewhere"), at("wal").join(IN_PLACE_OF_WAL)).unwrap();
        let kept = find(&at("data"), &at("data/highwater"), Some(&at("wal")), &[]).unwrap();
        assert!(kept.first().unwrap().store(None).is_err() && at("wal/00000002.history").exists());
    }
}
