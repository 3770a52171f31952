//! The forwarding end: a service that sends a request to the upstream and answers with its reply.

mod connect;
mod failure;
mod http1;
mod target;

use std::{
    convert::Infallible,
    future::Future,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy;
use tower_session_memory::RequestBody;

use crate::{
    BoxError,
    admission::Place,
    body::{Stalled, Timed, UpstreamRequest},
    config::Config,
    drain::Work,
    headers::{strip_hop_by_hop, tokens_of},
    reply::Refusal,
    upgrade::Upgrade,
};
pub(crate) use connect::{KEEP_ALIVE, USER_TIMEOUT};
use target::Target;

/// The body of the upstream's reply: over plain HTTP/1.1, or over what else there is.
type UpstreamReply = Either<http1::Reply, Incoming>;
/// The body of an answer: the upstream's, or one of ours.
pub(crate) type Reply = Either<Timed<UpstreamReply>, Full<Bytes>>;

/// Sends requests to the upstream. A clone shares the connections.
#[derive(Clone)]
pub(crate) struct Forward {
    inner: Arc<Inner>,
    /// Whose requests they are, if anybody knows.
    client: Option<SocketAddr>,
    /// That of the next request.
    place: Option<Place>,
}

struct Inner {
    target: Target,
    preserve_host: bool,
    forwarded_headers: bool,
    head_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    body_read_timeout: Option<Duration>,
    pooled: connect::HttpClient,
    /// HTTP/1.1 only: what upgrades, and what carries a host of its own, cannot be HTTP/2.
    http1: connect::HttpClient,
    /// Without TLS: for all but upgrades.
    plain: Option<http1::Client>,
    work: Work,
}

/// The upstream gave no head of a reply.
#[derive(Debug, thiserror::Error)]
enum Unanswered {
    #[error(transparent)]
    Plain(#[from] http1::Error),
    #[error(transparent)]
    Pooled(#[from] legacy::Error),
}

impl Unanswered {
    /// Whether there was no connection to ask it on.
    fn is_unreached(&self) -> bool {
        match self {
            Self::Plain(error) => matches!(error, http1::Error::Connect(_)),
            Self::Pooled(error) => error.is_connect(),
        }
    }
}

impl Forward {
    /// Upgraded connections are part of `work`.
    ///
    /// # Errors
    ///
    /// When there are no certificates to trust, or a file with them cannot be read.
    pub(crate) fn new(config: &Config, work: Work) -> Result<Self, BoxError> {
        let settings = &config.settings;
        let (pooled, http1) = connect::clients(config)?;
        let target = Target::new(&config.upstream.0)?;
        let connector = || connect::plain(settings.connect_timeout);
        let plain = target.is_plain().then(|| http1::Client::new(config.upstream.0.clone(), connector()));
        let inner = Arc::new(Inner {
            target,
            preserve_host: settings.preserve_host,
            forwarded_headers: settings.forwarded_headers,
            head_timeout: settings.head_timeout,
            idle_timeout: settings.idle_timeout,
            body_read_timeout: settings.body_read_timeout,
            pooled,
            http1,
            plain,
            work,
        });
        Ok(Self { inner, client: None, place: None })
    }

    /// Sends the requests of one client from here on.
    pub(crate) fn on_behalf_of(&mut self, client: SocketAddr) {
        self.client = Some(client);
    }

    /// Holds this place until the upstream's reply to the next request has ended, whoever still waits for it.
    pub(crate) fn hold(&mut self, place: Place) {
        self.place = Some(place);
    }
}

impl tower::Service<Request<RequestBody<Incoming>>> for Forward {
    type Response = Response<Reply>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Reply>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Incoming>>) -> Self::Future {
        let Self { inner, client, place } = self.clone();
        // A session's request has been read by the layer, within the same limit; this is for all others.
        let limit = inner.body_read_timeout;
        let request = request.map(|body| Timed::new(body, limit, Stalled::Client));
        // Here, and not in the future: that would be larger by each of its arguments, and is moved.
        let outgoing = inner.outgoing(request, client);
        Box::pin(async move {
            let (request, upgrade) = match outgoing {
                Ok(outgoing) => outgoing,
                Err(refusal) => return Ok(refusal.into_response().map(Either::Right)),
            };
            Ok(match inner.forward(request, upgrade).await {
                Ok(mut response) => {
                    response.body_mut().hold(place);
                    response.map(Either::Left)
                }
                Err(refusal) => refusal.into_response().map(Either::Right),
            })
        })
    }
}

impl Inner {
    async fn forward(
        &self,
        request: Request<UpstreamRequest>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Timed<UpstreamReply>>, Refusal> {
        // Pinned here: a future that is handed on is held once more by each that it is handed to.
        let reply = pin!(self.ask(request, upgrade.is_some()));
        let mut response = self.head(reply).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, upgrade);
        }
        settle_framing(response.headers_mut())?;
        let refused_upgrade = upgrade.is_some();
        strip_hop_by_hop(response.headers_mut());
        if refused_upgrade {
            // What the client sends next may be meant for the protocol that it did not get.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| Timed::new(body, self.idle_timeout, Stalled::Upstream)))
    }

    /// The way that the request goes. Where nothing needs more, that is plain HTTP/1.1.
    fn plain(&self, upgrades: bool) -> Option<&http1::Client> {
        self.plain.as_ref().filter(|_| !upgrades)
    }

    async fn ask(
        &self,
        request: Request<UpstreamRequest>,
        upgrades: bool,
    ) -> Result<Response<UpstreamReply>, Unanswered> {
        if let Some(plain) = self.plain(upgrades) {
            return Ok(plain.send(request).await?.map(Either::Left));
        }
        let client = if upgrades || self.preserve_host { &self.http1 } else { &self.pooled };
        Ok(client.request(request).await?.map(Either::Right))
    }

    async fn head(
        &self,
        reply: Pin<&mut impl Future<Output = Result<Response<UpstreamReply>, Unanswered>>>,
    ) -> Result<Response<UpstreamReply>, Refusal> {
        let reply = match self.head_timeout {
            None => reply.await,
            Some(limit) => match tokio::time::timeout(limit, reply).await {
                Ok(reply) => reply,
                Err(_) => return Err(failure::no_head(limit)),
            },
        };
        reply.map_err(|error| failure::refusal(&error))
    }

    /// The request as the upstream gets it.
    fn outgoing(
        &self,
        request: Request<UpstreamRequest>,
        client: Option<SocketAddr>,
    ) -> Result<(Request<UpstreamRequest>, Option<Upgrade>), Refusal> {
        let (mut parts, body) = request.into_parts();
        let upgrade = parts.extensions.remove::<Upgrade>();
        parts.extensions = http::Extensions::new();
        parts.version = Version::HTTP_11;
        let path = self.target.path(&parts.uri).map_err(BoxError::from);
        let url = path.and_then(|path| match self.plain(upgrade.is_some()) {
            Some(_) => Ok(Uri::from(path)),
            None => self.target.url(path),
        });
        parts.uri = url.map_err(|_| {
            Refusal::invalid(StatusCode::BAD_REQUEST, "the request target and the upstream make no URL")
        })?;
        let headers = &mut parts.headers;
        if let (true, Some(client)) = (self.forwarded_headers, client) {
            add_forwarded(headers, client);
        }
        match (&self.target.host, self.preserve_host) {
            (Some(host), false) => drop(headers.insert(header::HOST, host.clone())),
            // A client of HTTP/1.0 need not name one, and the upstream is asked in HTTP/1.1.
            (Some(host), true) => drop(headers.entry(header::HOST).or_insert_with(|| host.clone())),
            (None, false) => drop(headers.remove(header::HOST)),
            (None, true) => {}
        }
        // hyper frames the body by what it is: a length that was only said is never copied.
        headers.remove(header::CONTENT_LENGTH);
        if let Some(upgrade) = &upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade.protocol.clone());
        }
        Ok((Request::from_parts(parts, body), upgrade))
    }

    fn switch(
        &self,
        mut response: Response<UpstreamReply>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<Timed<UpstreamReply>>, Refusal> {
        let Some(upgrade) = upgrade else { return Err(failure::unasked_upgrade()) };
        let protocol = response.headers().get(header::UPGRADE).cloned();
        upgrade.join(&mut response, &self.work);
        let mut response = response.map(|body| Timed::new(body, None, Stalled::Upstream));
        strip_hop_by_hop(response.headers_mut());
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            response.headers_mut().insert(header::UPGRADE, protocol);
        }
        Ok(response)
    }
}

/// A reply that is chunked has no other length (RFC 9112, section 6.3): the client must not count by one. And a
/// coding that nobody here undoes would be lost with the header that names it.
fn settle_framing(headers: &mut HeaderMap) -> Result<(), Refusal> {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return Ok(());
    }
    headers.remove(header::CONTENT_LENGTH);
    let known = ["chunked", "identity"];
    match tokens_of(headers, header::TRANSFER_ENCODING)
        .all(|coding| known.iter().any(|known| coding.eq_ignore_ascii_case(known)))
    {
        true => Ok(()),
        false => Err(failure::unknown_coding()),
    }
}

/// Says who the client is, after what the client itself says.
fn add_forwarded(headers: &mut HeaderMap, client: SocketAddr) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let before: Vec<_> = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let address = client.ip().to_string();
    let hops = before.into_iter().chain([address.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(hops) = HeaderValue::from_str(&hops) {
        headers.insert(FOR, hops);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
}
