//! Timelines, their history files, and which timeline's WAL recovery reads where.
//!
//! Each promotion starts a new timeline that shares its parent's WAL up to the switch point. A history file
//! lists the ancestors, oldest first, each with the position where the next one left it. From it follows the
//! *ancestry*: a row of spans, each owned by one timeline, that together run from the beginning of the WAL.

use crate::lsn::Lsn;
use crate::segment::WalSegmentSize;

pub use crate::segment::TimelineId;

/// A timeline history file that PostgreSQL would not accept either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// A line without a timeline and a switch point.
    #[error("line {line} of the history of timeline {timeline} is not a timeline and a WAL position")]
    Syntax {
        /// The timeline whose history it is.
        timeline: TimelineId,
        /// The line, counted from 1.
        line: usize,
    },
    /// Ancestors that do not ascend.
    #[error(
        "line {line} of the history of timeline {timeline}: timelines and their switch points must ascend"
    )]
    Order {
        /// The timeline whose history it is.
        timeline: TimelineId,
        /// The line, counted from 1.
        line: usize,
    },
    /// An ancestor numbered like the timeline itself, or higher.
    #[error("the history of timeline {timeline} names timeline {ancestor} as its ancestor")]
    Descendant {
        /// The timeline whose history it is.
        timeline: TimelineId,
        /// The impossible ancestor.
        ancestor: TimelineId,
    },
    /// No ancestor at all, though only timeline 1 has none.
    #[error("the history of timeline {timeline} names no ancestor")]
    Empty {
        /// The timeline whose history it is.
        timeline: TimelineId,
    },
    /// More than a history can hold.
    #[error("the history of timeline {timeline} is longer than {limit} bytes")]
    TooLong {
        /// The timeline whose history it is.
        timeline: TimelineId,
        /// The limit, bytes.
        limit: usize,
    },
}

impl HistoryError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some("compare it with the .history file of that name in the cluster's pg_wal directory".into())
    }
}

/// A timeline that another one left, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestor {
    /// The timeline that was left.
    pub timeline: TimelineId,
    /// Where the next timeline begins: the first position that is no longer this one's.
    pub switch: Lsn,
    /// What PostgreSQL wrote as the reason.
    pub reason: String,
}

/// What a `.history` file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    /// The timeline whose history it is.
    pub timeline: TimelineId,
    /// Its ancestors, oldest first; empty for a timeline without history.
    pub ancestors: Vec<Ancestor>,
}

/// A thousand promotions fit many times over.
const MAX_HISTORY_BYTES: usize = 1 << 20;

impl TimelineHistory {
    /// The history of a timeline that has no file: timeline 1.
    pub fn root(timeline: TimelineId) -> Self {
        TimelineHistory { timeline, ancestors: Vec::new() }
    }

    /// Reads the history file of `timeline`, as `readTimeLineHistory` does (`access/transam/timeline.c`): blank lines
    /// and lines that begin with `#` are skipped, what follows the switch point is free text.
    ///
    /// # Errors
    /// [`HistoryError`] where PostgreSQL would refuse the file, and where switch points run backwards.
    pub fn parse(timeline: TimelineId, bytes: &[u8]) -> Result<Self, HistoryError> {
        if bytes.len() > MAX_HISTORY_BYTES {
            return Err(HistoryError::TooLong { timeline, limit: MAX_HISTORY_BYTES });
        }
        let text = String::from_utf8_lossy(bytes);
        let mut ancestors: Vec<Ancestor> = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let syntax = HistoryError::Syntax { timeline, line: number + 1 };
            let ancestor = parse_line(line).ok_or(syntax)?;
            if ancestors
                .last()
                .is_some_and(|last| ancestor.timeline <= last.timeline || ancestor.switch < last.switch)
            {
                return Err(HistoryError::Order { timeline, line: number + 1 });
            }
            ancestors.push(ancestor);
        }
        match ancestors.last() {
            None => Err(HistoryError::Empty { timeline }),
            Some(last) if last.timeline >= timeline => {
                Err(HistoryError::Descendant { timeline, ancestor: last.timeline })
            }
            Some(_) => Ok(TimelineHistory { timeline, ancestors }),
        }
    }

    /// The timeline this one left, and where; `None` for a timeline without history.
    pub fn parent(&self) -> Option<&Ancestor> {
        self.ancestors.last()
    }

    /// Which timeline owns which stretch of WAL on the way to this one.
    pub fn ancestry(&self) -> Ancestry {
        let mut begin = Lsn::INVALID;
        let mut spans = Vec::with_capacity(self.ancestors.len() + 1);
        for ancestor in &self.ancestors {
            spans.push(Span { timeline: ancestor.timeline, begin, end: Some(ancestor.switch) });
            begin = ancestor.switch;
        }
        spans.push(Span { timeline: self.timeline, begin, end: None });
        Ancestry { spans }
    }
}

