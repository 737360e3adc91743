//! From a blank host, a URL and the key are enough. Configuration that lay outside the data directory, as Debian's
//! does, comes back with the cluster (I25).

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use highwater_tests::{Cluster, Finished, Scratch, for_each_major, server_user};

use crate::ground::{Ground, rows};

/// Runs a restore as an administrator who has nothing but the repository and the key: as root where the tests are root's.
fn restore(ground: &Ground, scratch: &Scratch, target: &Path, more: &[&str]) -> Finished {
    let url = format!("file://{}", ground.repository.display());
    let key = scratch.join("repo.key");
    let mut arguments = Ground::arguments(target.to_str().unwrap(), more);
    arguments.extend(["--repository", &url, "--key-file", key.to_str().unwrap()]);
    let mut command = std::process::Command::new(highwater_tests::highwater_binary());
    command.args(arguments).env_remove("HIGHWATER_CONFIG").current_dir("/");
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
