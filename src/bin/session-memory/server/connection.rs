//! One client connection, from its first byte to its last.
//!
//! The connection's protocol is read from its first bytes (`client_socket`), hyper serves it, and each request goes
//! to `intake`. [`Server::watch`] drives the connection beside the reasons to end it: the drain, the abort at its
//! deadline, and an HTTP/2 client that is idle or takes nothing. In HTTP/1 hyper and the socket see to the last two.

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

use hyper::{
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio_util::task::TaskTracker;

use super::{
    client_socket::ClientSocket,
    framing::{AmbiguousRequest, MAX_HEAD},
    intake::{App, Intake, Requests},
    listener::{Accepted, Listener},
    send_timeout::{ObservedBody, StreamTask},
    wake_gated::WakeGated,
    workers::{Seat, Workers},
};
use crate::{error::chain, traffic::Work};

/// Requests at once on one HTTP/2 connection.
const MAX_STREAMS: u32 = 100;
/// An HTTP/2 client is asked for a sign of life every 20 seconds, and has 20 seconds to answer.
const PING: Duration = Duration::from_secs(20);
/// Answers to pings are shorter than 256 bytes, so a client to which more was written takes its replies.
const PINGS: u64 = 256;

/// State that all connections share.
pub(crate) struct Server {
    /// One for each worker.
    pub(crate) apps: Vec<App>,
    pub(crate) workers: Workers,
    pub(crate) intake: Arc<Intake>,
    pub(crate) header_read_timeout: Duration,
    pub(crate) keep_alive_timeout: Duration,
    pub(crate) send_timeout: Option<Duration>,
    pub(crate) work: Work,
}

/// Signs of life of one connection, on which the reasons to end it depend.
struct Activity {
    requests: Arc<Requests>,
    /// The number of bytes that were written to the client.
    written: Arc<AtomicU64>,
    /// The HTTP/2 requests whose reply is not yet complete.
    streams: TaskTracker,
}

impl Server {
    /// Serves all connections of a listener until the drain begins.
    pub(crate) async fn accept(self: &Arc<Self>, listener: &Listener) {
        while let Some(accepted) = listener.accept(&self.work.draining).await {
            self.serve(accepted);
        }
    }

    /// Serves a connection in a task of its own, on the worker with the fewest connections.
    fn serve(self: &Arc<Self>, accepted: Accepted) {
        let server = Arc::clone(self);
        let seat = self.workers.seat();
        let runtime = self.workers.runtime(seat.worker).clone();
        let served = async move {
            let Accepted { stream, address, permit } = accepted;
            let Ok(stream) = TcpStream::from_std(stream) else { return };
            let opened = tokio::time::timeout(
                server.header_read_timeout,
                ClientSocket::open(stream, server.send_timeout),
            );
            let socket = tokio::select! {
                () = server.work.draining.cancelled() => return,
                opened = opened => match opened {
                    Ok(Ok(socket)) => socket,
                    // The client sent nothing.
                    _ => return,
                },
            };
            server.converse(socket, address, &seat).await;
            drop(permit);
        };
        self.work.tasks.spawn_on(served, &runtime);
    }

    async fn converse(self: Arc<Self>, mut socket: ClientSocket, client: SocketAddr, seat: &Seat) {
        let ambiguous = Arc::new(AmbiguousRequest::default());
        let requests = Arc::new(Requests {
            intake: Arc::clone(&self.intake),
            app: self.apps[seat.worker].clone(),
            client,
            is_http2: socket.is_http2(),
            ambiguous: Arc::clone(&ambiguous),
            seen: AtomicU64::new(0),
        });
        let activity = Activity {
            requests: Arc::clone(&requests),
            written: socket.written(),
            streams: TaskTracker::new(),
        };
        if requests.is_http2 {
            let service = service_fn(move |request| {
                let answered = Arc::clone(&requests).answer(request);
                async move { Ok::<_, Infallible>(answered.await?.map(ObservedBody::new)) }
            });
            let connection = self.http2(&activity).serve_connection(TokioIo::new(socket), service);
            self.watch(Box::pin(connection), http2::Connection::graceful_shutdown, &activity).await;
        } else {
            socket.watch(ambiguous, self.header_read_timeout);
            let service = service_fn(move |request| Arc::clone(&requests).answer(request));
            let connection = self.http1().serve_connection(TokioIo::new(socket), service).with_upgrades();
            self.watch(Box::pin(connection), http1::UpgradeableConnection::graceful_shutdown, &activity)
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

    fn http2(&self, activity: &Activity) -> http2::Builder<StreamExecutor> {
        let tasks = StreamExecutor {
            connection: activity.streams.clone(),
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

    /// Drives a connection to its end, finishes it when there is a reason to, and drops it at the abort.
    ///
    /// The connection is boxed, since a future holds each of its arguments twice.
    async fn watch<C, E>(&self, mut connection: Pin<Box<C>>, finish: fn(Pin<&mut C>), activity: &Activity)
    where
        C: Future<Output = Result<(), E>>,
        E: std::error::Error + 'static,
    {
        let mut abort = pin!(WakeGated::new(self.work.abort.cancelled()));
        let mut finishing = false;
        let mut reason_to_end = pin!(WakeGated::new(self.reason_to_end(activity, finishing)));
        loop {
            tokio::select! {
                biased;
                () = &mut abort => {
                    if activity.requests.seen() > 0 {
                        self.work.was_cut();
                    }
                    return;
                }
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(error = chain(&error), "a client's connection broke");
                    }
                    return;
                }
                () = &mut reason_to_end => {
                    if finishing {
                        tracing::debug!("a client takes nothing of replies that have ended here (send_timeout)");
                        return;
                    }
                    finishing = true;
                    finish(connection.as_mut());
                    reason_to_end.set(WakeGated::new(self.reason_to_end(activity, finishing)));
                }
            }
        }
    }

    /// Waits for a reason to end the connection.
    ///
    /// At first: the drain, or an HTTP/2 client without a request within `keep_alive_timeout`. Once the connection is
    /// finishing: an HTTP/2 client that takes nothing of its replies within `send_timeout`.
    async fn reason_to_end(&self, activity: &Activity, finishing: bool) {
        let wait =
            if finishing { self.send_timeout.unwrap_or(Duration::MAX) } else { self.keep_alive_timeout };
        loop {
            let (seen, written) = (activity.requests.seen(), activity.written());
            tokio::select! {
                () = self.work.draining.cancelled(), if !finishing => return,
                () = tokio::time::sleep(wait) => {}
            }
            let is_idle = match finishing {
                true => activity.written() - written < PINGS,
                false => activity.requests.seen() == seen,
            };
            if activity.requests.is_http2 && is_idle && activity.streams.is_empty() {
                return;
            }
        }
    }
}

impl Activity {
    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }
}

/// Runs the tasks of HTTP/2 streams where the connection and the drain see them.
#[derive(Clone)]
struct StreamExecutor {
    connection: TaskTracker,
    server: TaskTracker,
    send_timeout: Option<Duration>,
}

impl<F> hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        let task = StreamTask::new(task, self.send_timeout);
        self.server.spawn(self.connection.track_future(task));
    }
}
