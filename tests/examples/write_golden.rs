//! Writes the fixtures of the format version anew: `cargo run -p highwater-tests --example write_golden -- tests/fixtures/format-1`.
//!
//! They are written once for a version and then never again: a fixture that must change is a break of the format. The
//! WAL in them is a real server's; the backup is composed by hand, so that it is small and holds every kind of line.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use highwater_archive::clock::{Clock, SystemClock};
use highwater_archive::keyring::{KeyClass, Unlock};
use highwater_archive::lineage::{ClosedRecord, Lineage, LineageRecord};
use highwater_archive::manifest::{
    BackupId, ControlCopy, Counts, DataPageFailure, Database, Extension, FileEntry, FileLine, FileListWriter,
    FilePath, Intent, KeyringRef, LeftOut, Manifest, OutsideRole, Owner, PostgresInfo, RelationLine,
    RelationMapWriter, Source, Tablespace, WalRange, write_intent, write_manifest,
};
use highwater_archive::names::{self, LineageId, WriterId};
use highwater_archive::pack::PackWriter;
use highwater_archive::racing::Published;
use highwater_archive::repository::{Cluster, CreateParams, NameMode, Repository};
use highwater_archive::seal::{Codec, ObjectKind};
use highwater_archive::store::local::LocalStore;
use highwater_archive::store::{Created, ExposeSecret};
use highwater_archive::wal::{self, Stored};
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalFile, WalSegmentSize};
use highwater_pitr::time::PgTime;
use highwater_pitr::timeline::{TimelineHistory, TimelineId};
use highwater_tests::golden::describe;
use highwater_tests::{Cluster as Server, Scratch, controldata, newest};

const EXTENT_BYTES: u32 = 64 << 10;

/// What a real server archived.
struct Archived {
    directory: PathBuf,
    control: Vec<u8>,
    system_identifier: u64,
    segment_size: WalSegmentSize,
}

fn main() {
    let target = PathBuf::from(std::env::args().nth(1).expect("the directory of the fixtures"));
    assert!(!target.exists(), "{} exists: fixtures are never replaced", target.display());
    let scratch = Scratch::new();
    let small = serve(&scratch, "small", 1, true);
    let large = serve(&scratch, "large", 64, false);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(write(&target, &small, &large));
}

/// Lets a server write WAL of every kind, and archive it; with a promotion if asked.
fn serve(scratch: &Scratch, name: &str, segment_mb: u32, promote: bool) -> Archived {
    let directory = scratch.dir(format!("{name}-archive"));
    let server = Server::builder(newest(), scratch, name)
        .wal_segment_mb(segment_mb)
        .setting("max_prepared_transactions", "4")
        .archive_command(&format!("cp %p {}/%f", directory.display()))
        .start();
    server.switch_wal();
    server.execute("create table t (id int, word text); insert into t values (1, 'one')");
    server.execute("select pg_create_restore_point('before the drop')");
    server.execute("begin; insert into t values (2, 'two'); rollback");
    server.execute("begin; insert into t values (3, 'three'); prepare transaction 'p'");
    server.execute("commit prepared 'p'");
    let tablespace = scratch.dir(format!("{name}-tablespace"));
    server.execute(&format!("create tablespace brief location '{}'", tablespace.display()));
    server.execute("drop tablespace brief");
    server.execute("checkpoint");
    if promote {
        // More than one segment holds, so that one is full and a record crosses a seam.
        server.execute("insert into t select n, repeat('x', 700) from generate_series(1, 1800) n");
        let session = server.session();
        session.execute("select pg_backup_start('golden', true)");
        session.execute("select pg_backup_stop(false)");
    }
    let last = server.switch_wal();
    server.wait_until_archived(&last);
    if promote {
        server.execute("insert into t values (4, 'four')");
        server.stop();
        scratch.file(format!("{name}/standby.signal"), "");
        server.tolerate("specified neither");
        server.start();
        server.promote();
        server.wait_until_writable();
        server.execute("insert into t values (5, 'five')");
        let last = server.switch_wal();
        server.wait_until_archived(&last);
    }
    server.stop();
    let control = controldata(newest(), server.data());
    Archived {
        directory,
        control: std::fs::read(server.data().join("global/pg_control")).expect("pg_control"),
        system_identifier: control["Database system identifier"].parse().expect("a system identifier"),
        segment_size: WalSegmentSize::try_from(segment_mb << 20).expect("a segment size"),
    }
}

