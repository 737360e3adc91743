//! Where a cluster is put: tablespaces, `pg_wal`, segment sizes, names that need quoting.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater_tests::{
    Cluster, Finished, Scratch, files, for_each_major, give_to_server_user, highwater_binary, is_root,
    left_out, may_mount, newest, server_user,
};

use crate::ground::{Ground, rows};

/// A copy beside the live cluster has every tablespace somewhere else, and the live one is not touched.
#[test]
fn tablespaces_and_pg_wal_go_where_they_are_sent() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let builder = Cluster::builder(postgres, &scratch, "main").wal_segment_mb(1);
        let ground = Ground::start(&scratch, builder);
        let (first, second) = (scratch.dir("first"), scratch.dir("second one"));
        ground.cluster.execute(&format!("create tablespace first location '{}'", first.display()));
        ground.cluster.execute(&format!("create tablespace second location '{}'", second.display()));
        ground.cluster.execute("create table t (n int) tablespace first");
        ground.cluster.execute("create table u tablespace second as select generate_series(1, 20000) n");
        ground.cluster.execute("create index on u (n) tablespace first");
        ground.backup();
        for n in 1..=3 {
            ground.insert(n);
        }
        ground.archive();
        let taken = scratch.join("taken");
        ground.highwater.fails(
            &Ground::arguments(taken.to_str().unwrap(), &[]),
            3,
            &["tablespace", "is not empty", "--tablespace-map"],
        );
        assert!(!taken.exists());

        let (new_first, new_second) = (scratch.join("new first"), scratch.join("new=second"));
        let maps = [
            format!("{}={}", first.display(), new_first.display()),
            format!("second={}", new_second.display().to_string().replace('=', "\\=")),
        ];
        let wal = scratch.join("wal's home");
        let arguments = [
            "--tablespace-map",
            &maps[0],
            "--tablespace-map",
            &maps[1],
            "--wal-dir",
            wal.to_str().unwrap(),
            "--action",
            "promote",
        ];
        let restored = ground.restore(&scratch, "copy of it's 100%", &arguments);
        let link = |name: &str| std::fs::read_link(restored.data().join(name)).unwrap();
        assert_eq!(link("pg_wal"), wal);
        restored.start();
        restored.wait_until_writable();
        assert_eq!(rows(&restored), "1,2,3");
        assert_eq!(restored.value("select sum(n) from u"), "200010000");
        let places = restored.rows(
            "select pg_tablespace_location(oid) from pg_tablespace where spcname in ('first', 'second') order by spcname",
        );
        let places: Vec<&str> = places.iter().map(|row| row[0].as_deref().unwrap()).collect();
        assert_eq!(places, [new_first.to_str().unwrap(), new_second.to_str().unwrap()]);
        restored.stop_proven();
        assert_eq!(rows(&ground.cluster), "1,2,3");
        for path in [restored.data(), &new_first, &wal] {
            let metadata = std::fs::metadata(path).unwrap();
            assert_eq!(metadata.uid(), server_user().uid, "{}", path.display());
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", path.display());
        }
    });
}

/// Root may change anything, so what a restore in place may not take it has to refuse by itself: what the server's user has only led a
/// link to, what is mounted within, what another server uses by whatever name. What it then brings back is the server's user's.
#[test]
fn as_root_nothing_is_taken_that_is_anothers() {
    if !is_root() {
        return left_out("is not root, which alone could take what is another's");
    }
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1));
    let (space, roots) = (scratch.dir("space"), scratch.dir("roots"));
    give_to_server_user(&space);
    std::os::unix::fs::chown(&roots, Some(0), Some(0)).unwrap();
    scratch.file("roots/precious", "keep me");
    ground.cluster.execute(&format!("create tablespace space location '{}'", space.display()));
    ground.cluster.execute("create table t tablespace space as select generate_series(1, 1000) n");
    ground.backup();
    ground.archive();
    let data = ground.cluster.data();
    let pid_file = data.join("postmaster.pid");
    let left = std::fs::read(&pid_file).unwrap();
    ground.cluster.kill();
    // The harness may have taken it away.
    std::fs::write(&pid_file, left).unwrap();
    let apart_by = |apart: &[&str], prepare: &str, words: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(apart).args(["--mount", "sh", "-c", &format!("{prepare} && exec \"$@\""), "sh"]);
        command.arg(highwater_binary()).args(Ground::arguments(data.to_str().unwrap(), &["--delta"]));
        let done = Finished::of(command.arg("--config").arg(ground.highwater.config()).current_dir("/"));
        if words.is_empty() { done.success() } else { done.failure(3, words) }
    };
    let delta = |prepare: &str, words: &[&str]| apart_by(&[], prepare, words);
    // It crashed, which nobody can tell from one that runs where it is not seen. In a container 1 is whatever was started first,
    // and when the system was started says nothing of other ones.
    delta("true", &["not to be seen here", "postmaster.pid"]);
    std::fs::write(&pid_file, "1\n/data\n1\n5432\n").unwrap();
    apart_by(&["--pid", "--fork", "--mount-proc"], "true", &["not to be seen here (process 1)"]);
    std::fs::remove_file(pid_file).unwrap();
    let [link] = std::fs::read_dir(data.join("pg_tblspc")).unwrap().collect::<Vec<_>>().try_into().unwrap();
    let link: PathBuf = link.unwrap().path();
    let lead = |to: &Path| {
        std::fs::remove_file(&link).unwrap();
        symlink(to, &link).unwrap();
    };
    lead(&roots);
    delta("true", &["is where a link of the data directory leads, and belongs to user 0"]);
    lead(&space);
    let base = data.join("base");
    delta(
        &format!("mount -t tmpfs none '{}'", base.display()),
        &["another filesystem is mounted", "unmount it"],
    );
    let wal = data.join("pg_wal").display().to_string();
    delta(&format!("mount --bind '{wal}' '{wal}'"), &["another filesystem is mounted", "ln -s THAT_PLACE"]);
    let mut server = server_elsewhere(&scratch, &space);
    delta("true", &["is used by the server of"]);
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(data.join("global/pg_control").exists() && roots.join("precious").exists());

    delta("true", &[]);
    assert_eq!(std::fs::read_link(&link).unwrap(), space);
    for file in files(data).into_values().chain(files(&space).into_values()) {
        assert_eq!(file.metadata().unwrap().uid(), server_user().uid, "{}", file.display());
    }
}

/// A server in a mount namespace of its own, where the place has another name.
fn server_elsewhere(scratch: &Scratch, place: &Path) -> Child {
    let (original, inner) = (scratch.dir("original"), scratch.dir("inner"));
    let program = scratch.join("postgres");
    std::fs::create_dir(original.join("pg_tblspc")).unwrap();
    symlink(&inner, original.join("pg_tblspc/1")).unwrap();
    symlink("/bin/sh", &program).unwrap();
    let script = "mount --bind \"$1\" \"$2\" && cd \"$3\" && exec \"$4\" -c 'read line; :'";
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script, "sh"]).args([place, &inner, &original, &program]);
    let mut server = command.stdin(Stdio::piped()).spawn().unwrap();
    let (comm, begun) = (format!("/proc/{}/comm", server.id()), Instant::now());
    while std::fs::read_to_string(&comm).unwrap().trim() != "postgres" {
        assert!(server.try_wait().unwrap().is_none() && begun.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(5));
    }
    server
}
