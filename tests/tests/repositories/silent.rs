//! Two repositories, one of which takes what it is asked and never answers.

use std::net::TcpListener;
use std::path::Path;

use highwater_archive::clock::{Clock as _, SystemClock};
use highwater_archive::durable;
use highwater_tests::s3::{Fault, Response, S3Server};
use highwater_tests::{Cluster, Finished, Highwater, Scale, Scratch, give_to_server_user, newest, scale};

use crate::ground::Ground;
use crate::object_storage::PREFIX;
use crate::weather::ALL;

/// `archive-push` of a segment that PostgreSQL still has, with these arguments.
fn push(highwater: &Highwater, cluster: &Cluster, segment: &str, arguments: &[&str]) -> Finished {
    let path = format!("pg_wal/{segment}");
    let arguments: Vec<&str> = ["archive-push", &path].iter().chain(arguments).copied().collect();
    Finished::of(highwater.command(&arguments).current_dir(cluster.data()))
}

fn archive_one(cluster: &Cluster) -> String {
    cluster.execute("insert into rows select n, 'more' from generate_series(1, 10) n");
    let segment = cluster.switch_wal();
    cluster.wait_until_archived(&segment);
    segment
}

fn archive_by(cluster: &Cluster, highwater: &Highwater) {
    let command = highwater.archive_command();
    cluster.configure(&[("archive_command", &command)]);
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show archive_command") == command);
}

/// Says that `far` has been silent again and again, and was so a moment ago.
fn remember_silence(mark: &Path) {
    let now = SystemClock.now();
    let text = format!(r#"{{"since":"2026-01-01T00:00:00Z","asked":"{now}","times":9}}"#);
    durable::replace(mark, &[text]).expect("a mark");
    give_to_server_user(mark);
}

/// I2, I11: beyond the required ones a repository that hangs costs no push its time again and again, and decides nothing; what it missed is
/// told until a backup there has made it good.
#[test]
fn a_repository_that_hangs_costs_little_and_what_it_misses_is_told() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    let both =
        |highwater: Highwater| highwater.local_repository("near").repository("far", &server.spec(PREFIX));
    let ground = Ground::new(newest(), &scratch, both);
    let cluster = &ground.cluster;
    let one_of_two = Highwater::new(&scratch, "one", cluster).lines("[wal]\nrequired_repositories = 1");
    let one_of_two = both(one_of_two);
    archive_by(cluster, &one_of_two);
    let mark = cluster.data().join("highwater/silent/far");
    for operation in ALL {
        server.faults().add(Fault::always(operation, Response::Hang));
    }
    // PostgreSQL goes on, and the first that waited in vain remembers it.
    let missed = archive_one(cluster);
    assert!(mark.exists(), "{}", cluster.log_end());
    let newest = archive_one(cluster);
    let log = cluster.log();
    assert!(log.contains(&format!("{missed} is archived, but not everywhere: repository far")), "{log}");

    server.faults().forget_requests();
    // It is asked all the same; on a machine that is busy not each time before its short time is over.
    cluster.wait("a request to who is hardly waited for", || {
        remember_silence(&mark);
        let said = push(&one_of_two, cluster, &newest, &[]);
        assert_eq!(said.code, Some(0), "{said}");
        for words in ["not everywhere", "far has not answered since 2026-01-01", "is not waited for until"] {
            assert!(said.stderr.contains(words), "{said}");
        }
        !server.faults().requests().is_empty()
    });
    // Where it must hold the segment it is waited for, and nothing is acknowledged that it does not hold.
    let said = push(&ground.highwater, cluster, &newest, &["--set", "wal.push_deadline=10s"]);
    said.failure(1, &["held by 1 of 2 repositories, 2 required", "repository far did not answer in time"]);
    if scale() == Scale::Soak {
        a_restore_goes_on_without_it(&scratch, &ground);
    }

    // It is back: check tells what is missing there, and gives it its time again.
    server.faults().clear();
    archive_by(cluster, &ground.highwater);
    remember_silence(&mark);
    let lacks = format!("it lacks 1 segment ({missed}), which another repository holds");
    let answers = "since 2026-01-01T00:00:00Z archive-push had no answer from it in time; it answers now";
    ground.highwater.run(&["check"]).says(4, &[answers, &lacks, "backup --repository far"]);
    assert!(!mark.exists());
    ground.highwater.ok(&["backup", "--fast-checkpoint", "--repository", "far"]);
    let checked = ground.highwater.ok(&["check"]);
    assert!(checked.contains("from before its newest backup it lacks 2 segments"), "{checked}");
    cluster.stop();
}

/// I14: what hangs is left out of a restore by name, after a minute, and is no proof of absence.
fn a_restore_goes_on_without_it(scratch: &Scratch, ground: &Ground) {
    let (target, map) = (scratch.join("planned"), Ground::tablespace_map(scratch, "planned"));
    let arguments =
        ["restore", "--dry-run", "--target-dir", &target.to_string_lossy(), "--tablespace-map", &map];
    let said = ground.highwater.json(&arguments);
    let notes = said["notes"].to_string();
    for words in ["repository far is left out", "no answer within 60 s", "not in this plan"] {
        assert!(notes.contains(words), "{said}");
    }
    // A host that accepts a connection and knows nothing of the protocol hangs as well.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("repository.far.endpoint=http://{}", silent.local_addr().expect("an address"));
    let listed = ground.highwater.run(&["list", "--set", &endpoint]);
    listed.failure(1, &["cannot list all of repository far", "no answer within 60 s"]);
}
