//! One client connection, from its first byte to its last.

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::Body;
use http_body_util::{Either, Full};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics::Counter;
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower_session_memory::ResponseBody;

use crate::{
    admission::{Admission, Admitted},
    body::{Stalled, Timed, discard},
    drain::Work,
    framing::{Ambiguous, MAX_HEAD},
    gate::Gate,
    layer::App,
    listen::Accepted,
    reply::Refusal,
    seldom::Seldom,
    send::{Outgoing, StreamTask},
    upstream::Reply,
    wire::Wire,
    workers::{Place, Workers},
};

/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// An HTTP/2 client that does not answer a ping for so long is gone.
const PING: Duration = Duration::from_secs(20);
/// More bytes than pings take: the client takes something of its replies.
const PINGS: u64 = 256;

/// The most that is read of a refused request's body; of a longer one the connection ends.
const MAX_DISCARDED: usize = 1024 * 1024;

/// The body of a client's answer: the layer's, or one of what stands before it.
type Answer = Either<Admitted<ResponseBody<Reply>>, Full<Bytes>>;

/// What all connections of a server share.
pub(crate) struct Server {
    /// One for each worker.
    pub(crate) apps: Vec<App>,
    pub(crate) workers: Workers,
    pub(crate) gate: Gate,
    pub(crate) admission: Admission,
    pub(crate) replies: Replies,
    pub(crate) body_read_timeout: Option<Duration>,
    pub(crate) header_read_timeout: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) send_timeout: Option<Duration>,
    pub(crate) work: Work,
}

/// What the requests of one connection share.
struct Requests {
    server: Arc<Server>,
    app: App,
    is_http2: bool,
    seen: AtomicU64,
    ambiguous: Arc<Ambiguous>,
    /// How many bytes went to the client.
    written: Arc<AtomicU64>,
    /// The requests of an HTTP/2 connection that have no whole reply yet.
    streams: TaskTracker,
}

impl Server {
    /// Serves a connection in a task of its own, on the worker that has fewest.
    pub(crate) fn serve(self: &Arc<Self>, accepted: Accepted) {
        let server = Arc::clone(self);
        let place = self.workers.place();
        let runtime = self.workers.runtime(place.worker).clone();
        let served = async move {
            let Accepted { stream, address, permit } = accepted;
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let opened =
                tokio::time::timeout(server.header_read_timeout, Wire::open(stream, server.send_timeout));
            let wire = tokio::select! {
                () = server.work.draining.cancelled() => return,
                opened = opened => match opened {
                    Ok(Ok(wire)) => wire,
                    // A client that came and said nothing.
                    _ => return,
                },
            };
            server.talk(wire, address, &place).await;
            drop(permit);
        };
        self.work.tasks.spawn_on(served, &runtime);
    }

    async fn talk(self: Arc<Self>, mut wire: Wire, client: SocketAddr, place: &Place) {
        let mut app = self.apps[place.worker].clone();
        app.get_mut().on_behalf_of(client);
        let ambiguous = Arc::new(Ambiguous::default());
        let requests = Arc::new(Requests {
            server: Arc::clone(&self),
            app,
            is_http2: wire.is_http2(),
            seen: AtomicU64::new(0),
            ambiguous: Arc::clone(&ambiguous),
            written: wire.written(),
            streams: TaskTracker::new(),
        });
        let asked = Arc::clone(&requests);
        if requests.is_http2 {
            let service = service_fn(move |request| {
                let answered = Arc::clone(&asked).answer(request);
                async move { Ok::<_, Infallible>(answered.await?.map(Outgoing::new)) }
            });
            let connection = self.http2(&requests).serve_connection(TokioIo::new(wire), service);
            self.watch(Box::pin(connection), http2::Connection::graceful_shutdown, &requests).await;
        } else {
            wire.watch(ambiguous, self.header_read_timeout);
            let service = service_fn(move |request| Arc::clone(&asked).answer(request));
            let connection = self.http1().serve_connection(TokioIo::new(wire), service).with_upgrades();
            self.watch(Box::pin(connection), http1::UpgradeableConnection::graceful_shutdown, &requests)
                .await;
        }
    }

    fn http1(&self) -> http1::Builder {
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(self.keep_alive_timeout)
            .max_header_size(MAX_HEAD);
        builder
    }

