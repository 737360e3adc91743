#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

struct Fixture {
    major: PgMajor,
    bytes: Vec<u8>,
    /// What that major's own `pg_controldata` says.
    said: BTreeMap<&'static str, &'static str>,
}

fn fixtures() -> Vec<Fixture> {
    macro_rules! fixture {
        ($number:literal, $major:expr) => {
            fixture(
                $major,
                include_bytes!(concat!("../fixtures/control/", $number, ".bin")),
                include_str!(concat!("../fixtures/control/", $number, ".txt")),
            )
        };
    }
    vec![
        fixture!("14", PgMajor::V14),
        fixture!("15", PgMajor::V15),
        fixture!("16", PgMajor::V16),
        fixture!("17", PgMajor::V17),
        fixture!("18", PgMajor::V18),
    ]
}

fn fixture(major: PgMajor, beginning: &[u8], text: &'static str) -> Fixture {
    let mut bytes = beginning.to_vec();
    bytes.resize(CONTROL_FILE_BYTES, 0);
    let said = text.lines().filter_map(|line| line.split_once(':'));
    Fixture { major, bytes, said: said.map(|(key, value)| (key, value.trim())).collect() }
}

#[test]
fn every_field_is_what_pg_controldata_says() {
    for Fixture { major, bytes, said } in fixtures() {
        let control = ControlFile::parse(&bytes).unwrap();
        assert_eq!(control.major(), Some(major));
        let on = |flag: bool| if flag { "on" } else { "off" }.to_owned();
        let fields = [
            ("pg_control version number", control.control_version.to_string()),
            ("Catalog version number", control.catalog_version.to_string()),
            ("Database system identifier", control.system_identifier.to_string()),
            ("Latest checkpoint location", control.checkpoint.to_string()),
            ("Latest checkpoint's REDO location", control.redo.to_string()),
            ("Latest checkpoint's TimeLineID", control.timeline.to_string()),
            ("Latest checkpoint's PrevTimeLineID", control.previous_timeline.to_string()),
            ("Latest checkpoint's full_page_writes", on(control.full_page_writes)),
            (
                "Latest checkpoint's NextXID",
                format!("{}:{}", control.next_full_xid >> 32, control.next_full_xid & 0xFFFF_FFFF),
            ),
            ("Latest checkpoint's NextOID", control.next_oid.to_string()),
            ("Minimum recovery ending location", control.min_recovery_point.to_string()),
            ("Backup start location", control.backup_start.to_string()),
            ("Backup end location", control.backup_end.to_string()),
            (
                "End-of-backup record required",
                if control.backup_end_required { "yes" } else { "no" }.to_owned(),
            ),
            ("wal_log_hints setting", on(control.wal_log_hints)),
            ("max_connections setting", control.max_connections.to_string()),
            ("max_worker_processes setting", control.max_worker_processes.to_string()),
            ("max_wal_senders setting", control.max_wal_senders.to_string()),
            ("max_prepared_xacts setting", control.max_prepared_xacts.to_string()),
            ("max_locks_per_xact setting", control.max_locks_per_xact.to_string()),
            ("track_commit_timestamp setting", on(control.track_commit_timestamp)),
            ("Database block size", control.block_size.to_string()),
            ("Blocks per segment of large relation", control.relation_segment_blocks.to_string()),
            ("WAL block size", control.wal_block_size.to_string()),
            ("Bytes per WAL segment", control.segment_size.bytes().to_string()),
            ("Data page checksum version", control.data_checksums.to_string()),
        ];
        for (key, value) in fields {
            assert_eq!(said.get(key), Some(&value.as_str()), "{key} of PostgreSQL {major}");
        }
        assert_eq!(control.state, ClusterState::ShutDown);
        assert_eq!(said["Database cluster state"], "shut down");
        assert_eq!(control.wal_level, WalLevel::Logical);
        assert_eq!(said["wal_level setting"], "logical");
        assert_eq!(control.min_recovery_timeline, None);
        for (key, time) in [
            ("pg_control last modified", control.time),
            ("Time of latest checkpoint", control.checkpoint_time),
        ] {
            let shown = time.to_timestamp().unwrap().strftime("%a %b %e %H:%M:%S %Y").to_string();
            assert_eq!(said[key], shown, "{key} of PostgreSQL {major}");
        }
    }
}

#[test]
fn an_invalidated_copy_differs_only_in_its_checkpoint_and_crc() {
    for Fixture { bytes, .. } in fixtures() {
        let before = ControlFile::parse(&bytes).unwrap();
        assert!(!is_invalidated(&before));
        let mut copy = bytes.clone();
        invalidate_checkpoint(&mut copy).unwrap();
        let after = ControlFile::parse(&copy).unwrap();
        assert!(is_invalidated(&after));
        assert_eq!(ControlFile { checkpoint: before.checkpoint, ..after.clone() }, before);
        // XRecOffIsValid: behind the short header of its page.
        assert!(after.checkpoint.as_u64() % 8192 >= 24);

        let again = copy.clone();
        invalidate_checkpoint(&mut copy).unwrap();
        assert_eq!(copy, again);
    }
}

#[test]
fn unknown_layouts_and_damage_are_told_apart() {
    let good = fixtures().remove(4).bytes;
    let parse_with = |at: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[at..at + value.len()].copy_from_slice(value);
        ControlFile::parse(&bytes).unwrap_err()
    };
    assert_eq!(parse_with(8, &1900u32.to_le_bytes()), ControlError::UnknownVersion(1900));
    assert_eq!(parse_with(8, &1800u32.to_be_bytes()), ControlError::ByteOrder);
    assert!(matches!(parse_with(0, &[0xFF]), ControlError::Crc { .. }));
    assert!(matches!(parse_with(292, &[1, 2, 3, 4]), ControlError::Crc { .. }));
    assert_eq!(ControlFile::parse(&good[..512]).unwrap_err(), ControlError::Length(512));
    assert!(ControlError::UnknownVersion(1900).to_string().contains("1900"));
    assert!(ControlError::UnknownVersion(1900).hint().is_some());
}

proptest! {
    /// A file with any content and a right CRC is read or refused, never a panic; what was parsed has the fields' bounds.
    #[test]
    fn no_content_panics(at in 0usize..288, value in any::<[u8; 8]>(), which in 0usize..5) {
        let mut bytes = fixtures().remove(which).bytes;
        let end = (at + 8).min(288);
        bytes[at..end].copy_from_slice(&value[..end - at]);
        for layout in [ControlLayout::V1300, ControlLayout::V1800] {
            let crc = content_crc(&bytes, layout).unwrap();
            put(&mut bytes, crc_at(layout), &crc.to_le_bytes()).unwrap();
            if let Ok(control) = ControlFile::parse(&bytes) {
                prop_assert!(control.block_size.is_power_of_two() && control.relation_segment_blocks > 0);
            }
        }
    }
}
