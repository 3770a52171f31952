//! The admin listener: `/healthz` (the process lives), `/readyz` (it can serve), `/metrics` (its counters).
//!
//! A listener of its own, so that it answers while all slots of requests are taken, and through the drain.

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

use super::listener::{Accepted, Listener};
use crate::traffic::{Refusal, json};

/// A store without an answer after 1 second is not ready.
const STORE_ANSWER: Duration = Duration::from_secs(1);
/// A store that names no durability within 250 ms keeps the level that it named last.
const DURABILITY_ANSWER: Duration = Duration::from_millis(250);
/// Sessions that are never stored. A load of one of them must succeed.
///
/// In a Redis Cluster they are on several masters. While one master is away, the others' sessions are served.
const PROBES: [&str; 4] = ["readyz-1", "readyz-2", "readyz-3", "readyz-4"];
/// Measurements are moved into the histograms every 5 seconds.
const UPKEEP: Duration = Duration::from_secs(5);
/// The head of a request may take 10 seconds.
const ASK: Duration = Duration::from_secs(10);
/// Admin connections at once.
pub(crate) const MAX_CONNECTIONS: usize = 64;

/// State of the admin listener.
pub(crate) struct Admin {
    store: Arc<dyn DynHistoryStore>,
    /// The level that the store named last.
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

    /// Answers until `stop`, through the drain, which `/readyz` reports.
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

    /// Loads sessions that are never stored: a store may name its durability and be closed.
    async fn ask_the_store(&self) -> Result<(), StoreError> {
        let ids = PROBES.iter().filter_map(|probe| probe.parse().ok());
        let probes = ids.map(|id| {
            let key = SessionKey::new("", Principal::new("readyz"), id);
            Box::pin(async move { self.store.load_dyn(&key, None.into()).await.map(drop) })
        });
        select_ok(probes).await.map(|(answered, _others)| answered)
    }

    async fn durability(&self) -> Durability {
        let named = tokio::time::timeout(DURABILITY_ANSWER, self.store.durability_dyn()).await;
        let mut last = self.durability.lock().unwrap_or_else(PoisonError::into_inner);
        if let Ok(Ok(named)) = named {
            *last = named;
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

/// Moves measurements into the histograms; otherwise every measurement is kept until the next scrape.
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
