//! The race itself, in many orders (I4).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::names::ShortDigest;
use crate::store::memory::{Fault, Gate, MemoryStore, Operation};

const PATH: &str = "clusters/main/wal/x";

fn digest(content: u8) -> ShortDigest {
    ShortDigest::from_bytes([content; 16])
}

async fn put(store: &MemoryStore, mode: NameMode, content: u8) -> Result<Published, RaceError> {
    let body = vec![Bytes::from(vec![content; 10])];
    publish(store, mode, PATH, &mode.name(PATH, digest(content)), body).await
}

/// Gives way a number of times, between none and seven, that the seed decides.
fn gate(seed: u64) -> Gate {
    let state = Arc::new(AtomicU64::new(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1));
    Arc::new(move |_, _| {
        let next =
            state.load(Ordering::Relaxed).wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        state.store(next, Ordering::Relaxed);
        Box::pin(async move {
            for _ in 0..(next >> 61) {
                tokio::task::yield_now().await;
            }
        })
    })
}

/// I4: on a store that ignores conditions two writers of different contents may both fail, and none overwrites; two of the
/// same content both succeed.
#[tokio::test]
async fn two_writers_never_both_win_nor_overwrite() {
    let (mut both_failed, mut one_won) = (0, 0);
    for seed in 0..2000 {
        let store = MemoryStore::new();
        store.ignore_conditions(true);
        store.set_gate(Some(gate(seed)));
        let (a, b) = tokio::join!(put(&store, NameMode::Content, 1), put(&store, NameMode::Content, 2));
        let won = |answer: &Result<Published, RaceError>| matches!(answer, Ok(Published::New));
        assert!(!(won(&a) && won(&b)), "seed {seed}");
        for (answer, content) in [(&a, 1), (&b, 2)] {
            let name = NameMode::Content.name(PATH, digest(content));
            match answer {
                Ok(Published::New) => {
                    assert_eq!(store.peek(&name).unwrap(), vec![content; 10], "seed {seed}")
                }
                Ok(Published::Exists(other)) => assert_ne!(*other, name, "seed {seed}"),
                Err(RaceError::TwoContents { names, .. }) => assert_eq!(names.len(), 2),
                Err(other) => panic!("seed {seed}: {other}"),
            }
        }
        match (won(&a), won(&b)) {
            (false, false) => both_failed += 1,
            _ => one_won += 1,
        }
        let (a, b) = tokio::join!(put(&store, NameMode::Content, 9), put(&store, NameMode::Content, 9));
        assert!(a.is_err() || !won(&a), "seed {seed}");
        assert!(b.is_err() || !won(&b), "seed {seed}");
    }
    // Both outcomes were seen, or the orders were no races.
    assert!(both_failed > 0 && one_won > 0, "{both_failed} {one_won}");
}

/// I4: the same content from two writers is no conflict, in any order.
#[tokio::test]
async fn the_same_content_twice_is_the_same() {
    for mode in [NameMode::Plain, NameMode::Content] {
        for seed in 0..500 {
            let store = MemoryStore::new();
            store.ignore_conditions(mode == NameMode::Content);
            store.set_gate(Some(gate(seed)));
            let (a, b) = tokio::join!(put(&store, mode, 1), put(&store, mode, 1));
            let (a, b) = (a.unwrap(), b.unwrap());
            assert!(a == Published::New || b == Published::New);
            assert_eq!(find(&store, mode, PATH).await.unwrap(), Some(mode.name(PATH, digest(1))));
        }
    }
}

/// I4: a late writer leaves nothing behind.
#[tokio::test]
async fn a_late_writer_is_told_before_it_puts() {
    let store = MemoryStore::new();
    store.ignore_conditions(true);
    assert_eq!(put(&store, NameMode::Content, 1).await.unwrap(), Published::New);
    let first = NameMode::Content.name(PATH, digest(1));
    assert_eq!(put(&store, NameMode::Content, 2).await.unwrap(), Published::Exists(first.clone()));
    assert_eq!(store.paths(), [first]);
}

/// I4: after a conflict every reader and every later writer is told, and both contents are still there.
#[tokio::test]
async fn a_conflict_stays_one() {
    let store = MemoryStore::new();
    for content in [1, 2] {
        store.tamper(&NameMode::Content.name(PATH, digest(content)), vec![content]);
    }
    for content in [1, 2, 3] {
        let error = put(&store, NameMode::Content, content).await.unwrap_err();
        assert!(matches!(&error, RaceError::TwoContents { names, .. } if names.len() == 2), "{error}");
        assert!(error.hint().is_some());
    }
    assert!(read(&store, NameMode::Content, PATH).await.is_err());
    assert_eq!(store.paths().len(), 2);
}

/// Neighbours that begin with the same name are not contents of it.
#[tokio::test]
async fn neighbours_do_not_count() {
    let store = MemoryStore::new();
    let hex = "ab".repeat(16);
    for name in [
        format!("{PATH}.partial"),
        format!("{PATH}.partial.{hex}"),
        format!("{PATH}.variant.{hex}"),
        format!("{PATH}.{}", hex.to_uppercase()),
        format!("{PATH}.{hex}0"),
        format!("{PATH}0.{hex}"),
    ] {
        store.tamper(&name, vec![1]);
    }
    assert_eq!(find(&store, NameMode::Content, PATH).await.unwrap(), None);
    assert_eq!(put(&store, NameMode::Content, 1).await.unwrap(), Published::New);
}

/// A put whose reply was lost is found to be our own by the next attempt.
#[tokio::test]
async fn a_lost_reply_is_no_conflict() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let store = MemoryStore::new();
        store.inject(Operation::Create, PATH, Fault::FailAfter, false);
        assert!(matches!(put(&store, mode, 1).await, Err(RaceError::Store(_))));
        let name = mode.name(PATH, digest(1));
        assert_eq!(put(&store, mode, 1).await.unwrap(), Published::Exists(name.clone()));
        assert_eq!(read(&store, mode, PATH).await.unwrap().unwrap().0, name);
    }
}

/// A failing list is a failure, never "nothing there".
#[tokio::test]
async fn a_list_that_fails_is_no_absence() {
    let store = MemoryStore::new();
    store.inject(Operation::List, "", Fault::FailBefore, true);
    assert!(matches!(put(&store, NameMode::Content, 1).await, Err(RaceError::Store(_))));
    assert!(matches!(read(&store, NameMode::Content, PATH).await, Err(RaceError::Store(_))));
    assert!(store.paths().is_empty());
}
