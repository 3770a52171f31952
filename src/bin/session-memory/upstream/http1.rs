//! Plain HTTP/1.1 to the upstream, on connections that run in the tasks of those who use them.
//!
//! A client whose connections have tasks of their own wakes one for each request and each piece of a reply, and is
//! woken by it; and a reply's pieces that have come together are passed on one by one, with a system call for each.
//! Here the task that wants a head or a frame runs the connection, until it has one or must wait for the socket.

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

use super::connect::{POOL_IDLE, Timed};
use crate::{BoxError, body::UpstreamRequest};

/// How often connections that carry nothing are looked at: whether they have ended, or are too old.
const SWEEP: Duration = Duration::from_secs(5);

/// A client of one upstream, and its idle connections. A clone shares them.
#[derive(Clone)]
pub(super) struct Client {
    upstream: Uri,
    connector: Timed<HttpConnector>,
    idle: Idle,
}

/// A connection, and hyper's two ends of it.
struct Link {
    // Before the connection: what it was asked is over when it is dropped.
    sender: SendRequest<UpstreamRequest>,
    connection: Connection<TokioIo<TcpStream>, UpstreamRequest>,
    ended: bool,
    bell: Arc<Bell>,
    waker: Waker,
}

/// Wakes the task that runs a connection, but not for what it does itself: taking a frame out of a connection tells
/// this that there is room for another one, and the task need not come again for that.
struct Bell {
    task: Mutex<Waker>,
    /// Whether the task is at work on the connection.
    busy: AtomicBool,
    /// Whether the connection has something to do since it was last run.
    rung: AtomicBool,
}

/// Why there is no head of a reply.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the connection could not be opened")]
    Connect(#[source] BoxError),
    #[error(transparent)]
    Http(#[from] hyper::Error),
    #[error("the connection ended")]
    Ended,
}

impl Client {
    pub(super) fn new(upstream: Uri, connector: Timed<HttpConnector>) -> Self {
        Self { upstream, connector, idle: Idle::default() }
    }

    /// Sends a request on a connection that carries nothing, or on a new one.
    ///
    /// A request of which no byte went out, since the upstream had just ended the connection, goes out on another one.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future ends the connection, and with it the request.
    pub(super) async fn send(&self, mut request: Request<UpstreamRequest>) -> Result<Response<Reply>, Error> {
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

    fn reply(&self, head: Response<Incoming>, link: Box<Link>) -> Response<Reply> {
        let idle = self.idle.clone();
        head.map(|body| Reply { body, link: Some(link), idle, ended: false, fresh: true, broken: None })
    }
}

impl Link {
    async fn open(connector: &Timed<HttpConnector>, upstream: &Uri) -> Result<Box<Self>, Error> {
        let stream = connector.clone().oneshot(upstream.clone()).await.map_err(Error::Connect)?;
        let (sender, connection) = handshake(stream).await?;
        let bell = Arc::new(Bell::new());
        let waker = Waker::from(Arc::clone(&bell));
        Ok(Box::new(Self { sender, connection, ended: false, bell, waker }))
    }

    /// The head of the reply; or the request, if nothing of it was sent.
    async fn ask(
        mut self: Box<Self>,
        request: Request<UpstreamRequest>,
    ) -> Result<(Response<Incoming>, Box<Self>), (Error, Option<Request<UpstreamRequest>>)> {
        // It need not be polled with a waker, so it must not ask for being polled again either.
        let mut reply = pin!(unconstrained(self.sender.try_send_request(request)));
        self.bell.rung.store(true, Ordering::SeqCst);
        let head = std::future::poll_fn(|cx| {
            self.run(cx, |ended| match reply.as_mut().poll(&mut nobody()) {
                Poll::Ready(head) => Poll::Ready(Some(head)),
                Poll::Pending if ended => Poll::Ready(None),
                Poll::Pending => Poll::Pending,
            })
        });
        match head.await {
            Some(Ok(head)) => Ok((head, self)),
            Some(Err(mut error)) => {
                let unsent = error.take_message();
                Err((Error::Http(error.into_error()), unsent))
            }
            None => {
                // With the connection goes a request that waits for it, back to whoever waits for its reply.
                drop(self);
                let unsent = reply.await.err().and_then(|mut error| error.take_message());
                Err((Error::Ended, unsent))
            }
        }
    }

    /// Does what there is to do, and looks for what came of it; while there is nothing, the task is woken when there is
    /// more to do.
    fn run<T>(&mut self, cx: &mut Context<'_>, look: impl FnOnce(bool) -> Poll<T>) -> Poll<T> {
        let rung = self.bell.begin(cx.waker());
        if rung && !self.ended {
            // What went wrong is told to those who wait for a head or a frame.
            let mut cx = Context::from_waker(&self.waker);
            self.ended = Pin::new(&mut self.connection).poll(&mut cx).is_ready();
        }
        let found = look(self.ended);
        self.bell.end(found.is_pending());
        found
    }

    /// Ready when it can carry another request, or never will; says which.
    fn poll_free(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        let ended = self.run(cx, |ended| if ended { Poll::Ready(()) } else { Poll::Pending });
        if ended.is_ready() {
            return Poll::Ready(false);
        }
        self.sender.poll_ready(&mut nobody()).map(|ready| ready.is_ok())
    }

    /// Whether it can carry another request now.
    fn is_free(&mut self) -> bool {
        self.poll_free(&mut nobody()) == Poll::Ready(true)
    }
}

impl Bell {
    fn new() -> Self {
        Self {
            task: Mutex::new(Waker::noop().clone()),
            busy: AtomicBool::new(false),
            rung: AtomicBool::new(false),
        }
    }

    /// Begins the work on the connection. Says whether there is any.
    fn begin(&self, task: &Waker) -> bool {
        self.task().clone_from(task);
        self.busy.store(true, Ordering::SeqCst);
        self.rung.swap(false, Ordering::SeqCst)
    }

    /// Ends the work on the connection. If the task is going to wait, it is woken for what was rung meanwhile.
    fn end(&self, waits: bool) {
        self.busy.store(false, Ordering::SeqCst);
        if waits && self.rung.load(Ordering::SeqCst) {
            self.task().wake_by_ref();
        }
    }

    fn task(&self) -> MutexGuard<'_, Waker> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        if !self.busy.load(Ordering::SeqCst) {
            let task = self.task().clone();
            task.wake();
        }
    }
}

