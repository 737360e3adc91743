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
                stop_server(&ground, &target);
            }
        }
    });
}

/// Beside the living original a copy is started where nothing else listens and asked there; one that cannot listen is refused before
/// a byte is written; and a server that ends on its way is an error with the end of its log, whatever `pg_ctl` would have said,
/// after which nothing has to be restored again.
#[test]
fn beside_the_original_a_copy_is_started_and_asked_where_it_listens() {
    let scratch = Scratch::new();
    let socket = scratch.join("main.s").display().to_string();
    let builder = Cluster::builder(newest(), &scratch, "main").setting("unix_socket_directories", &socket);
    let ground = Ground::start(&scratch, builder);
    ground.cluster.execute("create table t (n int); insert into t values (1)");
    // The original does not mind before it is started again.
    ground.cluster.execute("alter system set shared_preload_libraries = 'no_such_library'");
    ground.backup();
    ground.insert(2);
    ground.archive();
    let bin = newest().bin.to_str().unwrap();
    ground.refused(&scratch, &["--start", "--pg-bin", bin], &["port 5432", "in use on this host", "--port"]);

    let target = scratch.join("ended");
    let own = scratch.dir("own.s").display().to_string();
    let mut arguments = Ground::arguments(target.to_str().unwrap(), &["--action", "promote"]);
    arguments.extend(start_at(&own, bin));
    let ended = ground.highwater.run(&arguments);
    assert_eq!(ended.code, Some(1), "{ended}");
    let words =
        ["the server ended", "no_such_library", "start.log", "all files are restored", "start it with: "];
    assert!(words.iter().all(|word| ended.stderr.contains(word)), "{ended}");
    let config = format!("--config {} --cluster main adopt", ground.highwater.config().display());
    let words = ["restored    ", "next\n", "# start it; ", &format!("-k {own}"), &config];
    assert!(words.iter().all(|word| ended.stdout.contains(word)), "{ended}");
    assert!(!is_running(&target));

    let target = scratch.join("beside");
    let done = ground.highwater.json(&Ground::arguments(target.to_str().unwrap(), &["--action", "promote"]));
    let next: Vec<(&str, &str)> = done["next"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| (step["why"].as_str().unwrap(), step["command"].as_str().unwrap()))
        .collect();
    let [(why, start), (_, ask), (_, adopt)] = next[..] else { panic!("{next:#?}") };
    assert!(why.contains("on port 5433, since 5432 is in use on this host"), "{why}");
    assert!(start.contains("-o '-p 5433'"), "{start}");
    assert!(ask.contains(&format!("psql -h {socket} -p 5433 ")), "{ask}");
    assert!(adopt.contains(&config), "{adopt}");
    // What is printed is what is typed, once the cause is put right.
    let auto = target.join("postgresql.auto.conf");
    let text = std::fs::read_to_string(&auto).unwrap().replace("no_such_library", "");
    std::fs::write(&auto, text).unwrap();
    shell(start);
    let ask = ask.replace("psql ", &format!("{bin}/psql -A -t "));
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let wanted = format!("f|{}\n", target.display());
    while shell(&ask) != wanted {
        assert!(std::time::Instant::now() < deadline, "{}", shell(&ask));
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    stop_server(&ground, &target);
}

/// Runs a printed command, which must succeed, as the superuser of these clusters; gives what it printed.
pub fn shell(command: &str) -> String {
    let mut shell = highwater_tests::command_as_server_user("/bin/sh");
    shell.args(["-c", command]).env("PGUSER", "postgres").env("PGDATABASE", "postgres");
    highwater_tests::Finished::of(&mut shell).success()
}

pub fn stop_server(ground: &Ground, target: &std::path::Path) {
    let postgres = ground.postgres();
    let major = u16::try_from(postgres.major).unwrap();
    let installation = Installation::find(major, Some(&postgres.bin)).unwrap();
    let owner = highwater_tests::is_root()
        .then(|| highwater_restore::ownership::Account::parse(&highwater_tests::server_user().name).unwrap());
    stop(&installation, target, owner.as_ref(), std::time::Duration::from_secs(60)).unwrap();
}
