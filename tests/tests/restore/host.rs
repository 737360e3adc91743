//! What another host lacks is told before a byte is written: libraries, a server that was built otherwise, another major.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use highwater_tests::{Cluster, Postgres, Scratch, files, give_to_server_user, newest, oldest};
use serde_json::Value;

use crate::ground::Ground;

/// An installation of PostgreSQL as another host might have it: this one's, without some libraries.
struct OtherHost {
    bin: PathBuf,
}

impl OtherHost {
    fn without(postgres: &Postgres, scratch: &Scratch, name: &str, absent: &[&str]) -> OtherHost {
        let (from, to) = (postgres.bin.parent().unwrap(), scratch.dir(name));
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let inside = scratch.dir(to.join(entry.file_name()));
            let copied = entry.file_name() == "bin";
            if !copied && entry.file_name() != "lib" {
                std::fs::remove_dir(&inside).unwrap();
                symlink(entry.path(), inside).unwrap();
                continue;
            }
            for file in std::fs::read_dir(entry.path()).unwrap() {
                let file = file.unwrap();
                let name = file.file_name().into_string().unwrap();
                if absent.iter().any(|absent| name == format!("{absent}.so")) {
                    continue;
                }
                // A program finds its libraries from where it really lies.
                if copied && ["postgres", "pg_config"].contains(&name.as_str()) {
                    std::fs::copy(file.path(), inside.join(&name)).unwrap();
                } else {
                    symlink(file.path(), inside.join(&name)).unwrap();
                }
            }
        }
        OtherHost { bin: to.join("bin") }
    }
}

fn dry_run(ground: &Ground, scratch: &Scratch, more: &[&str]) -> Value {
    let target = scratch.join("never");
    let mut arguments = Ground::arguments(target.to_str().unwrap(), more);
    arguments.push("--dry-run");
    let said = ground.highwater.json(&arguments);
    assert!(!target.exists());
    said
}

fn texts(said: &Value, key: &str) -> Vec<String> {
    said[key].as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A library that a login or a function needs is a warning that names who will miss it; one that the server needs to start refuses a
/// restore that is to start it; and nothing is said on a host that has them all.
#[test]
fn libraries_that_a_host_lacks_are_named() {
    let scratch = Scratch::new();
    let libraries = "pg_stat_statements, auto_explain";
    let builder = Cluster::builder(newest(), &scratch, "main").setting("shared_preload_libraries", libraries);
    let ground = Ground::start(&scratch, builder);
    ground.cluster.execute("create extension hstore; create role dev");
    ground.cluster.execute("alter role dev set session_preload_libraries = 'auth_delay'");
    ground.cluster.execute(
        "create function trimmed(cstring) returns cstring as '$libdir/autoinc', 'autoinc' language c",
    );
    ground.backup();

    let same = dry_run(&ground, &scratch, &["--pg-bin", newest().bin.to_str().unwrap()]);
    assert_eq!(same["warnings"], serde_json::json!([]), "{same}");
    assert_eq!(same["reindex"], serde_json::json!([]), "{same}");

    let other = OtherHost::without(newest(), &scratch, "few", &["hstore", "auth_delay", "autoinc"]);
    let bin = other.bin.to_str().unwrap();
    let few = dry_run(&ground, &scratch, &["--pg-bin", bin]);
    let warnings = texts(&few, "warnings");
    for words in [
        "$libdir/hstore: extension hstore will fail in database postgres until hstore is installed",
        "auth_delay, which session_preload_libraries of role dev names: logins that it is for fail",
        "$libdir/autoinc: functions made without an extension will fail in database postgres",
    ] {
        assert!(warnings.iter().any(|warning| warning.contains(words)), "{words}: {warnings:#?}");
    }
    assert_eq!(warnings.len(), 3, "{warnings:#?}");
    let target = scratch.join("never");
    let arguments = Ground::arguments(target.to_str().unwrap(), &["--dry-run", "--pg-bin", bin]);
    let loud = ground.highwater.run(&arguments);
    assert_eq!(loud.stderr.matches("warning: the server in ").count(), 3, "{loud}");

    // Without a library to preload it does not start. Files alone are restored all the same, and loudly.
    let other = OtherHost::without(newest(), &scratch, "fewer", &["auto_explain"]);
    let bin = other.bin.to_str().unwrap();
    let socket = scratch.dir("fewer.s").display().to_string();
    let words = ["shared_preload_libraries names auto_explain", "would not start", "install auto_explain"];
    ground.refused(&scratch, &["--start", "--pg-bin", bin, "--socket-dir", &socket], &words);
    let warnings = texts(&dry_run(&ground, &scratch, &["--pg-bin", bin]), "warnings");
    assert!(
        matches!(&warnings[..], [one] if one.contains("will not start without it: install auto_explain")),
        "{warnings:#?}"
    );
    let copy = scratch.join("copy");
    ground.highwater.ok(&Ground::arguments(copy.to_str().unwrap(), &["--pg-bin", bin]));
    assert!(files(&copy).contains_key("backup_label"));
}

/// A server that was built otherwise is refused in its own words, and one of another major by its number, with no start asked for; what is
/// brought here for another host is not held against the server of this one.
#[test]
fn a_server_that_cannot_open_the_cluster_is_refused() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    let elsewhere = dry_run(&ground, &scratch, &["--elsewhere"]);
    let notes = texts(&elsewhere, "notes");
    assert!(notes.iter().any(|note| note.contains("it is for another host")), "{notes:#?}");

    let empty = scratch.dir("empty");
    ground.refused(
        &scratch,
        &["--dry-run", "--pg-bin", empty.to_str().unwrap()],
        &["is not the bin directory"],
    );
    if oldest().major == newest().major {
        return;
    }
    ground.refused(
        &scratch,
        &["--pg-bin", oldest().bin.to_str().unwrap()],
        &["is not the bin directory of PostgreSQL", &format!("it holds {}", oldest().major), "major version"],
    );
    // The older server says that it is the newer one, and is shown files that say that they are its own.
    let disguised = disguised(&scratch, oldest(), newest());
    ground.refused(
        &scratch,
        &["--pg-bin", disguised.to_str().unwrap()],
        &["cannot open this cluster", "initialized with", "compiled with", "--pg-bin", "--elsewhere"],
    );
}

/// A directory whose `postgres` answers `--version` as `said` does and is `real` otherwise.
fn disguised(scratch: &Scratch, real: &Postgres, said: &Postgres) -> PathBuf {
    let bin = scratch.dir("disguised");
    let version = said.run("postgres", ["--version"]);
    let lib = real.bin.parent().unwrap().join("lib");
    let script = format!(
        "#!/bin/sh\nif [ \"$1\" = --version ]; then echo '{}'; exit; fi\necho {} > \"$3/PG_VERSION\"\n\
         export LD_LIBRARY_PATH='{}'\nexec '{}' \"$@\"\n",
        version.trim(),
        real.major,
        lib.display(),
        real.bin.join("postgres").display()
    );
    let path = scratch.file(bin.join("postgres"), script);
    executable(&path);
    bin
}

fn executable(path: &Path) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    give_to_server_user(path);
}
