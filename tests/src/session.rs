//! One connection, used by one thread at a time: statements as text, values as text, as `psql` would show them.

use tokio::runtime::Runtime;
use tokio_postgres::{Client, Error, NoTls, SimpleQueryMessage};

/// A connection whose calls block.
#[derive(Debug)]
pub struct Session {
    runtime: Runtime,
    client: Client,
}

impl Session {
    /// Connects by a libpq connection string.
    pub fn connect(connection: &str) -> Result<Self, Error> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(connection, NoTls).await?;
            tokio::spawn(connection);
            Ok::<_, Error>(client)
        })?;
        Ok(Self { runtime, client })
    }

    /// Runs statements and gives the rows of all of them.
    pub fn try_rows(&self, sql: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        let messages = self.runtime.block_on(self.client.simple_query(sql))?;
        let rows = messages.into_iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
            }
            _ => None,
        });
        Ok(rows.collect())
    }

    /// Runs statements; an error is returned.
    pub fn try_execute(&self, sql: &str) -> Result<(), Error> {
        self.try_rows(sql).map(drop)
    }

    /// Runs statements; an error fails the test.
    pub fn execute(&self, sql: &str) {
        self.rows(sql);
    }

    /// Runs statements and gives their rows; an error fails the test.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.try_rows(sql).unwrap_or_else(|error| panic!("{}\n{sql}", describe(&error)))
    }

    /// The one value of the one row that the statement gives; NULL is the empty string.
    pub fn value(&self, sql: &str) -> String {
        let rows = self.rows(sql);
        assert!(rows.len() == 1 && rows[0].len() == 1, "one row with one column wanted, not {rows:?}\n{sql}");
        rows[0][0].clone().unwrap_or_default()
    }
}

fn describe(error: &Error) -> String {
    error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
}
