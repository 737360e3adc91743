//! One file of WAL into the repositories: what `archive-push` does.
//!
//! The file is read once, while the repositories are opened. For each of them, all at the same time: the repository, the keyring and the
//! lineage that this data directory writes are opened and compared with what was pinned; the lineage must not have ended; the file's timeline must be
//! this writer's, and is claimed if it is nobody's (I1); then the file is put if absent and compared where it is present (I2).
//! It counts as archived when as many repositories hold it as `wal.required_repositories` says (I11); once they do, the
//! others get a moment more and no longer hold anybody up. One that did not use that moment gets hardly any the next
//! times ([`Silence`]). While too few hold the file, every one is waited for.

mod claims;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use highwater_archive::lineage::Lineage;
use highwater_archive::repository::objects_to_write;
use highwater_archive::seal::Codec;
use highwater_archive::wal::{self, Stored, WalBytes};
use highwater_pitr::segment::WalFile;
use jiff::Timestamp;
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::{self, Config, RepositoryConfig};
use crate::host_state::HostState;
use crate::report;
use crate::repositories::OpenRepository;
use crate::silence::Silence;

/// How long repositories beyond the required number are waited for.
const GRACE: Duration = Duration::from_secs(5);

/// How long at least those are that were silent a moment ago; at most they get as long again as the required ones took.
const SHORT_GRACE: Duration = Duration::from_millis(250);

/// The largest `wal_segment_size`.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A file of WAL to be archived.
pub struct WalSource {
    /// Where it lies.
    path: PathBuf,
    /// Its name, parsed.
    pub file: WalFile,
    /// What was read, once it was.
    read: OnceCell<Read>,
}

/// What there is to know of a file.
struct Read {
    /// Its content.
    bytes: WalBytes,
    /// What `pg_wal` says about its timeline.
    origin: claims::Origin,
}

impl WalSource {
    /// A file below `pg_wal`.
    ///
    /// # Errors
    ///
    /// A name that PostgreSQL does not archive.
    pub fn new(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let file: WalFile = name.parse().with_context(|| format!("cannot archive {}", path.display()))?;
        Ok(Self { path: path.to_owned(), file, read: OnceCell::new() })
    }

    /// What the file holds, read when the first asks for it. A file that cannot be read or is larger than any segment is an error.
    async fn read(&self) -> anyhow::Result<&Read> {
        self.read
            .get_or_try_init(|| async {
                let (path, file) = (self.path.clone(), self.file);
                let cannot_read = || format!("cannot read {}", self.path.display());
                let read = tokio::task::spawn_blocking(move || Read::now(&path, file));
                read.await.map_err(anyhow::Error::from).and_then(|read| read).with_context(cannot_read)
            })
            .await
    }
}

impl Read {
    fn now(path: &Path, file: WalFile) -> anyhow::Result<Self> {
        use std::io::Read as _;
        let mut open = std::fs::File::open(path)?;
        let metadata = open.metadata()?;
        if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
            anyhow::bail!("it is not a file of WAL");
        }
        // PostgreSQL no longer changes it.
        let mut bytes = WalBytes::zeroed(usize::try_from(metadata.len())?);
        open.read_exact(bytes.make_mut())?;
        let origin = claims::Origin::read(path, file, &bytes)?;
        Ok(Self { bytes, origin })
    }
}

/// What became of a file in one repository.
pub struct Outcome {
    /// The repository's name in the configuration.
    pub repository: String,
    /// How it is held, or why it is not.
    pub held: anyhow::Result<Stored>,
}

/// Puts a file into the repositories.
///
/// Succeeds when enough of them hold it; the outcomes say which do not.
///
/// # Errors
///
/// Too few hold it, or `deadline` has passed: the error says why for each.
pub async fn push(
    config: &Config,
    state: &HostState,
    data_dir: &Path,
    source: &WalSource,
    deadline: Duration,
    now: Timestamp,
) -> anyhow::Result<Vec<Outcome>> {
    let required = config.required_repositories.count(config.repositories.len());
    let silences = Silences::read(config, data_dir, now);
    let mut running: FuturesUnordered<_> = config
        .repositories
        .iter()
        .map(async |repository| {
            let held = async {
                let (lineage, read) =
                    tokio::join!(open(repository, config, state, source.file), source.read());
                let (lineage, Read { bytes, origin }) = (lineage?, read?);
                let put = async {
                    claims::claim(&lineage, state, data_dir, source.file, origin).await?;
                    put(&lineage, source.file, bytes.clone(), repository.codec).await
                };
                put.await.with_context(|| format!("repository {}", repository.name))
            };
            Outcome { repository: repository.name.clone(), held: held.await }
        })
        .collect();
    let mut outcomes = Vec::new();
    let begun = Instant::now();
    let mut until = begun + deadline;
    // When enough of them held it.
    let mut enough: Option<Instant> = None;
    while let Ok(Some(outcome)) = tokio::time::timeout_at(until, running.next()).await {
        outcomes.push(outcome);
        if enough.is_none() && held_by(&outcomes) >= required {
            enough = Some(Instant::now());
        }
        if let Some(enough) = enough {
            let only_silent =
                names(config).filter(|name| !answered(&outcomes, name)).all(|name| silences.is_quiet(name));
            let grace = if only_silent { (enough - begun).clamp(SHORT_GRACE, GRACE) } else { GRACE };
            until = (begun + deadline).min(enough + grace);
        }
    }
    drop(running);
    names(config).filter(|name| answered(&outcomes, name)).for_each(|name| silences.forget(name));
    let late: Vec<_> = names(config).filter(|name| !answered(&outcomes, name)).collect();
    for name in late {
        let held = Err(silences.late(name, enough.is_some()));
        outcomes.push(Outcome { repository: name.to_owned(), held });
    }
    if held_by(&outcomes) >= required { Ok(outcomes) } else { Err(too_few(outcomes, required)) }
}

