//! `highwater check`.

use std::collections::BTreeMap;

use highwater_tests::{Cluster, Finished, Highwater, Scratch, for_each_major, newest};

use crate::ground::{archive_one, archiving, archiving_as, copy};

/// The lines of a check, by name: status, message and hint.
type Lines = BTreeMap<String, (String, String, String)>;

/// Runs a check, and gives its exit code and its lines.
fn checks(highwater: &Highwater) -> (Option<i32>, Lines) {
    let finished: Finished = highwater.run(&["check", "--json", "--timeout", "20"]);
    let json: serde_json::Value =
        serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{finished}"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let lines = json["checks"].as_array().unwrap().iter();
    let lines = lines.map(|line| {
        (text(&line["check"]), (text(&line["status"]), text(&line["message"]), text(&line["hint"])))
    });
    let failed = json["ok"] == false;
    assert_eq!(finished.code, Some(if failed { 4 } else { 0 }), "{finished}");
    (finished.code, lines.collect())
}

/// Every line of a good set-up is ok, WAL comes back the same, and what is not configured is said.
#[test]
fn a_good_set_up_passes_and_says_what_is_not_configured() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let (cluster, highwater) = archiving(postgres, &scratch);
        let (code, lines) = checks(&highwater);
        assert_eq!(code, Some(0), "{lines:#?}");
        assert_eq!(lines["WAL round trip"].0, "ok");
        assert_eq!(lines["repository primary"].0, "ok");
        assert!(lines["retention"].1.contains("nothing"));
        assert!(lines["drill"].1.contains("none is configured"));
        let human = highwater.ok(&["check"]);
        assert!(human.ends_with("All is well.\n"), "{human}");
        cluster.stop();
    });
}

/// Segments of every size make the round trip.
#[test]
fn every_segment_size_makes_the_round_trip() {
    for mb in [1, 64] {
        let scratch = Scratch::new();
        let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(mb);
        let (cluster, highwater) = archiving_as(builder, &scratch);
        let (_, lines) = checks(&highwater);
        assert_eq!(lines["WAL round trip"].0, "ok", "{lines:#?}");
        cluster.stop();
    }
}

/// Each thing that is wrong is one failed line with what to do; the others are still looked at.
#[test]
fn each_fault_is_named_with_what_to_do() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);

    let command = highwater.archive_command().replace("archive-push", "--cluster other archive-push");
    cluster.configure(&[("archive_command", &command), ("full_page_writes", "off")]);
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show full_page_writes") == "off");
    let (_, lines) = checks(&highwater);
    let (status, message, hint) = &lines["archive_command"];
    assert_eq!(status, "failed");
    assert!(
        message.contains("cluster other") && hint.contains("--cluster main archive-push %p"),
        "{message} {hint}"
    );
    assert_eq!(lines["full_page_writes"].0, "failed");
    assert_eq!(lines["WAL round trip"].0, "skipped");
    assert_eq!(lines["repository primary"].0, "ok");

    cluster.configure(&[("archive_command", "true"), ("full_page_writes", "on")]);
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show archive_command") == "true");
    assert!(checks(&highwater).1["archive_command"].1.contains("does not call highwater"));

    // What would find another configuration than this one, if the server finds the program at all.
    cluster.configure(&[("archive_command", "highwater archive-push %p")]);
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show archive_command").starts_with("highwater"));
    let (_, lines) = checks(&highwater);
    let (status, message, hint) = &lines["archive_command"];
    assert_eq!(status, "failed");
    assert!(message.contains("names no cluster") && hint.contains("--cluster main"), "{message} {hint}");
    let (status, message, _) = &lines["archive_command's program"];
    assert_eq!(status, "note");
    assert!(message.contains("PATH"), "{message}");

    cluster.stop();
    let (_, lines) = checks(&highwater);
    assert_eq!(lines["connection"].0, "failed");
    assert_eq!(lines["settings"].0, "skipped");
    assert_eq!(lines["repository primary"].0, "ok");

    std::fs::rename(scratch.join("primary"), scratch.join("elsewhere")).unwrap();
    assert_eq!(checks(&highwater).1["repository primary"].0, "failed");
}

