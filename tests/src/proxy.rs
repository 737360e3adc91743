//! An HTTP proxy that knows `CONNECT` and nothing else, as firewalls run it.
//!
//! It leads every name to one address, so that names which no resolver knows are reached through it alone.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpStream;

use crate::http::Listener;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    listener: Listener,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    /// Starts one that leads to `target`.
    pub fn start(target: SocketAddr) -> Self {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        let listener = Listener::start("proxy", move |socket| serve(socket, target, Arc::clone(&log)));
        Self { listener, asked }
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// What it was asked to connect to, `host:port` each.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn serve(mut client: TcpStream, target: SocketAddr, asked: Arc<Mutex<Vec<String>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = client.read_u8().await else { return };
        head.push(byte);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let Some(name) = head.strip_prefix("CONNECT ").and_then(|rest| rest.split(' ').next()) else {
        drop(client.write_all(b"HTTP/1.1 405 Method Not Allowed\r\ncontent-length: 0\r\n\r\n").await);
        return;
    };
    asked.lock().unwrap_or_else(PoisonError::into_inner).push(name.to_owned());
    let Ok(mut service) = TcpStream::connect(target).await else { return };
    if client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await.is_ok() {
        drop(copy_bidirectional(&mut client, &mut service).await);
    }
}
