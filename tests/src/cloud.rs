//! A provider's service, whichever it is.

use std::sync::Arc;

use highwater_archive::store::{self, Persistence, Store, StoreSpec};

use crate::az::AzServer;
use crate::gs::GsServer;
use crate::s3::{Faults, Keys, Objects, Response, S3Server};

/// One of the services in the test process.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum CloudServer {
    Amazon(S3Server),
    Google(GsServer),
    Azure(AzServer),
}

impl CloudServer {
    /// S3 with an empty bucket.
    pub fn amazon() -> Self {
        Self::Amazon(S3Server::start())
    }

    /// Google Cloud Storage with an empty bucket.
    pub fn google() -> Self {
        Self::Google(GsServer::start())
    }

    /// Azure Blob with an empty container.
    pub fn azure() -> Self {
        Self::Azure(AzServer::start())
    }

    /// How to open it at a prefix.
    pub fn spec(&self, prefix: &str) -> StoreSpec {
        match self {
            Self::Amazon(server) => server.spec(prefix),
            Self::Google(server) => server.spec(prefix),
            Self::Azure(server) => server.spec(prefix),
        }
    }

    /// A store at a prefix.
    pub fn store(&self, prefix: &str) -> Arc<dyn Store> {
        self.store_with(prefix, Persistence::USUAL)
    }

    /// A store at a prefix, that asks for so long.
    pub fn store_with(&self, prefix: &str, persistence: Persistence) -> Arc<dyn Store> {
        store::open_with(&self.spec(prefix), persistence).expect("open")
    }

    /// What goes wrong, and what was asked.
    pub fn faults(&self) -> &Faults {
        match self {
            Self::Amazon(server) => server.faults(),
            Self::Google(server) => server.faults(),
            Self::Azure(server) => server.faults(),
        }
    }

    /// The keys and tokens that it takes.
    pub fn keys(&self) -> &Arc<Keys> {
        match self {
            Self::Amazon(server) => server.keys(),
            Self::Google(server) => server.keys(),
            Self::Azure(server) => server.keys(),
        }
    }

    /// What is stored.
    pub fn objects(&self) -> &Objects {
        match self {
            Self::Amazon(server) => server.objects(),
            Self::Google(server) => server.objects(),
            Self::Azure(server) => server.objects(),
        }
    }

    /// What it says of an object that is there already, and that it says nothing else with.
    pub fn conflict(&self) -> Response {
        match self {
            Self::Amazon(_) | Self::Google(_) => Response::Status(412, "PreconditionFailed"),
            Self::Azure(_) => Response::Status(409, "BlobAlreadyExists"),
        }
    }

    /// What it calls an object that is missing, and a bucket or container.
    pub fn missing(&self) -> (&'static str, &'static str) {
        match self {
            Self::Amazon(_) | Self::Google(_) => ("NoSuchKey", "NoSuchBucket"),
            Self::Azure(_) => ("BlobNotFound", "ContainerNotFound"),
        }
    }

    /// What it calls being asked too often.
    pub fn busy(&self) -> &'static str {
        match self {
            Self::Amazon(_) | Self::Google(_) => "SlowDown",
            Self::Azure(_) => "ServerBusy",
        }
    }
}
