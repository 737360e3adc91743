//! A directory as a store, as durable as the rest (I3).
//!
//! An object is a file. `write` makes it: temporary name in the same directory, fsync, publish without replacing, fsync of
//! the directory and of each directory on the way that might still be in memory only. `read` and `walk` read and list it.
//! Everything is reached from the root directory by descriptor, component by component, and no symbolic link below the
//! root is followed: neither a crafted name nor a planted link leads out of the repository. Files are 0600, directories 0700.
//!
//! The root is opened by its path for each operation, and held against the directory that it was at first: where a volume is unmounted,
//! or another one mounted, in the middle of a push, what lies below the mount point is not taken for the repository, nor made into one.
//!
//! System calls run on tokio's blocking threads, one hop for each operation. Directories are never removed, so that
//! one that was made durable stays so.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream;

use super::spec::shown;
use super::{Created, ListEntry, Listing, ObjectInfo, ObjectStream, Store, StoreError, path};
use crate::durable::at;

#[cfg(test)]
mod proof;
mod read;
mod walk;
mod write;

/// A repository in a local (or mounted) directory.
#[derive(Debug)]
pub struct LocalStore {
    tree: Arc<Tree>,
}

/// What the blocking half works on.
#[derive(Debug)]
struct Tree {
    root: PathBuf,
    /// The root as it was found first. Held open, it keeps its inode's number, and its volume from being unmounted by mistake.
    first_root: OnceLock<OwnedFd>,
    /// Directories, by path, known to be durable from the root down: device and inode tell whether it is still the same one.
    durable: Mutex<HashMap<String, (u64, u64)>>,
}

impl LocalStore {
    /// A store in the directory `root`, which need not exist yet: the first create makes it.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        let (first_root, durable) = (OnceLock::new(), Mutex::default());
        Self { tree: Arc::new(Tree { root: root.into(), first_root, durable }) }
    }

    /// A store in the directory of a `file:///directory` URL.
    ///
    /// # Errors
    /// [`StoreError::InvalidUrl`] for another host, the root directory, or anything after the path.
    pub fn from_url(url: &url::Url) -> Result<Self, StoreError> {
        let invalid =
            |reason: &str| StoreError::InvalidUrl { url: shown(url.as_str()), reason: reason.to_owned() };
        if url.query().is_some() || url.fragment().is_some() {
            return Err(invalid("a file URL is a directory and nothing else"));
        }
        let root =
            url.to_file_path().map_err(|()| invalid("it must name an absolute directory on this host"))?;
        if root.parent().is_none() {
            return Err(invalid("the root directory cannot be a repository"));
        }
        Ok(Self::new(root))
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.tree.root
    }

    /// Runs `work` on a blocking thread.
    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        path: &str,
        work: impl FnOnce(&Tree, &str) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        run(&self.tree, operation, path, work).await
    }
}

async fn run<T: Send + 'static>(
    tree: &Arc<Tree>,
    operation: &'static str,
    path: &str,
    work: impl FnOnce(&Tree, &str) -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let (blocking_tree, blocking_path) = (Arc::clone(tree), path.to_owned());
    let answer = tokio::task::spawn_blocking(move || work(&blocking_tree, &blocking_path)).await;
    answer.unwrap_or_else(|stopped| Err(tree.error(operation, path, io::Error::other(stopped))))
}

#[async_trait]
impl Store for LocalStore {
    async fn create(&self, path: &str, body: Vec<Bytes>) -> Result<Created, StoreError> {
        path::check(path)?;
        self.run("write", path, move |tree, path| tree.create(path, &body)).await
    }

    async fn confirm(&self, path: &str) -> Result<(), StoreError> {
        path::check(path)?;
        self.run("make durable", path, Tree::confirm).await
    }

    async fn get(&self, path: &str) -> Result<Bytes, StoreError> {
        path::check(path)?;
        self.run("read", path, Tree::get).await
    }

    async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes, StoreError> {
        path::check(path)?;
        self.run("read", path, move |tree, path| tree.get_range(path, range)).await
    }

