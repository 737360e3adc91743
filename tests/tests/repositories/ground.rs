//! A cluster that archives into a repository, is backed up, and goes on; and what must be in any copy of it.

use highwater_tests::{Cluster, Highwater, Postgres, Scratch};

/// A cluster with one backup and WAL behind it.
pub struct Ground {
    pub cluster: Cluster,
    pub highwater: Highwater,
    /// The backup's id.
    pub backup: String,
    /// The last segment that is archived: all rows are in the archive.
    pub last: String,
}

impl Ground {
    /// `configure` adds the repository to the configuration.
    pub fn new(
        postgres: &'static Postgres,
        scratch: &Scratch,
        configure: impl FnOnce(Highwater) -> Highwater,
    ) -> Self {
        let cluster = Cluster::builder(postgres, scratch, "main").wal_segment_mb(1).create();
        let highwater = configure(Highwater::new(scratch, "main", &cluster));
        highwater.ok(&["init"]);
        cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
        cluster.start();
        let space = scratch.dir("space");
        cluster.execute(&format!("create tablespace space location '{}'", space.display()));
        cluster.execute(
            "create table rows tablespace space as select n, md5(n::text) word from generate_series(1, 20000) n",
        );
        let said = highwater.json(&["backup", "--fast-checkpoint"]);
        let backup = said["backups"][0]["backup"].as_str().unwrap_or_else(|| panic!("{said}")).to_owned();
        cluster.execute("insert into rows select n, 'later' from generate_series(1, 5000) n");
        let last = cluster.switch_wal();
        cluster.wait_until_archived(&last);
        Self { cluster, highwater, backup, last }
    }

    /// What each copy must answer.
    pub fn rows(cluster: &Cluster) -> String {
        cluster.value("select count(*) || ' ' || sum(n) || ' ' || sum(hashtext(word)) from rows")
    }

    /// The argument that puts the tablespace beside a copy of this name.
    pub fn tablespace_map(scratch: &Scratch, name: &str) -> String {
        let (old, new) = (scratch.join("space"), scratch.join(format!("{name}.space")));
        format!("{}={}", old.display(), new.display())
    }

    /// Restores with Highwater and starts what came back; gives what was said on standard error too.
    pub fn restore(&self, scratch: &Scratch, name: &str) -> (Cluster, String) {
        let target = scratch.join(name);
        let map = Self::tablespace_map(scratch, name);
        let arguments = ["restore", "--target-dir", &target.to_string_lossy(), "--tablespace-map", &map];
        let done = self.highwater.run(&arguments);
        assert_eq!(done.code, Some(0), "{done}");
        let copy = Cluster::open(self.cluster.postgres(), scratch, name, &target);
        copy.start();
        copy.wait_until_writable();
        (copy, done.stderr)
    }
}
