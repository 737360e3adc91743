//! What a backup holds, restored and compared.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use highwater_tests::{Cluster, Scratch, assert_same_files, files, for_each_major};

use crate::ground::Ground;

/// I19: a backup of a server at rest comes back byte for byte, wherever its parts lie: a tablespace, `pg_wal` behind a link, several
/// databases, TOAST, unlogged tables, and names that are not UTF-8. Twice, on a server where nothing happens.
#[test]
fn a_server_at_rest_comes_back_byte_for_byte() {
    for_each_major(|postgres| {
        for sums in [true, false] {
            let scratch = Scratch::new();
            let builder = Cluster::builder(postgres, &scratch, "main")
                .checksums(sums)
                .wal_directory(scratch.join("wal"));
            let ground = Ground::start(&scratch, builder);
            let cluster = &ground.cluster;
            let space = scratch.dir("space");
            cluster.execute(&format!("create tablespace space location '{}'", space.display()));
            cluster.execute("create database other");
            cluster.execute(
                "create table plain as select g, md5(g::text) m from generate_series(1, 20000) g; \
                 create index on plain (m); \
                 create table toasted (v text); alter table toasted alter v set storage external; \
                 insert into toasted select string_agg(md5(g::text), '') from generate_series(1, 9000) g; \
                 create table spaced tablespace space as select generate_series(1, 5000) x; \
                 create unlogged table forgotten as select 1 x",
            );
            let forgotten = cluster.value("select pg_relation_filepath('forgotten')");
            cluster.execute("checkpoint");
            let odd = OsStr::from_bytes(b"caf\xe9 100%");
            std::fs::write(cluster.data().join(odd), "kept").unwrap();

            let first = ground.backup(&["--label", "at rest"]);
            assert_eq!(first["page_failure_count"], 0);
            assert_eq!(first["counts"]["pages_verified"].as_u64().unwrap() > 1000, sums);
            let second = ground.backup(&["--jobs", "1"]);
            assert!(second["wal"]["start_lsn"] != first["wal"]["start_lsn"]);

            let moved = format!("{}={}", space.display(), scratch.join("moved").display());
            let restored =
                ground.restore(&scratch, "restored", &["--to-consistent", "--tablespace-map", &moved]);
            assert_eq!(std::fs::read(restored.join(odd)).unwrap(), b"kept");
            std::fs::remove_file(restored.join(odd)).unwrap();
            std::fs::remove_file(cluster.data().join(odd)).unwrap();
            assert_same_files(cluster.data(), &restored, &[forgotten]);
            assert!(!restored.join("pg_wal").is_symlink());

            let copy = Cluster::open(postgres, &scratch, "copy", &restored);
            copy.start();
            copy.wait_until_paused();
            copy.execute("select pg_wal_replay_resume()");
            copy.wait_until_writable();
            assert_eq!(copy.value("select count(*) from plain"), "20000");
            assert_eq!(copy.value("select count(*) from spaced"), "5000");
            assert_eq!(copy.value("select length(v) from toasted"), "288000");
            assert_eq!(copy.value("select count(*) from forgotten"), "0");
            copy.stop_proven();
        }
    });
}

/// I25: Debian's layout. What lies outside is in the backup, with what it includes; private keys are not, and that is said.
#[test]
fn configuration_from_outside_is_part_of_the_backup() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::prepare(&scratch, Cluster::builder(postgres, &scratch, "main").config_outside());
        let cluster = &ground.cluster;
        let config = cluster.config().to_owned();
        let further = scratch.dir("main.etc/conf.d");
        scratch.file("main.etc/conf.d/empty.conf", "# nothing is set here\n");
        scratch.file("main.etc/users.txt", "postgres\n");
        let key = scratch.file("server.key", "secret");
        let mut conf = std::fs::read_to_string(config.join("postgresql.conf")).unwrap();
        conf += &format!("include_dir '{}'\nssl_key_file = '{}'\n", further.display(), key.display());
        std::fs::write(config.join("postgresql.conf"), conf).unwrap();
        let mut hba = std::fs::read_to_string(config.join("pg_hba.conf")).unwrap();
        hba += "local all @users.txt trust\n";
        std::fs::write(config.join("pg_hba.conf"), hba).unwrap();
        // One more, inside by its name and outside by where it leads.
        std::fs::rename(cluster.data().join("postgresql.auto.conf"), config.join("auto")).unwrap();
        std::os::unix::fs::symlink(config.join("auto"), cluster.data().join("postgresql.auto.conf")).unwrap();
        cluster.start();

        let made = ground.backup(&[]);
        let left_out: Vec<_> = made["left_out"].as_array().unwrap().iter().map(|one| &one["path"]).collect();
        assert_eq!(left_out, [key.to_str().unwrap()]);
        assert!(made["left_out"][0]["reason"].as_str().unwrap().contains("private key"));

        let back = scratch.dir("back");
        let restored =
            ground.restore(&scratch, "restored", &["--to-consistent", "--config-to", back.to_str().unwrap()]);
        let restored_files = files(&back);
        for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf", "empty.conf", "users.txt"] {
            let found = restored_files.iter().find(|(path, _)| path.ends_with(name));
            let (_, found) = found.unwrap_or_else(|| panic!("{name} is not among {restored_files:?}"));
            let original = if name == "empty.conf" { further.join(name) } else { config.join(name) };
            let (found, original) =
                (std::fs::read_to_string(found).unwrap(), std::fs::read_to_string(original).unwrap());
            // Of the first one, a restore changes where the others and the data directory are.
            let moved = |line: &&str| {
                ["data_directory", "hba_file", "ident_file", "include_dir"]
                    .iter()
                    .any(|name| line.starts_with(name))
            };
            for line in original.lines().filter(|line| !moved(line)) {
                assert!(found.lines().any(|restored| restored == line), "{name} lacks: {line}");
            }
        }
        assert!(
            restored.join("postgresql.auto.conf").is_file()
                && !restored.join("postgresql.auto.conf").is_symlink()
        );
    });
}
