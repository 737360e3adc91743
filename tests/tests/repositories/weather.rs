//! A cluster whose storage is overloaded, loses replies, and goes away for a while.

use std::time::Duration;

use highwater_tests::s3::{Fault, Operation, Response, S3Server, When};
use highwater_tests::{Scratch, newest};

use crate::ground::Ground;
use crate::object_storage::PREFIX;

/// All that can be asked.
pub const ALL: [Operation; 5] =
    [Operation::Put, Operation::Get, Operation::Head, Operation::Delete, Operation::List];

/// One request of four at least is answered: whoever asked again without waiting would hear nothing else than to slow down.
fn assert_no_storm(server: &S3Server, what: &str) {
    let (asked, slowed) = (server.faults().requests().len(), server.faults().slowed());
    assert!(slowed * 4 < asked * 3, "{what}: {slowed} of {asked} requests were told to slow down");
}

/// A service that bears two requests at once, then some a second: the set-up, archiving, the backup and the restore go on, and few of
/// their requests are in vain. Replies that are lost on the way are no conflict, also that of the manifest.
#[test]
fn an_overloaded_service_is_not_stormed() {
    let (scratch, server) = (Scratch::new(), S3Server::start());
    server.faults().set_latency(Duration::from_millis(10));
    server.faults().bear_at_once(Some(2));
    let ground = Ground::new(newest(), &scratch, |highwater| {
        highwater.repository("s3", &server.spec(PREFIX)).lines("[wal]\npush_deadline = \"10s\"")
    });
    assert!(server.faults().slowed() > 0, "nothing was ever too much");
    assert_no_storm(&server, "two at once");
    let expected = Ground::rows(&ground.cluster);

    server.faults().bear_at_once(None);
    for part in ["/packs/", "/manifest", "/intent", "/wal/"] {
        let lost = Fault { key_contains: part.into(), ..Fault::next(Operation::Put, Response::Cut) };
        server.faults().add(Fault { when: When::AfterEffect, ..lost });
    }
    let said = ground.highwater.json(&["backup", "--fast-checkpoint"]);
    let second = said["backups"][0]["backup"].as_str().unwrap_or_else(|| panic!("{said}"));
    assert!(ground.highwater.ok(&["list"]).contains(second));

    server.faults().forget_requests();
    server.faults().bear_per_second(Some(4.0));
    let (copy, _) = ground.restore(&scratch, "copy");
    assert!(server.faults().slowed() > 0, "nothing was ever too much");
    assert_no_storm(&server, "four a second");
    server.faults().bear_per_second(None);
    assert_eq!(Ground::rows(&copy), expected);
    copy.stop_proven();
    an_outage_passes(&ground, &scratch, &server);
}

/// What happened to others: an outage counted as success, or as the end of WAL. Here `archive-push` fails by its deadline as PostgreSQL expects
/// it, `archive-get` says above 125, and PostgreSQL archives on when it is over.
fn an_outage_passes(ground: &Ground, scratch: &Scratch, server: &S3Server) {
    ground.cluster.tolerate("archive command failed with exit code");
    ground.cluster.tolerate("The failed archive command was");
    let destination = scratch.join("fetched");
    for answer in [Response::Cut, Response::Status(503, "SlowDown")] {
        for operation in ALL {
            server.faults().add(Fault::always(operation, answer.clone()));
        }
        let failed = |cluster: &highwater_tests::Cluster| {
            cluster.value("select failed_count from pg_stat_archiver").parse::<u64>().expect("a count")
        };
        let before = failed(&ground.cluster);
        ground.cluster.execute("insert into rows values (-1, 'in the outage')");
        let segment = ground.cluster.switch_wal();
        ground.cluster.wait("the archiver fails", || failed(&ground.cluster) > before);
        let get = ["archive-get", &ground.last, &destination.to_string_lossy(), "--deadline", "1"];
        let code = ground.highwater.run(&get).code;
        assert!(code.is_some_and(|code| code > 125), "{answer:?}: archive-get ended with {code:?}");
        assert!(!destination.exists());
        server.faults().clear();
        ground.cluster.wait_until_archived(&segment);
    }
    ground.highwater.ok(&["archive-get", &ground.last, &destination.to_string_lossy()]);
    let beyond = ["archive-get", "0000000100000000000000F0", &destination.to_string_lossy()];
    assert_eq!(ground.highwater.run(&beyond).code, Some(1));
}
