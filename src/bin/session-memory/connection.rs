//! One client connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use crate::{
    body::BoxBody,
    drain::Work,
    framing::{Ambiguous, MAX_HEAD, MAX_HEADERS},
    gate::{Client, Gate},
    layer::App,
    listen::Accepted,
    reply::Refusal,
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
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) work: Work,
}

/// What the requests of one connection share.
struct Requests {
    server: Arc<Server>,
    client: Client,
    is_http2: bool,
    seen: AtomicU64,
    ambiguous: Arc<Ambiguous>,
    /// The requests of an HTTP/2 connection that have no whole reply yet.
    streams: TaskTracker,
}

impl Server {
    /// Serves a connection in a task of its own.
    pub(crate) fn serve(self: &Arc<Self>, accepted: Accepted) {
        let server = Arc::clone(self);
        self.work.tasks.spawn(async move {
            let Accepted { stream, address, permit } = accepted;
            let opened = tokio::time::timeout(server.header_read_timeout, Wire::open(stream));
            let wire = tokio::select! {
                () = server.work.draining.cancelled() => return,
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
            is_http2: wire.is_http2(),
            seen: AtomicU64::new(0),
            ambiguous: Arc::clone(&ambiguous),
            streams: TaskTracker::new(),
        });
        let service = {
            let requests = Arc::clone(&requests);
            service_fn(move |request| Arc::clone(&requests).answer(request))
        };
        if requests.is_http2 {
            let connection = self.http2(&requests).serve_connection(TokioIo::new(wire), service);
            self.watch(connection, http2::Connection::graceful_shutdown, &requests).await;
        } else {
            wire.watch(ambiguous, self.header_read_timeout);
            let connection = self.http1().serve_connection(TokioIo::new(wire), service).with_upgrades();
            self.watch(connection, http1::UpgradeableConnection::graceful_shutdown, &requests).await;
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.keep_alive_timeout)
            .max_header_size(MAX_HEAD)
            .max_headers(MAX_HEADERS);
        builder
    }

    fn http2(&self, requests: &Requests) -> http2::Builder<Tracked> {
        let tasks = Tracked { connection: requests.streams.clone(), server: self.work.tasks.clone() };
        let mut builder = http2::Builder::new(tasks);
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(MAX_STREAMS)
            .max_header_list_size(MAX_HEAD as u32)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        builder
    }

    /// Drives a connection to its end; tells it when to finish, and drops it when there is no more time.
    async fn watch<C, E>(&self, connection: C, finish: fn(Pin<&mut C>), requests: &Requests)
    where
        C: Future<Output = Result<(), E>>,
        E: std::error::Error + 'static,
    {
        let mut connection = pin!(connection);
        let mut told = false;
        loop {
            tokio::select! {
                biased;
                () = self.work.abort.cancelled() => {
                    if requests.seen() > 0 {
                        self.work.was_cut();
                    }
                    return;
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = crate::chain(&error), "a client's connection broke");
                    }
                    return;
                }
                () = self.reason_to_finish(requests), if !told => {
                    told = true;
                    finish(connection.as_mut());
                }
            }
        }
    }

    /// Waits until the server drains, or the client of an HTTP/2 connection has asked nothing for too long.
    /// (With HTTP/1, hyper sees to the latter.)
    async fn reason_to_finish(&self, requests: &Requests) {
        loop {
            let before = requests.seen();
            tokio::select! {
                () = self.work.draining.cancelled() => return,
                () = tokio::time::sleep(self.keep_alive_timeout) => {}
            }
            if requests.is_http2 && requests.seen() == before && requests.streams.is_empty() {
                return;
            }
        }
    }
}

impl Requests {
    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<BoxBody>, Infallible> {
        let number = self.seen.fetch_add(1, Ordering::AcqRel) + 1;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let response = match self.server.gate.admit(&mut request, self.ambiguous.is(number)) {
            Ok(()) => {
                request.extensions_mut().insert(self.client.clone());
                self.server.app.clone().oneshot(request).await?
            }
            Err(refusal) => self.refuse(*refusal),
        };
        let status = response.status().as_u16();
        tracing::debug!(%method, path, status, "a request was answered");
        metrics::counter!("session_memory_http_replies_total", "status" => class(status)).increment(1);
        Ok(response)
    }

    fn refuse(&self, mut refusal: Refusal) -> Response<BoxBody> {
        tracing::debug!(status = refusal.status.as_u16(), refusal.message, "a request was refused");
        // A bad stream of HTTP/2 says nothing about the next one, and there is no header to end a connection.
        refusal.close &= !self.is_http2;
        refusal.into_response()
    }
}

fn class(status: u16) -> &'static str {
    match status / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}

/// Runs the tasks of HTTP/2 streams where the connection and the drain see them.
#[derive(Clone)]
struct Tracked {
    connection: TaskTracker,
    server: TaskTracker,
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.server.spawn(self.connection.track_future(task));
    }
}
