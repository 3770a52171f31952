//! Plain HTTP/1.1 to the upstream, on connections without tasks of their own.
//!
//! * What it saves: 9,800 of 124,800 instructions of a request
//!   (`cargo bench --profile cost --features proxy --bench cost -- 'in memory: a request, 0 turns'`).
//! * Without it: hyper's pooled client runs each connection in its own task, and two tasks wake each other for each
//!   request and each piece of a reply. Pieces that came together go out one by one, each with a system call. And where
//!   a reply breaks off, hyper's server drops the frames, and the head, that it has not written yet.
//! * What holds it: `tests/proxy/upstream.rs`; `upstream/tests.rs` switches it off, and compares both ways.
//!
//! The task that waits for a head or a frame runs the connection itself, until it has one or must wait for the socket.

use std::{
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body::{Body, Frame, SizeHint};
use hyper::{
    body::Incoming,
    client::conn::http1::{Connection, SendRequest, handshake},
};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioIo};
use tokio::{net::TcpStream, runtime::Handle, task::unconstrained};
use tower::ServiceExt;

use super::connect::{POOL_IDLE, TimedConnector, UpstreamRequest};
use crate::error::BoxError;

/// Connections that carry nothing are checked every 5 seconds: for their end, and their age.
const SWEEP: Duration = Duration::from_secs(5);

/// A client of one upstream, and its idle connections. Clones share them.
#[derive(Clone)]
pub(super) struct Http1Client {
    upstream: Uri,
    connector: TimedConnector<HttpConnector>,
    idle: Idle,
}

/// A connection, and hyper's two ends of it.
struct Link {
    // Declared before the connection, so that its request ends first when both are dropped.
    sender: SendRequest<UpstreamRequest>,
    connection: Connection<TokioIo<TcpStream>, UpstreamRequest>,
    ended: bool,
    wakes: Arc<ConnectionWaker>,
    waker: Waker,
}

/// Wakes the task that runs a connection, except for wakes that this task causes itself.
///
/// Taking a frame out of a connection wakes the connection, since it has room for another frame. The task that took
/// the frame is about to poll again, and needs no wake for that.
struct ConnectionWaker {
    task: Mutex<Waker>,
    /// Whether the task is at work on the connection.
    busy: AtomicBool,
    /// Whether the connection has something to do since it was last run.
    woken: AtomicBool,
}

/// Error of a request without the head of a reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Http1Error {
    #[error("the connection could not be opened")]
    Connect(#[source] BoxError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the connection ended")]
    Ended,
}

impl Http1Client {
    pub(super) fn new(upstream: Uri, connector: TimedConnector<HttpConnector>) -> Self {
        Self { upstream, connector, idle: Idle::default() }
    }

    /// Sends a request on an idle connection, or on a new one.
    ///
    /// Where the upstream has just ended the connection and no byte went out, the request is sent on another one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the connection, and with it the request.
    pub(super) async fn send(
        &self,
        mut request: Request<UpstreamRequest>,
    ) -> Result<Response<ReplyBody>, Http1Error> {
        while let Some(link) = self.idle.take() {
            match link.ask(request).await {
                Ok((head, link)) => return Ok(self.reply(head, link)),
                Err((_, Some(unsent))) => request = unsent,
                Err((error, None)) => return Err(error),
            }
        }
        // Boxed, since it is large and rarely needed.
        let link = Box::pin(Link::open(&self.connector, &self.upstream)).await?;
        let asked = link.ask(request).await;
        let (head, link) = asked.map_err(|(error, _)| error)?;
        Ok(self.reply(head, link))
    }

    fn reply(&self, head: Response<Incoming>, link: Box<Link>) -> Response<ReplyBody> {
        let idle = self.idle.clone();
        head.map(|body| ReplyBody { body, link: Some(link), idle, ended: false, fresh: true, broken: None })
    }
}

impl Link {
    async fn open(
        connector: &TimedConnector<HttpConnector>,
        upstream: &Uri,
    ) -> Result<Box<Self>, Http1Error> {
        let stream = connector.clone().oneshot(upstream.clone()).await.map_err(Http1Error::Connect)?;
        let (sender, connection) = handshake(stream).await?;
        let wakes = Arc::new(ConnectionWaker::new());
        let waker = Waker::from(Arc::clone(&wakes));
        Ok(Box::new(Self { sender, connection, ended: false, wakes, waker }))
    }

