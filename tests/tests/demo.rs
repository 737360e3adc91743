//! The demo tells a true story: it runs on every major, brings back what was committed and nothing else, and leaves nothing.

use std::path::Path;
use std::process::Command;

use highwater_tests::{
    Finished, Postgres, Scratch, command_as_server_user, for_each_major, highwater_binary, is_root, newest,
};
use serde_json::Value;

/// What the demo says of itself, run with these arguments in an empty directory, which must be empty again afterwards.
fn tell(mut command: Command, postgres: &Postgres, directory: &Path) -> Value {
    command
        .arg("--json")
        .arg("demo")
        .arg("--postgres-bin")
        .arg(&postgres.bin)
        .arg("--directory")
        .arg(directory);
    let said = Finished::of(&mut command).success();
    let left: Vec<_> = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"))
}

fn assert_true(story: &Value, postgres: &Postgres) {
    assert_eq!(story["postgresql"], postgres.major);
    let number = |key: &str| story[key].as_u64().unwrap_or_else(|| panic!("{key} in {story}"));
    assert!(number("rows_back") > 0 && number("rows_later") > 0, "{story}");
    assert!(story["seconds_before_the_drop"].as_f64().unwrap() > 0.5, "{story}");
}

/// I24, as a person sees it: the ledger is back as it was a second before it was dropped, on every major.
#[test]
fn the_demo_brings_the_ledger_back() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let story = tell(command_as_server_user(highwater_binary()), postgres, scratch.path());
        assert_true(&story, postgres);
    });
}

/// As root the server and the commands run as another user; where the tests are no root's, that is what the other test shows.
#[test]
fn the_demo_works_as_root() {
    if is_root() {
        let directory = std::env::temp_dir().join(format!("hwtest-{}-demo", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let story = tell(Command::new(highwater_binary()), newest(), &directory);
        std::fs::remove_dir(&directory).unwrap();
        assert_true(&story, newest());
    }
}
