//! Segments read with their index, and what their neighbours say of the record at their beginning.

use highwater_pitr::index::{TablespaceChange, crossing};
use highwater_pitr::scan::undecoded_tablespace;

use super::*;

/// I16: a record that makes a tablespace is known with the segment that holds its end, however it is cut, and only with the
/// segment before it.
#[tokio::test]
async fn a_tablespace_across_a_seam_is_known_with_its_end() {
    for left in [8, 16, 24, 32, 40, 48] {
        let ground = ground().await;
        let mut wal = ground.wal();
        wal.commit(800, 1).leave(left).tablespace(16400, "/srv/a longer path").commit(801, 2).fill(7);
        let (first, second) = (wal.segment(3), wal.segment(4));
        ground.put(&second).await.unwrap();
        let (bytes, index) = get_indexed(&ground.lineage, second.0).await.unwrap().unwrap();
        assert!(bytes == second.1);
        assert_eq!(index, read_index(&ground.lineage, second.0).await.unwrap().unwrap());
        assert_eq!(read_index_before(&ground.lineage, &index).await.unwrap(), None, "{left}");
        ground.put(&first).await.unwrap();
        let before = read_index_before(&ground.lineage, &index).await.unwrap().unwrap();
        let made = crossing(&before, &index).unwrap().tablespace.unwrap();
        let created = TablespaceChange::Created { path: b"/srv/a longer path".to_vec() };
        assert_eq!((made.oid, &made.change), (16400, &created));
        // One that is damaged is as good as none, and a store that cannot say is neither.
        let path = ground.path(first.0);
        let mut bytes = ground.store.peek(&path).unwrap().to_vec();
        bytes[200] ^= 1;
        ground.store.tamper(&path, bytes);
        assert_eq!(read_index_before(&ground.lineage, &index).await.unwrap(), None, "{left}");
        ground.store.inject(Operation::GetRange, "/wal/", Fault::FailBefore, true);
        assert!(read_index_before(&ground.lineage, &index).await.is_err(), "{left}");
    }
    let ground = ground_with(NameMode::Content, 1).await;
    assert!(get_indexed(&ground.lineage, ground.full().0).await.unwrap().is_none());
}

/// I16: what crosses a seam is known also where a record beside it is not.
#[tokio::test]
async fn a_strange_record_hides_nothing_that_crosses() {
    let ground = ground().await;
    let mut wal = ground.wal();
    wal.strange(1).leave(40).tablespace(16400, "/srv/a longer path").strange(5).fill(7);
    let (first, second) = (wal.segment(3), wal.segment(4));
    ground.put(&first).await.unwrap();
    ground.put(&second).await.unwrap();
    let (bytes, index) = get_indexed(&ground.lineage, second.0).await.unwrap().unwrap();
    assert!(index.undecoded.is_some());
    assert_eq!(undecoded_tablespace(&bytes, second.0).unwrap(), index.undecoded);
    assert_eq!(undecoded_tablespace(&first.1, first.0).unwrap(), None, "one of another manager");
    let before = read_index_before(&ground.lineage, &index).await.unwrap().unwrap();
    assert_eq!(crossing(&before, &index).unwrap().tablespace.unwrap().oid, 16400);
}
