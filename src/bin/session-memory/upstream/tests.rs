//! Both ways to an upstream without TLS, `http1` and the pooled client, give a client the same replies.
//!
//! They differ in a reply that breaks off. `http1` holds the failure back until hyper's server has written the head and
//! the frames before it; with the pooled client hyper's server may drop these.

#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use http_body_util::BodyExt;
use hyper::{client::conn::http1::SendRequest, server::conn::http1 as server, service::service_fn};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tower::Layer;
use tower_session_memory::{SessionMemoryLayer, store::InMemoryStore};

use super::*;
use crate::settings::{ConfigFile, Secrets, resolve};

/// A request, and the upstream's reply to it.
#[derive(Debug, Clone)]
struct Exchange {
    request: Vec<u8>,
    status: u16,
    framing: Framing,
    /// Each is written by itself.
    pieces: Vec<Vec<u8>>,
    /// Whether the upstream ends the connection before the end of the reply.
    cut: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    /// The end of the connection is the end of the body.
    Close,
}

/// A reply, as the client received it.
#[derive(Debug, PartialEq)]
struct ClientReply {
    status: StatusCode,
    headers: Vec<(String, String)>,
    /// `None` for a body that broke off.
    body: Option<Vec<u8>>,
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..40);
    let framing = prop_oneof![Just(Framing::Length), Just(Framing::Chunked), Just(Framing::Close)];
    let status = prop_oneof![4 => Just(200_u16), 1 => Just(404), 1 => Just(503), 1 => Just(204)];
    let pieces = prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..4);
    (bytes(), status, framing, pieces, any::<bool>()).prop_map(|(request, status, framing, pieces, cut)| {
        let pieces = if status == 204 { Vec::new() } else { pieces };
        let framing = if status == 204 { Framing::Length } else { framing };
        // A body without a length is never cut short.
        let cut = cut && framing != Framing::Close && !pieces.is_empty();
        Exchange { request, status, framing, pieces, cut }
    })
}

impl Exchange {
    async fn answer(&self, stream: &mut TcpStream) -> std::io::Result<()> {
        let length: usize = self.pieces.iter().map(Vec::len).sum();
        let framing = match self.framing {
            Framing::Length if self.status == 204 => String::new(),
            Framing::Length => format!("content-length: {length}\r\n"),
            Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
            Framing::Close => "connection: close\r\n".to_owned(),
        };
        let head = format!("HTTP/1.1 {} X\r\nx-reply: 1\r\nx-reply: 2\r\n{framing}\r\n", self.status);
        stream.write_all(head.as_bytes()).await?;
        for piece in &self.pieces[usize::from(self.cut)..] {
            stream.flush().await?;
            tokio::task::yield_now().await;
            match self.framing {
                Framing::Chunked => {
                    stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes()).await?;
                    stream.write_all(piece).await?;
                    stream.write_all(b"\r\n").await?;
                }
                Framing::Length | Framing::Close => stream.write_all(piece).await?,
            }
        }
        if self.framing == Framing::Chunked && !self.cut {
            stream.write_all(b"0\r\n\r\n").await?;
        }
        Ok(())
    }
}

/// Answers the exchanges in their order, on any number of connections.
async fn upstream(listener: TcpListener, exchanges: Vec<Exchange>) {
    let mut left = exchanges.iter();
    let mut next = left.next();
    while next.is_some() {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while let Some(exchange) = next {
            if !read_request(&mut stream, &mut read, &exchange.request).await {
                break;
            }
            exchange.answer(&mut stream).await.unwrap();
            next = left.next();
            if exchange.cut || exchange.framing == Framing::Close {
                break;
            }
        }
    }
}

/// Whether a request came, with the body that it should have.
async fn read_request(stream: &mut TcpStream, read: &mut Vec<u8>, body: &[u8]) -> bool {
    loop {
        let end = read.windows(4).position(|bytes| bytes == b"\r\n\r\n").map(|at| at + 4);
        if let Some(end) = end.filter(|end| read.len() >= end + body.len()) {
            assert_eq!(&read[end..end + body.len()], body, "the request's body is another one");
            read.drain(..end + body.len());
            return true;
        }
        match stream.read_buf(read).await {
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
    }
}

/// The replies that a client of the proxy receives, with or without the client for plain HTTP/1.1.
async fn received(exchanges: &[Exchange], plain: bool) -> Vec<Option<ClientReply>> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let env = move |name: &str| (name == "SESSION_MEMORY_UPSTREAM").then(|| url.clone().into());
    let settings = resolve(ConfigFile::default(), &env, None).unwrap();
    let mut forward =
        Forward::new(&Config::new(settings, Secrets::default()).unwrap(), Work::default()).unwrap();
    if !plain {
        Arc::get_mut(&mut forward.0).unwrap().plain = None;
    }
    let app = SessionMemoryLayer::new(InMemoryStore::new()).layer(forward);
    let mut tasks = JoinSet::new();
    tasks.spawn(upstream(listener, exchanges.to_vec()));
    let mut all = Vec::new();
    for exchange in exchanges {
        let (client, ours) = tokio::io::duplex(64 * 1024);
        let app = app.clone();
        tasks.spawn(async move {
            let service =
                service_fn(move |request: Request<Incoming>| tower::Service::call(&mut app.clone(), request));
            let _: Result<(), hyper::Error> =
                server::Builder::new().serve_connection(TokioIo::new(ours), service).await;
        });
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client)).await.unwrap();
        tasks.spawn(async move { drop(connection.await) });
        all.push(ask(sender, exchange).await);
    }
    all
}

/// The reply; `None` where not even its head came.
async fn ask(mut sender: SendRequest<Full<Bytes>>, exchange: &Exchange) -> Option<ClientReply> {
    let request = Request::post("/x").header("host", "a").body(Full::new(exchange.request.clone().into()));
    let response = sender.send_request(request.unwrap()).await.ok()?;
    let (parts, body) = response.into_parts();
    let mut headers: Vec<_> = parts
        .headers
        .iter()
        .filter(|(name, _)| *name != header::DATE)
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect();
    headers.sort();
    let body = body.collect().await.ok().map(|body| body.to_bytes().to_vec());
    Some(ClientReply { status: parts.status, headers, body })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn both_ways_give_the_client_the_same_replies(exchanges in prop::collection::vec(any_exchange(), 1..4)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (plain, pooled) = runtime.block_on(async {
            (received(&exchanges, true).await, received(&exchanges, false).await)
        });
        for ((exchange, plain), pooled) in exchanges.iter().zip(plain).zip(pooled) {
            let whole = (!exchange.cut).then(|| exchange.pieces.concat());
            prop_assert_eq!(&plain.as_ref().unwrap().body, &whole);
            if !exchange.cut || pooled.is_some() {
                prop_assert_eq!(plain, pooled);
            }
        }
    }
}
