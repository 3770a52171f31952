//! One request with a session, from its head to its reply. Read this first.
//!
//! ```text
//! identify → collect body → load history → reconcile → window → splice → forward
//!          → tee + accumulate → commit turn → last bytes
//! ```
//!
//! (`identify` has happened: see `service.rs`. The last three happen while the response body is read: see
//! `body/tee.rs`.) Whatever is not ours to edit leaves the line at once and untouched.

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

use crate::{
    body::{
        BoxError, CollectError, Reactions, RequestBody, ResponseBody, Tee, collect, detached,
        encoding::{self, Coding, DecodeError, Decoder},
        recording::{Listener, OpenTurn, Recording},
    },
    config::{Config, Limits, OnDisconnect, OnLoadError},
    error::Rejection,
    failpoint::{self, Point},
    head::{SIGNED, is_retry, not_ours, rewrite, unrecorded},
    history::{Incoming, Log, Mode, Plan, reconcile},
    protocol::{Draft, ReplyLimits, splice::splice},
    session::{
        SessionKey,
        identify::{Control, Identity, consume},
    },
    status::{Remembered, Status},
    store::{Cursor, Loaded, StoreError, StoreErrorKind},
    telemetry,
};

/// Runs the exchange. Where a client that leaves does not end it, it runs in a task of its own.
pub(crate) async fn run<S, B, R>(
    config: Arc<Config>,
    service: S,
    identity: Identity,
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
    let span = telemetry::span(&identity.key);
    let commits = config.commits.clone();
    let on_disconnect = config.on_disconnect;
    let exchange = exchange(config, service, identity, parts, body).instrument(span);
    match on_disconnect {
        OnDisconnect::Drain => commits.run(exchange).await,
        OnDisconnect::Keep | OnDisconnect::Discard => exchange.await,
    }
}

