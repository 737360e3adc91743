//! `highwater adopt`: a restored copy becomes the cluster.

use std::path::PathBuf;

use highwater_tests::{Cluster, Finished, Highwater, Postgres, Scratch, for_each_major, newest};

use crate::ground::{archive_one, archiving, host_state, objects, refused};

/// A copy restored to `target` and promoted, with a configuration of its own for the same repository.
fn restored(
    postgres: &'static Postgres,
    scratch: &Scratch,
    highwater: &Highwater,
    name: &str,
    target: &[&str],
) -> (Cluster, Highwater) {
    let data: PathBuf = scratch.join(name);
    let shown = data.display().to_string();
    let arguments: Vec<&str> =
        ["restore", "--target-dir", &shown, "--action", "promote"].iter().chain(target).copied().collect();
    highwater.ok(&arguments);
    let copy = Cluster::open(postgres, scratch, name, &data);
    let copys = Highwater::new(scratch, name, &copy).local_repository("primary");
    copy.start();
    copy.wait_until_writable();
    (copy, copys)
}

/// Turns archiving on as adopt has printed it.
fn archive_again(copy: &Cluster, copys: &Highwater) {
    // The harness opens a copy without fsync, and a backup of such a server is refused.
    copy.option("fsync", "on");
    copy.configure(&[("archive_mode", "on"), ("archive_command", &copys.archive_command())]);
    copy.restart();
}

fn lineages(highwater: &Highwater) -> Vec<serde_json::Value> {
    highwater.json(&["list"])["repositories"][0]["lineages"].as_array().unwrap().clone()
}

/// I1: beside a living primary a copy may not go on with the lineage; it gets one of its own, in which it archives and is
/// backed up, and the primary's is untouched and goes on.
#[test]
fn beside_a_living_primary_a_copy_opens_its_own_lineage() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let (cluster, highwater) = archiving(postgres, &scratch);
        highwater.ok(&["backup", "--fast-checkpoint"]);
        archive_one(&cluster);
        cluster.execute("select pg_create_restore_point('here')");
        cluster.execute("create table later as select 1 as x");
        archive_one(&cluster);
        let production = lineages(&highwater)[0]["lineage"].as_str().unwrap().to_owned();

        let (copy, copys) = restored(postgres, &scratch, &highwater, "copy", &["--to-restore-point", "here"]);
        assert_eq!(copy.value("show archive_mode"), "off");
        let before = objects(&scratch, "primary");
        let segment = copy.value("select pg_walfile_name(pg_current_wal_lsn())");
        refused(&copys, copy.data(), &segment, &["highwater adopt"]);
        copys.fails(&["adopt"], 3, &["may not go on", "--new-lineage"]);
        copys.fails(&["adopt", "--continue-lineage"], 3, &["--yes"]);
        assert_eq!(objects(&scratch, "primary"), before);

        // Of the primary's own directory nothing is changed, and nobody is told to restart it.
        let shown = cluster.data().display().to_string();
        let same = highwater.json(&["adopt"]);
        assert_eq!(
            (same["changed"].clone(), same["data_dir"].as_str()),
            (false.into(), Some(shown.as_str()))
        );
        let same = highwater.ok(&["adopt"]);
        let said =
            format!("{shown} is already cluster main and writes lineage {production}; nothing was changed");
        assert!(same.contains(&said) && same.contains("cluster.data_dir"), "{same}");
        assert!(!same.contains("restart") && !same.contains("backup"), "{same}");
        assert_eq!(objects(&scratch, "primary"), before);

        let adopted = copys.json(&["adopt", "--new-lineage"]);
        assert_eq!((&adopted["isolation_ended"], &adopted["changed"]), (&true.into(), &true.into()));
        let own = adopted["lineage"].as_str().unwrap();
        assert_ne!(own, production);
        archive_again(&copy, &copys);
        archive_one(&copy);
        copys.ok(&["backup", "--fast-checkpoint"]);
        let check = copys.run(&["check"]);
        assert_eq!(check.code, Some(0), "{check}");

        // Nothing but the new lineage was added, and it knows where it comes from.
        let mine = format!("clusters/main/{own}/");
        let added: Vec<String> =
            objects(&scratch, "primary").into_iter().filter(|path| !before.contains(path)).collect();
        assert!(added.iter().all(|path| path.starts_with(&mine)), "{added:#?}");
        let both = lineages(&highwater);
        assert_eq!(both.len(), 2);
        assert_eq!(both[1]["parent"], production.as_str());
        assert_eq!(both[1]["reason"], "adopt");
        assert_eq!(both[1]["backups"].as_array().unwrap().len(), 1);
        copy.stop_proven();
        // A directory that writes neither says which it reads.
        let get = |more: &[&str]| {
            let mut command = highwater.command(&["archive-get", "--deadline", "0", "00000009.history", "x"]);
            Finished::of(command.args(more).current_dir(scratch.path()))
        };
        assert!(get(&[]).failure(200, &["several lineages", "--lineage ID"]).contains(own));
        get(&["--lineage", own]).failure(1, &["no such file"]);

        // The primary goes on, and its own promotion to the same timeline number archives its history.
        archive_one(&cluster);
        cluster.stop();
        std::fs::write(cluster.data().join("standby.signal"), "").unwrap();
        cluster.configure(&[("restore_command", "false")]);
        cluster.start();
        cluster.promote();
        archive_one(&cluster);
        assert!(
            objects(&scratch, "primary")
                .contains(&format!("clusters/main/{production}/wal/00000002.history"))
        );
        cluster.stop();
    });
}

