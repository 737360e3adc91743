//! What is left when a backup does not come to its end: nothing that looks like one.

use highwater_tests::{Cluster, Highwater, Scratch, for_each_major, newest};

use crate::ground::{Ground, Running};

/// The manifest is the last write. All packs may be there: without it there is no backup, and the next one is not disturbed.
#[test]
fn a_killed_backup_is_no_backup() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let cluster = &ground.cluster;
        cluster.tolerate("archive command failed");
        cluster.tolerate("failed too many times");
        cluster.tolerate("aborting backup due to backend exiting");
        let mut running = Running::start(&ground.highwater, &["backup", "--fast-checkpoint"]);
        running.wait_for("the intent is there", || !ground.objects("/intent").is_empty());
        // From here on its WAL never comes, so it reads everything and waits.
        cluster.configure(&[("archive_command", "false")]);
        cluster.reload();
        running.wait_for("the packs are there", || {
            let stopped =
                cluster.value("select count(*) from pg_stat_archiver where last_failed_wal is not null");
            !ground.objects("/packs/").is_empty() && stopped == "1"
        });
        assert!(running.kill());
        assert!(ground.objects("/manifest").is_empty());
        let packs = ground.objects("/packs/");
        // As it would be killed in the middle of a write, two hours ago.
        let pack = scratch.join("repo").join(packs.keys().next().unwrap());
        let leftover = pack.with_file_name(".highwater-tmp.00000000.1.0011223344556677");
        std::fs::copy(&pack, &leftover).unwrap();
        let then = pack.metadata().unwrap().modified().unwrap() - std::time::Duration::from_secs(7200);
        std::fs::File::options().write(true).open(&leftover).unwrap().set_modified(then).unwrap();

        cluster.configure(&[("archive_command", &ground.highwater.archive_command())]);
        cluster.reload();
        ground.backup(&[]);
        assert_eq!(ground.objects("/manifest").len(), 1);
        assert!(pack.exists() && !leftover.exists());
        ground.restore(&scratch, "restored", &["--to-consistent"]);
    });
}

/// The server ends a backup with the session that began it; so do we, and say so.
#[test]
fn a_backup_whose_session_is_lost_fails() {
    let postgres = newest();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
    let cluster = &ground.cluster;
    cluster.tolerate("aborting backup due to backend exiting");
    // A spread checkpoint with much to write keeps pg_backup_start waiting.
    cluster.execute("create table t as select g, md5(g::text) from generate_series(1, 100000) g");
    let mut running = Running::start(&ground.highwater, &["backup"]);
    let ours = "from pg_stat_activity where query like '%pg_backup_start%' and state = 'active' and pid <> pg_backend_pid()";
    running.wait_for("it asks for a checkpoint", || cluster.value(&format!("select count(*) {ours}")) == "1");
    cluster.execute(&format!("select pg_terminate_backend(pid) {ours}"));
    running.end().failure(1, &["was not completed", "terminating connection", "hint: ", "no manifest"]);
    assert!(ground.objects("/manifest").is_empty());
}

/// A manifest that the store damaged is told, and does not keep new backups from being made.
#[test]
fn a_damaged_manifest_does_not_stop_the_next_backup() {
    let postgres = newest();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
    let first = ground.backup(&[]);
    let path = ground.objects("/manifest").into_keys().next().unwrap();
    let path = scratch.join("repo").join(path);
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let finished = ground.highwater.run(&["backup", "--fast-checkpoint"]);
    assert!(
        finished.stderr.contains(&format!("{} is damaged", first["backup"].as_str().unwrap())),
        "{finished}"
    );
    finished.success();
    assert_eq!(ground.objects("/manifest").len(), 2);
}

/// I20: WAL whose object begins well and is damaged further on is not in the repository, and no backup rests on it.
#[test]
fn damaged_wal_completes_no_backup() {
    let scratch = Scratch::new();
    let ground = Ground::prepare(&scratch, Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1));
    let damage = format!(
        "{push} && for f in $(find {repo} -name %f); do chmod u+w $f && \
         printf x | dd of=$f bs=1 conv=notrunc seek=$(( $(wc -c < $f) - 40 )) 2>/dev/null; done",
        push = ground.highwater.archive_command(),
        repo = scratch.join("repo").display(),
    );
    ground.cluster.configure(&[("archive_command", &damage)]);
    ground.cluster.start();
    let failed = ground.highwater.run(&["backup", "--fast-checkpoint"]);
    let said = failed.failure(1, &["wal/"]);
    assert!(ground.objects("/manifest").is_empty(), "{said}");
}

/// A repository that is away keeps no other from its backup. It is told, and is no failure where the other is all that must hold WAL.
#[test]
fn a_repository_that_is_away_keeps_no_other_from_its_backup() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1).create();
    let highwater = Highwater::new(&scratch, "main", &cluster)
        .lines("[wal]\nrequired_repositories = 1")
        .local_repository("repo")
        .local_repository("second");
    highwater.ok(&["init"]);
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    std::fs::rename(scratch.join("repo"), scratch.join("away")).unwrap();

    let said = highwater.json(&["backup", "--fast-checkpoint"]);
    assert_eq!(said["backups"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(said["backups"][0]["repository"], "second", "{said}");
    assert_eq!(said["failed"][0]["repository"], "repo", "{said}");
    assert!(said["failed"][0]["error"].as_str().unwrap().contains("repository repo"), "{said}");
    // The one that is asked for by name is all that counts.
    highwater.fails(&["backup", "--repository", "repo"], 1, &["repository repo"]);
}
