//! A ledger that many sessions write at once, in every way a transaction can end.
//!
//! A row holds its top-level transaction's id and how many rows of it a committed transaction leaves. So a restored ledger can
//! be judged as a whole: which transactions are there, and each of them complete.

use std::time::Duration;

use highwater_tests::{Cluster, Load, Seed, Session};

/// How many sessions write at once (I24 asks for at least 8).
pub const SESSIONS: usize = 9;

const SCHEMA: &str = "
    create table ledger (xid xid8 not null default pg_current_xact_id(), whole int not null, body text);
    create index on ledger (whole);
    create table noise (id int primary key, n int);
    insert into noise select g, 0 from generate_series(1, 50) g;";

/// Makes the tables.
pub fn create(cluster: &Cluster) {
    cluster.execute(SCHEMA);
}

/// Sessions that write until they are stopped. What each turn does follows from `seed`; how they interleave does not.
pub fn start(cluster: &Cluster, seed: &mut Seed) -> Load {
    let number = seed.bits();
    Load::start(cluster, SESSIONS, move |thread, turn, session| {
        let mut seed = Seed::new(number ^ (thread as u64) << 56 ^ turn);
        one_turn(thread, turn, session, &mut seed);
        std::thread::sleep(Duration::from_micros(seed.within(0..3000)));
    })
}

fn one_turn(thread: usize, turn: u64, session: &Session, seed: &mut Seed) {
    let rows = seed.within(1..6);
    let insert = |whole: u64, rows: u64| {
        format!(
            "insert into ledger (whole, body) select {whole}, repeat(md5(random()::text), 3) from generate_series(1, {rows});"
        )
    };
    let lazily = if seed.one_in(3) { "set local synchronous_commit = off;" } else { "" };
    match seed.within(0..100) {
        0..40 => session.execute(&format!("begin;{lazily}{}commit", insert(rows, rows))),
        40..50 => session.execute(&format!("begin;{lazily}{}rollback", insert(rows, rows))),
        50..60 => session.execute(&format!(
            "begin;{}savepoint a;{}rollback to a;savepoint b;{}release b;commit",
            insert(rows + 1, 1),
            insert(999, 2),
            insert(rows + 1, rows)
        )),
        60..72 => {
            let name = format!("{thread}-{turn}");
            session.execute(&format!("begin;{}prepare transaction '{name}'", insert(rows, rows)));
            if seed.one_in(2) {
                session.execute(&format!("begin;{}commit", insert(rows, rows)));
            }
            let end = if seed.one_in(3) { "rollback" } else { "commit" };
            session.execute(&format!("{end} prepared '{name}'"));
        }
        72..80 => {
            let id = seed.within(1..51);
            session.execute(&format!("update noise set n = n + 1 where id = {id}"));
        }
        // An error in the middle: an abort nobody asked for.
        80..84 => {
            let sql = format!("begin;{}select 1 / 0;commit", insert(rows, rows));
            assert!(session.try_execute(&sql).is_err());
            session.execute("rollback");
        }
        84..92 => session.execute(&format!("select pg_create_restore_point('point {thread}-{turn}')")),
        // A record that crosses a segment's end, or a whole segment, when segments are small.
        92..94 => {
            let length = seed.within(1000..40_000) * if seed.one_in(4) { 60 } else { 1 };
            let whole = seed.one_in(2);
            session.execute(&format!(
                "begin;{}select pg_logical_emit_message({whole}, 'large', repeat('x', {length}));commit",
                insert(rows, rows)
            ));
        }
        94..97 => session.execute("select pg_switch_wal()"),
        97..98 => session.execute("checkpoint"),
        _ => session.execute("vacuum noise"),
    }
}