/// `TIMELINE  HIGH/LOW  reason`.
fn parse_line(line: &str) -> Option<Ancestor> {
    let mut words = line.splitn(2, char::is_whitespace);
    let timeline = TimelineId::new(words.next()?.parse().ok()?)?;
    let rest = words.next()?.trim_start();
    let (switch, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Some(Ancestor { timeline, switch: switch.parse().ok()?, reason: reason.trim().to_string() })
}

/// A stretch of WAL that one timeline owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// The owner.
    pub timeline: TimelineId,
    /// The first position that is its own.
    pub begin: Lsn,
    /// The first position that is the next timeline's; `None` for the newest.
    pub end: Option<Lsn>,
}

/// Which timeline owns which stretch of WAL, on the way to one timeline. Spans are gapless; the last is open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ancestry {
    spans: Vec<Span>,
}

impl Ancestry {
    /// The spans, oldest first. A timeline left at once has an empty span.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The timeline at the end of the way.
    pub fn timeline(&self) -> Option<TimelineId> {
        self.spans.last().map(|span| span.timeline)
    }

    /// The timeline under whose name recovery asks first for segment `number`: the newest that begins in it or
    /// before (`XLogFileReadAnyTLI` in `access/transam/xlogrecovery.c`). The segment in which a timeline begins
    /// repeats its parent's bytes up to the switch point.
    pub fn timeline_for_segment(&self, number: u64, size: WalSegmentSize) -> Option<TimelineId> {
        self.spans
            .iter()
            .rev()
            .find(|span| span.begin.as_u64() / size.bytes() <= number)
            .map(|span| span.timeline)
    }

    /// The timeline that owns the byte at `lsn`.
    pub fn owner(&self, lsn: Lsn) -> Option<TimelineId> {
        self.spans
            .iter()
            .rev()
            .find(|span| span.begin <= lsn && span.end.is_none_or(|end| lsn < end))
            .map(|span| span.timeline)
    }

