//! The command line as scripts and PostgreSQL meet it: exit codes, `--json`, configuration.

use highwater_tests::{Cluster, Finished, Highwater, Scratch, newest};

fn bare(highwater: &Highwater, arguments: &[&str]) -> Finished {
    Finished::of(&mut highwater.bare(arguments))
}

/// The table of exit codes is in the help, and holds.
#[test]
fn exit_codes_are_those_of_the_help() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    let help = bare(&highwater, &["--help"]).success();
    for line in [
        "  0  done",
        "  1  failed",
        "  2  wrong arguments",
        "  3  refused",
        "  4  found something",
        "200  archive-get",
    ] {
        assert!(help.contains(line), "{line}\n{help}");
    }
    assert_eq!(bare(&highwater, &["--version"]).code, Some(0));
    assert_eq!(bare(&highwater, &["frobnicate"]).code, Some(2));
    assert_eq!(highwater.run(&["list"]).code, Some(1));
    // The cluster is not running: check runs, and finds that.
    assert_eq!(highwater.run(&["check"]).code, Some(4));
    assert_eq!(highwater.run(&["adopt", "--continue-lineage"]).code, Some(3));
    // Credentials that are not there are a matter of the configuration: no store was asked.
    let store = ["repository.primary.url=s3://bucket/pg", "repository.primary.credentials=static"];
    let mut command = highwater.command(&["list", "--set", store[0], "--set", store[1]]);
    for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"] {
        command.env_remove(variable);
    }
    Finished::of(&mut command).failure(2, &["there are no credentials", "hint: "]);
    // What was meant is not known, and may be a secret.
    let said = highwater.fails(&["list", "--set", "hunter2"], 2, &["must be KEY=VALUE"]);
    assert!(!said.contains("hunter2"), "{said}");
    // I14: whatever is wrong with archive-get's own arguments or configuration never reads as "no such file".
    for arguments in [
        &["archive-get"][..],
        &["archive-get", "--nonsense"],
        &["--config", "/nonexistent", "archive-get", "a", "b"],
    ] {
        let code = bare(&highwater, arguments).code;
        assert!(code > Some(125), "{arguments:?}: {code:?}");
    }
}

/// Errors are a line with a hint, or with --json an object with both.
#[test]
fn an_error_has_a_hint_in_both_forms() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    let absent = scratch.join("nope.toml");
    let said = Finished::of(highwater.bare(&["list", "--config"]).arg(&absent)).failure(2, &["hint: write "]);
    assert!(!said.contains("run as"), "who runs it does not matter: {said}");
    let human = highwater.run(&["list"]);
    let lines: Vec<&str> = human.stderr.lines().collect();
    assert!(lines[0].starts_with("error: ") && lines[1].starts_with("hint: "), "{human}");
    let json = highwater.run(&["list", "--json"]);
    assert_eq!(json.stderr, "");
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["error"], lines[0].strip_prefix("error: ").unwrap());
    assert_eq!(json["hint"], lines[1].strip_prefix("hint: ").unwrap());
}

