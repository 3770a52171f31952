//! A scripted model, client and store.

use std::{
    convert::Infallible,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use tokio::sync::{Semaphore, mpsc};
use tower::{Layer, Service, ServiceExt, util::BoxCloneSyncService};
use tower_session_memory::{
    RequestBody, ResponseBody, SessionMemoryLayer,
    history::Record,
    session::{Principal, SessionKey},
    store::{Appended, Cursor, HistoryStore, InMemoryStore, LoadOptions, Loaded, StoreError, StoreErrorKind},
};

pub type Inner = BoxCloneSyncService<Request<RequestBody<Full<Bytes>>>, Response<Scripted>, Infallible>;

/// A response body whose frames the test sends one by one.
pub struct Scripted {
    frames: mpsc::Receiver<Result<Frame<Bytes>, std::io::Error>>,
    left: Option<u64>,
    tells: Tells,
    polled: Arc<AtomicUsize>,
    dropped: Arc<AtomicBool>,
}

/// How a body of known length tells that it has ended, besides a `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tells {
    /// By its size hint alone, as a body with a content-length may.
    Length,
    /// By `is_end_stream` alone, as HTTP/2 does.
    End,
    Both,
}

/// The sending side of a [`Scripted`] body.
#[derive(Clone)]
pub struct Script {
    frames: mpsc::Sender<Result<Frame<Bytes>, std::io::Error>>,
    /// How many frames have been taken.
    pub polled: Arc<AtomicUsize>,
    /// Whether the body was dropped: the upstream was cancelled.
    pub dropped: Arc<AtomicBool>,
}

pub fn scripted(content_length: Option<u64>) -> (Script, Scripted) {
    scripted_that(Tells::Both, content_length)
}

pub fn scripted_that(tells: Tells, length: Option<u64>) -> (Script, Scripted) {
    let (frames, receiver) = mpsc::channel(1024);
    let polled = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::new(AtomicBool::new(false));
    let script = Script { frames, polled: Arc::clone(&polled), dropped: Arc::clone(&dropped) };
    (script, Scripted { frames: receiver, left: length, tells, polled, dropped })
}

impl Script {
    pub fn data(&self, data: impl Into<Bytes>) {
        self.frames.try_send(Ok(Frame::data(data.into()))).expect("room for a frame");
    }

    pub fn trailers(&self, name: &'static str, value: &'static str) {
        let mut trailers = http::HeaderMap::new();
        trailers.insert(name, http::HeaderValue::from_static(value));
        self.frames.try_send(Ok(Frame::trailers(trailers))).expect("room for a frame");
    }

    pub fn fail(&self) {
        self.frames.try_send(Err(std::io::ErrorKind::ConnectionReset.into())).expect("room for a frame");
    }
}

impl Body for Scripted {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        let frame = std::task::ready!(self.frames.poll_recv(cx));
        self.polled.fetch_add(1, Ordering::SeqCst);
        if let (Some(Ok(frame)), Some(left)) = (&frame, self.left) {
            self.left = Some(left - frame.data_ref().map_or(0, |data| data.len() as u64));
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.left == Some(0) && self.tells != Tells::Length
    }

    fn size_hint(&self) -> SizeHint {
        self.left.filter(|_| self.tells != Tells::End).map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.dropped.store(true, Ordering::SeqCst);
    }
}

/// A model that answers every request with the same bytes, in one frame, and keeps what it was asked.
#[derive(Clone, Default)]
pub struct Model {
    pub seen: Arc<Mutex<Vec<serde_json::Value>>>,
}

pub const JSON: &str = "application/json";
pub const EVENTS: &str = "text/event-stream";

pub fn reply(text: &str) -> String {
    let message = serde_json::json!({"role": "assistant", "content": text});
    serde_json::json!({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).to_string()
}

pub fn delta(text: &str) -> String {
    let delta = serde_json::json!({"role": "assistant", "content": text});
    format!(
        "data: {}\n\n",
        serde_json::json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]})
    )
}

pub const FINISH: &str = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
pub const DONE: &str = "data: [DONE]\n\n";

