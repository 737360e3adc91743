//! One connection, set up so that nothing on the server changes what our queries mean or cuts them off.

use std::path::Path;

use highwater_pitr::wal::PgMajor;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};

use super::error::told;
use super::settings::Settings;
use super::{PgError, conninfo};
use crate::config::Config;

/// An SQL session. It ends when this is dropped; [`Session::close`] also waits until the server has been told.
pub struct Session {
    client: Client,
    major: PgMajor,
    connection: tokio::task::JoinHandle<()>,
}

impl Session {
    /// Connects as the configuration says.
    ///
    /// # Errors
    ///
    /// [`PgError::Conninfo`], [`PgError::Connect`], and [`PgError::Version`] for a server that is not 14 to 18.
    pub async fn connect(config: &Config) -> Result<Self, PgError> {
        Self::open(config.connection.as_deref(), config.data_dir().ok()).await
    }

    /// Connects with a libpq connection string; what it leaves open is taken from the server that runs in `data_dir`.
    ///
    /// # Errors
    ///
    /// As [`Session::connect`].
    pub async fn open(connection: Option<&str>, data_dir: Option<&Path>) -> Result<Self, PgError> {
        Self::start(conninfo::resolve(connection, data_dir)?).await
    }

    /// Connects as the configuration says, to another database.
    ///
    /// # Errors
    ///
    /// As [`Session::connect`].
    pub async fn connect_to(config: &Config, database: &str) -> Result<Self, PgError> {
        let mut resolved = conninfo::resolve(config.connection.as_deref(), config.data_dir().ok())?;
        resolved.dbname(database);
        Self::start(resolved).await
    }

    async fn start(config: tokio_postgres::Config) -> Result<Self, PgError> {
        let target = conninfo::describe(&config);
        let (client, connection) = config.connect(NoTls).await.map_err(|error| {
            let (reason, code) = told(&error);
            PgError::Connect { target, reason, code }
        })?;
        let connection = tokio::spawn(async move {
            if let Err(error) = connection.await {
                // Whoever uses the session gets the error of the query it made; this one names the cause.
                tracing::info!("the connection to PostgreSQL ended: {}", told(&error).0);
            }
        });
        let version =
            query_text(&client, "SELECT current_setting('server_version_num')", "tell its version").await?;
        let number: u32 = version
            .parse()
            .map_err(|_| PgError::Value { name: "server_version_num".to_owned(), value: version.clone() })?;
        let major = PgMajor::from_number(number / 10_000).ok_or(PgError::Version { version })?;
        let prepare = "SET search_path = pg_catalog; SET statement_timeout = 0; SET lock_timeout = 0; \
             SET idle_in_transaction_session_timeout = 0; SET idle_session_timeout = 0; SET DateStyle = ISO; SET TimeZone = 'UTC'; \
             SET standard_conforming_strings = on; SET bytea_output = hex";
        let session = Self { client, major, connection };
        session.execute(prepare, "prepare the session").await?;
        if major >= PgMajor::V17 {
            session.execute("SET transaction_timeout = 0", "prepare the session").await?;
        }
        Ok(session)
    }

    /// Ends the session in an orderly way, which the server's log then does not mention.
    pub async fn close(self) {
        drop(self.client);
        // The task only forwards messages; that it is over is all there is to know.
        self.connection.await.ok();
    }

    /// The server's major version.
    pub fn major(&self) -> PgMajor {
        self.major
    }

    /// The client, for what this type does not offer.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Runs statements that return nothing; `what` says in words what they do.
    ///
    /// # Errors
    ///
    /// [`PgError::Query`].
    pub async fn execute(&self, sql: &str, what: &str) -> Result<(), PgError> {
        self.client.batch_execute(sql).await.map_err(|error| PgError::query(what, &error))
    }

    /// Runs a query that returns one row.
    ///
    /// # Errors
    ///
    /// [`PgError::Query`], also when the rows are not exactly one.
    pub async fn row(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
        what: &str,
    ) -> Result<Row, PgError> {
        self.client.query_one(sql, parameters).await.map_err(|error| PgError::query(what, &error))
    }

    /// Runs a query that returns one value of type text.
    ///
    /// # Errors
    ///
    /// [`PgError::Query`].
    pub async fn text(&self, sql: &str, what: &str) -> Result<String, PgError> {
        query_text(&self.client, sql, what).await
    }

    /// What the server is set to.
    ///
    /// # Errors
    ///
    /// [`PgError::Query`], [`PgError::Value`].
    pub async fn settings(&self) -> Result<Settings, PgError> {
        Settings::read(self).await
    }
}

async fn query_text(client: &Client, sql: &str, what: &str) -> Result<String, PgError> {
    let row = client.query_one(sql, &[]).await.map_err(|error| PgError::query(what, &error))?;
    row.try_get(0).map_err(|error| PgError::query(what, &error))
}
