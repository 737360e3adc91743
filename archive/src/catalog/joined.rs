//! Several repositories that hold the same lineage, seen as one.
//!
//! With `wal.required_repositories` below the number of repositories each may lack what another has, and `archive-get` asks
//! all of them. So a plan is made on the union of what they hold: a segment is there when one of them has it, and its index
//! is read from the first that has it whole. Where two contradict each other in how a timeline began, the first is believed
//! and the other's WAL of that timeline is left out: it belongs to another history.

use std::collections::BTreeMap;

use async_trait::async_trait;
use highwater_pitr::plan::{BackupPoint, Held, SegmentSet, TimelineWay};
use highwater_pitr::segment::SegmentName;
use highwater_pitr::timeline::TimelineId;

use super::ground::{Ground, IndexSource, Indexed};
use super::load::LineageIndexes;
use super::{Catalog, CatalogError};
use crate::repository::lineage::Lineage;

/// A lineage in one repository, and what it holds there.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'a> {
    /// The lineage.
    pub lineage: &'a Lineage,
    /// What it holds.
    pub catalog: &'a Catalog,
    /// Whether a restore may begin with a backup of this repository; its WAL serves in any case.
    pub gives_backups: bool,
}

/// The ground that all of them make together.
pub(super) fn join(holdings: &[Holding<'_>]) -> Option<Ground> {
    let first = holdings.first()?;
    let mut ground = Ground { points: Vec::new(), notes: Vec::new(), ..first.catalog.ground().clone() };
    ground.held = Held::new();
    ground.ways = Vec::new();
    let mut points: BTreeMap<String, BackupPoint> = BTreeMap::new();
    for holding in holdings {
        let (here, place) = (holding.catalog.ground(), holding.lineage.store().describe());
        for note in &here.notes {
            ground.notes.push(if holdings.len() > 1 { format!("{place}: {note}") } else { note.clone() });
        }
        for point in here.points.iter().filter(|_| holding.gives_backups) {
            points.entry(point.id.clone()).or_insert_with(|| point.clone());
        }
        let contradicted: Vec<TimelineId> =
            here.ways.iter().filter(|way| !add_way(&mut ground.ways, way)).map(|way| way.timeline).collect();
        for timeline in &contradicted {
            ground.notes.push(format!(
                "{place}: timeline {timeline} began elsewhere than in the repository asked before; its WAL there is left out"
            ));
        }
        for (timeline, segments) in here.held.iter().filter(|(held, _)| !contradicted.contains(held)) {
            let known = ground.held.entry(*timeline).or_default();
            let numbers = |set: &SegmentSet| set.runs().to_vec().into_iter().flatten();
            *known = SegmentSet::from_numbers(numbers(known).chain(numbers(segments)));
        }
    }
    ground.ways.sort_by_key(|way| way.timeline);
    ground.points = points.into_values().collect();
    Some(ground)
}

/// Adds the way to a timeline, or what is known better of it now; false when it contradicts what is known.
fn add_way(ways: &mut Vec<TimelineWay>, way: &TimelineWay) -> bool {
    let Some(known) = ways.iter_mut().find(|known| known.timeline == way.timeline) else {
        ways.push(way.clone());
        return true;
    };
    match (known.has_history, way.has_history) {
        (true, true) => known.ancestry == way.ancestry,
        (false, true) => {
            *known = way.clone();
            true
        }
        (_, false) => true,
    }
}

/// The indexes of all of them.
pub(super) struct JoinedIndexes<'a> {
    holdings: &'a [Holding<'a>],
}

impl<'a> JoinedIndexes<'a> {
    pub(super) fn new(holdings: &'a [Holding<'a>]) -> Self {
        Self { holdings }
    }
}

#[async_trait]
impl IndexSource for JoinedIndexes<'_> {
    async fn index(&self, segment: SegmentName) -> Result<Indexed, CatalogError> {
        let (mut hole, mut failure) = (None, None);
        for holding in self.holdings {
            let number = segment.number(holding.catalog.segment_size());
            if !holding.catalog.held().get(&segment.timeline).is_some_and(|held| held.contains(number)) {
                continue;
            }
            match LineageIndexes::new(holding.lineage).index(segment).await {
                Ok(Indexed::Index(index)) => return Ok(Indexed::Index(index)),
                Ok(found) => drop(hole.get_or_insert(found)),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        match (failure, hole) {
            (Some(error), _) => Err(error),
            (None, Some(hole)) => Ok(hole),
            (None, None) => Ok(Indexed::Hole("no repository holds it".to_owned())),
        }
    }
}
