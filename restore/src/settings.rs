//! The settings that make a data directory recover to its target, and keep a copy from harming production.
//!
//! First what the backup brought goes: signal files, and every recovery or replication setting that `ALTER SYSTEM` left in
//! `postgresql.auto.conf`. Then two marked blocks are written at that file's end, which PostgreSQL reads after every other
//! file, so the last word is ours. The first blanks every target kind (one left in `postgresql.conf` beside ours is a FATAL
//! "multiple recovery targets") and then sets the one wanted: the order counts, since blanking one kind after setting another
//! is the same error (`assign_recovery_target_*` in `xlogrecovery.c`). The second, left out with `--replace-production`, turns
//! off what reaches out: archiving, synchronous replication, upstream connections, slots, subscriptions.
//!
//! The functions here make text from text; the `finish` module puts it in place.

use highwater_pitr::plan::Stop;
use highwater_pitr::target::TargetAction;

use crate::conf_file::{self, parse_line, shell_word};

/// Begins the block of recovery settings.
pub const RECOVERY_BEGIN: &str = "# BEGIN highwater restore";
/// Ends the block of recovery settings.
pub const RECOVERY_END: &str = "# END highwater restore";
/// Begins the block that keeps a copy apart.
pub const ISOLATION_BEGIN: &str = "# BEGIN highwater isolation";
/// Ends the block that keeps a copy apart.
pub const ISOLATION_END: &str = "# END highwater isolation";

/// Every way to name a target: exactly one may be set.
const TARGET_KINDS: [&str; 5] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
];

/// Settings of an earlier recovery or an upstream server, which have no place in a restored copy.
const FOUND_AND_REMOVED: [&str; 16] = [
    "recovery_target",
    "recovery_target_lsn",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "primary_conninfo",
    "primary_slot_name",
    "recovery_min_apply_delay",
    "promote_trigger_file",
    "standby_mode",
];

/// Files whose presence alone changes how a server starts; none is taken over from a backup.
pub const SIGNAL_FILES: [&str; 3] = ["recovery.signal", "standby.signal", "recovery.conf"];

/// Everything the recovery block says.
#[derive(Debug, Clone)]
pub struct Recovery {
    /// The whole `restore_command`.
    pub restore_command: String,
    /// Where to stop; a standby that follows has none.
    pub stop: Option<Stop>,
    /// `recovery_target_timeline`: a number, or `latest` for a standby that follows.
    pub timeline: String,
    /// What to do there.
    pub action: TargetAction,
    /// Settings that must not be below the primary's (POSTGRES: checked when hot standby is on), with its values.
    pub at_least: Vec<(String, u64)>,
    /// Settings that this host's files need, such as `hba_file` or `ssl`.
    pub corrections: Vec<(String, String)>,
}

/// The `restore_command` that calls `program` with the plan in `plan_file`. Three readers take a layer each: the
/// configuration file (see [`conf_file::format`]), PostgreSQL's `%` escapes, and the shell.
pub fn restore_command(program: &str, plan_file: &str) -> String {
    let program = shell_word(program).replace('%', "%%");
    let plan_file = shell_word(plan_file).replace('%', "%%");
    format!("{program} archive-get --plan {plan_file} %f \"%p\"")
}

/// `postgresql.auto.conf` without what an earlier recovery, an upstream or an earlier restore left in it.
pub fn cleaned(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut inside_block = false;
    for line in text.lines() {
        match line.trim() {
            RECOVERY_BEGIN | ISOLATION_BEGIN => inside_block = true,
            RECOVERY_END | ISOLATION_END => inside_block = false,
            _ if inside_block => {}
            _ if parse_line(line)
                .is_some_and(|setting| FOUND_AND_REMOVED.contains(&setting.name.as_str())) => {}
            _ => {
                kept.push_str(line);
                kept.push('\n');
            }
        }
    }
    kept
}

/// `postgresql.auto.conf` without what keeps a copy apart.
pub fn without_isolation(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut inside = false;
    for line in text.split_inclusive('\n') {
        match line.trim_end() {
            ISOLATION_BEGIN => inside = true,
            ISOLATION_END if inside => inside = false,
            _ if inside => {}
            _ => kept.push_str(line),
        }
    }
    kept
}

/// The block of recovery settings.
pub fn recovery_block(recovery: &Recovery) -> String {
    let mut lines = vec![
        RECOVERY_BEGIN.to_owned(),
        "# Written by highwater restore; PostgreSQL reads these only while recovery.signal or standby.signal is there.".into(),
    ];
    let mut set = |name: &str, value: &str| lines.push(conf_file::format(name, value));
    set("restore_command", &recovery.restore_command);
    set("archive_cleanup_command", "");
    set("recovery_end_command", "");
    set("recovery_min_apply_delay", "0");
    let wanted = recovery.stop.as_ref().map(Stop::settings).unwrap_or_default();
    for kind in TARGET_KINDS.into_iter().filter(|kind| wanted.iter().all(|(name, _)| name != kind)) {
        set(kind, "");
    }
    for (name, value) in &wanted {
        set(name, value);
    }
    if wanted.iter().all(|(name, _)| *name != "recovery_target_inclusive") {
        set("recovery_target_inclusive", "on");
    }
    set("recovery_target_timeline", &recovery.timeline);
    set("recovery_target_action", recovery.action.setting());
    // Without it `pause` becomes `shutdown`, and nobody could look at the restored state before it is promoted.
    set("hot_standby", "on");
    for (name, value) in &recovery.at_least {
        set(name, &value.to_string());
    }
    for (name, value) in &recovery.corrections {
        set(name, value);
    }
    lines.push(RECOVERY_END.to_owned());
    lines.join("\n") + "\n"
}

