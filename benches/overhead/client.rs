//! The client: keep-alive connections, each with one request at a time.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    chat::{Ask, Manner, SEEN_BYTES, SEEN_MESSAGES},
    error::BoxError,
};

/// Load of one target: a number of conversations, each from one depth to another.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) concurrency: usize,
    pub(crate) conversations: usize,
    /// The turns that a conversation has when it is asked.
    pub(crate) depths: Range<usize>,
    pub(crate) asks: Arc<Vec<Ask>>,
    /// With it the client sends its new message only, and the session's id is this and a number.
    pub(crate) session: Option<String>,
    pub(crate) expected: Arc<Expected>,
}

/// What must come back.
pub(crate) struct Expected {
    manner: Manner,
    /// The bytes of the body.
    body: Vec<u8>,
    /// A peer answers in its own words: then these must be in it, and the upstream is asked what it saw.
    words: Option<Vec<String>>,
}

impl Expected {
    pub(crate) fn of(manner: Manner, peer: bool) -> Arc<Self> {
        let words = match manner.streams() {
            true => manner.words(),
            false => vec![manner.words().concat()],
        };
        Arc::new(Self { manner, body: manner.reply().concat(), words: peer.then_some(words) })
    }

    /// Whether the body is the upstream's, byte for byte; and the whole history arrived there.
    fn check(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], ask: &Ask) -> Result<(), BoxError> {
        let seen = |name| headers.get(name)?.to_str().ok()?.parse::<usize>().ok();
        let whole = match &self.words {
            None => {
                let arrived =
                    seen(SEEN_MESSAGES) == Some(ask.messages) && seen(SEEN_BYTES) == Some(ask.whole.len());
                arrived && body == self.body
            }
            Some(words) => {
                let mut rest = Some(body);
                for word in words {
                    rest =
                        rest.and_then(|rest| rest.get(memmem::find(rest, word.as_bytes())? + word.len()..));
                }
                rest.is_some()
            }
        };
        if whole && status == StatusCode::OK {
            return Ok(());
        }
        Err(format!(
            "{status} with {} bytes, {} of them expected; upstream saw {:?} messages in {:?} bytes, not {} in {}: {}",
            body.len(),
            self.body.len(),
            seen(SEEN_MESSAGES),
            seen(SEEN_BYTES),
            ask.messages,
            ask.whole.len(),
            String::from_utf8_lossy(&body[..body.len().min(300)]),
        )
        .into())
    }
}

/// How long one request took.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    /// Until the first bytes of the body.
    pub(crate) first: Duration,
    /// Until its end.
    pub(crate) whole: Duration,
}

/// The samples of a load, and how long all of it took.
#[derive(Default)]
pub(crate) struct Measured {
    pub(crate) samples: Vec<Sample>,
    /// Between two pieces of a stream.
    pub(crate) gaps: Vec<Duration>,
    pub(crate) wall: Duration,
}

pub(crate) type Sender = SendRequest<Full<Bytes>>;

/// A connection; its task belongs to the set.
///
/// # Errors
///
/// When the target does not accept the connection.
pub(crate) async fn connect(address: SocketAddr, tasks: &mut JoinSet<()>) -> Result<Sender, BoxError> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tasks.spawn(async move { drop(connection.await) });
    Ok(sender)
}

/// Sends a request on a connection, and waits for the head of the reply.
///
/// # Errors
///
/// When the connection breaks.
pub(crate) async fn send(
    sender: &mut Sender,
    path: &str,
    session: Option<&HeaderValue>,
    body: Bytes,
) -> Result<Response<Incoming>, BoxError> {
    let mut request = Request::post(path)
        .header(header::HOST, "bench")
        .header(header::AUTHORIZATION, "Bearer sk-bench-0123456789abcdef")
        .header(header::CONTENT_TYPE, "application/json");
    if let Some(session) = session {
        request = request.header("x-session-id", session);
    }
    Ok(sender.send_request(request.body(Full::new(body))?).await?)
}

pub(crate) const PATH: &str = "/v1/chat/completions";

impl Load {
    /// Asks all of it.
    ///
    /// # Errors
    ///
    /// When a request fails, a reply is not what the upstream said, or that was not sent exactly the whole
    /// conversation.
    pub(crate) async fn run(self) -> Result<Measured, BoxError> {
        let mut connections = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..self.concurrency {
            senders.push(connect(self.address, &mut connections).await?);
        }
        let load = Arc::new(self);
        let mut workers = JoinSet::new();
        let start = Instant::now();
        for (number, sender) in senders.into_iter().enumerate() {
            workers.spawn(Arc::clone(&load).work(number, sender));
        }
        let mut all = Measured::default();
        while let Some(worker) = workers.join_next().await {
            let measured = worker??;
            all.samples.extend(measured.samples);
            all.gaps.extend(measured.gaps);
        }
        all.wall = start.elapsed();
        Ok(all)
    }

    async fn work(self: Arc<Self>, worker: usize, mut sender: Sender) -> Result<Measured, BoxError> {
        let mut measured = Measured::default();
        let mut body = Vec::new();
        for conversation in (worker..self.conversations).step_by(self.concurrency) {
            let session = self.session.as_ref().map(|name| format!("{name}-{conversation}"));
            let session = session.map(HeaderValue::try_from).transpose()?;
            for ask in &self.asks[self.depths.clone()] {
                self.ask(&mut sender, ask, session.as_ref(), &mut body, &mut measured).await?;
            }
        }
        Ok(measured)
    }

    async fn ask(
        &self,
        sender: &mut Sender,
        ask: &Ask,
        session: Option<&HeaderValue>,
        whole: &mut Vec<u8>,
        measured: &mut Measured,
    ) -> Result<(), BoxError> {
        let sent = if session.is_some() { &ask.delta } else { &ask.whole };
        sender.ready().await?;
        whole.clear();
        let start = Instant::now();
        let (head, mut body) = send(sender, PATH, session, sent.clone()).await?.into_parts();
        let (mut first, mut last) = (None, start);
        while let Some(frame) = body.frame().await {
            let now = Instant::now();
            if first.is_none() {
                first = Some(now - start);
            } else if self.expected.manner.streams() {
                measured.gaps.push(now - last);
            }
            last = now;
            if let Some(data) = frame?.data_ref() {
                whole.extend_from_slice(data);
            }
        }
        let end = start.elapsed();
        let checked = self.expected.check(head.status, &head.headers, whole, ask);
        checked.map_err(|error| format!("{}: {error}", self.address))?;
        measured.samples.push(Sample { first: first.unwrap_or(end), whole: end });
        Ok(())
    }
}
