//! The steps of the demo, in order, each with what it measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use highwater_restore::server::Installation;
use serde_json::{Map, Value, json};

use super::load::{self, Load};
use super::sandbox::Sandbox;
use crate::pg::Session;
use crate::report;

/// How the demo is told.
pub struct Options {
    /// The bin directory of the PostgreSQL to use, instead of the newest found.
    pub postgres_bin: Option<PathBuf>,
    /// Where its directory is made.
    pub parent: PathBuf,
    /// Leave the directory behind.
    pub keep: bool,
    /// Say nothing on the way.
    pub quiet: bool,
}

/// Sessions at work at once.
const SESSIONS: u64 = 8;

/// How long they work before the backup, and between it and the accident.
const WORK_BEFORE: Duration = Duration::from_secs(2);
const WORK_AFTER: Duration = Duration::from_secs(4);

/// How long archiving may lag behind.
const ARCHIVED_WITHIN: Duration = Duration::from_secs(30);

/// Runs the demo and gives what it measured.
///
/// # Errors
///
/// Anything that fails, and a restored ledger that is not exactly the one expected.
pub async fn tell(options: &Options) -> anyhow::Result<Value> {
    let begun = Instant::now();
    let installation = Installation::newest(options.postgres_bin.as_deref())?;
    let sandbox = Sandbox::create(&options.parent, installation, options.keep)?;
    let mut narrator = Narrator { quiet: options.quiet, step: Instant::now() };
    let mut measured = tokio::select! {
        told = steps(&sandbox, &mut narrator) => told?,
        _ = tokio::signal::ctrl_c() => return Err(report::failed("interrupted", "nothing is left behind")),
    };
    let seconds = begun.elapsed().as_secs_f64();
    measured.insert("seconds".to_owned(), json!(seconds));
    if options.keep {
        measured.insert("directory".to_owned(), json!(sandbox.path("").display().to_string()));
        narrator.say(&format!("kept: {}", sandbox.path("").display()));
    }
    narrator.say(&format!("The whole story took {seconds:.1} s."));
    Ok(Value::Object(measured))
}

async fn steps(sandbox: &Sandbox, narrator: &mut Narrator) -> anyhow::Result<Map<String, Value>> {
    let (data_dir, socket_dir) = (sandbox.path("cluster"), sandbox.make_directory("socket")?);
    let major = sandbox.installation().major();

    make_cluster(sandbox).await?;
    narrator.step(&format!("made a PostgreSQL {major} cluster in {}", data_dir.display()));

    sandbox.highwater(&["init"]).await?;
    narrator.step("highwater init: made an encrypted repository beside it");

    let session = sandbox.start(&data_dir, &socket_dir).await?;
    load::prepare(&session).await?;
    sandbox.highwater(&["check"]).await?;
    narrator.step("highwater check: WAL went to the repository and came back the same");

    let load = Load::start(SESSIONS, &socket_dir);
    tokio::time::sleep(WORK_BEFORE).await;
    narrator.step(&format!("{SESSIONS} sessions are at work: {} transfers committed", load.committed()));

    let backup_begun = Instant::now();
    sandbox.highwater(&["backup", "--fast-checkpoint"]).await?;
    let backup = backup_begun.elapsed();
    let size = database_bytes(&session).await?;
    narrator.step(&format!("highwater backup: {} under that load", indicatif::HumanBytes(size)));

    tokio::time::sleep(WORK_AFTER).await;
    let record = load::record_and_drop(&session).await?;
    let committed = load.wait().await?;
    narrator.step(&format!("{committed} transfers were committed when someone typed DROP TABLE ledger"));

    wait_until_archived(&session).await?;
    narrator.step("the last segment of WAL is in the repository");

    let target_us = record.moment_before_the_drop()?;
    let target = timestamp(target_us)?;
    let restored_dir = sandbox.path("restored");
    let restored_text = restored_dir.display().to_string();
    let restore_begun = Instant::now();
    sandbox
        .highwater(&["restore", "--target-dir", &restored_text, "--to", &target, "--action", "promote"])
        .await?;
    let restore = restore_begun.elapsed();
    narrator.step(&format!("highwater restore --to {target}, a second before"));

    let restored_socket = sandbox.make_directory("socket2")?;
    let restored = sandbox.start(&restored_dir, &restored_socket).await?;
    let recovered = restore_begun.elapsed();
    narrator.step("the restored cluster has replayed the WAL and is open");

    let comparison = record.compare(&restored, target_us).await?;
    narrator.step(&format!(
        "compared row by row: {} rows are back, byte for byte; {} committed later are not there",
        comparison.same, comparison.later
    ));
    let measured = json!({
        "version": 1,
        "postgresql": major,
        "transfers": committed,
        "database_bytes": size,
        "backup_seconds": backup.as_secs_f64(),
        "restore_seconds": restore.as_secs_f64(),
        "recovered_seconds": recovered.as_secs_f64(),
        "target": target,
        "seconds_before_the_drop": seconds(record.dropped_us - target_us),
        "rows_back": comparison.same,
        "rows_later": comparison.later,
    });
    measured.as_object().cloned().context("what was measured is no object")
}

