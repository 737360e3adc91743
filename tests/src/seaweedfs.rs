//! SeaweedFS: a whole S3 service that is not ours, behind TLS under the tests' own authority.
//!
//! `tests/seaweedfs` fetches the program where it is missing. It runs in a scratch directory, and ends with that.

use std::net::{SocketAddr, TcpListener};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;

use highwater_archive::store::StoreSpec;

use crate::http::Listener;
use crate::running::{Running, installed};
use crate::s3::{ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY};
use crate::scratch::Scratch;
use crate::tls::Authority;

/// A running service with an empty bucket.
#[derive(Debug)]
pub struct SeaweedFs {
    _process: Running,
    tls: Listener,
    ca_file: PathBuf,
}

impl SeaweedFs {
    /// Starts one in a directory of its own within `scratch`.
    ///
    /// # Panics
    /// When it cannot be fetched or does not begin: nothing is skipped in silence.
    pub fn start(scratch: &Scratch) -> Self {
        Self::with_policies(scratch, &[])
    }

    /// The same, with an access key for each of these policies, a name and a document, which SeaweedFS holds it to.
    ///
    /// # Panics
    /// As [`SeaweedFs::start`].
    pub fn with_policies(scratch: &Scratch, policies: &[(&str, String)]) -> Self {
        let program = installed("seaweedfs");
        // Somebody else may take a port between our look and its start.
        let mut attempts = (0..3).map(|attempt| Self::attempt(scratch, &program, policies, attempt));
        let begun = attempts.try_fold(String::new(), |_, outcome| match outcome {
            Ok(server) => ControlFlow::Break(server),
            Err(log) => ControlFlow::Continue(log),
        });
        match begun {
            ControlFlow::Break(server) => server,
            ControlFlow::Continue(log) => panic!("{log}"),
        }
    }

    fn attempt(
        scratch: &Scratch,
        program: &Path,
        policies: &[(&str, String)],
        attempt: u32,
    ) -> Result<Self, String> {
        let mut identities = vec![serde_json::json!({
            "name": "tests",
            "credentials": [{ "accessKey": ACCESS_KEY_ID, "secretKey": SECRET_ACCESS_KEY }],
            "actions": ["Admin", "Read", "List", "Write"],
        })];
        identities.extend(policies.iter().map(|(name, _)| {
            let (id, secret) = limited_key(name);
            serde_json::json!({
                "name": name,
                "credentials": [{ "accessKey": id, "secretKey": secret }],
                "actions": [],
                "policyNames": [name],
            })
        }));
        let documents =
            policies.iter().map(|(name, document)| serde_json::json!({ "name": name, "content": document }));
        let identities = serde_json::json!({
            "identities": identities,
            "policies": documents.collect::<Vec<_>>(),
        });
        let identities = scratch.file("seaweedfs.json", identities.to_string());
        let ports = free_ports();
        let mut command = Command::new(program);
        command.args(["server", "-dir=.", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=0"]);
        command.args(["-master.volumeSizeLimitMB=64", "-s3", "-s3.port.lance=0", "-s3.port.iceberg=0"]);
        command.arg(format!("-s3.config={}", identities.display()));
        for (name, port) in OPTIONS.iter().zip(&ports) {
            command.arg(format!("-{name}={port}"));
        }
        let mut process = Running::start(scratch, &format!("seaweedfs-{attempt}"), &mut command);
        let at = |option: &str| {
            let index = OPTIONS.iter().position(|name| *name == option).expect("an option");
            SocketAddr::from(([127, 0, 0, 1], ports[index]))
        };
        let (filer, s3) = (at("filer.port"), at("s3.port"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            // A bucket is a directory of the filer; an unsigned request to it is refused as soon as all is ready.
            process.until_answered(filer, &format!("POST /buckets/{BUCKET}/"), "HTTP/1.1 201").await?;
            process.until_answered(s3, &format!("GET /{BUCKET}/absent"), "HTTP/1.1 403").await
        })?;
        let authority = Authority::new();
        let ca_file = scratch.file("seaweedfs.pem", authority.certificate_pem());
        Ok(Self { _process: process, tls: authority.in_front_of(s3), ca_file })
    }

    /// How to open the service at a prefix of its bucket.
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        StoreSpec {
            url: format!("s3://{BUCKET}/{prefix}"),
            endpoint: Some(format!("https://{}", self.tls.address())),
            ca_file: Some(self.ca_file.clone()),
            no_proxy: Some("127.0.0.1".to_owned()),
            access_key_id: Some(ACCESS_KEY_ID.to_owned().into()),
            secret_access_key: Some(SECRET_ACCESS_KEY.to_owned().into()),
            ..StoreSpec::default()
        }
    }

    /// The same with the access key that the policy of this name limits.
    pub fn spec_limited(&self, prefix: &str, policy: &str) -> StoreSpec {
        let (id, secret) = limited_key(policy);
        StoreSpec {
            access_key_id: Some(id.into()),
            secret_access_key: Some(secret.into()),
            ..self.spec(prefix)
        }
    }
}

fn limited_key(policy: &str) -> (String, String) {
    (format!("KEYOF{policy}"), format!("secret-of-{policy}"))
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
