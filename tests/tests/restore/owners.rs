//! Who owns what is restored. Root gives it to a user by name, never by the number that the name had on another host; anyone else
//! owns what they write.

use std::collections::BTreeSet;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use highwater_restore::ownership::Account;
use highwater_restore::server::{Installation, stop};
use highwater_tests::{
    Cluster, Finished, Scratch, amcheck, highwater_binary, is_root, may_mount, newest, server_user,
};

use crate::ground::{Ground, rows};

/// A repository that every user of the host may read, as a mounted share is.
fn shared_ground(scratch: &Scratch) -> Ground {
    let ground = Ground::with_backup(scratch, Cluster::builder(newest(), scratch, "main").wal_segment_mb(1));
    ground.insert(2);
    ground.archive();
    let opened = Command::new("chmod").args(["-R", "a+rX"]).arg(&ground.repository).status().unwrap();
    assert!(opened.success());
    std::fs::set_permissions(scratch.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
    ground
}

/// A restore to `target` with this key, without a configuration.
fn arguments(ground: &Ground, key: &Path, target: &Path) -> Vec<String> {
    let (key, target) = (key.to_str().unwrap(), target.to_str().unwrap());
    let url = format!("file://{}", ground.repository.display());
    ["restore", "--target-dir", target, "--repository", &url, "--key-file", key].map(str::to_owned).into()
}

/// The same with the server started on a socket in a directory that all users share; gives a client of it.
fn started(ground: &Ground, scratch: &Scratch, name: &str) -> (Vec<String>, Cluster) {
    let target = scratch.join(name);
    let copy = Cluster::open(ground.postgres(), scratch, name, &target);
    std::fs::set_permissions(copy.socket(), std::fs::Permissions::from_mode(0o777)).unwrap();
    let bin = ground.postgres().bin.to_str().unwrap();
    let mut words = arguments(ground, &scratch.join("repo.key"), &target);
    words.extend(
        ["--start", "--pg-bin", bin, "--socket-dir", copy.socket().to_str().unwrap()].map(str::to_owned),
    );
    (words, copy)
}

/// Every user and group that owns something at or below a path.
fn owners(path: &Path) -> BTreeSet<(u32, u32)> {
    let (mut found, mut open) = (BTreeSet::new(), vec![path.to_owned()]);
    while let Some(at) = open.pop() {
        let metadata = std::fs::symlink_metadata(&at).unwrap();
        found.insert((metadata.uid(), metadata.gid()));
        if metadata.is_dir() {
            open.extend(std::fs::read_dir(&at).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

/// The server runs as the owner, holds the rows, and is sound; then it is stopped.
fn runs_as(account: &Account, copy: &Cluster) {
    assert_eq!(owners(copy.data()), BTreeSet::from([(account.uid, account.gid)]));
    let process = PathBuf::from("/proc").join(copy.postmaster().unwrap().as_raw_nonzero().to_string());
    assert_eq!(std::fs::metadata(process).unwrap().uid(), account.uid);
    assert_eq!(rows(copy), "1,2");
    amcheck(copy);
    let bin = &copy.postgres().bin;
    let installation = Installation::find(u16::try_from(copy.postgres().major).unwrap(), Some(bin)).unwrap();
    stop(&installation, copy.data(), Some(account), Duration::from_secs(60)).unwrap();
    let mut judge = installation.command("pg_checksums", Some(account));
    let said = Finished::of(judge.args(["--check", "--pgdata"]).arg(copy.data()).current_dir("/")).success();
    assert!(said.contains("Bad checksums:  0"), "{said}");
}

/// Root gives everything to the user and group that were asked for, and a server that is started runs as that user; without one, to
/// the original owner's name, whatever number it has here. A name that nobody has is refused before a byte is written.
#[test]
fn root_gives_the_files_to_a_user_by_name() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new();
    let ground = shared_ground(&scratch);
    let restore = |words: &[String], more: &[&str]| {
        Finished::of(Command::new(highwater_binary()).args(words).args(more).current_dir("/"))
    };

    let (words, copy) = started(&ground, &scratch, "asked");
    for (wrong, said) in [
        ("no-such-user", "there is no user `no-such-user`"),
        ("nobody:no-such-group", "there is no group `no-such-group`"),
        ("root", "cannot be root"),
    ] {
        restore(&words, &["--owner", wrong]).failure(3, &[said, "hint:", "--owner USER[:GROUP]"]);
        assert!(!copy.data().exists(), "{wrong}");
    }
    let asked = "nobody:daemon";
    restore(&words, &["--owner", asked]).success();
    runs_as(&Account::parse(asked).unwrap(), &copy);

    if !may_mount() {
        return;
    }
    let (uid, gid) = (64_242, 64_343);
    let renumbered = |file: &str, number: u32| {
        let text = std::fs::read_to_string(format!("/etc/{file}")).unwrap();
        let name = &server_user().name;
        let lines = text.lines().map(|line| match line.split(':').collect::<Vec<_>>().as_slice() {
            [first, password, _, _, rest @ ..] if first == name && file == "passwd" => {
                format!("{name}:{password}:{number}:{gid}:{}\n", rest.join(":"))
            }
            [_, password, old, rest @ ..] if *old == server_user().gid.to_string() && file == "group" => {
                format!("{}:{password}:{number}:{}\n", line.split(':').next().unwrap(), rest.join(":"))
            }
            _ => format!("{line}\n"),
        });
        let path = scratch.file(file, lines.collect::<String>());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        path
    };
    let (words, copy) = started(&ground, &scratch, "named");
    let script =
        "mount --bind \"$1\" /etc/passwd && mount --bind \"$2\" /etc/group && shift 2 && exec \"$@\"";
    let mut elsewhere = Command::new("unshare");
    elsewhere.args(["--mount", "--", "sh", "-c", script, "sh"]);
    elsewhere.arg(renumbered("passwd", uid)).arg(renumbered("group", gid));
    Finished::of(elsewhere.arg(highwater_binary()).args(words).current_dir("/")).success();
    runs_as(&Account { uid, gid, name: server_user().name.clone() }, &copy);
}

/// Who is not root owns what they restore, whoever owned the original, and is refused another owner before a byte is written.
#[test]
fn an_ordinary_user_owns_what_they_restore() {
    let scratch = Scratch::new();
    let ground = shared_ground(&scratch);
    // Where the tests are root's, somebody who is not the owner of the original.
    let me = if is_root() { Account::parse("nobody").unwrap() } else { Account::current() };
    let home = scratch.dir("home");
    let key = home.join("key");
    std::fs::copy(scratch.join("repo.key"), &key).unwrap();
    for path in [&home, &key] {
        chown(path, Some(me.uid), Some(me.gid)).unwrap();
    }
    let target = home.join("copy");
    let restore = |more: &[&str]| {
        let mut command = Command::new(highwater_binary());
        command.args(arguments(&ground, &key, &target)).args(more).current_dir("/");
        if is_root() {
            command.uid(me.uid).gid(me.gid);
        }
        Finished::of(&mut command)
    };
    restore(&["--owner", "12345:54321"]).failure(3, &["only root can give files to `12345`", "hint:"]);
    assert!(!target.exists());
    restore(&[]).success();
    assert_eq!(owners(&target), BTreeSet::from([(me.uid, me.gid)]));
}
