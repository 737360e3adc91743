//! `--start`: the server is watched until it is where it was sent, and its end is never taken for success.

use highwater_restore::server::{Installation, is_running, stop};
use highwater_tests::{Cluster, Scratch, for_each_major, newest};

use crate::ground::Ground;

/// Arguments of a start beside the live server, on the same port in another socket directory.
fn start_at<'a>(socket: &'a str, bin: &'a str) -> Vec<&'a str> {
    vec!["--start", "--pg-bin", bin, "--socket-dir", socket, "--start-timeout", "120"]
}

/// Each action ends where it should, and is said so.
#[test]
fn the_target_is_waited_for() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let ground = Ground::with_backup(&scratch, Cluster::builder(postgres, &scratch, "main"));
        let xid = ground.insert(2);
        ground.insert(3);
        ground.archive();
        let bin = postgres.bin.to_str().unwrap().to_owned();
        for (action, said) in
            [("pause", "paused at"), ("promote", "open for writing"), ("shutdown", "shut down at the target")]
        {
            let socket = scratch.dir(format!("{action}.s"));
            let target = scratch.join(action);
            let mut arguments =
                Ground::arguments(target.to_str().unwrap(), &["--to-xid", &xid, "--action", action]);
            arguments.extend(start_at(socket.to_str().unwrap(), &bin));
            let done = ground.highwater.json(&arguments);
            let server = done["server"].as_str().unwrap();
            assert!(server.starts_with(said), "{action}: {server}");
            assert_eq!(is_running(&target), action != "shutdown");
            if action != "shutdown" {
                let session = highwater_tests::Session::connect(&format!(
                    "host={} port=5432 user=postgres dbname=postgres",
                    socket.display()
                ));
                assert_eq!(
                    session.unwrap().value("select string_agg(n::text, ',' order by n) from t"),
                    "1,2"
                );
                let installation =
                    Installation::find(u16::try_from(postgres.major).unwrap(), Some(&postgres.bin)).unwrap();
                let owner = highwater_tests::is_root().then(|| {
                    highwater_restore::ownership::Account::parse(&highwater_tests::server_user().name)
                        .unwrap()
                });
                stop(&installation, &target, owner.as_ref(), std::time::Duration::from_secs(60)).unwrap();
            }
        }
    });
}

/// A server that ends on its way is an error with the end of its log, whatever `pg_ctl` would have said.
#[test]
fn a_server_that_ends_is_an_error() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    ground.insert(2);
    ground.archive();
    let target = scratch.join("copy");
    let bin = newest().bin.to_str().unwrap();
    let mut arguments = Ground::arguments(target.to_str().unwrap(), &[]);
    // The live server holds this socket.
    arguments.extend(start_at(ground.cluster.socket().to_str().unwrap(), bin));
    ground.highwater.fails(&arguments, 1, &["the server ended", "lock file", "start.log"]);
    assert!(!is_running(&target));
}

/// A server of another major is refused before anything is written.
#[test]
fn programs_of_another_major_are_refused() {
    let scratch = Scratch::new();
    let ground = Ground::with_backup(&scratch, Cluster::builder(newest(), &scratch, "main"));
    let empty = scratch.dir("bin");
    ground.refused(
        &scratch,
        &["--start", "--pg-bin", empty.to_str().unwrap()],
        &["is not the bin directory"],
    );
}
