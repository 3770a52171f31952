//! Every setting of the layer and its default.

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue, request};

use crate::{
    body::BufferBudget,
    commit::{AppendQueue, Commits, Observers},
    history::Format,
    lookup::{LOOKUP_TIMEOUT, Lookup},
    protocol::{self, Protocol, Route},
    reconcile::Instructions,
    session::{ExtractSession, Header, PrincipalPolicy},
    store::DynHistoryStore,
    view::Window,
};

/// What the layer is set to. One value, shared by every clone of the service.
#[derive(Clone)]
pub(crate) struct Config {
    pub(crate) store: Arc<dyn DynHistoryStore>,
    /// Asked in order.
    pub(crate) protocols: Vec<Arc<dyn Protocol>>,
    pub(crate) namespace: Arc<str>,
    pub(crate) sources: Vec<Arc<dyn ExtractSession>>,
    pub(crate) missing: OnMissing,
    pub(crate) principal: PrincipalPolicy,
    pub(crate) trusted_origins: Vec<HeaderValue>,
    pub(crate) forwarded_id: Option<HeaderName>,
    pub(crate) instructions: Instructions,
    pub(crate) window: Window,
    pub(crate) limits: Limits,
    /// Of `limits.max_buffered`.
    pub(crate) room: BufferBudget,
    pub(crate) load_timeout: Duration,
    pub(crate) on_load_error: OnLoadError,
    /// Asked in order.
    pub(crate) lookups: Vec<Arc<dyn Lookup>>,
    pub(crate) lookup_timeout: Duration,
    pub(crate) on_append_error: OnAppendError,
    pub(crate) on_disconnect: OnDisconnect,
    pub(crate) commit_wait: Duration,
    pub(crate) commits: Commits,
    pub(crate) append_queue: AppendQueue,
    pub(crate) observers: Observers,
}

impl Config {
    pub(crate) fn new(store: Arc<dyn DynHistoryStore>) -> Self {
        Self {
            commits: Commits::new(Arc::clone(&store)),
            append_queue: AppendQueue::default(),
            observers: Observers::default(),
            store,
            protocols: protocol::all(),
            namespace: "default".into(),
            sources: vec![Arc::new(Header::default())],
            missing: OnMissing::default(),
            principal: PrincipalPolicy::default(),
            trusted_origins: Vec::new(),
            forwarded_id: None,
            instructions: Instructions::default(),
            window: Window::default(),
            limits: Limits::default(),
            room: BufferBudget::new(Limits::default().max_buffered),
            load_timeout: Duration::from_secs(1),
            on_load_error: OnLoadError::default(),
            lookups: Vec::new(),
            lookup_timeout: LOOKUP_TIMEOUT,
            on_append_error: OnAppendError::default(),
            on_disconnect: OnDisconnect::default(),
            commit_wait: Duration::from_secs(2),
        }
    }

    /// The format of a request, if it is one of ours.
    pub(crate) fn route(&self, parts: &request::Parts) -> Option<(&Arc<dyn Protocol>, Route)> {
        let routes = self.protocols.iter().map(|protocol| (protocol, protocol.route(parts)));
        routes.into_iter().find(|(_, route)| *route != Route::Foreign)
    }

    /// Whether one of the protocols has this format.
    pub(crate) fn speaks(&self, format: Format) -> bool {
        self.protocols.iter().any(|protocol| protocol.format() == format)
    }
}

/// How much is taken in and sent on. Past a limit a request gets a clear error; a reply is forwarded and
/// no longer recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// A request body of a session, in bytes, also after decompression. Default 32 MiB. Past it: 413
    /// `request_too_large`. Requests without a session are not
    /// limited, unless their format may name one in the body.
    pub max_request_body: usize,
    /// The request bodies of sessions that are held in memory at once, all together, in bytes. Default 512 MiB. Past
    /// it: 503 `overloaded`. A body is held until the upstream has begun to answer; what is new in it, until its turn is
    /// stored.
    ///
    /// What counts is the bytes of each body, in whole KiB, and of one that comes compressed also what it is
    /// decoded to; not the memory that is set aside for it, which may be twice as much while it comes. One that by
    /// itself is larger is answered 413 `request_too_large`: set it to twice
    /// [`max_request_body`](Self::max_request_body) or more, and that happens to none.
    pub max_buffered: usize,
    /// How long the client may pause while it sends a request body of a session. Default 30 s. Past it: 408.
    pub body_read_timeout: Duration,
    /// How long it may take to send all of it. Default 10 min, in which 32 MiB come over a link of 0.5 Mbit/s. Past
    /// it: 408. A client that sends a byte now and then takes up [`max_buffered`](Self::max_buffered) no longer
    /// than this.
    pub body_deadline: Duration,
    /// A recorded reply, assembled, in bytes. Default 8 MiB.
    pub max_reply: usize,
    /// One server-sent event of a recorded reply, in bytes. Default 4 MiB.
    pub max_event: usize,
    /// The stored messages that are put in front of the client's, in bytes. Default 32 MiB. The window keeps
    /// below it; a turn that is larger by itself is not recorded. Past it, which leaves one long tool exchange:
    /// 413 `request_too_large`.
    pub max_history: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            max_request_body: 32 * MIB,
            max_buffered: 512 * MIB,
            body_read_timeout: Duration::from_secs(30),
            body_deadline: Duration::from_secs(10 * 60),
            max_reply: 8 * MIB,
            max_event: 4 * MIB,
            max_history: 32 * MIB,
        }
    }
}