    async fn stream(&self, path: &str) -> Result<ObjectStream, StoreError> {
        path::check(path)?;
        let reader = self.run("read", path, Tree::reader).await?;
        let (tree, path) = (Arc::clone(&self.tree), path.to_owned());
        Ok(Box::pin(stream::try_unfold(reader, move |mut reader| {
            let (tree, path) = (Arc::clone(&tree), path.clone());
            async move {
                run(&tree, "read", &path, move |tree, path| {
                    let chunk = reader.next_chunk(tree, path)?;
                    Ok(chunk.map(|chunk| (chunk, reader)))
                })
                .await
            }
        })))
    }

    async fn file(&self, path: &str) -> Result<Option<File>, StoreError> {
        path::check(path)?;
        self.run("read", path, Tree::file).await.map(Some)
    }

    async fn head(&self, path: &str) -> Result<Option<ObjectInfo>, StoreError> {
        path::check(path)?;
        self.run("look up", path, Tree::head).await
    }

    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<ListEntry>, StoreError> {
        path::check_prefix(prefix)?;
        let after = after.map(str::to_owned);
        self.run("list", prefix, move |tree, prefix| tree.list(prefix, after.as_deref())).await
    }

    async fn list_dir(&self, directory: &str) -> Result<Listing, StoreError> {
        path::check_prefix(directory)?;
        let directory = directory.strip_suffix('/').unwrap_or(directory);
        self.run("list", directory, Tree::list_directory).await
    }

    async fn delete(&self, path: &str) -> Result<(), StoreError> {
        path::check(path)?;
        self.run("delete", path, Tree::delete).await
    }

    async fn sweep(&self, directory: &str) -> Result<usize, StoreError> {
        path::check_prefix(directory)?;
        let directory = directory.strip_suffix('/').unwrap_or(directory);
        self.run("sweep leftovers from", directory, Tree::sweep).await
    }

    fn describe(&self) -> String {
        self.tree.describe()
    }
}

impl Tree {
    fn describe(&self) -> String {
        format!("file://{}", self.root.display())
    }

    /// Opens the root, which must be the directory that it was before. Absent, it is [`StoreError::NoRoot`].
    fn open_root(&self, operation: &'static str, path: &str) -> Result<OwnedFd, StoreError> {
        let no_root = |reason: String| StoreError::NoRoot { store: self.describe(), reason };
        let root = at::open_directory_path(&self.root).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => {
                no_root(format!("there is no such directory ({error})"))
            }
            _ => self.error(operation, path, error),
        })?;
        let identity = |directory: &OwnedFd| {
            let stat = rustix::fs::fstat(directory.as_fd());
            stat.map(|stat| (stat.st_dev, stat.st_ino))
                .map_err(|errno| self.error(operation, path, errno.into()))
        };
        let found = identity(&root)?;
        let first = match self.first_root.get() {
            Some(first) => first,
            None => {
                let kept = root.try_clone().map_err(|error| self.error(operation, path, error))?;
                self.first_root.get_or_init(|| kept)
            }
        };
        if identity(first)? == found {
            return Ok(root);
        }
        Err(no_root(
            "another directory lies there than a moment ago: a volume was unmounted, mounted or exchanged"
                .to_owned(),
        ))
    }

    /// What the system's answer means for an object.
    fn error(&self, operation: &'static str, path: &str, source: io::Error) -> StoreError {
        let (path, store) = (path.to_owned(), self.describe());
        match source.kind() {
            io::ErrorKind::NotFound => StoreError::NotFound { path, store },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                StoreError::NoSpace { operation, path, store, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                StoreError::PermissionDenied { operation, path, store, reason: source.to_string() }
            }
            io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
                let reason =
                    "a file stands where a directory belongs, or a directory or link where a file does"
                        .into();
                StoreError::NotAnObject { path, store, reason }
            }
            _ if source.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
                let reason = "a symbolic link stands where an object belongs".into();
                StoreError::NotAnObject { path, store, reason }
            }
            _ => StoreError::Io { operation, path, store, source },
        }
    }

    /// Whether the directory at `path` is the one that was made durable.
    fn is_durable(&self, path: &str, identity: (u64, u64)) -> bool {
        let durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.get(path) == Some(&identity)
    }

    fn remember_durable(&self, path: &str, identity: (u64, u64)) {
        let mut durable = self.durable.lock().unwrap_or_else(PoisonError::into_inner);
        durable.insert(path.to_owned(), identity);
    }
}
