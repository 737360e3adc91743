//! What the repositories hold of the lineage that this data directory writes: nothing that was there is gone (I9), nothing is damaged, and no
//! WAL is missing that the newest backup leads on through.
//!
//! PostgreSQL archives one segment after the other, so between two that are there, none may be missing. A list takes time and
//! segments arrive meanwhile, some of which it may show without those before them; what is missing is therefore looked for a second time.
//! With several repositories each may lack what another has, and a restore asks them all: that is said, and fails nothing. What is missing
//! before the newest backup costs the moments in between and can be had no more; what is missing behind it makes all that
//! is archived from then on worthless, until there is a newer backup.

use std::path::Path;

use highwater_archive::catalog::{Catalog, CatalogError, gaps_within};
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::BackupId;
use highwater_pitr::plan::{Gap, Held, SegmentSet};
use highwater_pitr::segment::WalSegmentSize;
use highwater_pitr::timeline::TimelineId;

use super::Findings;
use crate::host_state::newest::{Newest, went_back};
use crate::repositories::attended;

/// The most stretches of missing WAL that are named.
const MOST_NAMED: usize = 3;

/// Looks into each repository that can be used, and judges what all of them hold together.
pub async fn check(lineages: &[(String, Lineage)], data_dir: &Path, findings: &mut Findings) {
    let mut looks = Vec::new();
    for (repository, lineage) in lineages {
        let look = async { anyhow::Ok(Look::at(lineage, data_dir).await?) };
        match attended(lineage.repository(), look).await {
            Ok(look) => looks.push((repository, look)),
            Err(error) => findings.error(format!("WAL of {repository}"), error),
        }
    }
    let everywhere = together(looks.iter().map(|(_, look)| &look.held));
    for (repository, look) in &looks {
        look.tell(repository, &everywhere, findings);
    }
}

/// What one repository holds.
struct Look {
    catalog: Catalog,
    /// The segments of both looks.
    held: Held,
    /// What this host has made there, and is gone.
    gone: Option<BackupId>,
}

impl Look {
    async fn at(lineage: &Lineage, data_dir: &Path) -> Result<Self, CatalogError> {
        let catalog = Catalog::load(lineage).await?;
        let lacks = !gaps(catalog.held(), catalog.segment_size()).is_empty()
            || catalog.backups.iter().any(|backup| !backup.missing_wal.is_empty());
        let held = match lacks {
            true => together([catalog.held(), Catalog::load(lineage).await?.held()].into_iter()),
            false => catalog.held().clone(),
        };
        let gone = Newest::of(data_dir, lineage).gone(lineage).await?;
        Ok(Self { catalog, held, gone })
    }

    fn tell(&self, repository: &str, everywhere: &Held, findings: &mut Findings) {
        if let Some(backup) = &self.gone {
            let (message, hint) = went_back(backup);
            findings.failed(format!("history of {repository}"), message, hint);
        }
        if let Some(first) = self.catalog.broken.first() {
            let more = match self.catalog.broken.len() {
                1 => String::new(),
                many => format!(", and {} more", many - 1),
            };
            findings.failed(
                format!("objects of {repository}"),
                format!("{}: {}{more}", first.path, first.reason),
                "highwater list names all that is broken and what it costs; take it from another copy of the repository",
            );
        }
        let missing = Missing::of(self.gaps(), self.begins(), everywhere, self.catalog.segment_size());
        let what = format!("WAL of {repository}");
        match missing.needed.is_empty() {
            true => findings.ok(what, self.summary()),
            false => findings.failed(
                what,
                format!("{} missing, and the newest backup leads through it", named(&missing.needed)),
                "what was archived behind it cannot be restored: run highwater backup now, and find out what became of it (the \
                 storage, or an archive_command that was another one for a while)",
            ),
        }
        if !missing.past.is_empty() {
            findings.note(
                format!("earlier WAL of {repository}"),
                format!("{} missing: no moment in it can be restored", named(&missing.past)),
            );
        }
        if !missing.elsewhere.is_empty() {
            findings.note(
                format!("WAL not in {repository}"),
                format!("{} held by another repository alone", named(&missing.elsewhere)),
            );
        }
    }

    /// What neither look has found: between segments, and of what the newest backup needs to be whole.
    fn gaps(&self) -> Vec<Gap> {
        let size = self.catalog.segment_size();
        let mut all = gaps(&self.held, size);
        for gap in self.catalog.backups.last().iter().flat_map(|newest| &newest.missing_wal) {
            if !all.contains(gap) && !holds(&self.held, gap, size) {
                all.push(*gap);
            }
        }
        all
    }

    /// Where the newest backup begins.
    fn begins(&self) -> Option<(TimelineId, u64)> {
        let point = &self.catalog.backups.last()?.point;
        Some((point.timeline, point.first_segment(self.catalog.segment_size())))
    }

    fn summary(&self) -> String {
        let segments: u64 = self.held.values().map(SegmentSet::len).sum();
        let newest = match self.catalog.backups.last() {
            Some(backup) => format!("the newest backup is {}", backup.id),
            None => "there is no backup yet".to_owned(),
        };
        format!("{segments} segments; {newest}")
    }
}

