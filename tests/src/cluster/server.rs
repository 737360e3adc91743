//! Starting, stopping and killing a server, and waiting for what it does.

use std::fmt::Write as _;
use std::process::Output;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::Cluster;

/// How long a server may take to start, stop, promote or archive.
const PATIENCE: Duration = Duration::from_secs(300);

impl Cluster {
    /// Starts the server and waits until it accepts connections.
    pub fn start(&self) {
        if let Err(reason) = self.try_start() {
            panic!("{reason}");
        }
    }

    /// Starts the server and waits until it accepts connections, or gives the end of its log. `pg_ctl start` may say that a
    /// recovering server has started that then ends at its target, so the answer is from a query.
    pub fn try_start(&self) -> Result<(), String> {
        let started = self.pg_ctl("start");
        let failed = |what: &str| Err(format!("{what}: {}\n{}", self.data().display(), self.log_end()));
        if !started.status.success() {
            return failed("PostgreSQL did not start");
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.try_session().is_ok_and(|session| session.try_execute("select 1").is_ok()) {
                return Ok(());
            }
            if !self.is_running() {
                return failed("PostgreSQL ended after it had started");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        failed("PostgreSQL accepts no connection")
    }

    /// Stops the server as `pg_ctl stop -m fast` does, and looks at its log.
    pub fn stop(&self) {
        let stopped = self.pg_ctl("stop");
        assert!(
            stopped.status.success(),
            "PostgreSQL did not stop: {}\n{}",
            self.data().display(),
            self.log_end()
        );
        self.check_log();
    }

    /// Stops and starts the server.
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Makes the server read its configuration again.
    pub fn reload(&self) {
        self.execute("select pg_reload_conf()");
    }

    /// Kills the postmaster and everything under it, as the loss of the host's power would. What was written lies in the page
    /// cache and is not lost.
    pub fn kill(&self) {
        let pid = self.postmaster().expect("a server that runs");
        kill_process(pid, Signal::KILL).unwrap();
        // Its children see that it is gone and end; shared memory is in use until then.
        self.wait("the end of the killed server", || self.processes() == 0);
        self.wait_until_reaped(pid);
    }

    /// Waits until the killed postmaster is no zombie any more: the next one would take its lock files for those of a live
    /// server. In a container whose first process does not reap, it stays one, and the lock files have to go.
    fn wait_until_reaped(&self, pid: Pid) {
        let process = std::path::Path::new("/proc").join(pid.as_raw_nonzero().to_string());
        let deadline = Instant::now() + Duration::from_secs(5);
        while process.exists() {
            if Instant::now() > deadline {
                let _ = std::fs::remove_file(self.data().join("postmaster.pid"));
                let _ = std::fs::remove_file(self.socket().join(".s.PGSQL.5432.lock"));
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Promotes a standby, or a server paused at its target, and waits until it can be written to.
    pub fn promote(&self) {
        self.execute("select pg_promote(true, 60)");
        self.wait_until_writable();
    }

    /// Waits until recovery is over, and fails the test if the server ends instead.
    pub fn wait_until_writable(&self) {
        self.wait("the end of recovery", || self.ask("select pg_is_in_recovery()").as_deref() == Some("f"));
    }

    /// Waits until recovery has paused at its target, and fails the test if the server ends instead.
    pub fn wait_until_paused(&self) {
        self.wait("the pause at the target", || {
            self.ask("select pg_get_wal_replay_pause_state()").as_deref() == Some("paused")
        });
    }

    /// Waits until the archiver has acknowledged this segment or a later one of its timeline.
    pub fn wait_until_archived(&self, segment: &str) {
        self.wait(&format!("the archiving of {segment}"), || {
            let sql =
                "select last_archived_wal from pg_stat_archiver where last_archived_wal ~ '^[0-9A-F]{24}'";
            self.ask(sql).is_some_and(|last| last.get(..24) >= Some(segment))
        });
    }

    /// Waits until `done` says so, and fails the test, with the server's log, after two minutes or when the server has ended.
    pub fn wait(&self, what: &str, mut done: impl FnMut() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        let mut running = true;
        loop {
            if done() {
                return;
            }
            assert!(running, "PostgreSQL ended before {what}: {}\n{}", self.data().display(), self.log_end());
            assert!(Instant::now() < deadline, "waited two minutes for {what}\n{}", self.log_end());
            running = self.processes() > 0;
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether a postmaster runs on the data directory.
    pub fn is_running(&self) -> bool {
        self.postmaster().is_some()
    }

    /// The postmaster's process id.
    pub fn postmaster(&self) -> Option<Pid> {
        let text = std::fs::read_to_string(self.data().join("postmaster.pid")).ok()?;
        let pid = text.lines().next()?.parse().ok()?;
        let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        (cwd == self.data().canonicalize().ok()?).then(|| Pid::from_raw(pid)).flatten()
    }

    /// The processes whose working directory is the data directory: the postmaster and all it has forked.
    fn processes(&self) -> usize {
        let Ok(data) = self.data().canonicalize() else { return 0 };
        let Ok(processes) = std::fs::read_dir("/proc") else { return 0 };
        processes
            .flatten()
            .filter(|process| std::fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == data))
            .count()
    }

    fn ask(&self, sql: &str) -> Option<String> {
        let rows = self.try_session().ok()?.try_rows(sql).ok()?;
        rows.into_iter().next()?.into_iter().next()?
    }

    fn pg_ctl(&self, action: &str) -> Output {
        let mut options = format!(
            "-c unix_socket_directories={} -c listen_addresses= -c port=5432",
            self.socket().display()
        );
        for (name, value) in self.options.lock().unwrap().iter() {
            let value = value.replace('\'', r"'\''");
            write!(options, " -c '{name}={value}'").unwrap();
        }
        let mut command = self.postgres().command("pg_ctl");
        command.envs(self.environment.lock().unwrap().iter().cloned());
        command.arg(action).arg("--pgdata").arg(self.config()).args(["--wait", "--timeout=120"]);
        match action {
            "start" => command.arg("--log").arg(&self.log).arg("--options").arg(options),
            _ => command.args(["--mode=fast"]),
        };
        // A server inherits these: with a pipe, reading it to the end would wait for the server to stop.
        let log = std::fs::File::options()
            .create(true)
            .append(true)
            .open(self.log.with_extension("pg_ctl"))
            .unwrap();
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        let status = command.status().unwrap_or_else(|error| panic!("pg_ctl {action}: {error}"));
        Output { status, stdout: Vec::new(), stderr: Vec::new() }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if !self.is_running() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("the end of {}:\n{}", self.log.display(), self.log_end());
        }
        let mut stop = self.postgres().command("pg_ctl");
        stop.arg("stop").arg("--pgdata").arg(self.config()).args(["--wait", "--mode=immediate"]);
        let _ = stop.stdout(std::process::Stdio::null()).status();
        if !std::thread::panicking() {
            self.check_log();
        }
    }
}
