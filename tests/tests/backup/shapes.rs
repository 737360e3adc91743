//! Clusters of unusual shape.

use highwater_tests::{Cluster, Scratch, newest};

use crate::ground::Ground;

/// Many small files share few objects. What is written does not grow with the number of files.
#[test]
fn five_thousand_relations_take_a_handful_of_objects() {
    let postgres = newest();
    let scratch = Scratch::new();
    let ground = Ground::start(&scratch, Cluster::builder(postgres, &scratch, "main"));
    let cluster = &ground.cluster;
    for _ in 0..10 {
        cluster.execute(
            "do $$ begin for n in 1..250 loop \
             execute format('create table %I as select 1 x', 't' || gen_random_uuid()); end loop; end $$",
        );
    }
    let tables = cluster
        .value("select count(*) from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace");
    assert_eq!(tables, "2500");
    cluster.execute("do $$ declare t text; begin for t in select oid::regclass from pg_class where relkind = 'r' \
         and relnamespace = 'public'::regnamespace loop execute format('create index on %s (x)', t); end loop; end $$");
    let made = ground.backup(&["--jobs", "2"]);
    assert!(made["counts"]["files"].as_u64().unwrap() > 5900, "{made}");
    let id = made["backup"].as_str().unwrap();
    let objects = ground.objects(id);
    // Intent, keyring and manifest; a part of the file list for each MiB, one of the relation map; a pack a thread.
    assert!(objects.len() <= 10, "{objects:?}");
    let restored = ground.restore(&scratch, "restored", &["--to-consistent"]);
    let copy = Cluster::open(postgres, &scratch, "copy", &restored);
    copy.start();
    copy.wait_until_paused();
    assert_eq!(
        copy.value(
            "select count(*) from pg_class where relkind = 'i' and relnamespace = 'public'::regnamespace"
        ),
        "2500"
    );
    copy.stop_proven();
}
