//! The floor: the least that a hyper reverse proxy with a connection pool does.

use http::{Request, Uri, header};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{net::TcpListener, task::JoinSet};

use crate::{child, error::BoxError};

/// The argument that makes this program a proxy; the next one is the upstream's address.
pub(crate) const ROLE: &str = "as-bare-proxy";

pub(crate) fn main(upstream: &str) -> Result<(), BoxError> {
    let upstream: &'static str = upstream.to_owned().leak();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(child::until_orphaned(async move {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        child::say_ready(listener.local_addr()?);
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client: Client<_, Incoming> = Client::builder(TokioExecutor::new()).build(connector);
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let client = client.clone();
            let service = service_fn(move |mut request: Request<Incoming>| {
                let pointed = point(&mut request, upstream);
                let client = client.clone();
                async move {
                    pointed?;
                    Ok::<_, BoxError>(client.request(request).await?)
                }
            });
            connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            while connections.try_join_next().is_some() {}
        }
    }))
}

fn point(request: &mut Request<Incoming>, upstream: &'static str) -> Result<(), http::Error> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str()).to_owned();
    *request.uri_mut() = Uri::builder().scheme("http").authority(upstream).path_and_query(path).build()?;
    request.headers_mut().remove(header::HOST);
    Ok(())
}
