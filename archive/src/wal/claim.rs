//! Who writes a timeline (I1): the first object of each, created before any other.
//!
//! Two copies of one backup share the system identifier and both choose the next timeline. Whoever claims it first, with
//! its writer id and the place where it forked, is the one whose WAL this archive holds; the other is told.

use highwater_pitr::lsn::Lsn;
use highwater_pitr::timeline::TimelineId;
use serde::{Deserialize, Serialize};

use crate::names::{self, WriterId};
use crate::racing::Published;
use crate::repository::lineage::{Lineage, LineageError, from_json, to_json};
use crate::seal::{Codec, ObjectKind};

/// The claim of a timeline. It holds no time, so that one writer's two attempts are the same content; the store knows when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// Who writes it.
    pub writer: WriterId,
    /// The timeline.
    pub timeline: TimelineId,
    /// The timeline that it forked from; none for the first.
    pub parent: Option<TimelineId>,
    /// Where it forked; 0/0 for the first.
    pub fork_lsn: Lsn,
}

/// The timeline is this writer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claimed {
    /// Since this call.
    New,
    /// Since before.
    Same,
}

/// The timeline is not this writer's.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another writer, or another fork, has claimed it.
    #[error(
        "timeline {} of this lineage belongs to writer {}, who forked it at {}; this is writer {} with a fork at {}",
        theirs.timeline, theirs.writer, theirs.fork_lsn, ours.writer, ours.fork_lsn
    )]
    Other {
        /// What was to be claimed.
        ours: Box<Claim>,
        /// What is claimed.
        theirs: Box<Claim>,
    },
    /// Store, seal, repository or lineage.
    #[error(transparent)]
    Lineage(#[from] LineageError),
}

impl ClaimError {
    /// Whether the repository needs a newer program, so that nothing was tried.
    pub fn is_too_new(&self) -> bool {
        matches!(self, Self::Lineage(error) if error.is_too_new())
    }

    /// What a person can do next, as one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Other { .. } => Some(
                "if this server is to be the cluster from now on, or is a copy of it, run `highwater adopt` here".into(),
            ),
            Self::Lineage(error) => error.hint(),
        }
    }

    /// Whether trying again cannot help until a person changes something.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Other { .. } => true,
            Self::Lineage(error) => error.is_permanent(),
        }
    }
}

/// Claims a timeline for a writer.
///
/// # Errors
/// [`ClaimError::Other`] with who has it.
pub async fn claim_timeline(
    lineage: &Lineage,
    writer: WriterId,
    timeline: TimelineId,
    parent: Option<TimelineId>,
    fork_lsn: Lsn,
) -> Result<Claimed, ClaimError> {
    let ours = Claim { writer, timeline, parent, fork_lsn };
    let path = names::wal_claim(timeline);
    let bytes = to_json(&path, &ours)?;
    match lineage.create_racing(ObjectKind::Claim, &path, Codec::None, &bytes).await? {
        Published::New => Ok(Claimed::New),
        Published::Exists(_) => match read_claim(lineage, timeline).await? {
            Some(theirs) if theirs == ours => Ok(Claimed::Same),
            Some(theirs) => Err(ClaimError::Other { ours: Box::new(ours), theirs: Box::new(theirs) }),
            None => {
                let reason = "it exists when written and not when read".to_owned();
                Err(LineageError::Malformed { path, reason }.into())
            }
        },
    }
}

/// Who has claimed a timeline; `None` when nobody has.
///
/// # Errors
/// [`LineageError`].
pub async fn read_claim(lineage: &Lineage, timeline: TimelineId) -> Result<Option<Claim>, LineageError> {
    let path = names::wal_claim(timeline);
    let bytes = lineage.read_racing(ObjectKind::Claim, &path).await?;
    bytes.map(|bytes| from_json(&path, &bytes)).transpose()
}
