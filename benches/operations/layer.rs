//! A whole exchange through the layer around a service that answers at once: no network, no other process.

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response, header};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use tokio::runtime::Runtime;
use tower::{Layer, Service, ServiceExt};
use tower_session_memory::{RequestBody, SessionMemoryLayer, store::InMemoryStore};

use super::{
    fixtures::delta,
    operation::Operation,
    reply::{events, json},
};

pub(super) fn all() -> Vec<Operation> {
    vec![
        exchange("layer: JSON, no session", Reply::json, None),
        exchange("layer: JSON, 0 turns", Reply::json, Some(0)).rounds(100),
        exchange("layer: JSON, 20 turns", Reply::json, Some(20)).rounds(40),
        exchange("layer: JSON, 200 turns", Reply::json, Some(200)).rounds(40),
        exchange("layer: a stream of 40 words, 20 turns", Reply::stream, Some(20)).rounds(40),
        exchange("layer: a stream of 40 words, no session", Reply::stream, None),
    ]
}

/// Exchanges in a session with `turns` turns: for 0 each in a new session, for `None` without one.
fn exchange(name: &str, reply: fn() -> Reply, turns: Option<usize>) -> Operation {
    Operation::new(name, move || {
        let runtime = runtime();
        let reply = reply();
        let inner = tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let reply = reply.clone();
            async move {
                let mut body = request.into_body();
                while let Some(frame) = body.frame().await {
                    frame.unwrap();
                }
                Ok::<_, Infallible>(reply.into_response())
            }
        });
        let service = SessionMemoryLayer::new(InMemoryStore::new()).layer(inner);
        let (mut asked, delta) = (0, delta());
        let mut ask = move || {
            let session = turns.map(|turns| if turns == 0 { asked } else { 0 });
            asked += 1;
            runtime.block_on(converse(service.clone(), request(session, delta.clone())));
        };
        (0..turns.unwrap_or(0)).for_each(|_| ask());
        Box::new(ask)
    })
}

async fn converse<S, R>(service: S, request: Request<Full<Bytes>>)
where
    S: Service<Request<Full<Bytes>>, Response = Response<R>, Error = Infallible>,
    R: Body<Error: std::fmt::Debug>,
{
    let response = service.oneshot(request).await.unwrap();
    let mut body = std::pin::pin!(response.into_body());
    while let Some(frame) = body.frame().await {
        frame.unwrap();
    }
}

/// As a client of OpenAI's sends it.
fn request(session: Option<usize>, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::post("/v1/chat/completions")
        .header(header::HOST, "bench")
        .header(header::AUTHORIZATION, "Bearer sk-bench-0123456789abcdef")
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, body.len());
    if let Some(session) = session {
        request = request.header("x-session-id", format!("session-{session:06}"));
    }
    request.body(Full::new(body)).unwrap()
}

/// A body that is there at once, in pieces.
#[derive(Clone)]
struct Reply {
    content_type: &'static str,
    pieces: VecDeque<Bytes>,
}

impl Reply {
    fn json() -> Self {
        let pieces = [Bytes::from(json(&"word ".repeat(40)))].into();
        Self { content_type: "application/json", pieces }
    }

    fn stream() -> Self {
        let pieces = events(40).into_iter().map(Bytes::from).collect();
        Self { content_type: "text/event-stream", pieces }
    }

    fn into_response(self) -> Response<Self> {
        Response::builder().header(header::CONTENT_TYPE, self.content_type).body(self).unwrap()
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.pieces.pop_front().map(|piece| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.pieces.is_empty()
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap()
}
