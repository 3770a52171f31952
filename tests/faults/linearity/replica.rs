//! A replica of the proxy: the real binary, or the layer in this process for stores that only tests have.

use std::{net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Uri, header};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, runtime::Runtime, task::JoinSet};
use tower::ServiceBuilder;
use tower_session_memory::{
    AppendQueue, Commits, OnAppendError, RequestBody, SessionMemoryLayer, store::DynHistoryStore,
};

use crate::common::{Launch, Proxy, store::NAMESPACE, within};

/// What the replicas are.
#[derive(Clone)]
pub enum Build {
    /// The real binary.
    Binary,
    /// The layer on a store of the test's own, in a runtime of its own.
    Local(OpenStore),
}

/// Opens a store that is reached at this URL.
pub type OpenStore =
    Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Arc<dyn DynHistoryStore>> + Send>> + Send + Sync>;

/// A running replica. Dropping it kills it.
pub enum Replica {
    Process(Box<Proxy>),
    Local(Local),
}

/// What both kinds of replicas are set to: an end that was seen means stored, and a store that is frozen is
/// given up on soon, so that there are retries.
const SETTINGS: &str = "on_append_error = \"cut\"\nappend_attempt = \"300ms\"\n";

/// As [`SETTINGS`] say.
fn layer(store: Arc<dyn DynHistoryStore>) -> SessionMemoryLayer {
    let queue = AppendQueue::default().with_attempt(Duration::from_millis(300));
    SessionMemoryLayer::from_arc(store)
        .with_namespace(NAMESPACE)
        .on_append_error(OnAppendError::Cut)
        .with_append_queue(queue)
}

impl Replica {
    pub async fn start(build: &Build, launch: &Launch, upstream: SocketAddr, store: &str) -> Self {
        match build {
            Build::Binary => {
                Self::Process(Box::new(launch.sibling().store(store).config(SETTINGS).start().await))
            }
            Build::Local(open) => Self::Local(Local::start(open, upstream, store.to_owned()).await),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        match self {
            Self::Process(proxy) => proxy.addr(),
            Self::Local(local) => local.addr,
        }
    }

    /// It ends amid whatever it does.
    pub async fn kill(self) {
        match self {
            Self::Process(proxy) => drop(proxy.kill().await),
            Self::Local(local) => drop(local),
        }
    }

    /// It ends when everything that it has to store is stored.
    pub async fn drain(self) {
        match self {
            Self::Process(proxy) => {
                proxy.terminate();
                let ended = proxy.ended().await;
                assert!(ended.status.success(), "it could not store everything: {ended:?}");
            }
            Self::Local(local) => {
                let report = local.commits.drain(Duration::from_secs(30)).await;
                assert_eq!(report.pending, 0, "{report:?}");
            }
        }
    }
}

/// A layer, a server before it, a client behind it.
pub struct Local {
    runtime: Option<Runtime>,
    addr: SocketAddr,
    commits: Commits,
}

impl Local {
    async fn start(open: &OpenStore, upstream: SocketAddr, store: String) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (ready, started) = tokio::sync::oneshot::channel();
        let store = open(store);
        runtime.spawn(async move {
            let layer = layer(store.await);
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let _ = ready.send((listener.local_addr().unwrap(), layer.commits()));
            serve(listener, layer, upstream).await;
        });
        let (addr, commits) = within("a replica to start", started).await.unwrap();
        Self { runtime: Some(runtime), addr, commits }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: TcpListener, layer: SessionMemoryLayer, upstream: SocketAddr) {
    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<hyper::body::Incoming>>();
    let upstream = upstream.to_string();
    let gateway =
        ServiceBuilder::new().layer(layer).map_request(move |request| to(&upstream, request)).service(client);
    let mut connections = JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let _ = socket.set_nodelay(true);
        let service = TowerToHyperService::new(gateway.clone());
        connections.spawn(async move {
            let _ = auto::Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn to<B>(upstream: &str, mut request: Request<B>) -> Request<B> {
    let path = request.uri().path_and_query().cloned().unwrap();
    *request.uri_mut() =
        Uri::builder().scheme("http").authority(upstream).path_and_query(path).build().unwrap();
    request.headers_mut().insert(header::HOST, HeaderValue::from_str(upstream).unwrap());
    request
}
