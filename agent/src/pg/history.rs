//! Histories of timelines as they lie in `pg_wal`.

use std::path::Path;

use anyhow::Context as _;
use highwater_pitr::segment::WalFile;
use highwater_pitr::timeline::{TimelineHistory, TimelineId};

/// The history of a timeline with its bytes, if it lies in the directory. The first timeline has none.
///
/// # Errors
///
/// It cannot be read, or is damaged.
pub fn read(directory: &Path, timeline: TimelineId) -> anyhow::Result<Option<(TimelineHistory, Vec<u8>)>> {
    let path = directory.join(WalFile::History(timeline).to_string());
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    let history =
        TimelineHistory::parse(timeline, &bytes).with_context(|| format!("{} is damaged", path.display()))?;
    Ok(Some((history, bytes)))
}

/// The newest timeline whose history lies in the directory.
///
/// # Errors
///
/// The directory cannot be listed.
pub fn newest(directory: &Path) -> anyhow::Result<Option<TimelineId>> {
    let cannot_list = || format!("cannot list {}", directory.display());
    let mut newest = None;
    for entry in std::fs::read_dir(directory).with_context(cannot_list)? {
        let name = entry.with_context(cannot_list)?.file_name();
        if let Some(Ok(WalFile::History(timeline))) = name.to_str().map(str::parse) {
            newest = newest.max(Some(timeline));
        }
    }
    Ok(newest)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_history_is_found_and_one_that_is_damaged_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let timeline = |number| TimelineId::new(number).unwrap();
        assert_eq!(newest(directory.path()).unwrap(), None);
        for (name, text) in
            [("00000002.history", "1\t0/5000028\tx\n"), ("0000000A.history", "?"), ("notes", "")]
        {
            highwater_archive::durable::replace(&directory.path().join(name), &[text]).unwrap();
        }
        assert_eq!(newest(directory.path()).unwrap(), Some(timeline(10)));
        let (history, bytes) = read(directory.path(), timeline(2)).unwrap().unwrap();
        assert_eq!((history.timeline, bytes.as_slice()), (timeline(2), b"1\t0/5000028\tx\n".as_slice()));
        assert!(read(directory.path(), timeline(3)).unwrap().is_none());
        assert!(read(directory.path(), timeline(10)).unwrap_err().to_string().contains("0000000A.history"));
    }
}
