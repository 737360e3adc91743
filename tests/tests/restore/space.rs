//! Space is looked at before a byte is written: all that goes to one filesystem, together.

use std::process::Command;

use highwater_tests::{
    Cluster, Finished, Scratch, give_to_server_user, is_root, left_out, may_mount, newest,
};

use crate::ground::Ground;

/// The data directory and a tablespace would each fit on a filesystem that is too small for both: refused with what is needed. With
/// the tablespace elsewhere the same restore is planned.
#[test]
fn two_places_on_one_filesystem_are_added_up() {
    if !is_root() {
        return left_out(
            "is not root, and cannot give files on a filesystem of its own to the server's user",
        );
    }
    if !may_mount() {
        return;
    }
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let ground = Ground::start(&scratch, builder);
    let place = scratch.dir("fast");
    give_to_server_user(&place);
    let session = ground.cluster.session();
    session.execute(&format!("create tablespace fast location '{}'", place.display()));
    session.execute("create table t tablespace fast as select i from generate_series(1, 120000) i");
    ground.backup();

    let small = scratch.dir("small");
    let (data, inside, outside) = (small.join("data"), small.join("fast"), scratch.join("other"));
    let to = |path: &std::path::Path| format!("fast={}", path.display());
    let (together, apart) = (to(&inside), to(&outside));
    let target = data.to_str().unwrap();
    let plan = Finished::of(&mut ground.highwater.command(&arguments(target, &together))).success();
    let plan: serde_json::Value = serde_json::from_str(&plan).unwrap();
    let [space] = plan["space"].as_array().unwrap().as_slice() else { panic!("{plan}") };
    let needed = space["needed_bytes"].as_u64().unwrap();

    let mounted = |options: &str, map: &str| {
        let mut command = Command::new("unshare");
        let script = "mount -t tmpfs -o \"$1\" none \"$2\" && shift 2 && exec \"$@\"";
        command.args(["--mount", "sh", "-c", script, "sh"]).arg(options).arg(&small);
        command.arg(highwater_tests::highwater_binary()).args(arguments(target, map));
        Finished::of(command.arg("--config").arg(ground.highwater.config()))
    };
    let on_small = |map: &str| mounted(&format!("size={}", needed - (1 << 20)), map);
    let refused = on_small(&together);
    assert_eq!(refused.code, Some(3), "{refused}");
    for words in [&format!("{needed} are needed"), small.to_str().unwrap(), "--tablespace-map"] {
        assert!(refused.stdout.contains(words), "{words}: {refused}");
    }
    let planned: serde_json::Value = serde_json::from_str(&on_small(&apart).success()).unwrap();
    assert_eq!(planned["space"].as_array().unwrap().len(), 2, "{planned}");

    // Space enough, and not for so many files; where only the tablespace goes there, its few fit. Without a fixed number there is none to
    // be short of.
    let refused = mounted("nr_inodes=100", &together);
    assert_eq!(refused.code, Some(3), "{refused}");
    for words in ["more files can be made", small.to_str().unwrap(), "inodes"] {
        assert!(refused.stdout.contains(words), "{words}: {refused}");
    }
    mounted("nr_inodes=0", &together).success();
    let (only, few) = (outside.to_str().unwrap(), to(&inside));
    let mut command = Command::new("unshare");
    let script = "mount -t tmpfs -o nr_inodes=100 none \"$1\" && shift && exec \"$@\"";
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(&small);
    command.arg(highwater_tests::highwater_binary()).args(arguments(only, &few));
    Finished::of(command.arg("--config").arg(ground.highwater.config())).success();
}

fn arguments<'a>(target: &'a str, map: &'a str) -> Vec<&'a str> {
    Ground::arguments(target, &["--dry-run", "--json", "--tablespace-map", map])
}
