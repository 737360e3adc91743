//! One barrier for everything that was written.
//!
//! `syncfs` on each filesystem is one call where an fsync a file would be thousands, each a commit of the journal. It reports
//! failed writes since Linux 5.8; on an older kernel, and where it is refused, each file and directory is fsynced.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::RebuildError;
use super::layout::{Layout, RootIndex};
use super::work::Work;

/// Makes everything below the roots durable.
pub(super) fn everything(layout: &Layout, work: &Work, version_directory: &str) -> Result<(), RebuildError> {
    if filesystems(layout)? { Ok(()) } else { one_by_one(layout, work, version_directory) }
}

/// Makes durable what was written to the filesystems of the roots so far; false where that cannot be had or not be trusted.
pub(super) fn filesystems(layout: &Layout) -> Result<bool, RebuildError> {
    let failed = |path: &Path, source: io::Error| RebuildError::Io {
        operation: "make durable what was written to",
        path: path.display().to_string(),
        source,
    };
    if !syncfs_reports_errors() {
        return Ok(false);
    }
    for (path, directory) in layout.filesystems() {
        match rustix::fs::syncfs(directory) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOSYS | rustix::io::Errno::PERM) => return Ok(false),
            Err(errno) => return Err(failed(path, errno.into())),
        }
    }
    Ok(true)
}

/// Since 5.8 (commit 735e4ae5ba28 "vfs: track per-sb writeback errors and report them to syncfs").
fn syncfs_reports_errors() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    (major, minor) >= (5, 8)
}

/// Of what lies beside the cluster's own in a place nothing is touched: it may be closed to us.
fn one_by_one(layout: &Layout, work: &Work, version_directory: &str) -> Result<(), RebuildError> {
    for place in work.places() {
        let file = layout.open_to_write(place)?;
        rustix::fs::fsync(&file).map_err(|errno| layout.io("fsync", place, errno))?;
    }
    let roots = layout.roots().map(|(index, path)| (Some(index), path.to_owned()));
    let mut directories: Vec<(Option<RootIndex>, PathBuf)> = roots.collect();
    while let Some((root, directory)) = directories.pop() {
        let failed =
            |source| RebuildError::Io { operation: "fsync", path: directory.display().to_string(), source };
        for entry in std::fs::read_dir(&directory).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let is_ours = root.is_none_or(|root| layout.is_ours(root, name.as_bytes(), version_directory));
            if is_ours && entry.file_type().map_err(failed)?.is_dir() {
                directories.push((None, entry.path()));
            }
        }
        highwater_archive::durable::fsync_dir(&directory)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rebuild::RebuildOptions;
    use crate::tablespaces::Placed;
    use highwater_archive::manifest::{Extent, ExtentDigest, FileEntry, FileLine};

    #[test]
    fn both_ways_take_a_tree() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        // As on a filesystem of its own, and of a cluster of another major that another user runs.
        let apart =
            ["data/lost+found", "wal/lost+found", "space/lost+found", "space/PG_16_1", "space/PG_17_1/5"];
        for name in apart {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        let closed = apart.iter().filter(|name| !name.contains("PG_17"));
        for name in closed.clone() {
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o0)).unwrap();
        }
        let options = RebuildOptions {
            data_dir: at("data"),
            wal_dir: Some(at("wal")),
            tablespaces: vec![Placed { oid: 16384, original: "/x".into(), directory: at("space") }],
            owner: None,
            claimed: Vec::new(),
            jobs: 1,
            in_place: None,
        };
        let layout = Layout::create(&options, 0o700).unwrap();
        let extent = Extent { pack: 0, frame: 0, offset: 122, stored_len: 40, digest: ExtentDigest([0; 16]) };
        let file = FileEntry { size: 32, mode: 0o600, mtime: 0, extents: vec![extent] };
        let mut work = Work::new(1 << 20);
        for line in [
            FileLine::Pack { pack: 0, path: "pack".into(), header: Vec::new() },
            FileLine::Dir { path: "base".parse().unwrap(), mode: 0o700 },
            FileLine::File { path: "base/1".parse().unwrap(), file },
        ] {
            work.add(line, false, &layout).unwrap();
        }
        let place = work.places().next().unwrap();
        layout.open_to_write(place).unwrap();
        everything(&layout, &work, "PG_17_1").unwrap();
        // Root opens everything, so it is seen from who was looked at and not from a refusal.
        one_by_one(&layout, &work, "PG_17_1").unwrap();
        for (root, name, is_ours) in [
            (0, "base", true),
            (0, "lost+found", false),
            (2, "lost+found", false),
            (2, "summaries", true),
            (2, "other", false),
            (3, "PG_16_1", false),
            (3, "PG_17_1", true),
        ] {
            assert_eq!(layout.is_ours(root, name.as_bytes(), "PG_17_1"), is_ours, "{root} {name}");
        }
        for name in closed {
            std::fs::set_permissions(at(name), std::fs::Permissions::from_mode(0o700)).unwrap();
        }
    }
}