    fn http2(&self, requests: &Requests) -> http2::Builder<Tracked> {
        let tasks = Tracked {
            connection: requests.streams.clone(),
            server: self.work.tasks.clone(),
            send_timeout: self.send_timeout,
        };
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
    ///
    /// It is boxed, since a future holds each of its arguments twice, and there is one for each stream.
    async fn watch<C, E>(&self, mut connection: Pin<Box<C>>, finish: fn(Pin<&mut C>), requests: &Requests)
    where
        C: Future<Output = Result<(), E>>,
        E: std::error::Error + 'static,
    {
        let mut abort = pin!(Seldom::new(self.work.abort.cancelled()));
        let mut told = false;
        let mut reason_to_end = pin!(Seldom::new(self.reason_to_end(requests, told)));
        loop {
            tokio::select! {
                biased;
                () = &mut abort => {
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
                () = &mut reason_to_end => {
                    if told {
                        tracing::debug!("a client takes nothing of replies that have ended here (send_timeout)");
                        return;
                    }
                    told = true;
                    finish(connection.as_mut());
                    reason_to_end.set(Seldom::new(self.reason_to_end(requests, told)));
                }
            }
        }
    }

    /// Waits until the server drains, or the client of an HTTP/2 connection has asked nothing for too long; or, if it
    /// has been told to finish for one of these, until it takes nothing of what replies have left to send.
    /// (With HTTP/1, hyper and the wire see to the latter two.)
    async fn reason_to_end(&self, requests: &Requests, told: bool) {
        let wait = if told { self.send_timeout.unwrap_or(Duration::MAX) } else { self.keep_alive_timeout };
        loop {
            let (seen, written) = (requests.seen(), requests.written());
            tokio::select! {
                () = self.work.draining.cancelled(), if !told => return,
                () = tokio::time::sleep(wait) => {}
            }
            let rests = if told { requests.written() - written < PINGS } else { requests.seen() == seen };
            if requests.is_http2 && rests && requests.streams.is_empty() {
                return;
            }
        }
    }
}

impl Requests {
    fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    async fn answer(self: Arc<Self>, mut request: Request<Incoming>) -> Result<Response<Answer>, Infallible> {
        let number = self.seen.fetch_add(1, Ordering::AcqRel) + 1;
        let asked = Asked::of(&request);
        let expects = request.headers().contains_key(header::EXPECT);
        let response = match self.server.gate.admit(&mut request, self.ambiguous.is(number)) {
            Ok(()) => match self.server.admission.admit() {
                // The forwarding end is always ready, and so is the layer around it.
                Ok(place) => {
                    let mut app = self.app.clone();
                    app.get_mut().hold(Arc::clone(&place));
                    let response = app.call(request).await?;
                    response.map(|body| Either::Left(Admitted::new(body, place)))
                }
                Err(refusal) => self.turn_away(refusal, request.into_body(), expects).map(Either::Right),
            },
            Err(refusal) => self.refuse(*refusal).map(Either::Right),
        };
        let status = response.status();
        asked.log(status);
        self.server.replies.count(status);
        Ok(response)
    }

    /// Refuses a request that is as good as others. What is on its way of its body is taken off the connection,
    /// so that this can be used on.
    fn turn_away(&self, mut refusal: Refusal, body: Incoming, expects: bool) -> Response<Full<Bytes>> {
        // A client that waits to be asked for its body sends none now; or it does, and nobody can tell.
        refusal.close = expects;
        if !expects && !body.is_end_stream() {
            let body = Timed::new(body, self.server.body_read_timeout, Stalled::Client);
            self.server.work.tasks.spawn(discard(body, MAX_DISCARDED));
        }
        self.refuse(refusal)
    }

    fn refuse(&self, mut refusal: Refusal) -> Response<Full<Bytes>> {
        tracing::debug!(status = refusal.status.as_u16(), refusal.message, "a request was refused");
        // A bad stream of HTTP/2 says nothing about the next one, and there is no header to end a connection.
        refusal.close &= !self.is_http2;
        refusal.into_response()
    }
}

/// What was asked, for the log; nothing if nobody reads that.
struct Asked(Option<(Method, String)>);

impl Asked {
    fn of<B>(request: &Request<B>) -> Self {
        let logged = tracing::enabled!(tracing::Level::DEBUG);
        Self(logged.then(|| (request.method().clone(), request.uri().path().to_owned())))
    }

    fn log(self, status: StatusCode) {
        let Some((method, path)) = self.0 else { return };
        tracing::debug!(%method, path, status = status.as_u16(), "a request was answered");
    }
}

/// Counts replies by the class of their status.
pub(crate) struct Replies([Counter; 5]);

impl Replies {
    /// Counts by the recorder that is installed now.
    pub(crate) fn new() -> Self {
        Self(
            ["1xx", "2xx", "3xx", "4xx", "5xx"]
                .map(|class| metrics::counter!("session_memory_http_replies_total", "status" => class)),
        )
    }

    fn count(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, self.0.len());
        self.0[class - 1].increment(1);
    }
}

/// Runs the tasks of HTTP/2 streams where the connection and the drain see them.
#[derive(Clone)]
struct Tracked {
    connection: TaskTracker,
    server: TaskTracker,
    send_timeout: Option<Duration>,
}

impl<F> hyper::rt::Executor<F> for Tracked
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let task = StreamTask::new(task, self.send_timeout);
        self.server.spawn(self.connection.track_future(task));
    }
}
