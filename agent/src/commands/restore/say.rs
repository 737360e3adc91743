//! What a restore says: the plan before the first byte, and at the end what was done and what to type next.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use highwater_pitr::target::TargetAction;
use highwater_restore::conf_file::shell_word;
use highwater_restore::finish::Finished;
use highwater_restore::host::{Resorted, SCRIPT_FILE};
use highwater_restore::preflight::{Preflight, Request};
use highwater_restore::rebuild::Rebuilt;
use highwater_restore::replayed::{Found, Replayed};
use highwater_restore::server::{ServerError, State};
use highwater_restore::standing::{Found as Stands, Standing};
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::resorted;
use super::serving::Serving;
use super::source::Sources;

/// What will be done.
pub struct Plan {
    /// What a printed command of ours carries, so that it finds the configuration.
    arguments: String,
    backup: String,
    taken: String,
    repository: String,
    url: String,
    target: String,
    timeline: String,
    stop: String,
    newest_commit: Option<String>,
    wal_segments: u64,
    wal_bytes: u64,
    first_segment: String,
    last_segment: String,
    fetch_bytes: u64,
    requests: u64,
    spaces: Vec<(String, u64, u64)>,
    /// What is there and serves: in words, and for programs.
    reuse: Option<(String, Value)>,
    replayed: Vec<Replayed>,
    configuration: Vec<(String, String)>,
    warnings: Vec<String>,
    resorted: Vec<Resorted>,
    notes: Vec<String>,
}

impl Plan {
    /// The plan in words and numbers.
    pub fn of(preflight: &Preflight, request: &Request, sources: &Sources) -> Self {
        let Preflight { plan, manifest, spaces, replayed, .. } = preflight;
        let stop: Vec<String> =
            plan.stop.stop.settings().iter().map(|(name, value)| format!("{name} = {value}")).collect();
        let newest = plan.stop.newest_commit.as_ref();
        let mut notes = sources.notes.clone();
        notes.extend(preflight.notes.iter().cloned());
        Self {
            arguments: sources.arguments().to_owned(),
            backup: plan.backup.id.clone(),
            taken: manifest.stopped_at.to_string(),
            repository: preflight.repository.clone(),
            url: preflight.lineage.store().describe(),
            target: if request.standby { "a standby".to_owned() } else { request.target.to_string() },
            timeline: plan.timeline.to_string(),
            stop: stop.join(", "),
            newest_commit: newest.map(|commit| format!("transaction {} of {}", commit.xid, commit.time)),
            wal_segments: plan.wal_segments(),
            wal_bytes: plan.wal_bytes(),
            first_segment: plan.segment_name(plan.first_segment).to_string(),
            last_segment: plan.last_segment_name().to_string(),
            fetch_bytes: manifest.counts.stored_bytes,
            requests: u64::from(manifest.packs) + manifest.file_list.len() as u64 + 1,
            spaces: spaces
                .iter()
                .map(|space| (space.path.display().to_string(), space.needed, space.free))
                .collect(),
            reuse: reuse(&preflight.standing),
            replayed: replayed.clone(),
            configuration: preflight
                .configuration
                .files()
                .map(|(original, now)| (original.display().to_string(), now.display().to_string()))
                .collect(),
            warnings: preflight.warnings.clone(),
            resorted: preflight.resorted.clone(),
            notes,
        }
    }