/// The WAL that a repository lacks.
#[derive(Debug, Default, PartialEq, Eq)]
struct Missing {
    /// No repository has it, and what follows needs it.
    needed: Vec<Gap>,
    /// No repository has it; the newest backup begins later.
    past: Vec<Gap>,
    /// Another repository has it.
    elsewhere: Vec<Gap>,
}

impl Missing {
    fn of(
        gaps: Vec<Gap>,
        begins: Option<(TimelineId, u64)>,
        everywhere: &Held,
        size: WalSegmentSize,
    ) -> Self {
        let mut missing = Self::default();
        for gap in gaps {
            let is_needed = begins.is_some_and(|(timeline, first)| {
                gap.first.timeline >= timeline && gap.last.number(size) >= first
            });
            let kind = match (holds(everywhere, &gap, size), is_needed) {
                (true, _) => &mut missing.elsewhere,
                (false, true) => &mut missing.needed,
                (false, false) => &mut missing.past,
            };
            kind.push(gap);
        }
        missing
    }
}

/// What is missing between the segments of each timeline.
fn gaps(held: &Held, size: WalSegmentSize) -> Vec<Gap> {
    held.iter().flat_map(|(timeline, segments)| gaps_within(*timeline, segments, size)).collect()
}

fn holds(held: &Held, gap: &Gap, size: WalSegmentSize) -> bool {
    let segments = held.get(&gap.first.timeline);
    segments.is_some_and(|segments| segments.first_missing(gap.first.number(size)) > gap.last.number(size))
}

fn together<'a>(all: impl Iterator<Item = &'a Held>) -> Held {
    let mut joined = Held::new();
    for (timeline, segments) in all.flatten() {
        let known: &mut SegmentSet = joined.entry(*timeline).or_default();
        let numbers = |set: &SegmentSet| set.runs().to_vec().into_iter().flatten();
        *known = SegmentSet::from_numbers(numbers(known).chain(numbers(segments)));
    }
    joined
}

/// The stretches in words, with the verb that belongs to them.
fn named(gaps: &[Gap]) -> String {
    let mut words: Vec<String> = gaps.iter().take(MOST_NAMED).map(Gap::to_string).collect();
    if gaps.len() > MOST_NAMED {
        words.push(format!("{} other stretches", gaps.len() - MOST_NAMED));
    }
    let segments: u64 = gaps.iter().map(|gap| gap.segments).sum();
    format!("{} {}", words.join("; "), if segments == 1 { "is" } else { "are" })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn held(timelines: &[(u32, &[u64])]) -> Held {
        let of = |numbers: &[u64]| SegmentSet::from_numbers(numbers.iter().copied());
        timelines.iter().map(|(id, numbers)| (TimelineId::new(*id).unwrap(), of(numbers))).collect()
    }

    /// Only what no repository has and the newest backup leads through is a failure; whatever a second look has found is nothing.
    #[test]
    fn missing_wal_is_judged_by_what_needs_it() {
        let size = WalSegmentSize::DEFAULT;
        let here = held(&[(1, &[1, 2, 4, 5, 8, 9]), (2, &[9, 11])]);
        let names = |gaps: &[Gap]| gaps.iter().map(|gap| gap.to_string()).collect::<Vec<_>>();
        let [first, second, third] = [
            "segment 000000010000000000000003",
            "2 segments, 000000010000000000000006 to 000000010000000000000007",
            "segment 00000002000000000000000A",
        ];
        assert_eq!(names(&gaps(&here, size)), [first, second, third]);
        let judged = |begins: Option<(u32, u64)>, everywhere: &Held| {
            let begins = begins.map(|(id, first)| (TimelineId::new(id).unwrap(), first));
            let missing = Missing::of(gaps(&here, size), begins, everywhere, size);
            [missing.needed, missing.past, missing.elsewhere].map(|gaps| names(&gaps))
        };
        assert_eq!(judged(None, &here), [vec![], vec![first, second, third], vec![]]);
        assert_eq!(judged(Some((1, 4)), &here), [vec![second, third], vec![first], vec![]]);
        assert_eq!(judged(Some((2, 11)), &here), [vec![], vec![first, second, third], vec![]]);
        // Half of a stretch is not the stretch.
        let other = held(&[(1, &[3, 6]), (2, &[10])]);
        let everywhere = together([&here, &other].into_iter());
        assert_eq!(judged(Some((1, 1)), &everywhere), [vec![second], vec![], vec![first, third]]);
        let later = together([&here, &held(&[(1, &[3, 6, 7]), (2, &[10])])].into_iter());
        assert!(gaps(&later, size).is_empty());
    }

    #[test]
    fn what_is_missing_is_named_and_counted() {
        let size = WalSegmentSize::DEFAULT;
        let one = gaps(&held(&[(1, &[1, 3])]), size);
        assert_eq!(named(&one), "segment 000000010000000000000002 is");
        let many = gaps(&held(&[(1, &[1, 3, 5, 7, 9, 11])]), size);
        assert!(named(&many).ends_with("; segment 000000010000000000000006; 2 other stretches are"));
    }
}
