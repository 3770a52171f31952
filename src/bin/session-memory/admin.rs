//! The admin listener: is the process alive, is it ready, what does it count.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::select_ok;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpStream;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_session_memory::{
    session::{Principal, SessionKey},
    store::{Durability, DynHistoryStore, StoreError},
};

use crate::{
    listen::{Accepted, Listener},
    reply::{Refusal, json},
};

/// How long the store may take to show that it is there.
const STORE_ANSWER: Duration = Duration::from_secs(1);
/// How long it may take to tell what an acknowledgement is worth; past it the level told last counts.
const DURABILITY_ANSWER: Duration = Duration::from_millis(250);
/// Sessions that nobody has, one of which must be answered. In a Redis Cluster they are on several masters, of which
/// one may be away: the sessions of the others are served.
const PROBES: [&str; 4] = ["readyz-1", "readyz-2", "readyz-3", "readyz-4"];
/// How often measurements are moved into the histograms.
const UPKEEP: Duration = Duration::from_secs(5);
/// How long a client may take to ask.
const ASK: Duration = Duration::from_secs(10);
/// Connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// What the admin listener knows.
pub(crate) struct Admin {
    store: Arc<dyn DynHistoryStore>,
    /// As the store told it last.
    durability: Mutex<Durability>,
    metrics: PrometheusHandle,
    draining: CancellationToken,
}

impl Admin {
    pub(crate) fn new(
        store: Arc<dyn DynHistoryStore>,
        durability: Durability,
        metrics: PrometheusHandle,
        draining: CancellationToken,
    ) -> Self {
        Self { store, durability: Mutex::new(durability), metrics, draining }
    }

    /// Answers until `stop`: through the drain, so that who asks is told of it.
    pub(crate) async fn serve(self: Arc<Self>, listener: Listener, stop: CancellationToken) {
        let tasks = TaskTracker::new();
        tasks.spawn(upkeep(self.metrics.clone(), stop.clone()));
        while let Some(Accepted { stream, permit, .. }) = listener.accept(&stop).await {
            let admin = Arc::clone(&self);
            let stop = stop.clone();
            tasks.spawn(async move {
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let service = service_fn(move |request| {
                    let admin = Arc::clone(&admin);
                    async move { Ok::<_, Infallible>(admin.answer(&request).await) }
                });
                let mut server = http1::Builder::new();
                server.timer(TokioTimer::new()).header_read_timeout(ASK);
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = server.serve_connection(TokioIo::new(stream), service) => {}
                }
                drop(permit);
            });
        }
    }

    async fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let message = "the admin listener answers GET only";
            return Refusal::invalid(StatusCode::METHOD_NOT_ALLOWED, message).into_response();
        }
        match request.uri().path() {
            "/healthz" => text("ok\n".to_owned()),
            "/readyz" => self.ready().await,
            "/metrics" => text(self.metrics.render()),
            _ => Refusal::invalid(StatusCode::NOT_FOUND, "there are /healthz, /readyz and /metrics")
                .into_response(),
        }
    }

    /// Loads sessions that nobody has: a store may know what it offers and be closed all the same.
    async fn ask_the_store(&self) -> Result<(), StoreError> {
        let nobody = PROBES.iter().filter_map(|probe| probe.parse().ok());
        let probes = nobody.map(|id| {
            let nobody = SessionKey::new("", Principal::new("readyz"), id);
            Box::pin(async move { self.store.load_dyn(&nobody, None).await.map(drop) })
        });
        select_ok(probes).await.map(|(answered, _others)| answered)
    }

    async fn durability(&self) -> Durability {
        let told = tokio::time::timeout(DURABILITY_ANSWER, self.store.durability_dyn()).await;
        let mut last = self.durability.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(told)) = told {
            *last = told;
        }
        *last
    }

    async fn ready(&self) -> Response<Full<Bytes>> {
        let draining = self.draining.is_cancelled();
        let asked = tokio::time::timeout(STORE_ANSWER, self.ask_the_store());
        let (asked, durability) = tokio::join!(asked, self.durability());
        let durability = match &asked {
            Ok(Ok(())) => durability.as_str(),
            Ok(Err(error)) => error.kind().as_str(),
            Err(_) => "timeout",
        };
        let ready = !draining && matches!(asked, Ok(Ok(_)));
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let body = serde_json::json!({
            "ready": ready,
            "draining": draining,
            "store": self.store.name_dyn(),
            "durability": durability,
        });
        json(status, &body)
    }
}

/// Moves what was measured into the histograms, which otherwise keep every measurement until somebody scrapes.
async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut every = tokio::time::interval(UPKEEP);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        metrics.run_upkeep();
    }
}

fn text(body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}
