//! Names that two writers could race for, in one place (I4).
//!
//! On a store that honours conditional creates, the name is the path and the store decides who wins: `names: plain`.
//!
//! On one that does not, `names: content`, a name carries the content: `<path>.<first 16 bytes of its digest>`. Two
//! writers of the same content write the same name, so nothing is lost; two writers of different contents never overwrite
//! each other. Before the put the names are listed, so that a late writer leaves nothing behind; after the put they are
//! listed again, and a second content is a hard error before success is reported. Both writers put before they list, so
//! at least one of two sees the other: both may fail, but never do both succeed.

use bytes::Bytes;

pub use crate::names::NameMode;
use crate::names::split_content_name;
use crate::store::{Created, Store, StoreError};

/// A race that could not be decided, or a store that failed.
#[derive(Debug, thiserror::Error)]
pub enum RaceError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Two writers have stored different contents for one name.
    #[error("{path}: two writers stored different contents: {}", names.join(" and "))]
    TwoContents {
        /// The path that both meant.
        path: String,
        /// The names under which the contents lie.
        names: Vec<String>,
    },
    /// The store does not list what it has just confirmed, so that two writers could miss each other.
    #[error("{name}: the store confirmed it and does not list it")]
    NotListed {
        /// The name that was stored.
        name: String,
    },
}

impl RaceError {
    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Store(error) => error.hint(),
            Self::TwoContents { .. } => Some(
                "this store ignores conditional writes; find out which of the two is right, and remove the other by hand"
                    .into(),
            ),
            Self::NotListed { .. } => {
                Some("a store without conditional writes must at least list what it holds; use another one".into())
            }
        }
    }
}

/// The answer of [`publish`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "an existing object must be compared with what was to be written"]
pub enum Published {
    /// This call wrote it.
    New,
    /// Something is there already, under this name.
    Exists(String),
}

/// Stores `body` as the object `path`. `name` is [`NameMode::name`] of it.
///
/// # Errors
/// [`RaceError`]; after [`RaceError::TwoContents`] the content may be stored, and is not to be relied on.
pub async fn publish(
    store: &dyn Store,
    mode: NameMode,
    path: &str,
    name: &str,
    body: Vec<Bytes>,
) -> Result<Published, RaceError> {
    if mode == NameMode::Plain {
        return Ok(match store.create(name, body).await? {
            Created::New => Published::New,
            Created::Exists => Published::Exists(name.to_owned()),
        });
    }
    if let Some(present) = find(store, mode, path).await? {
        // Found by its name alone, and about to be relied on.
        store.confirm(&present).await?;
        return Ok(Published::Exists(present));
    }
    let created = store.create(name, body).await?;
    match find(store, mode, path).await? {
        Some(present) if present == name => Ok(match created {
            Created::New => Published::New,
            Created::Exists => Published::Exists(present),
        }),
        Some(other) => {
            Err(RaceError::TwoContents { path: path.to_owned(), names: vec![other, name.to_owned()] })
        }
        None => Err(RaceError::NotListed { name: name.to_owned() }),
    }
}

/// The name under which the object `path` lies, if it is there. With `names: plain` that is the path itself, and the
/// store is not asked.
///
/// # Errors
/// [`RaceError::TwoContents`] when more than one name stands for it.
pub async fn find(store: &dyn Store, mode: NameMode, path: &str) -> Result<Option<String>, RaceError> {
    if mode == NameMode::Plain {
        return Ok(Some(path.to_owned()));
    }
    let listed = store.list(&format!("{path}.")).await?;
    let mut names = listed
        .into_iter()
        .map(|entry| entry.path)
        .filter(|name| split_content_name(name).is_some_and(|(stem, _)| stem == path));
    let first = names.next();
    let others: Vec<String> = names.collect();
    match first {
        Some(first) if !others.is_empty() => Err(RaceError::TwoContents {
            path: path.to_owned(),
            names: std::iter::once(first).chain(others).collect(),
        }),
        found => Ok(found),
    }
}

/// Reads the object `path` whole, under whatever name it lies; `None` when it is proven absent.
///
/// # Errors
/// [`RaceError`].
pub async fn read(
    store: &dyn Store,
    mode: NameMode,
    path: &str,
) -> Result<Option<(String, Bytes)>, RaceError> {
    let Some(name) = find(store, mode, path).await? else { return Ok(None) };
    match store.get(&name).await {
        Ok(bytes) => Ok(Some((name, bytes))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
