//! A host whose libraries sort text otherwise: what is in doubt is named before a byte is written, and put right by what is printed.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use highwater_tests::{Cluster, Finished, Postgres, Scratch, Session, newest, oldest};
use serde_json::Value;

use crate::ground::Ground;
use crate::start::{shell, stop_server};

/// A directory with a locale `xx_XX` in which these two letters stand in this order before all others.
fn locale(scratch: &Scratch, name: &str, letters: [u32; 2]) -> PathBuf {
    let directory = scratch.dir(name);
    let [first, second] = letters;
    let source = format!(
        "comment_char %\nescape_char /\nLC_COLLATE\norder_start forward\n<U{first:04X}>\n<U{second:04X}>\nUNDEFINED\n\
         order_end\nEND LC_COLLATE\n"
    );
    let source = scratch.file(format!("{name}.src"), source);
    // A charmap of its own: a small host has none.
    let bytes = (0..128).map(|byte| format!("<U{byte:04X}> /x{byte:02x}\n")).collect::<String>();
    let head = "<code_set_name> ASCII\n<comment_char> %\n<escape_char> /\n<mb_cur_min> 1\n<mb_cur_max> 1\n";
    let charmap = scratch.file(format!("{name}.map"), format!("{head}CHARMAP\n{bytes}END CHARMAP\n"));
    let mut command = Command::new("localedef");
    // It warns of what else a locale has, and writes it with -c; its exit code says that it warned.
    command.arg("-c").arg("-i").arg(source).arg("-f").arg(charmap).arg(directory.join("xx_XX"));
    let done = Finished::of(&mut command);
    assert!(directory.join("xx_XX/LC_COLLATE").exists(), "{done}");
    directory
}

/// The indexes of the answer, by database.
fn indexes(said: &Value) -> BTreeMap<String, Vec<String>> {
    let databases = said["reindex"].as_array().unwrap().iter();
    databases
        .map(|database| {
            let names = database["indexes"].as_array().unwrap().iter();
            let names: Vec<String> = names.map(|name| name.as_str().unwrap().to_owned()).collect();
            assert_eq!(database["index_count"], names.len());
            (database["database"].as_str().unwrap().to_owned(), names)
        })
        .collect()
}

/// The cluster with text in a database and a collation of its own, and all kinds of indexes.
fn cluster_with_text(scratch: &Scratch, postgres: &'static Postgres) -> Ground {
    let cluster = Cluster::builder(postgres, scratch, "main").create();
    cluster.tolerate("could not determine encoding for locale");
    cluster.tolerate("collation version mismatch");
    cluster.tolerate("has no actual collation version");
    cluster.environment("LOCPATH", scratch.join("there").to_str().unwrap());
    let highwater = highwater_tests::Highwater::new(scratch, "main", &cluster).local_repository("repo");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    let ground = Ground { cluster, highwater, repository: scratch.join("repo") };
    ground.cluster.execute("create database app template template0 lc_collate 'xx_XX' lc_ctype 'C'");
    in_app(
        &ground,
        "create extension amcheck; create collation backwards (provider = libc, locale = 'xx_XX'); \
         create table t (own text primary key, plain text collate \"C\" unique, other text collate backwards, n int); \
         insert into t select chr(97 + i), chr(97 + i), chr(97 + i), i from generate_series(0, 25) i; \
         create index by_condition on t (n) where other > 'm'; create index by_expression on t ((own > 'm')); \
         create index by_number on t (n); create index by_lower on t (lower(plain)); \
         create index \"By other\" on t (other); create table p (k text) partition by range (k)",
    );
    ground
}

fn in_app(ground: &Ground, sql: &str) {
    let connection = ground.cluster.connection().replace("dbname=postgres", "dbname=app");
    Session::connect(&connection).unwrap().execute(sql);
}