/// I1: where nobody has gone on, the copy continues the lineage: its history and WAL join the archive, and one backup reaches
/// across.
#[test]
fn after_the_loss_of_the_primary_a_copy_continues() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let (cluster, highwater) = archiving(postgres, &scratch);
        highwater.ok(&["backup", "--fast-checkpoint"]);
        archive_one(&cluster);
        cluster.kill();

        let (copy, copys) = restored(postgres, &scratch, &highwater, "copy", &["--to", "latest"]);
        // The killed primary wrote nothing that the copy lacks, unless its last segment reaches beyond the fork.
        let adopted = copys.run(&["adopt", "--json"]);
        let adopted = match adopted.code {
            Some(0) => adopted.success(),
            _ => {
                assert!(adopted.stdout.contains("beyond the point where this directory begins"), "{adopted}");
                assert!(adopted.stdout.contains(&copy.data().display().to_string()), "{adopted}");
                copys.ok(&["adopt", "--continue-lineage", "--yes", "--json"])
            }
        };
        let adopted: serde_json::Value = serde_json::from_str(&adopted).unwrap();
        assert_eq!(adopted["new_lineage"], false);
        let production = host_state(cluster.data());
        assert_eq!(host_state(copy.data())["lineage"], production["lineage"]);
        assert_ne!(host_state(copy.data())["writer"], production["writer"]);
        archive_again(&copy, &copys);
        archive_one(&copy);
        assert!(objects(&scratch, "primary").iter().any(|path| path.ends_with("wal/00000002.history")));
        copys.ok(&["backup", "--fast-checkpoint"]);
        let lineages = lineages(&copys);
        assert_eq!(lineages.len(), 1);
        let timelines: Vec<_> =
            lineages[0]["timelines"].as_array().unwrap().iter().map(|line| &line["timeline"]).collect();
        assert_eq!(timelines, [1, 2]);
        // Run again, it finds itself.
        let again = copys.json(&["adopt"]);
        assert_eq!((&again["lineage"], &again["changed"]), (&adopted["lineage"], &false.into()));
        // The original does not, and is not taken for the copy.
        let original = format!("{} may not go on", cluster.data().display());
        let refused = highwater.fails(&["adopt"], 3, &[&original]);
        assert!(!refused.contains("this copy"), "{refused}");
        copy.stop_proven();
    });
}

