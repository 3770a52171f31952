//! The client: keep-alive connections, each with one request at a time.

use std::{
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use crate::{
    BoxError,
    chat::{Ask, SEEN_BYTES, SEEN_MESSAGES},
};

/// What one target is sent: so many conversations, each from one depth to another.
pub(crate) struct Load {
    pub(crate) address: SocketAddr,
    pub(crate) concurrency: usize,
    pub(crate) conversations: usize,
    /// The turns that a conversation has when it is asked.
    pub(crate) depths: Range<usize>,
    pub(crate) asks: Arc<Vec<Ask>>,
    /// With it the client sends its new message only, and the session's id is this and a number.
    pub(crate) session: Option<String>,
    /// The length of the reply's body.
    pub(crate) reply: usize,
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
pub(crate) struct Measured {
    pub(crate) samples: Vec<Sample>,
    pub(crate) wall: Duration,
}

impl Load {
    /// Asks all of it.
    ///
    /// # Errors
    ///
    /// When a request fails, or the upstream was not sent exactly the whole conversation.
    pub(crate) async fn run(self) -> Result<Measured, BoxError> {
        let load = Arc::new(self);
        let mut workers = JoinSet::new();
        let mut connections = JoinSet::new();
        let mut senders = Vec::new();
        for _ in 0..load.concurrency {
            let stream = TcpStream::connect(load.address).await?;
            stream.set_nodelay(true)?;
            let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
            connections.spawn(connection);
            senders.push(sender);
        }
        let start = Instant::now();
        for (number, sender) in senders.into_iter().enumerate() {
            workers.spawn(Arc::clone(&load).work(number, sender));
        }
        let mut samples = Vec::new();
        while let Some(worker) = workers.join_next().await {
            samples.extend(worker??);
        }
        Ok(Measured { samples, wall: start.elapsed() })
    }

    async fn work(
        self: Arc<Self>,
        worker: usize,
        mut sender: SendRequest<Full<Bytes>>,
    ) -> Result<Vec<Sample>, BoxError> {
        let mut samples = Vec::new();
        for conversation in (worker..self.conversations).step_by(self.concurrency) {
            let session = self.session.as_ref().map(|name| format!("{name}-{conversation}"));
            let session = session.map(HeaderValue::try_from).transpose()?;
            for ask in &self.asks[self.depths.clone()] {
                samples.push(self.ask(&mut sender, ask, session.as_ref()).await?);
            }
        }
        Ok(samples)
    }

    async fn ask(
        &self,
        sender: &mut SendRequest<Full<Bytes>>,
        ask: &Ask,
        session: Option<&HeaderValue>,
    ) -> Result<Sample, BoxError> {
        let mut request = Request::post("/v1/chat/completions")
            .header(header::HOST, "bench")
            .header(header::AUTHORIZATION, "Bearer sk-bench-0123456789abcdef")
            .header(header::CONTENT_TYPE, "application/json");
        if let Some(session) = session {
            request = request.header("x-session-id", session);
        }
        let body = if session.is_some() { &ask.delta } else { &ask.whole };
        let request = request.body(Full::new(body.clone()))?;

        sender.ready().await?;
        let start = Instant::now();
        let response = sender.send_request(request).await?;
        let (head, mut body) = response.into_parts();
        let (mut first, mut length) = (None, 0);
        while let Some(frame) = body.frame().await {
            first = first.or_else(|| Some(start.elapsed()));
            length += frame?.data_ref().map_or(0, Bytes::len);
        }
        let whole = start.elapsed();

        let seen = |name| head.headers.get(name)?.to_str().ok()?.parse::<usize>().ok();
        let arrived = seen(SEEN_MESSAGES) == Some(ask.messages) && seen(SEEN_BYTES) == Some(ask.whole.len());
        if head.status != StatusCode::OK || length != self.reply || !arrived {
            return Err(format!(
                "{}: {} with {length} of {} bytes; upstream saw {:?} messages in {:?} bytes, not {} in {}",
                self.address,
                head.status,
                self.reply,
                seen(SEEN_MESSAGES),
                seen(SEEN_BYTES),
                ask.messages,
                ask.whole.len(),
            )
            .into());
        }
        Ok(Sample { first: first.unwrap_or(whole), whole })
    }
}
