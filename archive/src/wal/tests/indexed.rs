//! Segments read with their index, and what their neighbours say of the record at their beginning.

use highwater_pitr::index::TablespaceChange;

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
        assert_eq!(tablespaces_ending_in(&ground.lineage, &index).await.unwrap(), None, "{left}");
        ground.put(&first).await.unwrap();
        let made = tablespaces_ending_in(&ground.lineage, &index).await.unwrap().unwrap();
        let created = TablespaceChange::Created { path: b"/srv/a longer path".to_vec() };
        assert_eq!(made.iter().map(|made| (made.oid, &made.change)).collect::<Vec<_>>(), [(16400, &created)]);
        let (_, index) = get_indexed(&ground.lineage, first.0).await.unwrap().unwrap();
        assert_eq!(tablespaces_ending_in(&ground.lineage, &index).await.unwrap().unwrap(), []);
    }
    let ground = ground_with(NameMode::Content, 1).await;
    assert!(get_indexed(&ground.lineage, ground.full().0).await.unwrap().is_none());
}
