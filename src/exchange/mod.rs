//! One request with a session, from its head to its reply. Read this first.
//!
//! ```text
//! identify → collect body → read → load → translate → look up → reconcile → view → edit → forward
//!          → tee + accumulate → commit turn → last bytes
//! ```
//!
//! (The last three happen while the response body is read: see `body/tee.rs`.) Whatever is not ours to edit leaves the
//! line at once and untouched.

mod decision;
mod head;
mod identify;
mod rejection;
mod translate;

pub use decision::{Decision, Remembered};

pub(crate) use identify::{Identity, in_head, unnamed};
pub(crate) use rejection::Rejection;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header, request};
use http_body::Body;
use tokio::{
    runtime::Handle,
    time::{Instant, timeout},
};
use tower_service::Service;
use tracing::Instrument;

use self::{
    decision::SESSION_MEMORY,
    head::{SIGNED, attempt, idempotency_key, not_ours, rewrite, unrecorded},
    identify::{Control, consume, control, in_body, is_json},
    translate::{Foreign, in_format},
};
use crate::{
    body::{
        BoxError, CollectError, Collected, Reactions, RequestBody, ResponseBody, Tee, collect, detached,
        encoding::{self, Coding, DecodeError, Decoder},
        recording::{Listener, OpenTurn, Recording},
    },
    config::{Config, Limits, OnDisconnect, OnLoadError},
    failpoint::{self, Point},
    history::Log,
    lookup::{Question, look_up},
    protocol::{Draft, Protocol, ReplyLimits, Uneditable},
    reconcile::{Incoming, Mode, Plan, reconcile},
    session::SessionKey,
    store::{Cursor, Loaded, StoreError, StoreErrorKind},
    telemetry,
};

/// What a request of a session is handled with.
#[derive(Clone)]
pub(crate) struct Exchange {
    pub(crate) config: Arc<Config>,
    pub(crate) protocol: Arc<dyn Protocol>,
}

