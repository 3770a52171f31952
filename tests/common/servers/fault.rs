//! A TCP proxy of our own between a store and its server, which does on demand what networks do.
//!
//! A fault is either standing ([`FaultProxy::set`]: every piece that passes meets it, until it is changed), or
//! strikes once ([`FaultProxy::strike`]: the next request that holds some text, or the answer to it), or comes
//! at random from a seed ([`FaultProxy::at_random`]). A piece is what one read gave: a request or an answer as
//! a rule, several where a client sends several at once.

use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// What happens to a piece, or to its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// It comes later by so much.
    Delay(Duration),
    /// Every byte goes by itself.
    Split,
    /// The request is passed on and done; its answer, and all after it, never come. The connection stays open.
    Swallow,
    /// The connection is closed instead of passing the answer on: done, and the client does not know.
    CutReply,
    /// The connection is closed instead of passing the request on: not done.
    CutRequest,
    /// The connection is reset in the middle of the answer.
    ResetReply,
    /// The connection is reset in the middle of the request.
    ResetRequest,
    /// The answer never comes, and the client's side ends as if the server had said its last word; what the
    /// client still sends is passed on and done.
    HalfClose,
    /// Nothing goes either way and nothing ends. Standing, it holds pieces back until it is lifted; once or at
    /// random, it loses all that comes over the connection, as a dead route does.
    Freeze,
    /// The connection is reset as soon as it is made; one that is there already, with its next request.
    Refuse,
}

/// The faults that random mode throws. Only few of them end a connection, so that work goes on between.
const RANDOM: [Fault; 10] = [
    Fault::Delay(Duration::from_millis(5)),
    Fault::Delay(Duration::from_millis(50)),
    Fault::Split,
    Fault::Swallow,
    Fault::CutReply,
    Fault::CutRequest,
    Fault::ResetReply,
    Fault::ResetRequest,
    Fault::HalfClose,
    Fault::Freeze,
];

/// Stands before one server; ends with its value, and its connections with it.
pub struct FaultProxy {
    address: SocketAddr,
    state: Arc<State>,
    _tasks: JoinSet<()>,
}

struct State {
    server: Mutex<SocketAddr>,
    standing: watch::Sender<Fault>,
    /// Grows when all connections are to end.
    cuts: watch::Sender<u64>,
    armed: Mutex<Option<(Fault, Vec<u8>)>>,
    random: Mutex<Option<Random>>,
    connections: AtomicU64,
    struck: Mutex<BTreeMap<Fault, u64>>,
}

struct Random {
    state: u64,
    one_in: u64,
}

impl FaultProxy {
    /// A proxy on a free port of the loopback address that passes everything on.
    pub async fn before(server: SocketAddr) -> Self {
        Self::on(0, server).await
    }

    /// The same on this port: for servers that must know beforehand under which port they are reached.
    pub async fn on(port: u16, server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State {
            server: Mutex::new(server),
            standing: watch::Sender::new(Fault::Pass),
            cuts: watch::Sender::new(0),
            armed: Mutex::default(),
            random: Mutex::default(),
            connections: AtomicU64::new(0),
            struck: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&state)));
        Self { address, state, _tasks: tasks }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on new connections lead to this server, as when an address has moved to another machine.
    pub fn lead_to(&self, server: SocketAddr) {
        *lock(&self.state.server) = server;
    }

    /// From now on every piece of every connection meets this fault.
    pub fn set(&self, fault: Fault) {
        self.state.standing.send_replace(fault);
    }

    /// The next request that holds this text, or the answer to it, meets this fault once; an empty text is in
    /// every request. One that was asked for before and has not struck yet is forgotten.
    pub fn strike(&self, fault: Fault, text: impl AsRef<[u8]>) {
        *lock(&self.state.armed) = Some((fault, text.as_ref().to_vec()));
    }

    /// Takes back what was to strike once; false where it has met its request already, and strikes.
    pub fn spare(&self) -> bool {
        lock(&self.state.armed).take().is_some()
    }

    /// From now on one request in `one_in`, or the answer to it, meets a random fault. The same seed gives the
    /// same faults in the same order; which request meets which depends on when they come.
    pub fn at_random(&self, seed: u64, one_in: u64) {
        *lock(&self.state.random) = Some(Random { state: seed, one_in });
    }

    /// No more faults: neither standing, nor waiting to strike, nor at random. Connections that a fault has
    /// frozen or muted for good end.
    pub fn clear(&self) {
        *lock(&self.state.armed) = None;
        *lock(&self.state.random) = None;
        self.set(Fault::Pass);
        self.cut();
    }

    /// Resets every connection that there is.
    pub fn cut(&self) {
        self.state.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// How often this fault met a piece.
    pub fn struck(&self, fault: Fault) -> u64 {
        lock(&self.state.struck).get(&fault).copied().unwrap_or_default()
    }

    /// How often each fault met a piece, to be printed.
    pub fn counts(&self) -> String {
        let struck = lock(&self.state.struck);
        let counts: Vec<_> = struck.iter().map(|(fault, count)| format!("{count} {fault:?}")).collect();
        counts.join(", ")
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.state.connections.load(Ordering::Relaxed)
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut lines = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        while lines.try_join_next().is_some() {}
        state.connections.fetch_add(1, Ordering::Relaxed);
        if *state.standing.borrow() == Fault::Refuse {
            state.strikes(Fault::Refuse);
            let _ = client.set_zero_linger();
            continue;
        }
        lines.spawn(serve(client, Arc::clone(&state)));
    }
}

