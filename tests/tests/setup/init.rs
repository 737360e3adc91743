//! `highwater init`.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use highwater_tests::{
    Cluster, Finished, Highwater, Scratch, give_to_server_user, installed, is_root, newest, oldest,
    server_user,
};

use crate::ground::{archive_one, archiving, copy, host_state, objects, refused};

/// It works on a server that is down, creates each thing once, and changes nothing when run again.
#[test]
fn a_second_run_changes_nothing() {
    for postgres in installed() {
        let scratch = Scratch::new();
        let cluster = Cluster::builder(postgres, &scratch, "main").create();
        let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
        let first = highwater.json(&["init"]);
        let (state, before) = (host_state(cluster.data()), objects(&scratch, "primary"));
        let key = std::fs::read(scratch.join("primary.key")).unwrap();
        let second = highwater.json(&["init"]);
        assert_eq!(first["lineage"], second["lineage"]);
        assert_eq!(first["repositories"][0]["fingerprint"], second["repositories"][0]["fingerprint"]);
        assert_eq!(second["repositories"][0]["created"], false);
        assert_eq!((state, before), (host_state(cluster.data()), objects(&scratch, "primary")));
        assert_eq!(key, std::fs::read(scratch.join("primary.key")).unwrap());
        assert_eq!(first["postgresql"], postgres.major);
    }
}

/// What a person must keep is printed: the kit with the wrapped keyring, the fingerprint, and the lines for PostgreSQL, which
/// carry the cluster.
#[test]
fn it_prints_what_belongs_in_a_vault_and_in_postgresql_conf() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    let said = highwater.ok(&["init"]);
    let key = std::fs::read_to_string(scratch.join("primary.key")).unwrap();
    let secret = key.lines().find(|line| line.starts_with("AGE-SECRET-KEY-1")).unwrap();
    assert!(!said.contains(secret), "the key itself is never printed");
    for words in
        ["RECOVERY KIT", "BEGIN AGE ENCRYPTED FILE", "archive_mode = on", "--cluster main archive-push %p"]
    {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    let json = highwater.json(&["init"]);
    assert!(said.contains(json["repositories"][0]["fingerprint"].as_str().unwrap()));
}

/// The key, the state and the repository are the server user's alone, also when root ran the command.
#[test]
fn what_it_writes_is_nobody_elses() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary").as_root();
    highwater.ok(&["init"]);
    let state = cluster.data().join("highwater");
    for (path, mode) in [
        (scratch.join("primary.key"), 0o600),
        (scratch.join("primary"), 0o700),
        (scratch.join("primary/highwater.json"), 0o600),
        (state.clone(), 0o700),
        (state.join("lineage.json"), 0o600),
    ] {
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, mode, "{}", path.display());
        if is_root() {
            assert_eq!(metadata.uid(), server_user().uid, "{}", path.display());
        }
    }
    cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
    cluster.start();
    archive_one(&cluster);
    cluster.stop();
}

/// A configuration that the owner of the data directory cannot read is found before root has made anything for them.
#[test]
fn a_configuration_that_is_roots_alone_stops_init_before_it_makes_anything() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary").as_root();
    let directory = scratch.join("closed");
    std::fs::create_dir(&directory).unwrap();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o700)).unwrap();
    let file = directory.join("main.toml");
    std::fs::copy(highwater.config(), &file).unwrap();
    let init = || Finished::of(highwater.bare(&["init", "--config"]).arg(&file));
    // The file may hold a password: it is opened to the group of the server's user, and not to everyone.
    let opened = format!("chmod 755 {}; chgrp ", directory.display());
    let closed = format!(" {}; chmod 640 {}", file.display(), file.display());
    init().failure(2, &["cannot read", "highwater goes on as", &opened, &closed]);
    assert!(!scratch.join("primary.key").exists() && !scratch.join("primary").exists());
    let group = std::fs::metadata(cluster.data()).unwrap().gid();
    std::os::unix::fs::chown(&file, None, Some(group)).unwrap();
    for (path, mode) in [(&directory, 0o755), (&file, 0o640)] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
    init().success();
}

/// Two clusters of one name never meet in a repository.
#[test]
fn another_cluster_of_the_same_name_is_refused() {
    let scratch = Scratch::new();
    let first = Cluster::builder(newest(), &scratch, "one").create();
    Highwater::new(&scratch, "one", &first).local_repository("primary").ok(&["init"]);
    let before = objects(&scratch, "primary");
    let second = Cluster::builder(oldest(), &scratch, "two").create();
    let other = Highwater::new(&scratch, "two", &second).local_repository("primary");
    other.fails(&["init"], 3, &["another one", "system identifier", "cluster.name"]);
    assert_eq!(objects(&scratch, "primary"), before);
    assert!(!second.data().join("highwater").exists());
    // Under a name of its own it has a place beside the first.
    let own = scratch
        .file("own.toml", std::fs::read_to_string(other.config()).unwrap().replace("\"main\"", "\"second\""));
    let said = other.bare(&["init", "--config", own.to_str().unwrap()]).output().unwrap();
    assert!(said.status.success());
}

/// I1: a copy without the host state cannot take the lineage that its original writes.
#[test]
fn a_copy_cannot_take_a_lineage_that_is_written() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    cluster.stop();
    let data = scratch.join("copied");
    copy(cluster.data(), &data);
    std::fs::remove_dir_all(data.join("highwater")).unwrap();
    let copied = Cluster::open(newest(), &scratch, "copied", &data);
    let before = objects(&scratch, "primary");
    let other = Highwater::new(&scratch, "copied", &copied).local_repository("primary");
    other.fails(&["init"], 3, &["written by another data directory", "highwater adopt"]);
    assert_eq!(objects(&scratch, "primary"), before);
    highwater.ok(&["init"]);
}