/// Runs the exchange. Where a client that leaves does not end it, it runs in a task of its own.
///
/// Without an identity, the request's body may name the session.
pub(crate) async fn run<S, B, R>(
    exchange: Exchange,
    service: S,
    identity: Option<Identity>,
    parts: request::Parts,
    body: B,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Send + 'static,
    B: Body<Data = Bytes> + Send + 'static,
    R: Body<Data = Bytes> + Send + 'static,
    R::Error: Into<BoxError>,
{
    let commits = exchange.config.commits.clone();
    let on_disconnect = exchange.config.on_disconnect;
    let run = exchange.run(service, identity, parts, body);
    match on_disconnect {
        OnDisconnect::Drain => commits.run(run).await,
        OnDisconnect::Keep | OnDisconnect::Discard => run.await,
    }
}

impl Exchange {
    async fn run<S, B, R>(
        self,
        service: S,
        identity: Option<Identity>,
        parts: request::Parts,
        body: B,
    ) -> Result<Response<ResponseBody<R>>, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        B: Body<Data = Bytes>,
        R: Body<Data = Bytes> + Send + 'static,
    {
        match identity {
            Some(identity) => {
                let span = telemetry::span(&identity.key);
                self.named(service, identity, parts, body).instrument(span).await
            }
            None => self.unnamed(service, parts, body).await,
        }
    }

    /// A request whose head names its session.
    async fn named<S, B, R>(
        self,
        service: S,
        identity: Identity,
        mut parts: request::Parts,
        body: B,
    ) -> Result<Response<ResponseBody<R>>, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        B: Body<Data = Bytes>,
        R: Body<Data = Bytes> + Send + 'static,
    {
        if let Some(reason) = not_ours(identity.control, &parts) {
            if reason != SIGNED {
                consume(&self.config, &identity, &mut parts.headers);
            }
            let request = Request::from_parts(parts, RequestBody::stream(body));
            return self.bypass(&identity, service, request, Decision::bypass(reason)).await;
        }
        let (collected, body) = match self.collect(&parts.headers, body).await {
            Ok(bodies) => bodies,
            Err(rejection) => return Ok(self.reject(rejection)),
        };
        match self.protocol.read(&body) {
            Ok(draft) => self.converse(service, identity, parts, collected, draft).await,
            Err(uneditable) => {
                prepare(&self.config, &identity, &mut parts.headers);
                let request = Request::from_parts(parts, RequestBody::untouched(collected));
                let decision = Decision::bypass(uneditable.as_str());
                self.bypass(&identity, service, request, decision).await
            }
        }
    }

    /// A request whose body may name its session.
    async fn unnamed<S, B, R>(
        self,
        service: S,
        mut parts: request::Parts,
        body: B,
    ) -> Result<Response<ResponseBody<R>>, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        B: Body<Data = Bytes>,
        R: Body<Data = Bytes> + Send + 'static,
    {
        let asked = match control(&parts.headers) {
            Ok(control) => control,
            Err(rejection) => return Ok(self.reject(rejection)),
        };
        // A page of another site can send any body, but none of this type without being asked first.
        let reason = not_ours(asked, &parts).or((!parts
            .headers
            .get(header::CONTENT_TYPE)
            .is_some_and(is_json))
        .then_some("content_type"));
        if let Some(reason) = reason {
            return match unnamed(&self.config, &parts) {
                Ok(identity) => {
                    if reason != SIGNED {
                        parts.headers.remove(SESSION_MEMORY);
                    }
                    let request = Request::from_parts(parts, RequestBody::stream(body));
                    self.pass(identity, service, request, reason).await
                }
                Err(rejection) => Ok(self.reject(rejection)),
            };
        }
        let (collected, body) = match self.collect(&parts.headers, body).await {
            Ok(bodies) => bodies,
            Err(rejection) => return Ok(self.reject(rejection)),
        };
        let read = self.protocol.read(&body);
        let session = read.as_ref().ok().and_then(|draft| draft.session.as_deref());
        match (in_body(&self.config, &parts, session), read) {
            (Err(rejection), _) => Ok(self.reject(rejection)),
            (Ok(Some(identity)), Ok(draft)) => {
                let span = telemetry::span(&identity.key);
                self.converse(service, identity, parts, collected, draft).instrument(span).await
            }
            (Ok(identity), read) => {
                parts.headers.remove(SESSION_MEMORY);
                parts.headers.remove(header::EXPECT);
                let request = Request::from_parts(parts, RequestBody::untouched(collected));
                let reason = read.err().map_or("no_session", Uneditable::as_str);
                self.pass(identity, service, request, reason).await
            }
        }
    }

    /// Forwards a request that is not edited: one without a session as if there were no layer.
    async fn pass<S, B, R>(
        &self,
        identity: Option<Identity>,
        mut service: S,
        request: Request<RequestBody<B>>,
        reason: &'static str,
    ) -> Result<Response<ResponseBody<R>>, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    {
        match identity {
            Some(identity) => self.bypass(&identity, service, request, Decision::bypass(reason)).await,
            None => service.call(request).await.map(|response| response.map(ResponseBody::inner)),
        }
    }

    /// A request whose items are found.
    async fn converse<S, B, R>(
        self,
        mut service: S,
        identity: Identity,
        mut parts: request::Parts,
        collected: Collected,
        draft: Draft,
    ) -> Result<Response<ResponseBody<R>>, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
        B: Body<Data = Bytes>,
        R: Body<Data = Bytes> + Send + 'static,
    {
        let Self { config, protocol } = &self;
        prepare(config, &identity, &mut parts.headers);
        let stored = match (load(config, &identity.key).await, config.on_load_error) {
            (Some(stored), _) => stored,
            (None, OnLoadError::Reject) => return Ok(self.reject(Rejection::store_unavailable())),
            (None, OnLoadError::Bypass) => {
                let request = Request::from_parts(parts, RequestBody::untouched(collected));
                return self.bypass(&identity, service, request, Decision::degraded("load_failed")).await;
            }
        };
        let Stored { log, base } = stored;
        let log = match mode(&identity) {
            // What was said before is not looked at.
            Mode::Reset => log,
            Mode::Recognize | Mode::Append => match in_format(log, &**protocol, config, &identity.key) {
                Ok(log) => log,
                Err(Foreign::Unknown(format)) => {
                    return Ok(self.reject(Rejection::unreadable_session(format)));
                }
                Err(Foreign::Untranslatable) => {
                    let request = Request::from_parts(parts, RequestBody::untouched(collected));
                    return self.bypass(&identity, service, request, Decision::bypass("format")).await;
                }
            },
        };
        drop(collected);
        // Before a conversation that begins, nothing is shown.
        let lead = match config.lookups.is_empty() || log.is_empty() || mode(&identity) == Mode::Reset {
            true => Vec::new(),
            false => {
                let question = Question { key: &identity.key, log: &log, draft: &draft };
                look_up(&config.lookups, config.lookup_timeout, question).await
            }
        };
        let attempt = attempt(&parts.headers);
        let mut plan = plan(config, &**protocol, &identity, attempt, &draft, &log, &lead);
        // The store or its cache adds the next turn to it in place, once nothing else reads it.
        drop(log);
        if plan.insertion().len() > config.limits.max_history {
            plan.lead.clear();
        }
        if plan.insertion().len() > config.limits.max_history {
            let limit = config.limits.max_history;
            return Ok(self.reject(Rejection::too_large("the history to be sent", limit, "max_history")));
        }

        let pieces = protocol.edit(&draft, &plan.insertion());
        rewrite(&mut parts.headers, pieces.iter().map(Bytes::len).sum());
        let recorded = identity.control != Control::Read;
        if recorded {
            parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        }
        let attempt = (attempt, idempotency_key(&parts.headers));
        let decision = remembered(&self, &base, &draft, &plan);
        config.observers.decided(config.commits.reports(), &identity.key, &decision);
        announce(&mut parts.extensions, &identity, decision.clone());
        let request = Request::from_parts(parts, RequestBody::pieces(pieces));
        failpoint::hit(Point::Forwarded);
        let response = service.call(request).await?;

        Ok(self.remember(&identity, base, &draft, plan, decision, attempt, response))
    }

    /// The request's body, as it came and decoded.
    async fn collect<B>(&self, headers: &HeaderMap, body: B) -> Result<(Collected, Bytes), Rejection>
    where
        B: Body<Data = Bytes>,
    {
        let config = &self.config;
        let coding = encoding::coding(headers).map_err(|_| Rejection::unsupported_encoding())?;
        let collected = collect(body, &config.limits, &config.room)
            .await
            .map_err(|error| uncollected(error, config.limits))?;
        let body = match coding {
            None => collected.body.clone(),
            Some(coding) => decode(config, coding, &collected.body)?,
        };
        Ok((collected, body))
    }

    /// Forwards a request without memory and says so.
    async fn bypass<S, B, R>(
        &self,
        identity: &Identity,
        mut service: S,
        mut request: Request<RequestBody<B>>,
        decision: Decision,
    ) -> Result<Response<ResponseBody<R>>, S::Error>
    where
        S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    {
        telemetry::bypassed(decision.word(), decision.reason());
        announce(request.extensions_mut(), identity, decision.clone());
        self.config.observers.decided(self.config.commits.reports(), &identity.key, &decision);
        let mut response = service.call(request).await?;
        decision.write(response.headers_mut());
        if identity.control != Control::Off {
            name_session(&self.config, identity, response.headers_mut());
        }
        announce(response.extensions_mut(), identity, decision);
        Ok(response.map(ResponseBody::inner))
    }

    fn reject<R>(&self, rejection: Rejection) -> Response<ResponseBody<R>> {
        telemetry::rejected(rejection.code());
        rejection.into_response(&*self.protocol)
    }

    /// The response, with what it says of its session, and with a body that completes the turn.
    #[expect(clippy::too_many_arguments, reason = "all that is known of the request when its reply begins")]
    fn remember<R>(
        &self,
        identity: &Identity,
        base: Base,
        draft: &Draft,
        plan: Plan,
        mut decision: Decision,
        (attempt, idempotency_key): (Option<u32>, Option<String>),
        response: Response<R>,
    ) -> Response<ResponseBody<R>>
    where
        R: Body<Data = Bytes> + Send + 'static,
    {
        let config = &self.config;
        let (mut head, body) = response.into_parts();
        let decoder = encoding::coding(&head.headers).map(|coding| {
            coding.map(|coding| Decoder::new(coding, config.limits.max_reply.saturating_mul(4)))
        });
        let unrecorded = unrecorded(identity, &head).or(decoder.is_err().then_some("content_encoding"));
        if let Some(reason) = unrecorded {
            telemetry::not_recorded(reason);
            decision.is_not_recorded(reason);
        }
        telemetry::request(decision.word(), plan.case.as_str());
        decision.write(&mut head.headers);
        name_session(config, identity, &mut head.headers);
        announce(&mut head.extensions, identity, decision);
        let (Ok(decoder), None) = (decoder, unrecorded) else {
            return Response::from_parts(head, ResponseBody::inner(body));
        };
        let limits = ReplyLimits { reply: config.limits.max_reply, event: config.limits.max_event };
        // A reply may take minutes: until then the request's body need not stay in memory.
        let kept = |items| detached(items, draft.body.len(), &config.room);
        let turn = OpenTurn {
            key: identity.key.clone(),
            at: base.at,
            parent: plan.parent,
            client: plan.case,
            view: plan.recipe,
            attempt,
            idempotency_key,
            instructions: if plan.stores_instructions { kept(&draft.instructions) } else { Vec::new() },
            sent: kept(&draft.items[plan.new]),
        };
        let recording = Recording {
            turn,
            protocol: Arc::clone(&self.protocol),
            limits,
            max_turn: config.limits.max_history,
            decoder,
            commits: config.commits.clone(),
            queue: config.append_queue,
            observers: config.observers.clone(),
            runtime: Handle::current(),
            listener: Listener::Undecided,
            in_flight: None,
        };
        let reactions = Reactions {
            commit_wait: config.commit_wait,
            on_append_error: config.on_append_error,
            on_disconnect: config.on_disconnect,
        };
        Response::from_parts(head, ResponseBody::recorded(Tee::new(body, recording, reactions)))
    }
}

/// Takes our headers off a request whose body has been read.
fn prepare(config: &Config, identity: &Identity, headers: &mut HeaderMap) {
    consume(config, identity, headers);
    headers.remove(header::EXPECT);
}

/// Puts the session and what was decided into the extensions of a request or response.
fn announce(extensions: &mut http::Extensions, identity: &Identity, decision: Decision) {
    extensions.insert(identity.key.clone());
    extensions.insert(decision);
}

/// What is stored of a session, and what its next turn is built on.
struct Stored {
    log: Arc<Log>,
    base: Base,
}

/// What a turn is built on.
struct Base {
    at: Cursor,
    /// Whether every turn that was in flight here when the load began is in what was loaded.
    settled: bool,
}

/// The session's log. It has every turn whose end a client of this replica has seen, unless one of them could
/// not be stored within the load's limit.
async fn load(config: &Config, key: &SessionKey) -> Option<Stored> {
    failpoint::hit(Point::BeforeLoad);
    let started = Instant::now();
    let settled = config.commits.settled(key, config.load_timeout).await;
    if !settled {
        telemetry::unsettled(key);
    }
    let loaded = timeout(config.load_timeout, config.store.load_dyn(key, None.into())).await;
    failpoint::hit(Point::Loaded);
    let Ok(loaded) = loaded else {
        telemetry::store_timed_out("load", key);
        return None;
    };
    match loaded.and_then(opened) {
        Ok((log, at)) => {
            telemetry::loaded(started.elapsed(), log.records().len());
            Some(Stored { log, base: Base { at, settled } })
        }
        Err(error) => {
            telemetry::store_failed("load", key, &error);
            None
        }
    }
}

/// The log and where it ends. Without what they say, envelopes would be left out of the history in silence.
fn opened(loaded: Loaded) -> Result<(Arc<Log>, Cursor), StoreError> {
    let log = loaded.records.into_log();
    if log.holds_envelopes() {
        let source = "a stored record is compressed or encrypted, and the store is set up to read neither";
        return Err(StoreError::with_source(StoreErrorKind::Conflict, source));
    }
    Ok((log, loaded.cursor))
}

/// Says which session a response belongs to. With a memory the request's body no longer determines the answer,
/// so no cache may keep it.
fn name_session(config: &Config, identity: &Identity, headers: &mut HeaderMap) {
    identity.tell(&config.sources, headers);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn uncollected(error: CollectError, limits: Limits) -> Rejection {
    match error {
        CollectError::TooLarge => {
            Rejection::too_large("the request body", limits.max_request_body, "max_request_body")
        }
        CollectError::TooSlow => Rejection::too_slow(limits.body_read_timeout),
        CollectError::TooLate => Rejection::too_late(limits.body_deadline),
        CollectError::NeverRoom => {
            Rejection::too_large("the request body", limits.max_buffered, "max_buffered")
        }
        CollectError::NoRoom => Rejection::overloaded(limits.max_buffered),
        CollectError::Broken => Rejection::invalid_request("the request body broke off"),
    }
}

/// A compressed body, decoded, and held beside the one that came.
fn decode(config: &Config, coding: Coding, body: &Bytes) -> Result<Bytes, Rejection> {
    let Limits { max_request_body, max_buffered, .. } = config.limits;
    let decoded = encoding::decode(coding, body, max_request_body)
        .map_err(|error| undecoded(error, max_request_body))?;
    if !config.room.fits([body.len(), decoded.len()]) {
        let what = "the request body, as it came and decoded,";
        return Err(Rejection::too_large(what, max_buffered, "max_buffered"));
    }
    let mut held = config.room.hold();
    held.grow(decoded.len()).map_err(|_| Rejection::overloaded(max_buffered))?;
    Ok(held.keep(decoded))
}

fn undecoded(error: DecodeError, limit: usize) -> Rejection {
    match error {
        DecodeError::TooLarge => Rejection::too_large("the decoded request body", limit, "max_request_body"),
        DecodeError::Bomb => Rejection::bomb(),
        DecodeError::Corrupt => {
            Rejection::invalid_request("the request body is not what its content-encoding says")
                .with_param("content-encoding")
        }
    }
}

fn mode(identity: &Identity) -> Mode {
    match identity.control {
        Control::Append => Mode::Append,
        Control::Reset => Mode::Reset,
        Control::Default | Control::Read | Control::Off => Mode::Recognize,
    }
}

/// How the request continues its session.
fn plan(
    config: &Config,
    protocol: &dyn Protocol,
    identity: &Identity,
    attempt: Option<u32>,
    draft: &Draft,
    log: &Log,
    lead: &[Bytes],
) -> Plan {
    let incoming = Incoming {
        instructions: &draft.instructions,
        items: &draft.items,
        log,
        lead,
        mode: mode(identity),
        retried: attempt.is_some_and(|attempt| attempt > 0),
        remember: config.instructions,
        // A limit below the window moves the window, or ordinary turns would run into it.
        window: config.window.with_bytes(config.window.bytes.min(config.limits.max_history)),
    };
    let plan = reconcile(&incoming, &|item| protocol.canonical(item));
    if plan.sent < plan.items {
        telemetry::trimmed(plan.items - plan.sent);
    }
    plan
}

fn remembered(exchange: &Exchange, base: &Base, draft: &Draft, plan: &Plan) -> Decision {
    Decision::Remembered(Remembered {
        client: plan.case,
        format: exchange.protocol.format(),
        parent: plan.parent,
        response: draft.response.clone(),
        turns: plan.turns,
        items: plan.items,
        sent: plan.sent,
        view: plan.recipe,
        store: exchange.config.store.name_dyn(),
        settled: base.settled,
        unrecorded: None,
    })
}
