//! The ground that plans are made on: backups, ways and WAL, without anything that is only shown.

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use highwater_pitr::index::SegmentIndex;
use highwater_pitr::plan::{BackupPoint, Held, TimelineWay};
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::timeline::Ancestry;

use super::CatalogError;

/// How many indexes are asked for at once. A request takes tens of milliseconds and brings a few kilobytes.
pub(super) const INDEXES_IN_FLIGHT: usize = 16;

/// Everything a plan depends on, but the indexes.
#[derive(Debug, Clone)]
pub(super) struct Ground {
    /// Complete backups, in any order.
    pub points: Vec<BackupPoint>,
    /// Timelines that the archive knows of.
    pub ways: Vec<TimelineWay>,
    /// Whole segments.
    pub held: Held,
    /// `wal_segment_size`.
    pub size: WalSegmentSize,
    /// What is broken, and so not among these: each a sentence that goes with every plan and every refusal.
    pub notes: Vec<String>,
}

impl Ground {
    /// The same as if this segment were not there.
    pub(super) fn without(&self, segment: SegmentName) -> Self {
        let mut ground = self.clone();
        if let Some(held) = ground.held.get_mut(&segment.timeline) {
            *held = held.without(segment.number(self.size));
        }
        ground
    }
}

/// What the archive knows of one segment's content.
#[derive(Debug, Clone)]
pub(super) enum Indexed {
    /// Its index.
    Index(Box<SegmentIndex>),
    /// It cannot be indexed, for this reason: a hole (I16).
    Hole(String),
}

/// Where indexes come from.
#[async_trait]
pub(super) trait IndexSource: Send + Sync {
    /// The index of a segment that was listed.
    ///
    /// # Errors
    ///
    /// The archive could not be asked. A segment that is there and cannot be indexed is a hole and no error.
    async fn index(&self, segment: SegmentName) -> Result<Indexed, CatalogError>;
}

/// The indexes of the segments `numbers` along `ancestry`, in that order, many asked for at once.
pub(super) fn indexes<'a>(
    source: &'a dyn IndexSource,
    ancestry: &'a Ancestry,
    size: WalSegmentSize,
    numbers: impl Iterator<Item = u64> + Send + 'a,
) -> BoxStream<'a, Result<(SegmentName, Indexed), CatalogError>> {
    let reads = numbers
        .map_while(move |number| {
            ancestry
                .timeline_for_segment(number, size)
                .map(|timeline| SegmentName::from_number(timeline, number, size))
        })
        .map(move |name| async move { Ok((name, source.index(name).await?)) });
    futures::stream::iter(reads).buffered(INDEXES_IN_FLIGHT).boxed()
}