/// Every command says what went wrong as an object, arguments that do not parse included; PostgreSQL's two keep their exit codes.
#[test]
fn with_json_every_error_is_an_object() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    for (arguments, code, said) in [
        (&["list", "--nonsense", "--json"][..], 2, "--nonsense"),
        (&["--json", "restore"], 2, "--target-dir"),
        (&["--json"], 2, "no command"),
        (&["frobnicate", "--json"], 2, "frobnicate"),
        (&["archive-push", "--json"], 2, "%p"),
        (&["archive-push", "--json", "pg_wal/000000010000000000000001"], 1, "cannot find pg_wal"),
        (&["archive-get", "--json"], 200, "%f"),
        (&["archive-get", "--json", "rubbish", "x"], 200, "rubbish"),
        (&["archive-get", "--json", "000000010000000000000001", "x"], 200, "primary"),
    ] {
        let mut command = highwater.bare(arguments);
        // Nobody's configuration but this one, and none where the arguments alone are wrong.
        if code != 2 {
            command.arg("--config").arg(highwater.config()).args(["--set", "wal.push_deadline=1s"]);
        }
        if arguments.last() == Some(&"x") {
            command.args(["--deadline", "0"]);
        }
        let finished = Finished::of(&mut command);
        assert_eq!(finished.code, Some(code), "{finished}");
        assert_eq!(finished.stderr, "", "{finished}");
        let object: serde_json::Value =
            serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"));
        assert!(object["error"].as_str().unwrap().contains(said), "{finished}");
        assert!(object["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{finished}");
    }
    let options: serde_json::Value =
        serde_json::from_str(&bare(&highwater, &["config-reference", "--json"]).success()).unwrap();
    let keys: Vec<&str> =
        options["options"].as_array().unwrap().iter().map(|option| option["key"].as_str().unwrap()).collect();
    assert!(keys.contains(&"cluster.name") && keys.contains(&"repository.NAME.url"), "{keys:?}");
}

/// A misspelt key stops every command, with the right one named.
#[test]
fn an_unknown_key_is_an_error_that_names_the_nearest() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    highwater.fails(
        &["list", "--set", "cluster.data_dri=/x"],
        2,
        &["unknown option", "did you mean cluster.data_dir?"],
    );
    let highwater = highwater.lines("compresion = \"lz4\"");
    highwater.fails(
        &["init"],
        2,
        &["repository.primary.compresion", "did you mean repository.primary.compression?"],
    );
    assert!(!scratch.join("primary").exists());
}

/// What is misspelt on the command line or in the environment is named with what is spelled most like it. What Kubernetes injects for a Service
/// called highwater is not.
#[test]
fn what_is_misspelt_is_named_with_what_was_meant() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    for (arguments, meant) in [
        (&["lst"][..], "'list'"),
        (&["restor", "--target-dir", "/x"], "'restore'"),
        (&["restore", "--target-dri", "/x"], "'--target-dir'"),
        (&["backup", "--fast-chekpoint"], "'--fast-checkpoint'"),
        (&["restore", "--target-dir", "/x", "--action", "pasue"], "'pause'"),
        (&["restore", "--target-dir", "/x", "--timeline", "two"], "a timeline is a number from 1"),
        (&["restore", "--target-dir", "/x", "--to-lsn", "0x12"], "--to-lsn"),
        (&["list", "--repository", "primray"], "configured: primary"),
    ] {
        highwater.fails(arguments, 2, &["error: ", meant]);
    }
    highwater.ok(&["init"]);
    let list = |name: &str, value: &str| Finished::of(highwater.command(&["list"]).env(name, value));
    list("HIGHWATER__CLUSTER__NAEM", "x")
        .failure(2, &["HIGHWATER__CLUSTER__NAEM", "did you mean cluster.name?"]);
    for (variable, meant) in [
        ("HIGHWATER_CLUSTER_NAME", "HIGHWATER__CLUSTER__NAME"),
        ("HIGHWATER_REPOSITORY_PRIMARY_KEY_FILE", "HIGHWATER__REPOSITORY__PRIMARY__KEY_FILE"),
    ] {
        let said = list(variable, "/x");
        for word in [variable, &format!("did you mean {meant}?")] {
            assert!(said.code == Some(0) && said.stderr.contains(word), "{said}");
        }
    }
    let injected = list("HIGHWATER_SERVICE_HOST", "10.0.0.1");
    assert!(injected.code == Some(0) && injected.stderr.is_empty(), "{injected}");
}

/// A cluster that a repository does not hold: it says which it has.
#[test]
fn list_names_the_clusters_there_are() {
    let scratch = Scratch::new();
    let cluster = Cluster::builder(newest(), &scratch, "main").create();
    let highwater = Highwater::new(&scratch, "main", &cluster).local_repository("primary");
    highwater.ok(&["init"]);
    highwater.fails(&["list", "--set", "cluster.name=other"], 1, &["no cluster other", "it holds: main"]);
}
