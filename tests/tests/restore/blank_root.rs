//! Debian's layout on a blank root: a cluster in `/var/lib/postgresql` and `/etc/postgresql` of a host that is lost, and another host
//! with nothing but programs, the repository and the key.
//!
//! Each host is a root directory of its own in a mount namespace: a new tmpfs with the programs of this machine bound into it.
//! The test calls itself there. Both hosts share one directory, `/srv/backup`; when the first one's processes end, its root is
//! gone. An ordinary user becomes root in a user namespace for the mounts, and themselves again in another one for the rest.

use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_tests::{
    Cluster, ClusterBuilder, Finished, Highwater, Postgres, Scratch, give_to_server_user, highwater_binary,
    is_root, may_mount, newest,
};

/// Says to the test in which of the hosts it runs.
const HOST: &str = "HIGHWATER_TEST_HOST";
/// Where the binary lies on a host.
const PROGRAM: &str = "/opt/highwater";
/// What both hosts see.
const SHARED: &str = "/srv/backup";

/// Makes the root `$1` with the directory `$2` shared and the program `$3`, binds what follows up to `--` at its own place, and runs
/// the rest there.
const ENTER: &str = r#"
set -eu
root=$1 shared=$2 program=$3
shift 3
mount -t tmpfs none "$root"
cd "$root"
mkdir -p proc dev tmp etc opt srv/backup var/lib var/run old
chmod 1777 tmp
for directory in usr bin sbin lib lib32 lib64; do
    if [ -L "/$directory" ]; then
        cp -P "/$directory" .
    elif [ -d "/$directory" ]; then
        mkdir "$directory"
        mount --rbind "/$directory" "$directory"
    fi
done
mount --rbind /proc proc
mount --rbind /dev dev
mount --bind "$shared" srv/backup
touch opt/highwater
mount --bind "$program" opt/highwater
for file in passwd group nsswitch.conf ld.so.cache; do
    if [ -e "/etc/$file" ]; then cp "/etc/$file" etc; fi
done
while [ "$1" != -- ]; do
    if [ -d "$1" ]; then mkdir -p ".$1"; else mkdir -p ".$(dirname "$1")" && touch ".$1"; fi
    mount --rbind "$1" ".$1"
    shift
done
shift
pivot_root . old
umount -l old
rmdir old
exec "$@"
"#;

/// Runs this test again on a host of its own.
fn on_a_host(host: &str, scratch: &Scratch, postgres: &Postgres) {
    let me = std::env::current_exe().unwrap();
    let mut unshare = Command::new("unshare");
    if !is_root() {
        unshare.args(["--user", "--map-root-user"]);
    }
    unshare.args(["--mount", "--", "sh", "-c", ENTER, "sh"]);
    unshare.arg(scratch.dir(format!("{host}.root"))).arg(scratch.dir("backup")).arg(highwater_binary());
    unshare.arg(postgres.bin.parent().unwrap()).arg(&me).arg("--");
    if !is_root() {
        let me = highwater_tests::server_user();
        unshare.args(["unshare", "--user"]);
        unshare.args([format!("--map-user={}", me.uid), format!("--map-group={}", me.gid), "--".into()]);
    }
    unshare.arg(&me).args(["--exact", "--nocapture"]).arg(std::thread::current().name().unwrap());
    unshare
        .env(HOST, host)
        .env("HIGHWATER_BIN", PROGRAM)
        .env("HIGHWATER_POSTGRES_MAJORS", postgres.major.to_string());
    unshare.env_remove("HIGHWATER_TEST_DIR");
    let said = Finished::of(&mut unshare).success();
    assert!(said.contains("1 passed"), "{said}");
}

/// Where Debian's packages put a cluster: the data directory, and that of the configuration.
fn places(postgres: &Postgres) -> (PathBuf, PathBuf) {
    let place = |root: &str| PathBuf::from(format!("{root}/postgresql/{}/main", postgres.major));
    (place("/var/lib"), place("/etc"))
}

/// A host that has worked for a while, up to its last archived segment.
fn first_host(postgres: &'static Postgres) {
    let scratch = Scratch::new();
    let (data, config) = places(postgres);
    for directory in [data.parent().unwrap(), &config] {
        std::fs::create_dir_all(directory).unwrap();
        give_to_server_user(directory);
    }
    let builder: ClusterBuilder<'_> = Cluster::builder(postgres, &scratch, "main");
    let cluster = builder
        .directories(data, config)
        .setting("work_mem", "9MB")
        .setting("external_pid_file", &format!("/tmp/{}-main.pid", postgres.major))
        .create();
    let highwater = Highwater::new(&scratch, "main", &cluster).lines(&format!(
        "[repository.main]\nurl = \"file://{SHARED}/repository\"\nkey_file = \"{SHARED}/main.key\""
    ));
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    cluster.execute("create table t as select generate_series(1, 1000) as x");
    highwater.ok(&["backup", "--fast-checkpoint"]);
    cluster.execute("insert into t values (0)");
    cluster.wait_until_archived(&cluster.switch_wal());
    cluster.kill();
}

/// A host that has only the programs: a URL and the key bring the cluster back to where it was, and it starts as Debian starts it.
fn second_host(postgres: &'static Postgres) {
    let scratch = Scratch::new();
    let (data, config) = places(postgres);
    for place in ["/var/lib/postgresql", "/etc/postgresql"] {
        assert!(!Path::new(place).exists(), "{place}");
    }
    let mut restore = Command::new(PROGRAM);
    restore.args(["restore", "--repository", &format!("file://{SHARED}/repository")]);
    restore.args(["--key-file", &format!("{SHARED}/main.key")]);
    restore.arg("--target-dir").arg(&data).arg("--config-to").arg(&config);
    Finished::of(&mut restore).success();
    let cluster = Cluster::open_outside(postgres, &scratch, "main", &data, &config);
    cluster.start();
    cluster.wait_until_writable();
    assert_eq!(cluster.value("select count(*) || ' ' || min(x) from t"), "1001 0");
    for (setting, value) in [
        ("data_directory", data),
        ("config_file", config.join("postgresql.conf")),
        ("hba_file", config.join("pg_hba.conf")),
        ("work_mem", "9MB".into()),
    ] {
        assert_eq!(cluster.value(&format!("show {setting}")), value.to_str().unwrap(), "{setting}");
    }
    cluster.stop_proven();
}

/// I25: nothing of the lost host is needed, and everything is where it was.
#[test]
fn a_lost_host_of_debians_layout_comes_back_on_a_blank_root() {
    match std::env::var(HOST).as_deref() {
        Ok("first") => return first_host(newest()),
        Ok(_) => return second_host(newest()),
        Err(_) => {}
    }
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new();
    on_a_host("first", &scratch, newest());
    on_a_host("second", &scratch, newest());
}