fn names(config: &Config) -> impl Iterator<Item = &str> {
    config.repositories.iter().map(|repository| repository.name.as_str())
}

fn answered(outcomes: &[Outcome], name: &str) -> bool {
    outcomes.iter().any(|outcome| outcome.repository == name)
}

/// Which repositories have been silent.
struct Silences<'a> {
    data_dir: &'a Path,
    now: Timestamp,
    /// Where there is only one repository it is always waited for.
    several: bool,
    known: BTreeMap<&'a str, Silence>,
}

impl<'a> Silences<'a> {
    fn read(config: &'a Config, data_dir: &'a Path, now: Timestamp) -> Self {
        let several = config.repositories.len() > 1;
        let known = names(config).filter(|_| several);
        let known = known.filter_map(|name| Some((name, Silence::of(data_dir, name)?))).collect();
        Self { data_dir, now, several, known }
    }

    /// Whether a repository was silent a moment ago.
    fn is_quiet(&self, name: &str) -> bool {
        self.known.get(name).is_some_and(|silence| silence.until(self.now).is_some())
    }

    fn forget(&self, name: &str) {
        if self.known.contains_key(name) {
            Silence::forget(self.data_dir, name);
        }
    }

    /// What is said of a repository that did not answer; `others_sufficed`, so that it may hardly have been waited for.
    fn late(&self, name: &str, others_sufficed: bool) -> anyhow::Error {
        let known = self.known.get(name).filter(|_| others_sufficed);
        let said = match known.and_then(|silence| Some((silence.since, silence.until(self.now)?))) {
            Some((since, until)) => format!(
                "repository {name} has not answered since {since:.0}, and is not waited for until {until:.0}"
            ),
            None => {
                if self.several {
                    Silence::remember(self.data_dir, name, self.now);
                }
                let command = match config::is_command_running() {
                    true => ", and a command that is to print a secret still runs",
                    false => "",
                };
                format!("repository {name} did not answer in time{command}")
            }
        };
        match others_sufficed {
            true => report::failed(
                said,
                "see whether its storage hangs; highwater check tells which WAL it lacks",
            ),
            false => anyhow::Error::msg(said),
        }
    }
}

/// The lineage that this data directory writes, which has not ended.
async fn open(
    repository: &RepositoryConfig,
    config: &Config,
    state: &HostState,
    file: WalFile,
) -> anyhow::Result<Lineage> {
    let mut wanted = objects_to_write(&config.cluster, state.lineage);
    wanted.extend(claims::object_to_read(&config.cluster, state.lineage, file.timeline()));
    let open = OpenRepository::open_for(repository, &config.cluster, Some(state), wanted).await?;
    let lineage = open.lineage_of(state).await?;
    lineage.require_open().await.with_context(|| format!("repository {}", repository.name))?;
    Ok(lineage)
}

fn held_by(outcomes: &[Outcome]) -> usize {
    outcomes.iter().filter(|outcome| outcome.held.is_ok()).count()
}

/// One error out of those of several repositories.
fn too_few(outcomes: Vec<Outcome>, required: usize) -> anyhow::Error {
    let (held, all) = (held_by(&outcomes), outcomes.len());
    let mut errors: Vec<anyhow::Error> =
        outcomes.into_iter().filter_map(|outcome| outcome.held.err()).collect();
    if all == 1
        && let Some(only) = errors.pop()
    {
        return only;
    }
    let mut reasons: Vec<String> = errors.iter().map(report::message).collect();
    reasons.dedup();
    let hint = errors.iter().find_map(report::hint);
    let hint = hint.unwrap_or_else(|| "wal.required_repositories says how many must hold WAL".to_owned());
    report::failed(
        format!("held by {held} of {all} repositories, {required} required: {}", reasons.join("; ")),
        hint,
    )
}

async fn put(lineage: &Lineage, file: WalFile, bytes: WalBytes, codec: Codec) -> anyhow::Result<Stored> {
    Ok(match file {
        WalFile::Segment(segment) => wal::put_segment(lineage, segment, bytes, codec).await?,
        WalFile::Partial(segment) => wal::put_partial(lineage, segment, bytes, codec).await?,
        WalFile::Backup { .. } | WalFile::History(_) => wal::put_small(lineage, file, &bytes).await?,
    })
}
