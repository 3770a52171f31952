//! The upstream: answers at once, or as the model's name tells, and says what it was sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::{
    net::TcpListener,
    sync::Semaphore,
    task::JoinSet,
    time::{Sleep, sleep},
};

use crate::{
    chat::{self, Manner},
    child,
    error::BoxError,
};

/// The argument that makes this program an upstream.
pub(crate) const ROLE: &str = "as-upstream";

/// How long a model thinks that is not fast, and how many requests it takes at once.
const THINKS: Duration = Duration::from_millis(20);
const SLOTS: usize = 64;
/// Between two events of a stream that comes at a model's pace.
const PACE: Duration = Duration::from_millis(5);
/// Events of a stream before it is held.
const BEFORE_HOLD: usize = 11;

pub(crate) fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(child::until_orphaned(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        child::say_ready(listener.local_addr()?);
        let model: &'static Model = Box::leak(Box::new(Model::new()));
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(move |request| model.answer(request));
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            while connections.try_join_next().is_some() {}
        }
    }))
}

struct Model {
    replies: Vec<(Manner, Vec<Bytes>)>,
    slots: Semaphore,
    role: memmem::Finder<'static>,
    requests: AtomicUsize,
    messages: AtomicUsize,
}

impl Model {
    fn new() -> Self {
        Self {
            replies: Manner::ALL.into_iter().map(|manner| (manner, manner.reply())).collect(),
            slots: Semaphore::new(SLOTS),
            role: memmem::Finder::new(br#""role":"#),
            requests: AtomicUsize::new(0),
            messages: AtomicUsize::new(0),
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Result<Response<Reply>, BoxError> {
        if request.uri().path() == chat::SEEN {
            let seen =
                [&self.requests, &self.messages].map(|count| count.load(Ordering::Relaxed).to_string());
            return Ok(Response::new(Reply::new(vec![seen.join(" ").into()], Manner::Json)));
        }
        // A peer may look for the upstream now and then: only what is asked of the model counts.
        if request.method() != Method::POST {
            let mut nothing = Response::new(Reply::new(Vec::new(), Manner::Json));
            *nothing.status_mut() = StatusCode::NOT_FOUND;
            return Ok(nothing);
        }
        let body = request.into_body().collect().await?.to_bytes();
        let messages = self.role.find_iter(&body).count();
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.messages.fetch_add(messages, Ordering::Relaxed);
        let manner = manner(&body);
        if manner == Manner::Slow {
            let _slot = self.slots.acquire().await?;
            sleep(THINKS).await;
        }
        let kind = if manner.streams() { "text/event-stream" } else { "application/json" };
        let reply = self.replies.iter().find(|(of, _)| *of == manner).map(|(_, reply)| reply.clone());
        Ok(Response::builder()
            .header(chat::SEEN_MESSAGES, messages)
            .header(chat::SEEN_BYTES, body.len())
            .header(header::CONTENT_TYPE, kind)
            .body(Reply::new(reply.unwrap_or_default(), manner))?)
    }
}

/// What the request asks for. The peers write their JSON in their own way, and `stream` where they like.
fn manner(body: &[u8]) -> Manner {
    let head = &body[..body.len().min(64)];
    let named = Manner::ALL.into_iter().find(|manner| {
        manner.model() != Manner::Json.model()
            && memmem::find(head, format!(r#""model":"{}""#, manner.model()).as_bytes()).is_some()
    });
    let tail = &body[body.len().saturating_sub(300)..];
    let streams = [r#""stream":true"#, r#""stream": true"#]
        .iter()
        .any(|asked| [head, tail].iter().any(|part| memmem::find(part, asked.as_bytes()).is_some()));
    named.unwrap_or(if streams { Manner::Stream } else { Manner::Json })
}

/// The pieces of a reply. A stream pauses before each but the first, so that each is written by itself.
struct Reply {
    pieces: VecDeque<Bytes>,
    manner: Manner,
    sent: usize,
    flushed: bool,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Reply {
    fn new(pieces: Vec<Bytes>, manner: Manner) -> Self {
        Self { pieces: pieces.into(), manner, sent: 0, flushed: true, pause: None }
    }

    /// Whether the next piece may go.
    fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !self.manner.streams() || self.flushed {
            return Poll::Ready(());
        }
        match self.manner {
            // No waker is kept: the stream ends with its connection.
            Manner::Held if self.sent == BEFORE_HOLD => Poll::Pending,
            Manner::Paced => self.pause.get_or_insert_with(|| Box::pin(sleep(PACE))).as_mut().poll(cx),
            _ => {
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        std::task::ready!(self.poll_turn(cx));
        (self.flushed, self.pause) = (false, None);
        self.sent += 1;
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.manner.streams() {
            true => SizeHint::default(),
            false => SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum()),
        }
    }
}
