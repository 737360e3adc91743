//! What the repositories hold of the lineage that this data directory writes: nothing that was there is gone (I9), nothing is damaged, and no
//! WAL is missing that the newest backup leads on through.
//!
//! PostgreSQL archives one segment after the other, so between two that are there, none may be missing. A list takes time and
//! segments arrive meanwhile, some of which it may show without those before them; what is missing is therefore looked for a second time.
//! The newest backup is the one nearest to the end of the newest timeline that has WAL and follows from a backup; timelines that were left behind
//! (a recovery to an earlier moment) need nothing any more.
//! With several repositories each may lack what another has, and a restore asks them all: that is said, and fails nothing. What is missing
//! before the newest backup costs the moments in between and can be had no more; what is missing behind it makes all that
//! is archived from then on worthless, until there is a newer backup.

use std::path::Path;

use highwater_archive::catalog::{BackupEntry, Catalog, CatalogError, gaps_within};
use highwater_archive::lineage::Lineage;
use highwater_archive::manifest::BackupId;
use highwater_pitr::plan::{Gap, Held, Reach, SegmentSet, TimelineWay};
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::timeline::Ancestry;

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
        let mut look = Self { held: catalog.held().clone(), catalog, gone: None };
        let lacks = look.lacks();
        if !(lacks.needed.is_empty() && lacks.unneeded.is_empty()) {
            look.held = together([&look.held, Catalog::load(lineage).await?.held()].into_iter());
        }
        look.gone = Newest::of(data_dir, lineage).gone(lineage).await?;
        Ok(look)
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
        let missing = Missing::of(self.lacks(), everywhere, self.catalog.segment_size());
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

    /// What neither look has found. Only where the first has seen a hole is one: of what has arrived since, the second may have seen a
    /// part.
    fn lacks(&self) -> Lacks {
        let size = self.catalog.segment_size();
        let newest = self.newest();
        let way = newest.and_then(|(way, backup)| Some((&way?.ancestry, backup.point.first_segment(size))));
        let own = newest.iter().flat_map(|(_, backup)| backup.missing_wal.iter().copied());
        let mut lacks = Lacks::of(self.catalog.held(), way, own.collect(), size);
        let found = |gap: &Gap| holds(&self.held, gap, size);
        lacks.needed.retain(|gap| !found(gap));
        lacks.unneeded.retain(|gap| !found(gap));
        lacks
    }

    /// The newest backup, and the way on from it where there is WAL of it.
    fn newest(&self) -> Option<(Option<&TimelineWay>, &BackupEntry)> {
        let held = self.catalog.held();
        let ways = self.catalog.ways().iter().rev();
        let with_wal = ways.filter(|way| held.get(&way.timeline).is_some_and(|held| !held.is_empty()));
        let with_backup = with_wal.filter_map(|way| {
            let mut on_way = self.catalog.backups.iter().filter(|backup| backup.point.is_on(&way.ancestry));
            Some((Some(way), on_way.next_back()?))
        });
        with_backup.chain(self.catalog.backups.last().map(|backup| (None, backup))).next()
    }

    fn summary(&self) -> String {
        let segments: u64 = self.held.values().map(SegmentSet::len).sum();
        let newest = match self.newest() {
            Some((_, backup)) => format!("the newest backup is {}", backup.id),
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
    fn of(lacks: Lacks, everywhere: &Held, size: WalSegmentSize) -> Self {
        let elsewhere = |gap: &Gap| holds(everywhere, gap, size);
        let (mut here, needed) = lacks.needed.into_iter().partition::<Vec<_>, _>(elsewhere);
        let (unneeded, past) = lacks.unneeded.into_iter().partition::<Vec<_>, _>(elsewhere);
        here.extend(unneeded);
        Self { needed, past, elsewhere: here }
    }
}

/// The holes of one repository.
#[derive(Debug, Default, PartialEq, Eq)]
struct Lacks {
    /// On the way on from the newest backup, forks included.
    needed: Vec<Gap>,
    /// All others.
    unneeded: Vec<Gap>,
}

impl Lacks {
    /// `way` leads on from the newest backup, whose first segment has this number, and which itself lacks `own`.
    fn of(held: &Held, way: Option<(&Ancestry, u64)>, own: Vec<Gap>, size: WalSegmentSize) -> Self {
        let mut needed = Vec::new();
        if let Some((ancestry, mut from)) = way {
            while let Some(gap) = Reach::along(ancestry, held, size, from).gap {
                from = gap.last.number(size) + 1;
                needed.extend(by_timeline(&gap, ancestry, size));
            }
        }
        needed.extend(
            own.into_iter()
                .filter(|gap| !needed.iter().any(|known| overlap(known, gap, size)))
                .collect::<Vec<_>>(),
        );
        let mut unneeded = gaps(held, size);
        unneeded.retain(|gap| !needed.iter().any(|known| overlap(known, gap, size)));
        Self { needed, unneeded }
    }
}

/// The parts of a hole that a fork divides.
fn by_timeline(gap: &Gap, ancestry: &Ancestry, size: WalSegmentSize) -> Vec<Gap> {
    let mut parts: Vec<Gap> = Vec::new();
    for number in gap.first.number(size)..=gap.last.number(size) {
        let Some(timeline) = ancestry.timeline_for_segment(number, size) else { continue };
        let name = SegmentName::from_number(timeline, number, size);
        match parts.last_mut().filter(|part| part.first.timeline == timeline) {
            Some(part) => (part.last, part.segments) = (name, part.segments + 1),
            None => parts.push(Gap { first: name, last: name, segments: 1 }),
        }
    }
    parts
}

fn overlap(one: &Gap, other: &Gap, size: WalSegmentSize) -> bool {
    one.first.timeline == other.first.timeline
        && one.first.number(size) <= other.last.number(size)
        && other.first.number(size) <= one.last.number(size)
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
    use highwater_pitr::timeline::{TimelineHistory, TimelineId};

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
        let root = TimelineHistory::root(TimelineId::new(1).unwrap()).ancestry();
        let judged = |first: Option<u64>, everywhere: &Held| {
            let lacks = Lacks::of(&here, first.map(|first| (&root, first)), Vec::new(), size);
            let missing = Missing::of(lacks, everywhere, size);
            [missing.needed, missing.past, missing.elsewhere].map(|gaps| names(&gaps))
        };
        assert_eq!(judged(None, &here), [vec![], vec![first, second, third], vec![]]);
        assert_eq!(judged(Some(4), &here), [vec![second], vec![first, third], vec![]]);
        assert_eq!(judged(Some(8), &here), [vec![], vec![first, second, third], vec![]]);
        // Half of a stretch is not the stretch.
        let other = held(&[(1, &[3, 6]), (2, &[10])]);
        let everywhere = together([&here, &other].into_iter());
        assert_eq!(judged(Some(1), &everywhere), [vec![second], vec![], vec![first, third]]);
        let later = together([&here, &held(&[(1, &[3, 6, 7]), (2, &[10])])].into_iter());
        assert!(gaps(&later, size).is_empty());
    }

    /// A standby was promoted before the old primary had archived all: no timeline has a hole, and no backup of the old leads on to the new. What the
    /// backup itself lacks counts once.
    #[test]
    fn a_hole_at_a_fork_is_one() {
        let size = WalSegmentSize::DEFAULT;
        let fork = format!("1\t{:X}/{:X}\tpromoted\n", 0, 5 * size.bytes() + 100);
        let second = TimelineHistory::parse(TimelineId::new(2).unwrap(), fork.as_bytes()).unwrap().ancestry();
        let lacks = |here: &Held, own: Vec<Gap>| {
            let lacks = Lacks::of(here, Some((&second, 1)), own, size);
            assert_eq!(lacks.unneeded, []);
            lacks.needed.iter().map(|gap| gap.to_string()).collect::<Vec<_>>()
        };
        let whole = held(&[(1, &[1, 2, 3, 4]), (2, &[5, 6])]);
        assert!(lacks(&whole, Vec::new()).is_empty());
        let late = held(&[(1, &[1, 2]), (2, &[6, 7])]);
        let old = "2 segments, 000000010000000000000003 to 000000010000000000000004";
        let expected = [old, "segment 000000020000000000000005"];
        assert_eq!(lacks(&late, Vec::new()), expected);
        let own = gaps(&held(&[(1, &[2, 5])]), size);
        assert_eq!(lacks(&late, own), expected);
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
