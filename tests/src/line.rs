//! A slow line in front of a service: what is sent to it passes no faster than so many bytes a second, for all connections together; some stall
//! half-way. What comes back passes as it comes.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{Instant, sleep_until};

use crate::http::Listener;

/// A running line.
#[derive(Debug)]
pub struct Line {
    listener: Listener,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    target: SocketAddr,
    bytes_a_second: f64,
    /// After so many bytes nothing passes on a connection any more, for the first ones in turn.
    stalls: Vec<u64>,
    connections: AtomicUsize,
    /// When the line has sent what it has taken.
    free: Mutex<Instant>,
}

impl Line {
    /// Starts one that leads to `target`; the first connections stall after so many bytes.
    pub fn start(target: SocketAddr, bytes_a_second: f64, stalls: Vec<u64>) -> Self {
        let (connections, free) = (AtomicUsize::new(0), Mutex::new(Instant::now()));
        let state = Arc::new(State { target, bytes_a_second, stalls, connections, free });
        let shared = Arc::clone(&state);
        let listener = Listener::start("line", move |socket| serve(socket, Arc::clone(&shared)));
        Self { listener, state }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.listener.address()
    }

    /// How many connections there were.
    pub fn connections(&self) -> usize {
        self.state.connections.load(Ordering::SeqCst)
    }
}

async fn serve(client: TcpStream, state: Arc<State>) {
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    let Ok(service) = TcpStream::connect(state.target).await else { return };
    let ((from_client, mut to_client), (mut from_service, to_service)) =
        (client.into_split(), service.into_split());
    tokio::select! {
        () = send(from_client, to_service, &state, number) => {}
        _ = copy(&mut from_service, &mut to_client) => {}
    }
}

/// Passes on what the client sends, at the line's rate, until one side ends.
async fn send(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, number: usize) {
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if state.stalls.get(number).is_some_and(|after| passed >= *after) {
            return std::future::pending().await;
        }
        let until = {
            let mut free = state.free.lock().unwrap_or_else(PoisonError::into_inner);
            *free = Instant::now().max(*free) + Duration::from_secs_f64(length as f64 / state.bytes_a_second);
            *free
        };
        sleep_until(until).await;
        if to.write_all(&buffer[..length]).await.is_err() {
            return;
        }
        passed += length as u64;
    }
}