async fn write(target: &Path, small: &Archived, large: &Archived) {
    let (main, text) = Unlock::generate(SystemClock.now());
    let second = "correct horse battery staple\n";
    let keys: BTreeMap<String, String> =
        [("main".to_owned(), text.expose_secret().to_owned()), ("second".to_owned(), second.to_owned())]
            .into();
    let second = Unlock::from_text(second).expect("a passphrase");
    let directory = target.join("keys");
    highwater_archive::durable::create_dir_all_durable(&directory).expect("a directory");
    for (name, text) in &keys {
        highwater_archive::durable::replace(&directory.join(format!("{name}.key")), &[text])
            .expect("a key file");
    }

    let plain = repository(&target.join("plain"), NameMode::Plain).await;
    let cluster = cluster(&plain, "main", &main).await;
    let lineage = lineage(&cluster, small, None).await;
    put_wal(&lineage, small, true).await;
    let rotated = rotate(&cluster, &main).await;
    let lineage = rotated.lineage(lineage.id()).await.expect("the lineage");
    put_backup(&lineage, small, &rotated).await;
    let forked = lineage_after(&rotated, small, &lineage).await;
    close(&lineage, forked.id()).await;
    let other = self::cluster(&plain, "second", &second).await;
    put_wal(&self::lineage(&other, large, None).await, large, false).await;

    // Names that carry content are listed first, so the directory must be there.
    highwater_archive::durable::create_dir_all_durable(&target.join("content")).expect("a directory");
    let content = repository(&target.join("content"), NameMode::Content).await;
    let cluster = self::cluster(&content, "main", &main).await;
    let lineage = self::lineage(&cluster, small, None).await;
    put_wal(&lineage, small, false).await;
    close(&lineage, LineageId::random().expect("an id")).await;

    for name in ["plain", "content"] {
        let described = describe(&target.join(name), &keys).await;
        let text = serde_json::to_string_pretty(&described).expect("JSON") + "\n";
        highwater_archive::durable::replace(&target.join(format!("{name}.json")), &[text])
            .expect("the expectation");
    }
}

async fn repository(path: &Path, names: NameMode) -> Repository {
    let store = Arc::new(LocalStore::new(std::path::absolute(path).expect("a path")));
    let params = CreateParams { names, extent_bytes: EXTENT_BYTES, now: SystemClock.now() };
    Repository::create(store, params).await.expect("a repository").0
}

async fn cluster(repository: &Repository, name: &str, unlock: &Unlock) -> Cluster {
    let recipients = unlock.recipients().expect("recipients");
    let name = name.parse().expect("a name");
    repository.create_cluster(&name, unlock, &recipients, SystemClock.now()).await.expect("a cluster").0
}

async fn lineage(cluster: &Cluster, archived: &Archived, parent: Option<&Lineage>) -> Lineage {
    let record = LineageRecord {
        lineage: LineageId::random().expect("an id"),
        cluster_id: cluster.id(),
        system_identifier: archived.system_identifier,
        pg_major: u16::try_from(newest().major).expect("a major"),
        wal_segment_bytes: archived.segment_size,
        block_bytes: 8192,
        parent: parent.map(Lineage::id),
        parent_timeline: parent.map(|_| timeline(1)),
        fork_lsn: parent.map(|_| Lsn::new(0x500_0028)),
        created_at: SystemClock.now(),
        reason: if parent.is_some() { "adopt" } else { "init" }.to_owned(),
    };
    cluster.create_lineage(record).await.expect("a lineage")
}

async fn lineage_after(cluster: &Cluster, archived: &Archived, parent: &Lineage) -> Lineage {
    lineage(cluster, archived, Some(parent)).await
}

async fn rotate(cluster: &Cluster, unlock: &Unlock) -> Cluster {
    let recipients = unlock.recipients().expect("recipients");
    let next = cluster.keys().next_generation(
        &[KeyClass::Content, KeyClass::Metadata],
        &recipients,
        SystemClock.now(),
    );
    cluster.append_generation(next.expect("new keys"), &recipients).await.expect("a second generation")
}

