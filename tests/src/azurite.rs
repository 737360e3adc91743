//! Azurite: Azure Blob Storage as its own maker emulates it, behind TLS under the tests' own authority.
//!
//! `tests/azurite/install` fetches the program where it is missing. It runs in a scratch directory, and ends with that.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use bytes::Bytes;
use highwater_archive::clock::{Clock as _, SystemClock};
use highwater_archive::store::StoreSpec;
use hyper::HeaderMap;
use hyper::header::HeaderValue;
use jiff::SignedDuration;
use url::form_urlencoded;

use crate::az::{ACCOUNT, account_key, authorization, signature};
use crate::http::{Listener, Request, http_date};
use crate::running::{Running, ask, installed};
use crate::s3::BUCKET;
use crate::scratch::Scratch;
use crate::tls::Authority;

/// What it writes when it takes connections, before the port.
const LISTENING: &str = "successfully listens on http://127.0.0.1:";

/// A running service with an empty container.
#[derive(Debug)]
pub struct Azurite {
    _process: Running,
    tls: Listener,
    ca_file: PathBuf,
}

impl Azurite {
    /// Starts one in a directory of its own within `scratch`.
    ///
    /// # Panics
    /// When it cannot be fetched or does not begin: nothing is skipped in silence.
    pub fn start(scratch: &Scratch) -> Self {
        let mut command = Command::new(installed("azurite/install"));
        command.args(["--blobHost", "127.0.0.1", "--blobPort", "0", "--location", "."]);
        command.args(["--skipApiVersionCheck", "--disableTelemetry"]);
        command.env("AZURITE_ACCOUNTS", format!("{ACCOUNT}:{}", account_key()));
        let mut process = Running::start(scratch, "azurite", &mut command);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let address = runtime.block_on(async {
            let port = process.until("port in its log", async |log| {
                let (_, rest) = log.split_once(LISTENING)?;
                let (port, _) = rest.split_once(|next: char| !next.is_ascii_digit())?;
                port.parse::<u16>().ok()
            });
            let port = port.await.unwrap_or_else(|log| panic!("{log}"));
            let address = SocketAddr::from(([127, 0, 0, 1], port));
            let made = create_container(address).await;
            assert!(made.starts_with("HTTP/1.1 201"), "{made}");
            address
        });
        let authority = Authority::new();
        let ca_file = scratch.file("azurite.pem", authority.certificate_pem());
        Self { _process: process, tls: authority.in_front_of(address), ca_file }
    }

    /// How to open the service at a prefix of its container.
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        StoreSpec {
            url: format!("az://{BUCKET}/{prefix}"),
            // An address cannot carry the account in front of it.
            endpoint: Some(format!("https://{}/{ACCOUNT}", self.tls.address())),
            ca_file: Some(self.ca_file.clone()),
            no_proxy: Some("127.0.0.1".to_owned()),
            account: Some(ACCOUNT.to_owned()),
            account_key: Some(account_key().into()),
            ..StoreSpec::default()
        }
    }

    /// The same by a signature of the container alone, with these permissions.
    pub fn spec_signed(&self, prefix: &str, permissions: &str) -> StoreSpec {
        let ends = SystemClock.now() + SignedDuration::from_hours(1);
        let ends = ends.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        // https://learn.microsoft.com/en-us/rest/api/storageservices/create-service-sas
        let signed =
            format!("{permissions}\n\n{ends}\n/blob/{ACCOUNT}/{BUCKET}\n\n\n\n2020-12-06\nc\n\n\n\n\n\n\n");
        let token = form_urlencoded::Serializer::new(String::new())
            .append_pair("sp", permissions)
            .append_pair("se", &ends)
            .append_pair("sv", "2020-12-06")
            .append_pair("sr", "c")
            .append_pair("sig", &signature(&signed))
            .finish();
        StoreSpec { account_key: None, sas_token: Some(token.into()), ..self.spec(prefix) }
    }
}

/// Makes the container, which is nothing that a repository does for itself; what the service says to it.
async fn create_container(address: SocketAddr) -> String {
    let path = format!("/{ACCOUNT}/{BUCKET}");
    let date = http_date(SystemClock.now());
    let mut headers = HeaderMap::new();
    headers.insert("x-ms-version", HeaderValue::from_static("2023-11-03"));
    headers.insert("x-ms-date", HeaderValue::from_str(&date).expect("a date"));
    let request = Request {
        method: "PUT".into(),
        path: path.clone(),
        raw_path: path.clone(),
        query: BTreeMap::from([("restype".to_owned(), "container".to_owned())]),
        headers,
        body: Bytes::new(),
    };
    let authorization = authorization(&request);
    let lines =
        format!("x-ms-version: 2023-11-03\r\nx-ms-date: {date}\r\nauthorization: {authorization}\r\n");
    ask(address, &format!("PUT {path}?restype=container"), &lines).await.expect("an answer")
}
