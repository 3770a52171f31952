//! The upstream: answers at once, and says in two headers what it was sent.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::{net::TcpListener, task::JoinSet};

use crate::{BoxError, chat, process};

/// The argument that makes this program an upstream.
pub(crate) const ROLE: &str = "as-upstream";

pub(crate) fn main() -> Result<(), BoxError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(process::until_orphaned(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        process::say_ready(listener.local_addr()?);
        let replies: &'static Replies = Box::leak(Box::new(Replies::new()));
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let service = service_fn(move |request| answer(request, replies));
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            while connections.try_join_next().is_some() {}
        }
    }))
}

struct Replies {
    json: Bytes,
    events: Vec<Bytes>,
    role: memmem::Finder<'static>,
    stream: memmem::Finder<'static>,
}

impl Replies {
    fn new() -> Self {
        Self {
            json: chat::json(),
            events: chat::events(),
            role: memmem::Finder::new(br#"{"role":"#),
            stream: memmem::Finder::new(br#""stream":true"#),
        }
    }
}

async fn answer(request: Request<Incoming>, replies: &Replies) -> Result<Response<Reply>, BoxError> {
    let body = request.into_body().collect().await?.to_bytes();
    let messages = replies.role.find_iter(&body).count();
    let response =
        Response::builder().header(chat::SEEN_MESSAGES, messages).header(chat::SEEN_BYTES, body.len());
    Ok(match replies.stream.find(&body[..body.len().min(64)]) {
        None => response.header(header::CONTENT_TYPE, "application/json").body(Reply {
            pieces: VecDeque::from([replies.json.clone()]),
            flushes: false,
            flushed: true,
        })?,
        Some(_) => response.header(header::CONTENT_TYPE, "text/event-stream").body(Reply {
            pieces: replies.events.iter().cloned().collect(),
            flushes: true,
            flushed: true,
        })?,
    })
}

/// The pieces of a reply. A stream pauses before each but the first, so that each is written by itself.
struct Reply {
    pieces: VecDeque<Bytes>,
    flushes: bool,
    flushed: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.flushes && !self.flushed {
            self.flushed = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.flushed = false;
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        match self.flushes {
            true => SizeHint::default(),
            false => SizeHint::with_exact(self.pieces.iter().map(|piece| piece.len() as u64).sum()),
        }
    }
}