    /// What a person must not overlook: each a sentence.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.warnings.iter().cloned().chain(self.resorted.iter().map(Resorted::warning))
    }

    /// The same for programs.
    pub fn json(&self) -> Value {
        let spaces: Vec<Value> = self
            .spaces
            .iter()
            .map(|(path, needed, free)| json!({"path": path, "needed_bytes": needed, "free_bytes": free}))
            .collect();
        let replayed: Vec<Value> = self
            .replayed
            .iter()
            .map(|tablespace| {
                json!({
                    "oid": tablespace.oid,
                    "path": tablespace.path.display().to_string(),
                    "created_lsn": tablespace.lsn.to_string(),
                    "dropped_lsn": tablespace.dropped.map(|lsn| lsn.to_string()),
                    "directory": tablespace.found.as_str(),
                })
            })
            .collect();
        let configuration: Vec<Value> = self
            .configuration
            .iter()
            .map(|(original, now)| json!({"original": original, "path": now}))
            .collect();
        json!({
            "version": 1,
            "backup": self.backup,
            "backup_stopped_at": self.taken,
            "repository": self.repository,
            "url": self.url,
            "target": self.target,
            "timeline": self.timeline,
            "stop": self.stop,
            "newest_commit": self.newest_commit,
            "wal": {
                "first": self.first_segment,
                "last": self.last_segment,
                "segments": self.wal_segments,
                "bytes": self.wal_bytes,
            },
            "fetch": {"bytes": self.fetch_bytes, "requests": self.requests},
            "reuse": self.reuse.as_ref().map(|(_, value)| value),
            "space": spaces,
            "replayed_tablespaces": replayed,
            "configuration": configuration,
            "warnings": self.warnings().collect::<Vec<String>>(),
            "reindex": resorted::json(&self.resorted),
            "notes": self.notes,
        })
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "repository  {}", self.url)?;
        writeln!(f, "backup      {} (ended {})", self.backup, self.taken)?;
        writeln!(f, "target      {} on timeline {} ({})", self.target, self.timeline, self.stop)?;
        let newest = self.newest_commit.as_deref().unwrap_or("none after the backup began");
        writeln!(f, "            newest commit in it: {newest}")?;
        writeln!(
            f,
            "WAL         {} segments, {} to replay ({} to {})",
            self.wal_segments,
            HumanBytes(self.wal_bytes),
            self.first_segment,
            self.last_segment
        )?;
        let at_most = if let Some((words, _)) = &self.reuse {
            writeln!(f, "in place    {words}")?;
            "at most "
        } else {
            ""
        };
        writeln!(
            f,
            "to fetch    {at_most}{} in {} requests for the backup, and one for each segment",
            HumanBytes(self.fetch_bytes),
            self.requests
        )?;
        for (path, needed, free) in &self.spaces {
            writeln!(f, "space       {path}: {} needed, {} free", HumanBytes(*needed), HumanBytes(*free))?;
        }
        for Replayed { oid, path, lsn, dropped, found } in &self.replayed {
            let dropped = dropped.map_or_else(String::new, |lsn| format!(", and dropped at {lsn}"));
            let directory = match found {
                Found::Absent => "; the directory will be made",
                Found::Empty => "; the directory is there and empty",
                Found::Restored => "",
            };
            let path = path.display();
            writeln!(f, "tablespace  {oid} is made by replay at LSN {lsn}{dropped}, in {path}{directory}")?;
        }
        for (original, now) in &self.configuration {
            writeln!(f, "config      {original} goes to {now}")?;
        }
        for note in &self.notes {
            writeln!(f, "note        {note}")?;
        }
        resorted::Listed(&self.resorted).fmt(f)
    }
}

/// What is there and may serve, in words and for programs.
fn reuse(standing: &Standing) -> Option<(String, Value)> {
    let bytes = standing.present().iter().map(|(_, bytes)| bytes).sum();
    let there = format!("{} files, {}", standing.files(), HumanBytes(bytes));
    let kept_wal = standing.kept_wal().iter();
    let kept_wal: Vec<Value> =
        kept_wal.map(|kept| json!({"from": kept.from, "to": kept.to, "files": kept.names})).collect();
    let value =
        |kind: &str| json!({"kind": kind, "files": standing.files(), "bytes": bytes, "kept_wal": kept_wal});
    match standing.found() {
        Stands::Nothing => None,
        Stands::Cluster => Some((
            format!(
                "{there}: each is compared with the backup, what is the same is kept and what is not of it removed, \
                 its archiving state too; until this is done no server starts there"
            ),
            value("delta"),
        )),
        Stands::Unfinished(record) => {
            let mut value = value("unfinished");
            if let Value::Object(value) = &mut value {
                value.insert("begun_at".to_owned(), json!(record.begun));
            }
            let begun = record.begun;
            Some((
                format!("{there}: goes on with the restore begun at {begun}, and keeps what is whole"),
                value,
            ))
        }
    }
}