/// A command that fails is found by the round trip, within its time.
#[test]
fn an_archive_command_that_cannot_work_fails_the_round_trip() {
    let scratch = Scratch::new();
    let (cluster, highwater) = archiving(newest(), &scratch);
    let wrong = highwater.archive_command().replace("archive-push", "archive-push --no-such-flag");
    cluster.configure(&[("archive_command", &wrong)]);
    cluster.tolerate("archive command failed");
    cluster.tolerate("failed too many times");
    cluster.tolerate("error: unexpected argument");
    cluster.reload();
    cluster.wait("the new settings", || cluster.value("show archive_command") == wrong);
    let finished = highwater.run(&["check", "--timeout", "8"]);
    assert_eq!(finished.code, Some(4), "{finished}");
    assert!(finished.stdout.contains("did not arrive within 8 s"), "{finished}");
    assert!(finished.stdout.contains("archive_command failed"), "{finished}");
    cluster.stop();
}

/// A role without privileges is told the GRANT lines, and with them it passes.
#[test]
fn an_ordinary_role_is_told_what_to_grant() {
    for_each_major(|postgres| {
        let scratch = Scratch::new();
        let (cluster, highwater) = archiving(postgres, &scratch);
        cluster.execute("create role keeper login");
        let text =
            std::fs::read_to_string(highwater.config()).unwrap().replace("user=postgres", "user=keeper");
        assert!(text.contains("user=keeper"), "{text}");
        std::fs::write(highwater.config(), text).unwrap();
        let (_, lines) = checks(&highwater);
        let (status, _, hint) = &lines["privileges"];
        assert_eq!(status, "failed");
        let grants: Vec<&str> = hint.lines().filter(|line| line.starts_with("GRANT")).collect();
        assert!(grants.len() >= 4, "{hint}");
        cluster.execute(&grants.join("\n"));
        let (code, lines) = checks(&highwater);
        assert_eq!(code, Some(0), "{lines:#?}");
        cluster.stop();
    });
}

/// I9: that an older copy was put in the place of a repository is found out by what this host remembers, and the WAL that went with
/// it by what was archived since. A new backup leads on; what is lost stays told.
#[test]
fn a_repository_that_went_back_is_found_out() {
    let scratch = Scratch::new();
    let builder = Cluster::builder(newest(), &scratch, "main").wal_segment_mb(1);
    let (cluster, highwater) = archiving_as(builder, &scratch);
    highwater.ok(&["backup", "--fast-checkpoint"]);
    archive_one(&cluster);
    copy(&scratch.join("primary"), &scratch.join("older"));
    let lost = archive_one(&cluster);
    let made = highwater.json(&["backup", "--fast-checkpoint"]);
    let gone = made["backups"][0]["backup"].as_str().unwrap();
    let (code, lines) = checks(&highwater);
    assert_eq!(code, Some(0), "{lines:#?}");
    assert!(lines["WAL of primary"].1.contains(gone), "{lines:#?}");
    archive_one(&cluster);

    std::fs::rename(scratch.join("primary"), scratch.join("newer")).unwrap();
    std::fs::rename(scratch.join("older"), scratch.join("primary")).unwrap();
    let (_, lines) = checks(&highwater);
    let (status, message, hint) = &lines["history of primary"];
    assert_eq!(status, "failed");
    assert!(message.contains("went back") && message.contains(gone), "{message}");
    assert!(hint.contains("older copy"), "{hint}");
    let (status, message, hint) = &lines["WAL of primary"];
    assert_eq!(status, "failed");
    assert!(message.contains(&lost) && hint.contains("run highwater backup now"), "{message} {hint}");
    assert_eq!(lines["WAL round trip"].0, "ok");

    let told = highwater.run(&["backup", "--fast-checkpoint"]);
    assert_eq!(told.code, Some(0), "{told}");
    assert!(told.stderr.contains("went back") && told.stderr.contains(gone), "{told}");
    let (code, lines) = checks(&highwater);
    assert_eq!(code, Some(0), "{lines:#?}");
    let (status, message, _) = &lines["earlier WAL of primary"];
    assert_eq!(status, "note");
    assert!(message.contains(&lost), "{message}");
    cluster.stop();
}