/// The indexes of text are listed before the restore, those that WAL brought too once the server runs, and no others; the printed script
/// rebuilds them and declares the versions, so that amcheck and the server have nothing to say any more.
fn what_is_sorted_otherwise_is_rebuilt(postgres: &'static Postgres) {
    let scratch = Scratch::new();
    locale(&scratch, "there", [0x7a, 0x61]);
    let here = locale(&scratch, "here", [0x61, 0x7a]);
    let ground = cluster_with_text(&scratch, postgres);
    in_app(&ground, "update pg_collation set collversion = '1.0' where collname = 'backwards'");
    if postgres.major > 14 {
        in_app(&ground, "update pg_database set datcollversion = '1.0' where datname = 'app'");
    }
    ground.backup();
    in_app(&ground, "create table later (own text primary key); insert into later select own from t");
    ground.archive();

    // What 14 does not record of a database, the C library's own version tells: this host's is another.
    let programs = scratch.dir("programs");
    let getconf = scratch.file(programs.join("getconf"), "#!/bin/sh\necho glibc 2.99\n");
    std::fs::set_permissions(getconf, std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").unwrap());
    let bin = postgres.bin.to_str().unwrap();
    let run = |more: &[&str]| {
        let target = scratch.join("copy");
        let mut arguments = Ground::arguments(target.to_str().unwrap(), &["--json", "--pg-bin", bin]);
        arguments.extend(more);
        let mut command = ground.highwater.command(&arguments);
        command.env("LOCPATH", &here).env("PATH", &path);
        serde_json::from_str::<Value>(&Finished::of(&mut command).success()).unwrap()
    };
    let target = scratch.join("copy");
    let without = Ground::arguments(target.to_str().unwrap(), &["--dry-run", "--pg-bin", bin]);
    let without = ground.highwater.run(&without);
    let words = "locale xx_XX is not on this host: nobody can connect to database app until it is";
    assert!(without.code == Some(0) && without.stderr.contains(words), "{without}");

    let known = ["public.\"By other\"", "public.by_condition", "public.by_expression", "public.t_pkey"];
    let planned = run(&["--dry-run"]);
    let mut found = indexes(&planned);
    found.values_mut().for_each(|names| names.sort());
    assert_eq!(found, BTreeMap::from([("app".to_owned(), known.map(str::to_owned).to_vec())]), "{planned}");
    assert_eq!(planned["reindex"][0]["range_partitioned"], serde_json::json!(["public.p"]), "{planned}");
    let warning = planned["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("database app sorts text otherwise") && warning.contains("depend on it (4)"),
        "{warning}"
    );

    let socket = scratch.dir("copy.s").display().to_string();
    let done = run(&["--start", "--socket-dir", &socket, "--action", "promote"]);
    let session = || Session::connect(&format!("host={socket} port=5432 user=postgres dbname=app")).unwrap();
    let mut all = known.to_vec();
    all.insert(3, "public.later_pkey");
    let mut found = indexes(&done);
    found.values_mut().for_each(|names| names.sort());
    assert_eq!(
        found,
        BTreeMap::from([("app".to_owned(), all.iter().map(ToString::to_string).collect())]),
        "{done}"
    );

    // The order is another one, and is right again after what is printed to type.
    let broken = session().try_execute("select bt_index_check('t_pkey')");
    assert!(broken.is_err(), "the index is in the order of the original");
    let steps = done["next"].as_array().unwrap();
    let step =
        steps.iter().find_map(|step| step["command"].as_str().filter(|text| text.contains("reindex.sql")));
    shell(&step.unwrap().replace("psql ", &format!("{bin}/psql ")));
    for index in &all {
        session().execute(&format!("select bt_index_check('{}')", index.trim_start_matches("public.")));
    }
    let differs = "select count(*) from pg_collation where collversion <> pg_collation_actual_version(oid)";
    assert_eq!(session().value(differs), "0");
    if postgres.major > 14 {
        let differs = "select count(*) from pg_database \
                       where datcollversion <> pg_database_collation_actual_version(oid)";
        assert_eq!(session().value(differs), "0");
    }
    stop_server(&ground, &scratch.join("copy"));
}

#[test]
fn what_is_sorted_otherwise_is_rebuilt_newest() {
    what_is_sorted_otherwise_is_rebuilt(newest());
}

#[test]
fn what_is_sorted_otherwise_is_rebuilt_oldest() {
    what_is_sorted_otherwise_is_rebuilt(oldest());
}