impl Limits {
    /// Sets [`max_request_body`](Self::max_request_body), in bytes.
    #[must_use]
    pub fn with_max_request_body(mut self, bytes: usize) -> Self {
        self.max_request_body = bytes;
        self
    }

    /// Sets [`max_buffered`](Self::max_buffered), in bytes.
    #[must_use]
    pub fn with_max_buffered(mut self, bytes: usize) -> Self {
        self.max_buffered = bytes;
        self
    }

    /// Sets [`body_read_timeout`](Self::body_read_timeout).
    #[must_use]
    pub fn with_body_read_timeout(mut self, idle: Duration) -> Self {
        self.body_read_timeout = idle;
        self
    }

    /// Sets [`body_deadline`](Self::body_deadline).
    #[must_use]
    pub fn with_body_deadline(mut self, whole: Duration) -> Self {
        self.body_deadline = whole;
        self
    }

    /// Sets [`max_reply`](Self::max_reply), in bytes.
    #[must_use]
    pub fn with_max_reply(mut self, bytes: usize) -> Self {
        self.max_reply = bytes;
        self
    }

    /// Sets [`max_event`](Self::max_event), in bytes.
    #[must_use]
    pub fn with_max_event(mut self, bytes: usize) -> Self {
        self.max_event = bytes;
        self
    }

    /// Sets [`max_history`](Self::max_history), in bytes.
    #[must_use]
    pub fn with_max_history(mut self, bytes: usize) -> Self {
        self.max_history = bytes;
        self
    }
}

/// What happens to a request that names no session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnMissing {
    /// It is forwarded untouched.
    #[default]
    Pass,
    /// It starts a new session, whose id (256 random bits) is returned in `x-session-id` and, where a signed
    /// cookie is among the sources, in the cookie.
    Issue,
    /// It is answered 400 `missing_session_id`.
    Reject,
}

/// What happens when the history cannot be loaded in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnLoadError {
    /// 503 `session_store_unavailable` with `retry-after`, which SDKs retry: an answer without memory would
    /// be silently wrong.
    #[default]
    Reject,
    /// The request is forwarded without memory and not recorded; the response says
    /// `session-memory: degraded`.
    Bypass,
}

/// What happens to the end of a reply whose turn is not acknowledged within the commit wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnAppendError {
    /// It goes out; the append is tried on in the background, and a turn that is lost is logged and counted.
    #[default]
    Deliver,
    /// It is withheld and the body ends in [`ReplyWithheld`](crate::ReplyWithheld), so that the end of a reply that can be stored always means
    /// stored. (A reply that gives no turn, such as one past the recording limit, ends as the upstream ends it.)
    Cut,
}

/// What happens to a reply whose client leaves before its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnDisconnect {
    /// The upstream is cancelled; what the client was sent is stored as an interrupted turn. If nothing had
    /// been said, nothing is stored.
    #[default]
    Keep,
    /// The upstream is cancelled and nothing is stored.
    Discard,
    /// The upstream is read to its end in the background, and the turn is stored whole. As many replies are read on so
    /// at once as turns may wait for the store ([`AppendQueue::turns`](crate::AppendQueue::turns)); a client that leaves
    /// when there are that many is treated as with [`Keep`](Self::Keep). One whose upstream is silent for 5 min is given
    /// up, and what it said is kept; once a reply has a `finish_reason`, its end is waited for no longer than 5 s.
    ///
    /// A client may leave before the reply's head: then the request goes on in a task, and no limit outside of the
    /// layer counts it any more. The inner service must bound how many requests are under way (the proxy does:
    /// `max_requests`), how long it takes to answer, and how long a reply goes on.
    Drain,
}
