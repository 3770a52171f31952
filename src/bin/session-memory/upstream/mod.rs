//! The upstream's side: [`Forward`], a service that sends a request to the upstream and answers with its reply.
//!
//! | file | |
//! |---|---|
//! | `target` | the upstream's URL, joined with a request's path |
//! | `connect` | TCP and TLS, with one time limit for both; the pooled client for TLS, HTTP/2 and upgrades |
//! | `http1` | the client for plain HTTP/1.1, without tasks of its own |
//! | `unanswered`, `failure` | what went wrong, and the refusal that the client gets for it |

mod connect;
mod failure;
mod http1;
mod target;
#[cfg(test)]
mod tests;
mod unanswered;

use std::{
    convert::Infallible,
    future::Future,
    net::IpAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Uri, Version, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use tower_session_memory::RequestBody;

use crate::{
    error::BoxError,
    settings::Config,
    traffic::{
        IdleLimited, InFlight, Refusal, SlotHeld, Stalled, Upgrade, Work, strip_hop_by_hop, tokens_of,
    },
};
use connect::UpstreamRequest;
use target::Target;
use unanswered::Unanswered;

/// The body of the upstream's reply: from `http1`, or from a pooled client.
type UpstreamReply = Either<http1::ReplyBody, Incoming>;
/// The body of an answer: the upstream's reply, or a refusal.
pub(crate) type AnswerBody = Either<SlotHeld<IdleLimited<UpstreamReply>>, Full<Bytes>>;

/// Sends requests to the upstream. A clone shares the connections.
#[derive(Clone)]
pub(crate) struct Forward(Arc<Inner>);

struct Inner {
    target: Target,
    preserve_host: bool,
    forwarded_headers: bool,
    head_timeout: Option<Duration>,
    idle_timeout: Option<Duration>,
    body_read_timeout: Option<Duration>,
    pooled: connect::PooledClient,
    /// HTTP/1.1 only: an upgrade, or a request with the client's own host, cannot be HTTP/2.
    pooled_http1: connect::PooledClient,
    /// For all but upgrades, where the upstream's URL is plain `http`.
    plain: Option<http1::Http1Client>,
    work: Work,
}

impl Forward {
    /// Upgraded connections become part of `work`.
    ///
    /// # Errors
    ///
    /// When there are no certificates to trust, or a file with them cannot be read.
    pub(crate) fn new(config: &Config, work: Work) -> Result<Self, BoxError> {
        let settings = &config.settings;
        let (pooled, pooled_http1) = connect::clients(config)?;
        let target = Target::new(&config.upstream.0)?;
        let connector = || connect::plain(settings.connect_timeout);
        let plain =
            target.is_plain().then(|| http1::Http1Client::new(config.upstream.0.clone(), connector()));
        Ok(Self(Arc::new(Inner {
            target,
            preserve_host: settings.preserve_host,
            forwarded_headers: settings.forwarded_headers,
            head_timeout: settings.head_timeout,
            idle_timeout: settings.idle_timeout,
            body_read_timeout: settings.body_read_timeout,
            pooled,
            pooled_http1,
            plain,
            work,
        })))
    }
}

impl tower::Service<Request<RequestBody<Incoming>>> for Forward {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody<Incoming>>) -> Self::Future {
        let inner = Arc::clone(&self.0);
        // A request without a session streams through; a session's body was read by the layer, within the same limit.
        let limit = inner.body_read_timeout;
        let mut request = request.map(|body| IdleLimited::new(body, limit, Stalled::Client));
        let (slot, upgrade) = match request.extensions_mut().remove::<InFlight>() {
            Some(InFlight { client, slot, upgrade }) => {
                if inner.forwarded_headers {
                    add_forwarded(request.headers_mut(), client.ip());
                }
                (Some(slot), upgrade)
            }
            None => (None, None),
        };
        // Outside of the future, which would otherwise hold each argument twice.
        let outgoing = inner.outgoing(request, upgrade.as_ref());
        Box::pin(async move {
            let forwarded = match outgoing {
                Ok(request) => inner.forward(request, upgrade).await,
                Err(refusal) => Err(refusal),
            };
            Ok(match forwarded {
                Ok(response) => response.map(|body| Either::Left(SlotHeld::new(body, slot))),
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
    ) -> Result<Response<IdleLimited<UpstreamReply>>, Refusal> {
        // Pinned here, since a future that is passed on by value is held once more by each receiver.
        let reply = pin!(self.ask(request, upgrade.is_some()));
        let mut response = self.head(reply).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return self.switch(response, upgrade);
        }
        settle_framing(response.headers_mut())?;
        let refused_upgrade = upgrade.is_some();
        strip_hop_by_hop(response.headers_mut());
        if refused_upgrade {
            // The client's next bytes may be meant for the protocol that it did not get.
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        *response.version_mut() = Version::HTTP_11;
        Ok(response.map(|body| IdleLimited::new(body, self.idle_timeout, Stalled::Upstream)))
    }

    /// The client for plain HTTP/1.1, where the request can take it.
    fn plain(&self, upgrades: bool) -> Option<&http1::Http1Client> {
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
        let client = if upgrades || self.preserve_host { &self.pooled_http1 } else { &self.pooled };
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
        upgrade: Option<&Upgrade>,
    ) -> Result<Request<UpstreamRequest>, Refusal> {
        let (mut parts, body) = request.into_parts();
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
        match (&self.target.host, self.preserve_host) {
            (Some(host), false) => drop(headers.insert(header::HOST, host.clone())),
            // An HTTP/1.0 client need not name a host, and the upstream is asked in HTTP/1.1.
            (Some(host), true) => drop(headers.entry(header::HOST).or_insert_with(|| host.clone())),
            (None, false) => drop(headers.remove(header::HOST)),
            (None, true) => {}
        }
        // hyper frames the body by its actual length.
        headers.remove(header::CONTENT_LENGTH);
        if let Some(upgrade) = upgrade {
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, upgrade.protocol.clone());
        }
        Ok(Request::from_parts(parts, body))
    }

    fn switch(
        &self,
        mut response: Response<UpstreamReply>,
        upgrade: Option<Upgrade>,
    ) -> Result<Response<IdleLimited<UpstreamReply>>, Refusal> {
        let Some(upgrade) = upgrade else { return Err(failure::unasked_upgrade()) };
        let protocol = response.headers().get(header::UPGRADE).cloned();
        upgrade.join(&mut response, &self.work);
        let mut response = response.map(|body| IdleLimited::new(body, None, Stalled::Upstream));
        strip_hop_by_hop(response.headers_mut());
        response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(protocol) = protocol {
            response.headers_mut().insert(header::UPGRADE, protocol);
        }
        Ok(response)
    }
}

/// Removes the length of a chunked reply (RFC 9112, section 6.3), so that the client does not count by it.
///
/// Any other coding is refused: the header that names it does not pass, so no client could undo it.
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

/// Appends the client's address to the hops that the request names already.
fn add_forwarded(headers: &mut HeaderMap, client: IpAddr) {
    const FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
    let before: Vec<_> = headers.get_all(FOR).iter().filter_map(|value| value.to_str().ok()).collect();
    let address = client.to_string();
    let hops = before.into_iter().chain([address.as_str()]).collect::<Vec<_>>().join(", ");
    if let Ok(hops) = HeaderValue::from_str(&hops) {
        headers.insert(FOR, hops);
    }
    headers.insert("x-forwarded-proto", HeaderValue::from_static("http"));
    if let Some(host) = headers.get(header::HOST).cloned() {
        headers.insert("x-forwarded-host", host);
    }
}
