//! One file of WAL into the repositories: what `archive-push` does.
//!
//! The file is read once. For each repository, all at the same time: the repository, the keyring and the lineage that this data
//! directory writes are opened and compared with what was pinned; the lineage must not have ended; the file's timeline must be
//! this writer's, and is claimed if it is nobody's (I1); then the file is put if absent and compared where it is present (I2).
//! It counts as archived when as many repositories hold it as `wal.required_repositories` says (I11); once they do, the
//! others get a moment more and no longer hold anybody up.

mod claims;

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use highwater_archive::lineage::Lineage;
use highwater_archive::seal::Codec;
use highwater_archive::wal::{self, Stored};
use highwater_pitr::segment::WalFile;

use crate::config::Config;
use crate::host_state::HostState;
use crate::report;
use crate::repositories::OpenRepository;

/// How long repositories beyond the required number are waited for.
const GRACE: Duration = Duration::from_secs(5);

/// The largest `wal_segment_size`.
const MAX_FILE_BYTES: u64 = 1 << 30;

/// A file of this length is read by two threads.
const TWO_READERS_BYTES: usize = 1 << 20;

/// A file of WAL to be archived.
pub struct WalSource {
    /// Its name, parsed.
    pub file: WalFile,
    /// Its content.
    bytes: Vec<u8>,
    /// What `pg_wal` says about its timeline.
    origin: claims::Origin,
}

impl WalSource {
    /// Reads a file below `pg_wal`.
    ///
    /// # Errors
    ///
    /// A name that PostgreSQL does not archive; a file that cannot be read or is larger than any segment.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let file: WalFile = name.parse().with_context(|| format!("cannot archive {}", path.display()))?;
        let cannot_read = || format!("cannot read {}", path.display());
        let bytes = read_whole(path, std::thread::Builder::new()).with_context(cannot_read)?;
        let origin = claims::Origin::read(path, file, &bytes)?;
        Ok(Self { file, bytes, origin })
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
    source: WalSource,
    deadline: Duration,
) -> anyhow::Result<Vec<Outcome>> {
    let required = config.required_repositories.count(config.repositories.len());
    // The usual single repository takes the bytes as they were read; each further one gets a copy.
    let WalSource { file, bytes, origin } = source;
    let copies = std::iter::repeat_n(bytes, config.repositories.len());
    let mut running: FuturesUnordered<_> = config
        .repositories
        .iter()
        .zip(copies)
        .map(|(repository, bytes)| {
            let origin = &origin;
            async move {
                let held = async {
                    let open = OpenRepository::open_for(repository, &config.cluster, Some(state)).await?;
                    let lineage = open.lineage_of(state).await?;
                    let put = async {
                        lineage.require_open().await?;
                        claims::claim(&lineage, state, data_dir, file, origin).await?;
                        put(&lineage, file, bytes, repository.codec).await
                    };
                    put.await.with_context(|| format!("repository {}", repository.name))
                };
                Outcome { repository: repository.name.clone(), held: held.await }
            }
        })
        .collect();
    let mut outcomes = Vec::new();
    let mut until = tokio::time::Instant::now() + deadline;
    while let Ok(Some(outcome)) = tokio::time::timeout_at(until, running.next()).await {
        outcomes.push(outcome);
        if held_by(&outcomes) == required {
            until = until.min(tokio::time::Instant::now() + GRACE);
        }
    }
    drop(running);
    for repository in &config.repositories {
        if !outcomes.iter().any(|outcome| outcome.repository == repository.name) {
            let late = anyhow::anyhow!("repository {} did not answer in time", repository.name);
            outcomes.push(Outcome { repository: repository.name.clone(), held: Err(late) });
        }
    }
    if held_by(&outcomes) >= required { Ok(outcomes) } else { Err(too_few(outcomes, required)) }
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
    let reasons: Vec<String> = errors.iter().map(report::message).collect();
    let hint = errors.iter().find_map(report::hint);
    let hint = hint.unwrap_or_else(|| "wal.required_repositories says how many must hold WAL".to_owned());
    report::failed(
        format!("held by {held} of {all} repositories, {required} required: {}", reasons.join("; ")),
        hint,
    )
}

async fn put(lineage: &Lineage, file: WalFile, bytes: Vec<u8>, codec: Codec) -> anyhow::Result<Stored> {
    Ok(match file {
        WalFile::Segment(segment) => wal::put_segment(lineage, segment, bytes, codec).await?,
        WalFile::Partial(segment) => wal::put_partial(lineage, segment, bytes, codec).await?,
        WalFile::Backup { .. } | WalFile::History(_) => wal::put_small(lineage, file, &bytes).await?,
    })
}

/// Reads a file that may still be looked at by others, but no longer changes. A segment is read by two threads: most of the
/// time goes into memory that the process touches for the first time.
fn read_whole(path: &Path, helper: std::thread::Builder) -> anyhow::Result<Vec<u8>> {
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        anyhow::bail!("it is not a file of WAL");
    }
    let mut bytes = vec![0; usize::try_from(metadata.len())?];
    let alone = bytes.len() < TWO_READERS_BYTES;
    let half = if alone { bytes.len() } else { bytes.len() / 2 };
    let helped = {
        let (first, second) = bytes.split_at_mut(half);
        let file = &file;
        std::thread::scope(|scope| -> std::io::Result<bool> {
            let read_second = move || file.read_exact_at(second, half as u64);
            let helper = if alone { None } else { helper.spawn_scoped(scope, read_second).ok() };
            file.read_exact_at(first, 0)?;
            let ended = || std::io::Error::other("a thread ended unexpectedly");
            let read = helper.map(|helper| helper.join().unwrap_or_else(|_| Err(ended())));
            read.transpose().map(|read| read.is_some())
        })?
    };
    // A thread that cannot be started is one that does not help, as where the host limits them.
    if !helped && let Some(second) = bytes.get_mut(half..) {
        file.read_exact_at(second, half as u64)?;
    }
    Ok(bytes)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::disallowed_methods)]
mod tests {
    use super::*;

    /// A stack that no memory is there for stands for a limit on threads: the file is whole also where no second one starts.
    #[test]
    fn a_file_is_read_whole_with_and_without_a_second_thread() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("segment");
        let alone = || std::thread::Builder::new().stack_size(1 << 60);
        assert!(alone().spawn(|| ()).is_err());
        for length in [0, 1, TWO_READERS_BYTES - 1, TWO_READERS_BYTES, TWO_READERS_BYTES + 4097] {
            let content: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
            std::fs::write(&path, &content).unwrap();
            assert!(read_whole(&path, std::thread::Builder::new()).unwrap() == content, "{length} bytes");
            assert!(read_whole(&path, alone()).unwrap() == content, "{length} bytes, one thread");
        }
    }
}
