//! Files below a directory that is the server's user's by now, who may put a link in the place of anything in it while root writes
//! there.
//!
//! What is written is opened below the directory, not through a link, and owner and mode are given to what was opened, not to what has its
//! name by then. What is read must lie in the directory, by whichever links it was reached: its contents are written again into a file
//! that the server's user reads.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use highwater_archive::durable::{self, DurableError};
use rustix::fs::{Mode, OFlags};

use crate::ownership::{self, Account};

/// Writes the file `name` below `root`, durably, in place of what was there, with owner and mode.
///
/// # Errors
/// [`DurableError`]; a link on the way is one.
pub fn put(
    root: &Path,
    name: &Path,
    content: &[&[u8]],
    owner: Option<&Account>,
    mode: u32,
) -> Result<(), DurableError> {
    let failed = |operation| move |source| DurableError::Io { operation, path: root.join(name), source };
    let file = durable::replace_below(root, name, content)?;
    ownership::give(&file, owner).map_err(failed("give away"))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))
        .map_err(|errno| failed("set the mode of")(errno.into()))?;
    file.sync_all().map_err(failed("fsync"))
}

/// What the file `name` of the directory `root` holds, and its mode bits.
///
/// # Errors
/// [`DurableError::Io`]: it is not there, is no file, or is a link that leads out of the directory.
pub fn read(root: &Path, name: &Path) -> Result<(Vec<u8>, u32), DurableError> {
    use std::os::unix::fs::MetadataExt as _;
    let read = || -> io::Result<(Vec<u8>, u32)> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(root, flags | OFlags::DIRECTORY, Mode::empty())?;
        let mut file =
            File::from(rustix::fs::openat(&directory, name, flags | OFlags::NONBLOCK, Mode::empty())?);
        if !place_of(&file)?.starts_with(place_of(&directory)?) {
            return Err(io::Error::other("it is a link that leads out of the directory"));
        }
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        let mut content = Vec::new();
        file.read_to_end(&mut content)?;
        Ok((content, metadata.mode() & 0o777))
    };
    read().map_err(|source| DurableError::Io { operation: "read", path: root.join(name), source })
}

/// Where the kernel says that something open is.
fn place_of(open: impl AsFd) -> io::Result<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", open.as_fd().as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use super::*;

    /// What is written goes into the directory `global`, and not to where a link of that name leads.
    #[test]
    fn nothing_is_written_or_removed_through_a_link() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, elsewhere) = (scratch.path().join("data"), scratch.path().join("elsewhere"));
        for made in [&data, &elsewhere] {
            std::fs::create_dir(made).unwrap();
        }
        let (name, theirs) = (Path::new("global/pg_control"), elsewhere.join("pg_control"));
        durable::replace(&theirs, &[b"theirs"]).unwrap();
        symlink("../elsewhere", data.join("global")).unwrap();
        let refused = put(&data, name, &[b"x"], None, 0o640).unwrap_err();
        assert!(refused.to_string().contains("global/pg_control"), "{refused}");
        durable::remove_below(&data, name).unwrap_err();
        assert_eq!(
            (std::fs::read(&theirs).unwrap(), theirs.metadata().unwrap().mode() & 0o777),
            (b"theirs".to_vec(), 0o600)
        );
        std::fs::remove_file(data.join("global")).unwrap();
        // Nothing is there to be removed, and then the file itself.
        durable::remove_below(&data, name).unwrap();
        std::fs::create_dir(data.join("global")).unwrap();
        durable::remove_below(&data, name).unwrap();
        // A link that is the file itself is replaced, and what it leads to stays.
        symlink(&theirs, data.join(name)).unwrap();
        put(&data, name, &[b"x", b"y"], None, 0o640).unwrap();
        let mode = data.join(name).symlink_metadata().unwrap().mode();
        assert_eq!((mode & 0o777, std::fs::read(data.join(name)).unwrap()), (0o640, b"xy".to_vec()));
        assert_eq!(std::fs::read(&theirs).unwrap(), b"theirs");
        durable::remove_below(&data, name).unwrap();
        assert!(!data.join(name).exists());
    }

    /// A link that leads out of the directory is not read, whatever it leads to; one that stays in it is.
    #[test]
    fn what_lies_elsewhere_is_not_read() {
        let scratch = tempfile::tempdir().unwrap();
        let (data, secret) = (scratch.path().join("data"), scratch.path().join("data-secret"));
        std::fs::create_dir(&data).unwrap();
        durable::replace(&secret, &[b"secret"]).unwrap();
        durable::replace(&data.join("main.conf"), &[b"port = 1\n"]).unwrap();
        for (name, target) in
            [("up", "../data-secret"), ("fifo", "."), ("near", "main.conf"), ("absent", "x")]
        {
            symlink(target, data.join(name)).unwrap();
        }
        symlink(&secret, data.join("absolute")).unwrap();
        for (name, words) in
            [("up", "leads out"), ("absolute", "leads out"), ("fifo", "no file"), ("absent", "No such file")]
        {
            let refused = read(&data, Path::new(name)).unwrap_err().to_string();
            assert!(refused.contains(words) && refused.contains(name), "{refused}");
        }
        assert_eq!(read(&data, Path::new("near")).unwrap(), (b"port = 1\n".to_vec(), 0o600));
        // By another name of the directory, too.
        symlink("data", scratch.path().join("link")).unwrap();
        assert_eq!(read(&scratch.path().join("link"), Path::new("main.conf")).unwrap().1, 0o600);
    }
}
