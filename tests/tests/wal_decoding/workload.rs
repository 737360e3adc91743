//! A cluster that does everything that is hard to read in WAL. Its segments have 1 MiB where the position in a segment matters.

use highwater_pitr::lsn::Lsn;
use highwater_pitr::segment::{SegmentName, WalSegmentSize};
use highwater_pitr::timeline::TimelineId;
use highwater_tests::{Cluster, Load, Session};

/// What a page has room for behind its header.
const LAST_PAGE: u64 = 8192 - 24;
/// Overhead of a logical message's record: its header, the long main data header, `xl_logical_message`, the prefix.
const MESSAGE_OVERHEAD: u64 = 24 + 5 + 24 + 2;

pub struct Workload<'a> {
    cluster: &'a Cluster,
}

impl<'a> Workload<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        cluster.session().execute(
            "create table account (id int primary key, owner text, balance numeric);
             insert into account select n, md5(n::text), n from generate_series(1, 2000) n;
             create table note (id bigserial primary key, body text);
             create function nest(count int) returns void language plpgsql as $$
             begin
               for n in 1..count loop
                 begin
                   insert into note (body) values (n);
                   if n % 1000 = 0 then raise exception 'turn back'; end if;
                 exception when raise_exception then null;
                 end;
               end loop;
             end $$",
        );
        Workload { cluster }
    }

    /// Eight sessions at once: commits, rollbacks, subtransactions.
    pub fn concurrent_sessions(&self) {
        let load = Load::start(self.cluster, 8, |thread, turn, session| {
            let id = (thread as u64 * 977 + turn * 31) % 2000 + 1;
            match turn % 4 {
                0 => session.execute(&format!(
                    "begin; update account set balance = balance + 1 where id = {id};
                     savepoint s; insert into note (body) values (repeat(md5('{turn}'), 40)); rollback to s;
                     insert into note (body) values ('kept'); commit"
                )),
                1 => session.execute(&format!("begin; insert into note (body) values ('{turn}'); rollback")),
                _ => session.execute(&format!("insert into note (body) values (repeat('{turn}', 500))")),
            }
        });
        load.wait_for(400);
        load.stop();
    }

    /// Prepared transactions with all that a commit record may carry, and what ends and marks WAL.
    pub fn transactions_of_every_kind(&self) {
        let session = self.cluster.session();
        if session.value("show max_prepared_transactions") != "0" {
            for (name, end) in [("one", "commit"), ("two", "rollback")] {
                session.execute(&format!("create table dropped_{name} as select * from account"));
                session.execute(&format!(
                    "begin; select nest(30); drop table dropped_{name}; create table made_{name} (id int primary key);
                     alter table made_{name} add column extra text; prepare transaction 'a transaction named {name}'"
                ));
                session.execute(&format!("{end} prepared 'a transaction named {name}'"));
                session.execute(&format!("drop table if exists made_{name}, dropped_{name}"));
            }
        }
        session.execute("checkpoint");
        session.execute("select pg_create_restore_point('before the migration')");
        session.execute(&format!("select pg_create_restore_point('{}')", "é".repeat(31)));
        session.execute("select pg_create_restore_point('before the migration')");
        session.execute("checkpoint; truncate note; checkpoint");
    }

    /// Records placed so that the end of a segment cuts them, or just does not.
    pub fn records_at_the_end_of_a_segment(&self) {
        let session = self.cluster.session();
        // Of a record's header 8 or 16 bytes, exactly all of it, or a little more.
        for left in [8, 16, 24, 32] {
            self.leave(&session, left);
            session.execute(&format!("select pg_create_restore_point('{left} bytes before the end')"));
        }
        // A record that ends with the segment, and the segment's end itself as a switch.
        self.leave(&session, 0);
        session.execute("insert into note (body) values ('first of a segment')");
        self.leave(&session, 24);
        session.execute("select pg_switch_wal()");
        session.execute("insert into note (body) values ('behind the switch')");
        // Commits with long lists, the list cut by the end of the segment.
        session.execute("begin; select nest(20000); prepare transaction 'large'");
        self.leave(&session, 40_000);
        session.execute("commit prepared 'large'");
        session.execute("begin; select nest(20000); prepare transaction 'large'");
        self.leave(&session, 16);
        session.execute("rollback prepared 'large'");
        session.execute("begin; select nest(60000)");
        self.leave(&self.cluster.session(), 30_000);
        session.execute("commit");
        self.leave(&session, 40);
        session.execute("insert into note (body) values ('cut')");
        session.execute("select pg_switch_wal()");
    }

    /// Tablespaces made and dropped; the record of the last one is cut by the end of a segment, within its long path.
    pub fn tablespaces(&self, directory: &std::path::Path) {
        let session = self.cluster.session();
        let long = format!("{0}/{0}/{0}", "a".repeat(200));
        for (name, below) in [("short", "a short one"), ("long", &long), ("cut", &format!("{long}/cut"))] {
            let location = directory.join(below);
            std::fs::create_dir_all(&location).unwrap();
            for path in location.ancestors().take_while(|path| *path != directory) {
                highwater_tests::give_to_server_user(path);
            }
            if name == "cut" {
                self.leave(&session, 448);
            }
            session.execute(&format!("create tablespace {name} location '{}'", location.display()));
            session.execute(&format!("create table in_{name} (id int) tablespace {name}"));
        }
        session.execute("drop table in_short, in_long");
        session.execute("drop tablespace short");
        session.execute("drop tablespace long");
    }

    /// Records with segments to themselves.
    pub fn records_larger_than_a_segment(&self) {
        let session = self.cluster.session();
        session.execute("select pg_logical_emit_message(true, 'large', repeat('0123456789', 330000))");
        self.leave(&session, 8);
        session.execute("select pg_logical_emit_message(true, 'large', repeat('0123456789', 220000))");
    }

    /// A little WAL in which the hard cases are all met.
    pub fn a_little_of_everything(&self) {
        let session = self.cluster.session();
        session.execute("insert into note (body) values ('one')");
        session.execute("begin; insert into note (body) values ('two'); rollback");
        session.execute("begin; savepoint s; insert into note (body) values ('three'); rollback to s; insert into note (body) values ('4'); commit");
        session.execute("create table brief (id int)");
        session.execute("begin; select nest(3); drop table brief; prepare transaction 'first'");
        session.execute("begin; select nest(2); prepare transaction 'second'");
        session.execute("rollback prepared 'second'");
        self.leave(&session, 16);
        session.execute("commit prepared 'first'");
        session.execute("checkpoint; select pg_create_restore_point('before the migration')");
        self.leave(&session, 40);
        session.execute("select pg_create_restore_point('across the end of a segment')");
        session.execute("select pg_logical_emit_message(true, 'large', repeat('.', 1500000))");
    }

    /// A tablespace that comes and goes.
    pub fn a_tablespace(&self, directory: &std::path::Path) {
        self.cluster.execute(&format!("create tablespace brief location '{}'", directory.display()));
        self.cluster.execute("drop tablespace brief");
    }

    /// The loss of the host's power.
    pub fn crash(&self) {
        self.cluster.session().execute("select nest(10)");
        self.cluster.kill();
        self.cluster.start();
    }

    /// A crash that loses the end of a record whose beginning is on disk in an earlier segment: PostgreSQL then writes
    /// XLOG_OVERWRITE_CONTRECORD where the rest should be (`CreateOverwriteContrecordRecord`).
    pub fn record_given_up_in_a_crash(&self) {
        let session = self.cluster.session();
        self.leave(&session, 50_000);
        let lost = self.segment(self.position(&session)).next(self.segment_size());
        session.execute("select pg_logical_emit_message(true, 'lost', repeat('0123456789', 70000))");
        self.cluster.kill();
        for entry in std::fs::read_dir(self.cluster.data().join("pg_wal")).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().and_then(|name| name.to_str()?.parse::<SegmentName>().ok());
            if name.is_some_and(|name| name >= lost) {
                std::fs::remove_file(path).unwrap();
            }
        }
        self.cluster.start();
        self.cluster.session().execute("insert into note (body) values ('life goes on')");
    }

    /// A crash, and the server comes back as the promoted standby of itself.
    pub fn promote(&self) {
        self.cluster.session().execute("insert into note (body) values ('the last on timeline 1')");
        self.cluster.kill();
        self.cluster.tolerate("specified neither");
        let signal = self.cluster.data().join("standby.signal");
        std::fs::write(&signal, "").unwrap();
        highwater_tests::give_to_server_user(&signal);
        self.cluster.start();
        self.cluster.promote();
    }

    /// Ends the segment, waits until it is in the archive, and gives its name.
    pub fn switch_and_wait(&self) -> SegmentName {
        let session = self.cluster.session();
        session.execute("insert into note (body) values ('before the switch')");
        let name: SegmentName = session.value("select pg_walfile_name(pg_switch_wal())").parse().unwrap();
        self.cluster.wait_until_archived(&name.to_string());
        name
    }

    fn segment_size(&self) -> WalSegmentSize {
        let bytes =
            self.cluster.session().value("select setting from pg_settings where name = 'wal_segment_size'");
        WalSegmentSize::try_from(bytes.parse::<u32>().unwrap()).unwrap()
    }

    fn segment(&self, position: Lsn) -> SegmentName {
        SegmentName::containing(TimelineId::FIRST, position, self.segment_size())
    }

    fn position(&self, session: &Session) -> Lsn {
        session.value("select pg_current_wal_insert_lsn()").parse().unwrap()
    }

    /// Fills the segment with messages until exactly `left` bytes are left in it for the next record; about so many where
    /// that is more than a page.
    fn leave(&self, session: &Session, left: u64) {
        let size = self.segment_size().bytes();
        let free = || size - self.position(session).offset_in(size);
        for _ in 0..200 {
            let now = free();
            let there = now == left || left == 0 && now == size - 40;
            if there || left > 8192 && now.abs_diff(left) < 16_000 {
                return;
            }
            let message = match now.checked_sub(left) {
                // Page headers come on top of a message's length, so the last page is reached in small steps.
                Some(take @ 20_000..) => (take - 12_000).min(300_000),
                Some(1_100..) if now > LAST_PAGE => 1_000,
                // Within the last page the record's length is what it takes away.
                Some(take @ 400..) if now <= LAST_PAGE => take - MESSAGE_OVERHEAD,
                _ => 12_000,
            };
            session.execute(&format!("select pg_logical_emit_message(false, 'p', repeat('.', {message}))"));
        }
        panic!("no record could be placed {left} bytes before the end of a segment, but {}", free());
    }
}
