//! A base backup of a running primary, read beside its data directory.
//!
//! In order: the server and its directory are looked at, and refused if no sound backup can come of them; the directory is
//! surveyed, so that what would end the backup ends it now; archiving is proven by a segment of WAL that arrives. Then the **intent** is
//! written, PostgreSQL is told that a backup begins, and everything is copied ([`pipeline`]) while one session keeps the backup open
//! and another asks the catalogs. `pg_control` is read last. PostgreSQL is told that the backup ends, and gives the label and
//! the end of the WAL it needs. When all of that WAL lies in the repository, and every pack too, the **manifest** is written: the
//! commit point. Whatever fails before leaves objects that no manifest names, and that `expire` collects.

mod archived;
mod checks;
mod control;
mod databases;
mod error;
mod facts;
mod held;
mod listing;
mod machine;
mod names;
mod outside;
mod packer;
mod pages;
mod pipeline;
mod reader;
mod relations;
#[cfg(test)]
mod tests;
mod walk;
mod work;

use std::collections::{BTreeMap, HashSet};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use highwater_archive::clock::Clock;
use highwater_archive::lineage::{Lineage, LineageError};
use highwater_archive::manifest::{
    self, BackupId, Database, Intent, KeyringRef, LeftOut, Manifest, Owner, Part, PostgresInfo,
    PreviousBackup, Source, WalRange,
};
use highwater_archive::names as archive_names;
use highwater_archive::seal::{Codec, ObjectKind};
use highwater_pitr::label::BackupLabel;
use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::SegmentName;
use highwater_restore::ownership::{self, Account};

use self::archived::Archived;
use self::control::ControlRead;
pub use self::error::BackupError;
use self::facts::Facts;
use self::held::{HeldSession, Stopped};
use self::outside::Outside;
use self::pages::PageRules;
use self::pipeline::{Copied, Copy, Survey};
use self::walk::Rules;
use crate::config::Config;
use crate::pg::Session;
use crate::pg::settings::Settings;
use crate::progress::Progress;

/// Where a backup goes.
pub struct Destination<'a> {
    /// The lineage it becomes part of.
    pub lineage: &'a Lineage,
    /// The keyring generation in use, wrapped, as the cluster has it.
    pub wrapped_keyring: &'a Bytes,
    /// How extents are compressed.
    pub codec: Codec,
    /// This data directory's writer id.
    pub writer: String,
}

/// How a backup is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Shown in lists; also given to PostgreSQL.
    pub label: String,
    /// An immediate checkpoint instead of a spread one.
    pub fast_checkpoint: bool,
    /// Worker threads.
    pub jobs: usize,
    /// How long a segment of WAL may take into the repository.
    pub archive_deadline: Duration,
    /// No progress on standard error.
    pub quiet: bool,
}

/// A backup that failed after it had begun to write.
#[derive(Debug, thiserror::Error)]
#[error("backup {backup} was not completed: {source}")]
pub struct Incomplete {
    /// The backup.
    pub backup: BackupId,
    /// Why.
    pub source: BackupError,
}

impl Incomplete {
    /// What a person may do about it.
    pub fn hint(&self) -> Option<String> {
        let collected = format!(
            "it has no manifest, so nothing refers to what it stored; expire collects packs/{}",
            self.backup
        );
        Some(match self.source.hint() {
            Some(hint) => format!("{hint} ({collected})"),
            None => collected,
        })
    }
}

/// Makes one backup; its manifest.
///
/// # Errors
///
/// [`BackupError`] when it is refused, [`Incomplete`] when it fails after its first write.
pub async fn run(
    config: &Config,
    destination: &Destination<'_>,
    options: &Options,
    clock: &dyn Clock,
) -> anyhow::Result<Manifest> {
    let session = Session::connect(config).await?;
    let result = with_session(config, destination, options, clock, &session).await;
    session.close().await;
    result
}

async fn with_session(
    config: &Config,
    destination: &Destination<'_>,
    options: &Options,
    clock: &dyn Clock,
    session: &Session,
) -> anyhow::Result<Manifest> {
    let ready = Ready::new(config, destination, session).await?;
    let archived = Archived { lineage: destination.lineage, session, deadline: options.archive_deadline };
    let proof = archived.prove().await?;
    tracing::info!("archiving works: {proof} is in the repository");
    let mut nonce = [0; 4];
    getrandom::fill(&mut nonce)?;
    let started_at = clock.now();
    let backup = BackupId::new(started_at, nonce);
    let attempt =
        Attempt { config, destination, options, clock, ready: &ready, archived, backup, started_at };
    attempt.run().await.map_err(|source| Incomplete { backup: attempt.backup, source }.into())
}