async fn close(lineage: &Lineage, successor: LineageId) {
    let record =
        ClosedRecord { successor: Some(successor), closed_at: SystemClock.now(), reason: "adopt".to_owned() };
    let record = serde_json::to_vec(&record).expect("JSON");
    let closed = lineage.create_racing(ObjectKind::Closed, names::CLOSED, Codec::None, &record).await;
    assert!(matches!(closed.expect("closed"), Published::New));
}

fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).expect("a timeline")
}

/// Everything that was archived but the first segments, which hold the WAL of initdb; a variant beside the first of them.
async fn put_wal(lineage: &Lineage, archived: &Archived, variant: bool) {
    let mut files: Vec<String> = std::fs::read_dir(&archived.directory)
        .expect("the archive")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    files.sort();
    let restore_point = b"before the drop";
    let has_point = |name: &String| {
        let bytes = std::fs::read(archived.directory.join(name)).expect("a WAL file");
        bytes.windows(restore_point.len()).any(|window| window == restore_point)
    };
    let first = files.iter().position(has_point).expect("the segment of the restore point");
    let writer = WriterId::random().expect("an id");
    wal::claim_timeline(lineage, writer, timeline(1), None, Lsn::new(0)).await.expect("a claim");
    for (number, name) in files.iter().skip(first).enumerate() {
        let bytes = std::fs::read(archived.directory.join(name)).expect("a WAL file");
        let file: WalFile = name.parse().expect("the name of a WAL file");
        // A committed fixture should be small: one segment by LZ4, and none as it is (that is left to a pack).
        let codec = if number == 0 && bytes.len() == 1 << 20 { Codec::Lz4 } else { Codec::Zstd };
        let stored = match file {
            WalFile::Segment(segment) => wal::put_segment(lineage, segment, bytes.clone(), codec).await,
            WalFile::Partial(segment) => wal::put_partial(lineage, segment, bytes.clone(), codec).await,
            WalFile::Backup { .. } => wal::put_small(lineage, file, &bytes).await,
            WalFile::History(next) => {
                let history = TimelineHistory::parse(next, &bytes).expect("a history file");
                let fork = history.ancestors.last().expect("an ancestor");
                let claimed =
                    wal::claim_timeline(lineage, writer, next, Some(fork.timeline), fork.switch).await;
                claimed.expect("a claim");
                wal::put_small(lineage, file, &bytes).await
            }
        };
        assert_eq!(stored.unwrap_or_else(|error| panic!("{name}: {error}")), Stored::New, "{name}");
        if let (WalFile::Segment(segment), true, 0) = (file, variant, number) {
            put_variant(lineage, segment, bytes).await;
        }
    }
}

/// The beginning of a segment, as another timeline's server might have handed it in.
async fn put_variant(lineage: &Lineage, segment: SegmentName, mut bytes: Vec<u8>) {
    let index = wal::read_index(lineage, segment).await.expect("an index").expect("an index");
    let end = index.transactions[0].end.as_u64() - segment.start(lineage.record().wal_segment_bytes).as_u64();
    bytes[usize::try_from(end).expect("an offset")..].fill(0);
    let stored = wal::put_segment(lineage, segment, bytes, Codec::Lz4).await.expect("a variant");
    assert!(matches!(stored, Stored::Variant { .. }), "{stored:?}");
}

async fn put_backup(lineage: &Lineage, archived: &Archived, cluster: &Cluster) {
    let started_at = SystemClock.now();
    let unfinished = BackupId::new(started_at, [0xab; 4]);
    let backup = BackupId::new(started_at, [0xcd; 4]);
    let intent = |backup: &BackupId, base: Option<String>| Intent {
        backup: backup.clone(),
        base,
        started_at,
        host: "db1".to_owned(),
        writer: "00112233445566778899aabbccddeeff".to_owned(),
    };
    write_intent(lineage, &intent(&unfinished, Some(backup.to_string()))).await.expect("an intent");
    write_intent(lineage, &intent(&backup, None)).await.expect("an intent");

    let mut list = FileListWriter::new(lineage.clone(), backup.clone(), EXTENT_BYTES);
    for line in put_packs(lineage, &backup).await {
        list.push(&line).await.expect("a line");
    }
    let file_list = list.finish().await.expect("the file list");
    let mut relations = RelationMapWriter::new(lineage.clone(), backup.clone());
    for line in relation_lines() {
        relations.push(&line).await.expect("a line");
    }
    let relation_map = relations.finish().await.expect("the relation map");
    let copy = lineage.full_path(&names::backup_keyring(&backup));
    let created =
        lineage.store().create(&copy, vec![cluster.wrapped_keyring().clone()]).await.expect("a copy");
    assert_eq!(created, Created::New);

    let mut manifest = manifest(lineage, archived, &backup, cluster);
    (manifest.file_list, manifest.relation_map) = (file_list, relation_map);
    write_manifest(lineage, &manifest).await.expect("a manifest");
}

