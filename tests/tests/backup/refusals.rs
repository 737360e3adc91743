//! Servers that no sound backup can be taken from: refused before anything is written (I20, I25).

use highwater_tests::{Cluster, Highwater, Scratch, for_each_major, newest};

use crate::ground::Ground;

#[test]
fn settings_that_make_a_backup_worthless_are_refused() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::prepare(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let cluster = &ground.cluster;
        for (settings, words) in [
            (vec![("fsync", "off")], ["fsync is off", "hint: set fsync = on"]),
            (
                vec![
                    ("fsync", "on"),
                    ("wal_level", "minimal"),
                    ("max_wal_senders", "0"),
                    ("archive_mode", "off"),
                ],
                ["wal_level is minimal", "hint: set wal_level"],
            ),
            (vec![("wal_level", "replica")], ["archive_mode is off", "hint: set archive_mode"]),
        ] {
            for (name, value) in settings {
                cluster.option(name, value);
            }
            cluster.start();
            ground.highwater.fails(&["backup"], 3, &words);
            cluster.stop();
        }
        assert!(ground.objects("/backups/").is_empty());
    });
}

/// The cause is PostgreSQL's own, and comes before a byte is read.
#[test]
fn archiving_that_does_not_work_is_found_out_first() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let cluster = &ground.cluster;
        cluster.tolerate("archive command failed");
        cluster.tolerate("failed too many times");
        for (command, words) in [
            ("false", "archive_command fails"),
            ("true", "PostgreSQL says that it is archived"),
            ("", "archive_command is empty"),
        ] {
            cluster.tolerate("enabled, yet arch");
            cluster.configure(&[("archive_command", command)]);
            cluster.reload();
            let wait = ["did not reach the repository within 4 s", words, "hint: "];
            ground.highwater.fails(&["backup", "--archive-timeout", "4"], 1, &wait);
        }
        assert!(ground.objects("/backups/").is_empty());
    });
}

#[test]
fn a_standby_is_refused() {
    let postgres = newest();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
    let cluster = &ground.cluster;
    std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
    cluster.configure(&[("restore_command", "false")]);
    cluster.restart();
    ground.highwater.fails(&["backup"], 3, &["is a standby", "hint: run the backup on the primary"]);
}

/// A link that is not one of PostgreSQL's, and leads out of the data directory, is an error that names it (I25).
#[test]
fn a_link_that_leaves_the_data_directory_is_an_error() {
    let postgres = newest();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
    let data = ground.cluster.data();
    for target in ["/etc/hostname", "../../elsewhere", "5/../../../elsewhere"] {
        std::os::unix::fs::symlink(target, data.join("base/stray")).unwrap();
        ground.highwater.fails(
            &["backup"],
            3,
            &["base/stray is a symbolic link that leads out", target, "hint: "],
        );
        std::fs::remove_file(data.join("base/stray")).unwrap();
    }
    assert!(ground.objects("/backups/").is_empty());
    // One that stays inside is kept as it is.
    std::os::unix::fs::symlink("../global", data.join("base/near")).unwrap();
    ground.backup(&[]);
    let restored = ground.restore(&scratch, "restored", &["--to-consistent"]);
    assert_eq!(std::fs::read_link(restored.join("base/near")).unwrap(), std::path::Path::new("../global"));
}

/// The connection and the data directory must be one cluster, and that of the lineage.
#[test]
fn another_cluster_is_refused() {
    let postgres = newest();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
    let other = Cluster::builder(postgres, &scratch, "other").start();
    // The other server, but our data directory.
    let confused = Highwater::new(&scratch, "confused", &ground.cluster).local_repository("repo");
    let text = std::fs::read_to_string(confused.config()).unwrap();
    let socket = ground.cluster.socket().to_str().unwrap();
    std::fs::write(confused.config(), text.replace(socket, other.socket().to_str().unwrap())).unwrap();
    confused.fails(&["backup"], 3, &["system identifier", "hint: "]);
    assert!(ground.objects("/backups/").is_empty());
}

/// What `check` asks to be granted is enough for a backup, and nothing of it is too much to ask of a superuser.
#[test]
fn an_ordinary_user_with_what_check_asks_for_is_enough() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let cluster = &ground.cluster;
        cluster.execute("create role keeper login");
        let keeper = Highwater::new(&scratch, "keeper", cluster).local_repository("repo");
        let text = std::fs::read_to_string(keeper.config()).unwrap();
        std::fs::write(keeper.config(), text.replace("user=postgres", "user=keeper")).unwrap();
        keeper.fails(&["backup"], 3, &["may not see", "GRANT pg_read_all_settings"]);
        let said = keeper.run(&["check"]);
        let said = said.stdout + &said.stderr;
        let grants: Vec<&str> =
            said.lines().map(str::trim).filter(|line| line.starts_with("GRANT ")).collect();
        assert!(grants.len() >= 4, "{said}");
        cluster.execute(&grants.join("\n"));
        keeper.ok(&["backup", "--fast-checkpoint"]);
        assert_eq!(ground.objects("/manifest").len(), 1);
    });
}
