//! Making a cluster: what initdb is told, and what stands in `postgresql.conf` before the first start.

use std::path::{Path, PathBuf};

use super::Cluster;
use crate::postgres::Postgres;
use crate::scratch::Scratch;
use crate::user::give_to_server_user;

/// What a new cluster shall be. Data checksums are on and segments have 16 MiB unless told; fsync is on, since a
/// backup of a server without it is refused.
#[derive(Debug)]
#[must_use]
pub struct ClusterBuilder<'a> {
    postgres: &'static Postgres,
    scratch: &'a Scratch,
    name: String,
    data: PathBuf,
    checksums: bool,
    wal_segment_mb: u32,
    wal_directory: Option<PathBuf>,
    config_outside: Option<PathBuf>,
    initdb: Vec<String>,
    settings: Vec<(String, String)>,
}

impl<'a> ClusterBuilder<'a> {
    pub(super) fn new(postgres: &'static Postgres, scratch: &'a Scratch, name: &str) -> Self {
        Self {
            postgres,
            scratch,
            name: name.to_owned(),
            data: scratch.join(name),
            checksums: true,
            wal_segment_mb: 16,
            wal_directory: None,
            config_outside: None,
            initdb: Vec::new(),
            settings: Vec::new(),
        }
    }

    /// With or without data checksums.
    pub fn checksums(mut self, on: bool) -> Self {
        self.checksums = on;
        self
    }

    /// The size of a WAL segment, in MiB.
    pub fn wal_segment_mb(mut self, mb: u32) -> Self {
        self.wal_segment_mb = mb;
        self
    }

    /// `pg_wal` becomes a link to this directory.
    pub fn wal_directory(mut self, path: PathBuf) -> Self {
        self.wal_directory = Some(path);
        self
    }

    /// `postgresql.conf`, `pg_hba.conf` and `pg_ident.conf` lie outside the data directory, as Debian's packages have it.
    pub fn config_outside(self) -> Self {
        let config = self.scratch.dir(format!("{}.etc", self.name));
        let data = self.data.clone();
        self.directories(data, config)
    }

    /// The data directory, which must not be there, and the directory of the configuration, which must.
    pub fn directories(mut self, data: PathBuf, config: PathBuf) -> Self {
        (self.data, self.config_outside) = (data, Some(config));
        self
    }

    /// One more argument of initdb.
    pub fn initdb(mut self, argument: &str) -> Self {
        self.initdb.push(argument.to_owned());
        self
    }

    /// A line of `postgresql.conf`.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Turns archiving on with this command.
    pub fn archive_command(self, command: &str) -> Self {
        self.setting("archive_mode", "on").setting("archive_command", command)
    }

    /// Makes the cluster and leaves it stopped.
    pub fn create(self) -> Cluster {
        let data = self.data.clone();
        self.run_initdb(&data);
        let config = match &self.config_outside {
            Some(config) => move_config(&data, config),
            None => data.clone(),
        };
        let cluster = Cluster::describe(self.postgres, self.scratch, &self.name, data, config);
        let own = [
            ("listen_addresses", ""),
            ("shared_buffers", "32MB"),
            ("max_connections", "40"),
            ("max_wal_size", "512MB"),
            ("log_line_prefix", "%m [%p] "),
            ("timezone", "UTC"),
            ("log_timezone", "UTC"),
            // Autovacuum's timing is the machine's; a test that wants it turns it on.
            ("autovacuum", "off"),
        ];
        cluster.configure(&own);
        let settings: Vec<_> =
            self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        cluster.configure(&settings);
        cluster
    }

    /// Makes the cluster and starts it.
    pub fn start(self) -> Cluster {
        let cluster = self.create();
        cluster.start();
        cluster
    }

    fn run_initdb(&self, data: &Path) {
        let mut arguments = vec![
            format!("--pgdata={}", data.display()),
            format!("--wal-segsize={}", self.wal_segment_mb),
            "--username=postgres".into(),
            "--auth=trust".into(),
            "--no-sync".into(),
            "--no-locale".into(),
            "--encoding=UTF8".into(),
        ];
        match (self.checksums, self.postgres.major) {
            (true, _) => arguments.push("--data-checksums".into()),
            (false, 18..) => arguments.push("--no-data-checksums".into()),
            (false, _) => {}
        }
        arguments.extend(self.wal_directory.iter().map(|path| format!("--waldir={}", path.display())));
        arguments.extend(self.initdb.iter().cloned());
        self.postgres.run("initdb", arguments);
    }
}

/// Moves the configuration files out of the data directory, and gives where they are.
fn move_config(data: &Path, config: &Path) -> PathBuf {
    for name in ["postgresql.conf", "pg_hba.conf", "pg_ident.conf"] {
        let (from, to) = (data.join(name), config.join(name));
        // Not a rename: they may lie on another filesystem.
        std::fs::copy(&from, &to).unwrap();
        std::fs::remove_file(from).unwrap();
        give_to_server_user(&to);
    }
    let path = config.join("postgresql.conf");
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += &format!("data_directory = '{}'\n", data.display());
    text += &format!("hba_file = '{}'\n", config.join("pg_hba.conf").display());
    text += &format!("ident_file = '{}'\n", config.join("pg_ident.conf").display());
    std::fs::write(&path, text).unwrap();
    config.to_owned()
}
