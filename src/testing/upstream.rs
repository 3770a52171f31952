//! A small scripted upstream in the OpenAI chat format, for tests, examples and the demo.
//!
//! It listens on the loopback address, keeps every request as it came, and answers from a queue of
//! [`Reply`]s, or, when the queue is empty, from a model: a function of the request. The default model,
//! [`echo`], answers from what it saw, so that a conversation proves that its history arrived.
//!
//! ```
//! use tower_session_memory::testing::upstream::{Reply, Upstream};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! let upstream = Upstream::start().await?;
//! upstream.push(Reply::stream("Hello there"));
//! // … point a client at upstream.url() …
//! assert!(upstream.requests().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! HTTP/1.1 only, no TLS, request bodies up to 64 MiB. Nothing in it panics; a request that it cannot read
//! is dropped with its connection.

mod model;
mod reply;
mod seen;

pub use model::{echo, refuse_unanswered_calls};
pub use reply::{Chunk, Gate, Reply, Step};
pub use seen::Seen;

use std::{
    collections::VecDeque,
    fmt, io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use http::{Request, Response};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use reply::Script;

/// The largest request body that is kept, in bytes.
const MAX_BODY: usize = 64 << 20;

/// A running upstream. Dropping it closes its listener and its connections.
pub struct Upstream {
    addr: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

type Model = Arc<dyn Fn(&Seen) -> Reply + Send + Sync>;

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

struct State {
    model: Model,
    queue: VecDeque<Reply>,
    requests: Vec<Seen>,
    connections: usize,
    finished: usize,
    abandoned: usize,
}

impl Upstream {
    /// Starts the [`echo`] model on a free port of `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// When no socket can be bound.
    pub async fn start() -> io::Result<Self> {
        Self::start_with(echo).await
    }

    /// Starts a model of your own on a free port of `127.0.0.1`.
    ///
    /// # Errors
    ///
    /// When no socket can be bound.
    pub async fn start_with(model: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let upstream = Self {
            addr: listener.local_addr()?,
            shared: Arc::new(Shared::new(Arc::new(model))),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        upstream.tasks.spawn(accept(
            listener,
            upstream.shared.clone(),
            upstream.tasks.clone(),
            upstream.stop.clone(),
        ));
        Ok(upstream)
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as a base URL without a trailing slash.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Queues a reply. Queued replies are used up, one a request, before the model is asked.
    pub fn push(&self, reply: Reply) {
        self.shared.lock().queue.push_back(reply);
    }

    /// Replaces the model.
    pub fn set_model(&self, model: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        self.shared.lock().model = Arc::new(model);
    }

    /// All requests so far, in the order in which their bodies were complete.
    #[must_use]
    pub fn requests(&self) -> Vec<Seen> {
        self.shared.lock().requests.clone()
    }

    /// Takes the requests so far, and forgets them.
    #[must_use]
    pub fn take_requests(&self) -> Vec<Seen> {
        std::mem::take(&mut self.shared.lock().requests)
    }

    /// How many requests are kept.
    #[must_use]
    pub fn request_count(&self) -> usize {
        self.shared.lock().requests.len()
    }

    /// How many connections it has accepted.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// How many replies were sent to their end (a scripted cut is one).
    #[must_use]
    pub fn finished(&self) -> usize {
        self.shared.lock().finished
    }

    /// How many replies were dropped before their end, because the peer had gone.
    #[must_use]
    pub fn abandoned(&self) -> usize {
        self.shared.lock().abandoned
    }

    /// Waits until a condition on this upstream holds: it is checked now and after every request, and after
    /// every reply that ends or is abandoned.
    pub async fn wait_until(&self, condition: impl Fn(&Self) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        while !condition(self) {
            // The sender lives in `self`, so this never fails.
            let _ = changed.changed().await;
        }
    }

    /// Closes the listener and all connections, and returns when that is done. Open replies are cut.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream").field("addr", &self.addr).finish_non_exhaustive()
    }
}

impl Shared {
    fn new(model: Model) -> Self {
        Self {
            state: Mutex::new(State {
                model,
                queue: VecDeque::new(),
                requests: Vec::new(),
                connections: 0,
                finished: 0,
                abandoned: 0,
            }),
            changed: watch::Sender::new(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.lock());
        self.changed.send_replace(());
        out
    }

    /// Keeps the request and chooses its reply. The model is asked without the lock.
    fn answer(&self, seen: Seen) -> Reply {
        let scripted = {
            let mut state = self.lock();
            state.queue.pop_front().ok_or_else(|| state.model.clone())
        };
        let reply = scripted.unwrap_or_else(|model| model(&seen));
        self.update(|state| state.requests.push(seen));
        reply
    }

    /// A reply's body is gone.
    fn ended(&self, whole: bool) {
        self.update(|state| *(if whole { &mut state.finished } else { &mut state.abandoned }) += 1);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>, tasks: TaskTracker, stop: CancellationToken) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        // An accept error is about one connection (reset, out of descriptors for now); go on.
        let Ok((socket, _)) = accepted else { continue };
        let connection = shared.update(|state| {
            state.connections += 1;
            state.connections - 1
        });
        let (shared, stop) = (shared.clone(), stop.clone());
        tasks.spawn(async move { stop.run_until_cancelled(serve(socket, connection, shared)).await });
    }
}

async fn serve(socket: TcpStream, connection: usize, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| respond(request, connection, shared.clone()));
    // What ends a connection is the peer's business, or a scripted cut.
    let _ =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(socket), service).await;
}

/// An error here closes the connection without an answer.
async fn respond(
    request: Request<Incoming>,
    connection: usize,
    shared: Arc<Shared>,
) -> Result<Response<Script>, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await?.to_bytes();
    let seen = Seen { method: parts.method, uri: parts.uri, headers: parts.headers, body, connection };
    let reply = shared.answer(seen);
    reply.into_response(move |whole| shared.ended(whole)).await
}