    /// The head of the reply; or an error, with the request if no byte of it was sent.
    async fn ask(
        mut self: Box<Self>,
        request: Request<UpstreamRequest>,
    ) -> Result<(Response<Incoming>, Box<Self>), (Http1Error, Option<Request<UpstreamRequest>>)> {
        // Polled without a waker, so it must not wait for tokio's task budget either.
        let mut reply = pin!(unconstrained(self.sender.try_send_request(request)));
        self.wakes.woken.store(true, Ordering::SeqCst);
        let head = std::future::poll_fn(|cx| {
            self.run(cx, |ended| match reply.as_mut().poll(&mut no_task()) {
                Poll::Ready(head) => Poll::Ready(Some(head)),
                Poll::Pending if ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
        });
        match head.await {
            Some(Ok(head)) => Ok((head, self)),
            Some(Err(mut error)) => {
                let unsent = error.take_message();
                Err((Http1Error::Http(error.into_error()), unsent))
            }
            None => {
                // A request that the connection has not sent comes back when the connection is dropped.
                drop(self);
                let unsent = reply.await.err().and_then(|mut error| error.take_message());
                Err((Http1Error::Ended, unsent))
            }
        }
    }

    /// Runs the connection if it was woken, then looks for a result. A pending task is woken for the next run.
    fn run<T>(&mut self, cx: &mut Context<'_>, look: impl FnOnce(bool) -> Poll<T>) -> Poll<T> {
        let woken = self.wakes.begin(cx.waker());
        if woken && !self.ended {
            // The waiting head or frame carries the connection's error.
            let mut cx = Context::from_waker(&self.waker);
            self.ended = Pin::new(&mut self.connection).poll(&mut cx).is_ready();
        }
        let found = look(self.ended);
        self.wakes.end(found.is_pending());
        found
    }

    /// Ready with `true` when the connection can carry another request, with `false` when it never can.
    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let ended = self.run(cx, |ended| if ended { Poll::Ready(()) } else { Poll::Pending });
        if ended.is_ready() {
            return Poll::Ready(false);
        }
        self.sender.poll_ready(&mut no_task()).map(|ready| ready.is_ok())
    }

    /// Whether the connection can carry another request now.
    fn is_free(&mut self) -> bool {
        self.poll_free(&mut no_task()) == Poll::Ready(true)
    }
}

impl ConnectionWaker {
    fn new() -> Self {
        Self {
            task: Mutex::new(Waker::noop().clone()),
            busy: AtomicBool::new(false),
            woken: AtomicBool::new(false),
        }
    }

    /// Begins the work on the connection. `true` if there is work.
    fn begin(&self, task: &Waker) -> bool {
        self.task().clone_from(task);
        self.busy.store(true, Ordering::SeqCst);
        self.woken.swap(false, Ordering::SeqCst)
    }

    /// Ends the work on the connection. A task about to wait is woken if the connection was.
    fn end(&self, waits: bool) {
        self.busy.store(false, Ordering::SeqCst);
        if waits && self.woken.load(Ordering::SeqCst) {
            self.task().wake_by_ref();
        }
    }

    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for ConnectionWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.busy.load(Ordering::SeqCst) {
            let task = self.task().clone();
            task.wake();
        }
    }
}

/// A context that wakes no task, for what only [`Link::run`] makes ready: its caller looks again after each run.
fn no_task() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The body of a reply, and the connection that it comes from.
pub(crate) struct ReplyBody {
    body: Incoming,
    link: Option<Box<Link>>,
    idle: Idle,
    /// Whether the reader has received the end.
    ended: bool,
    /// Whether the reader's last poll gave it a frame, which it may not have passed on yet.
    fresh: bool,
    /// The error at which the reply broke off, until the reader has passed on the last frame.
    broken: Option<hyper::Error>,
}

impl ReplyBody {
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body, link, .. } = self;
        let Some(link) = link else { return Poll::Ready(None) };
        // A frame that was read already goes out before more is read, so a slow reader slows its upstream.
        link.wakes.busy.store(true, Ordering::SeqCst);
        match Pin::new(&mut *body).poll_frame(&mut no_task()) {
            Poll::Pending => link.run(cx, |_| Pin::new(body).poll_frame(&mut no_task())),
            frame => {
                link.wakes.end(false);
                frame
            }
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let frame = self.poll_link(cx);
        match frame {
            // A server drops unwritten frames when a body fails, so it gets one more poll to write them.
            Poll::Ready(Some(Err(error))) if mem::take(&mut self.fresh) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            frame => {
                self.fresh = frame.is_ready();
                self.ended = matches!(frame, Poll::Ready(None));
                frame
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for ReplyBody {
    /// Keeps the connection of a reply that was read to its end, once its own request has been sent.
    ///
    /// Any other connection ends.
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        match link.poll_free(&mut no_task()) {
            Poll::Ready(true) => self.idle.put(link),
            Poll::Ready(false) => {}
            Poll::Pending if self.ended || self.body.is_end_stream() => self.idle.put_when_free(link),
            Poll::Pending => {}
        }
    }
}

/// Idle connections, the last used first. Clones share them.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    links: Vec<(Box<Link>, Instant)>,
    /// Whether a task sweeps them.
    swept: bool,
}

impl Idle {
    fn take(&self) -> Option<Box<Link>> {
        let mut kept = self.kept();
        while let Some((mut link, _)) = kept.links.pop() {
            if link.is_free() {
                return Some(link);
            }
        }
        None
    }

    fn put(&self, link: Box<Link>) {
        // A runtime that ends drops its tasks outside of it; no request follows.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut kept = self.kept();
        kept.links.push((link, Instant::now()));
        if !mem::replace(&mut kept.swept, true) {
            #[expect(clippy::disallowed_methods, reason = "a shutdown need not wait for it")]
            runtime.spawn(self.clone().sweep());
        }
    }

    /// Sends the rest of a request whose reply is complete, then keeps the connection.
    ///
    /// An upstream may answer before it has the whole request. The limit of the request's body bounds the wait.
    fn put_when_free(&self, mut link: Box<Link>) {
        let Ok(runtime) = Handle::try_current() else { return };
        let idle = self.clone();
        let rest = async move {
            if std::future::poll_fn(|cx| link.poll_free(cx)).await {
                idle.put(link);
            }
        };
        #[expect(
            clippy::disallowed_methods,
            reason = "a shutdown need not wait for it: the client has its reply"
        )]
        runtime.spawn(rest);
    }

    /// Drops connections that the upstream has ended, and those idle for [`POOL_IDLE`]. Ends with the last one.
    async fn sweep(self) {
        loop {
            tokio::time::sleep(SWEEP).await;
            let mut kept = self.kept();
            kept.links.retain_mut(|(link, since)| since.elapsed() < POOL_IDLE && link.is_free());
            if kept.links.is_empty() {
                kept.swept = false;
                return;
            }
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