/// Passes pieces on until either side is done, or a fault ends it.
async fn serve(client: TcpStream, state: Arc<State>) {
    // A server that is away refuses; so does the way to it.
    let server = *lock(&state.server);
    let Ok(server) = TcpStream::connect(server).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let mut cuts = state.cuts.subscribe();
    let line = Line { state, muted: watch::Sender::new(None) };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let end = tokio::select! {
        end = line.requests(&mut from_client, &mut to_server) => end,
        end = line.replies(&mut from_server, &mut to_client) => end,
        _ = cuts.changed() => Ok(End::Reset),
    };
    if matches!(end, Ok(End::Reset)) {
        let _ = (from_client.as_ref().set_zero_linger(), from_server.as_ref().set_zero_linger());
        // Dropped, they would say goodbye first.
        to_client.forget();
        to_server.forget();
    }
}

/// How a connection ends.
enum End {
    Close,
    Reset,
}

/// One connection.
struct Line {
    state: Arc<State>,
    /// The fault that the answer to a request is to meet.
    muted: watch::Sender<Option<Fault>>,
}

impl Line {
    async fn requests(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<End> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from.read(&mut buffer).await?;
            if read == 0 {
                // The client has said its last word; the server may still answer.
                to.shutdown().await?;
                return std::future::pending().await;
            }
            let piece = &buffer[..read];
            let fault = self.state.fault(piece);
            self.state.thaw().await;
            if *self.muted.borrow() == Some(Fault::Freeze) {
                continue;
            }
            match fault {
                Fault::CutRequest => return self.end(fault, End::Close),
                Fault::Refuse => return self.end(fault, End::Reset),
                Fault::ResetRequest => {
                    to.write_all(&piece[..read / 2]).await?;
                    return self.end(fault, End::Reset);
                }
                Fault::Freeze => {
                    self.state.strikes(fault);
                    self.muted.send_replace(Some(fault));
                    continue;
                }
                Fault::Swallow | Fault::CutReply | Fault::ResetReply | Fault::HalfClose => {
                    self.muted.send_replace(Some(fault));
                    to.write_all(piece).await?;
                }
                _ => self.pass(fault, piece, to).await?,
            }
        }
    }

    async fn replies(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) -> io::Result<End> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = from.read(&mut buffer).await?;
            let piece = &buffer[..read];
            self.state.thaw().await;
            let muted = *self.muted.borrow();
            if read == 0 {
                return Ok(End::Close);
            }
            match muted {
                Some(fault @ Fault::CutReply) => return self.end(fault, End::Close),
                Some(fault @ Fault::ResetReply) => {
                    to.write_all(&piece[..read / 2]).await?;
                    return self.end(fault, End::Reset);
                }
                Some(fault @ Fault::HalfClose) => {
                    // Again and again: the second time it is closed already.
                    if to.shutdown().await.is_ok() {
                        self.state.strikes(fault);
                    }
                }
                Some(fault @ Fault::Swallow) => self.state.strikes(fault),
                Some(_) => {}
                None => self.pass(self.state.standing(), piece, to).await?,
            }
        }
    }

    async fn pass(&self, fault: Fault, piece: &[u8], to: &mut OwnedWriteHalf) -> io::Result<()> {
        if let Fault::Delay(time) = fault {
            self.state.strikes(fault);
            tokio::time::sleep(time).await;
        }
        if fault != Fault::Split {
            return to.write_all(piece).await;
        }
        self.state.strikes(fault);
        for byte in piece.chunks(1) {
            to.write_all(byte).await?;
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn end(&self, fault: Fault, end: End) -> io::Result<End> {
        self.state.strikes(fault);
        Ok(end)
    }
}

impl State {
    /// What a request meets. A fault that strikes once comes before one at random, and that before the
    /// standing one.
    fn fault(&self, piece: &[u8]) -> Fault {
        let mut armed = lock(&self.armed);
        let holds = |text: &[u8]| text.is_empty() || piece.windows(text.len()).any(|window| window == text);
        if let Some((fault, _)) = armed.take_if(|(_, text)| holds(text)) {
            return fault;
        }
        lock(&self.random).as_mut().and_then(Random::throw).unwrap_or_else(|| self.standing())
    }

    /// The standing fault of a piece that goes; a standing freeze is waited out before.
    fn standing(&self) -> Fault {
        Some(*self.standing.borrow()).filter(|fault| *fault != Fault::Freeze).unwrap_or(Fault::Pass)
    }

    /// Waits until nothing is frozen by a standing fault.
    async fn thaw(&self) {
        let mut standing = self.standing.subscribe();
        if *standing.borrow() == Fault::Freeze {
            self.strikes(Fault::Freeze);
            let _ = standing.wait_for(|fault| *fault != Fault::Freeze).await;
        }
    }

    fn strikes(&self, fault: Fault) {
        *lock(&self.struck).entry(fault).or_default() += 1;
    }
}

impl Random {
    fn throw(&mut self) -> Option<Fault> {
        let strikes = self.next().is_multiple_of(self.one_in);
        strikes.then(|| RANDOM[usize::try_from(self.next() % RANDOM.len() as u64).unwrap()])
    }

    /// SplitMix64.
    fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.state ^ (self.state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap()
}
