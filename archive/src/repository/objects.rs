//! The sealed objects of one lineage in its store: names, keys and bytes brought together.

use std::sync::Arc;

use bytes::Bytes;

use crate::keyring::Keyring;
use crate::names::LineageId;
use crate::racing::{self, NameMode, Published};
use crate::repository::lineage::LineageError;
use crate::seal::{self, Codec, Digest, HeaderExtra, ObjectKind, ObjectName};
use crate::store::{Created, ListEntry, Store};

/// What it takes to read and write the objects of a lineage.
#[derive(Debug)]
pub(crate) struct Objects {
    store: Arc<dyn Store>,
    mode: NameMode,
    keys: Arc<Keyring>,
    lineage: LineageId,
    /// The lineage's directory in the store, with a closing `/`.
    prefix: String,
}

impl Objects {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        mode: NameMode,
        keys: Arc<Keyring>,
        lineage: LineageId,
        directory: &str,
    ) -> Self {
        Self { store, mode, keys, lineage, prefix: format!("{directory}/") }
    }

    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    pub(crate) fn mode(&self) -> NameMode {
        self.mode
    }

    pub(crate) fn keys(&self) -> &Arc<Keyring> {
        &self.keys
    }

    pub(crate) fn full_path(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    pub(crate) fn name<'a>(&self, kind: ObjectKind, path: &'a str) -> ObjectName<'a> {
        ObjectName { kind, lineage: self.lineage, path }
    }

    /// The name, below the lineage, of content with this digest.
    pub(crate) fn racing_name(&self, path: &str, digest: &Digest) -> String {
        self.mode.name(path, digest.short())
    }

    pub(crate) async fn create(
        &self,
        kind: ObjectKind,
        path: &str,
        codec: Codec,
        plain: &[u8],
    ) -> Result<Created, LineageError> {
        let sealed = seal::seal(&self.keys, &self.name(kind, path), codec, plain, HeaderExtra::default())?;
        Ok(self.store.create(&self.full_path(path), vec![sealed.into()]).await?)
    }

    pub(crate) async fn read(&self, kind: ObjectKind, path: &str) -> Result<Vec<u8>, LineageError> {
        let sealed = self.store.get(&self.full_path(path)).await?;
        Ok(seal::open(&self.keys, &self.name(kind, path), &sealed)?.plain)
    }

    pub(crate) async fn create_racing(
        &self,
        kind: ObjectKind,
        path: &str,
        codec: Codec,
        plain: &[u8],
    ) -> Result<Published, LineageError> {
        let name = self.racing_name(path, &self.keys.digest(plain));
        let sealed = seal::seal(&self.keys, &self.name(kind, &name), codec, plain, HeaderExtra::default())?;
        self.publish(path, &name, vec![sealed.into()]).await
    }

    /// Publishes an object that was sealed as `name`, which is [`Objects::racing_name`] of `path`. Answers a name below
    /// the lineage.
    pub(crate) async fn publish(
        &self,
        path: &str,
        name: &str,
        sealed: Vec<Bytes>,
    ) -> Result<Published, LineageError> {
        let (full_path, full_name) = (self.full_path(path), self.full_path(name));
        match racing::publish(&*self.store, self.mode, &full_path, &full_name, sealed).await? {
            Published::New => Ok(Published::New),
            Published::Exists(present) => Ok(Published::Exists(self.below(&present).to_owned())),
        }
    }

    /// The name, below the lineage, under which `path` lies; with `names: plain` without asking the store.
    pub(crate) async fn find(&self, path: &str) -> Result<Option<String>, LineageError> {
        let found = racing::find(&*self.store, self.mode, &self.full_path(path)).await?;
        Ok(found.map(|name| self.below(&name).to_owned()))
    }

    pub(crate) async fn read_racing(
        &self,
        kind: ObjectKind,
        path: &str,
    ) -> Result<Option<Vec<u8>>, LineageError> {
        let read = racing::read(&*self.store, self.mode, &self.full_path(path)).await?;
        let Some((name, sealed)) = read else { return Ok(None) };
        Ok(Some(seal::open(&self.keys, &self.name(kind, self.below(&name)), &sealed)?.plain))
    }

    pub(crate) async fn list(&self, prefix: &str) -> Result<Vec<ListEntry>, LineageError> {
        let mut entries = self.store.list(&self.full_path(prefix)).await?;
        for entry in &mut entries {
            entry.path = self.below(&entry.path).to_owned();
        }
        Ok(entries)
    }

    fn below<'a>(&self, path: &'a str) -> &'a str {
        path.strip_prefix(&self.prefix).unwrap_or(path)
    }
}
