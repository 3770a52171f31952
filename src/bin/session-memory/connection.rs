//! One client connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt;

use crate::{
    body::{BoxBody, ClientBody, Stalled, Timed},
    framing::{Ambiguous, MAX_HEAD, MAX_HEADERS},
    gate::{Client, Gate},
    layer::App,
    listen::Accepted,
    wire::Wire,
};

/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// An HTTP/2 client that does not answer a ping for so long is gone.
const PING: Duration = Duration::from_secs(20);

/// What all connections of a server share.
pub(crate) struct Server {
    pub(crate) app: App,
    pub(crate) gate: Gate,
    pub(crate) header_read_timeout: Duration,
    pub(crate) body_read_timeout: Option<Duration>,
    /// Every connection, and whatever works for one.
    pub(crate) tasks: TaskTracker,
    /// Finish what has begun, begin nothing new.
    pub(crate) draining: CancellationToken,
    /// End at once.
    pub(crate) abort: CancellationToken,
    /// How many connections ended at `abort` with a request on them.
    pub(crate) cut: AtomicUsize,
}

/// What the requests of one connection share.
struct Requests {
    server: Arc<Server>,
    client: Client,
    seen: AtomicU64,
    ambiguous: Arc<Ambiguous>,
}

impl Server {
    /// Serves a connection in a task of its own.
    pub(crate) fn serve(self: &Arc<Self>, accepted: Accepted) {
        let server = Arc::clone(self);
        self.tasks.spawn(async move {
            let Accepted { stream, address, permit } = accepted;
            let opened = tokio::time::timeout(server.header_read_timeout, Wire::open(stream));
            let wire = tokio::select! {
                () = server.draining.cancelled() => return,
                opened = opened => match opened {
                    Ok(Ok(wire)) => wire,
                    // A client that came and said nothing.
                    _ => return,
                },
            };
            server.talk(wire, Client { address }).await;
            drop(permit);
        });
    }

    async fn talk(self: Arc<Self>, mut wire: Wire, client: Client) {
        let ambiguous = Arc::new(Ambiguous::default());
        let requests = Arc::new(Requests {
            server: Arc::clone(&self),
            client,
            seen: AtomicU64::new(0),
            ambiguous: Arc::clone(&ambiguous),
        });
        let service = {
            let requests = Arc::clone(&requests);
            service_fn(move |request| Arc::clone(&requests).answer(request))
        };
        if wire.is_http2() {
            let connection = self.http2().serve_connection(TokioIo::new(wire), service);
            self.watch(connection, http2::Connection::graceful_shutdown, &requests).await;
        } else {
            wire.watch(ambiguous);
            let connection = self.http1().serve_connection(TokioIo::new(wire), service).with_upgrades();
            self.watch(connection, http1::UpgradeableConnection::graceful_shutdown, &requests).await;
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.header_read_timeout)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS);
        builder
    }

    fn http2(&self) -> http2::Builder<Tracked> {
        let mut builder = http2::Builder::new(Tracked(self.tasks.clone()));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        builder
    }

    /// Drives a connection to its end; tells it when to finish, and drops it when there is no more time.
    async fn watch<C, E>(&self, connection: C, finish: fn(std::pin::Pin<&mut C>), requests: &Requests)
    where
        C: Future<Output = Result<(), E>>,
        E: std::error::Error + 'static,
    {
        let mut connection = std::pin::pin!(connection);
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                () = self.abort.cancelled() => {
                    let working = requests.seen.load(Ordering::Acquire) > 0;
                    self.cut.fetch_add(usize::from(working), Ordering::AcqRel);
                    return;
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = crate::chain(&error), "a client's connection broke");
                    }
                    return;
                }
                () = self.draining.cancelled(), if !told => {
                    told = true;
                    finish(connection.as_mut());
                }
            }
        }
    }
}

impl Requests {
    async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<BoxBody>, Infallible> {
        let number = self.seen.fetch_add(1, Ordering::AcqRel) + 1;
        let limit = self.server.body_read_timeout;
        let mut request: Request<ClientBody> = request.map(|body| Timed::new(body, limit, Stalled::Client));
        if let Err(refusal) = self.server.gate.admit(&mut request, self.ambiguous.is(number)) {
            tracing::debug!(status = refusal.status.as_u16(), refusal.message, "a request was refused");
            return Ok(refusal.into_response());
        }
        request.extensions_mut().insert(self.client.clone());
        self.server.app.clone().oneshot(request).await
    }
}

/// Runs the tasks of HTTP/2 streams where the drain sees them.
#[derive(Clone)]
struct Tracked(TaskTracker);

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
