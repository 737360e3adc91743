//! What lies beside the segments: claims, history files, strangers.

use highwater_pitr::lsn::Lsn;

use super::*;
use crate::names::WriterId;

/// I1: a timeline belongs to the writer who claimed it first.
#[tokio::test]
async fn a_timeline_is_claimed_once() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let (one, two) = (WriterId::from_bytes([1; 16]), WriterId::from_bytes([2; 16]));
        let fork = "0/5000000".parse().unwrap();
        let claim = async |writer, fork| {
            claim_timeline(&ground.lineage, writer, timeline(2), Some(timeline(1)), fork).await
        };
        assert_eq!(read_claim(&ground.lineage, timeline(2)).await.unwrap(), None);
        assert_eq!(claim(one, fork).await.unwrap(), Claimed::New);
        assert_eq!(claim(one, fork).await.unwrap(), Claimed::Same);
        let error = claim(two, fork).await.unwrap_err();
        assert!(matches!(&error, ClaimError::Other { theirs, .. } if theirs.writer == one), "{error}");
        assert!(claim(one, "0/6000000".parse().unwrap()).await.is_err());
        assert_eq!(read_claim(&ground.lineage, timeline(2)).await.unwrap().unwrap().fork_lsn, fork);
        // As the format shows it.
        let name = ground.lineage.list("wal/00000002/claim").await.unwrap().remove(0).path;
        let json = ground.lineage.read(ObjectKind::Claim, &name).await.unwrap();
        let expected =
            format!("{{\"writer\":\"{one}\",\"timeline\":2,\"parent\":1,\"fork_lsn\":\"0/5000000\"}}");
        assert_eq!(String::from_utf8(json).unwrap(), expected);
    }
}

/// I1: of two writers at once one has the timeline; on a store without conditional creates at most one.
#[tokio::test]
async fn two_claims_at_once() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let claim = async |writer: u8| {
            let writer = WriterId::from_bytes([writer; 16]);
            claim_timeline(&ground.lineage, writer, timeline(1), None, Lsn::new(0)).await
        };
        let (a, b) = tokio::join!(claim(1), claim(2));
        let won = [a.is_ok(), b.is_ok()].iter().filter(|won| **won).count();
        assert!(if mode == NameMode::Plain { won == 1 } else { won <= 1 });
    }
}

/// History files are written once: the same bytes are success, a different comment is a conflict.
#[tokio::test]
async fn history_is_written_once() {
    for mode in [NameMode::Plain, NameMode::Content] {
        let ground = ground_with(mode, 1).await;
        let file = WalFile::History(timeline(2));
        let (one, two) =
            (&b"1\t0/5000000\tno recovery target specified\n"[..], &b"1\t0/5000000\tbefore 2026\n"[..]);
        assert_eq!(put_small(&ground.lineage, file, one).await.unwrap(), Stored::New);
        assert_eq!(put_small(&ground.lineage, file, one).await.unwrap(), Stored::Same);
        let error = put_small(&ground.lineage, file, two).await.unwrap_err();
        assert!(matches!(error, WalPutError::Conflict { .. }), "{error}");
        assert_eq!(get(&ground.lineage, &file).await.unwrap().unwrap(), one);
        assert_eq!(get(&ground.lineage, &WalFile::History(timeline(3))).await.unwrap(), None);
        assert_eq!(list_histories(&ground.lineage).await.unwrap(), [timeline(2)]);
        let error = put_small(&ground.lineage, WalFile::History(timeline(3)), b"nonsense").await.unwrap_err();
        assert!(matches!(error, WalPutError::NotHistory { .. }), "{error}");
        let backup = WalFile::Backup { segment: ground.full().0, offset: 0x28 };
        assert_eq!(put_small(&ground.lineage, backup, b"START WAL LOCATION").await.unwrap(), Stored::New);
        assert_eq!(get(&ground.lineage, &backup).await.unwrap().unwrap(), b"START WAL LOCATION");
        let listing = list_timeline(&ground.lineage, timeline(1)).await.unwrap();
        assert_eq!(listing.backups, [(ground.full().0, 0x28)]);
        assert!(matches!(
            put_small(&ground.lineage, backup, &vec![0; MAX_SMALL_BYTES + 1]).await,
            Err(WalPutError::TooLarge { .. })
        ));
    }
}

/// What does not belong there is passed over when listing.
#[tokio::test]
async fn listing_passes_over_strangers() {
    let ground = ground().await;
    let full = ground.full();
    ground.put(&full).await.unwrap();
    for stranger in ["wal/00000001/00000000/readme", "wal/00000001/x", "wal/tail/x", "wal/zzz.history"] {
        ground.store.tamper(&ground.lineage.full_path(stranger), &b"x"[..]);
    }
    assert_eq!(list_segments(&ground.lineage, timeline(1)).await.unwrap().len(), 1);
    assert_eq!(list_timelines(&ground.lineage).await.unwrap(), [timeline(1)]);
    assert!(list_histories(&ground.lineage).await.unwrap().is_empty());
    assert!(ground.lineage.store().head(&ground.path(full.0)).await.unwrap().is_some());
}