/// What was looked at and found good.
struct Ready<'a> {
    data_dir: PathBuf,
    session: &'a Session,
    settings: Settings,
    facts: Facts,
    control: ControlRead,
    outside: Outside,
    rules: Rules,
    survey: Survey,
}

impl<'a> Ready<'a> {
    async fn new(
        config: &Config,
        destination: &Destination<'_>,
        session: &'a Session,
    ) -> anyhow::Result<Ready<'a>> {
        let data_dir = config.data_dir()?.to_path_buf();
        let settings = session.settings().await?;
        // Else it would show as WAL that never comes, after minutes.
        destination.lineage.repository().require_writer()?;
        destination.lineage.require_open().await?;
        checks::server(&settings, session, destination.lineage)?;
        let control = control::read(&data_dir)?;
        let extent_bytes = destination.lineage.repository().info().extent_bytes;
        checks::data_directory(&data_dir, &control.control, &settings, extent_bytes)?;
        let facts = Facts::read(session).await?;
        let outside = outside::find(&data_dir, &facts.whereabouts)?;
        let rules = Rules {
            data_dir: data_dir.clone(),
            version_directory: format!("PG_{}_{}", session.major(), control.control.catalog_version),
            configuration: outside.inside.clone(),
            keys: outside.keys_inside.clone(),
        };
        let (walk_rules, files) = (rules.clone(), outside.files.clone());
        let survey = tokio::task::spawn_blocking(move || pipeline::survey(&walk_rules, &files)).await??;
        Ok(Ready { data_dir, session, settings, facts, control, outside, rules, survey })
    }
}

/// One backup, from its intent to its manifest.
struct Attempt<'a> {
    config: &'a Config,
    destination: &'a Destination<'a>,
    options: &'a Options,
    clock: &'a dyn Clock,
    ready: &'a Ready<'a>,
    archived: Archived<'a>,
    backup: BackupId,
    started_at: jiff::Timestamp,
}

/// What the copy brought.
struct Contents {
    copied: Copied,
    databases: Vec<Database>,
    relation_map: Vec<Part>,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<Manifest, BackupError> {
        let lineage = self.destination.lineage;
        // Half-written files of a backup that was killed lie where nobody would write again, and no list shows them.
        let swept = lineage.store().sweep(&lineage.full_path("")).await?;
        if swept > 0 {
            tracing::info!("removed {swept} files that killed writers had left in the repository");
        }
        manifest::write_intent(lineage, &self.intent()).await?;
        let held = HeldSession::new(Session::connect(self.config).await?);
        let start_lsn = held.start(&self.options.label, self.options.fast_checkpoint).await?;
        self.same_directory(start_lsn)?;
        let contents = tokio::select! {
            contents = self.copy(start_lsn) => contents?,
            error = held.lost() => return Err(error),
        };
        let control = control::read(&self.ready.data_dir)?;
        let stopped = held.stop().await?;
        held.close().await;
        let stopped_at = self.clock.now();
        let (wal, wal_end) = self.wait_for_wal(start_lsn, &stopped).await?;
        let manifest = self.manifest(contents, control, stopped, stopped_at, wal, wal_end).await?;
        self.keyring_copy().await?;
        self.packs_are_there(&manifest).await?;
        lineage.require_open().await?;
        manifest::write_manifest(lineage, &manifest).await?;
        Ok(manifest)
    }

    fn intent(&self) -> Intent {
        Intent {
            backup: self.backup.clone(),
            base: None,
            started_at: self.started_at,
            host: rustix::system::uname().nodename().to_string_lossy().into_owned(),
            writer: self.destination.writer.clone(),
        }
    }

    /// The start of a backup is a checkpoint, which the server has written to its pg_control. If it is not in ours, ours is another's.
    fn same_directory(&self, start_lsn: Lsn) -> Result<(), BackupError> {
        let seen = control::read(&self.ready.data_dir)?;
        if seen.control.redo >= start_lsn {
            return Ok(());
        }
        Err(BackupError::Control {
            path: self.ready.data_dir.join("global/pg_control"),
            problem: format!("its checkpoint is {}, and the server's is {start_lsn}", seen.control.redo),
        })
    }