async fn make_cluster(sandbox: &Sandbox) -> anyhow::Result<()> {
    let data_dir = sandbox.path("cluster");
    let shown = data_dir.display().to_string();
    let arguments =
        ["-D", &shown, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--data-checksums", "-N"];
    sandbox.postgres("initdb", &arguments).await?;
    let config = format!(
        "[cluster]\nname = \"demo\"\ndata_dir = \"{shown}\"\n\
         connection = \"host={socket} port=5432 user=postgres dbname=postgres\"\n\n\
         [repository.local]\nurl = \"file://{repository}\"\nkey_file = \"{key}\"\n",
        socket = sandbox.path("socket").display(),
        repository = sandbox.path("repository").display(),
        key = sandbox.path("demo.key").display(),
    );
    let config = sandbox.write("main.toml", &config)?;
    let settings = format!(
        "archive_mode = on\narchive_command = '{highwater} --config {config} --cluster demo archive-push %p'\n\
         wal_level = replica\ntrack_commit_timestamp = on\nmax_connections = 50\n",
        highwater = sandbox.highwater_path().display(),
        config = config.display(),
    );
    sandbox.write("cluster/postgresql.auto.conf", &settings)?;
    Ok(())
}

async fn database_bytes(session: &Session) -> anyhow::Result<u64> {
    let sql = "SELECT sum(pg_database_size(oid))::bigint FROM pg_database";
    let bytes: i64 = session.row(sql, &[], "tell the size of the databases").await?.try_get(0)?;
    Ok(bytes.unsigned_abs())
}

/// Ends the current segment and waits until PostgreSQL has archived it.
async fn wait_until_archived(session: &Session) -> anyhow::Result<()> {
    let segment =
        session.text("SELECT pg_walfile_name(pg_current_wal_insert_lsn())", "name its WAL segment").await?;
    session.row("SELECT pg_switch_wal()", &[], "switch WAL").await?;
    let begun = Instant::now();
    loop {
        let archived = session
            .text(
                "SELECT coalesce(left(last_archived_wal, 24), '') FROM pg_stat_archiver",
                "tell what it archived",
            )
            .await?;
        if archived >= segment {
            return Ok(());
        }
        if begun.elapsed() > ARCHIVED_WITHIN {
            return Err(report::failed(
                format!("{segment} was not archived within {} s", ARCHIVED_WITHIN.as_secs()),
                "run the demo with --keep and look at cluster.log in its directory",
            ));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn timestamp(us: i64) -> anyhow::Result<String> {
    Ok(jiff::Timestamp::from_microsecond(us).context("the server's clock is out of range")?.to_string())
}

/// Microseconds as seconds, for people.
fn seconds(us: i64) -> f64 {
    Duration::from_micros(us.unsigned_abs()).as_secs_f64()
}

/// Says each step with the time it took.
struct Narrator {
    quiet: bool,
    step: Instant,
}

impl Narrator {
    fn step(&mut self, what: &str) {
        let took = self.step.elapsed();
        self.step = Instant::now();
        self.say(&format!("{:6.2} s  {what}", took.as_secs_f64()));
    }

    fn say(&self, text: &str) {
        if !self.quiet {
            report::result(text);
        }
    }
}
