//! What every test here stands on: a server that archives into a local repository and has a backup in it.

use std::path::PathBuf;

use highwater_tests::{Cluster, ClusterBuilder, Highwater, Postgres, Scratch, files};

/// A cluster with a repository.
pub struct Ground {
    pub cluster: Cluster,
    pub highwater: Highwater,
    pub repository: PathBuf,
}

impl Ground {
    /// Makes and starts the cluster, with `t(n int)` that holds 1 in the backup it takes.
    pub fn with_backup(scratch: &Scratch, builder: ClusterBuilder<'_>) -> Ground {
        let ground = Ground::start(scratch, builder);
        ground.cluster.execute("create table t (n int); insert into t values (1)");
        ground.backup();
        ground
    }

    /// Makes and starts the cluster.
    pub fn start(scratch: &Scratch, builder: ClusterBuilder<'_>) -> Ground {
        let cluster = builder.create();
        let highwater = Highwater::new(scratch, "main", &cluster).local_repository("repo");
        highwater.ok(&["init"]);
        cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
        cluster.start();
        Ground { cluster, highwater, repository: scratch.join("repo") }
    }

    pub fn backup(&self) {
        self.highwater.ok(&["backup", "--fast-checkpoint"]);
    }

    pub fn postgres(&self) -> &'static Postgres {
        self.cluster.postgres()
    }

    /// Commits a row, and gives its transaction's id.
    pub fn insert(&self, n: u32) -> String {
        self.cluster.value(&format!("insert into t values ({n}) returning pg_current_xact_id()::xid"))
    }

    /// Ends the segment and waits until it is archived; gives its name.
    pub fn archive(&self) -> String {
        let segment = self.cluster.switch_wal();
        self.cluster.wait_until_archived(&segment);
        segment
    }

    /// The arguments of a restore into a directory of this name, and the directory.
    pub fn arguments<'a>(target: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        ["restore", "--target-dir", target].iter().chain(more).copied().collect()
    }

    /// Restores into a directory of this name, and gives a server on it that is not started.
    pub fn restore(&self, scratch: &Scratch, name: &str, more: &[&str]) -> Cluster {
        let target = scratch.join(name);
        self.highwater.ok(&Ground::arguments(target.to_str().unwrap(), more));
        let plain: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        Cluster::open(self.postgres(), scratch, &plain, &target)
    }

    /// A restore that must be refused, with these words; the directory is not even made.
    pub fn refused(&self, scratch: &Scratch, more: &[&str], words: &[&str]) {
        let target = scratch.join("refused");
        self.highwater.fails(&Ground::arguments(target.to_str().unwrap(), more), 3, words);
        assert!(!target.exists());
    }

    /// The object of this segment.
    pub fn object(&self, name: &str) -> PathBuf {
        let found =
            self.objects("").into_iter().find(|path| path.file_name().is_some_and(|file| file == name));
        found.unwrap_or_else(|| panic!("{name} is not in the repository"))
    }

    /// The objects whose path contains `part`.
    pub fn objects(&self, part: &str) -> Vec<PathBuf> {
        let objects = files(&self.repository).into_iter();
        objects.filter(|(path, _)| path.contains(part)).map(|(_, file)| file).collect()
    }
}

/// The rows of `t`.
pub fn rows(cluster: &Cluster) -> String {
    cluster.value("select string_agg(n::text, ',' order by n) from t")
}
