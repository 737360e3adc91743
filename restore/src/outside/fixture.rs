//! A manifest of which only the places of configuration count.

use highwater_archive::manifest::Manifest;

/// The manifest of a cluster of PostgreSQL 17 with this data directory.
pub fn manifest(data_directory: &str) -> Manifest {
    let segment = "000000010000000000000002";
    let value = serde_json::json!({
        "backup": "20261120T061000Z-00000000", "label": "", "lineage": "07".repeat(16), "tool": "highwater 0",
        "source": "local", "started_at": "2026-11-20T06:10:00Z", "stopped_at": "2026-11-20T06:11:00Z",
        "wal": {"timeline": 1, "start_lsn": "0/2000028", "stop_lsn": "0/2000100", "first_segment": segment,
                "last_segment": segment, "stop_time": "2026-11-20T06:11:00Z"},
        "postgresql": {"major": 17, "version": "", "system_identifier": "7", "catalog_version": 1,
                       "control_version": 1700, "block_bytes": 8192, "relation_segment_blocks": 131_072,
                       "wal_segment_bytes": 16_777_216, "data_checksums": true, "settings": {}},
        "control": {"bytes": "", "mode": 384, "checkpoint_lsn": "0/2000060", "redo_lsn": "0/2000028", "timeline": 1},
        "backup_label": "", "tablespace_map": "", "tablespaces": [], "databases": [],
        "data_directory": data_directory, "data_directory_mode": 448,
        "owner": {"user": "u", "group": "g", "uid": 1, "gid": 1}, "pg_wal_target": null, "config_files": {},
        "left_out": [], "page_failures": [], "page_failure_count": 0,
        "counts": {"files": 0, "directories": 0, "bytes": 0, "extents": 0, "stored_bytes": 0, "pages_verified": 0,
                   "padded_files": 0, "vanished_files": 0},
        "extent_bytes": 1 << 20, "packs": 1, "file_list": [], "relation_map": [], "previous": null,
        "wal_end": "0/3000000", "keyring": {"generation": 1, "fingerprint": "00"},
    });
    serde_json::from_value(value).unwrap()
}