/// What was done.
pub struct Done<'a> {
    /// What was planned.
    pub plan: &'a Plan,
    /// On what ground.
    pub preflight: &'a Preflight,
    /// What was asked.
    pub request: &'a Request,
    /// Where the server listens when it is started.
    pub serving: Serving,
    /// The files.
    pub rebuilt: Rebuilt,
    /// The settings.
    pub finished: &'a Finished,
    /// How long it took, without the server's start.
    pub took: Duration,
    /// What the server does, where it was started.
    pub state: Option<State>,
    /// It was started and runs, whatever it does.
    pub running: bool,
    /// Databases whose text is sorted otherwise here: as was known before, or as the running server said.
    pub resorted: Vec<Resorted>,
    /// What the running server was the first to say: each a sentence.
    pub asked: Vec<String>,
}

impl Done<'_> {
    /// The same for programs.
    pub fn json(&self) -> Value {
        let mut value = self.plan.json();
        let more = json!({
            "data_dir": self.request.target_dir,
            "action": if self.request.standby { "standby" } else { self.request.action().setting() },
            "files": self.rebuilt.files,
            "bytes": self.rebuilt.bytes,
            "kept_bytes": self.rebuilt.kept_bytes,
            "fetched_bytes": self.rebuilt.fetched_bytes,
            "pack_requests": self.rebuilt.requests,
            "seconds": self.took.as_secs_f64(),
            "server": self.state.as_ref().map(state_text),
            "start": self.start_command(),
            "end_isolation": self.finished.end_isolation,
            "next": self.next(),
        });
        if let (Value::Object(value), Value::Object(more)) = (&mut value, more) {
            value.extend(more);
            value.insert("reindex".into(), resorted::json(&self.resorted));
            if let Some(Value::Array(warnings)) = value.get_mut("warnings") {
                warnings.extend(self.asked.iter().map(|warning| json!(warning)));
            }
            if let Some(Value::Array(notes)) = value.get_mut("notes") {
                notes.extend(self.finished.notes.iter().map(|note| json!(note)));
            }
        }
        value
    }

    /// What to type, in order: each a command and what it is for.
    fn next(&self) -> Vec<Value> {
        self.steps().into_iter().map(|(why, command)| json!({"why": why, "command": command})).collect()
    }

    fn start_command(&self) -> String {
        let data_dir = word(&self.request.target_dir);
        let major = self.preflight.manifest.postgresql.major;
        let bin = self.preflight.installation.as_ref().map_or_else(
            || format!("/usr/lib/postgresql/{major}/bin/pg_ctl"),
            |installation| word(&installation.bin().join("pg_ctl")),
        );
        let config = self.finished.config_file.as_ref().map(|file| format!("-c config_file={}", word(file)));
        let options: Vec<String> = config.into_iter().chain(self.serving.options()).collect();
        let options = Some(options.join(" ")).filter(|options| !options.is_empty());
        let options = options.map_or_else(String::new, |options| format!(" -o {}", shell_word(&options)));
        let log = word(&super::log_file(&self.request.target_dir));
        self.as_owner(&format!("{bin} -D {data_dir}{options} -l {log} start"))
    }

    fn as_owner(&self, command: &str) -> String {
        match &self.preflight.owner {
            Some(owner) => format!("runuser -u {} -- {command}", owner.name),
            None => command.to_owned(),
        }
    }

    /// `psql` that asks these columns, as the server's user and of the server that was restored: which one answers is in the row.
    fn psql(&self, columns: &str) -> String {
        let client = self.serving.client();
        self.as_owner(&format!("psql{client} -c \"SELECT {columns}, current_setting('data_directory')\""))
    }

    /// What puts the indexes right; none where nothing is sorted otherwise.
    fn reindex_step(&self) -> Option<(String, String)> {
        if self.resorted.is_empty() {
            return None;
        }
        let script = word(&self.request.target_dir.join(SCRIPT_FILE));
        let why = "as soon as it takes writes, before anybody uses it: rebuild the indexes that this host sorts otherwise";
        Some((why.to_owned(), self.as_owner(&format!("psql{} -f {script}", self.serving.client()))))
    }

    fn adopt_command(&self) -> String {
        let program = word(&self.request.program);
        self.as_owner(&format!("{program} {} adopt", self.plan.arguments))
    }

    fn steps(&self) -> Vec<(String, String)> {
        let mut steps = Vec::new();
        let mut step = |why: &str, command: String| steps.push((why.to_owned(), command));
        if self.state.is_none() && !self.running {
            step(&self.serving.why_start(), self.start_command());
        }
        if self.request.standby {
            let why = "let it follow a primary: put primary_conninfo into postgresql.auto.conf, after taking out the isolation";
            if let Some(command) = self.finished.end_isolation.clone() {
                step(why, command);
            }
            steps.extend(self.reindex_step());
            return steps;
        }
        let here = self.request.target_dir.display();
        match self.request.action() {
            TargetAction::Pause => {
                step(
                    &format!("see that it is this server and where you want it (t, paused, {here})"),
                    self.psql("pg_is_in_recovery(), pg_get_wal_replay_pause_state()"),
                );
                step("open it for writing, on a new timeline", self.psql("pg_wal_replay_resume()"));
            }
            TargetAction::Promote => step(
                &format!("see that it is this server and has opened for writing (f, {here})"),
                self.psql("pg_is_in_recovery()"),
            ),
            TargetAction::Shutdown => {}
        }
        if let Some((why, command)) = self.reindex_step() {
            step(&why, command);
        }
        let why = if self.finished.end_isolation.is_some() {
            "only when it takes production's place, with this directory as cluster.data_dir: it ends the isolation; then restart the server"
        } else {
            "make it the cluster, with this directory as cluster.data_dir; no WAL is archived before that"
        };
        step(why, self.adopt_command());
        steps
    }

    /// What was restored, in words.
    pub fn restored(&self) -> String {
        let mut text = format!(
            "restored    {} files, {} into {} in {:.1} s",
            self.rebuilt.files,
            HumanBytes(self.rebuilt.bytes),
            self.request.target_dir.display(),
            self.took.as_secs_f64()
        );
        if self.preflight.standing.in_place().is_some() {
            let Rebuilt { kept_bytes, fetched_bytes, .. } = self.rebuilt;
            let (kept, fetched) = (HumanBytes(kept_bytes), HumanBytes(fetched_bytes));
            text.push_str(&format!("\nkept        {kept} were in place; {fetched} were fetched"));
        }
        for note in &self.finished.notes {
            text.push_str(&format!("\nnote        {note}"));
        }
        if self.finished.end_isolation.is_some() {
            text.push_str(
                "\nisolated    archiving, synchronous replication, upstream connections and subscriptions are off",
            );
        }
        text
    }

    /// What the server does, and what to type next.
    pub fn next_steps(&self) -> String {
        let mut text = String::new();
        if let Some(state) = &self.state {
            text.push_str(&format!("server      {}\n", state_text(state)));
        }
        if self.state.is_some() && self.resorted != self.plan.resorted {
            text.push_str(&resorted::Listed(&self.resorted).to_string());
        }
        text.push_str("next");
        for (why, command) in self.steps() {
            text.push_str(&format!("\n  # {why}\n  {command}"));
        }
        text
    }

    /// What to do about a server that did not get where it was sent: nothing has to be restored again.
    pub fn hint_after(&self, error: &ServerError) -> String {
        let first = error.hint().map_or_else(String::new, |hint| format!("{hint}; "));
        if self.running {
            return format!("{first}all files are restored, and the server runs");
        }
        let start = self.start_command();
        format!("{first}all files are restored: when the cause is put right, start it with: {start}")
    }
}

pub(super) fn word(path: &Path) -> String {
    shell_word(&path.display().to_string())
}

fn state_text(state: &State) -> String {
    match state {
        State::Starting { .. } => "starting".to_owned(),
        State::Recovering { paused: true, replayed } => format!("paused at {replayed}"),
        State::Recovering { paused: false, replayed } => format!("recovering at {replayed}"),
        State::Writable => "open for writing".to_owned(),
        State::Ended { .. } => "shut down at the target".to_owned(),
    }
}
