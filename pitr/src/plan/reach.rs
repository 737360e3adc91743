//! Which WAL is there without a gap, along the way to a timeline.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use serde::Serialize;

use super::BackupPoint;
use crate::segment::{SegmentName, WalSegmentSize};
use crate::timeline::{Ancestry, TimelineId};

/// Numbers of segments, kept as runs: an archive of years is mostly one run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SegmentSet {
    /// Sorted, apart from each other, never empty.
    runs: Vec<Range<u64>>,
}

impl SegmentSet {
    /// From numbers in any order.
    pub fn from_numbers(numbers: impl IntoIterator<Item = u64>) -> Self {
        let mut numbers: Vec<u64> = numbers.into_iter().collect();
        numbers.sort_unstable();
        let mut runs: Vec<Range<u64>> = Vec::new();
        for number in numbers {
            match runs.last_mut() {
                Some(run) if number < run.end => {}
                Some(run) if number == run.end => run.end = number.saturating_add(1),
                _ => runs.push(number..number.saturating_add(1)),
            }
        }
        Self { runs }
    }

    /// The same without `number`.
    #[must_use]
    pub fn without(&self, number: u64) -> Self {
        let pieces = self.runs.iter().flat_map(|run| {
            let before = run.start..run.end.min(number);
            let after = run.start.max(number.saturating_add(1))..run.end;
            [before, after]
        });
        Self { runs: pieces.filter(|run| !run.is_empty()).collect() }
    }

    /// Runs of neighbours, lowest first, each without its end.
    pub fn runs(&self) -> &[Range<u64>] {
        &self.runs
    }

    /// How many segments.
    pub fn len(&self) -> u64 {
        self.runs.iter().map(|run| run.end - run.start).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether `number` is there.
    pub fn contains(&self, number: u64) -> bool {
        self.run_of(number).is_some()
    }

    /// The first number at or after `number` that is not there.
    pub fn first_missing(&self, number: u64) -> u64 {
        self.run_of(number).map_or(number, |run| run.end)
    }

    /// The first number at or after `number` that is there.
    pub fn first_present(&self, number: u64) -> Option<u64> {
        let after = self.runs.partition_point(|run| run.end <= number);
        self.runs.get(after).map(|run| run.start.max(number))
    }

    fn run_of(&self, number: u64) -> Option<&Range<u64>> {
        let after = self.runs.partition_point(|run| run.end <= number);
        self.runs.get(after).filter(|run| run.start <= number)
    }
}

/// The whole segments an archive holds, by timeline.
pub type Held = BTreeMap<TimelineId, SegmentSet>;

/// Segments that are missing although newer ones on the same way are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Gap {
    /// The first one missing.
    pub first: SegmentName,
    /// The last one missing.
    pub last: SegmentName,
    /// How many.
    pub segments: u64,
}

impl Gap {
    /// The segments `first` to `last`, by the names that recovery asks for along `ancestry`. `None` when that is no stretch.
    pub fn between(ancestry: &Ancestry, size: WalSegmentSize, first: u64, last: u64) -> Option<Self> {
        let name = |number| {
            let timeline = ancestry.timeline_for_segment(number, size)?;
            Some(SegmentName::from_number(timeline, number, size))
        };
        let segments = last.checked_sub(first)?.saturating_add(1);
        Some(Self { first: name(first)?, last: name(last)?, segments })
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.segments {
            1 => write!(f, "segment {}", self.first),
            many => write!(f, "{many} segments, {} to {}", self.first, self.last),
        }
    }
}

/// How far gapless WAL reaches on the way to a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reach {
    /// The segments that are there: from the first wanted up to, not with, the first that is missing.
    pub segments: Range<u64>,
    /// What is missing behind them, when there is more WAL behind that.
    pub gap: Option<Gap>,
}

impl Reach {
    /// How far WAL reaches from segment `first` on along `ancestry`. Each segment counts only under the name that
    /// recovery asks for first there: a parent's segment in which the child begins holds WAL that never happened here.
    pub fn along(ancestry: &Ancestry, held: &Held, size: WalSegmentSize, first: u64) -> Self {
        let stretches = Stretches::new(ancestry, held, size);
        let end = stretches.first_missing(first);
        let next = stretches.first_present(end);
        let gap = next.and_then(|next| Gap::between(ancestry, size, end, next.saturating_sub(1)));
        Self { segments: first..end, gap }
    }

    /// What is missing behind these segments: that there was more is shown by newer WAL, or by a backup among `points` that
    /// ends behind them.
    pub fn missing_behind(
        &self,
        ancestry: &Ancestry,
        points: &[BackupPoint],
        size: WalSegmentSize,
    ) -> Option<Gap> {
        let on_way = points.iter().filter(|point| point.is_on(ancestry));
        let newest = || on_way.map(|point| point.last_segment(size)).max();
        self.gap.or_else(|| Gap::between(ancestry, size, self.segments.end, newest()?))
    }
}

/// The ancestry cut into stretches of segments, each looked up under one timeline's name.
struct Stretches<'a> {
    parts: Vec<(Range<u64>, Option<&'a SegmentSet>)>,
}

impl<'a> Stretches<'a> {
    fn new(ancestry: &Ancestry, held: &'a Held, size: WalSegmentSize) -> Self {
        let mut parts: Vec<(Range<u64>, Option<&'a SegmentSet>)> = Vec::new();
        let mut end = u64::MAX;
        for span in ancestry.spans().iter().rev() {
            let begin = span.begin.as_u64() / size.bytes();
            // A timeline that was left within the segment it began in never names a segment on this way.
            if begin < end {
                parts.push((begin..end, held.get(&span.timeline)));
                end = begin;
            }
        }
        parts.reverse();
        Self { parts }
    }

    fn first_missing(&self, mut number: u64) -> u64 {
        for (range, set) in &self.parts {
            if range.contains(&number) {
                let missing = set.map_or(number, |set| set.first_missing(number)).min(range.end);
                if missing < range.end {
                    return missing;
                }
                number = missing;
            }
        }
        number
    }

    fn first_present(&self, number: u64) -> Option<u64> {
        self.parts.iter().find_map(|(range, set)| {
            let from = number.max(range.start);
            (*set)?.first_present(from).filter(|present| *present < range.end && from < range.end)
        })
    }
}
