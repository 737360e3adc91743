//! `backup_label` and `tablespace_map`, as `pg_backup_stop` hands them out.
//!
//! Both are kept and put back byte for byte; what is parsed here only tells where recovery will begin. The label is lines of
//! `KEY: value` (`build_backup_content` in `access/transam/xlogbackup.c`). The map is lines of `oid path`, with a
//! backslash before each line break or backslash of a path (`do_pg_backup_start`).

use crate::lsn::Lsn;
use crate::segment::SegmentName;
use crate::timeline::TimelineId;

/// What a `backup_label` says about where recovery begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// The redo position that recovery begins at.
    pub start_lsn: Lsn,
    /// The segment file that holds it.
    pub start_segment: SegmentName,
    /// The checkpoint record of the backup's start.
    pub checkpoint_lsn: Lsn,
    /// The timeline the backup was started on.
    pub timeline: TimelineId,
    /// Whether the server was in recovery: `BACKUP FROM: standby`.
    pub from_standby: bool,
    /// The label's name, as given to `pg_backup_start`.
    pub label: String,
}

/// Why a label or a map cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LabelError {
    /// A line that must be there is not.
    #[error("backup_label has no line `{0}`")]
    Missing(&'static str),
    /// A line whose value does not parse.
    #[error("backup_label: `{line}`: {reason}")]
    Malformed {
        /// The line.
        line: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The timeline of the start segment's name is not the one in the label.
    #[error("backup_label contradicts itself: segment {segment} is not of timeline {timeline}")]
    Timeline {
        /// The start segment.
        segment: SegmentName,
        /// The timeline that the label names.
        timeline: TimelineId,
    },
    /// A line of `tablespace_map` that is not `oid path`.
    #[error("tablespace_map: `{0}` is not an oid and a path")]
    Map(String),
}

impl LabelError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(
            "the backup's label is damaged or of an unknown PostgreSQL version; use another backup"
                .to_owned(),
        )
    }
}

impl BackupLabel {
    /// Parses a label of PostgreSQL 14 to 18.
    ///
    /// # Errors
    ///
    /// A missing or malformed line. Lines of later versions are ignored.
    pub fn parse(text: &str) -> Result<Self, LabelError> {
        // The first line of a key counts: the label's name may hold line breaks and imitate any later one.
        let value = |key: &'static str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix(": "))
                .ok_or(LabelError::Missing(key))
        };
        let malformed = |key: &str, value: &str, reason: &str| LabelError::Malformed {
            line: format!("{key}: {value}"),
            reason: reason.to_owned(),
        };
        let lsn = |key: &'static str, text: &str| {
            text.parse::<Lsn>().map_err(|error| malformed(key, text, &error.to_string()))
        };

        const START: &str = "START WAL LOCATION";
        let start = value(START)?;
        let (start_lsn, file) = start
            .strip_suffix(')')
            .and_then(|open| open.split_once(" (file "))
            .ok_or_else(|| malformed(START, start, "a position and `(file NAME)` are expected"))?;
        let start_segment: SegmentName =
            file.parse().map_err(|error| malformed(START, start, &format!("{error}")))?;

        const TIMELINE: &str = "START TIMELINE";
        let timeline = value(TIMELINE)?;
        let timeline = timeline
            .parse()
            .ok()
            .and_then(TimelineId::new)
            .ok_or_else(|| malformed(TIMELINE, timeline, "a timeline is a number above zero"))?;
        if start_segment.timeline != timeline {
            return Err(LabelError::Timeline { segment: start_segment, timeline });
        }

        // Only for people, yet no label is without it.
        value("START TIME")?;

        Ok(Self {
            start_lsn: lsn(START, start_lsn)?,
            start_segment,
            checkpoint_lsn: lsn("CHECKPOINT LOCATION", value("CHECKPOINT LOCATION")?)?,
            timeline,
            from_standby: value("BACKUP FROM")? == "standby",
            label: value("LABEL")?.to_owned(),
        })
    }
}

/// One tablespace of a `tablespace_map`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TablespaceLink {
    /// The tablespace's oid: the name of the link in `pg_tblspc`.
    pub oid: u32,
    /// Where the link leads, unescaped.
    pub path: String,
}

/// Parses a `tablespace_map`; empty text is a cluster without tablespaces.
///
/// # Errors
///
/// A line that is not `oid path`.
pub fn parse_tablespace_map(text: &str) -> Result<Vec<TablespaceLink>, LabelError> {
    let mut links = Vec::new();
    let mut line = String::new();
    let mut characters = text.chars();
    loop {
        let end = match characters.next() {
            Some('\\') => {
                line.extend(characters.next());
                continue;
            }
            Some('\n' | '\r') => false,
            Some(character) => {
                line.push(character);
                continue;
            }
            None => true,
        };
        if !line.is_empty() {
            let link = line.split_once(' ').filter(|(_, path)| !path.is_empty()).and_then(|(oid, path)| {
                Some(TablespaceLink { oid: oid.parse().ok()?, path: path.to_owned() })
            });
            links.push(link.ok_or_else(|| LabelError::Map(line.clone()))?);
            line.clear();
        }
        if end {
            return Ok(links);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// As PostgreSQL 17 wrote it.
    const LABEL: &str = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
        CHECKPOINT LOCATION: 0/2000080\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
        START TIME: 2026-11-20 06:51:17 UTC\nLABEL: nightly: 1\nSTART TIMELINE: 1\n";

    #[test]
    fn a_label_is_read() {
        let label = BackupLabel::parse(LABEL).unwrap();
        assert_eq!(label.start_lsn, Lsn::new(0x0200_0028));
        assert_eq!(label.checkpoint_lsn, Lsn::new(0x0200_0080));
        assert_eq!(label.start_segment.to_string(), "000000010000000000000002");
        assert_eq!(label.timeline, TimelineId::FIRST);
        assert_eq!(label.label, "nightly: 1");
        assert!(!label.from_standby);
        assert!(BackupLabel::parse(&LABEL.replace("primary", "standby")).unwrap().from_standby);
    }

    #[test]
    fn each_line_must_be_there_and_agree() {
        for line in LABEL.lines().filter(|line| !line.starts_with("BACKUP METHOD")) {
            let without = LABEL.replace(&format!("{line}\n"), "");
            assert!(matches!(BackupLabel::parse(&without), Err(LabelError::Missing(_))), "{line}");
        }
        let other = LABEL.replace("START TIMELINE: 1", "START TIMELINE: 2");
        assert!(matches!(BackupLabel::parse(&other), Err(LabelError::Timeline { .. })));
        for broken in [
            LABEL.replace("0/2000028", "2000028"),
            LABEL.replace(" (file ", " ("),
            LABEL.replace("LINE: 1", "LINE: 0"),
        ] {
            assert!(matches!(BackupLabel::parse(&broken), Err(LabelError::Malformed { .. })), "{broken}");
        }
    }

    #[test]
    fn a_map_with_awkward_paths_is_read() {
        let map = parse_tablespace_map("16384 /srv/ts one\n16385 /srv/a\\\nb\\\\c\n").unwrap();
        assert_eq!(
            map,
            [
                TablespaceLink { oid: 16384, path: "/srv/ts one".to_owned() },
                TablespaceLink { oid: 16385, path: "/srv/a\nb\\c".to_owned() },
            ]
        );
        assert_eq!(parse_tablespace_map("").unwrap(), []);
        for broken in ["16384", "x /srv", "16384 ", "-1 /srv"] {
            assert_eq!(parse_tablespace_map(broken), Err(LabelError::Map(broken.to_owned())));
        }
    }
}
