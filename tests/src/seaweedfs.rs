//! SeaweedFS: a whole S3 service that is not ours, behind TLS under the tests' own authority.
//!
//! `tests/seaweedfs` fetches the program where it is missing. It runs in a scratch directory, and ends with that.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use highwater_archive::store::StoreSpec;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::highwater::Finished;
use crate::http::Listener;
use crate::s3::{ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY};
use crate::scratch::Scratch;
use crate::tls::Authority;

/// How long it may take to begin.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running service with an empty bucket.
#[derive(Debug)]
pub struct SeaweedFs {
    process: Child,
    tls: Listener,
    ca_file: PathBuf,
}

impl SeaweedFs {
    /// Starts one in a directory of its own within `scratch`.
    ///
    /// # Panics
    /// When it cannot be fetched or does not begin: nothing is skipped in silence.
    pub fn start(scratch: &Scratch) -> Self {
        let installer = Path::new(env!("CARGO_MANIFEST_DIR")).join("seaweedfs");
        let program = Finished::of(&mut Command::new(installer)).success();
        // A working directory inside makes the scratch directory end it, should this test be killed.
        let directory = scratch.dir("seaweedfs");
        let identities = serde_json::json!({ "identities": [{
            "name": "tests",
            "credentials": [{ "accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY }],
            "actions": ["Admin", "Read", "List", "Write"],
        }]});
        std::fs::write(directory.join("s3.json"), identities.to_string()).expect("the identities");
        let ports = free_ports();
        let mut command = Command::new(program.trim_end());
        command
            .args([
                "server",
                "-dir=.",
                "-ip=127.0.0.1",
                "-ip.bind=127.0.0.1",
                "-volume.max=0",
                "-s3.port.lance=0",
                "-s3.port.iceberg=0",
            ])
            .args(["-master.volumeSizeLimitMB=64", "-s3", "-s3.config=s3.json"]);
        for (name, port) in OPTIONS.iter().zip(&ports) {
            command.arg(format!("-{name}={port}"));
        }
        let log = std::fs::File::options().create_new(true).write(true).open(directory.join("log"));
        let log = log.expect("a log file");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).current_dir(&directory);
        let mut process = command.spawn().unwrap_or_else(|error| panic!("{program}: {error}"));

        let at = |option: &str| {
            let index = OPTIONS.iter().position(|name| *name == option).expect("an option");
            SocketAddr::from(([127, 0, 0, 1], ports[index]))
        };
        let (filer, s3) = (at("filer.port"), at("s3.port"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // A bucket is a directory of the filer; an unsigned request to it is refused as soon as all is ready.
            until_answered(&mut process, filer, &format!("POST /buckets/{BUCKET}/"), "HTTP/1.1 201").await;
            until_answered(&mut process, s3, &format!("GET /{BUCKET}/absent"), "HTTP/1.1 403").await;
        });
        let authority = Authority::new();
        let ca_file = scratch.file("seaweedfs.pem", authority.certificate_pem());
        Self { process, tls: authority.in_front_of(s3), ca_file }
    }

    /// `https://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("https://{}", self.tls.address())
    }

    /// The certificate of the authority.
    pub fn ca_file(&self) -> &Path {
        &self.ca_file
    }

    /// How to open the service at a prefix of its bucket.
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        StoreSpec {
            url: format!("s3://{BUCKET}/{prefix}"),
            endpoint: Some(self.endpoint()),
            ca_file: Some(self.ca_file.clone()),
            no_proxy: Some("127.0.0.1".to_owned()),
            access_key_id: Some(ACCESS_KEY_ID.to_owned().into()),
            secret_access_key: Some(SECRET_ACCESS_KEY.to_owned().into()),
            ..StoreSpec::default()
        }
    }
}

impl Drop for SeaweedFs {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

/// Every port it listens on, or it would take fixed ones.
const OPTIONS: [&str; 8] = [
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
];

/// As many ports, all different, that nobody listens on.
fn free_ports() -> Vec<u16> {
    let listeners: Vec<TcpListener> =
        OPTIONS.iter().map(|_| TcpListener::bind("127.0.0.1:0").expect("a free port")).collect();
    listeners.iter().map(|listener| listener.local_addr().expect("its address").port()).collect()
}

/// Asks again and again until the answer begins as it should, while the process lives.
async fn until_answered(process: &mut Child, address: SocketAddr, request: &str, expected: &str) {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        let said = ask(address, request).await.unwrap_or_default();
        if said.starts_with(expected) {
            return;
        }
        let ended = process.try_wait().expect("a process");
        assert!(ended.is_none(), "SeaweedFS ended ({ended:?}); HIGHWATER_KEEP=1 leaves its log");
        assert!(Instant::now() < deadline, "SeaweedFS at {address} said {said:?} to {request}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn ask(address: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(address).await?;
    let head =
        format!("{request} HTTP/1.1\r\nhost: {address}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    socket.write_all(head.as_bytes()).await?;
    let mut said = Vec::new();
    socket.read_to_end(&mut said).await?;
    Ok(String::from_utf8_lossy(&said).into_owned())
}
