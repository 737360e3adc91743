//! What every test here stands on: a server that archives into a local repository, and two ways to look at files.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use highwater_tests::{Cluster, ClusterBuilder, Finished, Highwater, Scratch, files};
use rustix::process::{Pid, Signal, kill_process};

/// A cluster that is initialised and archives, and the configuration it archives with.
pub struct Ground {
    pub cluster: Cluster,
    pub highwater: Highwater,
    repository: PathBuf,
}

impl Ground {
    /// Makes the cluster and starts it.
    pub fn start(scratch: &Scratch, builder: ClusterBuilder<'_>) -> Ground {
        let ground = Ground::prepare(scratch, builder);
        ground.cluster.start();
        ground
    }

    /// Makes the cluster and leaves it stopped.
    pub fn prepare(scratch: &Scratch, builder: ClusterBuilder<'_>) -> Ground {
        let cluster = builder.create();
        let highwater = Highwater::new(scratch, "main", &cluster).local_repository("repo");
        highwater.ok(&["init"]);
        cluster.configure(&[("archive_mode", "on"), ("archive_command", &highwater.archive_command())]);
        Ground { cluster, highwater, repository: scratch.join("repo") }
    }

    /// Runs a backup that must succeed, and gives what it said.
    pub fn backup(&self, arguments: &[&str]) -> serde_json::Value {
        let arguments: Vec<&str> = ["backup", "--fast-checkpoint"].iter().chain(arguments).copied().collect();
        let said = self.highwater.json(&arguments);
        said["backups"][0].clone()
    }

    /// The objects of the repository whose path contains `part`, with their sizes.
    pub fn objects(&self, part: &str) -> BTreeMap<String, u64> {
        let mut objects = files(&self.repository);
        objects.retain(|path, _| path.contains(part));
        objects.into_iter().map(|(path, file)| (path, file.metadata().unwrap().len())).collect()
    }

    /// Restores into a directory of this name.
    pub fn restore(&self, scratch: &Scratch, name: &str, arguments: &[&str]) -> PathBuf {
        let target = scratch.join(name);
        let target_text = target.to_str().unwrap();
        let arguments: Vec<&str> =
            ["restore", "--target-dir", target_text].iter().chain(arguments).copied().collect();
        self.highwater.ok(&arguments);
        target
    }
}

/// A backup that is running.
pub struct Running {
    child: Child,
    command: String,
}

impl Running {
    pub fn start(highwater: &Highwater, arguments: &[&str]) -> Running {
        let mut command = highwater.command(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Running { child: command.spawn().unwrap(), command: format!("{command:?}") }
    }

    /// Waits until `done`; the backup must not end before.
    pub fn wait_for(&mut self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !done() {
            assert!(self.child.try_wait().unwrap().is_none(), "the backup ended before {what}");
            assert!(Instant::now() < deadline, "not {what} within a minute");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Stops every thread of the backup as soon as it has opened this file, for as long as `meanwhile` takes.
    pub fn pause_at(&mut self, file: &Path, meanwhile: impl FnOnce()) {
        let descriptors = PathBuf::from(format!("/proc/{}/fd", self.child.id()));
        self.wait_for("it reads the file", || {
            let open = std::fs::read_dir(&descriptors).into_iter().flatten().flatten();
            open.filter_map(|entry| std::fs::read_link(entry.path()).ok()).any(|path| path == file)
        });
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::STOP).unwrap();
        meanwhile();
        kill_process(pid, Signal::CONT).unwrap();
    }

    /// Ends it as the loss of the host would; whether it had not come to its end before, which must be a good one.
    pub fn kill(mut self) -> bool {
        self.child.kill().unwrap();
        let ended = self.child.wait().unwrap();
        assert!(ended.success() || ended.code().is_none(), "the backup ended with {ended}");
        ended.code().is_none()
    }

    /// Waits for its end.
    pub fn end(self) -> Finished {
        Finished::from_output(self.command, self.child.wait_with_output().unwrap())
    }
}
