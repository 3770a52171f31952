//! The smallest gateway: a hyper server, the memory, and a pooled hyper client in front of one model server.
//!
//! ```sh
//! cargo run --example hyper_proxy -- 127.0.0.1:8080 127.0.0.1:11434
//! ```
//!
//! (The `session-memory` binary is a complete proxy; this shows how to put the layer into your own.)

use http::{HeaderValue, Request, Uri, header, uri::PathAndQuery};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use tokio::net::TcpListener;
use tower::{BoxError, ServiceBuilder};
use tower_session_memory::{RequestBody, SessionMemoryLayer, store::InMemoryStore};

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let addr = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".to_owned());
    let upstream = std::env::args().nth(2).unwrap_or_else(|| "127.0.0.1:11434".to_owned());

    let client = Client::builder(TokioExecutor::new()).build_http::<RequestBody<hyper::body::Incoming>>();
    let gateway = ServiceBuilder::new()
        .layer(SessionMemoryLayer::new(InMemoryStore::new()))
        .map_request(move |request| to(&upstream, request))
        .service(client);

    let listener = TcpListener::bind(addr).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new());
    loop {
        let (connection, _) = listener.accept().await?;
        connection.set_nodelay(true)?;
        let (server, service) = (server.clone(), TowerToHyperService::new(gateway.clone()));
        #[expect(clippy::disallowed_methods, reason = "kept short; a real server drains its connections")]
        tokio::spawn(async move { server.serve_connection(TokioIo::new(connection), service).await });
    }
}

/// Points a request at the upstream.
fn to<B>(upstream: &str, mut request: Request<B>) -> Request<B> {
    let path = request.uri().path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let uri = Uri::builder().scheme("http").authority(upstream).path_and_query(path);
    *request.uri_mut() = uri.build().unwrap_or_default();
    if let Ok(host) = HeaderValue::from_str(upstream) {
        request.headers_mut().insert(header::HOST, host);
    }
    request
}
