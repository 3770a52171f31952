//! A client, a layer and a model that speak the second format: `lines.rs`.

#![allow(dead_code, reason = "each test binary uses its own part")]
#![allow(unreachable_pub, missing_docs, reason = "a test binary exports nothing")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_session_memory::{
    Decision, RequestBody, ResponseBody, SessionMemoryLayer,
    protocol::{Protocol, openai_chat::OpenAiChat},
    session::{Principal, SessionKey},
    store::{DynHistoryStore, InMemoryStore},
};

use crate::lines::Lines;

/// A conversation with a model that gives the answers that it is set to, one a request.
pub struct Talk {
    pub layer: SessionMemoryLayer,
    pub store: Arc<dyn DynHistoryStore>,
    pub answers: Arc<Mutex<VecDeque<Answer>>>,
    pub seen: Arc<Mutex<Vec<Value>>>,
    pub decisions: Arc<Mutex<Vec<Decision>>>,
    /// Whether each request still had our control header.
    pub controls: Arc<Mutex<Vec<bool>>>,
}

/// What a model answers.
pub enum Answer {
    Json(Value),
    /// Events, and whether they end.
    Events(Vec<String>, bool),
}

/// Both formats, of which the second is this one.
pub fn both(lines: Lines) -> [Arc<dyn Protocol>; 2] {
    [Arc::new(OpenAiChat::new()), Arc::new(lines)]
}

pub fn key(session: &str) -> SessionKey {
    SessionKey::new("default", Principal::anonymous(), session.parse().unwrap())
}

/// What the layer says of a response.
pub fn told(response: &Response<Bytes>) -> &str {
    response.headers().get("session-memory").map_or("", |value| value.to_str().unwrap())
}

impl Talk {
    pub fn new(lines: Lines) -> Self {
        Self::on(Arc::new(InMemoryStore::new()), lines)
    }

    pub fn on(store: Arc<dyn DynHistoryStore>, lines: Lines) -> Self {
        let layer = SessionMemoryLayer::from_arc(Arc::clone(&store)).with_protocols(both(lines));
        let (answers, seen, decisions, controls) = Default::default();
        Self { layer, store, answers, seen, decisions, controls }
    }

    /// Adds an answer.
    pub fn will_say(&self, lines: &[&str]) {
        self.will_answer(Answer::Json(json!({"said": lines, "end": "done"})));
    }

    /// Adds an answer that comes as a stream, and breaks off nowhere unless it does not end.
    pub fn will_stream(&self, lines: &[&str], ends: bool) {
        let lines = lines.iter().map(|line| json!(line).to_string());
        let lines = lines.chain(ends.then(|| "done".to_owned()));
        let events = lines.map(|line| format!("data: {line}\n\n")).collect();
        self.will_answer(Answer::Events(events, ends));
    }

    pub fn will_answer(&self, answer: Answer) {
        self.answers.lock().unwrap().push_back(answer);
    }

    pub async fn say(&self, session: &str, lines: &[&str]) -> Response<Bytes> {
        self.post("/lines", None, json!({"talk": session, "lines": lines})).await
    }

    pub async fn post(&self, path: &str, session: Option<&str>, body: Value) -> Response<Bytes> {
        let request = request(path, session, &body);
        self.send(request).await
    }

    pub async fn send(&self, request: Request<Full<Bytes>>) -> Response<Bytes> {
        let (head, body) = self.begin(request).await.into_parts();
        Response::from_parts(head, body.collect().await.unwrap().to_bytes())
    }

    /// The response when its head has come.
    pub async fn begin(&self, request: Request<Full<Bytes>>) -> Response<ResponseBody<Reply>> {
        let (answers, seen, decisions) = (self.answers.clone(), self.seen.clone(), self.decisions.clone());
        let controls = self.controls.clone();
        let model = tower::service_fn(move |request: Request<RequestBody<Full<Bytes>>>| {
            let (answers, seen, decisions) = (answers.clone(), seen.clone(), decisions.clone());
            controls.lock().unwrap().push(request.headers().contains_key("session-memory"));
            async move {
                decisions.lock().unwrap().extend(request.extensions().get::<Decision>().cloned());
                let body = request.into_body().collect().await.unwrap().to_bytes();
                seen.lock().unwrap().push(serde_json::from_slice(&body).unwrap_or_default());
                let answer = answers.lock().unwrap().pop_front().expect("an answer is left");
                Ok::<_, Infallible>(answer.into_response())
            }
        });
        self.layer.layer(model).oneshot(request).await.unwrap()
    }

    /// The lines of the newest request.
    pub fn saw(&self) -> Vec<String> {
        let seen = self.seen.lock().unwrap();
        let lines = seen.last().unwrap()["lines"].as_array().unwrap();
        lines.iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    }
}

pub fn request(path: &str, session: Option<&str>, body: &Value) -> Request<Full<Bytes>> {
    let mut request = Request::post(path).header("content-type", "application/json");
    if let Some(session) = session {
        request = request.header("x-session-id", session);
    }
    request.body(Full::new(Bytes::from(body.to_string()))).unwrap()
}

impl Answer {
    fn into_response(self) -> Response<Reply> {
        let (kind, frames, ends) = match self {
            Self::Json(value) => ("application/json", vec![value.to_string()], true),
            Self::Events(events, ends) => ("text/event-stream", events, ends),
        };
        let frames = frames.into_iter().map(Bytes::from).collect();
        Response::builder().header("content-type", kind).body(Reply { frames, ends }).unwrap()
    }
}

/// A reply's body, which stays open where it does not end.
pub struct Reply {
    frames: VecDeque<Bytes>,
    ends: bool,
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.frames.pop_front() {
            Some(frame) => Poll::Ready(Some(Ok(Frame::data(frame)))),
            None if self.ends => Poll::Ready(None),
            None => Poll::Pending,
        }
    }
}
