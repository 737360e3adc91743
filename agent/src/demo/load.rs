//! The demo's workload, and its own record of what was committed when.
//!
//! Each transaction moves an amount between two accounts and writes a row into the ledger, so the balances must always equal the
//! sums over the ledger. Rows of the ledger never change; `pg_xact_commit_timestamp(xmin)` tells when each was committed, which is
//! the time that recovery compares with its target.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::task::JoinHandle;

use crate::pg::{PgError, Session};

/// Accounts that money moves between.
const ACCOUNTS: i32 = 1_000;

/// How long a session rests between two transactions.
const THINK: Duration = Duration::from_millis(2);

const SCHEMA: &str = "
    CREATE TABLE public.accounts (id int PRIMARY KEY, balance bigint NOT NULL DEFAULT 0);
    CREATE TABLE public.ledger (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        source int NOT NULL, target int NOT NULL, amount bigint NOT NULL, note text NOT NULL);
    CREATE TABLE public.orders AS
        SELECT n AS id, md5(n::text) AS customer, (n * 37 % 10000) / 100.0 AS price,
               jsonb_build_object('item', n % 500, 'tags', ARRAY[md5((n * 7)::text), 'demo']) AS details
        FROM generate_series(1, 150000) n;
    CREATE INDEX ON public.orders (customer);
    CREATE FUNCTION public.transfer(a int, b int, amount bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        UPDATE public.accounts SET balance = balance + CASE WHEN id = a THEN -amount ELSE amount END
         WHERE id IN (SELECT id FROM public.accounts WHERE id IN (a, b) ORDER BY id FOR UPDATE);
        INSERT INTO public.ledger (source, target, amount, note) VALUES (a, b, amount, md5(random()::text));
    END $$;";

/// Makes the tables.
pub async fn prepare(session: &Session) -> anyhow::Result<()> {
    session.execute(SCHEMA, "make the demo's tables").await?;
    let fill = format!("INSERT INTO public.accounts (id) SELECT generate_series(1, {ACCOUNTS})");
    session.execute(&fill, "fill the accounts").await?;
    Ok(())
}

/// Sessions that work until the ledger is gone.
pub struct Load {
    sessions: Vec<JoinHandle<Result<(), PgError>>>,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
}

impl Load {
    /// Starts `sessions` of them on the server with its socket in `socket_dir`.
    pub fn start(sessions: u64, socket_dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let committed = Arc::new(AtomicU64::new(0));
        let work = |seed| tokio::spawn(work(socket_dir.to_path_buf(), seed, stop.clone(), committed.clone()));
        Self { sessions: (1..=sessions).map(work).collect(), stop, committed }
    }

    /// Transactions acknowledged so far.
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Relaxed)
    }

    /// Waits until every session has ended, as they do when the ledger is dropped.
    pub async fn wait(mut self) -> anyhow::Result<u64> {
        for session in std::mem::take(&mut self.sessions) {
            match session.await.context("a session of the load broke off")? {
                // 42P01: the table does not exist. That is the accident.
                Err(PgError::Query { code: Some(code), .. }) if code == "42P01" => {}
                Err(error) => return Err(error.into()),
                Ok(()) => anyhow::bail!("a session of the load stopped by itself"),
            }
        }
        Ok(self.committed())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

async fn work(
    socket_dir: PathBuf,
    seed: u64,
    stop: Arc<AtomicBool>,
    committed: Arc<AtomicU64>,
) -> Result<(), PgError> {
    let connection = format!("host={} port=5432 dbname=postgres user=postgres", socket_dir.display());
    let session = Session::open(Some(&connection), None).await?;
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    while !stop.load(Ordering::Relaxed) {
        let (a, b, amount) = (account(&mut state), account(&mut state), i64::from(account(&mut state)));
        if a == b {
            continue;
        }
        session.row("SELECT public.transfer($1, $2, $3)", &[&a, &b, &amount], "move money").await?;
        committed.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(THINK).await;
    }
    Ok(())
}

/// xorshift64*: which accounts it names does not matter, only that they differ.
fn account(state: &mut u64) -> i32 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    let drawn = state.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
    i32::try_from(drawn % u64::from(ACCOUNTS.unsigned_abs())).unwrap_or(0) + 1
}

/// The ledger as it was when it was dropped.
pub struct Record {
    rows: Vec<RecordedRow>,
    /// When it was dropped, in microseconds since 1970.
    pub dropped_us: i64,
}

struct RecordedRow {
    id: i64,
    digest: String,
    committed_us: i64,
}

/// Writes the ledger down and drops it, in one transaction that locks everyone else out of it.
pub async fn record_and_drop(session: &Session) -> anyhow::Result<Record> {
    session.execute("BEGIN; LOCK TABLE public.ledger IN ACCESS EXCLUSIVE MODE", "lock the ledger").await?;
    let rows = session
        .client()
        .query(
            "SELECT id, md5(l::text), (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::bigint \
             FROM public.ledger l",
            &[],
        )
        .await?;
    let mut recorded = Vec::with_capacity(rows.len());
    for row in rows {
        recorded.push(RecordedRow {
            id: row.try_get(0)?,
            digest: row.try_get(1)?,
            committed_us: row.try_get(2)?,
        });
    }
    session.execute("DROP TABLE public.ledger; COMMIT", "drop the ledger").await?;
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint";
    let dropped_us = session.row(now, &[], "tell the time").await?.try_get(0)?;
    recorded.sort_by_key(|row| row.committed_us);
    Ok(Record { rows: recorded, dropped_us })
}

