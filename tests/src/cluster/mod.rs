//! A PostgreSQL server of a test: made by [`ClusterBuilder`], or opened where a restore has put one. It listens on a socket
//! in the scratch directory only, writes its log there, and is stopped when dropped. The harness reads that log: a
//! panic, a warning, or an archive command that failed fails the test, unless [`Cluster::tolerate`] has announced it.

mod builder;
mod log;
mod server;

pub use builder::ClusterBuilder;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use crate::postgres::Postgres;
use crate::scratch::Scratch;
use crate::session::Session;

/// A server, running or not.
#[derive(Debug)]
pub struct Cluster {
    postgres: &'static Postgres,
    data: PathBuf,
    /// The directory whose `postgresql.conf` the server reads: the data directory, or one outside it as Debian has it.
    config: PathBuf,
    socket: PathBuf,
    log: PathBuf,
    /// Settings of the command line, which win over the configuration files.
    options: Mutex<Vec<(String, String)>>,
    /// The environment of the server, beside the test's own.
    environment: Mutex<Vec<(String, String)>>,
    tolerated: Mutex<Vec<String>>,
    /// Whether warnings fail the test, or panics alone.
    strict: bool,
}

impl Cluster {
    /// Begins to describe a new cluster.
    pub fn builder<'a>(postgres: &'static Postgres, scratch: &'a Scratch, name: &str) -> ClusterBuilder<'a> {
        ClusterBuilder::new(postgres, scratch, name)
    }

    /// A server on a data directory that exists, such as a restored one; it is not started. It runs without fsync, and with
    /// `archive_mode` as its configuration says.
    pub fn open(postgres: &'static Postgres, scratch: &Scratch, name: &str, data: &Path) -> Self {
        Self::open_outside(postgres, scratch, name, data, data)
    }

    /// The same where `postgresql.conf` lies in a directory outside, which is what `pg_ctl` is told.
    pub fn open_outside(
        postgres: &'static Postgres,
        scratch: &Scratch,
        name: &str,
        data: &Path,
        config: &Path,
    ) -> Self {
        let mut cluster = Self::describe(postgres, scratch, name, data.to_owned(), config.to_owned());
        cluster.strict = false;
        cluster.option("fsync", "off");
        cluster
    }

    fn describe(
        postgres: &'static Postgres,
        scratch: &Scratch,
        name: &str,
        data: PathBuf,
        config: PathBuf,
    ) -> Self {
        Self {
            postgres,
            data,
            config,
            socket: scratch.dir(format!("{name}.s")),
            log: scratch.join(format!("{name}.log")),
            options: Mutex::default(),
            environment: Mutex::default(),
            tolerated: Mutex::default(),
            strict: true,
        }
    }

    /// The installation that it runs on.
    pub fn postgres(&self) -> &'static Postgres {
        self.postgres
    }

    /// The data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// The directory of `postgresql.conf`.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The directory of its socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// A libpq connection string for the superuser.
    pub fn connection(&self) -> String {
        format!("host={} port=5432 user=postgres dbname=postgres", self.socket.display())
    }

    /// A session of the superuser.
    pub fn session(&self) -> Session {
        self.try_session()
            .unwrap_or_else(|error| panic!("connect to {}: {error}\n{}", self.data.display(), self.log_end()))
    }

    /// A session of the superuser, or the reason why there is none.
    pub fn try_session(&self) -> Result<Session, tokio_postgres::Error> {
        Session::connect(&self.connection())
    }

    /// Runs statements in a session of their own.
    pub fn execute(&self, sql: &str) {
        self.session().execute(sql);
    }

    /// The rows of statements that run in a session of their own.
    pub fn rows(&self, sql: &str) -> Vec<Vec<Option<String>>> {
        self.session().rows(sql)
    }

    /// The one value that a statement gives, in a session of its own.
    pub fn value(&self, sql: &str) -> String {
        self.session().value(sql)
    }

    /// A client program (`psql`, `pg_dump`, `pgbench`, …) that connects to this server.
    pub fn client(&self, program: &str) -> Command {
        let mut command = self.postgres.command(program);
        command
            .env("PGHOST", &self.socket)
            .env("PGPORT", "5432")
            .env("PGUSER", "postgres")
            .env("PGDATABASE", "postgres");
        command
    }

    /// Appends lines to `postgresql.conf`; they count from the next start or reload.
    pub fn configure(&self, settings: &[(&str, &str)]) {
        let path = self.config.join("postgresql.conf");
        let mut text =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for (name, value) in settings {
            text += &format!("{name} = '{}'\n", value.replace('\'', "''"));
        }
        std::fs::write(&path, text).unwrap();
    }

    /// Sets a variable of the server's environment, from its next start on.
    pub fn environment(&self, name: &str, value: &str) {
        self.environment.lock().unwrap().push((name.to_owned(), value.to_owned()));
    }

    /// A setting of the server's command line from its next start on; it wins over the configuration files.
    pub fn option(&self, name: &str, value: &str) {
        self.options.lock().unwrap().push((name.to_owned(), value.to_owned()));
    }

    /// Where WAL is written now.
    pub fn lsn(&self) -> String {
        self.value("select pg_current_wal_lsn()")
    }

    /// Ends the current segment, and gives its name.
    pub fn switch_wal(&self) -> String {
        // A record first: where nothing was written since the last switch, pg_switch_wal does nothing.
        self.value("select pg_walfile_name(lsn) from (select pg_logical_emit_message(false, 'test', 'switch') as lsn) x");
        self.value("select pg_walfile_name(pg_switch_wal())")
    }
}