fn path(bytes: &[u8]) -> FilePath {
    FilePath::from_bytes(bytes).expect("a path")
}

/// Three packs, one for each codec, and every kind of line that refers to them, in the order of a walk.
async fn put_packs(lineage: &Lineage, backup: &BackupId) -> Vec<FileLine> {
    let extent = EXTENT_BYTES as usize;
    let table: Vec<u8> = (0..extent * 2 + 8192).map(|n| u8::try_from(n / 64 % 251).expect("small")).collect();
    let (mut headers, mut extents) = (Vec::new(), Vec::new());
    for (number, codec) in (0..).zip([Codec::Lz4, Codec::Zstd, Codec::None]) {
        let keys = Arc::clone(lineage.keys());
        let block = || Some(Vec::with_capacity(1 << 20));
        let mut pack = PackWriter::begin(keys, lineage.id(), backup, number, codec, block).expect("a pack");
        let content: Vec<&[u8]> = match number {
            0 => table.chunks(extent).collect(),
            1 => vec![&[0; EXTENT_BYTES as usize], b"17\n"],
            _ => vec![b"local all all peer\n", b"in a tablespace", b"a name of any bytes"],
        };
        let stored: Vec<_> = content.into_iter().map(|raw| pack.append(raw).expect("an extent")).collect();
        headers.push(FileLine::Pack {
            pack: number,
            path: pack.path().to_owned(),
            header: pack.header().to_vec(),
        });
        extents.push(stored);
        let finished = pack.finish().expect("a pack");
        let created = lineage
            .create_sealed(&finished.path, finished.pieces.into_iter().map(Into::into).collect())
            .await
            .expect("a pack");
        assert_eq!(created, Created::New);
    }
    let entry = |size: usize, extents: Vec<_>| FileEntry {
        size: size as u64,
        mode: 0o600,
        mtime: 1_763_635_267,
        extents,
    };
    let file = |name: &[u8], size, extents| FileLine::File { path: path(name), file: entry(size, extents) };
    let dir = |name: &[u8]| FileLine::Dir { path: path(name), mode: 0o700 };
    let [lz4, zstd, none] = [headers.remove(0), headers.remove(0), headers.remove(0)];
    vec![
        zstd,
        file(b"PG_VERSION", 3, vec![extents[1][1]]),
        dir(b"base"),
        dir(b"base/5"),
        lz4,
        file(b"base/5/1259", table.len(), extents[0].clone()),
        file(b"base/5/1259_vm", 0, vec![]),
        // More extents than one line holds, all of them the same one.
        file(b"base/5/16390", extent * 1030, vec![extents[1][0]; 1030]),
        dir(b"conf.d"),
        FileLine::Symlink { path: path(b"conf.d/current"), target: "../PG_VERSION".to_owned() },
        dir(b"global"),
        none,
        file(b"per%cent \xff", 19, vec![extents[2][2]]),
        dir(b"pg_tblspc"),
        FileLine::Tablespace { path: path(b"pg_tblspc/16384"), target: "/srv/fast".to_owned(), mode: 0o750 },
        dir(b"pg_tblspc/16384/PG_17_202406281"),
        file(b"pg_tblspc/16384/PG_17_202406281/1", 15, vec![extents[2][1]]),
        dir(b"pg_wal"),
        FileLine::Outside {
            path: "/etc/postgresql/17/main/pg_hba.conf".to_owned(),
            role: OutsideRole::Hba,
            file: FileEntry { mode: 0o640, ..entry(19, vec![extents[2][0]]) },
        },
    ]
}