/// What the comparison found.
#[derive(Debug, PartialEq, Eq)]
pub struct Comparison {
    /// Rows that must be there and are, byte for byte.
    pub same: usize,
    /// Rows committed after the target, which must not be there and are not.
    pub later: usize,
}

impl Record {
    /// A moment about a second before the drop at which nothing was being committed: the middle of the longest pause between
    /// two commits around then. Within a pause, WAL order and time order cannot disagree.
    pub fn moment_before_the_drop(&self) -> anyhow::Result<i64> {
        let around = self.dropped_us - 1_500_000..self.dropped_us - 500_000;
        let mut best: Option<(i64, i64)> = None;
        for (earlier, later) in self.rows.iter().zip(self.rows.iter().skip(1)) {
            let pause = later.committed_us - earlier.committed_us;
            let middle = earlier.committed_us + pause / 2;
            if around.contains(&middle) && best.is_none_or(|(longest, _)| pause > longest) {
                best = Some((pause, middle));
            }
        }
        best.map(|(_, middle)| middle).context("nothing was committed in the second before the drop")
    }

    /// Compares a restored ledger row by row with what had been committed at `target_us`, and the accounts with the ledger.
    ///
    /// # Errors
    ///
    /// Anything that differs, named.
    pub async fn compare(&self, session: &Session, target_us: i64) -> anyhow::Result<Comparison> {
        let rows = session.client().query("SELECT id, md5(l::text) FROM public.ledger l", &[]).await?;
        let mut restored = HashMap::with_capacity(rows.len());
        for row in rows {
            restored.insert(row.try_get::<_, i64>(0)?, row.try_get::<_, String>(1)?);
        }
        let comparison = self.differences(restored, target_us)?;
        let wrong: i64 = session
            .row(
                "SELECT count(*) FROM public.accounts a WHERE balance <> \
                 coalesce((SELECT sum(CASE WHEN l.target = a.id THEN amount ELSE -amount END) \
                           FROM public.ledger l WHERE a.id IN (l.source, l.target)), 0)",
                &[],
                "compare the balances",
            )
            .await?
            .try_get(0)?;
        if wrong != 0 {
            anyhow::bail!("{wrong} balances do not equal the sums of the ledger");
        }
        Ok(comparison)
    }

    fn differences(&self, mut restored: HashMap<i64, String>, target_us: i64) -> anyhow::Result<Comparison> {
        let mut comparison = Comparison { same: 0, later: 0 };
        for row in &self.rows {
            match (restored.remove(&row.id), row.committed_us <= target_us) {
                (Some(digest), true) if digest == row.digest => comparison.same += 1,
                (Some(_), true) => anyhow::bail!("row {} of the ledger came back changed", row.id),
                (None, true) => anyhow::bail!("row {} of the ledger is missing", row.id),
                (Some(_), false) => {
                    anyhow::bail!("row {} of the ledger was committed after the target", row.id)
                }
                (None, false) => comparison.later += 1,
            }
        }
        match restored.keys().next() {
            None => Ok(comparison),
            Some(id) => anyhow::bail!("row {id} of the restored ledger never existed"),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn record(rows: &[(i64, i64)]) -> Record {
        let row = |&(id, committed_us)| RecordedRow { id, digest: format!("d{id}"), committed_us };
        Record { rows: rows.iter().map(row).collect(), dropped_us: 10_000_000 }
    }

    fn ledger(ids: &[i64]) -> HashMap<i64, String> {
        ids.iter().map(|id| (*id, format!("d{id}"))).collect()
    }

    #[test]
    fn the_moment_lies_in_the_longest_pause_a_second_before() {
        let rows =
            [(1, 1_000_000), (2, 8_900_000), (3, 8_901_000), (4, 8_909_000), (5, 8_910_000), (6, 9_990_000)];
        assert_eq!(record(&rows).moment_before_the_drop().unwrap(), 9_450_000);
        let rows = [(1, 8_900_000), (2, 8_901_000), (3, 8_909_000), (4, 8_910_000)];
        assert_eq!(record(&rows).moment_before_the_drop().unwrap(), 8_905_000);
        assert!(record(&[(1, 1)]).moment_before_the_drop().is_err());
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let record = record(&[(1, 10), (2, 20), (3, 30)]);
        assert_eq!(record.differences(ledger(&[1, 2]), 25).unwrap(), Comparison { same: 2, later: 1 });
        for (restored, what) in [
            (ledger(&[1]), "row 2 of the ledger is missing"),
            (ledger(&[1, 2, 3]), "row 3 of the ledger was committed after the target"),
            (ledger(&[1, 2, 9]), "row 9 of the restored ledger never existed"),
            (
                HashMap::from([(1, "d1".to_owned()), (2, "x".to_owned())]),
                "row 2 of the ledger came back changed",
            ),
        ] {
            assert_eq!(record.differences(restored, 25).unwrap_err().to_string(), what);
        }
    }
}