/// I1: two copies of one cluster cannot both continue it. On one timeline number both go on, each in its own lineage, and each comes
/// back with its own rows.
#[test]
fn the_second_copy_finds_the_first() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    highwater.ok(&["backup", "--fast-checkpoint"]);
    archive_one(&cluster);
    cluster.kill();
    let (first, firsts) = restored(newest(), &scratch, &highwater, "first", &["--to", "latest"]);
    let (second, seconds) = restored(newest(), &scratch, &highwater, "second", &["--to", "latest"]);
    firsts.ok(&["adopt", "--continue-lineage", "--yes"]);
    seconds.fails(&["adopt"], 3, &["timeline 2 is being written by another data directory"]);
    // Once the first has written, not even a person's word makes the second its continuation.
    archive_again(&first, &firsts);
    first.execute("create table first as select generate_series(1, 1000) as x");
    archive_one(&first);
    let taken = seconds.fails(
        &["adopt", "--continue-lineage", "--yes"],
        3,
        &["another timeline of the same number", "--new-lineage"],
    );
    assert!(!taken.contains("--continue-lineage"), "{taken}");
    let secrets = second.data().join("highwater/restore.secrets");
    assert!(secrets.exists());
    let adopted = seconds.json(&["adopt", "--new-lineage"]);
    assert_eq!(adopted["new_lineage"], true);
    // What only the recovery needed is gone, with the secrets in it.
    assert!(!secrets.exists());
    let settings = std::fs::read_to_string(second.data().join("postgresql.auto.conf")).unwrap();
    assert!(!settings.contains("archive-get"), "{settings}");

    archive_again(&second, &seconds);
    second.execute("create table second as select generate_series(1, 2000) as x");
    seconds.ok(&["backup", "--fast-checkpoint"]);
    for (copy, table) in [(&first, "first"), (&second, "second")] {
        copy.execute(&format!("insert into {table} values (0)"));
        archive_one(copy);
    }
    let both = lineages(&highwater);
    let sides = [(&both[0], "first", 1001), (&both[1], "second", 2001)];
    assert_eq!(both[0]["system_identifier"], both[1]["system_identifier"]);
    assert!(sides.iter().all(|(lineage, ..)| last_timeline(lineage) == 2), "{both:#?}");
    let shown = scratch.join("which").display().to_string();
    highwater.fails(&["restore", "--target-dir", &shown], 2, &["several lineages", "--lineage ID"]);
    for (lineage, table, rows) in sides {
        let id = lineage["lineage"].as_str().unwrap();
        let (copy, _) =
            restored(newest(), &scratch, &highwater, &format!("{table}-again"), &["--lineage", id]);
        assert_eq!(copy.value(&format!("select count(*) from {table}")), rows.to_string());
        let tables = copy.value("select count(*) from pg_class where relname in ('first', 'second')");
        assert_eq!(tables, "1");
        copy.stop_proven();
    }
    first.stop_proven();
    second.stop_proven();
}

fn last_timeline(lineage: &serde_json::Value) -> u64 {
    lineage["timelines"].as_array().unwrap().last().unwrap()["timeline"].as_u64().unwrap()
}

/// An adopt that was cut off after its claim is finished by the next: it finds itself in the claim.
#[test]
fn an_adopt_that_was_cut_off_is_finished_by_the_next() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    // Between the new configuration and init a push fails.
    cluster.tolerate("archive command failed");
    let highwater = highwater.local_repository("second");
    highwater.ok(&["init"]);
    highwater.ok(&["backup", "--fast-checkpoint"]);
    archive_one(&cluster);
    cluster.kill();
    let (copy, copys) = restored(newest(), &scratch, &highwater, "copy", &["--to", "latest"]);
    let copys = copys.local_repository("second");
    // The second repository takes no claim, after the first has.
    let production = host_state(cluster.data())["lineage"].as_str().unwrap().to_owned();
    let wal = scratch.join(format!("second/clusters/main/{production}/wal"));
    let mode = |mode| std::fs::set_permissions(&wal, std::fs::Permissions::from_mode(mode)).unwrap();
    mode(0o500);
    let cut = copys.run(&["adopt", "--continue-lineage", "--yes"]);
    assert_eq!(cut.code, Some(1), "{cut}");
    mode(0o700);
    let claim = format!("clusters/main/{production}/wal/00000002/claim");
    assert!(objects(&scratch, "primary").contains(&claim));
    copys.ok(&["adopt"]);
    assert!(objects(&scratch, "second").contains(&claim));
    copy.stop_proven();
}

/// A copy that has not been promoted has no WAL of its own yet.
#[test]
fn a_copy_in_recovery_is_not_adopted() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    highwater.ok(&["backup", "--fast-checkpoint"]);
    archive_one(&cluster);
    cluster.stop();
    let data = scratch.join("copy");
    highwater.ok(&["restore", "--target-dir", data.to_str().unwrap(), "--to", "latest"]);
    let copy = Cluster::open(newest(), &scratch, "copy", &data);
    let copys = Highwater::new(&scratch, "copy", &copy).local_repository("primary");
    copys.fails(&["adopt", "--new-lineage"], 3, &["still in recovery", "promote"]);
    assert!(!data.join("highwater/lineage.json").exists());
}

/// A cluster made anew in the same directory is another one: it opens a lineage of its own under the same name.
#[test]
fn a_cluster_made_anew_opens_a_new_lineage() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    let anew = Cluster::builder(newest(), &scratch, "anew").create();
    let anews = Highwater::new(&scratch, "anew", &anew).local_repository("primary");
    anews.fails(&["init"], 3, &["another one", "highwater adopt --new-lineage"]);
    anews.ok(&["adopt", "--new-lineage"]);
    anew.configure(&[("archive_mode", "on"), ("archive_command", &anews.archive_command())]);
    anew.start();
    archive_one(&anew);
    assert_eq!(lineages(&highwater).len(), 2);
    anew.stop();
}
