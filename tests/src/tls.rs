//! TLS under a certificate authority of the tests' own, in front of any service of theirs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs::default_provider;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::http::Listener;

/// A name that no resolver knows: it is reached through a proxy, or not at all.
pub const HOST: &str = "storage.highwater.test";

/// An authority that only the tests trust.
#[derive(Debug)]
pub struct Authority {
    certificate_pem: String,
    server: Arc<ServerConfig>,
}

impl Authority {
    /// Makes one, and a certificate by it for the loopback interface, for [`HOST`] and for buckets in front of that.
    pub fn new() -> Self {
        let mut authority = CertificateParams::default();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().expect("a key"))
            .expect("an authority's certificate");
        let names =
            vec!["127.0.0.1".to_owned(), "localhost".to_owned(), HOST.to_owned(), format!("*.{HOST}")];
        let key = KeyPair::generate().expect("a key");
        let certificate = CertificateParams::new(names)
            .expect("names for a certificate")
            .signed_by(&key, &authority)
            .expect("a server's certificate");
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .expect("protocol versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], private)
            .expect("a certificate that belongs to the key");
        Self { certificate_pem: authority.pem(), server: Arc::new(server) }
    }

    /// The authority's certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Writes the authority's certificate as `ca_file` wants it.
    pub fn write(&self, directory: &Path) -> PathBuf {
        let path = directory.join("ca.pem");
        std::fs::write(&path, &self.certificate_pem).expect("a certificate file");
        path
    }

    /// Listens with TLS, and hands every connection on to the service at `target`.
    pub fn in_front_of(&self, target: SocketAddr) -> Listener {
        let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
        Listener::start("tls", move |socket| {
            let acceptor = acceptor.clone();
            async move {
                // A handshake that fails, or a connection that breaks, is the client's matter.
                let Ok(mut client) = acceptor.accept(socket).await else { return };
                let Ok(mut service) = TcpStream::connect(target).await else { return };
                drop(copy_bidirectional(&mut client, &mut service).await);
            }
        })
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
