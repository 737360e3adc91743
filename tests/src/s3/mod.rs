//! A real S3 service inside the test process.
//!
//! The protocol and the signatures are the `s3s` crate's; the objects are ours (`backend`: atomic, in memory), and so are
//! the faults (`faults` begins with their list). The service runs on a thread of its own, so tests of every kind can use it,
//! also through the program under test. It ends when the handle is dropped.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;

use highwater_archive::store::{self, Store, StoreError, StoreSpec};
use hyper::server::conn::http1::Builder;
use hyper_util::rt::TokioIo;
use s3s::host::SingleDomain;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

mod backend;
mod faults;
mod front;
mod keys;
mod policy;

pub use backend::{Object, Objects};
pub use faults::{Fault, Faults, Operation, Request, Response, When};
use front::Front;
pub use keys::{Keys, Life, Temporary};
pub use policy::Policy;

use crate::tls::HOST;

/// The only bucket there is.
pub const BUCKET: &str = "backups";
/// The access key that the service knows.
pub const ACCESS_KEY_ID: &str = "HIGHWATERTESTKEY";
/// And its secret.
pub const SECRET_ACCESS_KEY: &str = "highwater-test-secret";

/// A running service.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    objects: Arc<Objects>,
    faults: Arc<Faults>,
    keys: Arc<Keys>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts a service with an empty bucket on a free port of the loopback interface.
    pub fn start() -> Self {
        let (objects, faults) = (Arc::new(Objects::default()), Arc::new(Faults::default()));
        let mut builder =
            S3ServiceBuilder::new(backend::Backend::new(Arc::clone(&objects), Arc::clone(&faults)));
        let keys = Arc::new(Keys::default());
        builder.set_auth(keys::Shared(Arc::clone(&keys)));
        builder.set_host(SingleDomain::new(HOST).expect("a name"));
        let front = Front::new(builder.build(), Arc::clone(&objects), Arc::clone(&faults), Arc::clone(&keys));
        let (address, stop, thread) = serve(front);
        Self { address, objects, faults, keys, stop: Some(stop), thread: Some(thread) }
    }

    /// `http://127.0.0.1:<port>`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What is stored, by full key.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// What goes wrong, and what was asked.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The access keys it knows.
    pub fn keys(&self) -> &Arc<Keys> {
        &self.keys
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How to open the service at a prefix of its bucket (empty: the whole bucket).
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        StoreSpec {
            url: format!("s3://{BUCKET}/{prefix}"),
            endpoint: Some(self.endpoint()),
            access_key_id: Some(ACCESS_KEY_ID.to_owned().into()),
            secret_access_key: Some(SECRET_ACCESS_KEY.to_owned().into()),
            ..StoreSpec::default()
        }
    }

    /// Opens the service at a prefix of its bucket.
    ///
    /// # Errors
    /// As [`store::open`].
    pub fn store(&self, prefix: &str) -> Result<Arc<dyn Store>, StoreError> {
        store::open(&self.spec(prefix))
    }

    /// The environment that lets the program under test in; the endpoint is a key of its configuration.
    pub fn environment(&self) -> [(&'static str, String); 3] {
        [
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
        ]
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        // Dropping the sender is the sign to stop.
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            assert!(thread.join().is_ok() || std::thread::panicking(), "the S3 service panicked");
        }
    }
}

/// Binds, then serves on a new thread until told to stop.
fn serve(service: Front) -> (SocketAddr, oneshot::Sender<()>, JoinHandle<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port on the loopback interface");
    listener.set_nonblocking(true).expect("a listener that does not block");
    let address = listener.local_addr().expect("the address just bound");
    let (stop, stopped) = oneshot::channel();
    let thread = std::thread::Builder::new().name("s3".into()).spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        runtime.expect("a runtime for the S3 service").block_on(async move {
            let listener = TcpListener::from_std(listener).expect("a listener inside the runtime");
            tokio::select! {
                () = accept(listener, service) => {}
                _ = stopped => {}
            }
        });
    });
    (address, stop, thread.expect("a thread for the S3 service"))
}

async fn accept(listener: TcpListener, service: Front) {
    loop {
        let (socket, _) = listener.accept().await.expect("a connection to the S3 service");
        let service = service.clone();
        tokio::spawn(async move {
            let connections = Builder::new();
            // A connection that breaks is the client's matter, or a fault that was asked for.
            drop(connections.serve_connection(TokioIo::new(socket), service).await);
        });
    }
}
