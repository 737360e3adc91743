//! A program of somebody else's that serves a test: fetched where it is missing, run in a scratch directory, and ended with that.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::highwater::Finished;
use crate::scratch::Scratch;

/// How long one may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The program that the installer `tests/<installer>` fetches where it is missing.
///
/// # Panics
/// When it cannot be fetched: nothing is skipped in silence.
pub(crate) fn installed(installer: &str) -> PathBuf {
    let installer = Path::new(env!("CARGO_MANIFEST_DIR")).join(installer);
    PathBuf::from(Finished::of(&mut Command::new(installer)).success().trim_end())
}

/// A program that runs.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    process: Child,
    log: PathBuf,
}

impl Running {
    /// Starts it in a directory of its own; what it says goes to `log` there.
    pub(crate) fn start(scratch: &Scratch, name: &str, command: &mut Command) -> Self {
        // A working directory inside makes the scratch directory end it, should this test be killed.
        let directory = scratch.dir(name);
        let log = directory.join("log");
        let written = File::options().create_new(true).append(true).open(&log).expect("a log file");
        let as_well = written.try_clone().expect("the log file");
        command.stdin(Stdio::null()).stdout(written).stderr(as_well).current_dir(&directory);
        let process = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
        Self { name: name.to_owned(), process, log }
    }

    /// Waits until `look` finds something, given the log; the log, where the program ends before.
    ///
    /// # Panics
    /// When that takes too long.
    pub(crate) async fn until<T>(
        &mut self,
        what: &str,
        mut look: impl AsyncFnMut(&str) -> Option<T>,
    ) -> Result<T, String> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            if let Some(found) = look(&log).await {
                return Ok(found);
            }
            if let Some(ended) = self.process.try_wait().expect("a process") {
                return Err(format!("{} ended with {ended}:\n{log}", self.name));
            }
            assert!(Instant::now() < deadline, "{}: no {what}:\n{log}", self.name);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asks again and again until the answer begins as it should. `request` is a method and a path.
    pub(crate) async fn until_answered(
        &mut self,
        address: SocketAddr,
        request: &str,
        expected: &str,
    ) -> Result<(), String> {
        let what = format!("{expected} at {address} to {request}");
        self.until(&what, async |_| {
            let said = ask(address, request, "").await.unwrap_or_default();
            said.starts_with(expected).then_some(())
        })
        .await
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// One request without a body, with these further lines in its head; what is answered.
pub(crate) async fn ask(address: SocketAddr, request: &str, lines: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let head = format!(
        "{request} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n{lines}\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    let mut said = Vec::new();
    socket.read_to_end(&mut said).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