/// An init that was cut short before the host state was written is finished by the next.
#[test]
fn an_interrupted_init_is_finished_by_the_next() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    let first = highwater.json(&["init"]);
    std::fs::remove_dir_all(cluster.data().join("highwater")).unwrap();
    let before = objects(&scratch, "primary");
    let second = highwater.json(&["init"]);
    assert_eq!(first["lineage"], second["lineage"]);
    assert_eq!(objects(&scratch, "primary"), before);
}

/// A repository that is added later holds the same lineage, under a keyring of its own.
#[test]
fn a_repository_added_later_gets_the_same_lineage() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    archive_one(&cluster);
    let both = highwater.local_repository("second");
    // Until init has run, the host knows nothing of it, and nothing is acknowledged.
    let segment = cluster.switch_wal();
    let path = cluster.data().join("pg_wal").join(&segment);
    assert!(path.exists());
    let said = crate::ground::push(&both, cluster.data(), &segment);
    said.failure(1, &["is not archived", "repository second", "is the disk mounted", "run: highwater init"]);
    let json = both.json(&["init"]);
    let repositories = json["repositories"].as_array().unwrap();
    assert_eq!(repositories.len(), 2);
    assert_ne!(repositories[0]["fingerprint"], repositories[1]["fingerprint"]);
    // What the recovery kit says to compare is in the list, and a key that opens another keyring is named.
    let listed = both.ok(&["list"]);
    for repository in repositories {
        let fingerprint = repository["fingerprint"].as_str().unwrap();
        assert!(listed.contains(&format!("fingerprint of the keyring: {fingerprint}")), "{listed}");
    }
    let wrong = format!("repository.second.key_file={}", scratch.join("primary.key").display());
    let words =
        ["the key file", "primary.key", "the identity of age1", "does not open the keyring", "recovery kit"];
    both.fails(&["list", "--repository", "second", "--set", &wrong], 1, &words);
    cluster.tolerate("archive command failed");
    let segment = archive_one(&cluster);
    for name in ["primary", "second"] {
        assert!(crate::ground::holds(&scratch, name, &segment), "{name}");
    }
    cluster.stop();
}

/// A repository that this host was set up with and that is not there is not mounted: nothing is made in its place, and nobody is
/// told to make something there, unless a person says that it is to be replaced.
#[test]
fn an_unmounted_repository_is_not_made_anew() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    highwater.ok(&["init"]);
    let state = host_state(cluster.data());
    let (root, away) = (scratch.join("primary"), scratch.join("away"));
    std::fs::rename(&root, &away).unwrap();
    let said = highwater.fails(&["init"], 3, &["mount it", "--replace-repository primary"]);
    assert_eq!(said.matches("repository primary:").count(), 1, "{said}");
    let said = highwater.fails(&["list"], 1, &["is the disk mounted"]);
    assert!(!said.contains("init"), "an empty repository in the mount point is no help: {said}");
    assert!(!root.exists(), "a directory was made where the repository is to be mounted");
    std::fs::create_dir(&root).unwrap();
    give_to_server_user(&root);
    highwater.fails(&["init"], 3, &["mount it", "--replace-repository primary"]);
    highwater.fails(&["list"], 1, &["is the disk mounted"]);
    highwater.fails(&["adopt", "--new-lineage"], 3, &["mount it"]);
    refused(&highwater, cluster.data(), "000000010000000000000001", &["mount it"]);
    assert_eq!(objects(&scratch, "primary"), [""; 0]);
    assert_eq!(host_state(cluster.data()), state);

    highwater.fails(&["init", "--replace-repository", "primray"], 2, &["configured: primary"]);
    highwater.ok(&["init", "--replace-repository", "primary"]);
    assert_eq!(host_state(cluster.data())["lineage"], state["lineage"]);
    // The old one is another one now, and again only a person's word counts.
    std::fs::rename(&root, scratch.join("new")).unwrap();
    std::fs::rename(&away, &root).unwrap();
    highwater.fails(&["init"], 3, &["another one than before", "--replace-repository primary"]);
    highwater.ok(&["init", "--replace-repository", "primary"]);
    assert_eq!(host_state(cluster.data()), state);
}

/// Where the cluster has a keyring, a key file that is missing is not made: a new key would open nothing.
#[test]
fn a_missing_key_file_is_not_made_anew() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary").as_root();
    highwater.ok(&["init"]);
    let (key, kept) = (scratch.join("primary.key"), scratch.join("kept.key"));
    std::fs::rename(&key, &kept).unwrap();
    for _ in 0..2 {
        highwater.fails(&["init"], 3, &["primary.key", "is missing", "vault"]);
        assert!(!key.exists());
        // The second time without what the host remembers.
        let _ = std::fs::remove_dir_all(cluster.data().join("highwater"));
    }
    // A key that root was cut off from giving away is the server's after the next run.
    std::fs::rename(&kept, &key).unwrap();
    if is_root() {
        std::os::unix::fs::chown(&key, Some(0), Some(0)).unwrap();
    }
    highwater.ok(&["init"]);
    assert_eq!(std::fs::metadata(&key).unwrap().uid(), server_user().uid);
}