impl Model {
    /// A service that gives these bodies, one a request, in order.
    pub fn answering(&self, content_type: &'static str, bodies: Vec<Scripted>) -> Inner {
        let bodies = Arc::new(Mutex::new(bodies.into_iter().rev().collect::<Vec<_>>()));
        let seen = Arc::clone(&self.seen);
        BoxCloneSyncService::new(tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let (bodies, seen) = (Arc::clone(&bodies), Arc::clone(&seen));
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                seen.lock().unwrap().push(serde_json::from_slice(&body).expect("JSON"));
                let body = bodies.lock().unwrap().pop().expect("a body left");
                let mut response = Response::builder().header("content-type", content_type);
                if let Some(length) = body.left.filter(|_| body.tells != Tells::End) {
                    response = response.header("content-length", length);
                }
                Ok(response.body(body).unwrap())
            }
        }))
    }

    /// A service that answers every request with this text, as JSON.
    pub fn saying(&self, text: &str) -> Inner {
        let (text, seen) = (reply(text), Arc::clone(&self.seen));
        BoxCloneSyncService::new(tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let (text, seen) = (text.clone(), Arc::clone(&seen));
            async move {
                let body = request.into_body().collect().await.expect("a body").to_bytes();
                seen.lock().unwrap().push(serde_json::from_slice(&body).expect("JSON"));
                let (script, body) = scripted(Some(text.len() as u64));
                script.data(text);
                Ok(Response::builder().header("content-type", JSON).body(body).unwrap())
            }
        }))
    }

    /// The contents of the messages of the request before last, last, ….
    pub fn contents(&self, request: usize) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let messages = seen[request]["messages"].as_array().expect("messages").clone();
        messages.iter().map(|m| m["content"].as_str().unwrap_or_default().to_owned()).collect()
    }
}

pub fn ask(session: &str, text: &str) -> Request<Full<Bytes>> {
    let body = serde_json::json!({"model": "m", "messages": [{"role": "user", "content": text}]}).to_string();
    Request::post("/v1/chat/completions")
        .header("content-type", JSON)
        .header("x-session-id", session)
        .body(Full::from(body))
        .unwrap()
}

pub async fn call<S, R>(service: &S, request: Request<Full<Bytes>>) -> Response<ResponseBody<R>>
where
    S: Service<Request<Full<Bytes>>, Response = Response<ResponseBody<R>>, Error = Infallible> + Clone,
{
    service.clone().oneshot(request).await.expect("infallible")
}

/// Asks and reads the answer to its end.
pub async fn converse(
    layer: &SessionMemoryLayer,
    inner: &Inner,
    session: &str,
    text: &str,
) -> Response<Bytes> {
    let response = call(&layer.layer(inner.clone()), ask(session, text)).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.expect("a whole reply").to_bytes();
    Response::from_parts(head, body)
}

pub fn key(session: &str) -> SessionKey {
    SessionKey::new("default", Principal::anonymous(), session.parse().unwrap())
}

/// An in-memory store that can be made to fail, to hang, and to wait.
#[derive(Clone)]
pub struct Moody {
    pub store: Arc<InMemoryStore>,
    pub loads_fail: Arc<AtomicBool>,
    pub appends_fail: Arc<AtomicBool>,
    pub hangs: Arc<AtomicBool>,
    pub panics: Arc<AtomicBool>,
    /// An append takes a permit first.
    pub gate: Arc<Semaphore>,
    /// The append is applied, and then answered with an error.
    pub swallow: Arc<AtomicUsize>,
    pub appends: Arc<AtomicUsize>,
}

impl Moody {
    pub fn new() -> Self {
        Self {
            store: Arc::new(InMemoryStore::new()),
            loads_fail: Arc::default(),
            appends_fail: Arc::default(),
            hangs: Arc::default(),
            panics: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
            swallow: Arc::default(),
            appends: Arc::default(),
        }
    }

    /// A store whose appends wait until they are let through.
    pub fn gated() -> Self {
        Self { gate: Arc::new(Semaphore::new(0)), ..Self::new() }
    }

    pub async fn turns(&self, session: &str) -> Vec<Record> {
        self.store.load(&key(session), None).await.expect("a load").records.into()
    }

    /// Waits until the session has `turns` turns.
    pub async fn until(&self, session: &str, turns: usize) -> Vec<Record> {
        for _ in 0..500 {
            let stored = self.turns(session).await;
            if stored.len() >= turns {
                return stored;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the session never had {turns} turns");
    }
}

impl HistoryStore for Moody {
    async fn load(
        &self,
        key: &SessionKey,
        options: impl Into<LoadOptions> + Send,
    ) -> Result<Loaded, StoreError> {
        if self.hangs.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        if self.loads_fail.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable));
        }
        self.store.load(key, options).await
    }

    async fn append(&self, key: &SessionKey, at: &Cursor, turn: &Record) -> Result<Appended, StoreError> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        let _permit = self.gate.acquire().await;
        assert!(!self.panics.load(Ordering::SeqCst), "the store panics");
        if self.appends_fail.load(Ordering::SeqCst) {
            return Err(StoreError::new(StoreErrorKind::Unavailable));
        }
        let appended = self.store.append(key, at, turn).await;
        if self.swallow.load(Ordering::SeqCst) > 0 {
            self.swallow.fetch_sub(1, Ordering::SeqCst);
            return Err(StoreError::new(StoreErrorKind::Timeout));
        }
        appended
    }

    fn name(&self) -> &'static str {
        "moody"
    }

    tower_session_memory::delegate_history_store!(
        |this| this.store;
        read, delete, sessions, principals, delete_principal, expire, durability, close
    );
}
