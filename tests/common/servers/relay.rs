//! A TCP relay between a client and its server that counts what passes.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

/// Stands before one server; its connections end with its value.
pub struct Relay {
    address: SocketAddr,
    counts: Arc<Counts>,
    _tasks: JoinSet<()>,
}

/// What has passed, headers of the network's own protocols left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Traffic {
    /// How often the client spoke after the server had: what it had to wait for.
    pub round_trips: u64,
    /// Bytes from the server.
    pub received: u64,
    /// Bytes to the server.
    pub sent: u64,
}

#[derive(Default)]
struct Counts {
    round_trips: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
}

impl Relay {
    pub async fn before(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let counts = Arc::new(Counts::default());
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, server, Arc::clone(&counts)));
        Self { address, counts, _tasks: tasks }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Everything so far. What a client was answered has been counted.
    pub fn traffic(&self) -> Traffic {
        Traffic {
            round_trips: self.counts.round_trips.load(Ordering::SeqCst),
            received: self.counts.received.load(Ordering::SeqCst),
            sent: self.counts.sent.load(Ordering::SeqCst),
        }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            round_trips: self.round_trips - before.round_trips,
            received: self.received - before.received,
            sent: self.sent - before.sent,
        }
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, counts: Arc<Counts>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(server).await else { continue };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
        let asked = Arc::new(AtomicBool::new(false));
        let (counts_up, asked_up) = (Arc::clone(&counts), Arc::clone(&asked));
        connections.spawn(pass(from_client, to_server, move |bytes| {
            counts_up.sent.fetch_add(bytes, Ordering::SeqCst);
            if !asked_up.swap(true, Ordering::SeqCst) {
                counts_up.round_trips.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let counts = Arc::clone(&counts);
        connections.spawn(pass(from_server, to_client, move |bytes| {
            counts.received.fetch_add(bytes, Ordering::SeqCst);
            asked.store(false, Ordering::SeqCst);
        }));
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, count: impl Fn(u64)) {
    let mut piece = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = from.read(&mut piece).await {
        count(read as u64);
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}