fn relation_lines() -> Vec<RelationLine> {
    let relation = |file: &[u8], name: &str, kind: &str, oid, of: Option<&str>| RelationLine::Relation {
        relation: path(file),
        schema: "public".to_owned(),
        name: name.to_owned(),
        kind: kind.to_owned(),
        oid,
        of: of.map(str::to_owned),
        collations: Vec::new(),
    };
    vec![
        RelationLine::Database { database: String::new(), oid: 0 },
        RelationLine::Database { database: "postgres".to_owned(), oid: 5 },
        relation(b"base/5/1259", "pg_class", "r", 1259, None),
        relation(b"base/5/16390", "t_pkey", "i", 16390, Some("public.t")),
    ]
}

fn manifest(lineage: &Lineage, archived: &Archived, backup: &BackupId, cluster: &Cluster) -> Manifest {
    let now = SystemClock.now();
    let segment = SegmentName::from_number(timeline(1), 5, archived.segment_size);
    let strings = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    Manifest {
        backup: backup.clone(),
        label: "highwater".to_owned(),
        lineage: lineage.id(),
        tool: "highwater 0.1.0".to_owned(),
        source: Source::Local,
        started_at: now,
        stopped_at: now,
        wal: WalRange {
            timeline: timeline(1),
            start_lsn: segment.start(archived.segment_size),
            stop_lsn: segment.end(archived.segment_size),
            first_segment: segment,
            last_segment: segment,
            stop_time: PgTime::from_timestamp(now),
        },
        postgresql: PostgresInfo {
            major: 17,
            version: "PostgreSQL 17.11".to_owned(),
            system_identifier: archived.system_identifier,
            catalog_version: 202_406_281,
            control_version: 1700,
            block_bytes: 8192,
            relation_segment_blocks: 131_072,
            wal_segment_bytes: archived.segment_size,
            data_checksums: true,
            settings: strings(&[("max_connections", "100"), ("wal_level", "replica")]),
            libc: None,
            icu: None,
            login_preloads: None,
        },
        control: ControlCopy {
            bytes: archived.control.clone(),
            mode: 0o600,
            checkpoint_lsn: Lsn::new(0x50_0060),
            redo_lsn: Lsn::new(0x50_0028),
            timeline: timeline(1),
        },
        backup_label: "START WAL LOCATION: 0/500028\nLABEL: highwater\n".to_owned(),
        tablespace_map: "16384 /srv/fast\n".to_owned(),
        tablespaces: vec![
            Tablespace {
                oid: 16384,
                name: Some("fast".to_owned()),
                path: Some("/srv/fast".to_owned()),
                bytes: 15,
            },
            Tablespace { oid: 16385, name: None, path: None, bytes: 0 },
        ],
        databases: vec![Database {
            oid: 5,
            name: "postgres".to_owned(),
            encoding: "UTF8".to_owned(),
            collate: "C".to_owned(),
            ctype: "C".to_owned(),
            locale_provider: "c".to_owned(),
            collation_version: None,
            examined: true,
            extensions: vec![Extension { name: "plpgsql".to_owned(), version: "1.0".to_owned() }],
            collations: strings(&[("public.german", "153.120")]),
            library_collation_version: None,
            collation_libraries: None,
            libraries: None,
            range_partitioned: Vec::new(),
        }],
        data_directory: "/var/lib/postgresql/17/main".to_owned(),
        data_directory_mode: 0o700,
        owner: Owner { user: "postgres".to_owned(), group: "postgres".to_owned(), uid: 101, gid: 104 },
        pg_wal_target: Some("/srv/wal".to_owned()),
        config_files: strings(&[("hba_file", "/etc/postgresql/17/main/pg_hba.conf")]),
        left_out: vec![LeftOut {
            path: "/etc/ssl/server.key".to_owned(),
            reason: "a private key".to_owned(),
        }],
        page_failures: vec![DataPageFailure {
            file: path(b"base/5/1259"),
            block: 3,
            relation: Some("postgres.pg_catalog.pg_class".to_owned()),
            problem: "checksum 1 where 2 was expected".to_owned(),
        }],
        page_failure_count: 1,
        counts: Counts { files: 6, directories: 6, bytes: 67_640_320, extents: 1036, ..Counts::default() },
        extent_bytes: EXTENT_BYTES,
        packs: 3,
        file_list: Vec::new(),
        relation_map: Vec::new(),
        previous: None,
        wal_end: segment.end(archived.segment_size),
        keyring: KeyringRef {
            generation: cluster.keys().generation(),
            fingerprint: cluster.keys().fingerprint().to_string(),
        },
    }
}
