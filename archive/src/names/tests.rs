#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use proptest::prelude::*;

use super::*;

/// Names read from a store are hostile: only what we would write ourselves is believed.
#[test]
fn names_are_parsed_exactly() {
    let hex = "0123456789abcdef0123456789abcdef";
    let segment = "000000010000000000000003";
    let good = [
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}")),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.partial")),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.00000028.backup")),
        (NameMode::Plain, "wal/00000002.history".into()),
        (NameMode::Plain, "wal/00000002/claim".into()),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.part.0003.{hex}")),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.variant.{hex}")),
        (NameMode::Content, format!("wal/00000001/00000000/{segment}.{hex}")),
        (NameMode::Content, format!("wal/00000001/00000000/{segment}.partial.{hex}")),
        (NameMode::Content, format!("wal/00000002.history.{hex}")),
        (NameMode::Content, format!("wal/00000002/claim.{hex}")),
        (NameMode::Content, format!("wal/00000001/00000000/{segment}.part.0003.{hex}")),
    ];
    for (mode, path) in &good {
        assert_eq!(WalEntry::parse(path, *mode).unwrap().path(), *path);
    }
    let bad = [
        (NameMode::Plain, format!("wal/00000002/00000000/{segment}")),
        (NameMode::Plain, format!("wal/00000001/00000001/{segment}")),
        (NameMode::Plain, format!("wal/00000001/{segment}")),
        (NameMode::Plain, format!("../wal/00000001/00000000/{segment}")),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.{hex}")),
        (NameMode::Content, format!("wal/00000001/00000000/{segment}")),
        (NameMode::Content, format!("wal/00000001/00000000/{segment}.{}", hex.to_uppercase())),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.part.3.{hex}")),
        (NameMode::Plain, format!("wal/00000001/00000000/{segment}.part.+003.{hex}")),
        (NameMode::Plain, "wal/00000002/claims".into()),
        (NameMode::Plain, "wal/0000000a/claim".into()),
        (NameMode::Plain, "wal/00000000.history".into()),
        (NameMode::Plain, String::new()),
    ];
    for (mode, path) in &bad {
        assert_eq!(WalEntry::parse(path, *mode), None, "{path}");
    }
}

#[test]
fn cluster_names_are_checked() {
    for good in ["a", "0", "main", "eu-1.orders_2", &"x".repeat(63)] {
        assert_eq!(good.parse::<ClusterName>().unwrap().as_str(), good);
    }
    for bad in ["", "-a", ".", "..", ".a", "A", "a/b", "a b", "ä", "a\0", &"x".repeat(64)] {
        assert!(bad.parse::<ClusterName>().is_err(), "{bad:?}");
    }
}

#[test]
fn ids_are_lower_case_hexadecimal() {
    let id = LineageId::from_bytes([0xAB; 16]);
    assert_eq!(id.to_string().parse::<LineageId>().unwrap(), id);
    assert_eq!(serde_json::from_str::<LineageId>(&serde_json::to_string(&id).unwrap()).unwrap(), id);
    for bad in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"zz".repeat(16), &"é".repeat(16)] {
        assert!(bad.parse::<LineageId>().is_err(), "{bad}");
    }
    assert_ne!(LineageId::random().unwrap(), LineageId::random().unwrap());
}

proptest! {
    #[test]
    fn no_name_panics(path in "\\PC{0,80}") {
        for mode in [NameMode::Plain, NameMode::Content] {
            if let Some(entry) = WalEntry::parse(&path, mode) {
                prop_assert_eq!(entry.path(), path.clone());
            }
        }
    }
}
