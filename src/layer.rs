use std::{fmt, sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use tower_layer::Layer;

use crate::{
    body::BufferBudget,
    commit::{AppendQueue, Commits, Observer},
    config::{Config, Limits, OnAppendError, OnDisconnect, OnLoadError, OnMissing},
    lookup::Lookup,
    protocol::Protocol,
    reconcile::Instructions,
    service::SessionMemory,
    session::{ExtractSession, PrincipalPolicy},
    store::{DynHistoryStore, HistoryStore},
    view::Window,
};

/// Puts a conversation memory around a service that speaks the OpenAI chat format.
///
/// See the [crate's documentation](crate) for what it does and an example.
///
/// # Defaults
///
/// - The session id is read from the header `x-session-id`; requests without one pass untouched.
/// - Sessions belong to the caller's credential.
/// - Paths that end in `/chat/completions` are recorded.
/// - The newest 256 turns and 512 KiB are sent; instructions are remembered.
/// - A load that fails or takes more than 1 s is answered 503; an append that is not acknowledged within 2 s
///   goes on in the background.
/// - A client that leaves keeps what it was sent.
///
/// # Runtime
///
/// Requests of sessions must be handled on a Tokio runtime with its time driver: loads and commits have time
/// limits, and turns are stored by tasks of that runtime. Await [`Commits::drain`] before it ends.
///
/// # What can be wrapped
///
/// A `Service<Request<RequestBody<B>>>` that is `Clone`, and whose future and error are `Send`. Put a
/// `tower::buffer::Buffer` around a service that is not `Clone`. The data of both bodies is
/// [`Bytes`](bytes::Bytes), and the error of the response's body is one that becomes a [`BoxError`](crate::BoxError).
/// Request and response bodies become [`RequestBody`](crate::RequestBody) and [`ResponseBody`](crate::ResponseBody):
/// an inner service is generic over its request's body, or names this one, as a client does.
///
/// With axum, add it by a `Router::layer` of its own: in one `ServiceBuilder` with axum's own middleware the compiler's
/// errors name this layer for what is wrong in another.
///
/// # Placement
///
/// A layer inside of another one leaves a request alone that the outer one has dealt with: such a request has a
/// [`Decision`](crate::Decision) in its extensions. Do not copy the extensions of a request into another one.
///
/// Put authentication outside of it, so that it can insert a [`Principal`](crate::session::Principal). Put
/// concurrency limits outside too: while a client uploads a body, the layer holds an inner service that has
/// been polled ready. Put nothing that caches or coalesces requests by their body outside of it: with a memory,
/// the body no longer determines the answer.
#[derive(Clone)]
pub struct SessionMemoryLayer {
    config: Arc<Config>,
}

impl SessionMemoryLayer {
    /// A layer that keeps sessions in this store.
    #[must_use]
    pub fn new(store: impl HistoryStore + 'static) -> Self {
        Self::from_arc(Arc::new(store))
    }

    /// As [`new`](Self::new), with a store that is shared or chosen at run time.
    #[must_use]
    pub fn from_arc(store: Arc<dyn DynHistoryStore>) -> Self {
        Self { config: Arc::new(Config::new(store)) }
    }

    /// The wire formats, asked in order for each request. Default: [`protocol::all`](crate::protocol::all).
    #[must_use]
    pub fn with_protocols(self, protocols: impl IntoIterator<Item = Arc<dyn Protocol>>) -> Self {
        self.set(|config| config.protocols = protocols.into_iter().collect())
    }

    /// An [`Observer`] of decisions and commits, beside those that were set before. Default: none.
    #[must_use]
    pub fn with_observer(self, observer: impl Observer) -> Self {
        self.set(|config| config.observers = config.observers.and(Arc::new(observer)))
    }

    /// What is looked up between load and view, and how long a request may wait for all of it. Default: nothing, 50 ms.
    #[doc(hidden)]
    #[must_use]
    pub fn with_lookups(self, lookups: impl IntoIterator<Item = Arc<dyn Lookup>>, timeout: Duration) -> Self {
        self.set(|config| {
            config.lookups = lookups.into_iter().collect();
            config.lookup_timeout = timeout;
        })
    }

    /// Sessions of different namespaces never meet, even in one store. Default: `default`.
    #[must_use]
    pub fn with_namespace(self, namespace: impl Into<Arc<str>>) -> Self {
        self.set(|config| config.namespace = namespace.into())
    }

    /// Where the session id is found: sources are asked in order, and the first that yields an id wins. Without any,
    /// only the request's extensions name sessions, and the body where its format does. Default: the header
    /// `x-session-id`.
    #[must_use]
    pub fn with_session_sources(self, sources: impl IntoIterator<Item = Arc<dyn ExtractSession>>) -> Self {
        self.set(|config| config.sources = sources.into_iter().collect())
    }

    /// What happens to a request without a session id. Default: [`OnMissing::Pass`].
    #[must_use]
    pub fn on_missing_session(self, reaction: OnMissing) -> Self {
        self.set(|config| config.missing = reaction)
    }

    /// Whose a session is. Default: [`PrincipalPolicy::credential`].
    #[must_use]
    pub fn with_principal(self, policy: PrincipalPolicy) -> Self {
        self.set(|config| config.principal = policy)
    }

    /// Origins (`https://chat.example`) from which a session named by a cookie is accepted although the
    /// browser marks the request as cross-site. Default: none.
    #[must_use]
    pub fn with_trusted_origins(self, origins: impl IntoIterator<Item = HeaderValue>) -> Self {
        self.set(|config| config.trusted_origins = origins.into_iter().collect())
    }

    /// Whether the client's instructions are remembered, so that it may send its system prompt once. Default:
    /// [`Instructions::Remember`].
    #[must_use]
    pub fn with_instructions(self, instructions: Instructions) -> Self {
        self.set(|config| config.instructions = instructions)
    }

    /// Sends the session id on to the upstream in this header. Default: `None`, it is removed.
    #[must_use]
    pub fn with_forwarded_session_id(self, header: Option<HeaderName>) -> Self {
        self.set(|config| config.forwarded_id = header)
    }

    /// How much of a long history is sent. Default: the newest 256 turns and 512 KiB.
    #[must_use]
    pub fn with_window(self, window: Window) -> Self {
        self.set(|config| config.window = window)
    }

    /// How much is taken in. See [`Limits`] for the defaults.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        self.set(|config| {
            config.limits = limits;
            config.room = BufferBudget::new(limits.max_buffered);
        })
    }

    /// How long a load may take, and before that, how long it waits for turns of its session that are being
    /// stored. Default 1 s each. A load that takes longer is left to [`on_load_error`](Self::on_load_error); if
    /// a turn takes longer, the history is loaded without it, which is logged and counted.
    #[must_use]
    pub fn with_load_timeout(self, timeout: Duration) -> Self {
        self.set(|config| config.load_timeout = timeout)
    }

    /// What happens when the history cannot be loaded. Default: [`OnLoadError::Reject`].
    #[must_use]
    pub fn on_load_error(self, reaction: OnLoadError) -> Self {
        self.set(|config| config.on_load_error = reaction)
    }

    /// How long the end of a reply waits for its turn to be stored. Default 2 s; then
    /// [`on_append_error`](Self::on_append_error) decides.
    #[must_use]
    pub fn with_commit_wait(self, wait: Duration) -> Self {
        self.set(|config| config.commit_wait = wait)
    }

    /// What happens to the end of a reply whose turn is not stored in time. Default:
    /// [`OnAppendError::Deliver`].
    #[must_use]
    pub fn on_append_error(self, reaction: OnAppendError) -> Self {
        self.set(|config| config.on_append_error = reaction)
    }

    /// How many turns may wait for the store, and for how long. See [`AppendQueue`] for the defaults.
    #[must_use]
    pub fn with_append_queue(self, queue: AppendQueue) -> Self {
        self.set(|config| config.append_queue = queue)
    }

    /// What happens to a reply whose client leaves. Default: [`OnDisconnect::Keep`].
    #[must_use]
    pub fn on_disconnect(self, reaction: OnDisconnect) -> Self {
        self.set(|config| config.on_disconnect = reaction)
    }

    /// The turns that are being stored in the background; [`Commits::drain`] waits for them at shutdown.
    #[must_use]
    pub fn commits(&self) -> Commits {
        self.config.commits.clone()
    }

    fn set(mut self, change: impl FnOnce(&mut Config)) -> Self {
        change(Arc::make_mut(&mut self.config));
        self
    }
}

impl<S> Layer<S> for SessionMemoryLayer {
    type Service = SessionMemory<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionMemory::new(inner, Arc::clone(&self.config))
    }
}

impl fmt::Debug for SessionMemoryLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionMemoryLayer")
            .field("store", &self.config.store.name_dyn())
            .finish_non_exhaustive()
    }
}
