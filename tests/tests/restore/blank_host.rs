//! From a blank host, a URL and the key are enough. Configuration that lay outside the data directory, as Debian's
//! does, comes back with the cluster (I25).

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use highwater_restore::ownership::Account;
use highwater_restore::server::{Installation, stop};
use highwater_tests::{Cluster, Finished, Scratch, for_each_major, newest, server_user};

use crate::ground::{Ground, rows};

/// Runs a restore as an administrator who has nothing but the repository and the key: as root where the tests are root's.
fn restore(ground: &Ground, scratch: &Scratch, target: &Path, more: &[&str]) -> Finished {
    let url = format!("file://{}", ground.repository.display());
    let key = scratch.join("repo.key");
    let mut arguments = Ground::arguments(target.to_str().unwrap(), more);
    arguments.extend(["--repository", &url, "--key-file", key.to_str().unwrap()]);
    let mut command = std::process::Command::new(highwater_tests::highwater_binary());
    command.args(arguments).current_dir("/");
    Finished::of(&mut command)
}

#[test]
fn a_wiped_host_of_debians_layout_comes_back() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let builder =
            Cluster::builder(postgres, &scratch, "main").config_outside().setting("work_mem", "9MB");
        let mut ground = Ground::with_backup(&scratch, builder);
        ground.insert(2);
        ground.archive();
        ground.cluster.execute("alter system set max_connections = 150");
        let config = ground.cluster.config().to_owned();
        let original = std::fs::read_to_string(config.join("postgresql.conf")).unwrap();
        ground.cluster.stop();
        let data = ground.cluster.data().to_owned();
        ground.cluster = Cluster::open(postgres, &scratch, "old", &data);
        std::fs::remove_dir_all(&data).unwrap();
        std::fs::remove_dir_all(&config).unwrap();

        // Into another place, with the configuration kept beside.
        let kept = scratch.join("kept");
        restore(&ground, &scratch, &kept, &[]).success();
        let copy = Cluster::open(postgres, &scratch, "kept", &kept);
        let beside =
            kept.join("highwater/config").join(config.strip_prefix("/").unwrap()).join("postgresql.conf");
        assert_eq!(std::fs::read_to_string(beside).unwrap(), original);
        copy.start();
        copy.wait_until_writable();
        assert_eq!(rows(&copy), "1,2");
        assert_eq!(copy.value("show work_mem"), "4MB");
        for path in ["", "PG_VERSION", "global/pg_control", "postgresql.conf", "highwater/restore.secrets"] {
            assert_eq!(std::fs::metadata(kept.join(path)).unwrap().uid(), server_user().uid, "{path}");
        }
        copy.stop_proven();

        // Into the old place, with the configuration put back where it was.
        let back = ["--config-to", config.to_str().unwrap()];
        restore(&ground, &scratch, &data, &back).success();
        assert_eq!(std::fs::read_to_string(config.join("postgresql.conf")).unwrap(), original);
        let copy = Cluster::open(postgres, &scratch, "back", &data);
        copy.option("config_file", config.join("postgresql.conf").to_str().unwrap());
        copy.start();
        copy.wait_until_writable();
        assert_eq!(rows(&copy), "1,2");
        assert_eq!(copy.value("show work_mem"), "9MB");
        copy.stop_proven();

        // Into other places, configuration too; and never over a file that is there.
        let (third, elsewhere) = (scratch.join("third"), scratch.join("etc"));
        let to = ["--config-to", elsewhere.to_str().unwrap()];
        restore(&ground, &scratch, &third, &to).success();
        let copy = Cluster::open(postgres, &scratch, "third", &third);
        copy.option("config_file", elsewhere.join("postgresql.conf").to_str().unwrap());
        copy.start();
        copy.wait_until_writable();
        assert_eq!(copy.value("show data_directory"), third.to_str().unwrap());
        assert_eq!(copy.value("show hba_file"), elsewhere.join("pg_hba.conf").to_str().unwrap());
        assert_eq!(copy.value("show work_mem"), "9MB");
        copy.stop_proven();
        let fourth = scratch.join("fourth");
        restore(&ground, &scratch, &fourth, &to).failure(3, &["exists and would be replaced"]);
        assert!(!fourth.exists());
    });
}