    /// Whether a point at `lsn` on `timeline` lies on this way: what happened there up to `lsn` happened here too.
    /// The switch point itself belongs to both timelines.
    pub fn contains(&self, timeline: TimelineId, lsn: Lsn) -> bool {
        self.spans.iter().any(|span| {
            span.timeline == timeline && span.begin <= lsn && span.end.is_none_or(|end| lsn <= end)
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]
    use super::*;
    use proptest::prelude::*;

    fn tli(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn lsn(text: &str) -> Lsn {
        text.parse().unwrap()
    }

    const THREE: &[u8] = b"# a comment\n1\t0/5000000\tno recovery target specified\n\n2\t0/70000A0\tbefore 2026-11-20 06:00:00+00\n";

    #[test]
    fn a_history_file() {
        let history = TimelineHistory::parse(tli(3), THREE).unwrap();
        assert_eq!(history.ancestors.len(), 2);
        assert_eq!(history.ancestors[0].reason, "no recovery target specified");
        assert_eq!(history.parent().unwrap().switch, lsn("0/70000A0"));
        assert_eq!(history.parent().unwrap().reason, "before 2026-11-20 06:00:00+00");
    }

    #[test]
    fn what_postgresql_refuses() {
        let parse = |text: &str| TimelineHistory::parse(tli(3), text.as_bytes());
        assert_eq!(parse("x\n"), Err(HistoryError::Syntax { timeline: tli(3), line: 1 }));
        assert_eq!(parse("\n1\n"), Err(HistoryError::Syntax { timeline: tli(3), line: 2 }));
        assert_eq!(parse("0\t0/1\n"), Err(HistoryError::Syntax { timeline: tli(3), line: 1 }));
        assert_eq!(parse("2\t0/1\tx\n1\t0/2\tx\n"), Err(HistoryError::Order { timeline: tli(3), line: 2 }));
        assert_eq!(parse("1\t0/2\tx\n2\t0/1\tx\n"), Err(HistoryError::Order { timeline: tli(3), line: 2 }));
        assert_eq!(
            parse("3\t0/1\tx\n"),
            Err(HistoryError::Descendant { timeline: tli(3), ancestor: tli(3) })
        );
        assert_eq!(parse("# nothing\n"), Err(HistoryError::Empty { timeline: tli(3) }));
        assert!(TimelineHistory::parse(tli(3), &vec![b'\n'; MAX_HISTORY_BYTES + 1]).is_err());
    }

    #[test]
    fn the_segment_of_a_switch_is_asked_of_the_newer_timeline() {
        let size = WalSegmentSize::DEFAULT;
        let ancestry = TimelineHistory::parse(tli(3), THREE).unwrap().ancestry();
        let asked = |number| ancestry.timeline_for_segment(number, size).unwrap().get();
        // 0/5000000 is the first byte of segment 5; 0/70000A0 lies inside segment 7.
        assert_eq!((asked(0), asked(4), asked(5), asked(6), asked(7), asked(8)), (1, 1, 2, 2, 3, 3));
        assert_eq!(ancestry.owner(lsn("0/4FFFFFF")), Some(tli(1)));
        assert_eq!(ancestry.owner(lsn("0/5000000")), Some(tli(2)));
        assert_eq!(ancestry.owner(lsn("0/700009F")), Some(tli(2)));
        assert_eq!(ancestry.timeline(), Some(tli(3)));
    }

    #[test]
    fn a_point_on_an_ancestor_counts_up_to_the_switch() {
        let ancestry = TimelineHistory::parse(tli(3), THREE).unwrap().ancestry();
        assert!(ancestry.contains(tli(1), lsn("0/5000000")));
        assert!(!ancestry.contains(tli(1), lsn("0/5000001")));
        assert!(!ancestry.contains(tli(2), lsn("0/4FFFFFF")));
        assert!(ancestry.contains(tli(3), lsn("F/0")));
        assert!(!ancestry.contains(tli(4), lsn("F/0")));
        assert!(TimelineHistory::root(tli(1)).ancestry().contains(tli(1), lsn("0/1")));
    }

    #[test]
    fn a_timeline_left_at_once_owns_nothing() {
        let ancestry = TimelineHistory::parse(tli(3), b"1 0/5000000 a\n2 0/5000000 b\n").unwrap().ancestry();
        assert_eq!(ancestry.owner(lsn("0/5000000")), Some(tli(3)));
        assert_eq!(ancestry.timeline_for_segment(5, WalSegmentSize::DEFAULT), Some(tli(3)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_history_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300), tli in 1u32..) {
            let timeline = TimelineId::new(tli).unwrap();
            if let Ok(history) = TimelineHistory::parse(timeline, &bytes) {
                prop_assert!(history.parent().unwrap().timeline < timeline);
            }
        }

        #[test]
        fn spans_are_gapless(switches in proptest::collection::vec(any::<u64>(), 1..6)) {
            let mut switches = switches;
            switches.sort_unstable();
            let text: String = switches.iter().enumerate()
                .map(|(n, at)| format!("{}\t{}\twhy\n", n + 1, Lsn::new(*at))).collect();
            let last = tli(switches.len() as u32 + 1);
            let ancestry = TimelineHistory::parse(last, text.as_bytes()).unwrap().ancestry();
            prop_assert_eq!(ancestry.spans().first().unwrap().begin, Lsn::INVALID);
            for pair in ancestry.spans().windows(2) {
                prop_assert_eq!(pair[0].end, Some(pair[1].begin));
            }
            for at in switches {
                prop_assert!(ancestry.owner(Lsn::new(at)).is_some());
            }
        }
    }
}