    async fn copy(&self, start_lsn: Lsn) -> Result<Contents, BackupError> {
        let ready = self.ready;
        let lineage = self.destination.lineage;
        let control = &ready.control.control;
        let pages = (control.data_checksums != 0).then_some(PageRules {
            page_bytes: control.block_size as usize,
            segment_blocks: control.relation_segment_blocks,
            start_lsn,
        });
        let copy = Copy {
            lineage: lineage.clone(),
            backup: self.backup.clone(),
            codec: self.destination.codec,
            extent_bytes: lineage.repository().info().extent_bytes,
            jobs: self.options.jobs,
            rules: ready.rules.clone(),
            outside: ready.outside.files.clone(),
            pages,
        };
        let progress = Progress::start("backup", ready.survey.bytes, self.options.quiet);
        let examined = relations::examine(self.config, ready.session, lineage, &self.backup);
        let (copied, (databases, relation_map)) = tokio::try_join!(pipeline::run(copy, &progress), examined)?;
        progress.finish();
        Ok(Contents { copied, databases, relation_map })
    }

    /// Waits for the WAL of the backup; what it is, and where the WAL ends that was seen.
    async fn wait_for_wal(&self, start_lsn: Lsn, stopped: &Stopped) -> Result<(WalRange, Lsn), BackupError> {
        let label = BackupLabel::parse(&stopped.label)
            .map_err(|error| BackupError::Answer { what: "backup_label", problem: error.to_string() })?;
        if label.start_lsn != start_lsn {
            let problem = format!("it begins at {}, and the backup at {start_lsn}", label.start_lsn);
            return Err(BackupError::Answer { what: "backup_label", problem });
        }
        let size = self.destination.lineage.record().wal_segment_bytes;
        let wal = WalRange {
            timeline: label.timeline,
            start_lsn,
            stop_lsn: stopped.lsn,
            first_segment: SegmentName::containing(label.timeline, start_lsn, size),
            last_segment: archived::holding(label.timeline, stopped.lsn, size),
            stop_time: stopped.time,
        };
        let why = "without which the backup cannot be restored";
        let wal_end = self.archived.wait(wal.first_segment, wal.last_segment, why).await?;
        if wal_end < wal.stop_lsn {
            let problem = format!("it ends at {wal_end}, before the backup's end at {}", wal.stop_lsn);
            return Err(BackupError::WalBroken(problem));
        }
        Ok((wal, wal_end))
    }

    async fn manifest(
        &self,
        contents: Contents,
        control: ControlRead,
        stopped: Stopped,
        stopped_at: jiff::Timestamp,
        wal: WalRange,
        wal_end: Lsn,
    ) -> Result<Manifest, BackupError> {
        let ready = self.ready;
        let lineage = self.destination.lineage;
        let keys = lineage.keys();
        let Contents { copied, databases, relation_map } = contents;
        let Copied { file_list, totals, stored } = copied;
        let (owner, data_directory_mode) = owner_of(&ready.data_dir)?;
        let mut counts = totals.counts;
        counts.stored_bytes = stored.bytes;
        counts.files += 1;
        counts.bytes += highwater_pitr::control::CONTROL_FILE_BYTES as u64;
        let mut manifest = Manifest {
            backup: self.backup.clone(),
            label: self.options.label.clone(),
            lineage: lineage.id(),
            tool: concat!("highwater ", env!("CARGO_PKG_VERSION")).to_owned(),
            source: Source::Local,
            started_at: self.started_at,
            stopped_at,
            wal,
            postgresql: self.postgres_info(&databases),
            control: control::into_copy(control, &ready.data_dir)?,
            backup_label: stopped.label,
            tablespaces: facts::tablespaces(ready.session, &totals, &stopped.tablespace_map).await?,
            tablespace_map: stopped.tablespace_map,
            databases,
            data_directory: text_of(&ready.data_dir),
            data_directory_mode,
            owner,
            pg_wal_target: ready.survey.wal_elsewhere.clone(),
            config_files: self.config_files(),
            left_out: self.left_out(),
            page_failures: Vec::new(),
            page_failure_count: totals.bad_page_count,
            counts,
            extent_bytes: lineage.repository().info().extent_bytes,
            packs: stored.packs,
            file_list,
            relation_map,
            previous: self.previous().await?,
            wal_end,
            keyring: KeyringRef {
                generation: keys.generation(),
                fingerprint: keys.fingerprint().to_string(),
            },
        };
        manifest.page_failures = relations::name_failures(lineage, &manifest, &totals).await?;
        Ok(manifest)
    }