/// For what only [`Link::run`] can make ready: whoever runs it looks again by himself.
fn nobody() -> Context<'static> {
    Context::from_waker(Waker::noop())
}

/// The body of a reply, and the connection that it comes from.
pub(crate) struct Reply {
    body: Incoming,
    link: Option<Box<Link>>,
    idle: Idle,
    /// Whether the reader was told of the end.
    ended: bool,
    /// Whether the reader has had no pause to pass on what it was given.
    fresh: bool,
    /// Where the reply broke off, for when it has had one.
    broken: Option<hyper::Error>,
}

impl Reply {
    fn poll_link(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self { body, link, .. } = self;
        let Some(link) = link else { return Poll::Ready(None) };
        // What is there goes out before more is read: a slow reader slows its upstream.
        link.bell.busy.store(true, Ordering::SeqCst);
        match Pin::new(&mut *body).poll_frame(&mut nobody()) {
            Poll::Pending => link.run(cx, |_| Pin::new(body).poll_frame(&mut nobody())),
            frame => {
                link.bell.end(false);
                frame
            }
        }
    }
}

impl Body for Reply {
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
            // A server drops what it has not written yet when a body fails: that goes out first.
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

impl Drop for Reply {
    /// The connection of a reply that was read to its end carries the next request, once its own has been sent; any
    /// other one ends.
    fn drop(&mut self) {
        let Some(mut link) = self.link.take() else { return };
        match link.poll_free(&mut nobody()) {
            Poll::Ready(true) => self.idle.put(link),
            Poll::Ready(false) => {}
            Poll::Pending if self.ended || self.body.is_end_stream() => self.idle.put_when_free(link),
            Poll::Pending => {}
        }
    }
}

/// Connections that carry nothing, the last used first. A clone speaks of the same.
#[derive(Clone, Default)]
struct Idle(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    links: Vec<(Box<Link>, Instant)>,
    /// Whether somebody looks after them.
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
        // While a runtime ends, what it ran is dropped outside of it, and nobody will ask again.
        let Ok(runtime) = Handle::try_current() else { return };
        let mut kept = self.kept();
        kept.links.push((link, Instant::now()));
        if !mem::replace(&mut kept.swept, true) {
            #[expect(clippy::disallowed_methods, reason = "a shutdown need not wait for it")]
            runtime.spawn(self.clone().sweep());
        }
    }

    /// An upstream may answer before it has the whole request; its reply was whole, and so shall the request be. Where
    /// it goes on, that body's own limit says for how long.
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

    /// Ends the connections that the upstream has ended, and those that nobody has used for long; itself with the
    /// last of them.
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
