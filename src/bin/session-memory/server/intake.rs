//! A request on its way from a connection to the layer: through the gate, then through admission.
//!
//! | refused by | body of the request | connection |
//! |---|---|---|
//! | the gate (malformed) | not read | ends, in HTTP/1 |
//! | admission (too many) | read, up to 1 MiB | carries the next request |
//!
//! An admitted request carries its state, [`InFlight`], in its extensions through the layer to the forwarding service.

use std::{
    convert::Infallible,
    net::SocketAddr,
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
use hyper::body::Incoming;
use metrics::Counter;
use tokio_util::task::TaskTracker;
use tower::Service;
use tower_session_memory::{ResponseBody, SessionMemory};

use super::{admission::Admission, framing::AmbiguousRequest, gate::Gate};
use crate::{
    traffic::{IdleLimited, InFlight, Refusal, SlotHeld, Stalled, discard},
    upstream::{AnswerBody, Forward},
};

/// Up to 1 MiB of a refused request's body is read; a connection with more of it ends.
const MAX_DISCARDED: usize = 1024 * 1024;

/// The service that answers a client's request: the layer around the forwarding service.
pub(crate) type App = SessionMemory<Forward>;

/// The body of a response to a client: the layer's, or a refusal.
type ClientBody = Either<SlotHeld<ResponseBody<AnswerBody>>, Full<Bytes>>;

/// Checks that all requests of the server pass.
pub(crate) struct Intake {
    pub(crate) gate: Gate,
    pub(crate) admission: Admission,
    pub(crate) replies: ReplyCounters,
    pub(crate) body_read_timeout: Option<Duration>,
    /// The tasks that read the rest of refused bodies.
    pub(crate) tasks: TaskTracker,
}

/// The requests of one connection.
pub(super) struct Requests {
    pub(super) intake: Arc<Intake>,
    pub(super) app: App,
    pub(super) client: SocketAddr,
    pub(super) is_http2: bool,
    pub(super) ambiguous: Arc<AmbiguousRequest>,
    /// The number of requests that have begun.
    pub(super) seen: AtomicU64,
}

impl Requests {
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Acquire)
    }

    /// Answers one request: by the layer, or by a refusal.
    pub(super) async fn answer(
        self: Arc<Self>,
        mut request: Request<Incoming>,
    ) -> Result<Response<ClientBody>, Infallible> {
        let number = self.seen.fetch_add(1, Ordering::AcqRel) + 1;
        let logged = LoggedRequest::of(&request);
        let expects = request.headers().contains_key(header::EXPECT);
        let response = match self.intake.gate.admit(&mut request, self.ambiguous.is(number)) {
            Ok(upgrade) => match self.intake.admission.admit() {
                Ok(slot) => {
                    let state = InFlight { client: self.client, slot: Arc::clone(&slot), upgrade };
                    request.extensions_mut().insert(state);
                    // The forwarding service is always ready, and so is the layer around it.
                    let response = self.app.clone().call(request).await?;
                    response.map(|body| Either::Left(SlotHeld::new(body, Some(slot))))
                }
                Err(refusal) => self.turn_away(refusal, request.into_body(), expects).map(Either::Right),
            },
            Err(refusal) => self.refuse(*refusal).map(Either::Right),
        };
        let status = response.status();
        logged.log(status);
        self.intake.replies.count(status);
        Ok(response)
    }

    /// Refuses a well-formed request, and reads its body, so that the connection can carry the next one.
    fn turn_away(&self, mut refusal: Refusal, body: Incoming, expects: bool) -> Response<Full<Bytes>> {
        // A client that expects 100-continue may or may not send its body now, so the connection ends.
        refusal.close = expects;
        if !expects && !body.is_end_stream() {
            let body = IdleLimited::new(body, self.intake.body_read_timeout, Stalled::Client);
            self.intake.tasks.spawn(discard(body, MAX_DISCARDED));
        }
        self.refuse(refusal)
    }

    fn refuse(&self, mut refusal: Refusal) -> Response<Full<Bytes>> {
        tracing::debug!(status = refusal.status.as_u16(), refusal.message, "a request was refused");
        // A malformed HTTP/2 stream says nothing about the next one, and no header ends a connection.
        refusal.close &= !self.is_http2;
        refusal.into_response()
    }
}

/// Method and path of a request for the log; empty where `debug` is off.
struct LoggedRequest(Option<(Method, String)>);

impl LoggedRequest {
    fn of<B>(request: &Request<B>) -> Self {
        let logged = tracing::enabled!(tracing::Level::DEBUG);
        Self(logged.then(|| (request.method().clone(), request.uri().path().to_owned())))
    }

    fn log(self, status: StatusCode) {
        let Some((method, path)) = self.0 else { return };
        tracing::debug!(%method, path, status = status.as_u16(), "a request was answered");
    }
}

/// Counters of replies by the class of their status.
pub(crate) struct ReplyCounters([Counter; 5]);

impl ReplyCounters {
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