    fn postgres_info(&self, databases: &[Database]) -> PostgresInfo {
        let control = &self.ready.control.control;
        PostgresInfo {
            major: self.destination.lineage.record().pg_major,
            version: self.ready.facts.version.clone(),
            system_identifier: self.ready.settings.system_identifier,
            catalog_version: control.catalog_version,
            control_version: control.control_version,
            block_bytes: control.block_size,
            relation_segment_blocks: control.relation_segment_blocks,
            wal_segment_bytes: control.segment_size,
            data_checksums: control.data_checksums != 0,
            settings: self.ready.facts.settings.clone(),
            libc: self.ready.facts.libc.clone().or_else(|| machine::libc(&self.ready.data_dir, databases)),
            icu: machine::icu(&self.ready.data_dir),
            login_preloads: self.ready.facts.login_preloads.clone(),
        }
    }

    fn config_files(&self) -> BTreeMap<String, String> {
        let places = &self.ready.facts.whereabouts;
        [
            ("config_file", &places.config_file),
            ("hba_file", &places.hba_file),
            ("ident_file", &places.ident_file),
        ]
        .into_iter()
        .map(|(name, path)| (name.to_owned(), path.clone()))
        .collect()
    }

    fn left_out(&self) -> Vec<LeftOut> {
        let both = self.ready.outside.left_out.iter().chain(&self.ready.survey.left_out);
        both.map(|(path, reason)| LeftOut { path: text_of(path), reason: reason.clone() }).collect()
    }

    /// The newest complete backup whose manifest can be read, and its digest (I9). One that was damaged in the store is no reason
    /// to have no new backup; it is told, and the next older one takes its place.
    async fn previous(&self) -> Result<Option<PreviousBackup>, BackupError> {
        let lineage = self.destination.lineage;
        let complete = manifest::list_backups(lineage).await?.complete;
        if let Some(newest) = complete.last().filter(|newest| newest.began_at() > Some(self.started_at)) {
            tracing::warn!(
                "backup {newest} was named by a clock ahead of this host's: one of the two is or was wrong; lists and restores follow \
                 the WAL and not such names"
            );
        }
        for backup in complete.into_iter().rev() {
            match lineage.read(ObjectKind::Manifest, &archive_names::backup_manifest(&backup)).await {
                Ok(plain) => {
                    return Ok(Some(PreviousBackup { digest: lineage.keys().digest(&plain), backup }));
                }
                Err(LineageError::Seal(error)) => tracing::warn!("backup {backup} is damaged: {error}"),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }

    async fn keyring_copy(&self) -> Result<(), BackupError> {
        let path = archive_names::backup_keyring(&self.backup);
        let body = vec![self.destination.wrapped_keyring.clone()];
        // Whatever is there under this backup's own name is what we wrote: the bytes are the same each time.
        let _created = self.destination.lineage.create_sealed(&path, body).await?;
        Ok(())
    }

    /// One last look before the commit (I22): every pack is in the repository, and they are as long as they were written.
    async fn packs_are_there(&self, manifest: &Manifest) -> Result<(), BackupError> {
        let packs = archive_names::packs_of(&self.backup);
        let listed = self.destination.lineage.list(&packs).await?;
        let bytes: u64 = listed.iter().map(|entry| entry.size).sum();
        let paths: HashSet<&str> = listed.iter().map(|entry| entry.path.as_str()).collect();
        let mut wanted = (0..manifest.packs).map(|number| archive_names::pack(&self.backup, number));
        if let Some(path) = wanted.find(|path| !paths.contains(path.as_str())) {
            return Err(BackupError::PackMissing { path });
        }
        if bytes != manifest.counts.stored_bytes {
            return Err(BackupError::PackMissing { path: packs });
        }
        Ok(())
    }
}

/// Who owns the directory, by name where the host has one, and its mode bits.
fn owner_of(directory: &Path) -> Result<(Owner, u32), BackupError> {
    let meta = std::fs::metadata(directory).map_err(|error| BackupError::unreadable(directory, error))?;
    let Account { name: user, uid, gid } = Account::of(meta.uid(), meta.gid());
    Ok((Owner { user, group: ownership::group_name(gid), uid, gid }, meta.mode() & 0o7777))
}

fn text_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