async fn exchange<S, B, R>(
    config: Arc<Config>,
    mut service: S,
    identity: Identity,
    mut parts: request::Parts,
    body: B,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
    B: Body<Data = Bytes>,
    R: Body<Data = Bytes> + Send + 'static,
{
    if let Some(reason) = not_ours(&identity, &parts) {
        if reason != SIGNED {
            consume(&config, &identity, &mut parts.headers);
        }
        let request = Request::from_parts(parts, RequestBody::stream(body));
        return bypass(&config, &identity, service, request, Status::bypass(reason)).await;
    }

    let Ok(coding) = encoding::coding(&parts.headers) else {
        return Ok(reject(Rejection::unsupported_encoding()));
    };
    let collected = match collect(body, &config.limits, &config.room).await {
        Ok(collected) => collected,
        Err(error) => return Ok(reject(uncollected(error, config.limits))),
    };
    let body = match coding {
        None => collected.body.clone(),
        Some(coding) => match decode(&config, coding, &collected.body) {
            Ok(body) => body,
            Err(rejection) => return Ok(reject(rejection)),
        },
    };
    consume(&config, &identity, &mut parts.headers);
    parts.headers.remove(header::EXPECT);
    let draft = match config.protocol.read(&body) {
        Ok(draft) => draft,
        Err(uneditable) => {
            let request = Request::from_parts(parts, RequestBody::untouched(collected));
            let status = Status::bypass(uneditable.as_str());
            return bypass(&config, &identity, service, request, status).await;
        }
    };

    let stored = match (load(&config, &identity.key).await, config.on_load_error) {
        (Some(stored), _) => stored,
        (None, OnLoadError::Reject) => return Ok(reject(Rejection::store_unavailable())),
        (None, OnLoadError::Bypass) => {
            let request = Request::from_parts(parts, RequestBody::untouched(collected));
            let status = Status::degraded("load_failed");
            return bypass(&config, &identity, service, request, status).await;
        }
    };
    drop(collected);
    let Stored { log, base } = stored;
    let plan = plan(&config, &identity, &parts, &draft, &log);
    // The store or its cache adds the next turn to it in place, once nobody else reads it.
    drop(log);
    if plan.insertion().iter().map(Bytes::len).sum::<usize>() > config.limits.max_history {
        let limit = config.limits.max_history;
        return Ok(reject(Rejection::too_large("the history to be sent", limit, "max_history")));
    }

    let pieces = splice(&draft, plan.insertion());
    rewrite(&mut parts.headers, pieces.iter().map(Bytes::len).sum());
    let recorded = identity.control != Control::Read;
    if recorded {
        parts.headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    }
    let request = Request::from_parts(parts, RequestBody::pieces(pieces));
    failpoint::hit(Point::Forwarded);
    let response = service.call(request).await?;

    Ok(remember(&config, &identity, base, &draft, plan, response))
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
    let loaded = timeout(config.load_timeout, config.store.load_dyn(key, None)).await;
    failpoint::hit(Point::Loaded);
    let Ok(loaded) = loaded else {
        telemetry::store_timed_out("load", key);
        return None;
    };
    match loaded.and_then(opened) {
        Ok((log, at)) => {
            telemetry::loaded(started.elapsed(), log.turns().len());
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

/// Forwards a request without memory and says so.
async fn bypass<S, B, R>(
    config: &Config,
    identity: &Identity,
    mut service: S,
    request: Request<RequestBody<B>>,
    status: Status,
) -> Result<Response<ResponseBody<R>>, S::Error>
where
    S: Service<Request<RequestBody<B>>, Response = Response<R>>,
{
    telemetry::bypassed(&status);
    let mut response = service.call(request).await?;
    status.write(response.headers_mut());
    if identity.control != Control::Off {
        name_session(config, identity, response.headers_mut());
    }
    Ok(response.map(ResponseBody::inner))
}

/// Says which session a response belongs to. With a memory the request's body no longer determines the answer,
/// so no cache may keep it.
fn name_session(config: &Config, identity: &Identity, headers: &mut HeaderMap) {
    identity.tell(&config.sources, headers);
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

fn reject<R>(rejection: Rejection) -> Response<ResponseBody<R>> {
    telemetry::rejected(rejection.code());
    rejection.into_response()
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

/// How the request continues its session.
fn plan(config: &Config, identity: &Identity, parts: &request::Parts, draft: &Draft, log: &Log) -> Plan {
    let incoming = Incoming {
        messages: &draft.messages,
        leading: draft.leading,
        log,
        mode: match identity.control {
            Control::Append => Mode::Append,
            Control::Reset => Mode::Reset,
            Control::Default | Control::Read | Control::Off => Mode::Recognize,
        },
        retried: is_retry(&parts.headers),
        instructions: config.instructions,
        // A limit below the window moves the window, or ordinary turns would run into it.
        window: config.window.with_bytes(config.window.bytes.min(config.limits.max_history)),
    };
    let plan = reconcile(&incoming, &|message| config.protocol.canonical(message));
    if plan.sent < plan.messages {
        telemetry::trimmed(plan.messages - plan.sent);
    }
    plan
}

/// The response, with what it says of its session, and with a body that completes the turn.
fn remember<R>(
    config: &Config,
    identity: &Identity,
    base: Base,
    draft: &Draft,
    plan: Plan,
    response: Response<R>,
) -> Response<ResponseBody<R>>
where
    R: Body<Data = Bytes> + Send + 'static,
{
    let (mut head, body) = response.into_parts();
    let decoder = encoding::coding(&head.headers)
        .map(|coding| coding.map(|coding| Decoder::new(coding, config.limits.max_reply.saturating_mul(4))));
    let unrecorded = unrecorded(identity, &head).or(decoder.is_err().then_some("content_encoding"));
    if let Some(reason) = unrecorded {
        telemetry::not_recorded(reason);
    }
    let status = Status::Remembered(Remembered {
        client: plan.case.as_str(),
        turns: plan.turns,
        messages: plan.messages,
        sent: plan.sent,
        store: config.store.name_dyn(),
        settled: base.settled,
        unrecorded,
    });
    telemetry::request(status.word(), plan.case.as_str());
    status.write(&mut head.headers);
    name_session(config, identity, &mut head.headers);
    let (Ok(decoder), None) = (decoder, unrecorded) else {
        return Response::from_parts(head, ResponseBody::inner(body));
    };
    let limits = ReplyLimits { reply: config.limits.max_reply, event: config.limits.max_event };
    // A reply may take minutes: until then the request's body need not stay in memory.
    let kept = |messages| detached(messages, draft.body.len(), &config.room);
    let turn = OpenTurn {
        key: identity.key.clone(),
        at: base.at,
        parent: plan.parent,
        instructions: kept(&draft.messages[..if plan.stores_instructions { draft.leading } else { 0 }]),
        sent: kept(&draft.messages[plan.new]),
    };
    let recording = Recording {
        turn,
        protocol: Arc::clone(&config.protocol),
        limits,
        max_turn: config.limits.max_history,
        decoder,
        commits: config.commits.clone(),
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