/// I25: each of the three files and what they include lay in a directory of its own, two under one name, one directory with nothing
/// in it. All of it comes back below one directory, and the server starts on it.
#[test]
fn configuration_from_all_over_the_host_comes_back() {
    let scratch = Scratch::new();
    let postgres = newest();
    let mut ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main").config_outside());
    let config = ground.cluster.config().to_owned();
    ground.cluster.stop();
    let (hba, ident, own) = (scratch.dir("hba"), scratch.dir("ident"), scratch.dir("common/conf.d"));
    let empty = scratch.dir("nothing here");
    std::fs::rename(config.join("pg_hba.conf"), hba.join("access.conf")).unwrap();
    std::fs::rename(config.join("pg_ident.conf"), ident.join("access.conf")).unwrap();
    scratch.file("hba/users", "postgres\n");
    let access = std::fs::read_to_string(hba.join("access.conf")).unwrap();
    scratch.file("hba/access.conf", format!("local all @users trust\n{access}"));
    scratch.file("common/conf.d/1.conf", "work_mem = '7MB'\ninclude '../deeper.conf'\n");
    scratch.file("common/deeper.conf", "maintenance_work_mem = '77MB'\n");
    let conf = std::fs::read_to_string(config.join("postgresql.conf")).unwrap();
    let lines = [
        format!("hba_file = '{}'", hba.join("access.conf").display()),
        format!("ident_file = '{}'", ident.join("access.conf").display()),
        format!("include_dir '{}'", own.display()),
        format!("include_dir '{}'", empty.display()),
    ];
    scratch.file("main.etc/postgresql.conf", format!("{conf}{}\n", lines.join("\n")));
    ground.cluster.start();
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    ground.backup();
    ground.insert(2);
    ground.archive();
    ground.cluster.stop();
    let data = ground.cluster.data().to_owned();
    ground.cluster = Cluster::open(postgres, &scratch, "old", &data);
    for gone in [&data, &config, &hba, &ident, &scratch.join("common"), &empty] {
        std::fs::remove_dir_all(gone).unwrap();
    }

    let (target, etc) = (scratch.join("made/on the way/copy"), scratch.join("etc"));
    let (socket, bin) = (scratch.dir("s"), postgres.bin.to_str().unwrap());
    let to = ["--config-to", etc.to_str().unwrap()];
    destinations_are_looked_at_first(&ground, &scratch, &target);
    what_breaks_late_says_how_to_go_on(&ground, &scratch);
    let start = ["--action", "promote", "--start", "--pg-bin", bin, "--socket-dir", socket.to_str().unwrap()];
    restore(&ground, &scratch, &target, &[&to[..], &start].concat()).success();
    let session = highwater_tests::Session::connect(&format!(
        "host={} port=5432 user=postgres dbname=postgres",
        socket.display()
    ));
    let session = session.unwrap();
    let show = |setting: &str| session.value(&format!("show {setting}"));
    assert_eq!(session.value("select string_agg(n::text, ',' order by n) from t"), "1,2");
    assert_eq!(show("work_mem"), "7MB");
    assert_eq!(show("maintenance_work_mem"), "77MB");
    assert_eq!(show("config_file"), etc.join("postgresql.conf").to_str().unwrap());
    assert_eq!(show("hba_file"), etc.join("access.conf").to_str().unwrap());
    assert_eq!(show("ident_file"), etc.join("access.conf-2").to_str().unwrap());
    assert_eq!(session.value("select count(*) from pg_hba_file_rules where error is not null"), "0");
    drop(session);
    let major = u16::try_from(postgres.major).unwrap();
    let installation = Installation::find(major, Some(&postgres.bin)).unwrap();
    let owner = highwater_tests::is_root().then(|| Account::parse(&server_user().name).unwrap());
    stop(&installation, &target, owner.as_ref(), std::time::Duration::from_secs(60)).unwrap();
}

/// What would fail when all is written is refused before anything is.
fn destinations_are_looked_at_first(ground: &Ground, scratch: &Scratch, target: &Path) {
    scratch.file("a-file", "");
    scratch.dir("taken");
    scratch.file("taken/access.conf", "mine\n");
    let inside = target.join("etc");
    for (to, words) in [
        (scratch.join("a-file/etc"), ["nothing can be written into", "a-file"]),
        (scratch.join("taken"), ["exists and would be replaced", "access.conf"]),
        (inside, ["etc", "one contains the other"]),
    ] {
        restore(ground, scratch, target, &["--config-to", to.to_str().unwrap()]).failure(3, &words);
        assert!(!scratch.join("made").exists());
    }
    let below = scratch.join("a-file/data");
    restore(ground, scratch, &below, &[]).failure(3, &["nothing can be written into"]);
    if highwater_tests::is_root() {
        let closed = scratch.dir("closed");
        std::os::unix::fs::chown(&closed, Some(0), Some(0)).unwrap();
        std::fs::set_permissions(&closed, std::fs::Permissions::from_mode(0o700)).unwrap();
        restore(ground, scratch, &closed.join("data"), &[]).failure(3, &["cannot enter", "closed"]);
        let to = ["--config-to", closed.to_str().unwrap()];
        restore(ground, scratch, target, &to).failure(3, &["cannot enter", "closed"]);
    }
}

/// Somebody takes a place while the data is written: that is no refusal, and what to type is said.
fn what_breaks_late_says_how_to_go_on(ground: &Ground, scratch: &Scratch) {
    let (target, etc) = (scratch.join("late"), scratch.dir("late.etc"));
    let begun = target.join("highwater/restore.incomplete");
    let taken = etc.join("access.conf");
    let other = std::thread::spawn({
        let taken = taken.clone();
        move || {
            let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
            while !begun.exists() && std::time::Instant::now() < deadline {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            std::fs::write(taken, "theirs\n").unwrap();
        }
    });
    let broken = restore(ground, scratch, &target, &["--config-to", etc.to_str().unwrap()]);
    other.join().unwrap();
    let said = broken.failure(1, &["is not complete", "no server starts there", "access.conf exists"]);
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "theirs\n");
    assert!(!target.join("global/pg_control").exists());
    let command = said.split("To give it up: ").nth(1).unwrap();
    assert!(said.contains("the same command again") && !command.contains("access.conf "), "{said}");
    // It is still not ours, and goes on being refused.
    let again = restore(ground, scratch, &target, &["--config-to", etc.to_str().unwrap()]);
    again.failure(3, &["access.conf exists"]);
    assert_eq!(std::fs::read_to_string(&taken).unwrap(), "theirs\n");
    std::fs::remove_file(taken).unwrap();
    restore(ground, scratch, &target, &["--config-to", etc.to_str().unwrap()]).success();
}