/// The block that keeps a restored copy apart from production until it is taken over; with settings of this copy's own, for what
/// it would otherwise share with the original.
pub fn isolation_block(own: &[(String, String)]) -> String {
    let mut lines = vec![
        ISOLATION_BEGIN.to_owned(),
        "# This is a copy: it archives nothing, connects nowhere and waits for no standby.".into(),
    ];
    for (name, value) in [
        ("archive_mode", "off"),
        ("synchronous_standby_names", ""),
        ("primary_conninfo", ""),
        ("primary_slot_name", ""),
        ("max_logical_replication_workers", "0"),
    ]
    .into_iter()
    .chain(own.iter().map(|(name, value)| (name.as_str(), value.as_str())))
    {
        lines.push(conf_file::format(name, value));
    }
    lines.push(ISOLATION_END.to_owned());
    lines.join("\n") + "\n"
}

/// The command that removes the isolation block from `auto_conf`.
pub fn end_isolation_command(auto_conf: &std::path::Path) -> String {
    let file = shell_word(&auto_conf.display().to_string());
    format!("sed -i '/^{ISOLATION_BEGIN}$/,/^{ISOLATION_END}$/d' {file}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recovery() -> Recovery {
        Recovery {
            restore_command: restore_command("/usr/bin/highwater", "/data/it's 100%/restore.json"),
            stop: Some(Stop::Lsn { lsn: "0/3000028".parse().unwrap(), inclusive: true }),
            timeline: "2".into(),
            action: TargetAction::Pause,
            at_least: vec![("max_connections".into(), 200)],
            corrections: vec![("ssl".into(), "off".into())],
        }
    }

    #[test]
    fn the_restore_command_survives_its_three_readers() {
        let block = recovery_block(&recovery());
        let line = block.lines().find_map(parse_line).unwrap();
        assert_eq!(line.name, "restore_command");
        let expected = r#"/usr/bin/highwater archive-get --plan '/data/it'\''s 100%%/restore.json' %f "%p""#;
        assert_eq!(line.value, expected);
        // What the shell gets once PostgreSQL has replaced its escapes:
        let for_shell = line.value.replace("%f", "F").replace("%p", "pg_wal/RECOVERYXLOG").replace("%%", "%");
        let printed = std::process::Command::new("/bin/sh")
            .args(["-c", &for_shell.replace("/usr/bin/highwater", "printf '%s\\n'")])
            .output()
            .unwrap();
        let words = String::from_utf8(printed.stdout).unwrap();
        let expected = ["archive-get", "--plan", "/data/it's 100%/restore.json", "F", "pg_wal/RECOVERYXLOG"];
        assert_eq!(words.lines().collect::<Vec<_>>(), expected);
    }

    /// Each other kind is blanked before the wanted one is set.
    #[test]
    fn the_wanted_target_is_set_last() {
        let names: Vec<String> =
            recovery_block(&recovery()).lines().filter_map(parse_line).map(|setting| setting.name).collect();
        let position = |name: &str| names.iter().position(|other| other == name).unwrap();
        for kind in TARGET_KINDS {
            assert_eq!(names.iter().filter(|name| *name == kind).count(), 1, "{kind}");
            assert!(position(kind) <= position("recovery_target_lsn"), "{kind}");
        }
    }

    #[test]
    fn what_a_backup_brought_is_removed_and_the_rest_is_kept() {
        let text = "# Do not edit this file manually!\nwork_mem = '64MB'\nRecovery_Target_Xid = '7'\n\
                    restore_command 'cp x y'\nprimary_conninfo = 'host=p'\nport = '5433'\n";
        let again = format!("{}{}{}", cleaned(text), recovery_block(&recovery()), isolation_block(&[]));
        let clean = "# Do not edit this file manually!\nwork_mem = '64MB'\nport = '5433'\n";
        assert_eq!(cleaned(text), clean);
        assert_eq!(cleaned(&again), clean);
        assert!(TARGET_KINDS.iter().all(|kind| FOUND_AND_REMOVED.contains(kind)));
    }

    #[test]
    #[allow(clippy::disallowed_methods)]
    fn the_printed_command_removes_the_isolation_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("it's a.conf");
        std::fs::write(
            &file,
            format!("a = 1\n{}{}b = 2\n", recovery_block(&recovery()), isolation_block(&[])),
        )
        .unwrap();
        let status = std::process::Command::new("/bin/sh")
            .args(["-c", &end_isolation_command(&file)])
            .status()
            .unwrap();
        assert!(status.success());
        let left = std::fs::read_to_string(&file).unwrap();
        assert_eq!(left, format!("a = 1\n{}b = 2\n", recovery_block(&recovery())));
    }

    #[test]
    fn only_the_isolation_goes() {
        let block = isolation_block(&[]);
        let before =
            "work_mem = '8MB'\n# BEGIN highwater restore\nhba_file = '/x'\n# END highwater restore\n";
        let after = "shared_buffers = '1GB'\n";
        assert_eq!(without_isolation(&format!("{before}{block}{after}")), format!("{before}{after}"));
        assert_eq!(without_isolation(before), before);
    }
}
